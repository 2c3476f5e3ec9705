//! Memory of frames: written once, aligned to 64 bytes, then shared and never changed.
//!
//! [`AlignedBuf`] is a frame under construction: it grows, and its blocks of 64 KiB and more come from a bounded
//! [`pool`] of warm ones, because fresh memory costs a page fault every 4 KiB. [`FrameBuf`] is a finished frame, or
//! a slice of one: shared, immutable, and only over memory that nobody else can write.

mod aligned;
mod frame_buf;
pub mod pool;
mod small;

pub use aligned::{ALIGN, AlignedBuf};
pub use frame_buf::{FrameBuf, FrameMemory, Mapping, Origin};

/// `len` rounded up to the next multiple of [`ALIGN`].
///
/// ```
/// assert_eq!(framecache::buffer::padded(0), 0);
/// assert_eq!(framecache::buffer::padded(65), 128);
/// ```
pub const fn padded(len: usize) -> usize {
    len + len.wrapping_neg() % ALIGN
}
