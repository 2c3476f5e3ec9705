//! Bytes that come in from Python, and views that go out.
//!
//! Exact `bytes` and `Frame`s never change and are read in place. Every other exporter may change at any time, from
//! another thread too: its memory is never looked at as a Rust slice, only copied from, with the GIL held.
#![allow(unsafe_code)]

use super::frame::Frame;
use crate::buffer::{AlignedBuf, FrameBuf, FrameMemory, Origin};
use crate::error::{Error, Result};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use std::ffi::c_int;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A bytes-like argument.
pub(super) enum Input<'a, 'py> {
    /// An exact `bytes` object.
    Bytes(&'a Bound<'py, PyBytes>),
    /// A frame.
    Frame(&'a FrameBuf),
    /// Anything else that exports contiguous memory.
    Foreign(Exported),
}

/// The bytes of an object that cannot change and is read in place: exact `bytes`, or a frame.
#[inline]
pub(super) fn in_place<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a [u8]> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(bytes.as_bytes());
    }
    object.cast_exact::<Frame>().ok().map(|frame| &**frame.get().buf())
}

impl<'a, 'py> Input<'a, 'py> {
    /// # Errors
    /// `TypeError` for what exports no buffer, `BufferError` for one that is not contiguous.
    pub(super) fn from(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Ok(Self::Bytes(bytes));
        }
        if let Ok(frame) = object.cast_exact::<Frame>() {
            return Ok(Self::Frame(frame.get().buf()));
        }
        Exported::of(object).map(Self::Foreign)
    }

    /// The bytes, where nobody can change them.
    pub(super) fn stable(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes.as_bytes()),
            Self::Frame(frame) => Some(frame),
            Self::Foreign(_) => None,
        }
    }

    /// As [`Self::stable`], and the bytes of a memoryview of such memory: nobody can change them while the input lives.
    pub(super) fn fixed(&self, object: &Bound<'py, PyAny>) -> Option<&[u8]> {
        match self {
            Self::Foreign(exported) => exported.fixed(object),
            _ => self.stable(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes().len(),
            Self::Frame(frame) => frame.len(),
            Self::Foreign(exported) => exported.len(),
        }
    }

    /// A frame over the same memory where that cannot change, else over a copy of it.
    pub(super) fn to_frame(&self) -> Result<FrameBuf> {
        match self {
            Self::Bytes(bytes) => Ok(FrameBuf::new(Arc::new(ExactBytes::new(bytes)), Origin::Foreign)),
            Self::Frame(frame) => Ok((*frame).clone()),
            Self::Foreign(exported) => {
                let mut buffer = AlignedBuf::with_capacity(exported.len())?;
                exported.append_to(&mut buffer, 0, exported.len())?;
                Ok(FrameBuf::from_aligned(buffer, Origin::Foreign).copied())
            }
        }
    }

    /// Copies all bytes to `target`, which has room for [`Self::len`]. Without the GIL where there are many and they
    /// cannot change.
    ///
    /// # Safety
    /// `target` has that much room, and no other thread reads or writes there.
    pub(super) unsafe fn copy_to(&self, py: Python<'_>, target: NonNull<u8>) {
        match self.stable() {
            Some(bytes) if bytes.len() >= super::DETACH_ABOVE => {
                let target = Target(target);
                // SAFETY: the caller's guarantee; the source does not change.
                py.detach(|| unsafe { target.fill(bytes) });
            }
            // SAFETY: the caller's guarantee.
            _ => unsafe { self.copy_attached(target) },
        }
    }

    /// As [`Self::copy_to`], without releasing the GIL.
    ///
    /// # Safety
    /// `target` has that much room.
    pub(super) unsafe fn copy_attached(&self, target: NonNull<u8>) {
        // SAFETY: the caller's guarantee.
        unsafe {
            match self {
                Self::Bytes(bytes) => Target(target).fill(bytes.as_bytes()),
                Self::Frame(frame) => Target(target).fill(frame),
                Self::Foreign(exported) => exported.copy_to(0, exported.len(), target),
            }
        }
    }
}

/// A destination that may be written without the GIL.
struct Target(NonNull<u8>);

// SAFETY: made only in `copy_to`, whose caller owns the memory.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// # Safety
    /// There is room for `bytes`.
    unsafe fn fill(&self, bytes: &[u8]) {
        // SAFETY: the caller's guarantee; the memory is new, so the two do not overlap.
        unsafe { self.0.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) }
    }
}

/// An exact `bytes` object as a frame's memory.
struct ExactBytes(ManuallyDrop<Py<PyBytes>>);

impl ExactBytes {
    fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        release_pending(bytes.py());
        Self(ManuallyDrop::new(bytes.clone().unbind()))
    }
}

/// References dropped by threads without the GIL, a stack; released by the next thread that makes an [`ExactBytes`].
///
/// PyO3 has such a list too, under a lock that it holds while it allocates: with `tracemalloc` on, allocating takes the
/// GIL, whose holder may be waiting for that lock.
static PENDING: AtomicPtr<Pending> = AtomicPtr::new(std::ptr::null_mut());

struct Pending {
    bytes: Py<PyBytes>,
    next: *mut Pending,
}

fn release_pending(_: Python<'_>) {
    let mut next = PENDING.load(Ordering::Relaxed);
    if !next.is_null() {
        next = PENDING.swap(std::ptr::null_mut(), Ordering::Acquire);
    }
    while !next.is_null() {
        // SAFETY: made by `drop` below from a box; the swap made this thread the stack's only owner.
        let pending = *unsafe { Box::from_raw(next) };
        next = pending.next;
        drop(pending.bytes);
    }
}

impl Drop for ExactBytes {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let bytes = unsafe { ManuallyDrop::take(&mut self.0) };
        // SAFETY: no precondition.
        if unsafe { ffi::PyGILState_Check() } == 1 {
            return drop(bytes);
        }
        let pending = Box::into_raw(Box::new(Pending { bytes, next: PENDING.load(Ordering::Relaxed) }));
        loop {
            // SAFETY: not shared until the exchange succeeds.
            let next = unsafe { (*pending).next };
            match PENDING.compare_exchange_weak(next, pending, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                // SAFETY: as above.
                Err(current) => unsafe { (*pending).next = current },
            }
        }
    }
}

// SAFETY: a bytes object does not move and does not change; this one lives as long as the reference, which is given
// back by a thread that holds the GIL.
unsafe impl FrameMemory for ExactBytes {
    fn bytes(&self) -> &[u8] {
        // SAFETY: reading a bytes object's size and address needs no GIL: neither changes while it lives.
        unsafe {
            let start = ffi::PyBytes_AS_STRING(self.0.as_ptr()).cast();
            let len = ffi::Py_SIZE(self.0.as_ptr());
            std::slice::from_raw_parts(start, len.unsigned_abs())
        }
    }
}

/// A buffer that a Python object exports, held until dropped.
pub(super) struct Exported(ffi::Py_buffer);

// SAFETY: the pointer is read and the buffer released only with the GIL held (values of this type live in PyO3 classes
// and on the stack of attached threads).
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

impl Exported {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
        // SAFETY: attached; on success the view is initialized. A simple buffer has no pointers into the view itself,
        // so that it may move.
        unsafe {
            if ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_SIMPLE) != 0 {
                return Err(PyErr::fetch(object.py()));
            }
            Ok(Self(view.assume_init()))
        }
    }

    fn len(&self) -> usize {
        self.0.len.unsigned_abs()
    }

    /// The bytes, if `object` is a memoryview and what it is a view of is exact `bytes` or a frame.
    fn fixed(&self, object: &Bound<'_, PyAny>) -> Option<&[u8]> {
        let root = object.cast_exact::<PyMemoryView>().ok()?.getattr(intern!(object.py(), "obj")).ok()?;
        let memory = if let Ok(bytes) = root.cast_exact::<PyBytes>() {
            bytes.as_bytes().as_ptr_range()
        } else if let Ok(frame) = root.cast_exact::<Frame>() {
            frame.get().buf().as_ptr_range()
        } else {
            root.cast_exact::<View>().ok()?.get().fixed()?
        };
        let start = self.0.buf.cast_const().cast::<u8>();
        let inside = memory.start <= start && start.addr() + self.len() <= memory.end.addr();
        // SAFETY: a part of the memory of an object that does not change. The buffer, held by `self`, keeps the
        // memoryview from being released, and that keeps the object.
        inside.then(|| unsafe { std::slice::from_raw_parts(start, self.len()) })
    }

    /// Copies bytes `start..start + count`, or as many as there are, to the end of `buffer`.
    pub(super) fn append_to(&self, buffer: &mut AlignedBuf, start: usize, count: usize) -> Result<()> {
        let count = count.min(self.len().saturating_sub(start));
        // SAFETY: `extend_with` makes room for `count` bytes, all of which are written.
        unsafe {
            buffer.extend_with(count, |target| {
                self.copy_to(start, count, target);
                Ok(())
            })
        }
    }

    /// # Safety
    /// `start + count` is at most `len()`; `target` has room for `count` bytes.
    unsafe fn copy_to(&self, start: usize, count: usize, target: NonNull<u8>) {
        if count > 0 {
            // SAFETY: the caller's guarantee; the exporter keeps its memory in place while the buffer is held. A copy
            // of bytes that another thread changes meanwhile is any mix of old and new. A builder may be given a view of
            // its own bytes, which overlap with the target.
            unsafe { std::ptr::copy(self.0.buf.cast::<u8>().add(start), target.as_ptr(), count) };
        }
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: attached, see above; released once.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut self.0) });
    }
}

/// What keeps a [`View`]'s memory in place.
#[expect(dead_code, reason = "holding it is its use")]
enum Owner {
    Bytes(Py<PyBytes>),
    Exported(Exported),
}

/// A read-only window onto an object's bytes, for as long as the window lives. Only `memoryview`s of it are handed out.
#[pyclass(frozen, freelist = 64, module = "framecache._framecache")]
pub(super) struct View {
    owner: Owner,
    /// Address of the first byte, exposed.
    start: usize,
    len: usize,
}

impl View {
    /// A memoryview of a part of bytes that cannot change; nothing is copied.
    pub(super) fn part<'py>(
        py: Python<'py>,
        input: &Input<'_, 'py>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        match input {
            Input::Frame(frame) => Frame::from(frame.slice(range)?).into_memoryview(py),
            Input::Bytes(bytes) => {
                let start = bytes.as_bytes()[range.clone()].as_ptr().expose_provenance();
                let view = Self { owner: Owner::Bytes((*bytes).clone().unbind()), start, len: range.len() };
                PyMemoryView::from(Bound::new(py, view)?.as_any())
            }
            Input::Foreign(_) => Err(Error::Argument {
                argument: "data",
                expected: "bytes or a Frame".into(),
                found: "memory that may change".into(),
            }
            .into()),
        }
    }

    /// A memoryview of `input`'s bytes from `start` on; nothing is copied.
    pub(super) fn memoryview<'py>(
        py: Python<'py>,
        input: Input<'_, 'py>,
        start: usize,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        let len = input.len().saturating_sub(start);
        let view = match input {
            Input::Frame(frame) => return Frame::from(frame.slice(start..)?).into_memoryview(py),
            Input::Bytes(bytes) => {
                let base = bytes.as_bytes().as_ptr().expose_provenance();
                Self { owner: Owner::Bytes(bytes.clone().unbind()), start: base + start, len }
            }
            Input::Foreign(exported) => {
                let base = exported.0.buf.expose_provenance();
                Self { owner: Owner::Exported(exported), start: base + start, len }
            }
        };
        PyMemoryView::from(Bound::new(py, view)?.as_any())
    }

    /// Its memory, where that cannot change.
    fn fixed(&self) -> Option<Range<*const u8>> {
        let start: *const u8 = std::ptr::with_exposed_provenance(self.start);
        matches!(self.owner, Owner::Bytes(_)).then(|| start..start.wrapping_add(self.len))
    }
}

#[pymethods]
impl View {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let start = std::ptr::with_exposed_provenance(this.start);
        // SAFETY: the owner keeps the bytes in place; the view keeps `slf`, and with it the owner.
        unsafe { export(slf.as_any(), start, this.len, true, view, flags) }
    }
}

/// Fills in `view`: `len` bytes at `start`, kept alive by `owner`.
///
/// # Safety
/// The bytes stay in place as long as `owner` lives; they do not change unless `readonly` is false.
pub(super) unsafe fn export(
    owner: &Bound<'_, PyAny>,
    start: *const u8,
    len: usize,
    readonly: bool,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // A Rust allocation and a Python object are at most isize::MAX bytes.
    let len = len as ffi::Py_ssize_t;
    // SAFETY: `view` is the interpreter's; FillInfo checks the flags and takes a reference to `owner`.
    match unsafe {
        ffi::PyBuffer_FillInfo(view, owner.as_ptr(), start.cast_mut().cast(), len, c_int::from(readonly), flags)
    } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(owner.py())),
    }
}
