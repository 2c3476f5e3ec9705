//! Writing strings: copied sixteen bytes at a time up to what must be escaped.
#![allow(unsafe_code)]

use super::block::{Block, WIDTH, copy_plain};
use super::encode::{Cursor, Done, Encoder, ROOM};
use crate::cpython::text::{self, Text};
use pyo3::ffi;
use std::ptr::NonNull;

/// The longest escape; each takes a store of eight bytes.
const LONGEST: usize = 6;
/// Text that is shorter is shifted into place instead of measured.
const EIGHT: usize = 8;
/// So many bytes or characters are written with one check for room where escapes are to be expected.
const CHUNK: usize = 512;

/// For each byte that is escaped its escape, with the length in the last byte; 0 for all others.
static ESCAPES: [[u8; 8]; 256] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut escapes = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escapes[byte] = [b'\\', b'u', b'0', b'0', HEX[byte >> 4], HEX[byte & 15], 0, 6];
        byte += 1;
    }
    let short: [(u8, u8); 7] =
        [(b'"', b'"'), (b'\\', b'\\'), (0x08, b'b'), (0x0c, b'f'), (b'\n', b'n'), (b'\r', b'r'), (b'\t', b't')];
    let mut index = 0;
    while index < short.len() {
        let (byte, letter) = short[index];
        escapes[byte as usize] = [b'\\', letter, 0, 0, 0, 0, 0, 2];
        index += 1;
    }
    escapes
};

/// Writes one byte, escaped where it must be.
///
/// # Safety
/// There is room for eight bytes.
#[inline(always)]
unsafe fn put_byte(byte: u8, out: *mut u8) -> *mut u8 {
    let escape = ESCAPES[byte as usize];
    // SAFETY: the caller's guarantee.
    unsafe {
        if escape[7] == 0 {
            out.write(byte);
            return out.add(1);
        }
        out.cast::<[u8; 8]>().write(escape);
        out.add(usize::from(escape[7]))
    }
}

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
        let at = self.reserve(at, len.wrapping_add(2 + WIDTH + ROOM))?;
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
        // SAFETY: each chunk reserves what it may become and the overshoot of its last store.
        unsafe {
            let (mut source, mut left) = (source, len);
            let mut at = NonNull::new_unchecked(out);
            loop {
                let count = left.min(CHUNK);
                at = self.reserve(at, LONGEST * count + WIDTH + ROOM)?;
                let mut out = at.as_ptr();
                let end = source.add(count);
                while end.addr() - source.addr() >= WIDTH {
                    out = put_block(source, out);
                    source = source.add(WIDTH);
                }
                while source < end {
                    out = put_byte(*source, out);
                    source = source.add(1);
                }
                at = NonNull::new_unchecked(out);
                left -= count;
                if left == 0 {
                    at.write(b'"');
                    return Some(at.add(1));
                }
            }
        }
    }

    /// Writes a `str` that is not ASCII, from the characters as it holds them.
    ///
    /// # Safety
    /// As [`Self::text`].
    #[inline(never)]
    unsafe fn wide(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
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
        // SAFETY: each chunk reserves what it may become; a store of eight bytes at most goes beyond.
        unsafe {
            let mut at = self.reserve(at, ROOM)?;
            at.write(b'"');
            at = at.add(1);
            for chunk in chars.chunks(CHUNK) {
                at = self.reserve(at, LONGEST * chunk.len() + WIDTH + ROOM)?;
                let mut out = at.as_ptr();
                let (groups, rest) = chunk.as_chunks::<8>();
                for group in groups {
                    if group.iter().fold(false, |any, char| any | is_special(char.get())) {
                        match put_chars(group, out) {
                            Some(after) => out = after.as_ptr(),
                            None => return self.surrogate(),
                        }
                    } else if let Some(ascii) = U::ascii(group) {
                        out.cast::<u64>().write_unaligned(ascii);
                        out = out.add(8);
                    } else {
                        for char in group {
                            out = put_plain(char.get(), out);
                        }
                    }
                }
                at = match put_chars(rest, out) {
                    Some(at) => at,
                    None => return self.surrogate(),
                };
            }
            at = self.reserve(at, ROOM + 1)?;
            at.write(b'"');
            Some(at.add(1))
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

/// Writes sixteen bytes, with all escapes in them from one mask.
///
/// # Safety
/// They can be read; there is room for [`LONGEST`] times as many and [`WIDTH`] more.
#[inline(always)]
unsafe fn put_block(source: *const u8, out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee. After each escape what is left of the block is stored behind it, from a copy that
    // has room after its end.
    unsafe {
        let block = Block::load(source);
        block.store(out);
        let mut special = block.special();
        if special == 0 {
            return out.add(WIDTH);
        }
        let mut copy = [0u8; 2 * WIDTH];
        block.store(copy.as_mut_ptr());
        let (mut out, mut from) = (out, 0);
        while special != 0 {
            let place = special.trailing_zeros() as usize;
            special &= special.wrapping_sub(1);
            out = out.add(place.wrapping_sub(from));
            let escape = ESCAPES[copy[place % WIDTH] as usize];
            out.cast::<[u8; 8]>().write(escape);
            out = out.add(usize::from(escape[7]));
            from = place.wrapping_add(1);
            Block::load(copy.as_ptr().add(from % (WIDTH + 1))).store(out);
        }
        out.add(WIDTH.wrapping_sub(from))
    }
}

/// A character in one, two or four bytes.
trait Unit: Copy {
    fn get(self) -> u32;
    /// Eight characters in a byte each, if all are ASCII.
    fn ascii(group: &[Self; 8]) -> Option<u64>;
}

macro_rules! unit {
    ($($unit:ty),*) => {$(
        impl Unit for $unit {
            #[inline(always)]
            fn get(self) -> u32 {
                self.into()
            }
            #[inline(always)]
            fn ascii(group: &[Self; 8]) -> Option<u64> {
                if group.iter().fold(0, |all, char| all | *char) >= 0x80 {
                    return None;
                }
                Some(u64::from_le_bytes(group.map(|char| char as u8)))
            }
        }
    )*};
}

unit!(u8, u16, u32);

/// Whether a character is escaped, or has no UTF-8.
#[inline(always)]
fn is_special(char: u32) -> bool {
    char < 0x20 || char == u32::from(b'"') || char == u32::from(b'\\') || char & 0xffff_f800 == 0xd800
}

/// Writes characters as UTF-8, escaped where they must be; `None` for a surrogate, which has no UTF-8.
///
/// # Safety
/// There is room for eight bytes each.
#[inline(always)]
unsafe fn put_chars<U: Unit>(chars: &[U], out: *mut u8) -> Done {
    let mut out = out;
    // SAFETY: the caller's guarantee.
    unsafe {
        for char in chars {
            out = match char.get() {
                char @ 0..0x80 => put_byte(char as u8, out),
                0xd800..0xe000 => return None,
                char => put_plain(char, out),
            };
        }
    }
    NonNull::new(out)
}

/// Writes one character as UTF-8.
///
/// # Safety
/// There is room for four bytes; it is no surrogate.
#[inline(always)]
unsafe fn put_plain(char: u32, out: *mut u8) -> *mut u8 {
    let (second, third) = (0x80 | (char >> 12 & 0x3f) as u8, 0x80 | (char >> 6 & 0x3f) as u8);
    let last = 0x80 | (char & 0x3f) as u8;
    // SAFETY: the caller's guarantee.
    unsafe {
        match char {
            0..0x80 => {
                out.write(char as u8);
                out.add(1)
            }
            0x80..0x800 => {
                out.cast::<[u8; 2]>().write([0xc0 | (char >> 6) as u8, last]);
                out.add(2)
            }
            0x800..0x1_0000 => {
                out.cast::<[u8; 3]>().write([0xe0 | (char >> 12) as u8, third, last]);
                out.add(3)
            }
            _ => {
                out.cast::<[u8; 4]>().write([0xf0 | (char >> 18) as u8, second, third, last]);
                out.add(4)
            }
        }
    }
}
