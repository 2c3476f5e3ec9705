//! Sixteen bytes of text looked at together: where something stands that is not copied as it is.
#![allow(unsafe_code)]

/// How many bytes a [`Block`] has.
pub(super) const WIDTH: usize = 16;

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Block;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::Block;

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

        /// Eight bytes, then eight more.
        #[inline(always)]
        pub(in super::super) fn of(first: u64, last: u64) -> Self {
            // SAFETY: SSE2.
            Self(unsafe { _mm_set_epi64x(last.cast_signed(), first.cast_signed()) })
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
            unsafe {
                let quote = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(b'"'.cast_signed()));
                let backslash = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(b'\\'.cast_signed()));
                let control = _mm_cmpeq_epi8(_mm_min_epu8(self.0, _mm_set1_epi8(0x1f)), self.0);
                let any = _mm_or_si128(_mm_or_si128(quote, backslash), control);
                _mm_movemask_epi8(any).cast_unsigned()
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

        /// Eight bytes, then eight more.
        #[inline(always)]
        pub(in super::super) fn of(first: u64, last: u64) -> Self {
            Self((u128::from(first) | u128::from(last) << 64).to_le_bytes())
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
    use super::{portable, x86};

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
