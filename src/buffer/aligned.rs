//! The growing buffer of a frame under construction.
#![allow(unsafe_code)]

use super::pool::{self, Block, Pool};
use crate::error::{Error, Result};
use std::io;
use std::ptr::NonNull;

/// Every buffer starts at a multiple of this: what Arrow recommends and AVX-512 loads.
pub const ALIGN: usize = 64;

/// A growing byte buffer at a 64-byte boundary.
///
/// Only bytes that were written or zeroed can be seen. Capacities of 64 KiB and more come from and return to the
/// [pool](super::pool).
///
/// ```
/// use framecache::buffer::AlignedBuf;
/// let mut buffer = AlignedBuf::with_capacity(100)?;
/// buffer.extend_from_slice(b"abc")?;
/// buffer.extend_zeroed(2)?;
/// assert_eq!(buffer.as_slice(), b"abc\0\0");
/// assert_eq!(buffer.as_slice().as_ptr().addr() % 64, 0);
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Debug)]
pub struct AlignedBuf {
    /// Dangling while `capacity` is 0, else a block of the pool's allocator.
    block: NonNull<u8>,
    /// Bytes written; at most `capacity`.
    len: usize,
    capacity: usize,
    /// Of these first bytes of the block, or `len` where that is more, each was written once, by this buffer or by an
    /// earlier one.
    initialized: usize,
    /// The most bytes that were written before some were dropped.
    written: usize,
    /// Where the block came from and returns to.
    pool: &'static Pool,
    wipe: Wipe,
}

/// What of a block is wiped before it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wipe {
    Nothing,
    /// What was written through the buffer.
    Written,
    /// All of it: others were given its room to write to.
    All,
}

// SAFETY: the block is owned by this value alone.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuf {}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::empty(&pool::FRAMES, Wipe::Nothing)
    }
}

/// Gives the dangling pointer of an empty buffer its alignment.
#[repr(align(64))]
struct Line;

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    ///
    /// # Errors
    /// [`Error::Memory`] where the room cannot be had.
    pub fn with_capacity(capacity: usize) -> Result<Self> {
        let mut buffer = Self::default();
        buffer.reserve(capacity)?;
        Ok(buffer)
    }

    /// An empty buffer for plaintext, with room for `capacity` bytes: whatever is written to it is wiped when it is
    /// moved to a larger place and when it goes, and from 64 KiB up it is left out of core dumps.
    ///
    /// # Errors
    /// [`Error::Memory`] where the room cannot be had.
    pub fn plaintext(capacity: usize) -> Result<Self> {
        let mut buffer = Self::empty(&pool::PLAINTEXT, Wipe::Written);
        buffer.reserve(capacity)?;
        Ok(buffer)
    }

    /// A buffer of `len` bytes that the caller overwrites: they are zeros or what an earlier buffer held.
    ///
    /// Zeroing a warm block would cost a pass over it.
    ///
    /// # Errors
    /// [`Error::Memory`] where the room cannot be had.
    pub(crate) fn stale(len: usize) -> Result<Self> {
        Self::default().become_stale(len)
    }

    /// As [`Self::stale`], for [plaintext](Self::plaintext).
    pub(crate) fn stale_plaintext(len: usize) -> Result<Self> {
        Self::empty(&pool::PLAINTEXT, Wipe::Written).become_stale(len)
    }

    fn become_stale(mut self, len: usize) -> Result<Self> {
        if len > 0 {
            self.replace_block(block_of(self.pool, len, true)?);
            self.len = len.min(self.initialized);
            self.extend_zeroed(len - self.len)?;
        }
        Ok(self)
    }

    fn empty(pool: &'static Pool, wipe: Wipe) -> Self {
        Self { block: NonNull::<Line>::dangling().cast(), len: 0, capacity: 0, initialized: 0, written: 0, pool, wipe }
    }

    /// Stands on `block`, empty, from here on; the old block must have been given back, or be none.
    fn replace_block(&mut self, Block { start, capacity, initialized }: Block) {
        (self.block, self.capacity, self.initialized, self.len) = (start, capacity, initialized, 0);
    }

    /// Says that what was written is no plaintext any more: it was encrypted in place. What may lie beyond it is wiped.
    pub(crate) fn set_sealed(&mut self) {
        let beyond = match self.wipe {
            Wipe::Nothing => self.len,
            Wipe::Written => self.written.max(self.len),
            Wipe::All => self.capacity,
        };
        // SAFETY: room of the buffer's own block.
        unsafe { pool::wipe(self.block.add(self.len), beyond - self.len) };
        self.wipe = Wipe::Nothing;
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit without growing.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the first `len` bytes of the block are initialized.
        unsafe { std::slice::from_raw_parts(self.block.as_ptr(), self.len) }
    }

    /// The bytes written so far, to change them.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.block.as_ptr(), self.len) }
    }

    /// Makes room for `additional` more bytes; grows by half at least, in place where the allocator can.
    ///
    /// # Errors
    /// [`Error::Memory`] where the room cannot be had; the buffer is then unchanged.
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        let Some(needed) = self.len.checked_add(additional) else {
            return Err(Error::Memory { bytes: usize::MAX });
        };
        if needed <= self.capacity {
            return Ok(());
        }
        let wanted = needed.max(self.capacity.saturating_add(self.capacity / 2));
        if self.len == 0 || self.capacity < pool::SMALLEST || self.wipe != Wipe::Nothing {
            return self.move_to(block_of(self.pool, wanted, false)?);
        }
        let capacity = pool::capacity_for(wanted);
        match pool::reallocate(self.block, self.capacity, capacity) {
            Some(block) => (self.block, self.capacity) = (block, capacity),
            None => return Err(Error::Memory { bytes: capacity }),
        }
        Ok(())
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<()> {
        self.reserve(bytes.len())?;
        // SAFETY: `reserve` made room after the first `len` bytes; `bytes` cannot lie in a block that `self` owns.
        unsafe { self.block.add(self.len).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        self.len += bytes.len();
        Ok(())
    }

    /// Appends `count` zeros.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn extend_zeroed(&mut self, count: usize) -> Result<()> {
        self.reserve(count)?;
        // SAFETY: `reserve` made room after the first `len` bytes.
        unsafe { self.block.add(self.len).write_bytes(0, count) };
        self.len += count;
        Ok(())
    }

    /// Appends `count` bytes that `fill` writes, given uninitialized room for them.
    ///
    /// # Safety
    /// When `fill` returns `Ok`, it has written all `count` bytes.
    ///
    /// # Errors
    /// As [`Self::reserve`], and those of `fill`, after which nothing was appended.
    pub unsafe fn extend_with<E: From<Error>>(
        &mut self,
        count: usize,
        fill: impl FnOnce(NonNull<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reserve(count)?;
        // SAFETY: the caller's guarantee.
        unsafe {
            self.extend_to(|room| {
                fill(room)?;
                Ok(count)
            })
        }
    }

    /// Appends what `fill` writes, given the room that there is; it returns how many bytes that are.
    ///
    /// # Safety
    /// When `fill` returns `Ok`, it has written so many bytes, for which there was room.
    ///
    /// # Errors
    /// Those of `fill`, after which nothing was appended.
    pub(crate) unsafe fn extend_to<E>(&mut self, fill: impl FnOnce(NonNull<u8>) -> Result<usize, E>) -> Result<(), E> {
        let wipe = self.wipe;
        self.lend_room();
        // SAFETY: `len` is at most `capacity`.
        let count = fill(unsafe { self.block.add(self.len) })?;
        (self.len, self.wipe) = (self.len + count, wipe);
        Ok(())
    }

    /// Room beyond `len` is written to by others.
    fn lend_room(&mut self) {
        if self.wipe == Wipe::Written {
            self.wipe = Wipe::All;
        }
    }

    /// The room after the bytes written so far, and its size.
    pub fn spare(&mut self) -> (NonNull<u8>, usize) {
        self.lend_room();
        // SAFETY: `len` is at most `capacity`.
        (unsafe { self.block.add(self.len) }, self.capacity - self.len)
    }

    /// Counts the first `len` bytes as written.
    ///
    /// # Safety
    /// They are, and `len` is at most the capacity.
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity);
        self.len = len;
    }

    /// Drops all bytes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.initialized = self.initialized.max(self.len);
        self.written = self.written.max(self.len);
        self.len = self.len.min(len);
    }

    fn move_to(&mut self, block: Block) -> Result<()> {
        let mut moved = Self::empty(self.pool, self.wipe);
        moved.replace_block(block);
        moved.extend_from_slice(self.as_slice())?;
        *self = moved;
        Ok(())
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.capacity == 0 {
            return;
        }
        let initialized = self.initialized.max(self.len);
        let wiped = match self.wipe {
            Wipe::Nothing => 0,
            // What is beyond was wiped by those who wrote it.
            Wipe::Written => self.written.max(self.len),
            Wipe::All => self.capacity,
        };
        // SAFETY: the block is this buffer's own.
        unsafe { pool::wipe(self.block, wiped) };
        self.pool.give(Block { start: self.block, capacity: self.capacity, initialized: initialized.max(wiped) });
    }
}

impl io::Write for AlignedBuf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A warm or new block of `pool` for `size` bytes; a new one is of zeros if asked for.
fn block_of(pool: &Pool, size: usize, zeroed: bool) -> Result<Block> {
    if let Some(warm) = pool.take(size) {
        return Ok(warm);
    }
    let capacity = pool::capacity_for(size);
    pool.allocate(capacity, zeroed).ok_or(Error::Memory { bytes: capacity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_a_vec_holds(
            hint in 0usize..200_000,
            parts in prop::collection::vec((prop::bool::ANY, 0usize..120_000), 0..8),
        ) {
            let mut buffer = AlignedBuf::with_capacity(hint).expect("memory");
            let mut model = Vec::new();
            for (index, (zeroed, count)) in parts.into_iter().enumerate() {
                if zeroed {
                    buffer.extend_zeroed(count).expect("memory");
                    model.resize(model.len() + count, 0);
                } else {
                    let part = vec![index as u8 + 1; count];
                    buffer.extend_from_slice(&part).expect("memory");
                    model.extend_from_slice(&part);
                }
                prop_assert_eq!(buffer.as_slice().as_ptr().addr() % ALIGN, 0);
            }
            prop_assert!(buffer.as_slice() == model.as_slice());
        }
    }

    #[test]
    fn a_stale_buffer_has_what_was_there_and_zeros_after_it() {
        // A class of blocks that no other test uses.
        const SIZE: usize = 81 << 20;
        let mut first = AlignedBuf::with_capacity(SIZE).expect("memory");
        first.extend_from_slice(&[7; 1000]).expect("room");
        first.truncate(10);
        let address = first.as_slice().as_ptr();
        drop(first);
        let stale = AlignedBuf::stale(SIZE).expect("memory");
        assert_eq!(stale.as_slice().as_ptr(), address);
        assert_eq!(stale.len(), SIZE);
        assert!(stale.as_slice()[size_of::<usize>()..1000].iter().all(|byte| *byte == 7));
        assert!(stale.as_slice()[1000..].iter().all(|byte| *byte == 0));
        assert!(AlignedBuf::stale(0).expect("nothing").is_empty());
        assert!(AlignedBuf::stale(100).expect("memory").as_slice().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(AlignedBuf::with_capacity(usize::MAX), Err(Error::Memory { .. })));
        let mut buffer = AlignedBuf::with_capacity(1).expect("memory");
        buffer.extend_from_slice(b"x").expect("room");
        assert!(matches!(buffer.reserve(usize::MAX), Err(Error::Memory { .. })));
        assert_eq!(buffer.as_slice(), b"x");
    }
}
