//! Reading: one pass straight to Python objects.
//!
//! Every length is checked against the bytes that are left before anything is made of it, and containers are made only
//! when all of their items are there: what a few bytes declare costs nothing. Nesting is bounded.
#![allow(unsafe_code)]

use super::fault::{Fault, Stop};
use super::{MAX_EQUAL_HASHES, MSGPACK, Types, VIEWS_FROM, code};
use crate::codec::path::Path;
use crate::cpython::new_str::{Invalid, new_str};
use crate::cpython::{CollectorPause, KeyCache, MAX_KEY, ObjectStack, Owned, dict, has_headroom};
use crate::error::{Error, Text};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ops::Range;

/// Makes a read-only view of a part of the input.
pub(crate) type ViewOf<'a, 'py> = &'a dyn Fn(Range<usize>) -> PyResult<Bound<'py, PyAny>>;

/// Reads one value.
pub(crate) struct Decoder<'a, 'py> {
    pub(super) py: Python<'py>,
    bytes: &'a [u8],
    /// Where the next byte is.
    pub(super) at: usize,
    /// Where the extension, or the input, ends; at most the length of `bytes`.
    pub(super) end: usize,
    pub(super) types: Types,
    pub(super) max_int_bytes: usize,
    max_depth: u32,
    levels: u32,
    pub(super) ext_hook: Option<&'a Bound<'py, PyAny>>,
    pub(super) view_of: ViewOf<'a, 'py>,
    pub(super) views: bool,
    pub(super) stack: ObjectStack,
    fault: Option<(usize, Fault)>,
    /// The exception that made the fault.
    cause: Option<PyErr>,
    pub(super) path: Path,
    pause: Option<CollectorPause>,
}

pub(super) type Found = Result<Owned, Stop>;

impl<'a, 'py> Decoder<'a, 'py> {
    pub(crate) fn new(py: Python<'py>, bytes: &'a [u8], types: Types, view_of: ViewOf<'a, 'py>) -> Self {
        Self {
            py,
            bytes,
            at: 0,
            end: bytes.len(),
            types,
            max_int_bytes: super::MAX_INT_BYTES,
            max_depth: super::MAX_DEPTH,
            levels: super::MAX_DEPTH,
            ext_hook: None,
            view_of,
            views: false,
            stack: ObjectStack::default(),
            fault: None,
            cause: None,
            path: Path::default(),
            pause: None,
        }
    }

    /// How deep the value may be nested: at most [`MAX_DEPTH`](super::MAX_DEPTH).
    pub(crate) fn max_depth(self, max_depth: u32) -> Self {
        Self { max_depth, levels: max_depth, ..self }
    }

    /// The bound on ints beyond 64 bits.
    pub(crate) fn max_int_bytes(self, max_int_bytes: usize) -> Self {
        Self { max_int_bytes, ..self }
    }

    /// What is called with the code and the payload of extensions that are not this codec's.
    pub(crate) fn ext_hook(self, ext_hook: Option<&'a Bound<'py, PyAny>>) -> Self {
        Self { ext_hook, ..self }
    }

    /// Whether large bytes and arrays come back as views of the input.
    pub(crate) fn views(self, views: bool) -> Self {
        Self { views, ..self }
    }

    /// Reads the value that all of the bytes are.
    ///
    /// # Errors
    /// [`Error::Decode`] with offset and path.
    pub(crate) fn decode(mut self) -> PyResult<Bound<'py, PyAny>> {
        self.pause = Some(CollectorPause::new(self.py));
        let found = self.value().and_then(|value| self.ended("the end of the value").map(|()| value));
        self.pause = None;
        match found {
            // SAFETY: attached, a new reference.
            Ok(value) => unsafe { Ok(Bound::from_owned_ptr(self.py, value.into_ptr())) },
            Err(Stop) => Err(self.error()),
        }
    }

    fn error(&mut self) -> PyErr {
        match self.fault.take() {
            Some((offset, Fault::Unfit { expected, found })) => {
                let place = format!("offset {offset}, {}", self.path.show());
                let error: PyErr = Error::Decode { codec: MSGPACK, place, expected, found }.into();
                if self.cause.is_some() {
                    error.set_cause(self.py, self.cause.take());
                }
                error
            }
            Some((_, Fault::Raised(error))) => error,
            None => PyErr::fetch(self.py),
        }
    }

    /// A fault at `offset`.
    #[cold]
    pub(super) fn fail_at(&mut self, offset: usize, expected: impl Into<Text>, found: impl Into<String>) -> Stop {
        self.fault = Some((offset, Fault::unfit(expected, found)));
        Stop
    }

    #[cold]
    pub(super) fn raise(&mut self, error: PyErr) -> Stop {
        self.fault = Some((self.at, Fault::Raised(error)));
        Stop
    }

    /// The fault that the Python exception being set is.
    #[cold]
    pub(super) fn raised(&mut self) -> Stop {
        let error = PyErr::fetch(self.py);
        self.raise(error)
    }

    #[cold]
    fn cut(&mut self, offset: usize, needed: usize) -> Stop {
        let left = self.end - self.at.min(self.end);
        self.fail_at(offset, format!("{needed} more bytes"), format!("{left}"))
    }

    /// The next `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        if count > self.end - self.at {
            return Err(self.cut(self.at, count));
        }
        let bytes = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(Stop)
    }

    #[inline]
    fn length<const N: usize>(&mut self) -> Result<usize, Stop> {
        let bytes = self.take_array::<N>()?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    pub(super) fn ended(&mut self, of: &str) -> Result<(), Stop> {
        if self.at == self.end {
            return Ok(());
        }
        let found = format!("{} more bytes", self.end - self.at);
        Err(self.fail_at(self.at, of.to_owned(), found))
    }

    #[inline]
    pub(super) fn owned(&mut self, object: *mut ffi::PyObject) -> Found {
        // SAFETY: attached; the callers pass a new reference or null.
        match unsafe { Owned::new(object) } {
            Some(object) => Ok(object),
            None => Err(self.raised()),
        }
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Found {
        let start = self.at;
        let [marker] = self.take_array()?;
        // SAFETY: attached, as all calls of the C API here.
        unsafe {
            match marker {
                0x00..=0x7f => self.owned(ffi::PyLong_FromLong(marker.into())),
                0xe0..=0xff => self.owned(ffi::PyLong_FromLong((marker as i8).into())),
                0xa0..=0xbf => self.text(usize::from(marker & 0x1f)),
                0x80..=0x8f => self.map(start, usize::from(marker & 0x0f)),
                0x90..=0x9f => self.array(start, usize::from(marker & 0x0f)),
                0xc0 => Ok(Owned::constant(ffi::Py_None())),
                0xc2 => Ok(Owned::constant(ffi::Py_False())),
                0xc3 => Ok(Owned::constant(ffi::Py_True())),
                0xcb => {
                    let bits = self.take_array()?;
                    self.owned(ffi::PyFloat_FromDouble(f64::from_be_bytes(bits)))
                }
                0xca => {
                    let bits = self.take_array()?;
                    self.owned(ffi::PyFloat_FromDouble(f32::from_be_bytes(bits).into()))
                }
                0xcc => {
                    let [byte] = self.take_array()?;
                    self.owned(ffi::PyLong_FromLong(byte.into()))
                }
                0xcd => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLong(u16::from_be_bytes(bytes).into()))
                }
                0xce => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLongLong(u32::from_be_bytes(bytes).into()))
                }
                0xd9 => {
                    let length = self.length::<1>()?;
                    self.text(length)
                }
                _ => self.rarer(start, marker),
            }
        }
    }

    #[inline(never)]
    fn rarer(&mut self, start: usize, marker: u8) -> Found {
        // SAFETY: attached.
        unsafe {
            match marker {
                0xcf => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromUnsignedLongLong(u64::from_be_bytes(bytes)))
                }
                0xd0 => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLong(i8::from_be_bytes(bytes).into()))
                }
                0xd1 => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLong(i16::from_be_bytes(bytes).into()))
                }
                0xd2 => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLongLong(i32::from_be_bytes(bytes).into()))
                }
                0xd3 => {
                    let bytes = self.take_array()?;
                    self.owned(ffi::PyLong_FromLongLong(i64::from_be_bytes(bytes)))
                }
                0xda => self.length::<2>().and_then(|length| self.text(length)),
                0xdb => self.length::<4>().and_then(|length| self.text(length)),
                0xc4 => self.length::<1>().and_then(|length| self.bin(length)),
                0xc5 => self.length::<2>().and_then(|length| self.bin(length)),
                0xc6 => self.length::<4>().and_then(|length| self.bin(length)),
                0xdc => self.length::<2>().and_then(|length| self.array(start, length)),
                0xdd => self.length::<4>().and_then(|length| self.array(start, length)),
                0xde => self.length::<2>().and_then(|length| self.map(start, length)),
                0xdf => self.length::<4>().and_then(|length| self.map(start, length)),
                0xd4..=0xd8 => self.ext(start, 1 << (marker - 0xd4)),
                0xc7 => self.length::<1>().and_then(|length| self.ext(start, length)),
                0xc8 => self.length::<2>().and_then(|length| self.ext(start, length)),
                0xc9 => self.length::<4>().and_then(|length| self.ext(start, length)),
                _ => Err(self.fail_at(start, "a MessagePack value", "the byte 0xc1, which is never used")),
            }
        }
    }

    #[inline]
    fn text(&mut self, length: usize) -> Found {
        let start = self.at;
        let bytes = self.take(length)?;
        // SAFETY: attached.
        unsafe { new_str(bytes) }.map_err(|invalid| self.invalid(start, &invalid))
    }

    #[cold]
    pub(super) fn invalid(&mut self, start: usize, invalid: &Invalid) -> Stop {
        match invalid {
            Invalid::Memory => self.raised(),
            Invalid::Utf8(at) => {
                let found = format!("the byte {:#04x}", self.bytes.get(start + at).copied().unwrap_or_default());
                self.fail_at(start + at, "text in UTF-8", found)
            }
        }
    }

    fn bin(&mut self, length: usize) -> Found {
        let bytes = self.take(length)?;
        if self.views && length >= VIEWS_FROM {
            return self.view(self.at - length..self.at);
        }
        // SAFETY: attached.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), length as ffi::Py_ssize_t) };
        self.owned(object)
    }

    pub(super) fn view(&mut self, range: Range<usize>) -> Found {
        match (self.view_of)(range) {
            Ok(view) => self.owned(view.into_ptr()),
            Err(error) => Err(self.raise(error)),
        }
    }

    /// Refuses `count` items of at least `size` bytes each where fewer are left.
    #[inline]
    fn check_count(&mut self, start: usize, count: usize, size: usize) -> Result<(), Stop> {
        let left = self.end - self.at;
        if count > left / size {
            return Err(self.fail_at(
                start,
                format!("at most {} items in the {left} bytes left", left / size),
                format!("{count}"),
            ));
        }
        if !self.stack.reserve(count * size) {
            return Err(self.raise(Error::Memory { bytes: count * size * 8 }.into()));
        }
        Ok(())
    }

    /// Runs `work` one level deeper.
    #[inline]
    pub(super) fn nested(&mut self, start: usize, work: impl FnOnce(&mut Self) -> Found) -> Found {
        if self.levels == 0 || (self.levels.is_multiple_of(32) && !has_headroom()) {
            return Err(self.too_deep(start));
        }
        self.levels -= 1;
        let found = work(self);
        self.levels += 1;
        found
    }

    #[cold]
    fn too_deep(&mut self, start: usize) -> Stop {
        let found = if self.levels == 0 { "more" } else { "more than this thread's stack has room for" };
        self.fail_at(start, format!("at most {} levels", self.max_depth), found)
    }

    #[inline]
    fn array(&mut self, start: usize, count: usize) -> Found {
        self.nested(start, |this| {
            let base = this.items(start, count)?;
            let list = this.stack.pop_list(base);
            list.ok_or_else(|| this.raised())
        })
    }

    /// Reads `count` values onto the stack; returns where they start.
    #[inline]
    pub(super) fn items(&mut self, start: usize, count: usize) -> Result<usize, Stop> {
        self.check_count(start, count, 1)?;
        let base = self.stack.len();
        for index in 0..count {
            match self.value() {
                Ok(value) => self.stack.push(value),
                Err(Stop) => {
                    self.path.index(index);
                    return Err(Stop);
                }
            }
        }
        Ok(base)
    }

    #[inline]
    fn map(&mut self, start: usize, count: usize) -> Found {
        self.nested(start, |this| {
            let (base, all_str) = this.pairs(start, count)?;
            if !all_str {
                this.check_keys(start, base, 2)?;
                this.pause = None;
            }
            // SAFETY: attached; pairs of references, `all_str` as found.
            let dict = unsafe { dict::pop_dict(&mut this.stack, base, all_str) };
            dict.ok_or_else(|| this.unhashable(start))
        })
    }

    /// Reads `count` keys and values onto the stack; returns where they start, and whether all keys are exact `str`s.
    pub(super) fn pairs(&mut self, start: usize, count: usize) -> Result<(usize, bool), Stop> {
        self.check_count(start, count, 2)?;
        let base = self.stack.len();
        let mut all_str = true;
        for _ in 0..count {
            let key = self.key(&mut all_str)?;
            let key_at = self.stack.len();
            self.stack.push(key);
            match self.value() {
                Ok(value) => self.stack.push(value),
                Err(Stop) => {
                    let key = self.stack.from(key_at)[0].as_ptr();
                    // SAFETY: attached; the stack holds it.
                    self.path.key(&unsafe { Bound::from_borrowed_ptr(self.py, key) });
                    return Err(Stop);
                }
            }
        }
        Ok((base, all_str))
    }

    #[inline]
    fn key(&mut self, all_str: &mut bool) -> Found {
        let start = self.at;
        let [marker] = self.take_array()?;
        let length = match marker {
            0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda | 0xdb => {
                self.at = start;
                return self.value();
            }
            _ => {
                self.at = start;
                *all_str = false;
                return self.value();
            }
        };
        let text_start = self.at;
        let bytes = self.take(length)?;
        // SAFETY: attached; looking up and making a str runs no Python code.
        let key = unsafe { if length <= MAX_KEY { KeyCache::with(|cache| cache.get(bytes)) } else { new_str(bytes) } };
        key.map_err(|invalid| self.invalid(text_start, &invalid))
    }

    /// Refuses keys, each `step`th reference from `base` on, of which many have one hash: inserting them takes time in
    /// proportion to the square of their number.
    pub(super) fn check_keys(&mut self, start: usize, base: usize, step: usize) -> Result<(), Stop> {
        if self.stack.from(base).len() / step <= MAX_EQUAL_HASHES {
            return Ok(());
        }
        let mut hashes = Vec::new();
        for key in self.stack.from(base).iter().step_by(step) {
            // SAFETY: attached; the stack holds the key. A key without hash is found again when it is inserted.
            let hash = unsafe { ffi::PyObject_Hash(key.as_ptr()) };
            if hash == -1 {
                return Err(self.unhashable(start));
            }
            hashes.push(hash);
        }
        hashes.sort_unstable();
        if hashes.chunk_by(|one, other| one == other).any(|run| run.len() > MAX_EQUAL_HASHES) {
            let expected = format!("at most {MAX_EQUAL_HASHES} keys with the same hash");
            return Err(self.fail_at(start, expected, "more"));
        }
        Ok(())
    }

    /// The fault of keys that were not accepted: a Python exception is set.
    #[cold]
    pub(super) fn unhashable(&mut self, start: usize) -> Stop {
        let error = PyErr::fetch(self.py);
        if super::fault::is_about_payload(self.py, &error) {
            return self.fail_at(start, "keys that can be hashed", error.value(self.py).to_string());
        }
        self.raise(error)
    }

    /// An extension whose payload has `length` bytes.
    #[cold]
    fn ext(&mut self, start: usize, length: usize) -> Found {
        let [code] = self.take_array()?;
        let code = code as i8;
        let payload_start = self.at;
        if length > self.end - self.at {
            return Err(self.cut(start, length));
        }
        let end = std::mem::replace(&mut self.end, payload_start + length);
        let found = if self.types == Types::Python && (0..=code::LAST).contains(&code) {
            if (code::INT..=code::UUID).contains(&code) && code != code::FRACTION {
                self.python_type(start, code)
            } else {
                self.nested(start, |this| this.python_type(start, code))
            }
        } else {
            self.hooked(start, code)
        };
        let found = found.and_then(|value| self.ended("the end of the extension").map(|()| value));
        self.end = end;
        found
    }

    fn hooked(&mut self, start: usize, code: i8) -> Found {
        let payload = self.take(self.end - self.at)?;
        let Some(hook) = self.ext_hook else {
            let expected = match self.types {
                Types::Plain => "a type of MessagePack, or ext_hook= (framecache.msgpack.Ext keeps extensions)",
                Types::Python => "a type of framecache, or ext_hook= (framecache.msgpack.Ext keeps extensions)",
            };
            return Err(self.fail_at(start, expected, format!("the extension type {code}")));
        };
        self.pause = None;
        match hook.call1((code, pyo3::types::PyBytes::new(self.py, payload))) {
            Ok(value) => self.owned(value.into_ptr()),
            Err(error) => Err(self.refused(start, "a payload that ext_hook accepts", error)),
        }
    }

    /// The fault of a payload that Python code refused; its exception becomes the cause.
    pub(super) fn refused(&mut self, start: usize, expected: impl Into<Text>, error: PyErr) -> Stop {
        if !super::fault::is_about_payload(self.py, &error) {
            return self.raise(error);
        }
        let class = error.get_type(self.py).qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        let message: String = error.value(self.py).to_string().chars().take(200).collect();
        let found = format!("{class}: {message}");
        self.cause = Some(error);
        self.fail_at(start, expected, found)
    }

    /// Ends the pause of the collector before Python code runs.
    pub(super) fn resume_collector(&mut self) {
        self.pause = None;
    }
}
