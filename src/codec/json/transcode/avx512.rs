//! Up to sixty-four characters at once, for processors with AVX-512 VBMI2 (2019 and later).
//!
//! The last ones are read and looked at under a mask, so that there is no rest; lanes outside of it are zero, and zero
//! bytes are what is left out.

use super::{Utf8, baseline};
use std::arch::x86_64::*;
use std::ptr::null_mut;

/// What each escaped character below 0x80 has after its backslash: a letter, or `u` and more; 0 for all others.
static LETTERS: [u8; 128] = {
    let mut letters = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        letters[byte] = baseline::ESCAPES[byte][1];
        byte += 1;
    }
    letters
};

/// # Safety
/// As [`super::Unit::avx512`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) unsafe fn utf8(units: &[Utf8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee; a unit is a byte.
    unsafe { bytes::<false>(std::slice::from_raw_parts(units.as_ptr().cast(), units.len()), out) }
}

/// # Safety
/// As [`super::Unit::avx512`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) unsafe fn latin1(chars: &[u8], out: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe { bytes::<true>(chars, out) }
}

/// Bytes that are characters, or else UTF-8 already.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
unsafe fn bytes<const LATIN1: bool>(bytes: &[u8], out: *mut u8) -> *mut u8 {
    const WIDTH: usize = 64;
    let (mut out, mut rest) = (out, bytes);
    // SAFETY: the caller's guarantee; no byte outside of the mask is read.
    unsafe {
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(WIDTH));
            rest = after;
            let valid = _bzhi_u64(u64::MAX, part.len() as u32);
            let chars = _mm512_maskz_loadu_epi8(valid, part.as_ptr().cast());
            let special = valid
                & (_mm512_cmplt_epu8_mask(chars, _mm512_set1_epi8(0x20))
                    | _mm512_cmpeq_epi8_mask(chars, _mm512_set1_epi8(b'"'.cast_signed()))
                    | _mm512_cmpeq_epi8_mask(chars, _mm512_set1_epi8(b'\\'.cast_signed())));
            let high = if LATIN1 { _mm512_movepi8_mask(chars) } else { 0 };
            if special | high == 0 {
                _mm512_storeu_si512(out.cast(), chars);
                out = out.add(part.len());
                continue;
            }
            let mut lead = _mm512_maskz_set1_epi8(special, b'\\'.cast_signed());
            let mut last = chars;
            if special != 0 {
                let letters = letters_of(chars);
                if _mm512_mask_cmpeq_epi8_mask(special, letters, _mm512_set1_epi8(b'u'.cast_signed())) != 0 {
                    out = if LATIN1 { baseline::each(part, out) } else { baseline::each_byte(part, out) };
                    continue;
                }
                last = _mm512_mask_mov_epi8(last, special, letters);
            }
            if LATIN1 {
                // U+0080 to U+00BF stand for themselves after C2, the others less 0x40 after C3.
                let upper = _mm512_cmpge_epu8_mask(chars, _mm512_set1_epi8(0xc0u8.cast_signed()));
                lead = _mm512_mask_mov_epi8(lead, high, _mm512_set1_epi8(0xc2u8.cast_signed()));
                lead = _mm512_mask_mov_epi8(lead, upper, _mm512_set1_epi8(0xc3u8.cast_signed()));
                last = _mm512_mask_sub_epi8(last, upper, last, _mm512_set1_epi8(0x40));
            }
            let pairs = |lead, last| {
                _mm512_or_si512(_mm512_cvtepu8_epi16(lead), _mm512_slli_epi16::<8>(_mm512_cvtepu8_epi16(last)))
            };
            out = put(pairs(_mm512_castsi512_si256(lead), _mm512_castsi512_si256(last)), out);
            if part.len() > WIDTH / 2 {
                let upper = |vector| _mm512_extracti64x4_epi64::<1>(vector);
                out = put(pairs(upper(lead), upper(last)), out);
            }
        }
    }
    out
}

/// # Safety
/// As [`super::Unit::avx512`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) unsafe fn ucs2(chars: &[u16], out: *mut u8) -> *mut u8 {
    const WIDTH: usize = 32;
    let (mut out, mut rest) = (out, chars);
    // SAFETY: the caller's guarantee; no character outside of the mask is read.
    unsafe {
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(WIDTH));
            rest = after;
            let valid = _bzhi_u32(u32::MAX, part.len() as u32);
            let chars = _mm512_maskz_loadu_epi16(valid, part.as_ptr().cast());
            let all = |value: u16| _mm512_set1_epi16(value.cast_signed());
            let special = valid
                & (_mm512_cmplt_epu16_mask(chars, all(0x20))
                    | _mm512_cmpeq_epi16_mask(chars, all(b'"'.into()))
                    | _mm512_cmpeq_epi16_mask(chars, all(b'\\'.into())));
            let two = _mm512_cmpge_epu16_mask(chars, all(0x80));
            if special | two == 0 {
                _mm256_storeu_si256(out.cast(), _mm512_cvtepi16_epi8(chars));
                out = out.add(part.len());
                continue;
            }
            let mut letters = _mm512_setzero_si512();
            if special != 0 {
                letters = _mm512_maskz_mov_epi16(special, _mm512_and_si512(letters_of(chars), all(0xff)));
                if _mm512_cmpeq_epi16_mask(letters, all(b'u'.into())) != 0 {
                    out = baseline::each(part, out);
                    if out.is_null() {
                        return out;
                    }
                    continue;
                }
            }
            let three = _mm512_cmpge_epu16_mask(chars, all(0x800));
            if three == 0 {
                // First byte lowest.
                let first = _mm512_srli_epi16::<6>(chars);
                let last = _mm512_slli_epi16::<8>(_mm512_and_si512(chars, all(0x3f)));
                let marked = _mm512_or_si512(_mm512_or_si512(first, last), all(0x80c0));
                let pairs = _mm512_mask_mov_epi16(_mm512_slli_epi16::<8>(chars), two, marked);
                let escapes = _mm512_or_si512(_mm512_slli_epi16::<8>(letters), all(b'\\'.into()));
                out = put(_mm512_mask_mov_epi16(pairs, special, escapes), out);
                continue;
            }
            if _mm512_cmpeq_epi16_mask(_mm512_and_si512(chars, all(0xf800)), all(0xd800)) != 0 {
                return null_mut();
            }
            let lower = |vector| _mm512_cvtepu16_epi32(_mm512_castsi512_si256(vector));
            out = put_quads(lower(chars), special as u16, lower(letters), out);
            if part.len() > WIDTH / 2 {
                let upper = |vector| _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(vector));
                out = put_quads(upper(chars), (special >> 16) as u16, upper(letters), out);
            }
        }
    }
    out
}

/// # Safety
/// As [`super::Unit::avx512`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) unsafe fn ucs4(chars: &[u32], out: *mut u8) -> *mut u8 {
    const WIDTH: usize = 16;
    let (mut out, mut rest) = (out, chars);
    // SAFETY: the caller's guarantee; no character outside of the mask is read.
    unsafe {
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(WIDTH));
            rest = after;
            let valid = _bzhi_u32(0xffff, part.len() as u32) as u16;
            let chars = _mm512_maskz_loadu_epi32(valid, part.as_ptr().cast());
            let all = |value: u32| _mm512_set1_epi32(value.cast_signed());
            let special = valid
                & (_mm512_cmplt_epu32_mask(chars, all(0x20))
                    | _mm512_cmpeq_epi32_mask(chars, all(b'"'.into()))
                    | _mm512_cmpeq_epi32_mask(chars, all(b'\\'.into())));
            if special | _mm512_cmpge_epu32_mask(chars, all(0x80)) == 0 {
                _mm_storeu_si128(out.cast(), _mm512_cvtepi32_epi8(chars));
                out = out.add(part.len());
                continue;
            }
            if _mm512_cmpeq_epi32_mask(_mm512_and_si512(chars, all(0xffff_f800)), all(0xd800)) != 0 {
                return null_mut();
            }
            let letters = _mm512_maskz_mov_epi32(special, _mm512_and_si512(letters_of(chars), all(0xff)));
            if _mm512_cmpeq_epi32_mask(letters, all(b'u'.into())) != 0 {
                out = baseline::each(part, out);
                continue;
            }
            out = put_quads(chars, special, letters, out);
        }
    }
    out
}

/// For each byte below 0x80 what [`LETTERS`] has; anything for others.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
fn letters_of(chars: __m512i) -> __m512i {
    let (halves, _) = LETTERS.as_chunks::<64>();
    // SAFETY: sixty-four bytes each.
    unsafe {
        let half = |index: usize| _mm512_loadu_si512(halves[index].as_ptr().cast());
        _mm512_permutex2var_epi8(half(0), chars, half(1))
    }
}

/// Writes sixteen characters of four bytes each, those of `special` as a backslash and their letter.
///
/// # Safety
/// There is room for sixty-four bytes; no character is a surrogate.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
unsafe fn put_quads(chars: __m512i, special: __mmask16, letters: __m512i, out: *mut u8) -> *mut u8 {
    /// From where on each byte of two characters has its bits: six of them each, the last byte highest.
    const FIELDS: i64 = i64::from_le_bytes([18, 12, 6, 0, 50, 44, 38, 32]);
    let all = |value: u32| _mm512_set1_epi32(value.cast_signed());
    let fields = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(FIELDS), chars);
    let fields = _mm512_and_si512(fields, all(0x3f3f_3f3f));
    let two = _mm512_cmpge_epu32_mask(chars, all(0x80));
    let three = _mm512_cmpge_epu32_mask(chars, all(0x800));
    let four = _mm512_cmpge_epu32_mask(chars, all(0x1_0000));
    let marks = _mm512_mask_mov_epi32(all(0x80c0_0000), three, all(0x8080_e000));
    let marks = _mm512_mask_mov_epi32(marks, four, all(0x8080_80f0));
    let quads = _mm512_mask_or_epi32(_mm512_slli_epi32::<24>(chars), two, fields, marks);
    let escapes = _mm512_or_si512(_mm512_slli_epi32::<24>(letters), all(u32::from(b'\\') << 16));
    // SAFETY: the caller's guarantee.
    unsafe { put(_mm512_mask_mov_epi32(quads, special, escapes), out) }
}

/// Writes the bytes that are not zero.
///
/// # Safety
/// There is room for sixty-four bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
unsafe fn put(bytes: __m512i, out: *mut u8) -> *mut u8 {
    let keep = _mm512_test_epi8_mask(bytes, bytes);
    // SAFETY: the caller's guarantee.
    unsafe {
        // Compressed in a register: straight to memory takes many times as long on some processors.
        _mm512_storeu_si512(out.cast(), _mm512_maskz_compress_epi8(keep, bytes));
        out.add(keep.count_ones() as usize)
    }
}
