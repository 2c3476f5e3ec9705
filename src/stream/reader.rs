//! Reading: the index, then chunks: from the start, ahead of the reader, or from anywhere.

use super::chunk::Chunks;
use super::index::Index;
use super::{Access, CODEC, END, END_MAGIC, MAX_INDEX, StreamOptions};
use crate::buffer::{AlignedBuf, FrameBuf};
use crate::crypto::{Part, STREAM_TAG, Times};
use crate::error::{Error, Refusal, Result};
use crate::frame::{self, Header};
use crate::memory::WorkerPool;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The first of consecutive chunks at which reading ahead begins: a range of up to a chunk's size lies in two.
const READ_AHEAD_FROM: usize = 3;
/// How many chunks are read ahead for each worker.
const AHEAD: usize = 4;

/// Reads a stream that stands in memory or in a mapped file.
///
/// [`Read`] and [`Seek`] go through the payload with a position; who goes on to a third chunk is read ahead, as far as the
/// budget goes. [`Self::read_at`] and [`Self::slice`] take any part of it. What is sealed is never returned
/// before its tag was found right.
pub struct StreamReader {
    chunks: Arc<Chunks>,
    times: Times,
    pool: WorkerPool<usize, Result<FrameBuf>>,
    workers: usize,
    position: u64,
    /// The last chunk that was read, with its number.
    last: Mutex<Option<(usize, FrameBuf)>>,
    /// Chunks that workers have or will have.
    ahead: Range<usize>,
    /// Chunks that were read one after the other, the last one among them.
    run: usize,
}

impl StreamReader {
    /// Opens the stream of `key` that `frame` is; reads its header and its index.
    ///
    /// # Errors
    /// [`Error::Refused`] for anything but the sealed stream of that key, as it was sealed, where `access` says that it is
    /// sealed; [`Error::Frame`] for what is no stream, where it is not; [`Error::TooLarge`] where other streams have all of
    /// the budget; [`Error::Memory`].
    pub fn open(frame: FrameBuf, key: &str, access: Access<'_>, options: &StreamOptions) -> Result<Self> {
        let (chunks, times) = match access {
            Access::Sealed { keyring, tenant } => {
                let (stream, start) = keyring.open_stream(tenant, key, &frame)?;
                let (times, stored) = (stream.times, locate_index(&frame, start).map_err(truncated)?);
                let mut index = AlignedBuf::stale_plaintext(stored.len() - STREAM_TAG)?;
                stream.open(Part::Index, &frame[stored.clone()], index.as_mut_slice())?;
                let index = Index::parse(index.as_slice(), true).map_err(changed)?;
                check_lengths(&index, stored.start - start).map_err(|(reason, found)| Error::Refused {
                    reason,
                    expected: format!("{} bytes of chunks, as the index says", index.stored()).into(),
                    found,
                })?;
                if index.header.key.as_deref() != Some(key) {
                    let expected = "the key that was asked for inside".into();
                    return Err(Error::Refused {
                        reason: Refusal::WrongEntry,
                        expected,
                        found: "another one".to_owned(),
                    });
                }
                (Chunks { frame, start, index, key: Some(stream) }, times)
            }
            Access::Plain => open_plain(frame, key)?,
        };
        let chunks = Arc::new(chunks);
        let most = (0..chunks.index.chunks()).map(|number| crate::memory::Work::cost(&*chunks, &number)).max();
        let budget = options.part(most.unwrap_or(0).max(1))?;
        let pool = WorkerPool::shared(options.workers, budget, Arc::clone(&chunks));
        Ok(Self {
            chunks,
            times,
            pool,
            workers: options.workers,
            position: 0,
            last: Mutex::new(None),
            ahead: 0..0,
            run: 0,
        })
    }

    /// What the index says.
    pub fn index(&self) -> &Index {
        &self.chunks.index
    }

    /// When it was written and until when it may be served.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Bytes of payload.
    pub fn len(&self) -> u64 {
        self.chunks.index.payload
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of the payload where it stands, if it stands there as it is: not sealed, and no chunk compressed.
    pub fn as_plain(&self) -> Option<FrameBuf> {
        let chunks = &self.chunks;
        let end = chunks.start + usize::try_from(chunks.index.stored()).ok()?;
        chunks.index.is_plain().then(|| chunks.frame.slice(chunks.start..end).ok()).flatten()
    }

    /// Reads from `offset` on until `out` is full or the payload ends; returns how many bytes that were. The position
    /// stays.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Decode`], [`Error::Memory`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < out.len() && offset + (filled as u64) < self.len() {
            let (number, from) = self.place(offset + filled as u64);
            let chunk = self.chunk(number)?;
            let count = (chunk.len() - from).min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&chunk[from..from + count]);
            filled += count;
        }
        Ok(filled)
    }

    /// As [`Self::read_at`], all of `out`.
    ///
    /// # Errors
    /// As [`Self::read_at`], and [`Error::Argument`] where the payload ends before.
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.read_at(offset, out)? {
            count if count == out.len() => Ok(()),
            _ => Err(self.outside(offset, out.len())),
        }
    }

    /// A part of the payload: where it stands, if it stands there as it is; the chunk's own memory, if it lies in one; a
    /// copy else.
    ///
    /// # Errors
    /// As [`Self::read_exact_at`].
    pub fn slice(&self, offset: u64, len: usize) -> Result<FrameBuf> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len());
        let end = end.ok_or_else(|| self.outside(offset, len))?;
        if let Some(plain) = self.as_plain() {
            return plain.slice(offset as usize..end as usize);
        }
        let (number, from) = self.place(offset);
        if len > 0 && self.place(end - 1).0 == number {
            return self.chunk(number)?.slice(from..from + len);
        }
        let sealed = self.chunks.key.is_some();
        let mut out = if sealed { AlignedBuf::stale_plaintext(len)? } else { AlignedBuf::stale(len)? };
        self.read_exact_at(offset, out.as_mut_slice())?;
        Ok(FrameBuf::from_aligned(out, self.chunks.frame.origin()).copied())
    }

    /// Reads these ranges of the payload, in rising order, and the chunks in which they lie in parallel; gives what each
    /// chunk has of each range to `sink`, with its offset in the payload.
    ///
    /// # Errors
    /// As [`Self::read_exact_at`].
    pub fn gather(&mut self, ranges: &[Range<u64>], mut sink: impl FnMut(u64, &[u8])) -> Result<()> {
        if let Some(outside) = ranges.iter().find(|range| range.end > self.len()) {
            return Err(self.outside(outside.start, usize::try_from(outside.end - outside.start).unwrap_or(usize::MAX)));
        }
        let size = self.chunks.index.chunk_size as u64;
        let filled = ranges.iter().filter(|range| range.start < range.end);
        let mut numbers: Vec<_> =
            filled.flat_map(|range| (range.start / size) as usize..=((range.end - 1) / size) as usize).collect();
        numbers.dedup();
        self.stop_reading_ahead();
        let mut next = numbers.iter();
        self.pool.process(numbers.iter().copied().map(Ok::<_, Error>), |chunk| {
            let (chunk, start) = (chunk?, next.next().map_or(0, |number| *number as u64 * size));
            for range in ranges {
                let from = range.start.clamp(start, start + chunk.len() as u64);
                let to = range.end.clamp(from, start + chunk.len() as u64);
                if from < to {
                    sink(from, &chunk[(from - start) as usize..(to - start) as usize]);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Reads every chunk, and compares what there is of checksums and tags.
    ///
    /// # Errors
    /// Those of the first chunk that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        (0..self.chunks.index.chunks()).try_for_each(|number| self.chunks.verify(number))
    }

    /// What is left of the chunk at the position, which goes on to the next one; `None` at the end. Reads ahead from the
    /// third one on.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn next_chunk(&mut self) -> Result<Option<FrameBuf>> {
        if self.position >= self.len() {
            return Ok(None);
        }
        let (number, from) = self.place(self.position);
        let chunk = self.sequential(number)?;
        self.position += (chunk.len() - from) as u64;
        chunk.slice(from..).map(Some)
    }

    /// Chunk `number`, in this thread.
    fn chunk(&self, number: usize) -> Result<FrameBuf> {
        if let Some(found) = self.remembered(number) {
            return Ok(found);
        }
        let chunk = self.chunks.read(number)?;
        self.remember(number, &chunk);
        Ok(chunk)
    }

    /// Chunk `number` for who goes from one to the next.
    fn sequential(&mut self, number: usize) -> Result<FrameBuf> {
        if let Some(found) = self.remembered(number) {
            return Ok(found);
        }
        let follows = number > 0 && self.remembered(number - 1).is_some();
        self.run = if follows { self.run + 1 } else { 1 };
        // In a forked child nothing is on its way, whatever the parent had begun.
        if self.ahead.start != number || self.ahead.len() != self.pool.outstanding() {
            self.stop_reading_ahead();
        }
        if self.ahead.is_empty() {
            self.ahead = number..number;
            if self.run < READ_AHEAD_FROM {
                return self.chunk(number);
            }
            self.read_ahead();
        }
        let chunk = match self.pool.recv_ordered() {
            Some(chunk) => {
                self.ahead.start += 1;
                chunk.flatten().inspect_err(|_| self.stop_reading_ahead())?
            }
            None => self.chunks.read(number)?,
        };
        self.remember(number, &chunk);
        // The workers go on while the caller has this one.
        self.read_ahead();
        Ok(chunk)
    }

    fn read_ahead(&mut self) {
        let end = self.chunks.index.chunks().min(self.ahead.start + AHEAD * self.workers);
        while self.ahead.end < end && self.pool.submit(self.ahead.end).is_ok() {
            self.ahead.end += 1;
        }
    }

    fn stop_reading_ahead(&mut self) {
        if self.pool.outstanding() > 0 {
            self.pool.cancel();
        }
        self.ahead = 0..0;
    }

    fn remembered(&self, number: usize) -> Option<FrameBuf> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(remembered, _)| *remembered == number).map(|(_, chunk)| chunk.clone())
    }

    fn remember(&self, number: usize, chunk: &FrameBuf) {
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace((number, chunk.clone()));
        drop(before);
    }

    /// The chunk in which a byte of payload lies, and where in it.
    fn place(&self, offset: u64) -> (usize, usize) {
        let size = self.chunks.index.chunk_size as u64;
        ((offset / size) as usize, (offset % size) as usize)
    }

    fn outside(&self, offset: u64, len: usize) -> Error {
        let expected = format!("a range inside the {} bytes of payload", self.len()).into();
        Error::Argument { argument: "range", expected, found: format!("{len} bytes from {offset} on") }
    }
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader")
            .field("len", &self.len())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The payload from the position on; errors are those of [`StreamReader::read_at`].
impl Read for StreamReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() || self.position >= self.len() {
            return Ok(0);
        }
        let (number, from) = self.place(self.position);
        let chunk = self.sequential(number).map_err(io::Error::other)?;
        let count = (chunk.len() - from).min(out.len());
        out[..count].copy_from_slice(&chunk[from..from + count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for StreamReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a position before the start");
        self.position = position.ok_or_else(outside)?;
        Ok(self.position)
    }
}

/// What was expected, and what was found, at an offset.
type Misplaced = (usize, &'static str, String);

/// Where the index stands, its tag or checksum with it.
fn locate_index(frame: &[u8], start: usize) -> Result<Range<usize>, Misplaced> {
    let end = frame.len().checked_sub(END).filter(|end| *end >= start);
    let end = end.ok_or_else(|| (frame.len(), "the end of a stream", format!("{} bytes", frame.len())))?;
    match frame[end..].split_first_chunk::<8>() {
        Some((length, magic)) if magic == END_MAGIC => {
            let length = u64::from_be_bytes(*length);
            let index = usize::try_from(length).ok().filter(|length| (STREAM_TAG..=MAX_INDEX).contains(length));
            match index.and_then(|length| end.checked_sub(length)).filter(|index| *index >= start) {
                Some(index) => Ok(index..end),
                None => Err((end, "an index inside the stream, of at most 64 MiB", format!("{length} bytes"))),
            }
        }
        _ => Err((end, "the end of a stream, \"CKstream\"", "other bytes".to_owned())),
    }
}

/// Fails for chunks that do not fill the room before the index.
fn check_lengths(index: &Index, room: usize) -> Result<(), (Refusal, String)> {
    match (room as u64).cmp(&index.stored()) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err((Refusal::Truncated, format!("{room}"))),
        std::cmp::Ordering::Greater => Err((Refusal::Changed, format!("{room}"))),
    }
}

fn truncated((offset, expected, found): Misplaced) -> Error {
    Error::Refused {
        reason: Refusal::Truncated,
        expected: expected.into(),
        found: format!("{found} at offset {offset}"),
    }
}

fn changed((expected, found): super::index::Fault) -> Error {
    Error::Refused { reason: Refusal::ChangedHeader, expected: expected.into(), found }
}

fn open_plain(frame: FrameBuf, key: &str) -> Result<(Chunks, Times)> {
    let json = frame::locate_header(&frame)?;
    let outer = Header::parse(&frame[json.clone()])?;
    if outer.codec != CODEC {
        return Err(Error::frame(frame::PREFIX, "the codec 'stream'", format!("{:.40?}", outer.codec)));
    }
    let stored =
        locate_index(&frame, json.end).map_err(|(offset, expected, found)| Error::frame(offset, expected, found))?;
    let fault = |(expected, found): super::index::Fault| Error::frame(stored.start, expected, found);
    let checksum = match frame[stored.clone()].split_last_chunk::<STREAM_TAG>() {
        Some((bytes, checksum)) if xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes() == *checksum => bytes,
        _ => return Err(fault(("the index' checksum", "another one".to_owned()))),
    };
    let index = Index::parse(checksum, false).map_err(fault)?;
    check_lengths(&index, stored.start - json.end)
        .map_err(|(_, found)| fault(("chunks as long as the index says", format!("{found} bytes"))))?;
    if index.header.key.as_deref() != Some(key) {
        return Err(fault(("the key that was asked for", "another one".to_owned())));
    }
    let times = Times { created: outer.created, until: outer.until };
    Ok((Chunks { start: json.end, frame, index, key: None }, times))
}
