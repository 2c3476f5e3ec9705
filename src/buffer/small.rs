//! Short frames: their bytes stand in one allocation with their count of references.
#![allow(unsafe_code)]

use super::frame_buf::FrameMemory;
use super::pool::wipe;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// The most bytes of a short frame: with its count and its alignment it still comes from where `malloc` is fastest.
pub(super) const LARGEST: usize = room_of(14);
const LARGE: usize = room_of(10);
const MIDDLE: usize = room_of(6);
const SMALL: usize = room_of(4);
const SMALLEST: usize = room_of(2);

/// Bytes that fit in so many lines of 64, with what is said of them.
const fn room_of(lines: usize) -> usize {
    lines * 64 - size_of::<Part>()
}

/// A part of at most [`LARGEST`] bytes.
#[derive(Clone, Copy)]
struct Part {
    start: u16,
    len: u16,
    /// Whether it is wiped at the end.
    wiped: bool,
}

#[repr(C, align(64))]
struct Small<const ROOM: usize> {
    bytes: [MaybeUninit<u8>; ROOM],
    /// What of the bytes was written.
    written: Part,
}

// SAFETY: the bytes stand in the value itself, which an `Arc` does not move and nobody has a mutable reference to.
unsafe impl<const ROOM: usize> FrameMemory for Small<ROOM> {
    fn bytes(&self) -> &[u8] {
        let Part { start, len, .. } = self.written;
        // SAFETY: `written` says so.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(start.into()).cast(), len.into()) }
    }
}

impl<const ROOM: usize> Drop for Small<ROOM> {
    fn drop(&mut self) {
        let Part { start, len, wiped } = self.written;
        if wiped {
            // SAFETY: a part of the value's own bytes.
            unsafe { wipe(NonNull::from(&mut self.bytes[usize::from(start)]).cast(), len.into()) };
        }
    }
}

/// Memory that only its maker has seen.
pub(super) struct Room {
    pub(super) memory: Arc<dyn FrameMemory>,
    /// Where its bytes begin, at a multiple of 64.
    pub(super) start: NonNull<u8>,
    written: NonNull<Part>,
}

impl Room {
    /// Room for `size` bytes, at most [`LARGEST`]. With `wiped`, they are wiped at the end.
    #[inline]
    pub(super) fn new(size: usize, wiped: bool) -> Self {
        let written = Part { start: 0, len: size as u16, wiped };
        match size {
            0..=SMALLEST => Self::of::<SMALLEST>(written),
            0..=SMALL => Self::of::<SMALL>(written),
            0..=MIDDLE => Self::of::<MIDDLE>(written),
            0..=LARGE => Self::of::<LARGE>(written),
            _ => Self::of::<LARGEST>(written),
        }
    }

    #[inline]
    fn of<const ROOM: usize>(written: Part) -> Self {
        let memory = Arc::<Small<ROOM>>::new_uninit();
        let place = Arc::as_ptr(&memory).cast::<Small<ROOM>>().cast_mut();
        // SAFETY: nobody else has the memory. The bytes need no value; what is said of them is written.
        unsafe {
            let written_place = &raw mut (*place).written;
            written_place.write(written);
            let (start, written) = (NonNull::new_unchecked(place).cast(), NonNull::new_unchecked(written_place));
            Self { memory: memory.assume_init(), start, written }
        }
    }

    /// Says that this part of the bytes is what was written.
    ///
    /// # Safety
    /// It was, and lies in the room.
    #[inline]
    pub(super) unsafe fn set_written(&mut self, part: Range<usize>) {
        // SAFETY: nobody else has the memory.
        unsafe {
            let wiped = self.written.as_ref().wiped;
            self.written.write(Part { start: part.start as u16, len: part.len() as u16, wiped });
        }
    }
}
