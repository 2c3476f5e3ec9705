//! Reading `str` objects.
//!
//! A `str` holds one, two or four bytes a character (PEP 393). Reading encodes straight from them: asking CPython for
//! UTF-8 would leave a copy attached to the caller's object for as long as that lives.
#![allow(unsafe_code)]

use super::MAX_KEY;
use pyo3::ffi;

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

/// The bit of a `str`'s state (up to 3.13) that says that its data stands right after the header.
const COMPACT: u32 = 0b10_0000;
/// The bits that say so and that all is ASCII.
const COMPACT_ASCII: u32 = COMPACT | 0b100_0000;

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
        Some(std::slice::from_raw_parts(ascii.add(1).cast(), (*ascii).length.cast_unsigned()))
    }
}

/// The UTF-8 that somebody had CPython attach to a `str` that is not ASCII; `None` where there is none.
///
/// # Safety
/// Attached; `object` is a `str`, not an ASCII one, and outlives the result.
#[inline(always)]
pub(crate) unsafe fn attached_utf8<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    let compact = object.cast::<ffi::PyCompactUnicodeObject>();
    // SAFETY: the caller's guarantee.
    unsafe {
        if (*compact)._base.state & COMPACT == 0 || (*compact).utf8.is_null() {
            return None;
        }
        let len = (*compact).utf8_length.cast_unsigned();
        Some(std::slice::from_raw_parts((*compact).utf8.cast(), len))
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

    /// Whether `bytes`, which are at most [`MAX_KEY`] long, are its UTF-8.
    pub(crate) fn is_utf8(self, bytes: &[u8]) -> bool {
        let mut own = [0; MAX_KEY];
        if bytes.len() > MAX_KEY || self.length().bytes != bytes.len() {
            return false;
        }
        // SAFETY: room for as many bytes as it has.
        unsafe { self.write_utf8(own.as_mut_ptr()) };
        own[..bytes.len()] == *bytes
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

/// Whether as many bytes from `one` on are `other`, most of which are few: without a call up to 32.
///
/// # Safety
/// So many bytes can be read at `one`.
#[inline(always)]
pub(crate) unsafe fn same_short(one: *const u8, other: &[u8]) -> bool {
    let (other, len) = (other.as_ptr(), other.len());
    macro_rules! both_ends {
        ($part:ty) => {{
            let last = len - size_of::<$part>();
            let part = |at: *const u8| at.cast::<$part>().read_unaligned();
            (part(one) ^ part(other)) | (part(one.add(last)) ^ part(other.add(last))) == 0
        }};
    }
    // SAFETY: the caller's guarantee; each arm reads no more than `len` bytes.
    unsafe {
        match len {
            0 => true,
            1 => *one == *other,
            2..4 => both_ends!(u16),
            4..8 => both_ends!(u32),
            8..=16 => both_ends!(u64),
            17..=32 => both_ends!(u128),
            _ => std::slice::from_raw_parts(one, len) == std::slice::from_raw_parts(other, len),
        }
    }
}

/// Copies `bytes`, most of which are few: without a call up to 64.
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
