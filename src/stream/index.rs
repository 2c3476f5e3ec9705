//! The index of a stream: what its payload is, and where each chunk stands.

use super::CHUNKS;
use crate::compress::Algorithm;
use crate::crypto::STREAM_TAG;
use crate::frame::Header;
use std::ops::Range;

/// The longest index that is read: 64 MiB.
pub const MAX_INDEX: usize = 64 << 20;

const VERSION: u8 = 1;
/// Bytes before the header in it.
const FIXED: usize = 28;
/// Marks the length of a compressed chunk.
const COMPRESSED: u32 = 1 << 31;

/// What is wrong with an index: what was expected, and what was found.
pub type Fault = (&'static str, String);

/// A chunk as it stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its bytes, tag and all.
    pub(super) stored: u32,
    pub(super) compressed: bool,
    /// XXH3-64 of its bytes; 0 in a sealed stream.
    pub(super) checksum: u64,
}

/// Number, lengths and kinds of the chunks, and the payload's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// The header of the payload: its codec, the key it was stored under, what Python needs.
    pub header: Header,
    /// Bytes of payload.
    pub payload: u64,
    /// Bytes of payload in each chunk but the last.
    pub chunk_size: usize,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) sealed: bool,
    pub(super) entries: Vec<Entry>,
    /// Where each chunk starts, from the first one on, and where the last one ends.
    starts: Vec<u64>,
}

impl Index {
    /// An index without chunks.
    pub(super) fn new(header: Header, chunk_size: usize, algorithm: Option<Algorithm>, sealed: bool) -> Self {
        Self { header, payload: 0, chunk_size, algorithm, sealed, entries: Vec::new(), starts: vec![0] }
    }

    /// Appends a chunk of `payload` bytes.
    pub(super) fn push(&mut self, payload: usize, entry: Entry) {
        self.payload += payload as u64;
        self.entries.push(entry);
        self.starts.push(self.stored() + u64::from(entry.stored));
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all chunks as they stand in the stream.
    pub(super) fn stored(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Where chunk `number` stands, from the first one on.
    pub(super) fn place(&self, number: usize) -> Range<u64> {
        self.starts[number]..self.starts[number + 1]
    }

    /// Bytes of payload in chunk `number`.
    pub(super) fn length(&self, number: usize) -> usize {
        let left = self.payload - number as u64 * self.chunk_size as u64;
        // At most a chunk.
        left.min(self.chunk_size as u64) as usize
    }

    /// Whether the payload stands in the stream as it is.
    pub(super) fn is_plain(&self) -> bool {
        !self.sealed && self.entries.iter().all(|entry| !entry.compressed)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = self.header.to_json();
        let mut out = Vec::with_capacity(FIXED + header.len() + self.entries.len() * 12);
        let algorithm = match self.algorithm {
            None => 0,
            Some(Algorithm::Lz4) => 1,
            Some(Algorithm::Zstd) => 2,
        };
        out.extend_from_slice(&[VERSION, algorithm, 0, 0]);
        // At most 64 MiB, and at most a header.
        out.extend_from_slice(&(self.chunk_size as u32).to_be_bytes());
        out.extend_from_slice(&self.payload.to_be_bytes());
        out.extend_from_slice(&(self.entries.len() as u64).to_be_bytes());
        out.extend_from_slice(&(header.len() as u32).to_be_bytes());
        out.extend_from_slice(&header);
        for entry in &self.entries {
            let mark = if entry.compressed { COMPRESSED } else { 0 };
            out.extend_from_slice(&(entry.stored | mark).to_be_bytes());
            if !self.sealed {
                out.extend_from_slice(&entry.checksum.to_be_bytes());
            }
        }
        out
    }

    /// Reads the index of a stream, without tag or checksum. Allocates no more than a few times its length.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn parse(bytes: &[u8], sealed: bool) -> Result<Self, Fault> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
            return Err(("an index of 28 bytes or more", format!("{} bytes", bytes.len())));
        };
        let algorithm = match fixed[..4] {
            [VERSION, 0, 0, 0] => None,
            [VERSION, 1, 0, 0] => Some(Algorithm::Lz4),
            [VERSION, 2, 0, 0] => Some(Algorithm::Zstd),
            _ => return Err(("an index of version 1, not compressed or by lz4 or zstd", format!("{:?}", &fixed[..4]))),
        };
        let number = |range: Range<usize>| fixed[range].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let (chunk_size, payload, chunks) = (number(4..8), number(8..16), number(16..24));
        let chunk_size = usize::try_from(chunk_size).ok().filter(|size| CHUNKS.contains(size) && size % 64 == 0);
        let chunk_size =
            chunk_size.ok_or_else(|| ("chunks of 4 KiB to 64 MiB, in steps of 64", number(4..8).to_string()))?;
        if payload.div_ceil(chunk_size as u64) != chunks {
            return Err(("as many chunks as the payload fills", format!("{chunks} for {payload} bytes")));
        }
        let header = usize::try_from(number(24..28)).ok().and_then(|length| rest.split_at_checked(length));
        let (header, entries) = header.ok_or_else(|| ("a header inside the index", format!("{}", number(24..28))))?;
        let header = Header::parse(header).map_err(|error| ("a header", error.to_string()))?;
        let width = if sealed { 4 } else { 12 };
        if entries.len() as u64 != chunks.saturating_mul(width as u64) {
            return Err(("an entry for each chunk", format!("{} bytes for {chunks} chunks", entries.len())));
        }
        let mut index = Self::new(header, chunk_size, algorithm, sealed);
        for entry in entries.chunks_exact(width) {
            let plain = (payload - index.payload).min(chunk_size as u64) as usize;
            let entry = index.entry(entry, plain)?;
            index.push(plain, entry);
        }
        Ok(index)
    }

    /// The next entry, of a chunk of `plain` bytes of payload.
    fn entry(&self, bytes: &[u8], plain: usize) -> Result<Entry, Fault> {
        let (length, checksum) = bytes.split_at(4);
        let length = length.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let checksum = checksum.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let entry = Entry { stored: length & !COMPRESSED, compressed: length & COMPRESSED != 0, checksum };
        let content = (entry.stored as usize).checked_sub(if self.sealed { STREAM_TAG } else { 0 });
        let possible = match content {
            Some(content) if entry.compressed => content > 0 && content < plain && self.algorithm.is_some(),
            content => content == Some(plain),
        };
        if possible {
            return Ok(entry);
        }
        let found = format!("{} bytes for the {plain} of chunk {}", entry.stored, self.entries.len());
        Err(("a length that the chunk can have", found))
    }
}
