//! What is done to a chunk: compressed and sealed on its way in, opened and decompressed on its way out.

use super::index::{Entry, Index};
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::compress::{Compression, Room, decompress_to};
use crate::crypto::{Part, STREAM_TAG, StreamKey};
use crate::error::{Error, Result};
use crate::memory::{ScratchBuffers, Work};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A chunk of payload.
pub(super) struct Plain {
    pub(super) number: u64,
    pub(super) last: bool,
    pub(super) bytes: AlignedBuf,
}

/// A chunk as it will stand in the stream.
pub(super) struct Packed {
    /// Bytes of payload in it.
    pub(super) payload: usize,
    pub(super) entry: Entry,
    pub(super) bytes: AlignedBuf,
}

/// Compresses and seals.
pub(super) struct Packing {
    pub(super) compression: Compression,
    pub(super) key: Option<Arc<StreamKey>>,
}

impl Packing {
    /// The most that a chunk of `len` bytes takes while it is worked on.
    pub(super) fn cost_of(&self, len: usize) -> usize {
        // Blocks of the pool are up to a quarter larger than what they are for.
        let block = |bytes: usize| bytes + bytes / 4;
        block(len + STREAM_TAG) + block(self.compression.room_for(len) + STREAM_TAG)
    }

    /// An empty buffer for a chunk.
    pub(super) fn buffer(&self, len: usize) -> Result<AlignedBuf> {
        let room = len + STREAM_TAG;
        if self.key.is_some() { AlignedBuf::plaintext(room) } else { AlignedBuf::with_capacity(room) }
    }

    fn pack(&self, chunk: Plain) -> Result<Packed> {
        let payload = chunk.bytes.len();
        let room: Room = if self.key.is_some() { AlignedBuf::stale_plaintext } else { AlignedBuf::stale };
        let compressed = self.compression.compress_to(chunk.bytes.as_slice(), room)?;
        let (mut bytes, is_compressed) = match compressed {
            Some((_, compressed)) => (compressed, true),
            None => (chunk.bytes, false),
        };
        let checksum = match &self.key {
            None => xxh3_64(bytes.as_slice()),
            Some(key) => {
                bytes.reserve(STREAM_TAG)?;
                let part = Part::Chunk { number: chunk.number, last: chunk.last };
                let tag = key.seal(part, bytes.as_mut_slice())?;
                bytes.extend_from_slice(&tag)?;
                bytes.set_sealed();
                0
            }
        };
        // At most 64 MiB and a tag.
        let entry = Entry { stored: bytes.len() as u32, compressed: is_compressed, checksum };
        Ok(Packed { payload, entry, bytes })
    }
}

impl Work<Plain, Result<Packed>> for Packing {
    fn cost(&self, chunk: &Plain) -> usize {
        self.cost_of(chunk.bytes.len())
    }

    fn run(&self, chunk: Plain, _: &mut ScratchBuffers) -> Result<Packed> {
        self.pack(chunk)
    }
}

/// The chunks of a stream that is read.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) frame: FrameBuf,
    /// Where the first chunk starts.
    pub(super) start: usize,
    pub(super) index: Index,
    pub(super) key: Option<StreamKey>,
}

impl Chunks {
    /// The payload of chunk `number`: the frame's own bytes, where it is as it was.
    pub(super) fn read(&self, number: usize) -> Result<FrameBuf> {
        let entry = self.index.entries[number];
        let stored = self.stored(number)?;
        let length = self.index.length(number);
        let Some(key) = &self.key else {
            if !entry.compressed {
                return Ok(stored);
            }
            check(&stored, entry, number)?;
            let bytes = self.decompressed(&stored, length, AlignedBuf::stale)?;
            return Ok(FrameBuf::from_aligned(bytes, self.frame.origin()).copied());
        };
        let mut bytes = AlignedBuf::stale_plaintext(stored.len() - STREAM_TAG)?;
        let last = number + 1 == self.index.chunks();
        key.open(Part::Chunk { number: number as u64, last }, &stored, bytes.as_mut_slice())?;
        if entry.compressed {
            bytes = self.decompressed(bytes.as_slice(), length, AlignedBuf::stale_plaintext)?;
        }
        Ok(FrameBuf::from_aligned(bytes, Origin::Trusted).copied())
    }

    /// As [`Self::read`], with every checksum compared.
    pub(super) fn verify(&self, number: usize) -> Result<()> {
        if self.key.is_none() {
            check(&self.stored(number)?, self.index.entries[number], number)?;
        }
        self.read(number).map(drop)
    }

    fn stored(&self, number: usize) -> Result<FrameBuf> {
        let place = self.index.place(number);
        // Opening the stream has found that all chunks lie inside the frame.
        self.frame.slice(self.start + place.start as usize..self.start + place.end as usize)
    }

    fn decompressed(&self, bytes: &[u8], length: usize, room: Room) -> Result<AlignedBuf> {
        match self.index.algorithm {
            Some(algorithm) => decompress_to(algorithm, bytes, length as u64, self.index.chunk_size, room),
            // The index has no compressed chunk then.
            None => Err(Error::frame(self.start, "an algorithm for compressed chunks", "none")),
        }
    }
}

fn check(stored: &[u8], entry: Entry, number: usize) -> Result<()> {
    let found = xxh3_64(stored);
    if found == entry.checksum {
        return Ok(());
    }
    Err(Error::Decode {
        codec: super::CODEC,
        place: format!("chunk {number}"),
        expected: format!("bytes with checksum {:016x}", entry.checksum).into(),
        found: format!("{found:016x}"),
    })
}

impl Work<usize, Result<FrameBuf>> for Chunks {
    fn cost(&self, number: &usize) -> usize {
        let entry = self.index.entries[*number];
        let blocks = match (&self.key, entry.compressed) {
            (None, false) => 0,
            (None, true) | (Some(_), false) => self.index.length(*number),
            (Some(_), true) => self.index.length(*number) + entry.stored as usize,
        };
        // Blocks of the pool are up to a quarter larger than what they are for.
        blocks + blocks / 4
    }

    fn run(&self, number: usize, _: &mut ScratchBuffers) -> Result<FrameBuf> {
        self.read(number)
    }
}
