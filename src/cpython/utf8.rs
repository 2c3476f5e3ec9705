//! Characters of UTF-8, for `str` objects.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::processor::{Level, level};

/// How many characters valid UTF-8 has: its bytes that do not continue one.
pub(super) fn count_chars(bytes: &[u8]) -> usize {
    // So few at a time that one byte counts them: the compiler uses vectors.
    bytes
        .chunks(255)
        .map(|chunk| {
            usize::from(chunk.iter().fold(0u8, |count, byte| count.wrapping_add(u8::from(*byte & 0xc0 != 0x80))))
        })
        .sum()
}

/// A character in one, two or four bytes.
pub(super) trait Unit: Copy {
    fn of(char: u32) -> Self;

    /// Writes the lowest bits of the sixteen characters in `chars`, those in the mask.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW and VL; there is room for those.
    #[cfg(target_arch = "x86_64")]
    unsafe fn store(target: *mut Self, mask: u16, chars: std::arch::x86_64::__m512i);
}

macro_rules! unit {
    ($($unit:ty: $store:ident),*) => {$(
        impl Unit for $unit {
            #[inline(always)]
            fn of(char: u32) -> Self {
                char as Self
            }
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn store(target: *mut Self, mask: u16, chars: std::arch::x86_64::__m512i) {
                // SAFETY: the caller's guarantee.
                unsafe { std::arch::x86_64::$store(target.cast(), mask, chars) }
            }
        }
    )*};
}

unit!(u8: _mm512_mask_cvtepi32_storeu_epi8, u16: _mm512_mask_cvtepi32_storeu_epi16, u32: _mm512_mask_storeu_epi32);

/// Writes the characters of `bytes`.
///
/// # Safety
/// `bytes` are valid UTF-8; there is room for all characters at `target`, each of which fits.
#[inline(always)]
pub(super) unsafe fn decode<U: Unit>(bytes: &[u8], target: *mut U) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the caller's guarantee; the processor has it.
        return unsafe { avx512::decode(bytes, target) };
    }
    // SAFETY: the caller's guarantee.
    unsafe { one_by_one(bytes, target) }
}

/// # Safety
/// `bytes` are valid UTF-8; there is room for all characters at `target`, each of which fits.
#[inline(always)]
unsafe fn one_by_one<U: Unit>(bytes: &[u8], target: *mut U) {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let range = bytes.as_ptr_range();
    let (mut at, mut out) = (range.start, target);
    // SAFETY: valid UTF-8 has as many bytes after each first one as that says; the caller's guarantee.
    unsafe {
        while at < range.end {
            let char;
            if *at < 0x80 {
                while range.end.addr() - at.addr() >= 8 && at.cast::<u64>().read_unaligned() & HIGH == 0 {
                    for index in 0..8 {
                        out.add(index).write(U::of(u32::from(*at.add(index))));
                    }
                    (at, out) = (at.add(8), out.add(8));
                }
                if at == range.end || *at >= 0x80 {
                    continue;
                }
                (char, at) = (u32::from(*at), at.add(1));
            } else {
                let first = u32::from(*at);
                let low = |index: usize| u32::from(*at.add(index)) & 0x3f;
                (char, at) = match first {
                    0..0xe0 => ((first & 0x1f) << 6 | low(1), at.add(2)),
                    0xe0..0xf0 => ((first & 0x0f) << 12 | low(1) << 6 | low(2), at.add(3)),
                    _ => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), at.add(4)),
                };
            }
            out.write(U::of(char));
            out = out.add(1);
        }
    }
}

/// Sixteen characters at once, for processors with AVX-512 VBMI2 (2019 and later).
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::Unit;
    use std::arch::x86_64::*;

    /// The numbers from 0 on.
    static PLACES: [u8; 64] = {
        let mut places = [0; 64];
        let mut place = 0;
        while place < 64 {
            places[place] = place as u8;
            place += 1;
        }
        places
    };

    /// # Safety
    /// As [`super::decode`]; the processor has what `Level::Avx512` stands for.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    pub(super) unsafe fn decode<U: Unit>(bytes: &[u8], target: *mut U) {
        const WIDTH: usize = 64;
        let (mut rest, mut out) = (bytes, target);
        // SAFETY: the caller's guarantee; under masks no byte is read and no character is written beyond the last.
        unsafe {
            while !rest.is_empty() {
                let len = rest.len().min(WIDTH);
                let valid = _bzhi_u64(u64::MAX, len as u32);
                let part = _mm512_maskz_loadu_epi8(valid, rest.as_ptr().cast());
                let plain = _mm512_movepi8_mask(part).trailing_zeros() as usize;
                if plain >= len.min(32) {
                    let plain = plain.min(len);
                    out = ascii(part, plain, out);
                    rest = rest.get_unchecked(plain..);
                    continue;
                }
                // Where characters start.
                let starts = valid & _mm512_cmpge_epi8_mask(part, _mm512_set1_epi8(0xc0u8.cast_signed()));
                let places = _mm512_loadu_si512(PLACES.as_ptr().cast());
                let first = _mm512_maskz_compress_epi8(starts, places);
                let count = starts.count_ones().min(16);
                // Of each character the first byte, lowest, and the three bytes after it, whose they may be.
                let quads = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(first));
                let quads = _mm512_mullo_epi32(quads, _mm512_set1_epi32(0x0101_0101));
                let quads = _mm512_add_epi8(quads, _mm512_set1_epi32(0x0302_0100));
                let chars = characters(_mm512_permutexvar_epi8(quads, part));
                U::store(out, _bzhi_u32(0xffff, count) as u16, chars);
                out = out.add(count as usize);
                // Up to the seventeenth character, if there is one.
                let next = _pdep_u64(1 << 16, starts).trailing_zeros() as usize;
                rest = rest.get_unchecked(next.min(len)..);
            }
        }
    }

    /// The characters whose first bytes are the lowest of each lane.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    #[inline]
    fn characters(quads: __m512i) -> __m512i {
        let all = |value: u32| _mm512_set1_epi32(value.cast_signed());
        let lead = _mm512_and_si512(quads, all(0xff));
        let two = _mm512_cmpge_epu32_mask(lead, all(0xc0));
        let three = _mm512_cmpge_epu32_mask(lead, all(0xe0));
        let four = _mm512_cmpge_epu32_mask(lead, all(0xf0));
        // All bits as if there were four bytes, the bits of the first one without those that mark it; then shifted down.
        let marks = _mm512_mask_mov_epi32(_mm512_maskz_mov_epi32(two, all(0xc0)), three, all(0xe0));
        let marks = _mm512_mask_mov_epi32(marks, four, all(0xf0));
        let first = _mm512_slli_epi32::<18>(_mm512_sub_epi32(lead, marks));
        let second = _mm512_and_si512(_mm512_slli_epi32::<4>(quads), all(0x3f << 12));
        let third = _mm512_and_si512(_mm512_srli_epi32::<10>(quads), all(0x3f << 6));
        let last = _mm512_and_si512(_mm512_srli_epi32::<24>(quads), all(0x3f));
        let whole = _mm512_or_si512(_mm512_or_si512(first, second), _mm512_or_si512(third, last));
        let shift = _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(all(18), two, all(12)), three, all(6));
        _mm512_srlv_epi32(whole, _mm512_maskz_mov_epi32(!four, shift))
    }

    /// Writes the first `count` bytes of `part` as characters.
    ///
    /// # Safety
    /// There is room for them; `count` is 64 at most.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    #[inline]
    unsafe fn ascii<U: Unit>(part: __m512i, count: usize, target: *mut U) -> *mut U {
        // SAFETY: the caller's guarantee.
        unsafe {
            if size_of::<U>() == 1 {
                _mm512_mask_storeu_epi8(target.cast(), _bzhi_u64(u64::MAX, count as u32), part);
                return target.add(count);
            }
            let (mut part, mut done) = (part, 0);
            while done < count {
                let mask = _bzhi_u32(0xffff, count.wrapping_sub(done) as u32) as u16;
                U::store(target.add(done), mask, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(part)));
                part = _mm512_shuffle_i64x2::<0b00_11_10_01>(part, part);
                done = done.wrapping_add(16);
            }
            target.add(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<U: Unit + Default>(text: &str, decode: unsafe fn(&[u8], *mut U)) -> Box<[U]> {
        // Memory of exactly their sizes.
        let bytes: Box<[u8]> = text.bytes().collect();
        let mut chars = vec![U::default(); text.chars().count()].into_boxed_slice();
        // SAFETY: valid; as many characters as there are.
        unsafe { decode(&bytes, chars.as_mut_ptr()) };
        chars
    }

    fn check(text: &str) {
        let expected: Vec<u32> = text.chars().map(u32::from).collect();
        assert_eq!(count_chars(text.as_bytes()), expected.len());
        let variants: &[unsafe fn(&[u8], *mut u32)] = &[decode::<u32>, one_by_one::<u32>];
        for variant in variants {
            assert_eq!(*decoded(text, *variant), *expected);
        }
        if let Ok(expected) = expected.iter().map(|char| u16::try_from(*char)).collect::<Result<Vec<_>, _>>() {
            let variants: &[unsafe fn(&[u8], *mut u16)] = &[decode::<u16>, one_by_one::<u16>];
            for variant in variants {
                assert_eq!(*decoded(text, *variant), *expected);
            }
        }
        if let Ok(expected) = expected.iter().map(|char| u8::try_from(*char)).collect::<Result<Vec<_>, _>>() {
            let variants: &[unsafe fn(&[u8], *mut u8)] = &[decode::<u8>, one_by_one::<u8>];
            for variant in variants {
                assert_eq!(*decoded(text, *variant), *expected);
            }
        }
    }

    #[test]
    fn every_character_is_decoded_in_any_place() {
        let chars: Vec<char> = (0..=0x0010_ffff).filter_map(char::from_u32).collect();
        for text in chars.chunks(101) {
            check(&text.iter().collect::<String>());
        }
        for (from, len) in (0..2000).zip((0..200).cycle()) {
            for distance in [1, 40, 700] {
                let text = chars[from..].iter().step_by(distance).take(len);
                check(&text.clone().collect::<String>());
                check(&text.flat_map(|char| ['a', 'b', *char]).collect::<String>());
            }
        }
    }

    #[test]
    fn long_runs_of_ascii_between_others_are_decoded() {
        for run in 0..200 {
            for other in ['\u{e9}', '\u{43f}', '\u{65e5}', '\u{1f600}'] {
                let run = "x".repeat(run);
                check(&format!("{run}{other}{run}"));
                check(&format!("{other}{run}{other}{other}"));
            }
        }
    }
}
