//! Writing lists, tuples and dicts.
//!
//! As long as the items of a list are leaves, no Python code can run, and nothing is held or looked at twice.
#![allow(unsafe_code)]

use super::encode::{Cursor, Done, Encoder, ROOM, TOO_DEEP};
use super::{MAX_WRITE_DEPTH, option};
use crate::cpython::dict::{self, Walk};
use pyo3::ffi;
use pyo3::prelude::*;

/// The message for dicts whose entries are not those that were there before Python code ran.
const CHANGED: &str = "dict changed size while it was written";

impl<'py> Encoder<'_, 'py> {
    /// Writes a list, or an instance of a subclass.
    ///
    /// # Safety
    /// Attached; `list` is alive.
    #[inline(never)]
    pub(super) unsafe fn list<const INDENT: bool>(&mut self, at: Cursor, list: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe {
            let items = || (*list.cast::<ffi::PyListObject>()).ob_item.cast_const();
            self.array::<INDENT>(at, list, items, || ffi::Py_SIZE(list))
        }
    }

    /// Writes a tuple.
    ///
    /// # Safety
    /// Attached; `tuple` is an exact tuple that is alive.
    #[inline(never)]
    pub(super) unsafe fn tuple<const INDENT: bool>(&mut self, at: Cursor, tuple: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; tuples do not change.
        unsafe {
            let items = (&raw const (*tuple.cast::<ffi::PyTupleObject>()).ob_item).cast::<*mut ffi::PyObject>();
            let count = ffi::Py_SIZE(tuple);
            self.array::<INDENT>(at, tuple, || items, || count)
        }
    }

    /// # Safety
    /// Attached; `object` is alive, and `items` are `size` objects whenever these are asked for.
    #[inline(always)]
    unsafe fn array<const INDENT: bool>(
        &mut self,
        at: Cursor,
        object: *mut ffi::PyObject,
        items: impl Fn() -> *const *mut ffi::PyObject,
        size: impl Fn() -> isize,
    ) -> Done {
        let (count, start) = (size(), items());
        if self.depth >= MAX_WRITE_DEPTH {
            return self.unfit(TOO_DEEP);
        }
        // SAFETY: the caller's guarantee; `ROOM`.
        unsafe {
            if count == 0 {
                return self.word(at, *b"[]", 2);
            }
            at.write(b'[');
            let mut at = self.reserve(at.add(1), ROOM)?;
            let mut index = 0;
            // Up to the first item that is more than a leaf there is nothing to hold or to look at anew.
            while !INDENT && index < count {
                let Some(written) = self.leaf(at, *start.offset(index)) else { break };
                let Some(after) = written else {
                    self.path.index(index.unsigned_abs());
                    return None;
                };
                after.write(b',');
                at = after.add(1);
                index += 1;
            }
            if index == count {
                return self.close::<INDENT>(at, b']');
            }
            self.nested(object, |this| this.items::<INDENT>(at, index, items, size))
        }
    }

    /// Writes the items from `first` on, which there are.
    ///
    /// # Safety
    /// As [`Self::array`].
    #[inline(always)]
    unsafe fn items<const INDENT: bool>(
        &mut self,
        at: Cursor,
        first: isize,
        items: impl Fn() -> *const *mut ffi::PyObject,
        size: impl Fn() -> isize,
    ) -> Done {
        let count = size();
        let (mut epoch, mut start, mut at) = (self.epoch, items(), at);
        // SAFETY: the caller's guarantee; they are asked for anew whenever Python code may have run; `ROOM`.
        unsafe {
            for index in first..count {
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
                let after = match self.leaf(at, value) {
                    Some(Some(after)) => after,
                    Some(None) => {
                        self.at_name(&Bound::from_borrowed_ptr(self.py, key));
                        return None;
                    }
                    None => {
                        let Some(after) = self.container::<INDENT>(at, value) else {
                            self.at_key(object, walk.position(), key);
                            return None;
                        };
                        if self.epoch != epoch {
                            if dict::len(object) != count {
                                return self.unfit(CHANGED);
                            }
                            epoch = self.epoch;
                            walk.refresh();
                        }
                        after
                    }
                };
                after.write(b',');
                at = after.add(1);
                written += 1;
            }
            if written != count {
                return self.unfit(CHANGED);
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
