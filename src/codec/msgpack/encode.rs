//! Writing: dispatch by exact type, and what MessagePack has of its own.
//!
//! References are borrowed only while no Python code can run. A container is held while its items are written, and
//! what is read of it is read anew after each: an item may be of a type that is written by Python code (`default`,
//! `pack`, a descriptor), which may change it.
#![allow(unsafe_code)]

use super::fault::{Fault, Stop};
use super::{MAX_DEPTH, Types, code};
use crate::codec::path::{Path, type_name};
use crate::cpython::dict;
use crate::cpython::int::{self, Int};
use crate::cpython::text::{self, Text};
use crate::cpython::{Owned, Writer, has_headroom};
use crate::error::Error;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::NonNull;

/// Writes one value.
pub(crate) struct Encoder<'w, 'py> {
    pub(super) py: Python<'py>,
    pub(super) out: &'w mut Writer,
    pub(super) types: Types,
    pub(super) default: Option<&'w Bound<'py, PyAny>>,
    pub(super) max_int_bytes: usize,
    /// How many levels there may still be.
    pub(super) levels: u32,
    pub(super) fault: Option<Fault>,
    path: Path,
    /// The container that was one too deep; found again on the way out, it is a cycle.
    deepest: *mut ffi::PyObject,
    pub(super) classes: super::encode_types::Classes<'py>,
}

pub(super) type Done = Result<(), Stop>;

impl<'w, 'py> Encoder<'w, 'py> {
    pub(crate) fn new(
        py: Python<'py>,
        out: &'w mut Writer,
        types: Types,
        default: Option<&'w Bound<'py, PyAny>>,
        max_int_bytes: usize,
    ) -> Self {
        Self {
            py,
            out,
            types,
            default,
            max_int_bytes,
            levels: MAX_DEPTH,
            fault: None,
            path: Path::default(),
            deepest: std::ptr::null_mut(),
            classes: super::encode_types::Classes::default(),
        }
    }

    /// Writes `value`.
    ///
    /// # Errors
    /// [`Error::Encode`] with the path of what cannot be written; what Python code raised.
    pub(crate) fn encode(mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        // SAFETY: attached; `value` is held by the caller.
        if unsafe { self.value(value.as_ptr()) }.is_ok() {
            return Ok(());
        }
        match self.fault.take() {
            Some(Fault::Raised(error)) => Err(error),
            Some(Fault::Unfit { expected, found }) => {
                Err(Error::Encode { place: format!("value at {}", self.path.show()), expected, found }.into())
            }
            None => Err(PyErr::fetch(self.py)),
        }
    }

    #[cold]
    pub(super) fn fail(&mut self, fault: impl Into<Fault>) -> Stop {
        self.fault = Some(fault.into());
        Stop
    }

    #[inline(always)]
    pub(super) fn reserve(&mut self, count: usize) -> Done {
        self.out.reserve(count).map_err(|_| self.fail(Error::Memory { bytes: count }))
    }

    /// Writes any object; the types that most objects have without a call.
    ///
    /// # Safety
    /// Attached; `object` is alive, and stays so while this runs or until Python code does.
    #[inline(always)]
    pub(super) unsafe fn value(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; each arm has compared the exact type.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyUnicode_Type {
                self.text(object)
            } else if class == &raw mut ffi::PyLong_Type {
                match int::compact(object) {
                    Some(value @ 0..=0xffff) => self.small(value as u16),
                    _ => self.int(object),
                }
            } else if class == &raw mut ffi::PyFloat_Type {
                self.float(ffi::PyFloat_AS_DOUBLE(object))
            } else {
                self.container_or_other(object)
            }
        }
    }

    /// # Safety
    /// As [`Self::value`].
    #[inline(never)]
    unsafe fn container_or_other(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: as above.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if object == ffi::Py_None() {
                self.byte(0xc0)
            } else if class == &raw mut ffi::PyDict_Type {
                self.nested(object, |this| this.dict(object))
            } else if class == &raw mut ffi::PyList_Type {
                self.nested(object, |this| this.list(object))
            } else if class == &raw mut ffi::PyBool_Type {
                self.byte(if object == ffi::Py_True() { 0xc3 } else { 0xc2 })
            } else if class == &raw mut ffi::PyTuple_Type && self.types == Types::Python {
                self.tuple(object)
            } else if class == &raw mut ffi::PyBytes_Type {
                let data = std::slice::from_raw_parts(
                    ffi::PyBytes_AS_STRING(object).cast(),
                    ffi::Py_SIZE(object).unsigned_abs(),
                );
                self.bin(data)
            } else {
                self.other(object)
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Done {
        self.reserve(1)?;
        // SAFETY: reserved.
        unsafe { self.out.put_u8(byte) };
        Ok(())
    }

    /// An int of up to two bytes.
    #[inline(always)]
    fn small(&mut self, value: u16) -> Done {
        self.reserve(3)?;
        let [high, low] = value.to_be_bytes();
        // SAFETY: reserved.
        unsafe {
            if value < 0x80 {
                self.out.put_u8(low);
            } else if value < 0x100 {
                self.out.put([0xcc, low]);
            } else {
                self.out.put([0xcd, high, low]);
            }
        }
        Ok(())
    }

    #[inline(never)]
    unsafe fn int(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact int.
        match unsafe { int::read(object) } {
            Int::Signed(value) => self.signed(value),
            Int::Unsigned(value) => self.head(0xcf, value.to_be_bytes()),
            // SAFETY: as above.
            Int::Big => unsafe { self.big_int(object) },
        }
    }

    /// An int in its shortest form.
    fn signed(&mut self, value: i64) -> Done {
        self.reserve(9)?;
        // SAFETY: reserved.
        unsafe {
            match value {
                -32..=127 => self.out.put_u8(value as u8),
                128..=0xff => self.out.put([0xcc, value as u8]),
                0x100..=0xffff => {
                    let [a, b] = (value as u16).to_be_bytes();
                    self.out.put([0xcd, a, b]);
                }
                0x1_0000..=0xffff_ffff => {
                    let [a, b, c, d] = (value as u32).to_be_bytes();
                    self.out.put([0xce, a, b, c, d]);
                }
                0x1_0000_0000.. => {
                    self.out.put_u8(0xcf);
                    self.out.put(value.to_be_bytes());
                }
                -0x80..=-33 => self.out.put([0xd0, value as u8]),
                -0x8000..=-0x81 => {
                    let [a, b] = (value as i16).to_be_bytes();
                    self.out.put([0xd1, a, b]);
                }
                -0x8000_0000..=-0x8001 => {
                    let [a, b, c, d] = (value as i32).to_be_bytes();
                    self.out.put([0xd2, a, b, c, d]);
                }
                _ => {
                    self.out.put_u8(0xd3);
                    self.out.put(value.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn float(&mut self, value: f64) -> Done {
        self.head(0xcb, value.to_be_bytes())
    }

    /// A marker and eight bytes.
    #[inline]
    fn head(&mut self, marker: u8, bytes: [u8; 8]) -> Done {
        self.reserve(9)?;
        // SAFETY: reserved.
        unsafe {
            self.out.put_u8(marker);
            self.out.put(bytes);
        }
        Ok(())
    }

    #[inline]
    pub(super) unsafe fn text(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact str, alive while no Python code runs, and none does here.
        unsafe {
            if let Some(ascii) = text::ascii_of(object)
                && ascii.len() < 32
            {
                self.reserve(33)?;
                self.out.put_u8(0xa0 | ascii.len() as u8);
                self.out.put_slice(ascii);
                return Ok(());
            }
            self.long_text(object)
        }
    }

    /// # Safety
    /// As [`Self::text`].
    #[inline(never)]
    unsafe fn long_text(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: as above.
        unsafe {
            let text = Text::of(object);
            let length = text.length();
            if length.surrogates {
                return self.surrogates(text, length.bytes);
            }
            let room = length.bytes.saturating_add(5);
            self.reserve(room)?;
            match length.bytes {
                len @ 0..32 => self.out.put_u8(0xa0 | len as u8),
                len @ 32..0x100 => self.out.put([0xd9, len as u8]),
                len => self.long_head([0xda, 0xdb], len)?,
            }
            text.write_utf8(self.out.cursor());
            self.out.advance(length.bytes);
        }
        Ok(())
    }

    /// A marker with a length of two or four bytes, for which there is room.
    unsafe fn long_head(&mut self, markers: [u8; 2], len: usize) -> Done {
        // SAFETY: the caller reserved five bytes.
        unsafe {
            if let Ok(len) = u16::try_from(len) {
                let [a, b] = len.to_be_bytes();
                self.out.put([markers[0], a, b]);
            } else if let Ok(len) = u32::try_from(len) {
                let [a, b, c, d] = len.to_be_bytes();
                self.out.put([markers[1], a, b, c, d]);
            } else {
                return Err(self.fail(Fault::unfit("less than 4 GiB or 2**32 items in one part", format!("{len}"))));
            }
        }
        Ok(())
    }

    pub(super) fn bin(&mut self, data: &[u8]) -> Done {
        self.reserve(data.len().saturating_add(5))?;
        // SAFETY: reserved.
        unsafe {
            match u8::try_from(data.len()) {
                Ok(len) => self.out.put([0xc4, len]),
                Err(_) => self.long_head([0xc5, 0xc6], data.len())?,
            }
            self.out.put_slice(data);
        }
        Ok(())
    }

    pub(super) fn array_head(&mut self, count: usize) -> Done {
        self.reserve(5)?;
        // SAFETY: reserved.
        unsafe {
            match count {
                0..16 => self.out.put_u8(0x90 | count as u8),
                _ => self.long_head([0xdc, 0xdd], count)?,
            }
        }
        Ok(())
    }

    pub(super) fn map_head(&mut self, count: usize) -> Done {
        self.reserve(5)?;
        // SAFETY: reserved.
        unsafe {
            match count {
                0..16 => self.out.put_u8(0x80 | count as u8),
                _ => self.long_head([0xde, 0xdf], count)?,
            }
        }
        Ok(())
    }

    /// Runs `work` one level deeper, `object` being held meanwhile.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline]
    pub(super) unsafe fn nested(&mut self, object: *mut ffi::PyObject, work: impl FnOnce(&mut Self) -> Done) -> Done {
        // SAFETY: the caller's guarantee.
        let held = unsafe { Owned::borrowed(NonNull::new_unchecked(object)) };
        if self.levels == 0 || (self.levels.is_multiple_of(32) && !has_headroom()) {
            return Err(self.too_deep(object));
        }
        self.levels -= 1;
        let done = work(self);
        self.levels += 1;
        if done.is_err() && self.deepest == object {
            self.deepest = std::ptr::null_mut();
            self.fault = Some(Fault::unfit("a value without cycles", "one that contains itself"));
        }
        drop(held);
        done
    }

    #[cold]
    fn too_deep(&mut self, object: *mut ffi::PyObject) -> Stop {
        self.deepest = object;
        let found = if self.levels == 0 { "more, or a cycle" } else { "more than this thread's stack has room for" };
        self.fail(Fault::unfit(format!("at most {MAX_DEPTH} levels"), found))
    }

    unsafe fn list(&mut self, list: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact list, held by `nested`; its size and items are read anew for each item.
        unsafe {
            let count = ffi::Py_SIZE(list);
            self.array_head(count.unsigned_abs())?;
            let mut index = 0;
            while index < count && index < ffi::Py_SIZE(list) {
                let item = *(*list.cast::<ffi::PyListObject>()).ob_item.offset(index);
                if self.value(item).is_err() {
                    self.path.index(index.unsigned_abs());
                    return Err(Stop);
                }
                index += 1;
            }
            if index == ffi::Py_SIZE(list) && index == count { Ok(()) } else { Err(self.changed("list")) }
        }
    }

    #[cold]
    fn changed(&mut self, what: &str) -> Stop {
        self.fail(Fault::unfit(format!("a {what} that keeps its size while it is written"), "one that was changed"))
    }

    unsafe fn dict(&mut self, dict_object: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact dict, held by `nested`.
        unsafe {
            let count = dict::len(dict_object);
            self.map_head(count.unsigned_abs())?;
            let mut walk = dict::Walk::of(dict_object);
            let mut written = 0;
            while let Some((key, value)) = walk.next() {
                written += 1;
                if written > count {
                    break;
                }
                // Writing a str runs no Python code, so that the value is still there afterwards.
                if ffi::Py_TYPE(key) == &raw mut ffi::PyUnicode_Type {
                    self.text(key)?;
                    if self.value(value).is_err() {
                        return Err(self.at_key(dict_object, walk.position(), key));
                    }
                } else {
                    self.other_pair(key, value)?;
                }
                walk.refresh();
            }
            if written == count && dict::len(dict_object) == count { Ok(()) } else { Err(self.changed("dict")) }
        }
    }

    /// # Safety
    /// The dict is alive; `key` was its key, and is now if `position` still leads to it.
    #[cold]
    unsafe fn at_key(&mut self, dict: *mut ffi::PyObject, position: isize, key: *mut ffi::PyObject) -> Stop {
        // SAFETY: the key is used only if it is found in the dict again.
        unsafe {
            let (mut at, mut found, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while at < position && ffi::PyDict_Next(dict, &raw mut at, &raw mut found, &raw mut value) != 0 {
                if found == key {
                    self.path.key(&Bound::from_borrowed_ptr(self.py, key));
                    break;
                }
            }
        }
        Stop
    }

    /// A pair whose key is not a str: writing it may run Python code, which may drop both.
    unsafe fn other_pair(&mut self, key: *mut ffi::PyObject, value: *mut ffi::PyObject) -> Done {
        // SAFETY: both are alive.
        unsafe {
            let key = Owned::borrowed(NonNull::new_unchecked(key));
            let value = Owned::borrowed(NonNull::new_unchecked(value));
            if self.value(key.as_ptr()).is_err() || self.value(value.as_ptr()).is_err() {
                self.path.key(&Bound::from_borrowed_ptr(self.py, key.as_ptr()));
                return Err(Stop);
            }
        }
        Ok(())
    }

    /// Ends with the place of a field.
    pub(super) fn at_field(&mut self, name: &Bound<'py, PyAny>) -> Stop {
        self.path.key(name);
        Stop
    }

    unsafe fn tuple(&mut self, tuple: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact tuple.
        unsafe { self.nested(tuple, |this| this.container(code::TUPLE, |this| this.tuple_items(tuple))) }
    }

    /// The array of a tuple's items.
    ///
    /// # Safety
    /// Attached; `tuple` is a tuple that is held.
    pub(super) unsafe fn tuple_items(&mut self, tuple: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; tuples do not change.
        unsafe {
            let count = ffi::Py_SIZE(tuple);
            self.array_head(count.unsigned_abs())?;
            for index in 0..count {
                if self.value(ffi::PyTuple_GET_ITEM(tuple, index)).is_err() {
                    self.path.index(index.unsigned_abs());
                    return Err(Stop);
                }
            }
        }
        Ok(())
    }

    /// An extension whose payload `work` writes: with room for the longest head, which is moved up to a short payload.
    pub(super) fn container(&mut self, code: i8, work: impl FnOnce(&mut Self) -> Done) -> Done {
        const LONG: usize = 6;
        const SHORT: usize = 3;
        let start = self.out.len();
        self.reserve(LONG)?;
        // SAFETY: reserved.
        unsafe { self.out.put([0xc9, 0, 0, 0, 0, code as u8]) };
        work(self)?;
        let len = self.out.len() - start - LONG;
        let written = self.out.written_from(start);
        if let Ok(short) = u8::try_from(len) {
            written.copy_within(LONG.., SHORT);
            written[..SHORT].copy_from_slice(&[0xc7, short, code as u8]);
            self.out.truncate(start + SHORT + len);
        } else if let Ok(long) = u32::try_from(len) {
            written[1..5].copy_from_slice(&long.to_be_bytes());
        } else {
            return Err(self.fail(Fault::unfit("less than 4 GiB in one part", format!("{len} bytes"))));
        }
        Ok(())
    }

    /// An extension with this payload.
    pub(super) fn ext(&mut self, code: i8, payload: &[u8]) -> Done {
        self.reserve(payload.len().saturating_add(6))?;
        // SAFETY: reserved.
        unsafe {
            match payload.len() {
                1 => self.out.put([0xd4, code as u8]),
                2 => self.out.put([0xd5, code as u8]),
                4 => self.out.put([0xd6, code as u8]),
                8 => self.out.put([0xd7, code as u8]),
                16 => self.out.put([0xd8, code as u8]),
                len => {
                    match u8::try_from(len) {
                        Ok(len) => self.out.put([0xc7, len]),
                        Err(_) => self.long_head([0xc8, 0xc9], len)?,
                    }
                    self.out.put_u8(code as u8);
                }
            }
            self.out.put_slice(payload);
        }
        Ok(())
    }

    unsafe fn surrogates(&mut self, text: Text<'_>, len: usize) -> Done {
        if self.types == Types::Plain {
            return Err(self.fail(Fault::unfit("text without surrogates", "a str with half of a surrogate pair")));
        }
        let mut bytes = vec![0; len];
        // SAFETY: as many bytes as `length` said.
        unsafe { text.write_utf8(bytes.as_mut_ptr()) };
        self.ext(code::SURROGATES, &bytes)
    }

    /// What `default` makes of an object that has no form.
    pub(super) fn by_default(&mut self, object: &Bound<'py, PyAny>, expected: &str) -> Done {
        let Some(default) = self.default else {
            let hint = format!("{expected}; convert it, or pass default=");
            return Err(self.fail(Fault::unfit(hint, type_name(object))));
        };
        let value = default.call1((object,)).map_err(|error| self.fail(Fault::Raised(error)))?;
        // SAFETY: attached, held by `value`.
        unsafe { self.nested(object.as_ptr(), |this| this.value(value.as_ptr())) }
    }
}
