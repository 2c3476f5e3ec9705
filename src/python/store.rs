//! `framecache._framecache.BlobStore`: the store under `Cache("file:…")`.

use super::arrow::table_from;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::metadata;
use super::msgpack;
use crate::codec::ARROW;
use crate::codec::msgpack::MSGPACK;
use crate::frame::Header;
use crate::store::{BlobStore as Store, Lookup, Miss};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::path::PathBuf;

/// Blob files in one directory.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct BlobStore(Store);

#[pymethods]
impl BlobStore {
    /// Opens the directory at `path`, creating it with mode 0700.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| guard(|| Ok(Self(Store::open(&path)?))))
    }

    /// Stores `value` under `key`; returns the size of the entry in bytes.
    ///
    /// `codec` is `"raw"` for a bytes-like value, `"arrow"` for one with `__arrow_c_stream__` or `__arrow_c_array__`, and
    /// `"msgpack"` for any other. `python` is kept in the header for `get`. Times are in milliseconds since 1970.
    #[pyo3(signature = (key, codec, value, python, created, until=None))]
    #[expect(clippy::too_many_arguments, reason = "one call per entry, each argument a field of it")]
    fn put(
        &self,
        py: Python<'_>,
        key: &str,
        codec: &str,
        value: &Bound<'_, PyAny>,
        python: &Bound<'_, PyDict>,
        created: u64,
        until: Option<u64>,
    ) -> PyResult<usize> {
        let python = Some(metadata::to_json_object(python)?);
        let header = Header { python, created: Some(created), until, ..Header::new(codec) };
        if codec == ARROW {
            let source = table_from(value)?;
            return py.detach(|| guard(|| Ok(self.0.put(key, header, &source.into_table()?.into_payload()?)?)));
        }
        if codec == MSGPACK {
            let payload = msgpack::payload(value)?;
            return py.detach(|| guard(|| Ok(self.0.put(key, header, payload.as_slice())?)));
        }
        let frame = Input::from(value)?.to_frame()?;
        py.detach(|| guard(|| Ok(self.0.put(key, header, &*frame)?)))
    }

    /// The payload of `key`'s entry, its codec and what `put` got as `python`; or the reason for a miss, a str.
    fn get<'py>(&self, py: Python<'py>, key: &str, now: u64) -> PyResult<Bound<'py, PyAny>> {
        let found = py.detach(|| guard(|| Ok(self.0.get(key, now)?)))?;
        let (frame, header, payload) = match found {
            Lookup::Hit { frame, header, payload } => (frame, header, payload),
            Lookup::Miss(reason) => return Ok(PyString::new(py, name_of(reason)).into_any()),
        };
        let python = serde_json::to_string(&header.python.unwrap_or_default()).unwrap_or_default();
        let python = metadata::parse_object(py, &python)?;
        let payload = Frame::from(frame.slice(payload..)?);
        Ok((payload, header.codec, python).into_pyobject(py)?.into_any())
    }

    /// Whether `get` would find an entry.
    fn contains(&self, py: Python<'_>, key: &str, now: u64) -> PyResult<bool> {
        let found = py.detach(|| guard(|| Ok(self.0.get(key, now)?)))?;
        Ok(matches!(found, Lookup::Hit { .. }))
    }

    /// Removes the entry of `key`; whether there was one.
    fn delete(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        py.detach(|| guard(|| Ok(self.0.delete(key)?)))
    }
}

fn name_of(reason: Miss) -> &'static str {
    match reason {
        Miss::Absent => "absent",
        Miss::Expired => "expired",
        Miss::OtherKey => "other_key",
    }
}
