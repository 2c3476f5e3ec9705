//! Reading strings with escapes, sixty-four bytes at once, for processors with AVX-512 VBMI2 (2019 and later).
//!
//! In each run of backslashes every second one is escaped by the one before; the escaping ones are left out, and what
//! follows them is replaced by what it stands for.
#![allow(unsafe_code)]

use super::text::UNESCAPED;
use std::arch::x86_64::*;

/// How many bytes are looked at, and stored, together.
pub(super) const WIDTH: usize = 64;

/// How far a string was read.
pub(super) struct Progress {
    /// The first byte that was not: a quote, a backslash that is no simple escape, or what may not be in a string, if
    /// there was room and text enough to get so far.
    pub(super) at: *const u8,
    pub(super) out: *mut u8,
    /// Whether any byte was not ASCII.
    pub(super) high: bool,
}

/// Reads what stands between `at` and `end`, up to what needs a closer look; writes to `out` as long as that is before
/// `limit`.
///
/// # Safety
/// The processor has what `Level::Avx512` stands for. The bytes can be read; no backslash before `at` escapes the first
/// of them; there is room for [`WIDTH`] bytes from everywhere before `limit`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) unsafe fn unescape(at: *const u8, end: *const u8, out: *mut u8, limit: *mut u8) -> Progress {
    let (mut at, mut out, mut high) = (at, out, 0);
    let all = |byte: u8| _mm512_set1_epi8(byte.cast_signed());
    let (halves, _) = UNESCAPED.as_chunks::<WIDTH>();
    // SAFETY: no byte outside of the mask is read; the caller's guarantee.
    unsafe {
        let table = |half: usize| _mm512_loadu_si512(halves[half].as_ptr().cast());
        while out < limit && at < end {
            let len = (end.addr() - at.addr()).min(WIDTH);
            let valid = _bzhi_u64(u64::MAX, len as u32);
            let part = _mm512_maskz_loadu_epi8(valid, at.cast());
            let escaping = escaping(_mm512_cmpeq_epi8_mask(part, all(b'\\')));
            let escaped = escaping << 1;
            let above = _mm512_movepi8_mask(part);
            let meanings = _mm512_maskz_permutex2var_epi8(escaped & !above, table(0), part, table(1));
            // Escapes that mean no single byte end before their backslash, as does one that the part cuts.
            let unknown = (_mm512_testn_epi8_mask(meanings, meanings) & escaped) >> 1 | escaping & 1 << (len - 1);
            let quotes = _mm512_cmpeq_epi8_mask(part, all(b'"')) & !escaped;
            let ends = unknown | quotes | _mm512_cmplt_epu8_mask(part, all(0x20));
            let count = (ends.trailing_zeros() as usize).min(len);
            let taken = _bzhi_u64(u64::MAX, count as u32);
            let kept = taken & !escaping;
            let plain = _mm512_mask_mov_epi8(part, escaped, meanings);
            _mm512_storeu_si512(out.cast(), _mm512_maskz_compress_epi8(kept, plain));
            out = out.add(kept.count_ones() as usize);
            at = at.add(count);
            high |= above & taken;
            if count < len {
                // One that the part cuts is whole in the next one.
                if count + 1 == len && escaping >> count & 1 == 1 && at.add(1) < end && count > 0 {
                    continue;
                }
                break;
            }
        }
    }
    Progress { at, out, high: high != 0 }
}

/// Those of `backslashes` that escape what follows them.
#[inline(always)]
fn escaping(backslashes: u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let starts = backslashes & !(backslashes << 1);
    // Adding its first bit to a run carries through the run, and leaves the others.
    let from_even = backslashes & !backslashes.wrapping_add(starts & EVEN);
    from_even & EVEN | backslashes & !from_even & !EVEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::{Level, level};
    use proptest::prelude::*;

    /// One byte after the other.
    fn expected(text: &[u8]) -> (usize, Vec<u8>) {
        let (mut at, mut out) = (0, Vec::new());
        while at < text.len() {
            match text[at] {
                b'"' | 0..0x20 => break,
                b'\\' => {
                    let meaning = text.get(at + 1).map_or(0, |byte| UNESCAPED[usize::from(*byte)]);
                    if meaning == 0 {
                        break;
                    }
                    out.push(meaning);
                    at += 2;
                }
                byte => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        (at, out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn text_is_read_as_byte_by_byte(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "x", "\\\\", "\\n", "\\\"", "\\/", "plain text", "é", "日本", "\\t\\t", "a longer piece of text without any",
                "x", "\\\\", "\\n", "x", "\\\\\\\\\\\\", "\\\\", "xx", "\\b", "\\f", "\\r", "y", "zz", "\\u0041", "\"", "\\", "\\x",
            ]), 0..60),
        ) {
            if level() < Level::Avx512 {
                return Ok(());
            }
            let text: Box<[u8]> = pieces.concat().bytes().collect();
            let (read, bytes) = expected(&text);
            let mut room = vec![0xa5; text.len() + WIDTH + 1];
            let range = text.as_ptr_range();
            // SAFETY: as much room as is asked for.
            let (len, found) = unsafe {
                let start = room.as_mut_ptr();
                let found = unescape(range.start, range.end, start, start.add(text.len() + 1));
                (found.out.addr() - start.addr(), found)
            };
            prop_assert_eq!(found.at.addr() - range.start.addr(), read);
            prop_assert_eq!(found.high, !text[..read].is_ascii());
            prop_assert_eq!(&room[..len], &bytes[..]);
        }
    }
}
