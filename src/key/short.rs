//! BLAKE3 of eight short inputs at once. Each is one block, so that its hash is one compression; those of eight blocks go
//! side by side, a lane of a vector each.
#![allow(unsafe_code)]

/// How many are hashed at once.
pub(super) const LANES: usize = 8;

/// A block: an input, and zeros behind it.
pub(super) type Block = [u8; 64];

/// What a hash is begun with, and its mode.
#[derive(Clone, Debug)]
pub(super) struct Mode {
    words: [u32; 8],
    flags: u32,
}

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl Mode {
    /// Bits of the domain: the block begins and ends the input's one chunk, which is the root of the tree.
    const ONE_BLOCK: u32 = 1 | 2 | 8;
    const DERIVE_KEY_MATERIAL: u32 = 64;

    /// That of `blake3::hash`.
    pub(super) const HASH: Self = Self { words: IV, flags: Self::ONE_BLOCK };

    /// That of `blake3::Hasher::new_derive_key`.
    pub(super) fn derive_key(context: &str) -> Self {
        let key = blake3::hazmat::hash_derive_key_context(context);
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { words, flags: Self::ONE_BLOCK | Self::DERIVE_KEY_MATERIAL }
    }

    /// The hashes of the first `lengths` bytes of each of `blocks`; `None` where the processor has no AVX2.
    pub(super) fn hash(&self, blocks: &[Block; LANES], lengths: &[u32; LANES]) -> Option<[[u8; 32]; LANES]> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return Some(unsafe { avx2::compress(self, blocks, lengths) });
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (blocks, lengths);
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Block, IV, LANES, Mode};
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    /// Which word of the message each step of a round takes.
    const SCHEDULE: [[usize; 16]; 7] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8],
        [3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1],
        [10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6],
        [12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4],
        [9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7],
        [11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13],
    ];

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes, of any alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const RIGHT: i32, const LEFT: i32>(words: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(words), _mm256_slli_epi32::<LEFT>(words))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mix(state: &mut [__m256i; 16], [a, b, c, d]: [usize; 4], one: __m256i, other: __m256i) {
        state[a] = _mm256_add_epi32(_mm256_add_epi32(state[a], one), state[b]);
        state[d] = rotate::<16, 16>(_mm256_xor_si256(state[d], state[a]));
        state[c] = _mm256_add_epi32(state[c], state[d]);
        state[b] = rotate::<12, 20>(_mm256_xor_si256(state[b], state[c]));
        state[a] = _mm256_add_epi32(_mm256_add_epi32(state[a], other), state[b]);
        state[d] = rotate::<8, 24>(_mm256_xor_si256(state[d], state[a]));
        state[c] = _mm256_add_epi32(state[c], state[d]);
        state[b] = rotate::<7, 25>(_mm256_xor_si256(state[b], state[c]));
    }

    /// Rows become columns: word `w` of vector `v` becomes word `v` of vector `w`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> [__m256i; 8] {
        let quarter = |a, b, c, d| {
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (above, below) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(above, below),
                _mm256_unpackhi_epi64(above, below),
            ]
        };
        let ([a, b, c, d], [e, f, g, h]) = (quarter(a, b, c, d), quarter(e, f, g, h));
        let low = |one, other| _mm256_permute2x128_si256::<0x20>(one, other);
        let high = |one, other| _mm256_permute2x128_si256::<0x31>(one, other);
        [low(a, e), low(b, f), low(c, g), low(d, h), high(a, e), high(b, f), high(c, g), high(d, h)]
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn compress(mode: &Mode, blocks: &[Block; LANES], lengths: &[u32; LANES]) -> [[u8; 32]; LANES] {
        let half = |half: usize| {
            let rows = blocks.each_ref().map(|block| load(&block.as_chunks().0[half]));
            transpose(rows)
        };
        let message: [[__m256i; 8]; 2] = [half(0), half(1)];
        let all = |word: u32| _mm256_set1_epi32(word as i32);
        let mut state = [_mm256_setzero_si256(); 16];
        for (place, word) in state.iter_mut().zip(mode.words.iter().chain(&IV[..4])) {
            *place = all(*word);
        }
        // Words 12 and 13 count chunks before this one: none.
        // SAFETY: as large as a vector.
        state[14] = unsafe { _mm256_loadu_si256(lengths.as_ptr().cast()) };
        state[15] = all(mode.flags);
        for schedule in &SCHEDULE {
            let word = |step: usize| message.as_flattened()[schedule[step]];
            // Columns, then diagonals.
            mix(&mut state, [0, 4, 8, 12], word(0), word(1));
            mix(&mut state, [1, 5, 9, 13], word(2), word(3));
            mix(&mut state, [2, 6, 10, 14], word(4), word(5));
            mix(&mut state, [3, 7, 11, 15], word(6), word(7));
            mix(&mut state, [0, 5, 10, 15], word(8), word(9));
            mix(&mut state, [1, 6, 11, 12], word(10), word(11));
            mix(&mut state, [2, 7, 8, 13], word(12), word(13));
            mix(&mut state, [3, 4, 9, 14], word(14), word(15));
        }
        let mut words = [_mm256_setzero_si256(); 8];
        for (word, place) in words.iter_mut().enumerate() {
            *place = _mm256_xor_si256(state[word], state[word + 8]);
        }
        transpose(words).map(|hash| {
            let mut bytes = [0; 32];
            // SAFETY: as large as a vector, whose words are little-endian.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), hash) };
            bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_blake3() {
        let bytes: Vec<u8> = (0..64u8).map(|byte| byte.wrapping_mul(151)).collect();
        let derived = |input: &[u8]| *blake3::Hasher::new_derive_key("a context").update(input).finalize().as_bytes();
        for first in 0..=64 - LANES + 1 {
            let (mut blocks, mut lengths) = ([[0; 64]; LANES], [0; LANES]);
            for lane in 0..LANES {
                let length = first + lane;
                blocks[lane][..length].copy_from_slice(&bytes[..length]);
                lengths[lane] = length as u32;
            }
            let inputs = lengths.map(|length| &bytes[..length as usize]);
            if let Some(found) = Mode::HASH.hash(&blocks, &lengths) {
                assert_eq!(found, inputs.map(|input| *blake3::hash(input).as_bytes()));
            }
            if let Some(found) = Mode::derive_key("a context").hash(&blocks, &lengths) {
                assert_eq!(found, inputs.map(derived));
            }
        }
    }
}
