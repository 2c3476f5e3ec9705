//! Collecting an encoder's result.
#![allow(unsafe_code)]

use super::text::copy_short;
use crate::buffer::AlignedBuf;
use crate::error::{Error, Result};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Results up to this size are collected on the stack and copied once into a `bytes` object of their exact size.
const SCRATCH: usize = 1024;
/// A `bytes` object keeps up to 1/8 of its memory unused, before it is moved to a smaller place.
const SLACK: usize = 8;

/// Where a result goes.
pub(crate) enum Sink {
    /// A `bytes` object.
    Bytes,
    /// A buffer, after what stands in it already.
    Buffer(AlignedBuf),
}

/// Bytes written one after another, with the room checked by the caller once for several of them.
pub(crate) struct Writer {
    start: *mut u8,
    cursor: *mut u8,
    end: *mut u8,
    place: Place,
    scratch: MaybeUninit<[u8; SCRATCH]>,
}

/// There is no memory for a larger result.
#[derive(Debug)]
pub(crate) struct OutOfMemory;

impl From<OutOfMemory> for Error {
    fn from(_: OutOfMemory) -> Self {
        Self::Memory { bytes: usize::MAX }
    }
}

enum Place {
    /// `scratch`.
    Stack,
    /// A new `bytes` object, which nobody else has seen.
    Object(NonNull<ffi::PyObject>),
    /// A buffer; `start` is its spare room.
    Buffer(AlignedBuf),
}

thread_local! {
    /// How long this thread's last long result was, so that the next one starts with memory of that size: growing by
    /// steps would touch fresh pages each time.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

impl Writer {
    /// Calls `work` with a new writer. It points into itself and hence stays where it is.
    pub(crate) fn with<T>(sink: Sink, work: impl FnOnce(&mut Self) -> T) -> T {
        let mut writer = Self {
            start: std::ptr::null_mut(),
            cursor: std::ptr::null_mut(),
            end: std::ptr::null_mut(),
            place: Place::Stack,
            scratch: MaybeUninit::uninit(),
        };
        match sink {
            Sink::Bytes => writer.use_scratch(),
            Sink::Buffer(mut buffer) => {
                let (room, size) = buffer.spare();
                writer.use_room(room.as_ptr(), size, 0);
                writer.place = Place::Buffer(buffer);
            }
        }
        work(&mut writer)
    }

    fn use_scratch(&mut self) {
        let start = self.scratch.as_mut_ptr().cast();
        self.use_room(start, SCRATCH, 0);
    }

    fn use_room(&mut self, start: *mut u8, size: usize, len: usize) {
        self.start = start;
        self.cursor = start.wrapping_add(len);
        self.end = start.wrapping_add(size);
    }

    /// Bytes written so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.cursor.addr() - self.start.addr()
    }

    /// Makes room for `count` bytes.
    ///
    /// # Errors
    /// [`OutOfMemory`], small enough to be returned in a register.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        if self.end.addr() - self.cursor.addr() >= count {
            return Ok(());
        }
        self.grow(count).map_err(|_| OutOfMemory)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, count: usize) -> Result<()> {
        let len = self.len();
        let needed = len.checked_add(count).filter(|needed| isize::try_from(*needed).is_ok());
        let needed = needed.ok_or(Error::Memory { bytes: usize::MAX })?;
        match &mut self.place {
            Place::Stack => {
                let size = needed.max(LAST.get()).max(4 * SCRATCH);
                let object = new_object(size)?;
                // SAFETY: `len` bytes of the scratch are written, and the new object has room for more.
                let start = unsafe {
                    let start = data_of(object);
                    start.copy_from_nonoverlapping(self.start, len);
                    start
                };
                self.place = Place::Object(object);
                self.use_room(start, size, len);
            }
            Place::Object(object) => {
                let size = needed.max(len.saturating_mul(2)).min(isize::MAX.unsigned_abs() / 2);
                // SAFETY: nobody else has seen the object. On failure it is gone.
                let start = unsafe {
                    let Some(moved) = resized(*object, size) else {
                        self.place = Place::Stack;
                        self.use_scratch();
                        return Err(Error::Memory { bytes: size });
                    };
                    *object = moved;
                    data_of(moved)
                };
                self.use_room(start, size, len);
            }
            Place::Buffer(buffer) => {
                // SAFETY: `len` bytes of the spare room were written; afterwards they are spare again.
                let (room, size) = unsafe {
                    let before = buffer.len();
                    buffer.set_len(before + len);
                    let grown = buffer.reserve(count);
                    buffer.set_len(before);
                    grown?;
                    buffer.spare()
                };
                self.use_room(room.as_ptr(), size, len);
            }
        }
        Ok(())
    }

    /// Where the room ends, for an encoder that keeps the cursor itself.
    #[inline]
    pub(crate) fn end(&self) -> *mut u8 {
        self.end
    }

    /// Counts everything before `cursor` as written.
    ///
    /// # Safety
    /// It is, and `cursor` came from [`Self::cursor`], moved forward inside the room.
    #[inline]
    pub(crate) unsafe fn set_cursor(&mut self, cursor: *mut u8) {
        self.cursor = cursor;
    }

    /// Writes one byte.
    ///
    /// # Safety
    /// There is room, by [`Self::reserve`].
    #[inline]
    pub(crate) unsafe fn put_u8(&mut self, byte: u8) {
        // SAFETY: the caller's guarantee.
        unsafe { self.put([byte]) }
    }

    /// Writes `N` bytes.
    ///
    /// # Safety
    /// As [`Self::put_u8`].
    #[inline]
    pub(crate) unsafe fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        // SAFETY: the caller's guarantee.
        unsafe {
            self.cursor.cast::<[u8; N]>().write_unaligned(bytes);
            self.advance(N);
        }
    }

    /// Writes `bytes`.
    ///
    /// # Safety
    /// As [`Self::put_u8`].
    #[inline]
    pub(crate) unsafe fn put_slice(&mut self, bytes: &[u8]) {
        // SAFETY: the caller's guarantee; nobody has a slice of the room.
        unsafe {
            copy_short(bytes, self.cursor);
            self.advance(bytes.len());
        }
    }

    /// Where the next byte goes.
    #[inline]
    pub(crate) fn cursor(&self) -> *mut u8 {
        self.cursor
    }

    /// Counts `count` bytes at [`Self::cursor`] as written.
    ///
    /// # Safety
    /// There was room for them, and they are.
    #[inline]
    pub(crate) unsafe fn advance(&mut self, count: usize) {
        // SAFETY: the caller's guarantee.
        self.cursor = unsafe { self.cursor.add(count) };
    }

    /// Reserves room for `bytes` and writes them.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> Result<(), OutOfMemory> {
        self.reserve(bytes.len())?;
        // SAFETY: reserved.
        unsafe { self.put_slice(bytes) };
        Ok(())
    }

    /// The bytes from `start` on.
    pub(crate) fn written_from(&mut self, start: usize) -> &mut [u8] {
        let len = self.len();
        assert!(start <= len);
        // SAFETY: the first `len` bytes are written.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len - start) }
    }

    /// Drops the bytes from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.cursor = self.start.wrapping_add(len.min(self.len()));
    }

    /// The result as `bytes`, of a writer into [`Sink::Bytes`].
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn finish_bytes<'py>(&mut self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        let len = self.len();
        let Place::Object(object) = std::mem::replace(&mut self.place, Place::Stack) else {
            let written = self.written_from(0);
            // SAFETY: attached; copies so many bytes into a new object.
            let object = unsafe { ffi::PyBytes_FromStringAndSize(written.as_ptr().cast(), len as ffi::Py_ssize_t) };
            // SAFETY: attached, a new reference to `bytes` or null.
            let bytes = unsafe { Bound::from_owned_ptr_or_opt(py, object).map(|bytes| bytes.cast_into_unchecked()) };
            return bytes.ok_or_else(|| out_of_memory(len));
        };
        let size = self.end.addr() - self.start.addr();
        // As large as what was asked for in the end, if that is not kept for long.
        LAST.set(size.clamp(len.saturating_add(len / 16), len.saturating_add(len / SLACK)));
        self.use_scratch();
        // SAFETY: attached, nobody else has seen the object; it has room for `len` bytes and a NUL after them.
        unsafe {
            let object = if size - len > len / SLACK {
                resized(object, len).ok_or(Error::Memory { bytes: len })?
            } else {
                (*object.as_ptr().cast::<ffi::PyVarObject>()).ob_size = len as ffi::Py_ssize_t;
                data_of(object).add(len).write(0);
                object
            };
            Ok(Bound::from_owned_ptr(py, object.as_ptr()).cast_into_unchecked())
        }
    }

    /// The buffer with the result, of a writer into [`Sink::Buffer`].
    pub(crate) fn finish_buffer(&mut self) -> AlignedBuf {
        let len = self.len();
        let place = std::mem::replace(&mut self.place, Place::Stack);
        self.use_scratch();
        let Place::Buffer(mut buffer) = place else { return AlignedBuf::default() };
        // SAFETY: `len` bytes of its spare room were written.
        unsafe { buffer.set_len(buffer.len() + len) };
        buffer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Place::Object(object) = self.place {
            // SAFETY: attached (a writer lives on the stack of an encoder), and the only reference.
            unsafe { ffi::Py_DECREF(object.as_ptr()) };
        }
    }
}

fn new_object(size: usize) -> Result<NonNull<ffi::PyObject>> {
    // SAFETY: attached; `grow` keeps sizes below isize::MAX.
    let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size as ffi::Py_ssize_t) };
    NonNull::new(object).ok_or_else(|| out_of_memory(size))
}

/// Replaces Python's MemoryError by ours.
#[cold]
fn out_of_memory(bytes: usize) -> Error {
    // SAFETY: attached.
    unsafe { ffi::PyErr_Clear() };
    Error::Memory { bytes }
}

/// # Safety
/// `object` is a `bytes` object.
unsafe fn data_of(object: NonNull<ffi::PyObject>) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { ffi::PyBytes_AS_STRING(object.as_ptr()).cast_mut().cast() }
}

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// `object` with another size, perhaps elsewhere; `None` where there is no memory, and then it is gone.
///
/// # Safety
/// Attached; nobody else has a reference to `object`.
unsafe fn resized(object: NonNull<ffi::PyObject>, size: usize) -> Option<NonNull<ffi::PyObject>> {
    let mut pointer = object.as_ptr();
    // SAFETY: the caller's guarantee.
    unsafe {
        if _PyBytes_Resize(&raw mut pointer, size as ffi::Py_ssize_t) != 0 {
            ffi::PyErr_Clear();
        }
    }
    NonNull::new(pointer)
}
