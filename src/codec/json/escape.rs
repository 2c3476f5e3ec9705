//! Writing strings: copied sixteen bytes at a time up to what must be escaped.
#![allow(unsafe_code)]

use super::block::{self, Block, WIDTH, copy_plain};
use super::encode::{Cursor, Done, Encoder, ROOM};
use super::transcode::{self, ESCAPES, LONGEST, OVERSHOOT, Unit, Utf8};
use crate::cpython::text::{self, Text};
use pyo3::ffi;
use std::ptr::NonNull;

/// Text that is shorter is shifted into place instead of measured.
const EIGHT: usize = 8;
/// So many bytes or characters are written with one check for room where escapes are to be expected.
const CHUNK: usize = 512;

impl Encoder<'_, '_> {
    /// Writes an exact `str`, or one of a subclass, with its quotes.
    ///
    /// # Safety
    /// Attached; `object` is alive. No Python code runs here.
    #[inline(always)]
    pub(super) unsafe fn text(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe {
            match text::ascii_of(object) {
                Some(ascii) if ascii.len() < EIGHT => self.tiny(at, object, ascii.len()),
                Some(ascii) => self.utf8(at, ascii),
                None => self.wide(at, object),
            }
        }
    }

    /// Writes a `str` of less than eight characters, all ASCII, without looking how many exactly.
    ///
    /// # Safety
    /// As [`Self::text`].
    #[inline(always)]
    unsafe fn tiny(&mut self, at: Cursor, object: *mut ffi::PyObject, len: usize) -> Done {
        const { assert!(size_of::<ffi::PyASCIIObject>() >= EIGHT) };
        let at = self.reserve(at, 2 + LONGEST * EIGHT + ROOM)?;
        // SAFETY: the characters follow the header, so that the eight bytes that end with them are inside the object;
        // those before them are shifted out. Reserved.
        unsafe {
            let end = object.cast::<ffi::PyASCIIObject>().add(1).cast::<u8>().add(len);
            let bytes = u64::from_le(end.sub(EIGHT).cast::<u64>().read_unaligned());
            // In two steps: no shift is as wide as the number.
            let bytes = bytes >> (8 * (EIGHT - 1 - len)) >> 8;
            at.write(b'"');
            let out = at.as_ptr().add(1);
            out.cast::<u64>().write_unaligned(bytes.to_le());
            if Block::of_eight(bytes).special() & ((1 << len) - 1) != 0 {
                return self.escaping(out, end.sub(len), len);
            }
            out.add(len).write(b'"');
            Some(NonNull::new_unchecked(out.add(len + 1)))
        }
    }

    /// Writes UTF-8 with quotes.
    ///
    /// # Safety
    /// Attached, as the room may be a Python object.
    #[inline(always)]
    pub(super) unsafe fn utf8(&mut self, at: Cursor, bytes: &[u8]) -> Done {
        let len = bytes.len();
        let at = self.reserve(at, len.wrapping_add(2 + block::OVERSHOOT + ROOM))?;
        let source = bytes.as_ptr();
        // SAFETY: reserved; parts are read inside `bytes` only, the last one overlapping with the one before.
        unsafe {
            at.write(b'"');
            let out = at.as_ptr().add(1);
            if len < WIDTH {
                if !copy_short_plain(source, out, len) {
                    return self.escaping(out, source, len);
                }
                out.add(len).write(b'"');
                return Some(NonNull::new_unchecked(out.add(len + 1)));
            }
            let done = if len <= 2 * WIDTH {
                if copy_both_ends(source, out, len) { len } else { 0 }
            } else {
                copy_plain(source, out, len)
            };
            if done < len {
                return self.escaping(out.add(done), source.add(done), len - done);
            }
            out.add(len).write(b'"');
            Some(NonNull::new_unchecked(out.add(len + 1)))
        }
    }

    /// Writes `len` bytes from `source` on, some of which are escaped, and the closing quote.
    ///
    /// # Safety
    /// Attached; the bytes can be read; everything before `out` is written.
    #[inline(never)]
    unsafe fn escaping(&mut self, out: *mut u8, source: *const u8, len: usize) -> Done {
        // SAFETY: the caller's guarantee.
        unsafe { self.units(NonNull::new_unchecked(out), std::slice::from_raw_parts(source.cast::<Utf8>(), len)) }
    }

    /// Writes a `str` that is not ASCII: the UTF-8 that is attached to it, if there is one.
    ///
    /// # Safety
    /// As [`Self::text`].
    #[inline(never)]
    unsafe fn wide(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: as above.
        unsafe {
            match text::attached_utf8(object) {
                Some(bytes) => self.utf8(at, bytes),
                None => self.transcoded(at, object),
            }
        }
    }

    /// Writes a `str` from the characters as it holds them.
    ///
    /// # Safety
    /// As [`Self::text`].
    #[inline(never)]
    unsafe fn transcoded(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        // SAFETY: as above.
        unsafe {
            match Text::of(object) {
                Text::Utf8(bytes) => self.utf8(at, bytes),
                Text::Latin1(chars) => self.chars(at, chars),
                Text::Ucs2(chars) => self.chars(at, chars),
                Text::Ucs4(chars) => self.chars(at, chars),
            }
        }
    }

    #[inline(always)]
    unsafe fn chars<U: Unit>(&mut self, at: Cursor, chars: &[U]) -> Done {
        // SAFETY: the caller's guarantee; `ROOM`.
        unsafe {
            at.write(b'"');
            self.units(at.add(1), chars)
        }
    }

    /// Writes all of `units` and a quote.
    ///
    /// # Safety
    /// Attached; everything before `at` is written.
    #[inline(always)]
    unsafe fn units<U: Unit>(&mut self, at: Cursor, units: &[U]) -> Done {
        // SAFETY: each chunk reserves what it may become and the overshoot of its last store.
        unsafe {
            let (mut at, mut rest) = (at, units);
            loop {
                let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
                at = self.reserve(at, LONGEST * chunk.len() + OVERSHOOT + ROOM)?;
                match transcode::write(chunk, at.as_ptr()) {
                    Some(after) => at = after,
                    None => return self.surrogate(),
                }
                rest = after;
                if rest.is_empty() {
                    at.write(b'"');
                    return Some(at.add(1));
                }
            }
        }
    }

    #[cold]
    pub(super) fn surrogate(&mut self) -> Done {
        self.unfit("str is not valid UTF-8: surrogates not allowed")
    }
}

/// Copies sixteen to thirty-two bytes from both ends; whether none of them is special.
///
/// # Safety
/// So many bytes can be read and written.
#[inline(always)]
unsafe fn copy_both_ends(source: *const u8, out: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's guarantee.
    unsafe {
        let (first, last) = (Block::load(source), Block::load(source.add(len - WIDTH)));
        first.store(out);
        last.store(out.add(len - WIDTH));
        !first.or_special(last)
    }
}

/// Copies less than sixteen bytes from both ends; whether none of them is special.
///
/// # Safety
/// So many bytes can be read, and sixteen written.
#[inline(always)]
unsafe fn copy_short_plain(source: *const u8, out: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's guarantee; each arm reads inside `len` bytes.
    unsafe {
        if len >= 8 {
            let block = Block::load_halves(source, source.add(len - 8));
            block.store_halves(out, out.add(len - 8));
            block.special() == 0
        } else if len >= 4 {
            let (head, tail) =
                (source.cast::<u32>().read_unaligned(), source.add(len - 4).cast::<u32>().read_unaligned());
            out.cast::<u32>().write_unaligned(head);
            out.add(len - 4).cast::<u32>().write_unaligned(tail);
            Block::of_fours(head, tail).special() & 0xff == 0
        } else if len > 0 {
            let (first, middle, last) = (*source, *source.add(len / 2), *source.add(len - 1));
            out.write(first);
            out.add(len / 2).write(middle);
            out.add(len - 1).write(last);
            let escape = |byte: u8| ESCAPES[usize::from(byte)][7];
            escape(first) | escape(middle) | escape(last) == 0
        } else {
            true
        }
    }
}
