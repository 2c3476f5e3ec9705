//! `framecache._framecache.Store`: the store under `Cache("file:…")`.

use super::arrow::table_from;
use super::described::Kinds;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::json;
use super::metadata;
use super::msgpack;
use super::stored::{Short, Shown, Wanted};
use crate::buffer::{AlignedBuf, FrameBuf};
use crate::codec::ARROW;
use crate::codec::json::JSON;
use crate::codec::msgpack::MSGPACK;
use crate::compress::Compression;
use crate::epoch::Epochs;
use crate::error::{Error, Result};
use crate::frame::{Header, Payload};
use crate::store::{AtHand, Durability, IndexMode, Inline, Lookup, New, Options, Store as Inner, Stored, Verify};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A directory of entries, shared by all processes of one user.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct Store {
    /// Emptied only when dropped.
    inner: Option<Arc<Inner>>,
    pub(super) kinds: Kinds,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing waits for whoever is opening a store, and who does that may need the GIL.
        if let Some(inner) = self.inner.take() {
            Python::attach(|py| py.detach(|| drop(inner)));
        }
    }
}

impl Store {
    /// The table that guards of its entries refer to.
    pub(super) fn epochs(&self) -> Result<Arc<Epochs>> {
        self.inner()?.epochs()
    }

    pub(super) fn inner(&self) -> Result<&Inner> {
        self.held().map(|inner| &**inner)
    }

    /// The store, for what goes on using it.
    pub(super) fn shared(&self) -> Result<Arc<Inner>> {
        self.held().cloned()
    }

    fn held(&self) -> Result<&Arc<Inner>> {
        self.inner.as_ref().ok_or_else(|| Error::Store {
            path: String::new(),
            expected: "an open store".into(),
            found: "one that is being closed".to_owned(),
        })
    }

    /// Runs `work` without the GIL. An exception that a signal's handler raised meanwhile comes before what it returns.
    pub(super) fn detached<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Inner) -> Result<T> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| guard(|| Ok(work(self.inner()?)?)));
        match INTERRUPTION.take() {
            Some(error) => Err(error),
            None => done,
        }
    }
}

#[pymethods]
impl Store {
    /// Opens the directory at `path`, creating it with mode 0700. See `Options` in the crate for what each argument is.
    #[new]
    #[pyo3(signature = (path, *, namespace="", max_bytes=None, verify="header", durability=None, index=None,
        index_bytes=None, read_only=false, compression=None, max_value_bytes=None, writer_timeout=None))]
    #[expect(clippy::too_many_arguments, reason = "each a setting of the store, by its name")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        namespace: &str,
        max_bytes: Option<u64>,
        verify: &str,
        durability: Option<&str>,
        index: Option<&str>,
        index_bytes: Option<u64>,
        read_only: bool,
        compression: Option<&str>,
        max_value_bytes: Option<usize>,
        writer_timeout: Option<f64>,
    ) -> PyResult<Self> {
        let default = Options::default();
        let timeout = writer_timeout.map_or(Ok(default.writer_timeout), seconds)?;
        let options = Options {
            max_bytes: max_bytes.unwrap_or(default.max_bytes),
            verify: one_of("verify", verify, &[("header", Verify::Header), ("full", Verify::Full)])?,
            durability: durability
                .map(|text| {
                    one_of("durability", text, &[("process", Durability::Process), ("power", Durability::Power)])
                })
                .transpose()?,
            index: index
                .map(|text| one_of("index", text, &[("pwrite", IndexMode::Pwrite), ("writemap", IndexMode::WriteMap)]))
                .transpose()?,
            index_bytes,
            read_only,
            compression: compression.map_or(Ok(Compression::None), str::parse)?,
            max_value: max_value_bytes.unwrap_or(default.max_value),
            writer_timeout: timeout,
            interrupted: Some(interrupted),
            namespace: namespace.to_owned(),
        };
        py.detach(|| {
            guard(|| Ok(Self { inner: Some(Arc::new(Inner::open(&path, options)?)), kinds: Kinds::default() }))
        })
    }

    /// Stores values, each given as key, codec, value and what `get` is to return as `python`, all in one transaction;
    /// returns for each `"written"`, `"exists"`, `"superseded"` or `"dropped"`.
    ///
    /// `codec` is `"raw"` for a bytes-like value, `"arrow"` for one with `__arrow_c_stream__` or `__arrow_c_array__`, and
    /// `"msgpack"` for any other. Times are in milliseconds since 1970.
    #[pyo3(signature = (values, created, until=None, *, deadline=None, tags=Vec::new(), if_absent=false, lease=None,
        fence=None))]
    #[expect(clippy::too_many_arguments, reason = "one call per write, each argument a field of its entries")]
    fn put_many<'py>(
        &self,
        py: Python<'py>,
        values: Vec<(String, String, Bound<'py, PyAny>, Bound<'py, PyDict>)>,
        created: u64,
        until: Option<u64>,
        deadline: Option<u64>,
        tags: Vec<String>,
        if_absent: bool,
        lease: Option<u64>,
        fence: Option<&[u8]>,
    ) -> PyResult<Vec<&'static str>> {
        let tags = texts_of(&tags);
        let mut sources = Vec::with_capacity(values.len());
        for (key, codec, value, python) in &values {
            let python = if python.is_empty() { None } else { Some(metadata::to_json_object(python)?) };
            let header = Header { python, created: Some(created), until, ..Header::new(codec) };
            let new = New { header, deadline, tags: &tags, if_absent, lease, fence, ..New::default() };
            sources.push((key.as_str(), new, Source::of(codec, value)?));
        }
        let stored = self.detached(py, |store| {
            let ready = sources.into_iter().map(|(key, new, source)| Ok((key, new, source.into_payload()?)));
            let mut ready = ready.collect::<Result<Vec<_>>>()?;
            let mut news: Vec<_> =
                ready.iter_mut().map(|(key, new, payload)| (*key, std::mem::take(new), &**payload)).collect();
            store.put_many(&mut news, created)
        })?;
        Ok(stored.into_iter().map(name_of).collect())
    }

    /// Stores frames as they are, each given as key, bytes-like frame and other keys whose entries it takes the place of,
    /// all in one transaction; returns as `put_many`.
    #[pyo3(signature = (frames, created, until=None, *, deadline=None, tags=Vec::new(), if_absent=false, lease=None,
        fence=None))]
    #[expect(clippy::too_many_arguments, reason = "one call per write, each argument a field of its entries")]
    fn put_frames<'py>(
        &self,
        py: Python<'py>,
        frames: Vec<(String, Bound<'py, PyAny>, Vec<String>)>,
        created: u64,
        until: Option<u64>,
        deadline: Option<u64>,
        tags: Vec<String>,
        if_absent: bool,
        lease: Option<u64>,
        fence: Option<&[u8]>,
    ) -> PyResult<Vec<&'static str>> {
        let tags = texts_of(&tags);
        let mut ready = Vec::with_capacity(frames.len());
        for (key, frame, replaces) in &frames {
            ready.push((key.as_str(), Input::from(frame)?.to_frame()?, texts_of(replaces)));
        }
        let stored = self.detached(py, |store| {
            let new = New { created: Some(created), until, deadline, if_absent, lease, fence, ..New::default() };
            let each = ready
                .iter()
                .map(|(key, frame, replaces)| (*key, New { tags: &tags, replaces, ..new.clone() }, &**frame));
            store.put_frames(&each.collect::<Vec<_>>(), created)
        })?;
        Ok(stored.into_iter().map(name_of).collect())
    }

    /// What `key` has, for who keeps a copy: exact `bytes` (with `views` a memoryview) and plain memoryviews as they are,
    /// of any other value the payload, its codec and what `put_many` got as `python`, a dict that is shared and must not be
    /// changed; when the entry was written, its deadline, its `until`, its size, and guards that tell when it changes; or
    /// the reason for a miss, a str. With `whole` the frame as it stands, whatever is in it.
    ///
    /// A compressed payload is decompressed, or is a `CopyRequired` with `require_zero_copy`. The GIL is released where a
    /// file must be opened.
    #[pyo3(signature = (key, now, *, views=false, require_zero_copy=false, stale=false, at_hand=false, whole=false))]
    #[expect(clippy::too_many_arguments, reason = "one call per read, each argument a choice of its caller")]
    fn look<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        now: u64,
        views: bool,
        require_zero_copy: bool,
        stale: bool,
        at_hand: bool,
        whole: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        guard(|| {
            let in_place = views || require_zero_copy || whole;
            let inline = |inline: Inline<'_>| self.inline(py, inline, in_place);
            let (found, terms) = match self.inner()?.look_at_hand(key, now, stale, inline)? {
                (AtHand::Elsewhere, _) if at_hand => return Ok(intern!(py, "elsewhere").clone().into_any()),
                (AtHand::Elsewhere, _) => {
                    let (found, terms) = self.detached(py, |store| store.look(key, now, stale))?;
                    (AtHand::Found(found), terms)
                }
                found => found,
            };
            let shown = if whole {
                self.whole(py, key, now, found)?
            } else {
                let wanted = Wanted { views, zero_copy: require_zero_copy, decoded: false };
                self.at_hand(py, key, now, found, wanted)?
            };
            let shown = shown.into_object();
            let Some(terms) = terms else { return Ok(shown) };
            let guards = PyBytes::new(py, &terms.guards);
            let all = (shown, terms.created, terms.deadline, terms.until, terms.size, guards);
            Ok(all.into_pyobject(py)?.into_any())
        })
    }

    /// Guards of `key`'s name, the namespace and `tags` as they stand now.
    fn fence<'py>(&self, py: Python<'py>, key: &str, tags: Vec<String>) -> PyResult<Bound<'py, PyBytes>> {
        let tags = texts_of(&tags);
        Ok(PyBytes::new(py, &self.detached(py, |store| store.fence(key, &tags))?))
    }

    /// Whether all of `guards` still hold.
    fn holds(&self, guards: &[u8]) -> PyResult<bool> {
        Ok(self.inner()?.holds(guards)?)
    }

    /// What several keys have, read at one moment: a dict of the values that are decoded at once, and what was found of all
    /// others, by key, as `look` has it.
    #[pyo3(signature = (keys, now, views=false))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<Bound<'py, PyString>>,
        now: u64,
        views: bool,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let (values, rest) = (PyDict::new(py), PyDict::new(py));
        let texts = keys.iter().map(|key| key.to_str()).collect::<PyResult<Vec<_>>>()?;
        let mut all = Vec::with_capacity(keys.len());
        let wanted = Wanted { views, zero_copy: false, decoded: true };
        guard(|| {
            self.inner()?.get_many_at_hand::<_, PyErr>(
                &texts,
                now,
                |inline| self.inline(py, inline, views),
                |found| {
                    all.push(match found {
                        AtHand::Inline(Short::Bytes(bytes)) => Ok(bytes),
                        other => Err(Box::new(other)),
                    });
                    Ok(())
                },
            )?;
            for ((key, text), found) in keys.iter().zip(&texts).zip(all) {
                match found {
                    Ok(bytes) => values.set_item(key, bytes)?,
                    Err(other) => match self.at_hand(py, text, now, *other, wanted)? {
                        Shown::Value(value) => values.set_item(key, value)?,
                        Shown::Other(other) => rest.set_item(key, other)?,
                    },
                }
            }
            Ok(())
        })?;
        Ok((values, rest))
    }

    /// Whether `look` would find an entry.
    fn contains(&self, py: Python<'_>, key: &str, now: u64) -> PyResult<bool> {
        self.detached(py, |store| store.contains(key, now))
    }

    /// The frame of `key`'s entry, when it was written, and its deadline; `None` for a miss.
    fn entry(&self, py: Python<'_>, key: &str, now: u64) -> PyResult<Option<(Frame, u64, Option<u64>)>> {
        Ok(match self.detached(py, |store| store.get(key, now))? {
            Lookup::Hit(hit) => Some((Frame::from(hit.frame), hit.created, hit.deadline)),
            Lookup::Miss(_) => None,
        })
    }

    /// Moves the deadline of `key`'s entry; whether there was one to serve.
    #[pyo3(signature = (key, deadline, now))]
    fn touch(&self, py: Python<'_>, key: &str, deadline: Option<u64>, now: u64) -> PyResult<bool> {
        self.detached(py, |store| store.touch(key, deadline, now))
    }

    /// Removes the entries of `keys`; how many there were.
    fn delete_many(&self, py: Python<'_>, keys: Vec<String>, now: u64) -> PyResult<u64> {
        let keys = texts_of(&keys);
        self.detached(py, |store| store.delete_many(&keys, now))
    }

    /// Removes the entry of `key` if `look` gave these guards with it and they still hold; whether it was removed.
    fn delete_if(&self, py: Python<'_>, key: &str, guards: &[u8], now: u64) -> PyResult<bool> {
        self.detached(py, |store| store.delete_if(key, guards, now))
    }

    /// Makes all entries with one of `tags` misses.
    fn invalidate_tags(&self, py: Python<'_>, tags: Vec<String>, now: u64) -> PyResult<()> {
        let tags = texts_of(&tags);
        self.detached(py, |store| store.invalidate_tags(&tags, now))
    }

    /// Makes all entries of the namespace misses.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, Inner::clear)
    }

    /// A part of the keys that begin with `prefix`, and where the next part begins; `None` at the end.
    #[pyo3(signature = (prefix, start, now))]
    fn keys(
        &self,
        py: Python<'_>,
        prefix: &str,
        start: Option<[u8; 32]>,
        now: u64,
    ) -> PyResult<(Vec<String>, Option<Vec<u8>>)> {
        let (keys, next) = self.detached(py, |store| store.keys(prefix, start, now))?;
        Ok((keys, next.map(Vec::from)))
    }

    /// A token, if nobody else computes the value of `key`.
    fn lease(&self, py: Python<'_>, key: &str, milliseconds: u64, now: u64) -> PyResult<Option<u64>> {
        self.detached(py, |store| store.lease(key, milliseconds, now))
    }

    /// Gives a lease back; whether it was still held.
    fn release(&self, py: Python<'_>, key: &str, token: u64) -> PyResult<bool> {
        self.detached(py, |store| store.release(key, token))
    }

    /// Sizes and counts, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.detached(py, Inner::stats)?;
        let shown = PyDict::new(py);
        for (name, number) in [
            ("index_bytes", stats.index_bytes),
            ("blob_bytes", stats.blob_bytes),
            ("reserved_bytes", stats.reserved_bytes),
            ("pinned_bytes", stats.pinned_bytes),
            ("blobs", stats.blobs),
            ("max_bytes", stats.max_bytes),
            ("dropped", stats.dropped),
            ("evicted", stats.evicted),
            ("expired", stats.expired),
            ("damaged", stats.damaged),
        ] {
            shown.set_item(name, number)?;
        }
        Ok(shown)
    }

    /// Checks every entry; how many are whole, how many were damaged, and how many files no entry named.
    fn verify(&self, py: Python<'_>) -> PyResult<(u64, u64, u64)> {
        let found = self.detached(py, Inner::verify)?;
        Ok((found.whole, found.damaged, found.orphans))
    }
}

thread_local! {
    /// What the handler of a signal raised while this thread waited.
    static INTERRUPTION: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Runs the handlers of signals that came in; whether one raised.
fn interrupted() -> bool {
    let raised = Python::attach(|py| py.check_signals()).err();
    let interrupted = raised.is_some();
    INTERRUPTION.set(raised);
    interrupted
}

/// The exception that a signal's handler raised while this thread waited for the store.
pub(super) fn interruption() -> Option<PyErr> {
    INTERRUPTION.take()
}

/// A value as it was given, to be written without the GIL.
enum Source {
    Table(super::arrow::Source),
    Memory(AlignedBuf),
    Frame(FrameBuf),
}

impl Source {
    fn of(codec: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match codec {
            ARROW => Self::Table(table_from(value)?),
            MSGPACK => Self::Memory(msgpack::payload(value)?),
            JSON => Self::Memory(json::payload(value)?),
            _ => Self::Frame(Input::from(value)?.to_frame()?),
        })
    }

    fn into_payload(self) -> Result<Box<dyn Payload>> {
        Ok(match self {
            Self::Table(table) => Box::new(table.into_table()?.into_payload()?),
            Self::Memory(buffer) => Box::new(buffer),
            Self::Frame(frame) => Box::new(frame),
        })
    }
}

fn texts_of(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn seconds(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| Error::Argument {
        argument: "writer_timeout",
        expected: "seconds from 0".into(),
        found: seconds.to_string(),
    })
}

fn one_of<T: Copy>(argument: &'static str, text: &str, known: &[(&str, T)]) -> Result<T> {
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| Error::Argument {
        argument,
        expected: known.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ").into(),
        found: format!("{text:?}"),
    })
}

fn name_of(stored: Stored) -> &'static str {
    match stored {
        Stored::Written(_) => "written",
        Stored::Exists => "exists",
        Stored::Superseded => "superseded",
        Stored::Dropped => "dropped",
    }
}
