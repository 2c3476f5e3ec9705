//! Finished frames and slices of them: shared and immutable.
#![allow(unsafe_code)]

use super::AlignedBuf;
use super::small::{self, Room};
use crate::error::{Error, Result};
use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory that a [`FrameBuf`] may stand on.
///
/// # Safety
/// As long as the value lives, `bytes` returns the same slice at the same address, and nobody can write to it.
/// Dropping the last reference must be sound on any thread.
pub unsafe trait FrameMemory: Send + Sync {
    /// The memory.
    fn bytes(&self) -> &[u8];
}

// SAFETY: the buffer moves into an `Arc` whole; no mutable reference to it is made again.
unsafe impl FrameMemory for AlignedBuf {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

/// A read-only mapping of a blob that this crate published: such files are never changed or truncated.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps all of `file`.
    ///
    /// # Safety
    /// Nobody changes or truncates the file while it is mapped. The store upholds this for its blobs: it writes them
    /// to a temporary name, renames them and never touches them again, in a directory that only its user can write.
    ///
    /// # Errors
    /// The system's.
    pub unsafe fn new(file: &std::fs::File) -> std::io::Result<Self> {
        // SAFETY: the caller's guarantee.
        unsafe { memmap2::MmapOptions::new().map(file) }.map(Self)
    }
}

// SAFETY: `new`'s guarantee.
unsafe impl FrameMemory for Mapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where a frame's bytes come from, and with it how much is checked before they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anywhere: everything is validated.
    Foreign,
    /// Written by this process or read from a directory only its user can write: what serves as an address (bounds,
    /// offsets, indices) is validated.
    Trusted,
}

/// A finished frame or a slice of one. Cloning and slicing share the memory.
///
/// ```
/// use framecache::buffer::{AlignedBuf, FrameBuf, Origin};
/// let mut buffer = AlignedBuf::default();
/// buffer.extend_from_slice(b"header payload")?;
/// let frame = FrameBuf::from_aligned(buffer, Origin::Trusted);
/// let payload = frame.slice(7..)?;
/// assert_eq!(&*payload, b"payload");
/// assert_eq!(payload.as_ptr(), frame[7..].as_ptr());
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Clone)]
pub struct FrameBuf {
    #[expect(dead_code, reason = "holding it is its use")]
    memory: Arc<dyn FrameMemory>,
    /// Points into `memory`.
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
    mapped: bool,
    copied: bool,
}

// SAFETY: `start` points into `memory`, which is `Send`, immutable and kept alive.
unsafe impl Send for FrameBuf {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for FrameBuf {}
// What a panic interrupts cannot leave immutable memory half changed.
impl std::panic::RefUnwindSafe for FrameBuf {}
impl std::panic::UnwindSafe for FrameBuf {}

impl FrameBuf {
    /// A frame over any memory that keeps [`FrameMemory`]'s promise.
    pub fn new(memory: Arc<dyn FrameMemory>, origin: Origin) -> Self {
        let (start, len) = (NonNull::from(memory.bytes()).cast(), memory.bytes().len());
        Self { memory, start, len, origin, mapped: false, copied: false }
    }

    /// The frame that was built in `buffer`.
    pub fn from_aligned(buffer: AlignedBuf, origin: Origin) -> Self {
        Self::new(Arc::new(buffer), origin)
    }

    /// As [`Self::from_aligned`], of a frame that starts at `start`, which is in `buffer`.
    pub(crate) fn from_aligned_at(buffer: AlignedBuf, start: usize, origin: Origin) -> Self {
        let whole = Self::from_aligned(buffer, origin);
        let part = NonNull::from(&whole[start..]);
        Self { start: part.cast(), len: part.len(), ..whole }
    }

    /// A trusted frame that `fill` writes, given uninitialized room for `size` bytes at a multiple of 64. It returns which of
    /// them are the frame. With `plaintext` they are wiped when the frame goes, or `fill` fails.
    ///
    /// # Safety
    /// When `fill` returns `Ok`, it has written all bytes up to the end of the part that it returns, which is in the room.
    ///
    /// # Errors
    /// [`Error::Memory`] where the room cannot be had, and those of `fill`.
    #[inline(always)]
    pub(crate) unsafe fn filled(
        size: usize,
        plaintext: bool,
        fill: impl FnOnce(NonNull<u8>) -> Result<Range<usize>>,
    ) -> Result<Self> {
        let (origin, mapped, copied) = (Origin::Trusted, false, false);
        if size <= small::LARGEST {
            let mut room = Room::new(size, plaintext);
            let part = fill(room.start)?;
            // SAFETY: the caller's guarantee.
            let start = unsafe {
                room.set_written(part.clone());
                room.start.add(part.start)
            };
            return Ok(Self { memory: room.memory, start, len: part.len(), origin, mapped, copied });
        }
        let mut buffer = if plaintext { AlignedBuf::plaintext(size)? } else { AlignedBuf::with_capacity(size)? };
        let mut part = 0..0;
        // SAFETY: the caller's guarantee.
        unsafe {
            buffer.extend_to(|room| {
                part = fill(room)?;
                Ok::<_, Error>(part.end)
            })?;
        }
        Ok(Self::from_aligned_at(buffer, part.start, origin))
    }

    /// The frame that a mapped file holds.
    pub fn from_mapping(mapping: Arc<Mapping>, origin: Origin) -> Self {
        Self { mapped: true, ..Self::new(mapping, origin) }
    }

    /// A frame over a copy of `bytes`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn copy_of(bytes: &[u8], origin: Origin) -> Result<Self> {
        let mut buffer = AlignedBuf::with_capacity(bytes.len())?;
        buffer.extend_from_slice(bytes)?;
        Ok(Self::from_aligned(buffer, origin).copied())
    }

    /// The same frame, recorded as a copy of bytes that stood elsewhere.
    pub fn copied(self) -> Self {
        Self { copied: true, ..self }
    }

    /// A part of it, sharing the memory.
    ///
    /// # Errors
    /// [`Error::Argument`] where the range leaves the frame.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Self> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len,
        };
        match self.get(start..end) {
            Some(part) => Ok(Self { start: NonNull::from(part).cast(), len: part.len(), ..self.clone() }),
            None => Err(Error::Argument {
                argument: "range",
                expected: format!("a range inside 0..{}", self.len).into(),
                found: format!("{start}..{end}"),
            }),
        }
    }

    /// Where the bytes come from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether they are a mapped file's.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Whether they were copied to get here: false for mapped files, finished builders and `bytes` objects.
    pub fn is_copy(&self) -> bool {
        self.copied
    }
}

impl Deref for FrameBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `len` describe a part of `memory`, which lives as long as `self` and never changes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuf")
            .field("len", &self.len)
            .field("origin", &self.origin)
            .field("mapped", &self.mapped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_the_memory_and_its_address() {
        let frame = FrameBuf::copy_of(b"0123456789", Origin::Foreign).expect("memory");
        let address = frame.as_ptr();
        let part = frame.slice(2..=4).expect("inside").slice(1..).expect("inside");
        drop(frame);
        assert_eq!(&*part, b"34");
        assert_eq!(part.as_ptr(), address.wrapping_add(3));
    }

    #[test]
    fn a_range_outside_is_an_error() {
        let frame = FrameBuf::copy_of(b"abc", Origin::Foreign).expect("memory");
        assert!(matches!(frame.slice(2..9), Err(Error::Argument { .. })));
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = frame.slice(3..2);
        assert!(matches!(reversed, Err(Error::Argument { .. })));
        assert_eq!(frame.slice(3..).map(|part| part.len()).ok(), Some(0));
    }

    #[test]
    fn the_empty_frame_is_aligned_too() {
        let empty = FrameBuf::from_aligned(AlignedBuf::default(), Origin::Foreign);
        assert_eq!((empty.len(), empty.as_ptr().addr() % super::super::ALIGN), (0, 0));
    }
}
