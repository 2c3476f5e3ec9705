//! `framecache.Frame`.
#![allow(unsafe_code)]

use super::input::{Input, export};
use crate::buffer::{FrameBuf, Origin};
use crate::error::Error;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice};
use std::ffi::c_int;

/// Immutable bytes, read in place through the buffer protocol.
///
/// A slice with step 1 is a `Frame` of the same memory; so is every `memoryview` of it. The memory lives until the
/// last of them goes.
///
/// Args:
///     data: an exact `bytes` object is used where it is; any other contiguous buffer is copied.
#[pyclass(frozen, weakref, module = "framecache")]
pub(super) struct Frame(FrameBuf);

impl From<FrameBuf> for Frame {
    fn from(buf: FrameBuf) -> Self {
        Self(buf)
    }
}

impl Frame {
    pub(super) fn buf(&self) -> &FrameBuf {
        &self.0
    }

    pub(super) fn into_memoryview(self, py: Python<'_>) -> PyResult<Bound<'_, PyMemoryView>> {
        PyMemoryView::from(Bound::new(py, self)?.as_any())
    }
}

#[pymethods]
impl Frame {
    #[new]
    #[pyo3(signature = (data, /))]
    fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Input::from(data)?.to_frame()?))
    }

    /// How many bytes it has.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.len()
    }

    /// Whether its memory is a mapped file.
    #[getter]
    fn is_mapped(&self) -> bool {
        self.0.is_mapped()
    }

    /// Whether it was made without copying: a mapped file, a finished `FrameBuilder`, a `bytes` object's memory.
    #[getter]
    fn is_zero_copy(&self) -> bool {
        !self.0.is_copy()
    }

    /// Whether it was written by this process or read from a store that only this user can write.
    #[getter]
    fn is_trusted(&self) -> bool {
        self.0.origin() == Origin::Trusted
    }

    /// The address of its first byte.
    #[getter]
    fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let len = self.0.len();
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(len.cast_signed())?;
            if range.step != 1 {
                let expected = "a slice with step 1 (use memoryview for others)";
                let found = format!("step {}", range.step);
                return Err(Error::Argument { argument: "index", expected: expected.into(), found }.into());
            }
            let (start, stop) = (range.start.unsigned_abs(), range.stop.max(range.start).unsigned_abs());
            return Ok(Bound::new(py, Self(self.0.slice(start..stop)?))?.into_any());
        }
        let Ok(position) = index.extract::<isize>() else {
            let found = index.get_type().name()?;
            return Err(PyTypeError::new_err(format!("Frame index: expected int or slice, got {found}")));
        };
        let position = if position < 0 { position.checked_add_unsigned(len) } else { Some(position) };
        match position.and_then(|position| self.0.get(usize::try_from(position).ok()?)) {
            Some(byte) => Ok(byte.into_pyobject(py)?.into_any()),
            None => Err(PyIndexError::new_err(format!("Frame index out of range: {len} bytes"))),
        }
    }

    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes: &[u8] = &slf.get().0;
        // SAFETY: a frame's bytes stay in place and unchanged as long as it lives.
        unsafe { export(slf.as_any(), bytes.as_ptr(), bytes.len(), true, view, flags) }
    }

    /// A copy of its bytes.
    pub(super) fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        super::wrapper::new_bytes(py, self.0.len(), |target| {
            // SAFETY: `new_bytes` gives room for as many bytes as asked for.
            unsafe { Input::Frame(&self.0).copy_to(py, target) };
            Ok(())
        })
    }

    fn __repr__(&self) -> String {
        let kind = if self.0.is_mapped() { "mapped" } else { "in memory" };
        format!("<framecache.Frame of {} bytes, {kind}>", self.0.len())
    }
}
