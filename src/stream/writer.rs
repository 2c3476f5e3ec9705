//! Writing: chunks as they fill, in parallel, then the index.

use super::chunk::{Packed, Packing, Plain};
use super::index::Index;
use super::{Access, END, END_MAGIC, MAX_INDEX, StreamOptions};
use crate::buffer::{ALIGN, AlignedBuf};
use crate::crypto::{Part, STREAM_TAG, Times};
use crate::error::{Error, Result};
use crate::fork;
use crate::frame::{self, Header};
use crate::memory::{Permit, StreamingProcessor, SubmitError, WorkerPool};
use std::io::{self, Write};
use std::sync::Arc;
use std::task::Poll;

/// Writes a stream to `out`, front to back.
///
/// What is written with [`Write`] is the payload. Only [`Self::finish`] makes a stream of it: one that was not finished has
/// no index, and no reader takes it. Dropping the writer ends its threads; after an error nothing more is written.
pub struct StreamWriter<W: Write> {
    out: W,
    pool: WorkerPool<Plain, Result<Packed>>,
    packing: Arc<Packing>,
    /// The chunk that fills.
    filling: AlignedBuf,
    index: Index,
    next: u64,
    written: u64,
    /// An error stopped it.
    stopped: bool,
    /// The process that started it. Another one would seal other chunks under the same nonces.
    generation: u64,
    budget: Arc<StreamingProcessor>,
    /// Of the chunk that fills.
    _permit: Permit,
}

/// What [`StreamWriter::finish`] says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of payload.
    pub payload: u64,
    /// Bytes of the stream, header, chunks and index.
    pub written: u64,
    /// How many chunks there are.
    pub chunks: u64,
    /// The most bytes that chunks in progress took at a time.
    pub peak_memory_bytes: usize,
}

impl<W: Write> StreamWriter<W> {
    /// Starts a stream for `key`, and writes its header. `header` is that of the payload; the key is added to it.
    ///
    /// # Errors
    /// [`Error::Argument`] for options, key or tenant that cannot be; [`Error::TooLarge`] where other streams have all of
    /// the budget; [`Error::Io`], [`Error::Memory`].
    pub fn new(
        mut out: W,
        key: &str,
        header: Header,
        times: Times,
        access: Access<'_>,
        options: &StreamOptions,
    ) -> Result<Self> {
        options.check()?;
        let header = Header { key: Some(key.to_owned()), ..header };
        let (start, sealing) = match access {
            Access::Sealed { keyring, tenant } => {
                let sealing = keyring.begin_stream(tenant, &keyring.name(tenant, key)?, times)?;
                (sealing.start(), Some(Arc::new(sealing)))
            }
            Access::Plain => {
                let outer = Header { created: times.created, until: times.until, ..Header::new(super::CODEC) };
                (frame::prefix(&Header { key: header.key.clone(), ..outer }.to_json(), ALIGN, 0)?, None)
            }
        };
        let packing = Arc::new(Packing { compression: options.compression, key: sealing });
        let (chunk, cost) = (options.chunk_size + options.chunk_size / 4, packing.cost_of(options.chunk_size));
        let budget = options.part(chunk + cost)?;
        let permit = budget.acquire(chunk)?;
        let pool = WorkerPool::shared(options.workers, Arc::clone(&budget), Arc::clone(&packing));
        let index = Index::new(header, options.chunk_size, options.compression.algorithm(), packing.key.is_some());
        let filling = packing.buffer(options.chunk_size)?;
        write_to(&mut out, &start)?;
        let written = start.len() as u64;
        Ok(Self {
            out,
            pool,
            packing,
            filling,
            index,
            next: 0,
            written,
            stopped: false,
            generation: fork::generation(),
            budget,
            _permit: permit,
        })
    }

    /// Bytes of payload that were taken so far.
    pub fn payload(&self) -> u64 {
        self.next * self.index.chunk_size as u64 + self.filling.len() as u64
    }

    /// Takes more of the payload; returns when as much of it is written as the budget asks for.
    ///
    /// # Errors
    /// [`Error::Io`] of `out`, [`Error::Memory`], [`Error::Panicked`], [`Error::TooLarge`] for a payload whose index would
    /// be longer than [`MAX_INDEX`]. Afterwards, nothing more is taken.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.guarded(|writer| writer.fill(bytes))
    }

    /// Writes what is left and the index; returns `out`, which has the whole stream now.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self) -> Result<(W, Summary)> {
        self.guarded(Self::complete)?;
        let summary = Summary {
            payload: self.index.payload,
            written: self.written,
            chunks: self.index.chunks() as u64,
            peak_memory_bytes: self.budget.stats().peak_memory_bytes,
        };
        Ok((self.out, summary))
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.stopped {
            return Err(Error::io("write", "stream", io::Error::other("an earlier write failed")));
        }
        if self.generation != fork::generation() {
            return Err(Error::io("write", "stream", io::Error::other("another process started it; fork before that")));
        }
        // Also where `work` panics.
        self.stopped = true;
        work(self).inspect_err(|_| self.pool.cancel())?;
        self.stopped = false;
        Ok(())
    }

    fn fill(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.filling.len() == self.index.chunk_size {
                // More follows: it is not the last one.
                self.submit(false)?;
            }
            let room = self.index.chunk_size - self.filling.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.filling.extend_from_slice(now)?;
            bytes = later;
        }
        Ok(())
    }

    fn submit(&mut self, last: bool) -> Result<()> {
        let fresh = if last { AlignedBuf::default() } else { self.packing.buffer(self.index.chunk_size)? };
        let bytes = std::mem::replace(&mut self.filling, fresh);
        let mut submitted = self.pool.submit(Plain { number: self.next, last, bytes });
        self.next += 1;
        while let Err(SubmitError::Full(chunk)) = submitted {
            // The budget is this stream's own, and has room for a chunk when none is in progress.
            if let Some(packed) = self.pool.recv_ordered() {
                self.emit(packed??)?;
            }
            submitted = self.pool.submit(chunk);
        }
        if let Err(SubmitError::TooLarge { cost, limit, .. }) = submitted {
            return Err(Error::TooLarge { place: "chunk (budget of streams)", bytes: cost, limit });
        }
        while let Poll::Ready(Some(packed)) = self.pool.try_recv_ordered() {
            self.emit(packed??)?;
        }
        Ok(())
    }

    fn emit(&mut self, packed: Packed) -> Result<()> {
        const MOST: usize = (MAX_INDEX - frame::MAX_HEADER - 1024) / 12;
        if self.index.chunks() >= MOST {
            let bytes = usize::try_from(self.index.payload).unwrap_or(usize::MAX);
            return Err(Error::TooLarge {
                place: "stream (chunks of an index)",
                bytes,
                limit: MOST * self.index.chunk_size,
            });
        }
        write_to(&mut self.out, packed.bytes.as_slice())?;
        self.written += u64::from(packed.entry.stored);
        self.index.push(packed.payload, packed.entry);
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        if !self.filling.is_empty() {
            self.submit(true)?;
        }
        while let Some(packed) = self.pool.recv_ordered() {
            self.emit(packed??)?;
        }
        let mut end = self.index.to_bytes();
        match &self.packing.key {
            Some(key) => {
                let tag = key.seal(Part::Index, &mut end)?;
                end.extend_from_slice(&tag);
            }
            None => end.extend_from_slice(&xxhash_rust::xxh3::xxh3_128(&end).to_be_bytes()),
        }
        let length = end.len() as u64;
        end.extend_from_slice(&length.to_be_bytes());
        end.extend_from_slice(END_MAGIC);
        write_to(&mut self.out, &end)?;
        self.written += length + END as u64;
        self.out.flush().map_err(|source| Error::io("write", "stream", source))
    }
}

fn write_to(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    // What the destination's own error was, where that is one of this crate.
    let failed = |source: io::Error| source.downcast().unwrap_or_else(|source| Error::io("write", "stream", source));
    out.write_all(bytes).map_err(failed)
}

/// Takes the payload; errors are those of [`StreamWriter::push`].
impl<W: Write> Write for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.push(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Does nothing: a chunk is written when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const _: () = assert!(STREAM_TAG == size_of::<u128>());
