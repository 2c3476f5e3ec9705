//! A character at a time, but for what needs no escape.

use super::super::block::{Block, WIDTH};
use super::Utf8;
use std::ptr::null_mut;

/// For each byte that is escaped its escape, with the length in the last byte; 0 for all others.
pub(in super::super) static ESCAPES: [[u8; 8]; 256] = {
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

/// # Safety
/// As [`super::Unit::baseline`].
pub(super) unsafe fn utf8(units: &[Utf8], out: *mut u8) -> *mut u8 {
    let (mut out, mut source) = (out, units.as_ptr().cast::<u8>());
    // SAFETY: the caller's guarantee; blocks are read inside `units`.
    unsafe {
        let end = source.add(units.len());
        while end.addr() - source.addr() >= WIDTH {
            out = put_block(source, out);
            source = source.add(WIDTH);
        }
        each_byte(std::slice::from_raw_parts(source, end.addr() - source.addr()), out)
    }
}

/// Writes one byte of UTF-8 after the other.
///
/// # Safety
/// There is room for eight bytes each.
#[inline(always)]
pub(super) unsafe fn each_byte(bytes: &[u8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    bytes.iter().fold(out, |out, byte| unsafe { put_byte(*byte, out) })
}

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

/// Writes sixteen bytes, with all escapes in them from one mask.
///
/// # Safety
/// They can be read; there is room for [`super::LONGEST`] times as many and [`WIDTH`] more.
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

/// # Safety
/// As [`super::Unit::baseline`].
pub(super) unsafe fn latin1(chars: &[u8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { grouped(chars, out) }
}

/// # Safety
/// As [`super::Unit::baseline`].
pub(super) unsafe fn ucs2(chars: &[u16], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { grouped(chars, out) }
}

/// # Safety
/// As [`super::Unit::baseline`].
pub(super) unsafe fn ucs4(chars: &[u32], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { grouped(chars, out) }
}

/// Whether a character is escaped, or has no UTF-8.
#[inline(always)]
fn is_special(char: u32) -> bool {
    char < 0x20 || char == u32::from(b'"') || char == u32::from(b'\\') || char & 0xffff_f800 == 0xd800
}

/// Eight characters at a time, if none of them is special.
#[inline(always)]
unsafe fn grouped<C: Copy + Into<u32>>(chars: &[C], out: *mut u8) -> *mut u8 {
    let mut out = out;
    let (groups, rest) = chars.as_chunks::<8>();
    // SAFETY: the caller's guarantee.
    unsafe {
        for group in groups {
            let wide = group.map(Into::into);
            if wide.iter().fold(false, |any, char| any | is_special(*char)) {
                out = each(group, out);
                if out.is_null() {
                    return out;
                }
            } else if wide.iter().fold(0, |all, char| all | *char) < 0x80 {
                out.cast::<[u8; 8]>().write(wide.map(|char| char as u8));
                out = out.add(8);
            } else {
                for char in wide {
                    out = put_plain(char, out);
                }
            }
        }
        each(rest, out)
    }
}

/// Writes one character after the other; null for a surrogate.
///
/// # Safety
/// There is room for eight bytes each.
#[inline(always)]
pub(super) unsafe fn each<C: Copy + Into<u32>>(chars: &[C], out: *mut u8) -> *mut u8 {
    let mut out = out;
    for char in chars {
        // SAFETY: the caller's guarantee.
        out = unsafe {
            match (*char).into() {
                char @ 0..0x80 => put_byte(char as u8, out),
                0xd800..0xe000 => return null_mut(),
                char => put_plain(char, out),
            }
        };
    }
    out
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
