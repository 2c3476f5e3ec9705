//! Sixteen bytes of text looked at together: where something stands that is not copied as it is.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::processor::{Level, level};

/// How many bytes a [`Block`] has.
pub(super) const WIDTH: usize = 16;
/// How far [`copy_plain`] may write beyond what it copies.
pub(super) const OVERSHOOT: usize = 64;

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Block;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::Block;

/// Copies `len` bytes, more than two blocks, up to one with a special byte; returns how many were copied: `len`, or a
/// number from which on to look closely.
///
/// # Safety
/// So many bytes can be read, and as many and [`OVERSHOOT`] more written, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn copy_plain(source: *const u8, target: *mut u8, len: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    match level() {
        // SAFETY: the caller's guarantee; the processor has it.
        Level::Avx512 => return unsafe { avx512::copy_plain(source, target, len) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { avx2::copy_plain(source, target, len) },
        Level::Baseline => {}
    }
    // SAFETY: as above.
    unsafe { baseline::copy_plain(source, target, len) }
}

/// Block by block.
mod baseline {
    use super::{Block, WIDTH};

    /// # Safety
    /// As [`super::copy_plain`].
    pub(super) unsafe fn copy_plain(source: *const u8, target: *mut u8, len: usize) -> usize {
        let (mut done, last) = (0, len - WIDTH);
        // SAFETY: the caller's guarantee; the last block overlaps with the one before.
        unsafe {
            loop {
                let block = Block::load(source.add(done));
                if block.special() != 0 {
                    return done;
                }
                block.store(target.add(done));
                if done == last {
                    return len;
                }
                done = done.wrapping_add(WIDTH).min(last);
            }
        }
    }
}

/// Thirty-two bytes at once, for processors of 2013 and later.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    const WIDTH: usize = 32;

    /// # Safety
    /// As [`super::copy_plain`]; the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn copy_plain(source: *const u8, target: *mut u8, len: usize) -> usize {
        let (mut done, last) = (0, len - WIDTH);
        // SAFETY: the caller's guarantee; the last part overlaps with the one before.
        unsafe {
            while done + WIDTH <= last {
                let first = _mm256_loadu_si256(source.add(done).cast());
                let second = _mm256_loadu_si256(source.add(done + WIDTH).cast());
                if _mm256_movemask_epi8(_mm256_or_si256(special(first), special(second))) != 0 {
                    return done;
                }
                _mm256_storeu_si256(target.add(done).cast(), first);
                _mm256_storeu_si256(target.add(done + WIDTH).cast(), second);
                done = done.wrapping_add(2 * WIDTH);
            }
            loop {
                done = done.min(last);
                let part = _mm256_loadu_si256(source.add(done).cast());
                if _mm256_movemask_epi8(special(part)) != 0 {
                    return done;
                }
                _mm256_storeu_si256(target.add(done).cast(), part);
                if done == last {
                    return len;
                }
                done = done.wrapping_add(WIDTH);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn special(part: __m256i) -> __m256i {
        let backslash = _mm256_cmpeq_epi8(part, _mm256_set1_epi8(b'\\'.cast_signed()));
        let turned = _mm256_xor_si256(part, _mm256_set1_epi8(2));
        let low = _mm256_cmpeq_epi8(_mm256_min_epu8(turned, _mm256_set1_epi8(0x20)), turned);
        _mm256_or_si256(backslash, low)
    }
}

/// Sixty-four bytes at once, for processors of 2019 and later.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    const WIDTH: usize = 64;

    /// # Safety
    /// As [`super::copy_plain`]; the processor has what [`Level::Avx512`](super::Level::Avx512) stands for.
    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    pub(super) unsafe fn copy_plain(source: *const u8, target: *mut u8, len: usize) -> usize {
        // SAFETY: the caller's guarantee; the last part overlaps with the one before, or is read under a mask.
        unsafe {
            if len < WIDTH {
                let valid = _bzhi_u64(u64::MAX, len as u32);
                let part = _mm512_maskz_loadu_epi8(valid, source.cast());
                _mm512_storeu_si512(target.cast(), part);
                return if special(part) & valid == 0 { len } else { 0 };
            }
            let (mut done, last) = (0usize, len.wrapping_sub(WIDTH));
            loop {
                let part = _mm512_loadu_si512(source.add(done).cast());
                if special(part) != 0 {
                    return done;
                }
                _mm512_storeu_si512(target.add(done).cast(), part);
                if done == last {
                    return len;
                }
                done = done.wrapping_add(WIDTH).min(last);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn special(part: __m512i) -> u64 {
        let backslash = _mm512_cmpeq_epi8_mask(part, _mm512_set1_epi8(b'\\'.cast_signed()));
        let turned = _mm512_xor_si512(part, _mm512_set1_epi8(2));
        backslash | _mm512_cmple_epu8_mask(turned, _mm512_set1_epi8(0x20))
    }
}

/// SSE2, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Sixteen bytes.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Block(__m128i);

    impl Block {
        /// # Safety
        /// Sixteen bytes can be read at `source`.
        #[inline(always)]
        pub(in super::super) unsafe fn load(source: *const u8) -> Self {
            // SAFETY: the caller's guarantee.
            Self(unsafe { _mm_loadu_si128(source.cast()) })
        }

        /// Eight bytes, the first one lowest, then zeros.
        #[inline(always)]
        pub(in super::super) fn of_eight(bytes: u64) -> Self {
            // SAFETY: SSE2.
            Self(unsafe { _mm_cvtsi64_si128(bytes.cast_signed()) })
        }

        /// Four bytes, then four more, then zeros.
        #[inline(always)]
        pub(in super::super) fn of_fours(first: u32, last: u32) -> Self {
            // SAFETY: SSE2.
            unsafe {
                let (first, last) = (_mm_cvtsi32_si128(first.cast_signed()), _mm_cvtsi32_si128(last.cast_signed()));
                Self(_mm_unpacklo_epi32(first, last))
            }
        }

        /// # Safety
        /// Eight bytes can be read at both.
        #[inline(always)]
        pub(in super::super) unsafe fn load_halves(first: *const u8, last: *const u8) -> Self {
            // SAFETY: the caller's guarantee.
            unsafe { Self(_mm_unpacklo_epi64(_mm_loadl_epi64(first.cast()), _mm_loadl_epi64(last.cast()))) }
        }

        /// # Safety
        /// Eight bytes can be written at both.
        #[inline(always)]
        pub(in super::super) unsafe fn store_halves(self, first: *mut u8, last: *mut u8) {
            // SAFETY: the caller's guarantee.
            unsafe {
                _mm_storel_epi64(first.cast(), self.0);
                _mm_storeh_pd(last.cast(), _mm_castsi128_pd(self.0));
            }
        }

        /// # Safety
        /// Sixteen bytes can be written at `target`.
        #[inline(always)]
        pub(in super::super) unsafe fn store(self, target: *mut u8) {
            // SAFETY: the caller's guarantee.
            unsafe { _mm_storeu_si128(target.cast(), self.0) }
        }

        /// A bit for each byte that is a quote, a backslash or a control character, the first byte's lowest.
        #[inline(always)]
        pub(in super::super) fn special(self) -> u32 {
            // SAFETY: SSE2.
            unsafe { _mm_movemask_epi8(self.specials()).cast_unsigned() }
        }

        /// Whether such a byte is in this or the other block.
        #[inline(always)]
        pub(in super::super) fn or_special(self, other: Self) -> bool {
            // SAFETY: SSE2.
            unsafe { _mm_movemask_epi8(_mm_or_si128(self.specials(), other.specials())) != 0 }
        }

        #[inline(always)]
        fn specials(self) -> __m128i {
            // SAFETY: SSE2.
            unsafe {
                let backslash = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(b'\\'.cast_signed()));
                // With this bit turned a quote is 0x20, next to the control characters, and nothing else is.
                let turned = _mm_xor_si128(self.0, _mm_set1_epi8(2));
                let low = _mm_cmpeq_epi8(_mm_min_epu8(turned, _mm_set1_epi8(0x20)), turned);
                _mm_or_si128(backslash, low)
            }
        }

        /// A bit for each byte that is not ASCII.
        #[inline(always)]
        pub(in super::super) fn high(self) -> u32 {
            // SAFETY: SSE2.
            unsafe { _mm_movemask_epi8(self.0).cast_unsigned() }
        }

        /// A bit for each byte that is not a space.
        #[inline(always)]
        pub(in super::super) fn not_space(self) -> u32 {
            // SAFETY: SSE2.
            unsafe {
                let space = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(0x20));
                !_mm_movemask_epi8(space).cast_unsigned() & 0xffff
            }
        }
    }
}

/// Without vectors.
#[cfg(any(not(target_arch = "x86_64"), test))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "compared with the other in tests"))]
mod portable {
    use super::WIDTH;

    /// Sixteen bytes.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Block([u8; WIDTH]);

    impl Block {
        /// # Safety
        /// Sixteen bytes can be read at `source`.
        #[inline(always)]
        pub(in super::super) unsafe fn load(source: *const u8) -> Self {
            // SAFETY: the caller's guarantee.
            Self(unsafe { source.cast::<[u8; WIDTH]>().read() })
        }

        /// Eight bytes, the first one lowest, then zeros.
        #[inline(always)]
        pub(in super::super) fn of_eight(bytes: u64) -> Self {
            Self(u128::from(bytes).to_le_bytes())
        }

        /// Four bytes, then four more, then zeros.
        #[inline(always)]
        pub(in super::super) fn of_fours(first: u32, last: u32) -> Self {
            Self((u128::from(first) | u128::from(last) << 32).to_le_bytes())
        }

        /// # Safety
        /// Eight bytes can be read at both.
        #[inline(always)]
        pub(in super::super) unsafe fn load_halves(first: *const u8, last: *const u8) -> Self {
            // SAFETY: the caller's guarantee.
            unsafe {
                let half = |at: *const u8| u128::from(u64::from_le(at.cast::<u64>().read_unaligned()));
                Self((half(first) | half(last) << 64).to_le_bytes())
            }
        }

        /// # Safety
        /// Eight bytes can be written at both.
        #[inline(always)]
        pub(in super::super) unsafe fn store_halves(self, first: *mut u8, last: *mut u8) {
            let (halves, _) = self.0.as_chunks::<8>();
            // SAFETY: the caller's guarantee.
            unsafe {
                first.cast::<[u8; 8]>().write(halves[0]);
                last.cast::<[u8; 8]>().write(halves[1]);
            }
        }

        /// # Safety
        /// Sixteen bytes can be written at `target`.
        #[inline(always)]
        pub(in super::super) unsafe fn store(self, target: *mut u8) {
            // SAFETY: the caller's guarantee.
            unsafe { target.cast::<[u8; WIDTH]>().write(self.0) }
        }

        /// A bit for each byte that `is`, the first byte's lowest.
        #[inline(always)]
        fn mask(self, is: impl Fn(u8) -> bool) -> u32 {
            self.0.iter().rev().fold(0, |mask, byte| mask << 1 | u32::from(is(*byte)))
        }

        /// A bit for each byte that is a quote, a backslash or a control character.
        #[inline(always)]
        pub(in super::super) fn special(self) -> u32 {
            self.mask(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
        }

        /// Whether such a byte is in this or the other block.
        #[inline(always)]
        pub(in super::super) fn or_special(self, other: Self) -> bool {
            self.special() | other.special() != 0
        }

        /// A bit for each byte that is not ASCII.
        #[inline(always)]
        pub(in super::super) fn high(self) -> u32 {
            self.mask(|byte| byte >= 0x80)
        }

        /// A bit for each byte that is not a space.
        #[inline(always)]
        pub(in super::super) fn not_space(self) -> u32 {
            self.mask(|byte| byte != 0x20)
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{OVERSHOOT, WIDTH, avx2, avx512, baseline, portable, x86};
    use crate::processor::{Level, level};

    #[test]
    fn plain_bytes_are_copied_up_to_the_first_special_one_by_all() {
        let mut variants: Vec<unsafe fn(*const u8, *mut u8, usize) -> usize> = vec![baseline::copy_plain];
        if level() >= Level::Avx2 {
            variants.push(avx2::copy_plain);
        }
        if level() >= Level::Avx512 {
            variants.push(avx512::copy_plain);
        }
        for copy in variants {
            for len in 2 * WIDTH + 1..200 {
                let plain: Box<[u8]> =
                    (0..len).map(|index| [b' ', b'!', b'#', b'~', 0x7f, 0x80, 0xff][index % 7]).collect();
                let check = |source: &[u8], special: Option<usize>| {
                    let mut target = vec![0; len + OVERSHOOT];
                    // SAFETY: as many bytes, and as much room as is asked for.
                    let done = unsafe { copy(source.as_ptr(), target.as_mut_ptr(), len) };
                    assert!(special.map_or(done == len, |special| done <= special), "{len} {special:?} {done}");
                    assert_eq!(target[..done], source[..done]);
                };
                check(&plain, None);
                for place in 0..len {
                    let mut source = plain.clone();
                    source[place] = [b'"', b'\\', 0x1f, 0][(len + place) % 4];
                    check(&source, Some(place));
                }
            }
        }
    }

    #[test]
    fn both_blocks_say_the_same_of_every_byte_in_every_place() {
        for place in 0..16 {
            for byte in 0..=255u8 {
                let mut bytes = *b"abcdefghijklmnop";
                bytes[place] = byte;
                // SAFETY: sixteen bytes.
                let (one, other) = unsafe { (x86::Block::load(bytes.as_ptr()), portable::Block::load(bytes.as_ptr())) };
                assert_eq!(
                    (one.special(), one.high(), one.not_space()),
                    (other.special(), other.high(), other.not_space())
                );
            }
        }
    }
}
