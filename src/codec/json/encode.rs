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
use crate::cpython::dict::{self, Walk};
use crate::cpython::int::{self, Int};
use crate::cpython::{Writer, has_headroom};
use crate::error::Error;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::NonNull;

/// Bytes that may be written after a value without asking.
pub(super) const ROOM: usize = 16;

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
    depth: u32,
    /// How many calls of `default` led here.
    pub(super) defaults: u32,
    /// Changes whenever Python code may have run.
    epoch: u32,
    /// The container whose items are being written; null outside of all.
    innermost: *const Level,
    fault: Option<Fault>,
    path: Path,
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
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyUnicode_Type {
                self.text(at, object)
            } else if class == &raw mut ffi::PyLong_Type {
                match int::compact(object) {
                    Some(value) => self.signed(at, value),
                    None => self.int(at, object),
                }
            } else if object == ffi::Py_None() {
                self.word(at, *b"null", 4)
            } else if class == &raw mut ffi::PyBool_Type {
                if object == ffi::Py_True() { self.word(at, *b"true", 4) } else { self.word(at, *b"false", 5) }
            } else if class == &raw mut ffi::PyFloat_Type {
                self.float(at, ffi::PyFloat_AS_DOUBLE(object))
            } else if class == &raw mut ffi::PyDict_Type {
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

    /// Up to [`ROOM`] bytes, of which `len` count.
    #[inline(always)]
    fn word<const N: usize>(&mut self, at: Cursor, word: [u8; N], len: usize) -> Done {
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
            return self.unfit("Recursion limit reached");
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

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Opens a level without holding anything.
    pub(super) fn open_level(&mut self) {
        self.depth += 1;
    }

    pub(super) fn close_level(&mut self) {
        self.depth -= 1;
    }

    /// Writes a list, or an instance of a subclass.
    ///
    /// # Safety
    /// Attached; `list` is alive.
    #[inline(never)]
    pub(super) unsafe fn list<const INDENT: bool>(&mut self, at: Cursor, list: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe {
            self.nested(list, |this| {
                let items = || (*list.cast::<ffi::PyListObject>()).ob_item.cast_const();
                this.items::<INDENT>(at, ffi::Py_SIZE(list), items, || ffi::Py_SIZE(list))
            })
        }
    }

    #[inline(never)]
    unsafe fn tuple<const INDENT: bool>(&mut self, at: Cursor, tuple: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact tuple that is alive; tuples do not change.
        unsafe {
            self.nested(tuple, |this| {
                let items = (&raw const (*tuple.cast::<ffi::PyTupleObject>()).ob_item).cast::<*mut ffi::PyObject>();
                let count = ffi::Py_SIZE(tuple);
                this.items::<INDENT>(at, count, || items, || count)
            })
        }
    }

    /// # Safety
    /// Attached; `items` are `size` objects whenever these are asked for.
    #[inline(always)]
    unsafe fn items<const INDENT: bool>(
        &mut self,
        at: Cursor,
        count: isize,
        items: impl Fn() -> *const *mut ffi::PyObject,
        size: impl Fn() -> isize,
    ) -> Done {
        // SAFETY: the caller's guarantee; they are asked for anew whenever Python code may have run; `ROOM`.
        unsafe {
            if count == 0 {
                return self.word(at, *b"[]", 2);
            }
            at.write(b'[');
            let mut at = self.reserve(at.add(1), ROOM)?;
            let (mut epoch, mut start) = (self.epoch, items());
            for index in 0..count {
                if INDENT {
                    at = self.line(at)?;
                }
                let Some(after) = self.value::<INDENT>(at, *start.offset(index)) else {
                    self.path.index(index.unsigned_abs());
                    return None;
                };
                after.write(b',');
                at = after.add(1);
                if self.epoch != epoch {
                    if size() != count {
                        return self.unfit("list changed size while it was written");
                    }
                    (epoch, start) = (self.epoch, items());
                }
            }
            self.close::<INDENT>(at, b']')
        }
    }

    /// Ends a container whose last item a comma follows.
    #[inline(always)]
    pub(super) unsafe fn close<const INDENT: bool>(&mut self, at: Cursor, bracket: u8) -> Done {
        // SAFETY: the comma is overwritten, or what `line` made room for is used.
        unsafe {
            let mut at = at.sub(1);
            if INDENT {
                self.depth -= 1;
                let line = self.line(at);
                self.depth += 1;
                at = line?;
            }
            at.write(bracket);
            self.reserve(at.add(1), ROOM)
        }
    }

    /// A line break and two spaces for each open level.
    pub(super) fn line(&mut self, at: Cursor) -> Done {
        let spaces = 2 * self.depth as usize;
        let at = self.reserve(at, 1 + spaces + ROOM)?;
        // SAFETY: reserved.
        unsafe {
            at.write(b'\n');
            at.add(1).write_bytes(b' ', spaces);
            Some(at.add(1 + spaces))
        }
    }

    #[inline(always)]
    pub(super) unsafe fn colon<const INDENT: bool>(at: Cursor) -> Cursor {
        // SAFETY: a key leaves `ROOM`.
        unsafe {
            at.cast::<[u8; 2]>().write_unaligned(*b": ");
            at.add(1 + usize::from(INDENT))
        }
    }

    /// Writes a dict, or an instance of a subclass.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline(never)]
    pub(super) unsafe fn dict<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe { self.nested(object, |this| this.entries_of::<INDENT>(at, object)) }
    }

    #[inline(always)]
    unsafe fn entries_of<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee. Writing a key runs no Python code, so that the value is still there
        // afterwards; when Python code may have run, the walk is refreshed.
        unsafe {
            let count = dict::len(object);
            if count == 0 {
                return self.word(at, *b"{}", 2);
            }
            if self.options & (option::SORT_KEYS | option::NON_STR_KEYS) != 0 {
                return self.keyed::<INDENT>(at, object);
            }
            at.write(b'{');
            let mut at = self.reserve(at.add(1), ROOM)?;
            let mut walk = Walk::of(object);
            let (mut epoch, mut written) = (self.epoch, 0);
            while let Some((key, value)) = walk.next() {
                if INDENT {
                    at = self.line(at)?;
                }
                if ffi::Py_TYPE(key) != &raw mut ffi::PyUnicode_Type {
                    return self.unfit("Dict key must be str");
                }
                at = Self::colon::<INDENT>(self.text(at, key)?);
                let Some(after) = self.value::<INDENT>(at, value) else {
                    self.at_key(object, walk.position(), key);
                    return None;
                };
                after.write(b',');
                at = after.add(1);
                written += 1;
                if self.epoch != epoch {
                    if dict::len(object) != count {
                        break;
                    }
                    epoch = self.epoch;
                    walk.refresh();
                }
            }
            if written != count || dict::len(object) != count {
                return self.unfit("dict changed size while it was written");
            }
            self.close::<INDENT>(at, b'}')
        }
    }

    /// Notes that the fault is at `key`, which is used only if it is found in the dict again.
    #[cold]
    unsafe fn at_key(&mut self, dict: *mut ffi::PyObject, position: isize, key: *mut ffi::PyObject) {
        // SAFETY: the dict is held.
        unsafe {
            let mut walk = Walk::of(dict);
            while let Some((found, _)) = walk.next() {
                if found == key {
                    return self.path.key(&Bound::from_borrowed_ptr(self.py, key));
                }
                if walk.position() >= position {
                    break;
                }
            }
        }
    }

    /// Notes that the fault is at `key`.
    pub(super) fn at_name(&mut self, key: &Bound<'py, PyAny>) {
        self.path.key(key);
    }
}
