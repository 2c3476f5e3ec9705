//! Making `str` objects.
#![allow(unsafe_code)]

use super::Owned;
use super::text::copy_short;
use super::utf8::{count_chars, decode};
use pyo3::ffi;
use std::ptr::NonNull;

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
    if !is_ascii(bytes) && simdutf8::basic::from_utf8(bytes).is_err() {
        let valid = std::str::from_utf8(bytes).err().map_or(bytes.len(), |error| error.valid_up_to());
        return Err(Invalid::Utf8(valid));
    }
    // SAFETY: attached, valid.
    unsafe { new_valid(bytes) }.ok_or(Invalid::Memory)
}

/// As [`new_str`], of what is known to be UTF-8; `None` where there is no memory.
///
/// # Safety
/// Attached; `bytes` are valid UTF-8.
#[inline]
pub(crate) unsafe fn new_valid(bytes: &[u8]) -> Option<Owned> {
    // SAFETY: the caller's guarantee.
    unsafe { if is_ascii(bytes) { new_ascii(bytes) } else { new_wide(bytes) } }
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

/// A new `str` of ASCII; `None` where there is no memory.
///
/// # Safety
/// Attached; `bytes` are ASCII.
#[inline]
pub(crate) unsafe fn new_ascii(bytes: &[u8]) -> Option<Owned> {
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
/// Attached; `bytes` are valid UTF-8 and not all ASCII.
#[inline(never)]
unsafe fn new_wide(bytes: &[u8]) -> Option<Owned> {
    let (count, highest) = (count_chars(bytes), bytes.iter().fold(0, |highest, byte| (*byte).max(highest)));
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
            let len = bytes.len() as ffi::Py_ssize_t;
            return Owned::new(ffi::PyUnicode_FromStringAndSize(bytes.as_ptr().cast(), len));
        }
        let object = Owned::new(ffi::PyUnicode_New(count as ffi::Py_ssize_t, max))?;
        let data = object.as_ptr().cast::<ffi::PyCompactUnicodeObject>().add(1);
        match max {
            0xff => decode(bytes, data.cast::<u8>()),
            0xffff => decode(bytes, data.cast::<u16>()),
            _ => decode(bytes, data.cast::<u32>()),
        }
        Some(object)
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
