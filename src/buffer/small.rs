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
        if size <= SMALLEST {
            Self::of::<SMALLEST>(written)
        } else if size <= SMALL {
            Self::of::<SMALL>(written)
        } else if size <= MIDDLE {
            Self::of::<MIDDLE>(written)
        } else if size <= LARGE {
            Self::of::<LARGE>(written)
        } else {
            Self::of::<LARGEST>(written)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::FrameBuf;
    use crate::error::{Error, Result};

    /// A frame of `size - start` bytes 7 in room for `size`.
    fn sevens(size: usize, start: usize, plaintext: bool) -> Result<FrameBuf> {
        // SAFETY: all bytes are written.
        unsafe {
            FrameBuf::filled(size, plaintext, |room| {
                assert_eq!(room.as_ptr().addr() % 64, 0);
                room.write_bytes(7, size);
                Ok(start..size)
            })
        }
    }

    #[test]
    fn a_frame_of_any_size_is_what_was_written() {
        for size in (0..1100).chain([5000, 100_000]) {
            for plaintext in [false, true] {
                let start = size.min(64);
                let frame = sevens(size, start, plaintext).expect("memory");
                assert_eq!(*frame, *vec![7; size - start]);
                let part = frame.slice(frame.len() / 2..).expect("inside");
                drop(frame);
                assert!(part.iter().all(|byte| *byte == 7));
            }
        }
    }

    #[test]
    fn what_fails_is_no_frame() {
        for size in [10, 2000] {
            // SAFETY: it never says that it wrote something.
            let failed = unsafe { FrameBuf::filled(size, true, |_| Err(Error::Memory { bytes: 1 })) };
            assert!(matches!(failed, Err(Error::Memory { bytes: 1 })), "{failed:?}");
        }
    }

    #[test]
    fn plaintext_is_wiped_when_it_goes() {
        let mut value = std::mem::ManuallyDrop::new(Small::<LARGEST> {
            bytes: [MaybeUninit::new(7); LARGEST],
            written: Part { start: 3, len: 600, wiped: true },
        });
        // SAFETY: dropped once; its bytes have no destructor and stay where they are.
        unsafe { std::mem::ManuallyDrop::drop(&mut value) };
        // SAFETY: all of them were initialized.
        let bytes: [u8; LARGEST] = value.bytes.map(|byte| unsafe { byte.assume_init() });
        assert!(bytes[3..603].iter().all(|byte| *byte == 0));
        assert!(bytes[..3].iter().chain(&bytes[603..]).all(|byte| *byte == 7));
    }
}
