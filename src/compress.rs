//! Compressed payloads: LZ4 blocks and Zstandard frames, with bounds on what comes out.
//!
//! [`Compression`] is what a writer is configured to do, [`Algorithm`] what a frame's header names. Decompressing
//! allocates nothing before the declared size was found to be allowed and possible; the output is one buffer of that
//! size, which never grows, and which must come out full.

use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, Text};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Levels of Zstandard that may be asked for. Those below 1 are slower than LZ4 both ways and make hardly less.
pub const ZSTD_LEVELS: RangeInclusive<i32> = 1..=22;
/// The level where none is asked for: up to twice as fast as 3, and within a few percent of its size either way.
pub const ZSTD_DEFAULT: i32 = 1;
/// What [`Compression::Auto`] compresses with, unless the sample says that it is not worth it.
const AUTO: Method = Method::Lz4;
/// How much of a payload [`Compression::Auto`] tries out: 64 KiB, in pieces from all over it.
const SAMPLE: usize = 64 * 1024;
const PIECES: usize = 16;
/// The longest input that other implementations of LZ4 blocks take.
const LZ4_LONGEST: usize = 0x7E00_0000;
/// The most bytes that a byte of an LZ4 block can stand for: a run goes on for 255 with each.
const LZ4_EXPANSION: u64 = 255;
/// The most bytes that four bytes of a Zstandard frame can stand for: a block of one byte repeated, its header and all.
const ZSTD_BLOCK: u64 = 128 * 1024;
const ZSTD_BLOCK_LEAST: u64 = 4;

/// Makes the buffers that results are written to: [`AlignedBuf::stale`], or [`AlignedBuf::stale_plaintext`] for what is
/// to be wiped.
pub(crate) type Room = fn(usize) -> Result<AlignedBuf>;

/// How a payload is compressed, as `m.compression` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// One LZ4 block, without a size before it.
    Lz4,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

impl Algorithm {
    /// Its name in a frame's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Lz4, Self::Zstd].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The most that `compressed` bytes can become, whatever they are.
    fn longest_output(self, compressed: usize) -> u64 {
        let compressed = compressed as u64;
        match self {
            Self::Lz4 => compressed.saturating_mul(LZ4_EXPANSION),
            Self::Zstd => (compressed / ZSTD_BLOCK_LEAST).saturating_mul(ZSTD_BLOCK),
        }
    }
}

/// What a writer does with its payloads: `"lz4"`, `"zstd"`, `"zstd:LEVEL"` or `"auto"` in text.
///
/// A payload that does not get smaller is kept as it is.
///
/// ```
/// use framecache::compress::{Algorithm, Compression, decompress};
/// let compression: Compression = "zstd:9".parse()?;
/// let payload = b"again and ".repeat(1000);
/// let (algorithm, compressed) = compression.compress(&payload)?.expect("it gets smaller");
/// assert_eq!(algorithm, Algorithm::Zstd);
/// assert_eq!(decompress(algorithm, compressed.as_slice(), 10_000, 1 << 20)?.as_slice(), payload);
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// LZ4 blocks.
    Lz4,
    /// Zstandard of this level.
    Zstd(i32),
    /// LZ4 where it saves a tenth: of a sample of the payload first, then of all of it.
    Auto,
}

impl Compression {
    /// The longest that [`Self::compress_to`] asks for room for `len` bytes.
    pub(crate) fn room_for(self, len: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Lz4 | Self::Auto => lz4_flex::block::get_maximum_output_size(len),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(len),
        }
    }

    /// What it compresses with, where it does.
    pub(crate) fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(Algorithm::Lz4),
            Self::Zstd(_) => Some(Algorithm::Zstd),
            Self::Auto => Some(AUTO.algorithm()),
        }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Lz4,
    Zstd(i32),
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = |level: &str| {
            // "+3", "03" and the like are refused: one level has one name.
            let parsed: i32 = level.parse().ok()?;
            (ZSTD_LEVELS.contains(&parsed) && parsed.to_string() == level).then_some(parsed)
        };
        let found = match text.split_once(':') {
            None if text == "lz4" => Some(Self::Lz4),
            None if text == "zstd" => Some(Self::Zstd(ZSTD_DEFAULT)),
            None if text == "auto" => Some(Self::Auto),
            Some(("zstd", rest)) => level(rest).map(Self::Zstd),
            _ => None,
        };
        found.ok_or_else(|| Error::Argument {
            argument: "compression",
            expected: format!(
                "None, 'lz4', 'zstd', 'zstd:LEVEL' with a level from {} to {}, or 'auto'",
                ZSTD_LEVELS.start(),
                ZSTD_LEVELS.end()
            )
            .into(),
            found: format!("{text:?}"),
        })
    }
}

impl Compression {
    /// The payload compressed, and how; `None` where it is kept as it is.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::Encode`] where the compressor fails.
    pub fn compress(self, payload: &[u8]) -> Result<Option<(Algorithm, AlignedBuf)>> {
        self.compress_to(payload, AlignedBuf::stale)
    }

    /// As [`Self::compress`], to a buffer of the length that `room` is asked for.
    pub(crate) fn compress_to(self, payload: &[u8], room: Room) -> Result<Option<(Algorithm, AlignedBuf)>> {
        let (method, longest) = match self {
            Self::None => return Ok(None),
            Self::Lz4 => (Method::Lz4, payload.len().saturating_sub(1)),
            Self::Zstd(level) => (Method::Zstd(level), payload.len().saturating_sub(1)),
            Self::Auto if sample_is_worth_it(payload, room)? => (AUTO, worth_it(payload.len())),
            Self::Auto => return Ok(None),
        };
        if payload.is_empty() || matches!(method, Method::Lz4) && payload.len() > LZ4_LONGEST {
            return Ok(None);
        }
        let compressed = method.run(payload, room)?;
        Ok((compressed.len() <= longest).then_some((method.algorithm(), compressed)))
    }
}

/// The longest result that saves at least a tenth of `len`.
fn worth_it(len: usize) -> usize {
    len - len.div_ceil(10)
}

/// Whether the sample of a payload gets smaller by a tenth. What is not longer than a sample is not sampled.
fn sample_is_worth_it(payload: &[u8], room: Room) -> Result<bool> {
    if payload.len() <= SAMPLE {
        return Ok(true);
    }
    const PIECE: usize = SAMPLE / PIECES;
    let mut sample = room(SAMPLE)?;
    let last = payload.len() - PIECE;
    for piece in 0..PIECES {
        // The first piece is the start, the last one the end.
        let start = last / (PIECES - 1) * piece;
        sample.as_mut_slice()[piece * PIECE..][..PIECE].copy_from_slice(&payload[start..start + PIECE]);
    }
    Ok(AUTO.run(sample.as_slice(), room)?.len() <= worth_it(SAMPLE))
}

impl Method {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Lz4 => Algorithm::Lz4,
            Self::Zstd(_) => Algorithm::Zstd,
        }
    }

    fn run(self, payload: &[u8], room: Room) -> Result<AlignedBuf> {
        let failed = |error: &dyn fmt::Display| Error::Encode {
            place: "payload".into(),
            expected: format!("one that {} can compress", self.algorithm().name()).into(),
            found: error.to_string(),
        };
        match self {
            Self::Lz4 => lz4_after(&[], payload, room),
            Self::Zstd(level) => {
                let mut out = room(zstd::zstd_safe::compress_bound(payload.len()))?;
                let mut compressor = zstd::bulk::Compressor::new(level).map_err(|error| failed(&error))?;
                let written = compressor.compress_to_buffer(payload, out.as_mut_slice());
                out.truncate(written.map_err(|error| failed(&error))?);
                Ok(out)
            }
        }
    }
}

/// `head`, and after it `payload` as one LZ4 block.
pub(crate) fn lz4_after(head: &[u8], payload: &[u8], room: Room) -> Result<AlignedBuf> {
    let most = lz4_flex::block::get_maximum_output_size(payload.len());
    let mut out = room(head.len() + most)?;
    let (start, block) = out.as_mut_slice().split_at_mut(head.len());
    start.copy_from_slice(head);
    // It fails for want of room only.
    let written = lz4_flex::block::compress_into(payload, block).map_err(|_| Error::Memory { bytes: most })?;
    out.truncate(head.len() + written);
    Ok(out)
}

/// The payload of `size` bytes that `compressed` holds, in a buffer of exactly that size.
///
/// Nothing is allocated for a `size` that is above `limit`, or that so few bytes cannot become.
///
/// # Errors
/// [`Error::Decode`]: such a size, data that the algorithm cannot read, or that becomes another size.
/// [`Error::Memory`].
pub fn decompress(algorithm: Algorithm, compressed: &[u8], size: u64, limit: usize) -> Result<AlignedBuf> {
    decompress_to(algorithm, compressed, size, limit, AlignedBuf::stale)
}

/// As [`decompress`], to a buffer of the length that `room` is asked for.
pub(crate) fn decompress_to(
    algorithm: Algorithm,
    compressed: &[u8],
    size: u64,
    limit: usize,
    room: Room,
) -> Result<AlignedBuf> {
    let wrong = |expected: Text, found: String| Error::Decode {
        codec: algorithm.name(),
        place: "declared size".into(),
        expected,
        found,
    };
    let allowed = usize::try_from(size).ok().filter(|size| *size <= limit);
    let Some(length) = allowed else {
        return Err(wrong(format!("at most {limit} bytes (max_value_bytes)").into(), format!("{size} bytes")));
    };
    if size > algorithm.longest_output(compressed.len()) {
        let expected = format!("a size that {} compressed bytes can become", compressed.len());
        return Err(wrong(expected.into(), format!("{size} bytes")));
    }
    let mut out = room(length)?;
    let written = match algorithm {
        Algorithm::Lz4 => {
            lz4_flex::block::decompress_into(compressed, out.as_mut_slice()).map_err(|error| error.to_string())
        }
        Algorithm::Zstd => zstd::bulk::Decompressor::new()
            .and_then(|mut decompressor| decompressor.decompress_to_buffer(compressed, out.as_mut_slice()))
            .map_err(|error| error.to_string()),
    };
    match written {
        Ok(written) if written == length => Ok(out),
        other => Err(Error::Decode {
            codec: algorithm.name(),
            place: "compressed payload".into(),
            expected: format!("data that becomes the declared {length} bytes").into(),
            found: other.map_or_else(|error| error, |written| format!("{written} bytes")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{ALIGN, pool};
    use proptest::prelude::*;

    fn refused(algorithm: Algorithm, compressed: &[u8], size: u64, limit: usize) -> String {
        match decompress(algorithm, compressed, size, limit) {
            Err(error @ Error::Decode { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Bytes of which a part repeats.
    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop::collection::vec(any::<u8>(), 0..40), 0usize..400);
        prop::collection::vec(part, 0..12)
            .prop_map(|parts| parts.into_iter().flat_map(|(bytes, times)| bytes.repeat(times)).collect())
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back_aligned(payload in payloads(), how in 0usize..6) {
            let how = ["lz4", "zstd", "zstd:3", "zstd:9", "zstd:22", "auto"][how].parse::<Compression>().expect("known");
            if let Some((algorithm, compressed)) = how.compress(&payload).expect("memory") {
                prop_assert!(compressed.len() < payload.len());
                let back = decompress(algorithm, compressed.as_slice(), payload.len() as u64, payload.len()).expect("own");
                prop_assert_eq!(back.as_slice(), payload.as_slice());
                prop_assert_eq!(back.as_slice().as_ptr().addr() % ALIGN, 0);
                let other = payload.len() as u64 + 1;
                refused(algorithm, compressed.as_slice(), other, 1 << 20);
                refused(algorithm, compressed.as_slice(), other - 2, 1 << 20);
            }
        }

        #[test]
        fn damaged_data_is_an_error_or_has_the_declared_size(
            payload in payloads(), zstd: bool, edits in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut: usize,
        ) {
            let method = if zstd { Method::Zstd(1) } else { Method::Lz4 };
            let mut data = method.run(&payload, AlignedBuf::stale).expect("memory").as_slice().to_vec();
            for (at, byte) in edits {
                let at = at % data.len();
                data[at] = byte;
            }
            data.truncate(if cut % 2 == 0 { cut % (data.len() + 1) } else { data.len() });
            match decompress(method.algorithm(), &data, payload.len() as u64, 1 << 20) {
                Ok(out) => prop_assert_eq!(out.len(), payload.len()),
                Err(error) => prop_assert!(matches!(error, Error::Decode { .. }), "{error}"),
            }
        }

        #[test]
        fn any_bytes_are_data_or_an_error(data in prop::collection::vec(any::<u8>(), 0..200), size in 0u64..3000) {
            for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
                if let Ok(out) = decompress(algorithm, &data, size, 2000) {
                    prop_assert_eq!(out.len() as u64, size);
                }
            }
        }
    }

    #[test]
    fn a_declared_size_is_checked_before_it_is_allocated() {
        for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
            assert!(refused(algorithm, &[0; 1000], u64::MAX, usize::MAX).contains("1000 compressed bytes can become"));
            assert!(refused(algorithm, &[0; 1000], 1 << 32, 1 << 30).contains("at most 1073741824 bytes"));
            assert!(refused(algorithm, &[], 1, 100).contains("0 compressed bytes"));
        }
        // A block has a token at least; Zstandard takes no frames for nothing.
        assert!(refused(Algorithm::Lz4, &[], 0, 100).contains("found"));
    }

    #[test]
    fn no_data_expands_further_than_the_bounds_say() {
        const LEN: usize = 64 << 20;
        for (method, least) in [(Method::Lz4, 250), (Method::Zstd(1), 20_000)] {
            let compressed = method.run(&vec![0; LEN], AlignedBuf::stale).expect("memory");
            assert!(LEN / compressed.len() >= least, "{} bytes", compressed.len());
            assert!(method.algorithm().longest_output(compressed.len()) >= LEN as u64);
            assert_eq!(decompress(method.algorithm(), compressed.as_slice(), LEN as u64, LEN).expect("own").len(), LEN);
        }
        pool::trim();
    }

    #[test]
    fn what_does_not_get_smaller_is_kept() {
        let (noise, zeros) = (noise(300_000), vec![0; 300_000]);
        for how in ["lz4", "zstd", "auto"] {
            let how: Compression = how.parse().expect("known");
            assert!(how.compress(&noise).expect("memory").is_none());
            assert!(how.compress(b"").expect("memory").is_none());
            assert!(how.compress(b"x").expect("memory").is_none());
            assert!(how.compress(&zeros).expect("memory").is_some());
        }
        assert!(Compression::None.compress(&zeros).expect("memory").is_none());
    }

    #[test]
    fn auto_wants_a_tenth_of_the_sample_and_of_all() {
        let noise = noise(4 << 20);
        let with_zeros = |share: usize| {
            // Every 4096 bytes alike, so that the sample is like the whole.
            let mut payload = noise.clone();
            payload.chunks_mut(4096).for_each(|chunk| chunk[..share].fill(0));
            payload
        };
        let kept = |payload: &[u8]| Compression::Auto.compress(payload).expect("memory").is_none();
        assert!(kept(&with_zeros(300)));
        assert!(!kept(&with_zeros(600)));
        let saved = |payload: &[u8]| Compression::Lz4.compress(payload).expect("memory").is_some();
        assert!(saved(&with_zeros(300)));
        // Zeros where no piece of the sample is: the sample alone decides.
        let mut hidden = noise.clone();
        hidden[200_000..250_000].fill(0);
        assert!(sample_is_worth_it(&with_zeros(600), AlignedBuf::stale).expect("memory"));
        assert!(!sample_is_worth_it(&hidden, AlignedBuf::stale).expect("memory"));
        // A sample that is worth it in a payload that is not.
        let mut front = noise;
        let step = (front.len() - SAMPLE / PIECES) / (PIECES - 1);
        (0..PIECES).for_each(|piece| front[piece * step..][..SAMPLE / PIECES].fill(0));
        assert!(sample_is_worth_it(&front, AlignedBuf::stale).expect("memory"));
        assert!(kept(&front));
    }

    #[test]
    fn other_names_and_levels_are_refused() {
        for (text, found) in [
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd(ZSTD_DEFAULT)),
            ("zstd:22", Compression::Zstd(22)),
            ("zstd:1", Compression::Zstd(1)),
            ("auto", Compression::Auto),
        ] {
            assert_eq!(text.parse::<Compression>().expect("valid"), found);
        }
        for text in [
            "", "none", "LZ4", "lz4:1", "gzip", "zstd:", "zstd:23", "zstd:0", "zstd:-1", "zstd:+1", "zstd:01",
            "zstd:1.0",
        ] {
            let error = text.parse::<Compression>().expect_err(text).to_string();
            assert!(error.contains("'zstd:LEVEL' with a level from 1 to 22") && error.contains(&format!("{text:?}")));
        }
        assert_eq!(Algorithm::from_name("none"), None);
    }
}
