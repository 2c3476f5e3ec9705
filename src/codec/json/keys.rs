//! Writing dicts whose keys are sorted, or are not all `str`.
#![allow(unsafe_code)]

use super::digits::{self, MAX_INT};
use super::encode::{Cursor, Done, Encoder, ROOM};
use super::option;
use crate::cpython::Owned;
use crate::cpython::dict::{self, Walk};
use crate::cpython::int::{self, Int};
use crate::cpython::text::Text;
use crate::error::Error;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::ops::Range;
use std::ptr::NonNull;

/// How often the value of an Enum that is a key may be an Enum itself.
const MAX_ENUMS: u32 = 32;

/// A key that is text now: its place in the memory that all keys of a dict share.
struct Entry {
    text: Range<usize>,
    key: Owned,
    value: Owned,
}

impl<'py> Encoder<'_, 'py> {
    /// Writes a dict that is not empty.
    ///
    /// # Safety
    /// Attached; a dict, or an instance of a subclass, that is held.
    #[inline(never)]
    pub(super) unsafe fn keyed<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        self.expect_python();
        let mut texts = Vec::new();
        // SAFETY: the caller's guarantee; keys and values are held by the entries.
        unsafe {
            let Some(mut entries) = self.entries(object) else {
                return self.fail(Error::Memory { bytes: dict::len(object).unsigned_abs() * size_of::<Entry>() });
            };
            for entry in &mut entries {
                let start = texts.len();
                if !self.key_text(&mut texts, &Bound::from_borrowed_ptr(self.py, entry.key.as_ptr()), MAX_ENUMS) {
                    return None;
                }
                entry.text = start..texts.len();
            }
            if self.options & option::SORT_KEYS != 0 {
                // By text, then by place: a sort that keeps equal keys in order would take memory.
                entries.sort_unstable_by(|one, other| {
                    let texts = texts[one.text.clone()].cmp(&texts[other.text.clone()]);
                    texts.then(one.text.start.cmp(&other.text.start))
                });
            }
            at.write(b'{');
            let mut at = self.reserve(at.add(1), ROOM)?;
            for entry in &entries {
                if INDENT {
                    at = self.line(at)?;
                }
                at = Self::colon::<INDENT>(self.utf8(at, &texts[entry.text.clone()])?);
                let Some(after) = self.value::<INDENT>(at, entry.value.as_ptr()) else {
                    self.at_name(&Bound::from_borrowed_ptr(self.py, entry.key.as_ptr()));
                    return None;
                };
                after.write(b',');
                at = after.add(1);
            }
            self.close::<INDENT>(at, b'}')
        }
    }

    unsafe fn entries(&self, object: *mut ffi::PyObject) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        // SAFETY: no Python code runs during the walk.
        unsafe {
            entries.try_reserve_exact(dict::len(object).unsigned_abs()).ok()?;
            let mut walk = Walk::of(object);
            while let Some((key, value)) = walk.next() {
                let held = |object| Owned::borrowed(NonNull::new_unchecked(object));
                entries.push(Entry { text: 0..0, key: held(key), value: held(value) });
            }
        }
        Some(entries)
    }

    /// Appends a key; false if it is none.
    fn key_text(&mut self, texts: &mut Vec<u8>, key: &Bound<'py, PyAny>, enums: u32) -> bool {
        let object = key.as_ptr();
        // SAFETY: held by the caller.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyUnicode_Type {
                return self.str_text(texts, object);
            }
            if self.options & option::NON_STR_KEYS == 0 {
                return self.unfit("Dict key must be str").is_some();
            }
            if object == ffi::Py_None() {
                return self.append(texts, b"null");
            }
            if class == &raw mut ffi::PyBool_Type {
                return self.append(texts, if object == ffi::Py_True() { b"true" } else { b"false" });
            }
            if class == &raw mut ffi::PyFloat_Type {
                let value = ffi::PyFloat_AS_DOUBLE(object);
                let mut buffer = zmij::Buffer::new();
                let text = if value.is_finite() { buffer.format_finite(value) } else { "null" };
                return self.append(texts, text.as_bytes());
            }
            if let Some(stamp) = self.stamp(key) {
                return stamp.is_ok_and(|stamp| self.append(texts, stamp.as_bytes()));
            }
            if self.is_uuid(key) {
                return self.uuid_text(key).is_some_and(|text| self.append(texts, &text));
            }
            if self.is_enum(key) {
                return self.enum_text(texts, key, enums);
            }
            let flags = ffi::PyType_GetFlags(class);
            if flags & ffi::Py_TPFLAGS_UNICODE_SUBCLASS != 0 {
                return self.str_text(texts, object);
            }
            if flags & ffi::Py_TPFLAGS_LONG_SUBCLASS != 0 {
                return self.int_text(texts, object);
            }
        }
        self.unfit("Dict key must a type serializable with OPT_NON_STR_KEYS").is_some()
    }

    fn enum_text(&mut self, texts: &mut Vec<u8>, key: &Bound<'py, PyAny>, enums: u32) -> bool {
        if enums == 0 {
            return self.unfit("Recursion limit reached").is_some();
        }
        match key.getattr(intern!(self.py, "value")) {
            Ok(value) => self.key_text(texts, &value, enums - 1),
            Err(error) => {
                let message = format!("Type is not JSON serializable: {}", super::fault::type_name(key));
                self.refused(message, error).is_some()
            }
        }
    }

    fn append(&mut self, texts: &mut Vec<u8>, bytes: &[u8]) -> bool {
        if texts.try_reserve(bytes.len()).is_err() {
            return self.fail(Error::Memory { bytes: bytes.len() }).is_some();
        }
        texts.extend_from_slice(bytes);
        true
    }

    unsafe fn str_text(&mut self, texts: &mut Vec<u8>, object: *mut ffi::PyObject) -> bool {
        // SAFETY: a str that is held; as much room as it has bytes.
        unsafe {
            let text = Text::of(object);
            let length = text.length();
            if length.surrogates {
                return self.surrogate().is_some();
            }
            if texts.try_reserve(length.bytes).is_err() {
                return self.fail(Error::Memory { bytes: length.bytes }).is_some();
            }
            text.write_utf8(texts.as_mut_ptr().add(texts.len()));
            texts.set_len(texts.len() + length.bytes);
        }
        true
    }

    unsafe fn int_text(&mut self, texts: &mut Vec<u8>, object: *mut ffi::PyObject) -> bool {
        let mut room = [0; MAX_INT];
        // SAFETY: an int; as much room as is asked for.
        let end = unsafe {
            match int::read(object) {
                Int::Signed(value) => digits::write_i64(value, room.as_mut_ptr()),
                Int::Unsigned(value) => digits::write_u64(value, room.as_mut_ptr()),
                Int::Big => return self.unfit("Dict integer key must be within 64-bit range").is_some(),
            }
        };
        let len = end.addr() - room.as_ptr().addr();
        self.append(texts, &room[..len])
    }
}
