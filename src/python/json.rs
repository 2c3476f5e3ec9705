//! `framecache.json`.
#![allow(unsafe_code)]

use super::error::guard;
use super::frame::Frame;
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::codec::json::{Decoder, Encoder, Failure, Fragment, Invalid, JSON, option};
use crate::cpython::text::Text;
use crate::cpython::{Sink, Writer};
use crate::frame::{Draft, Header};
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString, PyType};
use std::mem::MaybeUninit;

/// Adds what the module has.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Fragment>()?;
    for (name, value) in option::NAMES {
        module.add(name, value)?;
    }
    module.add_function(wrap_pyfunction!(dumps, module)?)?;
    module.add_function(wrap_pyfunction!(loads, module)?)?;
    module.add_function(wrap_pyfunction!(json_payload, module)?)?;
    module.add_function(wrap_pyfunction!(encode_json, module)?)
}

/// Serialize Python objects to JSON.
#[pyfunction]
#[pyo3(signature = (obj, /, default=None, option=None))]
fn dumps<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    default: Option<&Bound<'py, PyAny>>,
    option: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let options = options_of(option)?;
    guard(|| {
        Writer::with(Sink::Bytes, |writer| {
            // SAFETY: attached, held by the caller.
            unsafe { Encoder::new(py, writer, options, default).encode(obj.as_ptr()) }
                .map_err(|failure| raise(py, failure))?;
            Ok(writer.finish_bytes(py)?)
        })
    })
}

/// Deserialize JSON to Python objects.
#[pyfunction]
#[pyo3(signature = (obj, /))]
fn loads<'py>(py: Python<'py>, obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(bytes) = obj.cast_exact::<PyBytes>() {
        return read(py, bytes.as_bytes());
    }
    if let Ok(text) = obj.cast_exact::<PyString>() {
        return read_str(py, text);
    }
    if (obj.cast_exact::<PyByteArray>().is_ok() || obj.cast_exact::<PyMemoryView>().is_ok())
        && let Some(copied) = copy_of(obj)?
    {
        return read(py, copied.as_bytes());
    }
    Err(decode_error(py, "Input must be bytes, bytearray, memoryview, or str", "", 0))
}

/// What `exporter` exports, which may change, as `bytes`; `None` if it is not contiguous.
fn copy_of<'py>(exporter: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
    // SAFETY: attached; the exporter keeps as many bytes in place until they are released, and is read with the GIL held.
    unsafe {
        if ffi::PyObject_GetBuffer(exporter.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_SIMPLE) != 0 {
            let error = PyErr::fetch(exporter.py());
            return if error.is_instance_of::<PyMemoryError>(exporter.py()) { Err(error) } else { Ok(None) };
        }
        let copied = {
            let view = view.assume_init_ref();
            ffi::PyBytes_FromStringAndSize(view.buf.cast(), view.len)
        };
        ffi::PyBuffer_Release(view.as_mut_ptr());
        Bound::from_owned_ptr_or_err(exporter.py(), copied).map(|copied| Some(copied.cast_into_unchecked()))
    }
}

/// Reads `text`, which a NUL follows.
fn read<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if text.is_empty() {
        return Err(decode_error(py, "Input is a zero-length, empty document", "", 0));
    }
    if simdutf8::basic::from_utf8(text).is_err() {
        let valid = std::str::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
        let doc = String::from_utf8_lossy(text);
        return Err(decode_error(py, "str is not valid UTF-8: surrogates not allowed", &doc, valid));
    }
    // SAFETY: valid UTF-8; exact `bytes` and our own copies never change and end with a NUL.
    unsafe { read_valid(py, text) }
}

/// # Safety
/// As [`Decoder::decode`].
unsafe fn read_valid<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    guard(|| {
        // SAFETY: the caller's guarantee.
        unsafe { Decoder::decode(py, text) }.map_err(|(invalid, at)| match invalid {
            Invalid::Raised => PyErr::fetch(py),
            // SAFETY: valid UTF-8.
            _ => decode_error(py, &invalid.message(), unsafe { std::str::from_utf8_unchecked(text) }, at),
        })
    })
}

fn read_str<'py>(py: Python<'py>, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: held by the caller.
    let characters = unsafe { Text::of(text.as_ptr()) };
    let length = characters.length();
    if length.bytes == 0 {
        return Err(decode_error(py, "Input is a zero-length, empty document", "", 0));
    }
    if length.surrogates {
        let message = "str is not valid UTF-8: surrogates not allowed";
        return Err(decode_error(py, message, "", 0));
    }
    if let Text::Utf8(bytes) = characters {
        // SAFETY: text that is kept as UTF-8 is valid, does not change and ends with a NUL.
        return unsafe { read_valid(py, bytes) };
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length.bytes + 1).map_err(|_| PyMemoryError::new_err(()))?;
    // SAFETY: as many bytes as it has, and a NUL; without surrogates they are valid UTF-8.
    unsafe {
        characters.write_utf8(bytes.as_mut_ptr());
        bytes.as_mut_ptr().add(length.bytes).write(0);
        bytes.set_len(length.bytes);
        read_valid(py, &bytes)
    }
}

fn options_of(option: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
    let Some(option) = option else { return Ok(0) };
    // SAFETY: attached, held.
    let value = unsafe {
        if ffi::PyLong_CheckExact(option.as_ptr()) == 0 { None } else { crate::cpython::int::compact(option.as_ptr()) }
    };
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| value & !option::ALL == 0)
        .ok_or_else(|| PyTypeError::new_err("Invalid opts"))
}

/// A `JSONDecodeError` at byte `at` of `doc`.
#[cold]
fn decode_error(py: Python<'_>, message: &str, doc: &str, at: usize) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || {
        let module = py.import(intern!(py, "framecache.json"))?;
        Ok::<_, PyErr>(module.getattr(intern!(py, "JSONDecodeError"))?.cast_into::<PyType>()?.unbind())
    });
    let position = doc.get(..at).map_or(0, |before| before.chars().count());
    match class {
        Ok(class) => PyErr::from_type(class.bind(py).clone(), (message.to_owned(), doc.to_owned(), position)),
        Err(error) => error,
    }
}

/// The exception of a value that was not written; its note says where the value is.
#[cold]
fn raise(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Raised(error) => error,
        Failure::Encode(message, place, cause) => {
            let error = PyTypeError::new_err(message);
            error.set_cause(py, cause);
            // Exceptions of 3.10 have no method for it, and show no notes.
            let note = [format!("at {place}")];
            if let Err(unexpected) = error.value(py).setattr(intern!(py, "__notes__"), note) {
                return unexpected;
            }
            error
        }
    }
}

/// `value` as JSON in aligned memory.
pub(super) fn payload(value: &Bound<'_, PyAny>) -> PyResult<AlignedBuf> {
    guard(|| append_to(AlignedBuf::default(), value))
}

fn append_to(buffer: AlignedBuf, value: &Bound<'_, PyAny>) -> PyResult<AlignedBuf> {
    let py = value.py();
    Writer::with(Sink::Buffer(buffer), |writer| {
        // SAFETY: attached, held by the caller.
        unsafe { Encoder::new(py, writer, option::NONE, None).encode(value.as_ptr()) }
            .map_err(|failure| raise(py, failure))?;
        Ok(writer.finish_buffer())
    })
}

/// Appends `value` as JSON to a frame under construction.
pub(super) fn write_to(mut draft: Draft, value: &Bound<'_, PyAny>) -> PyResult<Draft> {
    guard(|| {
        draft.buffer = append_to(std::mem::take(&mut draft.buffer), value)?;
        Ok(draft)
    })
}

/// `value` as JSON, without a frame's header.
#[pyfunction]
fn json_payload(value: &Bound<'_, PyAny>) -> PyResult<Frame> {
    Ok(FrameBuf::from_aligned(payload(value)?, Origin::Trusted).into())
}

/// A frame whose payload is `value` as JSON, written where it stays.
#[pyfunction]
fn encode_json(value: &Bound<'_, PyAny>) -> PyResult<Frame> {
    guard(|| {
        let draft = write_to(Draft::new(Header::new(JSON))?, value)?;
        Ok(draft.finish()?.into())
    })
}
