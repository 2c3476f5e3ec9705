//! `framecache._framecache.BlobStore`: the store under `Cache("file:…")`.

use super::arrow::table_from;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::json;
use super::metadata;
use super::msgpack;
use crate::codec::ARROW;
use crate::codec::json::JSON;
use crate::codec::msgpack::MSGPACK;
use crate::compress::Compression;
use crate::frame::{Header, MAX_VALUE};
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
    ///
    /// `compression` is that of new entries: `None`, `"lz4"`, `"zstd"`, `"zstd:LEVEL"` or `"auto"`. Payloads of more
    /// than `max_value_bytes` (1 GiB) are not stored, and not decompressed.
    #[new]
    #[pyo3(signature = (path, compression=None, max_value_bytes=None))]
    fn new(py: Python<'_>, path: PathBuf, compression: Option<&str>, max_value_bytes: Option<usize>) -> PyResult<Self> {
        let compression = compression.map_or(Ok(Compression::None), str::parse)?;
        let limit = max_value_bytes.unwrap_or(MAX_VALUE);
        py.detach(|| guard(|| Ok(Self(Store::open(&path)?.with_compression(compression).with_max_value(limit)))))
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
        if codec == JSON {
            let payload = json::payload(value)?;
            return py.detach(|| guard(|| Ok(self.0.put(key, header, payload.as_slice())?)));
        }
        let frame = Input::from(value)?.to_frame()?;
        py.detach(|| guard(|| Ok(self.0.put(key, header, &*frame)?)))
    }

    /// The payload of `key`'s entry, its codec and what `put` got as `python`; or the reason for a miss, a str.
    ///
    /// A compressed payload is decompressed, or is a `CopyRequired` with `require_zero_copy`.
    #[pyo3(signature = (key, now, *, require_zero_copy=false))]
    fn get<'py>(&self, py: Python<'py>, key: &str, now: u64, require_zero_copy: bool) -> PyResult<Bound<'py, PyAny>> {
        let found = py.detach(|| {
            guard(|| {
                Ok(match self.0.get(key, now)? {
                    Lookup::Hit { frame, header, payload } => {
                        Ok((self.0.payload(&frame, &header, payload, !require_zero_copy)?, header))
                    }
                    Lookup::Miss(reason) => Err(reason),
                })
            })
        })?;
        let (payload, header) = match found {
            Ok(hit) => hit,
            Err(reason) => return Ok(PyString::new(py, name_of(reason)).into_any()),
        };
        let python = serde_json::to_string(&header.python.unwrap_or_default()).unwrap_or_default();
        let python = metadata::parse_object(py, &python)?;
        Ok((Frame::from(payload), header.codec, python).into_pyobject(py)?.into_any())
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
