//! `framecache._framecache.Direct`.

use super::counters::Counters;
use super::error::{guard, is_framecache_error};
use super::store::Store;
use super::stored::Shown;
use pyo3::exceptions::{PyImportError, PyTypeError, PyUnicodeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyNotImplemented, PyString, PyTuple};

/// Reads a store for who wants values and no more, in one call.
///
/// Args:
///     store: where it reads.
///     clock: `clock.time()` gives the seconds since 1970-01-01 UTC.
///     counts: counts hits and misses.
///     decode: called with payload, codec, description and `views` for a value that is not decoded here.
///     damaged: called with the key of an entry whose bytes are not what was written, which is a miss and gone.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct Direct {
    store: Py<Store>,
    clock: Py<PyAny>,
    counts: Py<Counters>,
    decode: Py<PyAny>,
    damaged: Py<PyAny>,
}

#[pymethods]
impl Direct {
    #[new]
    fn new(store: Py<Store>, clock: Py<PyAny>, counts: Py<Counters>, decode: Py<PyAny>, damaged: Py<PyAny>) -> Self {
        Self { store, clock, counts, decode, damaged }
    }

    /// The value of `key`, or `default`, which is counted; `NotImplemented`, and nothing is counted, where something
    /// is wrong that is to be logged or raised.
    #[pyo3(signature = (key, default, views))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
        views: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (what, value) = match guard(|| self.find(py, key, default, views)) {
            Ok(found) => found,
            Err(error) if is_to_be_told(py, &error) => return Ok(PyNotImplemented::get(py).to_owned().into_any()),
            Err(error) => return Err(error),
        };
        self.counts.get().add(&what, 1)?;
        Ok(value)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.clock)?;
        visit.call(&self.decode)?;
        visit.call(&self.damaged)
    }
}

impl Direct {
    /// What is counted and returned.
    fn find<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
        views: bool,
    ) -> PyResult<(Bound<'py, PyString>, Bound<'py, PyAny>)> {
        let text = key.cast::<PyString>()?.to_str()?;
        let seconds: f64 = self.clock.bind(py).call_method0(intern!(py, "time"))?.extract()?;
        let shown = match self.store.get().show(py, text, (seconds * 1000.0).round_ties_even() as u64, views)? {
            Shown::Value(value) => value,
            Shown::Other(shown) => match shown.cast_into_exact::<PyTuple>() {
                Ok(encoded) => {
                    let (payload, codec, described) =
                        encoded.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
                    self.decode.bind(py).call1((payload, codec, described, views))?
                }
                Err(reason) => {
                    let reason = reason.into_inner().cast_into::<PyString>()?;
                    if reason == "unreadable" {
                        self.damaged.bind(py).call1((key,))?;
                    }
                    return Ok((reason, default.clone()));
                }
            },
        };
        Ok((intern!(py, "store_hit").clone(), shown))
    }
}

/// Whether an error says what is wrong with the key, the entry or the store.
fn is_to_be_told(py: Python<'_>, error: &PyErr) -> bool {
    is_framecache_error(py, error)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyUnicodeError>(py)
        || error.is_instance_of::<PyImportError>(py)
}
