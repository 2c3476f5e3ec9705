//! Eight or sixteen characters at once, for processors with AVX2 (2013 and later).

use super::super::block::{Block, WIDTH};
use super::{Utf8, baseline};
use std::arch::x86_64::*;
use std::ptr::null_mut;

/// What each control character up to U+000F has after its backslash if that is a letter; 0 for all others.
static LETTERS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, b'b', b't', b'n', 0, b'f', b'r', 0, 0];

/// Shuffles that leave out the first byte of each pair whose bit is set.
static PAIRS: [[u8; 16]; 256] = {
    let mut shuffles = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut pair, mut place) = (0, 0);
        while pair < 8 {
            if mask >> pair & 1 == 0 {
                shuffles[mask][place] = 2 * pair;
                place += 1;
            }
            shuffles[mask][place] = 2 * pair + 1;
            place += 1;
            pair += 1;
        }
        mask += 1;
    }
    shuffles
};

/// Shuffles that leave of each group of four bytes the last ones: one, and one more if its bit in the lower half is
/// set, and two more if its bit in the upper half is.
static QUADS: [[u8; 16]; 256] = {
    let mut shuffles = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut quad, mut place) = (0, 0);
        while quad < 4 {
            let count = 1 + (mask >> quad & 1) as u8 + 2 * (mask >> (quad + 4) & 1) as u8;
            let mut byte = 4 - count;
            while byte < 4 {
                shuffles[mask][place] = 4 * quad + byte;
                place += 1;
                byte += 1;
            }
            quad += 1;
        }
        mask += 1;
    }
    shuffles
};

/// # Safety
/// As [`super::Unit::avx2`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn utf8(units: &[Utf8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee; a unit is a byte.
    unsafe { bytes::<false>(std::slice::from_raw_parts(units.as_ptr().cast(), units.len()), out) }
}

/// # Safety
/// As [`super::Unit::avx2`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn latin1(chars: &[u8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { bytes::<true>(chars, out) }
}

/// Bytes that are characters, or else UTF-8 already.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
unsafe fn bytes<const LATIN1: bool>(bytes: &[u8], out: *mut u8) -> *mut u8 {
    let mut out = out;
    let (parts, rest) = bytes.as_chunks::<WIDTH>();
    let all = |byte: u8| _mm_set1_epi8(byte.cast_signed());
    let at_most = |chars, limit| _mm_cmpeq_epi8(_mm_min_epu8(chars, all(limit)), chars);
    // SAFETY: the caller's guarantee; sixteen bytes each.
    unsafe {
        for part in parts {
            let block = Block::load(part.as_ptr());
            let (special, chars) = (block.special(), _mm_loadu_si128(part.as_ptr().cast()));
            if special == 0 && (!LATIN1 || block.high() == 0) {
                block.store(out);
                out = out.add(WIDTH);
                continue;
            }
            let (mut lead, mut last) = (_mm_setzero_si128(), chars);
            if special != 0 {
                let letters = _mm_shuffle_epi8(_mm_loadu_si128(LETTERS.as_ptr().cast()), chars);
                let letters = _mm_and_si128(letters, at_most(chars, 0x0f));
                let none = _mm_cmpeq_epi8(letters, _mm_setzero_si128());
                if _mm_movemask_epi8(_mm_and_si128(at_most(chars, 0x1f), none)) != 0 {
                    out = if LATIN1 { baseline::each(part, out) } else { baseline::each_byte(part, out) };
                    continue;
                }
                lead = _mm_or_si128(_mm_cmpeq_epi8(chars, all(b'"')), _mm_cmpeq_epi8(chars, all(b'\\')));
                lead = _mm_and_si128(_mm_or_si128(lead, at_most(chars, 0x1f)), all(b'\\'));
                last = _mm_blendv_epi8(letters, chars, none);
            }
            if LATIN1 {
                // U+0080 to U+00BF stand for themselves after C2, the others less 0x40 after C3.
                let high = _mm_cmplt_epi8(chars, _mm_setzero_si128());
                let upper = _mm_cmpeq_epi8(_mm_max_epu8(chars, all(0xc0)), chars);
                lead = _mm_or_si128(lead, _mm_and_si128(high, all(0xc2)));
                lead = _mm_sub_epi8(lead, upper);
                last = _mm_sub_epi8(last, _mm_and_si128(upper, all(0x40)));
            }
            let none = _mm_movemask_epi8(_mm_cmpeq_epi8(lead, _mm_setzero_si128()));
            out = put_pairs(_mm_unpacklo_epi8(lead, last), none & 0xff, out);
            out = put_pairs(_mm_unpackhi_epi8(lead, last), none >> 8, out);
        }
        if LATIN1 { baseline::each(rest, out) } else { baseline::each_byte(rest, out) }
    }
}

/// # Safety
/// As [`super::Unit::avx2`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn ucs2(chars: &[u16], out: *mut u8) -> *mut u8 {
    let mut out = out;
    let (parts, rest) = chars.as_chunks::<8>();
    let all = |value: u16| _mm_set1_epi16(value.cast_signed());
    // SAFETY: the caller's guarantee; eight characters each.
    unsafe {
        for part in parts {
            let chars = _mm_loadu_si128(part.as_ptr().cast());
            let at_most = |limit| _mm_cmpeq_epi16(_mm_min_epu16(chars, all(limit)), chars);
            let escaped = _mm_or_si128(_mm_cmpeq_epi16(chars, all(0x22)), _mm_cmpeq_epi16(chars, all(0x5c)));
            let surrogate = _mm_cmpeq_epi16(_mm_and_si128(chars, all(0xf800)), all(0xd800));
            let special = _mm_or_si128(_mm_or_si128(escaped, surrogate), at_most(0x1f));
            if _mm_movemask_epi8(special) != 0 {
                out = baseline::each(part, out);
                if out.is_null() {
                    return out;
                }
                continue;
            }
            let ascii = at_most(0x7f);
            let none = _mm_movemask_epi8(_mm_packs_epi16(ascii, ascii)) & 0xff;
            if none == 0xff {
                _mm_storel_epi64(out.cast(), _mm_packus_epi16(chars, chars));
                out = out.add(8);
            } else if _mm_movemask_epi8(at_most(0x7ff)) == 0xffff {
                // First byte lowest.
                let last = _mm_slli_epi16::<8>(_mm_and_si128(chars, all(0x3f)));
                let marked = _mm_or_si128(_mm_or_si128(_mm_srli_epi16::<6>(chars), last), all(0x80c0));
                out = put_pairs(_mm_blendv_epi8(marked, _mm_slli_epi16::<8>(chars), ascii), none, out);
            } else {
                out = put_quads(_mm_cvtepu16_epi32(chars), out);
                out = put_quads(_mm_cvtepu16_epi32(_mm_unpackhi_epi64(chars, chars)), out);
            }
        }
        baseline::each(rest, out)
    }
}

/// # Safety
/// As [`super::Unit::avx2`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn ucs4(chars: &[u32], out: *mut u8) -> *mut u8 {
    let mut out = out;
    let (parts, rest) = chars.as_chunks::<4>();
    let all = |value: u32| _mm_set1_epi32(value.cast_signed());
    // SAFETY: the caller's guarantee; four characters each.
    unsafe {
        for part in parts {
            let chars = _mm_loadu_si128(part.as_ptr().cast());
            let surrogate = _mm_cmpeq_epi32(_mm_and_si128(chars, all(0xffff_f800)), all(0xd800));
            if _mm_movemask_epi8(surrogate) != 0 {
                return null_mut();
            }
            let escaped = _mm_or_si128(_mm_cmpeq_epi32(chars, all(0x22)), _mm_cmpeq_epi32(chars, all(0x5c)));
            let special = _mm_or_si128(escaped, _mm_cmplt_epi32(chars, all(0x20)));
            out = if _mm_movemask_epi8(special) == 0 { put_quads(chars, out) } else { baseline::each(part, out) };
        }
        baseline::each(rest, out)
    }
}

/// Writes eight pairs of bytes; of those in the mask `none` the last one alone.
///
/// # Safety
/// There is room for sixteen bytes.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
unsafe fn put_pairs(pairs: __m128i, none: i32, out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        let shuffle = _mm_loadu_si128(PAIRS[none as usize].as_ptr().cast());
        _mm_storeu_si128(out.cast(), _mm_shuffle_epi8(pairs, shuffle));
        out.add(16 - none.count_ones() as usize)
    }
}

/// Writes four characters.
///
/// # Safety
/// There is room for sixteen bytes; no character is a surrogate.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
unsafe fn put_quads(chars: __m128i, out: *mut u8) -> *mut u8 {
    let all = |value: u32| _mm_set1_epi32(value.cast_signed());
    // Six bits in each byte, the last byte highest.
    let last = _mm_slli_epi32::<24>(_mm_and_si128(chars, all(0x3f)));
    let third = _mm_and_si128(_mm_slli_epi32::<10>(chars), all(0x003f_0000));
    let second = _mm_and_si128(_mm_srli_epi32::<4>(chars), all(0x3f00));
    let fields = _mm_or_si128(_mm_or_si128(last, third), _mm_or_si128(second, _mm_srli_epi32::<18>(chars)));
    let above = |limit| _mm_cmpgt_epi32(chars, all(limit));
    let (two, three, four) = (above(0x7f), above(0x7ff), above(0xffff));
    let marks = _mm_blendv_epi8(all(0x80c0_0000), all(0x8080_e000), three);
    let marks = _mm_blendv_epi8(marks, all(0x8080_80f0), four);
    let quads = _mm_blendv_epi8(_mm_slli_epi32::<24>(chars), _mm_or_si128(fields, marks), two);
    let mask = |lanes| _mm_movemask_ps(_mm_castsi128_ps(lanes));
    let odd = mask(_mm_xor_si128(_mm_xor_si128(two, three), four));
    let index = odd | mask(three) << 4;
    // SAFETY: the caller's guarantee.
    unsafe {
        let shuffle = _mm_loadu_si128(QUADS[index as usize].as_ptr().cast());
        _mm_storeu_si128(out.cast(), _mm_shuffle_epi8(quads, shuffle));
        out.add((4 + odd.count_ones() + 2 * mask(three).count_ones()) as usize)
    }
}
