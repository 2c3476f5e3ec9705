//! `framecache.SerializationWrapper`.
#![allow(unsafe_code)]

use super::error::guard;
use super::input::{Exported, Input, View};
use super::metadata::{self, Parsed};
use crate::buffer::{AlignedBuf, pool};
use crate::error::{Error, Result};
use crate::frame::{self, MAX_HEADER, PREFIX};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMappingProxy, PyString};
use std::ptr::NonNull;

/// Frames and unframes serialized bytes: the v3 frame and, to read, the JSON envelope before it.
#[pyclass(frozen, module = "framecache")]
pub(super) struct SerializationWrapper;

type Unwrapped<'py, M> = (Bound<'py, PyAny>, Bound<'py, M>, Bound<'py, PyString>);

#[pymethods]
impl SerializationWrapper {
    /// A v3 frame: header without padding, then a copy of `data`.
    ///
    /// Byte-identical to cachekit 0.24.1. `data` is copied once.
    #[staticmethod]
    #[pyo3(signature = (data, metadata, serializer_name, version="2.0"))]
    fn wrap<'py>(
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        metadata: &Bound<'py, PyDict>,
        serializer_name: &str,
        version: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let input = Input::from(data)?;
        let json = header(metadata, serializer_name, version)?;
        let prefix = frame::prefix(&json, 1, 0)?;
        let len = prefix.len().checked_add(input.len()).ok_or(Error::Memory { bytes: usize::MAX })?;
        new_bytes(py, len, |target| {
            // SAFETY: there is room for the prefix and the data after it.
            unsafe {
                target.copy_from_nonoverlapping(NonNull::from(&*prefix).cast(), prefix.len());
                input.copy_to(py, target.add(prefix.len()));
            }
            Ok(())
        })
    }

    /// What stands before the payload: prefix and header, padded with spaces until `offset` plus its length is a
    /// multiple of `align`.
    #[staticmethod]
    #[pyo3(signature = (metadata, serializer_name, version="2.0", *, align=1, offset=0))]
    fn wrap_prefix<'py>(
        py: Python<'py>,
        metadata: &Bound<'py, PyDict>,
        serializer_name: &str,
        version: &str,
        align: isize,
        offset: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let json = header(metadata, serializer_name, version)?;
        // With an align of 1 nothing is padded, so the offset does not matter.
        let offset = if align == 1 { 0 } else { at_least("offset", 0, offset)? };
        Ok(PyBytes::new(py, &frame::prefix(&json, at_least("align", 1, align)?, offset)?))
    }

    /// The payload, its metadata and the serializer's name.
    ///
    /// For a v3 frame the payload is a read-only `memoryview` of `frame`'s own bytes; a legacy envelope's is `bytes`.
    /// The metadata dict is the caller's own. Raises `FrameError`, a `ValueError`.
    #[staticmethod]
    #[pyo3(signature = (frame))]
    fn unwrap<'py>(py: Python<'py>, frame: &Bound<'py, PyAny>) -> PyResult<Unwrapped<'py, PyDict>> {
        guard(|| {
            let (payload, parsed) = unwrap_with(py, frame, metadata::parse)?;
            Ok((payload, parsed.metadata, parsed.serializer))
        })
    }

    /// As `unwrap`, but the metadata is a read-only mapping that reads of equal headers share: nothing is copied.
    #[staticmethod]
    #[pyo3(signature = (frame))]
    fn unwrap_metadata<'py>(py: Python<'py>, frame: &Bound<'py, PyAny>) -> PyResult<Unwrapped<'py, PyMappingProxy>> {
        guard(|| {
            let (payload, parsed) = unwrap_with(py, frame, metadata::parse_shared)?;
            Ok((payload, PyMappingProxy::new(py, parsed.metadata.as_mapping()), parsed.serializer))
        })
    }
}

fn header(metadata: &Bound<'_, PyDict>, serializer_name: &str, version: &str) -> PyResult<Vec<u8>> {
    let mut json = Vec::with_capacity(192);
    json.extend_from_slice(b"{\"s\": ");
    frame::write_string(&mut json, serializer_name);
    json.extend_from_slice(b", \"m\": ");
    let flat = metadata::write_object(&mut json, metadata)?;
    json.extend_from_slice(b", \"v\": ");
    frame::write_string(&mut json, version);
    json.push(b'}');
    if !flat {
        frame::check_json(&json, PREFIX).map_err(|error| metadata::unwritable(error.to_string()))?;
    }
    Ok(json)
}

fn at_least(argument: &'static str, least: isize, value: isize) -> Result<usize> {
    match usize::try_from(value) {
        Ok(number) if value >= least => Ok(number),
        _ => Err(Error::Argument { argument, expected: format!("{least} or more").into(), found: value.to_string() }),
    }
}

type Parse<'py> = fn(Python<'py>, &[u8]) -> PyResult<Parsed<'py>>;

fn unwrap_with<'py>(
    py: Python<'py>,
    object: &Bound<'py, PyAny>,
    parse: Parse<'py>,
) -> PyResult<(Bound<'py, PyAny>, Parsed<'py>)> {
    if let Ok(text) = object.cast::<PyString>() {
        return unwrap_legacy(py, text.to_str()?.as_bytes());
    }
    let input = Input::from(object)?;
    let copy;
    let bytes = match &input {
        Input::Bytes(bytes) => bytes.as_bytes(),
        Input::Frame(frame) => frame,
        Input::Foreign(exported) => {
            copy = head_of(exported)?;
            copy.as_slice()
        }
    };
    if !frame::is_frame(bytes) {
        return unwrap_legacy(py, bytes);
    }
    let json = frame::locate_header(bytes)?;
    let parsed = parse(py, &bytes[json.clone()])?;
    Ok((View::memoryview(py, input, json.end)?.into_any(), parsed))
}

/// A copy of what is to be parsed, since the exporter's memory may change meanwhile: prefix and header of a frame, all
/// of anything else.
fn head_of(exported: &Exported) -> Result<AlignedBuf> {
    let mut head = AlignedBuf::default();
    exported.append_to(&mut head, 0, PREFIX)?;
    let prefix = head.as_slice();
    // A header of more than MAX_HEADER is an error that its length alone shows.
    let rest = if frame::is_frame(prefix) { stated_length(prefix).min(MAX_HEADER) } else { usize::MAX };
    exported.append_to(&mut head, PREFIX, rest)?;
    Ok(head)
}

/// The header's length as a frame's prefix has it; 0 for a prefix that is cut short.
fn stated_length(prefix: &[u8]) -> usize {
    prefix.get(3..PREFIX).and_then(|length| length.try_into().ok()).map_or(0, u32::from_be_bytes) as usize
}

fn unwrap_legacy<'py>(py: Python<'py>, json: &[u8]) -> PyResult<(Bound<'py, PyAny>, Parsed<'py>)> {
    let legacy = frame::parse_legacy(json)?;
    let metadata = metadata::parse_object(py, legacy.metadata())?;
    let payload = PyBytes::new_with(py, legacy.decoded_len()?, |out| Ok(legacy.decode(out)?))?;
    Ok((payload.into_any(), Parsed { metadata, serializer: PyString::new(py, legacy.serializer()) }))
}

/// A new `bytes` of `len` bytes, all of which `fill` must write; large ones get huge pages first.
pub(super) fn new_bytes<'py>(
    py: Python<'py>,
    len: usize,
    fill: impl FnOnce(NonNull<u8>) -> PyResult<()>,
) -> PyResult<Bound<'py, PyBytes>> {
    let size = ffi::Py_ssize_t::try_from(len).map_err(|_| Error::Memory { bytes: len })?;
    // SAFETY: attached; a new bytes object without contents has room for `len` bytes and is ours alone.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
        let bytes = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        if let Some(target) = NonNull::new(ffi::PyBytes_AS_STRING(object).cast_mut().cast()) {
            pool::advise_huge(target, len);
            fill(target)?;
        }
        Ok(bytes)
    }
}
