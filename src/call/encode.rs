//! Canonical encoding of values: each begins with a tag for its type and tells its own length, so that no two values
//! have the same bytes, and equal values of one type have the same.
//!
//! References are borrowed only while no Python code can run. A container is held while its items are written, and its
//! size is compared afterwards: an item may be described by Python code, which may change the container.
#![allow(unsafe_code)]

use crate::codec::path::{Path, type_name};
use crate::cpython::dict;
use crate::cpython::int::{self, Int};
use crate::cpython::text;
use crate::cpython::{Owned, Writer, has_headroom};
use crate::error::{Error, Text};
use crate::python::error::is_encode_error;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ops::Range;
use std::ptr::NonNull;

/// How deep values may be nested.
const MAX_DEPTH: u32 = 128;
/// How many bytes the arguments of one call may have.
const MAX_BYTES: usize = 64 << 20;
/// Text, bytes and ints longer than this are written as their length and hash.
pub(super) const MAX_INLINE: usize = 1024;

/// The first byte of each value. Of the last five, the next number is that of the hashed form.
pub(super) mod tag {
    pub(crate) const NONE: u8 = 0x00;
    pub(crate) const FALSE: u8 = 0x01;
    pub(crate) const TRUE: u8 = 0x02;
    pub(crate) const INT: u8 = 0x03;
    pub(crate) const FLOAT: u8 = 0x04;
    pub(crate) const COMPLEX: u8 = 0x05;
    pub(crate) const TUPLE: u8 = 0x06;
    pub(crate) const LIST: u8 = 0x07;
    pub(crate) const DICT: u8 = 0x08;
    pub(crate) const SET: u8 = 0x09;
    pub(crate) const FROZENSET: u8 = 0x0a;
    pub(crate) const MEMORYVIEW: u8 = 0x0b;
    pub(crate) const OBJECT: u8 = 0x0c;
    /// Not a value: what `key=` returned follows.
    pub(crate) const KEY: u8 = 0x0d;
    pub(crate) const BIG_INT: u8 = 0x10;
    pub(crate) const STR: u8 = 0x12;
    pub(crate) const BYTES: u8 = 0x14;
    pub(crate) const BYTEARRAY: u8 = 0x16;
    pub(crate) const BUFFER: u8 = 0x18;
}

/// Why encoding ended early; kept aside, as the functions that recurse return one bit.
pub(super) enum Fault {
    /// A value without a form.
    Unfit { expected: Text, found: String },
    /// What Python code raised, or a lack of memory.
    Raised(PyErr),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Raised(error.into())
    }
}

/// [`Encoder::take_fault`] says why.
#[derive(Debug)]
pub(super) struct Stop;

pub(super) type Done = Result<(), Stop>;

/// Writes values one after another.
pub(super) struct Encoder<'w, 'py> {
    pub(super) py: Python<'py>,
    pub(super) out: &'w mut Writer,
    /// From an object of another type to its label and state.
    describe: &'w Py<PyAny>,
    /// Whether the value is the instance that a method is called on, which counts by its identity only.
    is_owner: bool,
    /// How many levels there may still be.
    levels: u32,
    /// Boxed, so that an encoder is small and dropped by comparing one pointer.
    trouble: Option<Box<Trouble>>,
}

/// What went wrong, and where in the value.
struct Trouble {
    fault: Fault,
    path: Path,
}

impl<'w, 'py> Encoder<'w, 'py> {
    #[inline(always)]
    pub(super) fn new(py: Python<'py>, out: &'w mut Writer, describe: &'w Py<PyAny>) -> Self {
        Self { py, out, describe, is_owner: false, levels: MAX_DEPTH, trouble: None }
    }

    /// What went wrong, and where in the value (`[0].owner`).
    #[cold]
    pub(super) fn take_fault(&mut self) -> (Fault, String) {
        self.trouble();
        match self.trouble.take() {
            Some(trouble) => (trouble.fault, trouble.path.show().split_off(1)),
            None => unreachable!("`trouble` has set it"),
        }
    }

    /// Why encoding ended; what Python raised, if nothing else is known.
    #[cold]
    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| {
            Box::new(Trouble { fault: Fault::Raised(PyErr::fetch(self.py)), path: Path::default() })
        })
    }

    #[cold]
    pub(super) fn fail(&mut self, fault: impl Into<Fault>) -> Stop {
        self.trouble = Some(Box::new(Trouble { fault: fault.into(), path: Path::default() }));
        Stop
    }

    #[cold]
    fn unfit(&mut self, expected: impl Into<Text>, found: impl Into<String>) -> Stop {
        self.fail(Fault::Unfit { expected: expected.into(), found: found.into() })
    }

    #[inline(always)]
    pub(super) fn reserve(&mut self, count: usize) -> Done {
        self.out.reserve(count).map_err(|_| self.fail(Error::Memory { bytes: count }))
    }

    pub(super) fn byte(&mut self, byte: u8) -> Done {
        self.put([byte])
    }

    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Done {
        self.reserve(N)?;
        // SAFETY: reserved.
        unsafe { self.out.put(bytes) };
        Ok(())
    }

    /// A tag and eight bytes.
    #[inline(always)]
    fn word(&mut self, tag: u8, bytes: [u8; 8]) -> Done {
        self.reserve(9)?;
        // SAFETY: reserved.
        unsafe {
            self.out.put_u8(tag);
            self.out.put(bytes);
        }
        Ok(())
    }

    /// A tag and the number of items that follow.
    pub(super) fn count(&mut self, tag: u8, count: usize) -> Done {
        self.word(tag, (count as u64).to_le_bytes())
    }

    /// Writes any object; the types that most arguments have without a call.
    ///
    /// # Safety
    /// Attached; `object` is alive, and stays so while this runs or until Python code does.
    #[inline(always)]
    pub(super) unsafe fn value(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; each arm has compared the exact type.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyUnicode_Type {
                if let Some(ascii) = text::ascii_of(object)
                    && ascii.len() <= MAX_INLINE
                {
                    return self.inline(tag::STR, ascii);
                }
                self.long_text(object)
            } else if class == &raw mut ffi::PyLong_Type
                && let Some(value) = int::compact(object)
            {
                self.word(tag::INT, value.to_le_bytes())
            } else {
                self.other(object)
            }
        }
    }

    /// Writes the instance that a method is called on.
    ///
    /// # Safety
    /// As [`Self::value`].
    pub(super) unsafe fn owner(&mut self, object: *mut ffi::PyObject) -> Done {
        self.is_owner = true;
        // SAFETY: the caller's guarantee.
        let done = unsafe { self.value(object) };
        self.is_owner = false;
        done
    }

    /// # Safety
    /// As [`Self::value`].
    #[inline(never)]
    unsafe fn other(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: as above.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if object == ffi::Py_None() {
                self.byte(tag::NONE)
            } else if class == &raw mut ffi::PyBool_Type {
                self.byte(if object == ffi::Py_True() { tag::TRUE } else { tag::FALSE })
            } else if class == &raw mut ffi::PyFloat_Type {
                self.word(tag::FLOAT, float_bytes(ffi::PyFloat_AS_DOUBLE(object)))
            } else if class == &raw mut ffi::PyLong_Type {
                self.int(object)
            } else if class == &raw mut ffi::PyBytes_Type {
                self.bytes(object)
            } else if class == &raw mut ffi::PyTuple_Type {
                self.nested(object, |this| this.tuple(object))
            } else if class == &raw mut ffi::PyList_Type {
                self.nested(object, |this| this.list(object))
            } else if class == &raw mut ffi::PyDict_Type {
                self.nested(object, |this| this.dict(object))
            } else if class == &raw mut ffi::PySet_Type {
                self.nested(object, |this| this.set(tag::SET, object))
            } else if class == &raw mut ffi::PyFrozenSet_Type {
                self.nested(object, |this| this.set(tag::FROZENSET, object))
            } else if class == &raw mut ffi::PyComplex_Type {
                self.word(tag::COMPLEX, float_bytes(ffi::PyComplex_RealAsDouble(object)))?;
                self.put(float_bytes(ffi::PyComplex_ImagAsDouble(object)))
            } else if class == &raw mut ffi::PyByteArray_Type {
                self.bytearray(object)
            } else if class == &raw mut ffi::PyMemoryView_Type {
                self.memoryview(object)
            } else {
                let is_owner = std::mem::take(&mut self.is_owner);
                self.nested(object, |this| this.described(object, is_owner))
            }
        }
    }

    #[inline(never)]
    unsafe fn int(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact int.
        match unsafe { int::read(object) } {
            Int::Signed(value) => self.word(tag::INT, value.to_le_bytes()),
            // SAFETY: as above.
            Int::Unsigned(_) | Int::Big => unsafe { self.big_int(object) },
        }
    }

    /// Runs `work` one level deeper, `object` being held meanwhile.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline]
    unsafe fn nested(&mut self, object: *mut ffi::PyObject, work: impl FnOnce(&mut Self) -> Done) -> Done {
        // SAFETY: the caller's guarantee; objects are not null.
        let held = unsafe { Owned::borrowed(NonNull::new_unchecked(object)) };
        if self.levels == 0 || !has_headroom() {
            return Err(self.unfit(format!("at most {MAX_DEPTH} levels"), "more, or a value that contains itself"));
        }
        self.levels -= 1;
        self.is_owner = false;
        let done = work(self);
        self.levels += 1;
        drop(held);
        done
    }

    /// Ends what has become too long, as a value may that refers to the same list very often.
    #[inline]
    fn check_length(&mut self) -> Done {
        if self.out.len() <= MAX_BYTES {
            return Ok(());
        }
        Err(self.unfit(format!("arguments of at most {} MiB once they are encoded", MAX_BYTES >> 20), "more"))
    }

    unsafe fn tuple(&mut self, tuple: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact tuple, held by `nested`, whose items do not change.
        unsafe {
            let count = ffi::Py_SIZE(tuple);
            self.count(tag::TUPLE, count.unsigned_abs())?;
            for index in 0..count {
                let item = ffi::PyTuple_GET_ITEM(tuple, index);
                self.item(index.unsigned_abs(), item)?;
            }
        }
        Ok(())
    }

    unsafe fn list(&mut self, list: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact list, held by `nested`; its size and items are read anew for each item.
        unsafe {
            let count = ffi::Py_SIZE(list);
            self.count(tag::LIST, count.unsigned_abs())?;
            let mut index = 0;
            while index < count && index < ffi::Py_SIZE(list) {
                let item = *(*list.cast::<ffi::PyListObject>()).ob_item.offset(index);
                self.item(index.unsigned_abs(), item)?;
                index += 1;
            }
            if ffi::Py_SIZE(list) == count { Ok(()) } else { Err(self.changed("list")) }
        }
    }

    /// An item of a sequence.
    ///
    /// # Safety
    /// As [`Self::value`].
    #[inline]
    pub(super) unsafe fn item(&mut self, index: usize, item: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        if unsafe { self.value(item) }.is_err() {
            self.trouble().path.index(index);
            return Err(Stop);
        }
        self.check_length()
    }

    #[cold]
    fn changed(&mut self, what: &str) -> Stop {
        self.unfit(format!("a {what} that stays as it is while it is encoded"), "one that was changed")
    }

    unsafe fn dict(&mut self, dict_object: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact dict, held by `nested`; the walk is refreshed after each entry.
        unsafe {
            let count = dict::len(dict_object);
            self.count(tag::DICT, count.unsigned_abs())?;
            let mut entries = Entries::new(self.out.len());
            let mut walk = dict::Walk::of(dict_object);
            while let Some((key, value)) = walk.next() {
                if entries.ends.len() == count.unsigned_abs() {
                    return Err(self.changed("dict"));
                }
                self.entry(key, value)?;
                entries.ends.push(self.out.len());
                walk.refresh();
            }
            if entries.ends.len() != count.unsigned_abs() || dict::len(dict_object) != count {
                return Err(self.changed("dict"));
            }
            self.sort(&entries)
        }
    }

    /// A key and its value.
    ///
    /// # Safety
    /// As [`Self::value`].
    pub(super) unsafe fn entry(&mut self, key: *mut ffi::PyObject, value: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; both are held, as describing one may drop the other.
        unsafe {
            let key = Owned::borrowed(NonNull::new_unchecked(key));
            let value = Owned::borrowed(NonNull::new_unchecked(value));
            self.value(key.as_ptr())?;
            if self.value(value.as_ptr()).is_err() {
                let key = Bound::from_borrowed_ptr(self.py, key.as_ptr());
                self.trouble().path.key(&key);
                return Err(Stop);
            }
        }
        self.check_length()
    }

    /// A keyword of `**kwargs` and its value.
    ///
    /// # Safety
    /// As [`Self::value`]; `name` is a `str`.
    pub(super) unsafe fn keyword(&mut self, name: *mut ffi::PyObject, value: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe {
            self.text(name)?;
            if self.value(value).is_err() {
                let key = Bound::from_borrowed_ptr(self.py, name);
                self.trouble().path.key(&key);
                return Err(Stop);
            }
        }
        self.check_length()
    }

    unsafe fn set(&mut self, tag: u8, set: *mut ffi::PyObject) -> Done {
        // SAFETY: an exact set or frozenset, held by `nested`; the iterator holds each item until it gives the next, and
        // raises RuntimeError if the size changed.
        unsafe {
            let count = ffi::PySet_GET_SIZE(set).unsigned_abs();
            self.count(tag, count)?;
            let mut entries = Entries::new(self.out.len());
            let iterator = Owned::new(ffi::PyObject_GetIter(set)).ok_or(Stop)?;
            while let Some(item) = Owned::new(ffi::PyIter_Next(iterator.as_ptr())) {
                self.value(item.as_ptr())?;
                self.check_length()?;
                entries.ends.push(self.out.len());
            }
            if !ffi::PyErr_Occurred().is_null() {
                return Err(Stop);
            }
            if entries.ends.len() != count {
                return Err(self.changed("set"));
            }
            self.sort(&entries)
        }
    }

    /// Puts entries into the order of their bytes.
    pub(super) fn sort(&mut self, entries: &Entries) -> Done {
        let mut ranges: Vec<Range<usize>> = entries.ranges().collect();
        let written = self.out.written_from(entries.start);
        if ranges.is_sorted_by(|one, other| written[one.clone()] <= written[other.clone()]) {
            return Ok(());
        }
        ranges.sort_unstable_by(|one, other| written[one.clone()].cmp(&written[other.clone()]));
        let mut sorted = Vec::with_capacity(written.len());
        for range in ranges {
            sorted.extend_from_slice(&written[range]);
        }
        written.copy_from_slice(&sorted);
        Ok(())
    }

    /// An object of any other type: what it is called, and what stands for it.
    unsafe fn described(&mut self, object: *mut ffi::PyObject, is_owner: bool) -> Done {
        // SAFETY: held by `nested`.
        let object = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        let describe = self.describe.bind(self.py);
        let described = if is_owner { describe.call1((&object, true)) } else { describe.call1((&object,)) };
        let described =
            described.and_then(|described| described.extract::<(Bound<'py, PyString>, Bound<'py, PyAny>)>());
        let (label, state) = match described {
            Ok(parts) => parts,
            Err(error) if is_encode_error(self.py, &error) => return Err(self.refused(&object, &error)),
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        self.byte(tag::OBJECT)?;
        // SAFETY: both are held.
        unsafe {
            self.text(label.as_ptr())?;
            self.value(state.as_ptr())
        }
    }

    /// The fault of a type that `describe` has no form for: its error has what it expected and what it found.
    #[cold]
    fn refused(&mut self, object: &Bound<'py, PyAny>, error: &PyErr) -> Stop {
        let parts = error.value(self.py).getattr(intern!(self.py, "args"));
        match parts.and_then(|parts| parts.extract::<(String, String)>()) {
            Ok((expected, found)) => self.unfit(expected, found),
            Err(_) => {
                let found = format!("{}: {}", type_name(object), error.value(self.py));
                self.unfit("a value that has a canonical form", found)
            }
        }
    }
}

/// Where the entries of a dict or set end in what is written.
pub(super) struct Entries {
    start: usize,
    pub(super) ends: Vec<usize>,
}

impl Entries {
    pub(super) fn new(start: usize) -> Self {
        Self { start, ends: Vec::new() }
    }

    /// From the start of the first.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let range = from..end - self.start;
            from = range.end;
            range
        })
    }
}

/// All NaNs are one.
fn float_bytes(value: f64) -> [u8; 8] {
    if value.is_nan() { 0x7ff8_0000_0000_0000u64.to_le_bytes() } else { value.to_le_bytes() }
}
