//! What `framecache._remote` reads and writes an engine with: `Entries` and `Reading`.

use super::described::{Described, Kind, Kinds};
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::metadata;
use super::msgpack;
use super::replies::Replies;
use crate::buffer::{FrameBuf, Origin};
use crate::call::tier::L1;
use crate::codec::msgpack::MSGPACK;
use crate::epoch::Epochs;
use crate::error::{Error, Result};
use crate::frame::{self, Header};
use crate::random;
use crate::remote::{self, DEADLINE_AT, Head, ID_AT, Missed, Names, NewHead, Tag, Tagged};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::sync::Arc;

/// Payloads up to this many bytes are copied out of what they were received with.
const SMALL: usize = 64 * 1024;

/// The entries of one namespace in an engine: their names, heads and frames.
///
/// Args:
///     namespace: the namespace.
///     epochs: keeps the counters that guards refer to.
///     distrust: called with a key and the key of the entry that was found in its place; raises an error.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct Entries {
    names: Names,
    tagged: Tagged,
    epochs: Arc<Epochs>,
    all: String,
    kinds: Kinds,
    distrust: Py<PyAny>,
}

#[pymethods]
impl Entries {
    #[new]
    fn new(namespace: &str, epochs: &Bound<'_, L1>, distrust: Py<PyAny>) -> PyResult<Self> {
        let (names, epochs) = (Names::new(namespace)?, epochs.get().inner().epochs().clone());
        let all = format!("\0link:{}", names.prefix());
        Ok(Self { names, tagged: Tagged::default(), epochs, all, kinds: Kinds::default(), distrust })
    }

    /// Begins to read the entries of `keys`.
    fn read(slf: &Bound<'_, Self>, keys: Vec<Bound<'_, PyString>>) -> PyResult<Reading> {
        let this = slf.get();
        let texts = keys.iter().map(|key| key.to_str()).collect::<PyResult<Vec<_>>>()?;
        let state = remote::Reading::new(&this.names, &this.tagged, &this.epochs, &this.all, &texts)?;
        let keys = keys.into_iter().map(Bound::unbind).collect();
        let entries = slf.clone().unbind();
        Ok(Reading { entries, keys, state, frames: Vec::new(), shared: false, copy: None })
    }

    /// The names of the entries of `keys`.
    fn entries(&self, keys: Vec<String>) -> PyResult<Vec<String>> {
        Ok(keys.iter().map(|key| self.names.entry(key)).collect::<Result<_>>()?)
    }

    /// Of what is removed when a key is written or removed.
    fn fence(&self, key: &str) -> PyResult<String> {
        Ok(self.names.fence(key)?)
    }

    /// Of the lease of a key.
    fn lease(&self, key: &str) -> PyResult<String> {
        Ok(self.names.lease(key)?)
    }

    /// Of the stamp of a tag.
    fn stamp(&self, tag: &str) -> String {
        self.names.stamp(&self.names.tag(tag))
    }

    /// What the names of entries and stamps begin with.
    #[getter]
    fn prefix(&self) -> &str {
        self.names.prefix()
    }

    /// The name whose guard tells that changes may have been missed.
    #[getter]
    fn all(&self) -> &str {
        &self.all
    }

    /// Of the stamp of the namespace.
    #[getter]
    fn generation(&self) -> &str {
        self.names.generation()
    }

    /// What stands before a payload of `length` bytes: a head with a new id, and the frame's header.
    #[pyo3(signature = (key, codec, python, length, created, deadline, until, stamp, tags))]
    #[expect(clippy::too_many_arguments, reason = "each a field of the entry")]
    fn pack<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        codec: &str,
        python: &Bound<'py, PyDict>,
        length: usize,
        created: u64,
        deadline: Option<u64>,
        until: Option<u64>,
        stamp: [u8; 8],
        tags: Vec<(String, [u8; 8])>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let tags = tags.iter().map(|(tag, stamp)| joined(&self.names.tag(tag), stamp)).collect();
        let head = NewHead { deadline, until, created, stamp, id: random::bytes()?, tags };
        let python = if python.is_empty() { None } else { Some(metadata::to_json_object(python)?) };
        let header = Header { key: Some(key.to_owned()), python, created: Some(created), until, ..Header::new(codec) };
        let mut out = head.to_bytes()?;
        out.extend_from_slice(&frame::prefix(&header.with_length(length).to_json(), 64, out.len())?);
        Ok(PyBytes::new(py, &out))
    }

    /// What is replaced where to move the deadline of an entry.
    #[staticmethod]
    fn deadline_at(py: Python<'_>, deadline: Option<u64>) -> (usize, Bound<'_, PyBytes>) {
        (DEADLINE_AT, PyBytes::new(py, &deadline.unwrap_or(u64::MAX).to_be_bytes()))
    }

    /// Where the id of an entry stands.
    #[classattr]
    const ID_AT: usize = ID_AT;

    /// How long the head of an entry is that begins with `start`; 0 if that is none.
    #[staticmethod]
    fn head_length(start: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(Head::stated_length(&Input::from(start)?.to_frame()?).unwrap_or_default())
    }
}

fn joined(tag: &[u8; 16], stamp: &[u8; 8]) -> Tag {
    let mut both = [0; 24];
    both[..16].copy_from_slice(tag);
    both[16..].copy_from_slice(stamp);
    both
}

/// A read of the entries of several keys.
#[pyclass(module = "framecache._framecache")]
pub(super) struct Reading {
    entries: Py<Entries>,
    keys: Vec<Py<PyString>>,
    state: remote::Reading,
    /// What was answered for each key.
    frames: Vec<Option<FrameBuf>>,
    /// Whether they stand in memory together with others.
    shared: bool,
    /// The frame of the one entry, where only its start was answered.
    copy: Option<FrameBuf>,
}

#[pymethods]
impl Reading {
    /// What to ask for: at first the entries of the keys, in their order, and stamps; nothing, when all is answered.
    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.state.names())
    }

    /// How many bytes were read.
    #[getter]
    fn nbytes(&self) -> usize {
        self.frames.iter().flatten().map(|frame| frame.len()).sum()
    }

    /// Takes the answers: buffers or `None`; returns what else to ask for.
    fn feed<'py>(&mut self, py: Python<'py>, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let (values, shared) = match values.cast_exact::<Replies>() {
            Ok(replies) => (replies.try_borrow_mut()?.take_values(), true),
            Err(_) => (frames_of(values)?, false),
        };
        let entries = self.entries.get();
        guard(|| {
            let keys = self.keys.iter().map(|key| key.bind(py).to_str()).collect::<PyResult<Vec<_>>>()?;
            self.state.feed(&entries.names, &entries.tagged, &entries.epochs, &keys, &values)?;
            if self.frames.is_empty() {
                self.frames = values;
                self.frames.truncate(self.keys.len());
                self.shared = shared;
            }
            PyList::new(py, self.state.names())
        })
    }

    /// Why the entry of a key cannot be served, a str, or when it was written, its deadline, its `until` and its id.
    #[pyo3(signature = (now, stale=false, index=0))]
    fn terms<'py>(&mut self, py: Python<'py>, now: u64, stale: bool, index: usize) -> PyResult<Bound<'py, PyAny>> {
        match self.state.entry(index, now, stale)? {
            Ok(entry) => {
                let id = PyBytes::new(py, &entry.id);
                Ok((entry.created, entry.deadline, entry.until, id).into_pyobject(py)?.into_any())
            }
            Err(missed) => Ok(reason_of(py, missed).clone().into_any()),
        }
    }

    /// As `Store.look` returns it.
    ///
    /// Raises `FrameError` for what is no entry, or not all of it, `DecodeError` for one that is compressed, and what
    /// `distrust` raises for that of another key.
    #[pyo3(signature = (now, stale=false, views=false, require_zero_copy=false, index=0))]
    fn result<'py>(
        &mut self,
        py: Python<'py>,
        now: u64,
        stale: bool,
        views: bool,
        require_zero_copy: bool,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        guard(|| match self.show(py, now, stale, views || require_zero_copy, false, index)? {
            Shown::Value(shown) | Shown::Other(shown) => Ok(shown),
        })
    }

    /// Takes the frame of the one entry that is read, of which only the start was answered.
    fn stand(&mut self, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        self.copy = Some(Input::from(frame)?.to_frame()?);
        Ok(())
    }

    /// The frame of the entry of a key, as it stands.
    #[pyo3(signature = (index=0))]
    fn frame(&mut self, index: usize) -> PyResult<Option<Frame>> {
        let Ok(entry) = self.state.entry(index, 0, true)? else { return Ok(None) };
        let head = entry.length;
        Ok(Some(self.own(index, head, 0)?.into()))
    }

    /// The values that need no more than a look, and what all others are, by key: as `result` returns or raises it.
    #[pyo3(signature = (now, views=false))]
    fn values<'py>(
        &mut self,
        py: Python<'py>,
        now: u64,
        views: bool,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let (values, rest) = (PyDict::new(py), PyDict::new(py));
        guard(|| {
            for index in 0..self.keys.len() {
                let found = self.show(py, now, false, views, !views, index);
                let key = self.keys[index].bind(py);
                match found {
                    Ok(Shown::Value(value)) => values.set_item(key, value)?,
                    Ok(Shown::Other(looked)) => rest.set_item(key, looked)?,
                    Err(error) => rest.set_item(key, error.into_value(py))?,
                }
            }
            Ok((values, rest))
        })
    }
}

/// What Python gets of an entry.
enum Shown<'py> {
    /// The value that was stored, where that is all that is asked for.
    Value(Bound<'py, PyAny>),
    /// The value, or what it has to be decoded from, and what is known of it; or why there is none.
    Other(Bound<'py, PyAny>),
}

impl Reading {
    fn show<'py>(
        &mut self,
        py: Python<'py>,
        now: u64,
        stale: bool,
        in_place: bool,
        decode: bool,
        index: usize,
    ) -> PyResult<Shown<'py>> {
        let missed = |missed| Ok(Shown::Other(reason_of(py, missed).clone().into_any()));
        let (head, times) = match self.state.entry(index, now, stale)? {
            Ok(entry) => (entry.length, (entry.created, entry.deadline, entry.until)),
            Err(reason) => return missed(reason),
        };
        let Some((whole, start)) = self.place(index, head) else { return missed(Missed::Absent) };
        let frame = whole.get(start..).unwrap_or_default();
        let (described, payload, until) = self.entries.get().check(py, frame, self.keys[index].bind(py))?;
        if until.is_some_and(|until| until < now) {
            return missed(Missed::Expired);
        }
        let bytes = frame.get(payload..).unwrap_or_default();
        let small = !in_place && bytes.len() <= SMALL;
        let value = if small && described.kind == Kind::Bytes {
            Some(PyBytes::new(py, bytes).into_any())
        } else if small && decode && described.codec.bind(py) == MSGPACK {
            // One that cannot be decoded is looked at once more, by who says why.
            msgpack::value_of(py, bytes).ok()
        } else {
            None
        };
        let value = match value {
            Some(value) if decode => return Ok(Shown::Value(value)),
            Some(value) => value,
            None => {
                let payload = Bound::new(py, Frame::from(self.own(index, head, payload)?))?;
                (payload, described.codec, described.python).into_pyobject(py)?.into_any()
            }
        };
        let (created, deadline, until) = times;
        let guards = PyBytes::new(py, &self.state.guards(index));
        Ok(Shown::Other((value, created, deadline, until, frame.len(), guards).into_pyobject(py)?.into_any()))
    }

    /// Where the frame of a key stands whose head is so long, and from where on.
    fn place(&self, index: usize, head: usize) -> Option<(&FrameBuf, usize)> {
        match &self.copy {
            Some(copy) => Some((copy, 0)),
            None => self.frames.get(index)?.as_ref().map(|whole| (whole, head)),
        }
    }

    /// The frame of a key from `at` on, in memory that it does not keep others in.
    fn own(&self, index: usize, head: usize, at: usize) -> Result<FrameBuf> {
        let Some((whole, start)) = self.place(index, head) else { return FrameBuf::copy_of(&[], Origin::Foreign) };
        let part = whole.slice(start + at..)?;
        if self.shared && self.copy.is_none() && whole.len() <= SMALL {
            return FrameBuf::copy_of(&part, part.origin());
        }
        Ok(part)
    }
}

impl Entries {
    /// What the header of `frame` says of the value, where its payload starts, and its `until`.
    fn check(
        &self,
        py: Python<'_>,
        frame: &[u8],
        key: &Bound<'_, PyString>,
    ) -> PyResult<(Described, usize, Option<u64>)> {
        let json = frame::locate_header(frame)?;
        let length = (frame.len() - json.end) as u64;
        if let Some((described, rest)) = self.kinds.find_rest(py, &frame[json.clone()])
            && let Some(rest) = remote::read_rest(rest, key.to_str()?)
            && rest.length == length
        {
            return Ok((described, json.end, rest.until));
        }
        let header = Header::parse(&frame[json.clone()])?;
        if header.key.as_deref() != Some(key.to_str()?) {
            self.distrust.bind(py).call1((key, header.key))?;
            return Err(Error::frame(0, "the entry of the key that was asked for", "that of another").into());
        }
        if header.length != Some(length) {
            let stated = header.length.map_or_else(|| "no".to_owned(), |length| length.to_string());
            return Err(Error::frame(json.end, format!("{stated} bytes of payload"), length.to_string()).into());
        }
        if let Some(compression) = header.compression {
            let expected = "a payload that is not compressed".into();
            return Err(
                Error::Decode { codec: "remote", place: "m.compression".into(), expected, found: compression }.into()
            );
        }
        let described = Described::of(py, &header)?;
        self.kinds.remember(py, frame, &header, &described)?;
        Ok((described, json.end, header.until))
    }
}

fn reason_of(py: Python<'_>, missed: Missed) -> &Bound<'_, PyString> {
    match missed {
        Missed::Absent => intern!(py, "absent"),
        Missed::Invalidated => intern!(py, "invalidated"),
        Missed::Expired => intern!(py, "expired"),
    }
}

fn frames_of(values: &Bound<'_, PyAny>) -> PyResult<Vec<Option<FrameBuf>>> {
    let mut frames = Vec::new();
    for value in values.try_iter()? {
        let value = value?;
        frames.push(if value.is_none() { None } else { Some(Input::from(&value)?.to_frame()?) });
    }
    Ok(frames)
}
