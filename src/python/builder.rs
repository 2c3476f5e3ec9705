//! `framecache.FrameBuilder`, and the pool its memory comes from.
#![allow(unsafe_code)]

use super::frame::Frame;
use super::input::{Input, export};
use crate::buffer::{AlignedBuf, FrameBuf, Origin, pool};
use crate::error::{Error, Result};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ptr::NonNull;

/// A frame under construction: writable memory until `finish()`.
///
/// Fill it through a writable `memoryview` of it, which has `size_hint` bytes (zeros at first), or with `write()`,
/// which starts at 0 and grows it as needed. Its memory starts at a multiple of 64.
///
/// Args:
///     size_hint: how many bytes to start with.
#[pyclass(module = "framecache")]
pub(super) struct FrameBuilder {
    /// `None` once finished. What was not written or zeroed is beyond its length.
    buffer: Option<AlignedBuf>,
    size_hint: usize,
    /// Where `write` goes on; `None` before the first.
    position: Option<usize>,
    views: usize,
}

impl FrameBuilder {
    fn unfinished(&mut self) -> Result<&mut AlignedBuf> {
        self.buffer.as_mut().ok_or_else(|| Error::Argument {
            argument: "FrameBuilder",
            expected: "one that is not finished".into(),
            found: "a finished one; make a new one for the next frame".into(),
        })
    }

    fn check_unexported(&self, operation: &'static str) -> Result<()> {
        match self.views {
            0 => Ok(()),
            views => Err(Error::Exported { operation, views }),
        }
    }

    /// Zeroes what `size_hint` promised and nobody has written yet.
    fn materialize(&mut self) -> Result<&mut AlignedBuf> {
        let size_hint = self.size_hint;
        let buffer = self.unfinished()?;
        buffer.extend_zeroed(size_hint.saturating_sub(buffer.len()))?;
        Ok(buffer)
    }
}

#[pymethods]
impl FrameBuilder {
    #[new]
    #[pyo3(signature = (size_hint=0))]
    fn new(size_hint: usize) -> PyResult<Self> {
        Ok(Self { buffer: Some(AlignedBuf::with_capacity(size_hint)?), size_hint, position: None, views: 0 })
    }

    /// Copies `data` to where the last `write` ended, growing the builder where it does not fit.
    ///
    /// Returns the number of bytes, all of which were written. Raises `BufferError` where it would grow while a view
    /// is exported.
    fn write(&mut self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let input = Input::from(data)?;
        let (count, start) = (input.len(), self.position.unwrap_or(0));
        let end = start.checked_add(count).ok_or(Error::Memory { bytes: usize::MAX })?;
        let len = self.unfinished()?.len();
        if end > len {
            self.check_unexported("write")?;
        }
        let exported = self.views > 0;
        let buffer = self.unfinished()?;
        if start == len && !exported {
            // SAFETY: `extend_with` gives room for `count` bytes, which `copy_to` fills.
            unsafe {
                buffer.extend_with(count, |target| {
                    input.copy_to(py, target);
                    Ok::<(), PyErr>(())
                })?;
            }
        } else {
            buffer.extend_zeroed(end.saturating_sub(len))?;
            // SAFETY: the buffer has at least `end` bytes. With the GIL held throughout: views of them may be exported,
            // and could not be released while `self` is borrowed.
            unsafe { input.copy_attached(NonNull::from(&mut buffer.as_mut_slice()[start..end]).cast()) };
        }
        self.position = Some(end);
        Ok(count)
    }

    /// Ends writing: the frame has the bytes up to the last `write`, or all that a view showed if there was none.
    ///
    /// Raises `BufferError` while a view is exported, `ValueError` if it is finished already.
    fn finish(&mut self) -> PyResult<Frame> {
        self.check_unexported("finish")?;
        let position = self.position;
        let buffer = if position.is_some() { self.unfinished()? } else { self.materialize()? };
        let mut buffer = std::mem::take(buffer);
        self.buffer = None;
        buffer.truncate(position.unwrap_or(usize::MAX));
        Ok(Frame::from(FrameBuf::from_aligned(buffer, Origin::Foreign)))
    }

    fn __len__(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len().max(self.size_hint))
    }

    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // Another thread may be writing to it.
        let mut this = slf.try_borrow_mut()?;
        let bytes = if this.views == 0 { this.materialize()? } else { this.unfinished()? }.as_mut_slice();
        let (start, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: nothing moves or ends the buffer while `views` is not 0.
        unsafe { export(slf.as_any(), start, len, false, view, flags)? };
        this.views += 1;
        Ok(())
    }

    unsafe fn __releasebuffer__(&mut self, _view: *mut ffi::Py_buffer) {
        self.views -= 1;
    }

    fn __repr__(&self) -> String {
        match &self.buffer {
            Some(_) => format!("<framecache.FrameBuilder of {} bytes>", self.__len__()),
            None => "<framecache.FrameBuilder, finished>".to_owned(),
        }
    }
}

/// Bytes that the pool of warm buffers holds for the next frames; at most 256 MiB.
#[pyfunction]
pub(super) fn pool_nbytes() -> usize {
    pool::held()
}

/// Frees the pool's buffers; returns how many bytes they had.
#[pyfunction]
pub(super) fn trim_pool(py: Python<'_>) -> usize {
    py.detach(pool::trim)
}
