//! Writing: dispatch by exact type, and the types that JSON has itself.
//!
//! The cursor goes from function to function in a register, and every value leaves [`ROOM`] bytes after itself, so that
//! punctuation needs no check. References are borrowed while no Python code can run. Before it may, all open containers
//! are held ([`Encoder::expect_python`]), and afterwards (`epoch` tells) what was read of them is read anew.
#![allow(unsafe_code)]

use super::digits::{self, MAX_INT};
use super::fault::Fault;
use super::shortest::{self, MAX_FLOAT};
use super::{MAX_WRITE_DEPTH, option};
use crate::codec::path::Path;
use crate::cpython::int::{self, Int};
use crate::cpython::{Writer, has_headroom};
use crate::error::Error;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::NonNull;

/// Bytes that may be written after a value without asking.
pub(super) const ROOM: usize = 16;

/// The message for values that are nested too deep.
pub(super) const TOO_DEEP: &str = "Recursion limit reached";

/// Where the next byte goes.
pub(super) type Cursor = NonNull<u8>;
/// The cursor after what was written; `None` if it was not, and then the fault is set.
pub(super) type Done = Option<Cursor>;

/// Writes one value.
pub(crate) struct Encoder<'w, 'py> {
    pub(super) py: Python<'py>,
    out: &'w mut Writer,
    end: *mut u8,
    pub(super) options: u32,
    pub(super) default: Option<&'w Bound<'py, PyAny>>,
    /// How many levels are open.
    pub(super) depth: u32,
    /// How many calls of `default` led here.
    pub(super) defaults: u32,
    /// Changes whenever Python code may have run.
    pub(super) epoch: u32,
    /// The container whose items are being written; null outside of all.
    innermost: *const Level,
    fault: Option<Fault>,
    pub(super) path: Path,
}

/// A container whose items are being written, in the frame of the function that does it.
struct Level {
    object: *mut ffi::PyObject,
    outer: *const Level,
    /// Whether there is a reference for it: only once Python code may run, so that nothing is written to objects before.
    held: Cell<bool>,
}

/// Why a value was not written, for the layer that makes exceptions.
pub(crate) enum Failure {
    /// A `JSONEncodeError`: message, path of the value inside the one that was passed, cause.
    Encode(String, String, Option<PyErr>),
    /// Another exception.
    Raised(PyErr),
}

impl<'w, 'py> Encoder<'w, 'py> {
    pub(crate) fn new(
        py: Python<'py>,
        out: &'w mut Writer,
        options: u32,
        default: Option<&'w Bound<'py, PyAny>>,
    ) -> Self {
        let end = out.end();
        Self {
            py,
            out,
            end,
            options,
            default,
            depth: 0,
            defaults: 0,
            epoch: 0,
            innermost: std::ptr::null(),
            fault: None,
            path: Path::default(),
        }
    }

    /// Writes `value`.
    ///
    /// # Errors
    /// [`Failure`].
    ///
    /// # Safety
    /// Attached; `value` is alive and stays so.
    #[inline]
    pub(crate) unsafe fn encode(mut self, value: *mut ffi::PyObject) -> Result<(), Failure> {
        // SAFETY: the caller's guarantee; the cursor is never null.
        unsafe {
            let start = NonNull::new_unchecked(self.out.cursor());
            let written = if self.options & option::INDENT_2 == 0 {
                self.reserve(start, ROOM).and_then(|at| self.value::<false>(at, value))
            } else {
                self.reserve(start, ROOM).and_then(|at| self.value::<true>(at, value))
            };
            let Some(mut at) = written else { return Err(self.failure()) };
            if self.options & option::APPEND_NEWLINE != 0 {
                at.write(b'\n');
                at = at.add(1);
            }
            self.out.set_cursor(at.as_ptr());
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn failure(&mut self) -> Failure {
        match self.fault.take() {
            Some(Fault::Unfit(message)) => Failure::Encode(message, self.path.show(), None),
            Some(Fault::Refused(message, cause)) => Failure::Encode(message, self.path.show(), Some(cause)),
            Some(Fault::Raised(error)) => Failure::Raised(error),
            None => Failure::Raised(PyErr::fetch(self.py)),
        }
    }

    /// Ends with `fault`.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&mut self, fault: impl Into<Fault>) -> Done {
        self.fault = Some(fault.into());
        None
    }

    #[cold]
    #[inline(never)]
    pub(super) fn unfit(&mut self, message: &str) -> Done {
        self.fail(Fault::Unfit(message.to_owned()))
    }

    /// Makes room for `count` bytes at `at`.
    #[inline(always)]
    pub(super) fn reserve(&mut self, at: Cursor, count: usize) -> Done {
        if self.end.addr().wrapping_sub(at.as_ptr().addr()) >= count { Some(at) } else { self.grow(at, count) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, at: Cursor, count: usize) -> Done {
        // SAFETY: everything before `at` is written.
        unsafe { self.out.set_cursor(at.as_ptr()) };
        if self.out.reserve(count).is_err() {
            return self.fail(Error::Memory { bytes: count });
        }
        self.end = self.out.end();
        NonNull::new(self.out.cursor())
    }

    /// Writes `bytes`.
    #[inline]
    pub(super) fn put(&mut self, at: Cursor, bytes: &[u8]) -> Done {
        let at = self.reserve(at, bytes.len().wrapping_add(ROOM))?;
        // SAFETY: reserved.
        unsafe {
            crate::cpython::text::copy_short(bytes, at.as_ptr());
            Some(at.add(bytes.len()))
        }
    }

    /// Writes any object; the types that most objects have without a call.
    ///
    /// # Safety
    /// Attached; `object` is alive, and stays so while this runs or until Python code does.
    #[inline(always)]
    pub(super) unsafe fn value<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; each arm has compared the exact type.
        unsafe {
            match self.leaf(at, object) {
                Some(done) => done,
                None => self.container::<INDENT>(at, object),
            }
        }
    }

    /// Writes an object that is no leaf.
    ///
    /// # Safety
    /// As [`Self::value`].
    #[inline(always)]
    pub(super) unsafe fn container<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; each arm has compared the exact type.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyDict_Type {
                self.dict::<INDENT>(at, object)
            } else if class == &raw mut ffi::PyList_Type {
                self.list::<INDENT>(at, object)
            } else if class == &raw mut ffi::PyTuple_Type {
                self.tuple::<INDENT>(at, object)
            } else {
                self.other::<INDENT>(at, object)
            }
        }
    }

    /// Writes a text, number or constant; `None` if the object is none. No Python code runs here.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline(always)]
    pub(super) unsafe fn leaf(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Option<Done> {
        // SAFETY: the caller's guarantee; each arm has compared the exact type.
        unsafe {
            let class = ffi::Py_TYPE(object);
            Some(if class == &raw mut ffi::PyUnicode_Type {
                self.text(at, object)
            } else if class == &raw mut ffi::PyLong_Type {
                match int::compact(object) {
                    Some(value) => self.signed(at, value),
                    None => self.int(at, object),
                }
            } else if class == &raw mut ffi::PyFloat_Type {
                self.float(at, ffi::PyFloat_AS_DOUBLE(object))
            } else if object == ffi::Py_None() {
                self.word(at, *b"null", 4)
            } else if class == &raw mut ffi::PyBool_Type {
                if object == ffi::Py_True() { self.word(at, *b"true", 4) } else { self.word(at, *b"false", 5) }
            } else {
                return None;
            })
        }
    }

    /// Up to [`ROOM`] bytes, of which `len` count.
    #[inline(always)]
    pub(super) fn word<const N: usize>(&mut self, at: Cursor, word: [u8; N], len: usize) -> Done {
        // SAFETY: every value leaves `ROOM`, of which its container took two bytes at most.
        unsafe {
            at.cast::<[u8; N]>().write_unaligned(word);
            self.reserve(at.add(len), ROOM)
        }
    }

    #[inline(always)]
    pub(super) fn signed(&mut self, at: Cursor, value: i64) -> Done {
        let at = self.reserve(at, MAX_INT + ROOM)?;
        // SAFETY: reserved.
        unsafe { NonNull::new(digits::write_i64(value, at.as_ptr())) }
    }

    #[inline(never)]
    pub(super) unsafe fn int(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        const SAFE: u64 = (1 << 53) - 1;
        // SAFETY: an int.
        let value = unsafe { int::read(object) };
        if self.options & option::STRICT_INTEGER != 0 {
            let beyond = match value {
                Int::Signed(value) => value.unsigned_abs() > SAFE,
                Int::Unsigned(_) => true,
                Int::Big => false,
            };
            if beyond {
                return self.unfit("Integer exceeds 53-bit range");
            }
        }
        match value {
            Int::Signed(value) => self.signed(at, value),
            Int::Unsigned(value) => self.unsigned(at, value),
            Int::Big => self.unfit("Integer exceeds 64-bit range"),
        }
    }

    pub(super) fn unsigned(&mut self, at: Cursor, value: u64) -> Done {
        let at = self.reserve(at, MAX_INT + ROOM)?;
        // SAFETY: reserved.
        unsafe { NonNull::new(digits::write_u64(value, at.as_ptr())) }
    }

    #[inline(always)]
    pub(super) fn float(&mut self, at: Cursor, value: f64) -> Done {
        if !value.is_finite() {
            return self.word(at, *b"null", 4);
        }
        let at = self.reserve(at, MAX_FLOAT + ROOM)?;
        // SAFETY: reserved.
        unsafe { NonNull::new(shortest::write_f64(value, at.as_ptr())) }
    }

    pub(super) fn single(&mut self, at: Cursor, value: f32) -> Done {
        if !value.is_finite() {
            return self.word(at, *b"null", 4);
        }
        let at = self.reserve(at, MAX_FLOAT + ROOM)?;
        // SAFETY: reserved.
        unsafe { NonNull::new(shortest::write_any(value, at.as_ptr())) }
    }

    /// Makes everything safe for Python code to run: all open containers are held from now on, and looked at anew
    /// afterwards.
    #[inline]
    pub(super) fn expect_python(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        let mut level = self.innermost;
        // SAFETY: levels stand in the frames of callers; what was not held was borrowed while no Python code ran. Where
        // one is held, so are all outside of it.
        unsafe {
            while !level.is_null() && !(*level).held.replace(true) {
                ffi::Py_INCREF((*level).object);
                level = (*level).outer;
            }
        }
    }

    /// Runs `work` one level deeper; `object` is held as soon as Python code may run.
    ///
    /// # Safety
    /// Attached; `object` is alive, and stays so until Python code runs.
    #[inline(always)]
    pub(super) unsafe fn nested(&mut self, object: *mut ffi::PyObject, work: impl FnOnce(&mut Self) -> Done) -> Done {
        if self.depth >= MAX_WRITE_DEPTH || (self.depth.is_multiple_of(32) && !has_headroom()) {
            return self.unfit(TOO_DEEP);
        }
        let level = Level { object, outer: self.innermost, held: Cell::new(false) };
        self.innermost = &raw const level;
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        self.innermost = level.outer;
        if level.held.get() {
            // Perhaps the last reference: what is outside of it is looked at anew once more.
            self.epoch = self.epoch.wrapping_add(1);
            // SAFETY: the reference that `expect_python` made.
            unsafe { ffi::Py_DECREF(object) };
        }
        done
    }

    /// Opens a level without holding anything.
    pub(super) fn open_level(&mut self) {
        self.depth += 1;
    }

    pub(super) fn close_level(&mut self) {
        self.depth -= 1;
    }
}
