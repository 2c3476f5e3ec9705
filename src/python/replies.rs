//! What `framecache._redis_wire` sends and receives: `pack_command` and `Replies`.
#![allow(unsafe_code)]

use super::frame::Frame;
use super::input::{Input, export};
use crate::buffer::FrameBuf;
use crate::remote::{self, Progress};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};
use std::ffi::c_int;

/// Arguments of commands above this many bytes are sent from where they stand.
const APART: usize = 4 * 1024;

/// The answer to a command that reads so many values, which a socket receives into: a sequence of frames and `None`.
#[pyclass(module = "framecache._framecache")]
pub(super) struct Replies {
    state: Option<remote::Replies>,
    values: Vec<Option<FrameBuf>>,
    /// How much of the room a buffer shows that is exported, if one is.
    exported: Option<usize>,
    room: usize,
}

impl Replies {
    pub(super) fn take_values(&mut self) -> Vec<Option<FrameBuf>> {
        std::mem::take(&mut self.values)
    }

    fn went_on(&mut self, progress: Progress) -> Option<bool> {
        match progress {
            Progress::More => return Some(false),
            Progress::Other => return None,
            Progress::Done => {}
        }
        // What came after it is asked for first.
        if let Some(state) = self.state.take_if(|state| state.rest().is_empty()) {
            self.values = state.into_values();
        }
        Some(true)
    }

    fn state(&mut self) -> PyResult<&mut remote::Replies> {
        self.state.as_mut().ok_or_else(|| PyValueError::new_err("the answer is complete"))
    }
}

#[pymethods]
impl Replies {
    #[new]
    fn new(count: usize) -> PyResult<Self> {
        Ok(Self { state: Some(remote::Replies::new(count)?), values: Vec::new(), exported: None, room: 0 })
    }

    /// Goes on after `count` bytes were received into it: whether that is all, or `None` for what is another answer.
    ///
    /// Raises `FrameError` for what is not as the protocol has it.
    fn received(&mut self, count: usize) -> PyResult<Option<bool>> {
        if self.exported.is_some() || count > std::mem::take(&mut self.room) {
            return Err(PyValueError::new_err("received: expected the count of what was received last"));
        }
        let state = self.state()?;
        // SAFETY: a buffer of at least as many bytes was exported since the last call, and was released; whoever had
        // it says that he wrote so many.
        let progress = unsafe { state.received(count)? };
        Ok(self.went_on(progress))
    }

    /// As `received`, of bytes that were received elsewhere.
    fn take(&mut self, data: &[u8]) -> PyResult<Option<bool>> {
        let progress = match self.exported {
            None => self.state()?.take(data)?,
            Some(_) => return Err(PyValueError::new_err("take: a buffer is exported")),
        };
        Ok(self.went_on(progress))
    }

    /// What was received after the answer, or instead of it.
    fn rest<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let Some(state) = self.state.take() else { return PyBytes::new(py, b"") };
        let rest = PyBytes::new(py, state.rest());
        self.values = state.into_values();
        rest
    }

    fn __len__(&self) -> usize {
        self.values.len()
    }

    fn __getitem__(&self, index: usize) -> PyResult<Option<Frame>> {
        match self.values.get(index) {
            Some(value) => Ok(value.clone().map(Frame::from)),
            None => Err(pyo3::exceptions::PyIndexError::new_err("out of range")),
        }
    }

    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let mut this = slf.try_borrow_mut()?;
        if this.exported.is_some() {
            return Err(pyo3::exceptions::PyBufferError::new_err("one buffer at a time"));
        }
        let (start, len) = this.state()?.room()?;
        // SAFETY: room of a block that nothing moves or ends while `exported` says so.
        unsafe { export(slf.as_any(), start.as_ptr(), len, false, view, flags)? };
        (this.exported, this.room) = (Some(len), len);
        Ok(())
    }

    unsafe fn __releasebuffer__(&mut self, _view: *mut ffi::Py_buffer) {
        self.exported = None;
    }
}

/// A command as Redis takes it: buffers to send one after the other.
///
/// Args:
///     arguments: str, int, or a buffer each; a tuple of buffers is one argument, whose parts are not joined. Large buffers
///         are sent from where they stand.
#[pyfunction]
#[pyo3(signature = (*arguments))]
pub(super) fn pack_command<'py>(py: Python<'py>, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyList>> {
    let packed = PyList::empty(py);
    let mut out = Vec::with_capacity(64 * arguments.len() + 64);
    remote::pack_length(&mut out, b'*', arguments.len());
    for argument in arguments {
        if let Ok(text) = argument.cast_exact::<PyString>() {
            let text = text.to_str()?;
            remote::pack_length(&mut out, b'$', text.len());
            out.extend_from_slice(text.as_bytes());
        } else if argument.is_exact_instance_of::<PyInt>() {
            let text = argument.str()?;
            let text = text.to_str()?;
            remote::pack_length(&mut out, b'$', text.len());
            out.extend_from_slice(text.as_bytes());
        } else if let Ok(parts) = argument.cast_exact::<PyTuple>() {
            let length = parts.iter().map(|part| Ok(Input::from(&part)?.len())).sum::<PyResult<usize>>()?;
            remote::pack_length(&mut out, b'$', length);
            for part in parts {
                push(&packed, &mut out, &part)?;
            }
        } else {
            remote::pack_length(&mut out, b'$', Input::from(&argument)?.len());
            push(&packed, &mut out, &argument)?;
        }
        out.extend_from_slice(b"\r\n");
    }
    packed.append(PyBytes::new(py, &out))?;
    Ok(packed)
}

fn push(packed: &Bound<'_, PyList>, out: &mut Vec<u8>, part: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = packed.py();
    let input = Input::from(part)?;
    match input.stable() {
        Some(bytes) if bytes.len() <= APART => out.extend_from_slice(bytes),
        _ => {
            packed.append(PyBytes::new(py, out))?;
            out.clear();
            packed.append(part)?;
        }
    }
    Ok(())
}
