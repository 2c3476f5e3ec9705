//! Reading and making `str` objects.
//!
//! A `str` holds one, two or four bytes a character (PEP 393). Reading encodes straight from them: asking CPython for
//! UTF-8 would leave a copy attached to the caller's object for as long as that lives.
#![allow(unsafe_code)]

use super::Owned;
use pyo3::ffi;
use std::ptr::NonNull;

/// The characters of a `str`, as it holds them.
#[derive(Clone, Copy)]
pub(crate) enum Text<'a> {
    /// All ASCII, or a copy in UTF-8 that is attached already.
    Utf8(&'a [u8]),
    /// U+0000 to U+00FF.
    Latin1(&'a [u8]),
    Ucs2(&'a [u16]),
    Ucs4(&'a [u32]),
}

/// The bits of a `str`'s state (up to 3.13) that say that all is ASCII, and stands right after the header.
const COMPACT_ASCII: u32 = 0b110_0000;

/// The characters of a `str` that is all ASCII; `None` for others.
///
/// # Safety
/// Attached; `object` is a `str` and outlives the result.
#[inline(always)]
pub(crate) unsafe fn ascii_of<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    let ascii = object.cast::<ffi::PyASCIIObject>();
    // SAFETY: the caller's guarantee; a str's data does not change while somebody holds it.
    unsafe {
        if (*ascii).state & COMPACT_ASCII != COMPACT_ASCII {
            return None;
        }
        Some(std::slice::from_raw_parts(ascii.add(1).cast(), (*ascii).length.unsigned_abs()))
    }
}

/// How long a text is in UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Length {
    /// Bytes; surrogates count as three.
    pub(crate) bytes: usize,
    /// Whether it has surrogates, which UTF-8 has not.
    pub(crate) surrogates: bool,
}

impl<'a> Text<'a> {
    /// # Safety
    /// Attached; `object` is a `str` and outlives the result.
    #[inline]
    pub(crate) unsafe fn of(object: *mut ffi::PyObject) -> Self {
        // SAFETY: a str's data does not change while somebody holds it. Only compact ones have their UTF-8 where the
        // compact struct says; the few others (made by C code, up to 3.11) are made ready first.
        unsafe {
            match ascii_of(object) {
                Some(bytes) => Self::Utf8(bytes),
                None => Self::of_wide(object),
            }
        }
    }

    /// # Safety
    /// As [`Self::of`].
    unsafe fn of_wide(object: *mut ffi::PyObject) -> Self {
        // SAFETY: as above.
        unsafe {
            #[cfg(not(Py_3_12))]
            if ffi::PyUnicode_READY(object) != 0 {
                ffi::PyErr_Clear();
                return Self::Utf8(&[]);
            }
            let len = ffi::PyUnicode_GET_LENGTH(object).unsigned_abs();
            let compact = object.cast::<ffi::PyCompactUnicodeObject>();
            if !(*compact).utf8.is_null() {
                let len = (*compact).utf8_length.unsigned_abs();
                return Self::Utf8(std::slice::from_raw_parts((*compact).utf8.cast(), len));
            }
            let data = ffi::PyUnicode_DATA(object);
            match ffi::PyUnicode_KIND(object) {
                ffi::PyUnicode_1BYTE_KIND => Self::Latin1(std::slice::from_raw_parts(data.cast(), len)),
                ffi::PyUnicode_2BYTE_KIND => Self::Ucs2(std::slice::from_raw_parts(data.cast(), len)),
                _ => Self::Ucs4(std::slice::from_raw_parts(data.cast(), len)),
            }
        }
    }

    /// How long it is in UTF-8.
    #[inline]
    pub(crate) fn length(self) -> Length {
        match self {
            Self::Utf8(bytes) => Length { bytes: bytes.len(), surrogates: false },
            Self::Latin1(chars) => {
                let above = chars.iter().filter(|char| **char >= 0x80).count();
                Length { bytes: chars.len() + above, surrogates: false }
            }
            Self::Ucs2(chars) => length_of(chars.iter().map(|char| u32::from(*char)), chars.len()),
            Self::Ucs4(chars) => length_of(chars.iter().copied(), chars.len()),
        }
    }

    /// Writes it as UTF-8; surrogates become three bytes each, as in Python's "surrogatepass".
    ///
    /// # Safety
    /// There is room for as many bytes as [`Self::length`] says.
    #[inline]
    pub(crate) unsafe fn write_utf8(self, target: *mut u8) {
        // SAFETY: the caller's guarantee; each function writes what `length` counted.
        unsafe {
            match self {
                Self::Utf8(bytes) => copy_short(bytes, target),
                Self::Latin1(chars) => encode(chars.iter().map(|char| u32::from(*char)), target),
                Self::Ucs2(chars) => encode(chars.iter().map(|char| u32::from(*char)), target),
                Self::Ucs4(chars) => encode(chars.iter().copied(), target),
            }
        }
    }

    /// Whether `bytes` are its UTF-8.
    pub(crate) fn is_utf8(self, bytes: &[u8]) -> bool {
        if self.length().bytes != bytes.len() {
            return false;
        }
        let mut own = vec![0; bytes.len()];
        // SAFETY: as many bytes as it has.
        unsafe { self.write_utf8(own.as_mut_ptr()) };
        own == bytes
    }
}

#[inline]
fn length_of(chars: impl Iterator<Item = u32>, count: usize) -> Length {
    let (mut more, mut surrogates) = (0, 0);
    for char in chars {
        more += usize::from(char >= 0x80) + usize::from(char >= 0x800) + usize::from(char >= 0x1_0000);
        surrogates += usize::from(char & 0xffff_f800 == 0xd800);
    }
    Length { bytes: count + more, surrogates: surrogates > 0 }
}

/// Writes each of `chars` as one to four bytes.
///
/// # Safety
/// There is room for all of them.
#[inline]
unsafe fn encode(chars: impl Iterator<Item = u32>, target: *mut u8) {
    let mut out = target;
    let mut put = |byte: u32| {
        // SAFETY: the caller's guarantee.
        unsafe {
            out.write(byte as u8);
            out = out.add(1);
        }
    };
    for char in chars {
        if char < 0x80 {
            put(char);
        } else if char < 0x800 {
            put(0xc0 | char >> 6);
            put(0x80 | char & 0x3f);
        } else if char < 0x1_0000 {
            put(0xe0 | char >> 12);
            put(0x80 | char >> 6 & 0x3f);
            put(0x80 | char & 0x3f);
        } else {
            put(0xf0 | char >> 18);
            put(0x80 | char >> 12 & 0x3f);
            put(0x80 | char >> 6 & 0x3f);
            put(0x80 | char & 0x3f);
        }
    }
}

/// Copies `bytes`, most of which are few: without a call up to 16.
///
/// # Safety
/// There is room for them at `target`, which does not overlap with them.
#[inline]
pub(crate) unsafe fn copy_short(bytes: &[u8], target: *mut u8) {
    let (source, len) = (bytes.as_ptr(), bytes.len());
    /// Two copies of `size_of::<T>()` bytes, at the start and at the end, that may overlap.
    unsafe fn both_ends<T>(source: *const u8, target: *mut u8, len: usize) {
        // SAFETY: `len` is at least the size of `T` and at most twice that; the caller's guarantee.
        unsafe {
            let last = len - size_of::<T>();
            let (head, tail) = (source.cast::<T>().read_unaligned(), source.add(last).cast::<T>().read_unaligned());
            target.cast::<T>().write_unaligned(head);
            target.add(last).cast::<T>().write_unaligned(tail);
        }
    }
    // SAFETY: the caller's guarantee; each arm copies `len` bytes.
    unsafe {
        if len > 64 {
            return target.copy_from_nonoverlapping(source, len);
        }
        match len {
            0 => {}
            1 => target.write(source.read()),
            2..4 => both_ends::<u16>(source, target, len),
            4..8 => both_ends::<u32>(source, target, len),
            8..=16 => both_ends::<u64>(source, target, len),
            17..=32 => both_ends::<u128>(source, target, len),
            _ => both_ends::<[u128; 2]>(source, target, len),
        }
    }
}

/// Why bytes did not become a `str`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// They are not UTF-8 from this one on.
    Utf8(usize),
    /// A Python exception is set: there is no memory.
    Memory,
}

/// A new `str` of UTF-8 (the shared ones for no and for one character).
///
/// # Errors
/// [`Invalid`].
///
/// # Safety
/// Attached.
#[inline]
pub(crate) unsafe fn new_str(bytes: &[u8]) -> Result<Owned, Invalid> {
    if is_ascii(bytes) {
        // SAFETY: attached, ASCII.
        return unsafe { new_ascii(bytes) }.ok_or(Invalid::Memory);
    }
    // SAFETY: attached.
    unsafe { new_wide(bytes) }
}

/// Eight bytes at a time, the last eight again: most texts are short.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    if let Some(last) = bytes.last_chunk::<32>() {
        // Whole chunks without a branch each: the compiler uses vectors.
        let any = |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all | byte);
        return (bytes.chunks_exact(32).fold(0, |all, chunk| all | any(chunk)) | any(last)) < 0x80;
    }
    if let Some(last) = bytes.last_chunk::<8>() {
        let all = bytes.chunks_exact(8).fold(u64::from_le_bytes(*last), |all, chunk| {
            all | chunk.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk))
        });
        return all & HIGH == 0;
    }
    bytes.iter().fold(0, |all, byte| all | byte) < 0x80
}

/// # Safety
/// Attached; `bytes` are ASCII.
#[inline]
unsafe fn new_ascii(bytes: &[u8]) -> Option<Owned> {
    // SAFETY: attached; a new compact ASCII str of two or more characters is ours alone and has room for them; shorter
    // ones are shared and come from the function that knows them.
    unsafe {
        if bytes.len() < 2 {
            let len = bytes.len() as ffi::Py_ssize_t;
            return Owned::new(ffi::PyUnicode_FromStringAndSize(bytes.as_ptr().cast(), len));
        }
        let text = Owned::new(ffi::PyUnicode_New(bytes.len() as ffi::Py_ssize_t, 127))?;
        copy_short(bytes, text.as_ptr().cast::<ffi::PyASCIIObject>().add(1).cast());
        Some(text)
    }
}

/// # Safety
/// Attached.
unsafe fn new_wide(bytes: &[u8]) -> Result<Owned, Invalid> {
    let text = match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            let valid = std::str::from_utf8(bytes).err().map_or(bytes.len(), |error| error.valid_up_to());
            return Err(Invalid::Utf8(valid));
        }
    };
    let (mut count, mut highest) = (0, 0);
    for byte in bytes {
        count += usize::from(*byte & 0xc0 != 0x80);
        highest = highest.max(*byte);
    }
    // What the largest first byte can stand for; U+0080 to U+00FF start with C2 or C3.
    let max = match highest {
        0..=0xc3 => 0xff,
        0xc4..=0xef => 0xffff,
        _ => 0x0010_ffff,
    };
    // SAFETY: attached; a new str of `count` characters up to `max` has room for them in the size that goes with `max`.
    // One character is made by the function that knows the shared ones.
    unsafe {
        if count == 1 {
            let char = text.chars().next().map_or(0, u32::from);
            return Owned::new(ffi::PyUnicode_FromOrdinal(char.cast_signed())).ok_or(Invalid::Memory);
        }
        let object = Owned::new(ffi::PyUnicode_New(count as ffi::Py_ssize_t, max)).ok_or(Invalid::Memory)?;
        let data = object.as_ptr().cast::<ffi::PyCompactUnicodeObject>().add(1);
        match max {
            0xff => decode(text, data.cast::<u8>()),
            0xffff => decode(text, data.cast::<u16>()),
            _ => decode(text, data.cast::<u32>()),
        }
        Ok(object)
    }
}

/// A character in one, two or four bytes.
trait Unit: Copy {
    fn of(char: u32) -> Self;
}

macro_rules! unit {
    ($($unit:ty),*) => {$(
        impl Unit for $unit {
            #[inline]
            fn of(char: u32) -> Self {
                char as Self
            }
        }
    )*};
}

unit!(u8, u16, u32);

/// # Safety
/// There is room for all characters, each of which fits.
#[inline]
unsafe fn decode<U: Unit>(text: &str, target: *mut U) {
    let bytes = text.as_bytes();
    let (mut at, mut out) = (0, target);
    while at < bytes.len() {
        if let Some(chunk) = bytes[at..].first_chunk::<8>()
            && u64::from_le_bytes(*chunk) & 0x8080_8080_8080_8080 == 0
        {
            // SAFETY: eight characters, for which there is room.
            unsafe {
                for (index, byte) in chunk.iter().enumerate() {
                    out.add(index).write(U::of(u32::from(*byte)));
                }
                out = out.add(8);
            }
            at += 8;
            continue;
        }
        let (char, len) = char_at(&bytes[at..]);
        // SAFETY: one more character, for which there is room.
        unsafe {
            out.write(U::of(char));
            out = out.add(1);
        }
        at += len;
    }
}

/// The first character of valid UTF-8, and how many bytes it has.
#[inline]
fn char_at(bytes: &[u8]) -> (u32, usize) {
    let low = |index: usize| u32::from(bytes[index]) & 0x3f;
    let first = u32::from(bytes[0]);
    match first {
        0..0x80 => (first, 1),
        0x80..0xe0 => ((first & 0x1f) << 6 | low(1), 2),
        0xe0..0xf0 => ((first & 0x0f) << 12 | low(1) << 6 | low(2), 3),
        _ => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
    }
}

/// A new `str` of UTF-8 in which surrogates are three bytes each.
///
/// # Errors
/// [`Invalid`].
///
/// # Safety
/// Attached.
#[cold]
pub(crate) unsafe fn new_str_with_surrogates(bytes: &[u8]) -> Result<Owned, Invalid> {
    // SAFETY: attached. A UnicodeDecodeError is cleared: the caller makes its own.
    unsafe {
        let len = bytes.len() as ffi::Py_ssize_t;
        let text = ffi::PyUnicode_DecodeUTF8(bytes.as_ptr().cast(), len, c"surrogatepass".as_ptr());
        if let Some(text) = NonNull::new(text) {
            return Owned::new(text.as_ptr()).ok_or(Invalid::Memory);
        }
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_UnicodeDecodeError) == 0 {
            return Err(Invalid::Memory);
        }
        ffi::PyErr_Clear();
    }
    // The first byte that neither UTF-8 nor a surrogate explains.
    let mut at = 0;
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        at += error.valid_up_to();
        match bytes[at..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => at += 3,
            _ => break,
        }
    }
    Err(Invalid::Utf8(at))
}
