//! `framecache._framecache.L1` and `MISSING`.

use super::clock::Clock;
use super::frame::Frame;
use super::input::Input;
use super::store::Store;
use crate::call::held::{self, Filling};
use crate::call::tier::{L1, SCOPE, argument};
use crate::epoch::{Epochs, Guard};
use crate::l1::{Clock as Time, New, Options};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::sync::Arc;

/// Keys up to so many bytes are looked up without an allocation.
const SHORT: usize = 128;

/// The type of `MISSING`.
#[pyclass(frozen, module = "framecache._framecache")]
pub(crate) struct Missing;

#[pymethods]
impl Missing {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        Ok(missing(py)?.clone().unbind())
    }

    fn __repr__(&self) -> &'static str {
        "framecache.MISSING"
    }

    fn __bool__(&self) -> bool {
        false
    }

    fn __reduce__(&self) -> &'static str {
        "MISSING"
    }
}

/// The only [`Missing`].
pub(crate) fn missing(py: Python<'_>) -> PyResult<&Bound<'_, Missing>> {
    static MISSING: PyOnceLock<Py<Missing>> = PyOnceLock::new();
    MISSING.get_or_try_init(py, || Py::new(py, Missing)).map(|missing| missing.bind(py))
}

type Entry<'py> = (
    Bound<'py, PyAny>,
    Option<Bound<'py, Frame>>,
    Bound<'py, PyString>,
    Bound<'py, PyDict>,
    u64,
    Option<u64>,
    Option<u64>,
    u64,
);

#[pymethods]
impl L1 {
    /// An empty one of at most `max_bytes`.
    #[new]
    #[pyo3(signature = (max_bytes, *, decode, epochs=None, clock=None))]
    fn py_new(
        max_bytes: u64,
        decode: Py<PyAny>,
        epochs: Option<&Bound<'_, Store>>,
        clock: Option<&Bound<'_, Clock>>,
    ) -> PyResult<Self> {
        let epochs = match epochs {
            Some(store) => store.get().epochs()?,
            None => Arc::new(Epochs::private()),
        };
        let clock = clock.map_or_else(Time::system, |clock| clock.get().inner().clone());
        Ok(Self::new(Options { epochs, clock, ..Options::new(max_bytes) }, decode))
    }

    /// While not 0, every `Call` goes to its function for a miss.
    #[getter(slow)]
    fn py_slow(&self) -> i64 {
        self.slow()
    }

    #[setter(slow)]
    fn py_set_slow(&self, slow: i64) {
        self.set_slow(slow);
    }

    /// The value of `key` in a scope; `MISSING` where there is none that may be served.
    #[pyo3(signature = (scope, key, views=false))]
    fn get<'py>(&self, py: Python<'py>, scope: u32, key: &str, views: bool) -> PyResult<Bound<'py, PyAny>> {
        let (scope, key) = (scope.to_le_bytes(), key.as_bytes());
        let mut short = [0; SHORT];
        match short.get_mut(..SCOPE + key.len()) {
            Some(whole) => {
                whole[..SCOPE].copy_from_slice(&scope);
                whole[SCOPE..].copy_from_slice(key);
                self.find(py, whole, views)
            }
            None => self.find(py, &[&scope, key].concat(), views),
        }
    }

    /// As `get`, by canonical bytes.
    #[pyo3(signature = (key, views=false))]
    fn find<'py>(&self, py: Python<'py>, key: &[u8], views: bool) -> PyResult<Bound<'py, PyAny>> {
        match self.hit(py, key, views)? {
            Some(value) => Ok(value),
            None => Ok(missing(py)?.clone().into_any()),
        }
    }

    /// What is known of an entry; with `stale` also past its deadline, as long as `until` has not passed.
    #[pyo3(signature = (key, stale=false))]
    fn entry<'py>(&self, py: Python<'py>, key: &[u8], stale: bool) -> PyResult<Option<Entry<'py>>> {
        let Some(entry) = self.inner().entry(key, stale) else { return Ok(None) };
        let held = entry.value().bind(py);
        let (value, payload, codec, python) = match held::describe(held)? {
            None => (held.clone(), None, PyString::new(py, ""), None),
            Some(described) => {
                let payload = match described.payload.cast_into::<Frame>() {
                    Ok(frame) => frame,
                    Err(bytes) => Bound::new(py, Frame::from(Input::from(&bytes.into_inner())?.to_frame()?))?,
                };
                (missing(py)?.clone().into_any(), Some(payload), described.codec, described.python)
            }
        };
        let python = python.unwrap_or_else(|| PyDict::new(py));
        Ok(Some((value, payload, codec, python, entry.created(), entry.deadline(), entry.until(), entry.bytes())))
    }

    /// Keeps a value; whether it fits and is not out of date already.
    #[pyo3(signature = (key, value, payload, codec, python, created, deadline, until, guards, share=false))]
    #[expect(clippy::too_many_arguments, reason = "each a field of the entry")]
    fn fill<'py>(
        &self,
        key: &[u8],
        value: &Bound<'py, PyAny>,
        payload: Option<&Bound<'py, Frame>>,
        codec: &Bound<'py, PyString>,
        python: Option<&Bound<'py, PyDict>>,
        created: u64,
        deadline: Option<u64>,
        until: Option<u64>,
        guards: &[u8],
        share: bool,
    ) -> PyResult<bool> {
        let payload = payload.map(|frame| (frame.get().buf(), frame.as_any()));
        let filling = Filling { value, payload, codec, python, share };
        check_guards(guards)?;
        self.fill_with(key, &filling, New { bytes: 0, created, deadline, until, guards })
    }

    /// Moves the deadline of an entry, never beyond its `until`; whether there was one to serve.
    fn touch(&self, key: &[u8], deadline: Option<u64>) -> bool {
        self.inner().touch(key, deadline)
    }

    /// Removes an entry; whether there was one to serve.
    fn remove(&self, key: &[u8]) -> bool {
        self.inner().remove(key)
    }

    /// What follows `scope` in the keys of its entries that may be served.
    fn keys<'py>(&self, py: Python<'py>, scope: u32) -> Vec<Bound<'py, PyBytes>> {
        let mut keys = Vec::new();
        self.each_key(scope, |rest| keys.push(PyBytes::new(py, rest)));
        keys
    }

    /// Removes the entries that may not be served any more, not even stale; how many there were.
    fn purge(&self) -> usize {
        self.inner().purge()
    }

    /// Removes all entries.
    fn clear(&self) {
        self.inner().clear();
    }

    /// Guards of `names`, taken now.
    fn guards<'py>(&self, py: Python<'py>, names: Vec<Bound<'py, PyString>>) -> PyResult<Bound<'py, PyBytes>> {
        let epochs = self.inner().epochs();
        let mut guards = Vec::with_capacity(names.len() * 6);
        for name in &names {
            guards.extend_from_slice(&epochs.guard(hash_of(name)?).to_bytes());
        }
        Ok(PyBytes::new(py, &guards))
    }

    /// Makes guards of `names` that were taken before not hold.
    fn bump(&self, names: Vec<Bound<'_, PyString>>) -> PyResult<()> {
        for name in &names {
            self.inner().epochs().bump(hash_of(name)?);
        }
        Ok(())
    }

    /// Whether all of `guards` hold.
    fn holds(&self, guards: &[u8]) -> PyResult<bool> {
        Ok(check_guards(guards)?.iter().all(|guard| self.inner().epochs().holds(Guard::from_bytes(*guard))))
    }

    /// Sizes and counts, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.inner().stats();
        let shown = PyDict::new(py);
        for (name, number) in [
            ("entries", stats.entries),
            ("bytes", stats.bytes),
            ("max_bytes", stats.max_bytes),
            ("hits", stats.hits),
            ("misses", stats.misses),
            ("evicted", stats.evicted),
            ("expired", stats.expired),
            ("invalidated", stats.invalidated),
            ("rejected", stats.rejected),
        ] {
            shown.set_item(name, number)?;
        }
        Ok(shown)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.decode())
    }
}

fn hash_of(name: &Bound<'_, PyString>) -> PyResult<u64> {
    Ok(xxhash_rust::xxh3::xxh3_64(name.to_str()?.as_bytes()))
}

fn check_guards(guards: &[u8]) -> PyResult<&[[u8; 6]]> {
    match guards.as_chunks() {
        (guards, []) => Ok(guards),
        _ => Err(argument("guards", "a multiple of 6 bytes", format!("{} bytes", guards.len()))),
    }
}
