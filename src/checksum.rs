//! XXH3-64, of long inputs with AVX2 where the processor has it: twice as fast as what every x86-64 can do.
#![allow(unsafe_code)]

use xxhash_rust::xxh3;

/// The XXH3-64 hash of `bytes`, without a seed.
#[inline]
pub(crate) fn xxh3_64(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() > avx2::LONGER_THAN && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { avx2::long(bytes) };
    }
    xxh3::xxh3_64(bytes)
}

/// The algorithm for long inputs, by vectors of four 64-bit numbers.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_set1_epi64x, _mm256_shuffle_epi32,
        _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
    };
    use xxhash_rust::const_xxh3::const_custom_default_secret;

    /// Shorter inputs have algorithms of their own.
    pub(super) const LONGER_THAN: usize = 240;

    /// Bytes that the eight accumulators take at a time.
    const STRIPE: usize = 64;
    /// Stripes between two scramblings, each with a secret 8 bytes further on.
    const STRIPES: usize = 16;
    static SECRET: [u8; 192] = const_custom_default_secret(0);

    const P32: [u64; 3] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D];
    const P64: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];

    type Sums = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; STRIPE]) -> Sums {
        let [first, second] = [bytes.as_ptr(), bytes[32..].as_ptr()];
        // SAFETY: 32 bytes from each on, of any alignment.
        unsafe { [_mm256_loadu_si256(first.cast()), _mm256_loadu_si256(second.cast())] }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn secret(at: usize) -> Sums {
        load(SECRET[at..].first_chunk().unwrap_or(&[0; STRIPE]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn accumulate(sums: Sums, stripe: &[u8; STRIPE], secret: Sums) -> Sums {
        let data = load(stripe);
        [0, 1].map(|half| {
            let keyed = _mm256_xor_si256(data[half], secret[half]);
            let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
            // Each number is added to the sum of its neighbour.
            let swapped = _mm256_shuffle_epi32::<0b01_00_11_10>(data[half]);
            _mm256_add_epi64(sums[half], _mm256_add_epi64(product, swapped))
        })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn scramble(sums: Sums) -> Sums {
        let (secret, prime) = (secret(SECRET.len() - STRIPE), _mm256_set1_epi64x(P32[0] as i64));
        [0, 1].map(|half| {
            let mixed = _mm256_xor_si256(sums[half], _mm256_srli_epi64::<47>(sums[half]));
            let keyed = _mm256_xor_si256(mixed, secret[half]);
            let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(keyed), prime);
            _mm256_add_epi64(_mm256_mul_epu32(keyed, prime), _mm256_slli_epi64::<32>(high))
        })
    }

    fn merge(sums: [u64; 8], length: usize) -> u64 {
        let secret = SECRET[11..].as_chunks().0;
        let mut hash = (length as u64).wrapping_mul(P64[0]);
        for (sums, secret) in sums.as_chunks::<2>().0.iter().zip(secret.as_chunks::<2>().0) {
            let [one, other] = [0, 1].map(|at| u128::from(sums[at] ^ u64::from_le_bytes(secret[at])));
            let product = one * other;
            hash = hash.wrapping_add(product as u64 ^ (product >> 64) as u64);
        }
        hash ^= hash >> 37;
        hash = hash.wrapping_mul(0x1656_6791_9E37_79F9);
        hash ^ hash >> 32
    }

    /// Of more than [`LONGER_THAN`] bytes.
    #[target_feature(enable = "avx2")]
    pub(super) fn long(bytes: &[u8]) -> u64 {
        let start: [u64; 8] = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]];
        // SAFETY: as large as two vectors.
        let mut sums = unsafe { [0, 4].map(|at| _mm256_loadu_si256(start.as_ptr().add(at).cast())) };
        // All but the last stripe, which may overlap the one before; it is never empty.
        let stripes = bytes[..bytes.len() - 1].as_chunks().0;
        let (blocks, rest) = stripes.as_chunks::<STRIPES>();
        for block in blocks {
            for (at, stripe) in block.iter().enumerate() {
                sums = accumulate(sums, stripe, secret(8 * at));
            }
            sums = scramble(sums);
        }
        for (at, stripe) in rest.iter().enumerate() {
            sums = accumulate(sums, stripe, secret(8 * at));
        }
        if let Some(last) = bytes.last_chunk() {
            sums = accumulate(sums, last, secret(SECRET.len() - STRIPE - 7));
        }
        let mut words = [0u64; 8];
        for (half, sums) in words.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: as large as a vector.
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), sums) };
        }
        merge(words, bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xxh3_of_every_length() {
        let bytes: Vec<_> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(xxh3_64(&bytes[..length]), xxh3::xxh3_64(&bytes[..length]), "{length}");
        }
        let long = bytes.repeat(50);
        assert_eq!(xxh3_64(&long[3..]), xxh3::xxh3_64(&long[3..]));
    }
}
