//! The global allocator of the Python build: CPython's *raw* memory domain, with every alignment honoured.
//!
//! Rust code of this crate runs with and without the GIL, so only `PyMem_Raw*` will do: it needs no attached
//! thread. Its blocks are aligned to 16 bytes; a stronger alignment is had by asking for `align` more bytes and
//! writing the block's own address into the eight bytes before the aligned one. Which of the two ways a block was
//! made is known from its `Layout`, which `dealloc` and `realloc` see again.
//!
//! With `tracemalloc` on, each of these calls takes the GIL (CPython 3.10 to 3.13). Two rules follow for the rest
//! of the crate: a thread that holds the GIL never waits for one that may allocate, and no lock that is taken both
//! with and without the GIL is held across an allocation.

use std::alloc::{GlobalAlloc, Layout};
use std::marker::PhantomData;

/// What `malloc` on every supported platform aligns to.
const NATURAL: usize = 16;
/// Room for the block's address before an over-aligned block.
const ADDRESS: usize = size_of::<usize>();

/// The four C allocation functions of one memory domain.
///
/// # Safety
/// The functions keep `malloc`'s contract: null or a block of at least the size asked for, aligned to 16 bytes,
/// `calloc`'s zeroed, and they may be called from any thread.
pub unsafe trait Domain {
    /// `malloc(size)`.
    fn malloc(size: usize) -> *mut u8;
    /// `calloc(1, size)`.
    fn calloc(size: usize) -> *mut u8;
    /// `realloc(block, size)`.
    ///
    /// # Safety
    /// `block` came from this domain and was not freed.
    unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8;
    /// `free(block)`.
    ///
    /// # Safety
    /// `block` came from this domain and was not freed.
    unsafe fn free(block: *mut u8);
}

/// A [`GlobalAlloc`] over a [`Domain`] that honours every alignment.
///
/// Returns null, and never writes through it, when the domain returns null or the size overflows.
#[derive(Debug)]
pub struct Aligned<D>(PhantomData<D>);

impl<D> Aligned<D> {
    /// The allocator; it has no state.
    #[expect(clippy::new_without_default, reason = "a static needs a const constructor, and one way is enough")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Bytes to ask the domain for, so that a block of `size` fits at any multiple of `align`.
    fn padded(size: usize, align: usize) -> Option<usize> {
        size.checked_add(align)?.checked_add(ADDRESS)
    }

    /// The aligned place in a padded block that starts at `block`; records `block` just before it.
    ///
    /// # Safety
    /// `block` is null or has `padded(size, align)` bytes.
    unsafe fn place(block: *mut u8, align: usize) -> *mut u8 {
        if block.is_null() {
            return block;
        }
        let skip = Self::skip(block, align);
        // SAFETY: skip <= ADDRESS + align, so the place and the address before it lie inside the padded block.
        unsafe {
            let place = block.add(skip);
            place.sub(ADDRESS).cast::<*mut u8>().write_unaligned(block);
            place
        }
    }

    /// Bytes from `block` to the first multiple of `align` with room for an address before it.
    fn skip(block: *mut u8, align: usize) -> usize {
        ADDRESS + (block.addr() + ADDRESS).wrapping_neg() % align
    }

    /// The block that `place` was made from.
    ///
    /// # Safety
    /// `place` came from [`Self::place`].
    unsafe fn block(place: *mut u8) -> *mut u8 {
        // SAFETY: `place()` wrote the block's address there.
        unsafe { place.sub(ADDRESS).cast::<*mut u8>().read_unaligned() }
    }
}

// SAFETY: blocks come from the domain with at least `layout.size()` bytes at a multiple of `layout.align()`; a block
// is freed the way it was made, since both ways are told apart by the same `layout`.
unsafe impl<D: Domain> GlobalAlloc for Aligned<D> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            return D::malloc(layout.size());
        }
        match Self::padded(layout.size(), layout.align()) {
            // SAFETY: null, or `padded` bytes.
            Some(padded) => unsafe { Self::place(D::malloc(padded), layout.align()) },
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            return D::calloc(layout.size());
        }
        match Self::padded(layout.size(), layout.align()) {
            // SAFETY: null, or `padded` bytes; the address is written before the place, whose bytes stay zero.
            Some(padded) => unsafe { Self::place(D::calloc(padded), layout.align()) },
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller passes the layout the block was made with.
        unsafe { D::free(if layout.align() <= NATURAL { place } else { Self::block(place) }) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= NATURAL {
            // SAFETY: the block came from this domain.
            return unsafe { D::realloc(place, size) };
        }
        let Some(padded) = Self::padded(size, layout.align()) else {
            return std::ptr::null_mut();
        };
        // SAFETY: the block came from this domain; `realloc` moves its bytes with it, at the old distance from its
        // start. If the new start needs another distance they are moved to it: both ranges lie in the new block,
        // since either distance is at most ADDRESS + align.
        unsafe {
            let old = Self::block(place);
            let distance = place.addr() - old.addr();
            let block = D::realloc(old, padded);
            if block.is_null() {
                return block;
            }
            let skip = Self::skip(block, layout.align());
            if skip != distance {
                std::ptr::copy(block.add(distance), block.add(skip), layout.size().min(size));
            }
            Self::place(block, layout.align())
        }
    }
}

/// CPython's raw domain: `PyMem_RawMalloc` and its family. Needs no attached thread; seen by `tracemalloc`.
#[cfg(feature = "python")]
#[derive(Debug)]
pub struct PyRaw;

#[cfg(feature = "python")]
// SAFETY: CPython documents the raw domain as thread-safe without a thread state and equal to malloc in contract.
unsafe impl Domain for PyRaw {
    fn malloc(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { pyo3::ffi::PyMem_RawMalloc(size).cast() }
    }

    fn calloc(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { pyo3::ffi::PyMem_RawCalloc(1, size).cast() }
    }

    unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's guarantee.
        unsafe { pyo3::ffi::PyMem_RawRealloc(block.cast(), size).cast() }
    }

    unsafe fn free(block: *mut u8) {
        // SAFETY: the caller's guarantee.
        unsafe { pyo3::ffi::PyMem_RawFree(block.cast()) }
    }
}

/// The allocator of the Python build.
#[cfg(feature = "python")]
pub type PyMemAllocator = Aligned<PyRaw>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::alloc::System;

    /// The system's allocator as a domain; every block is padded with its size so that `free` can be checked.
    struct Libc;
    const HEADER: usize = 16;

    // SAFETY: blocks of the system allocator at alignment 16.
    unsafe impl Domain for Libc {
        fn malloc(size: usize) -> *mut u8 {
            let Ok(layout) = Layout::from_size_align(size.saturating_add(HEADER), HEADER) else {
                return std::ptr::null_mut();
            };
            // SAFETY: the layout has a size; the header is written inside it.
            unsafe {
                let block = System.alloc(layout);
                if block.is_null() {
                    return block;
                }
                block.cast::<usize>().write(size);
                block.add(HEADER).write_bytes(0xEE, size);
                block.add(HEADER)
            }
        }

        fn calloc(size: usize) -> *mut u8 {
            let block = Self::malloc(size);
            if !block.is_null() {
                // SAFETY: the block has `size` bytes.
                unsafe { block.write_bytes(0, size) };
            }
            block
        }

        // Always moves: what relies on a block staying where it was fails here.
        unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
            let moved = Self::malloc(size);
            // SAFETY: both blocks have the bytes that are copied.
            unsafe {
                let old = block.sub(HEADER).cast::<usize>().read();
                if !moved.is_null() {
                    std::ptr::copy_nonoverlapping(block, moved, old.min(size));
                    Self::free(block);
                }
            }
            moved
        }

        unsafe fn free(block: *mut u8) {
            // SAFETY: the header was written by `malloc`.
            unsafe {
                let start = block.sub(HEADER);
                let size = start.cast::<usize>().read();
                System.dealloc(start, Layout::from_size_align_unchecked(size + HEADER, HEADER));
            }
        }
    }

    /// A domain that has no memory.
    struct Empty;
    // SAFETY: null is always allowed.
    unsafe impl Domain for Empty {
        fn malloc(_: usize) -> *mut u8 {
            std::ptr::null_mut()
        }
        fn calloc(_: usize) -> *mut u8 {
            std::ptr::null_mut()
        }
        unsafe fn realloc(_: *mut u8, _: usize) -> *mut u8 {
            std::ptr::null_mut()
        }
        unsafe fn free(_: *mut u8) {}
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a valid layout")
    }

    #[test]
    fn null_is_returned_and_never_written_through() {
        let none = Aligned::<Empty>::new();
        for align in [1, 16, 32, 64, 4096] {
            // SAFETY: a layout with a size.
            unsafe {
                assert!(none.alloc(layout(100, align)).is_null());
                assert!(none.alloc_zeroed(layout(100, align)).is_null());
            }
        }
    }

    #[test]
    fn a_size_that_overflows_with_its_padding_is_null() {
        let huge = layout(isize::MAX as usize - 4095, 4096);
        // SAFETY: a layout with a size.
        unsafe {
            assert!(Aligned::<Empty>::new().alloc(huge).is_null());
            assert!(Aligned::<Libc>::padded(usize::MAX - 8, 64).is_none());
        }
    }

    proptest! {
        #[test]
        fn every_alignment_is_honoured_by_all_four_calls(
            power in 0u32..13, size in 1usize..20_000, sizes in prop::collection::vec(1usize..40_000, 0..6), zeroed: bool,
        ) {
            let allocator = Aligned::<Libc>::new();
            let align = 1usize << power;
            // SAFETY: each block is used within its size, with the layout it was made with.
            unsafe {
                let mut block = if zeroed { allocator.alloc_zeroed(layout(size, align)) } else { allocator.alloc(layout(size, align)) };
                prop_assert_eq!(block.addr() % align, 0);
                if zeroed {
                    prop_assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                }
                for index in 0..size {
                    block.add(index).write(index as u8);
                }
                let (mut current, mut kept) = (size, size);
                for next in sizes {
                    block = allocator.realloc(block, layout(current, align), next);
                    prop_assert_eq!(block.addr() % align, 0);
                    kept = kept.min(next);
                    let bytes = std::slice::from_raw_parts(block, kept);
                    prop_assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
                    current = next;
                }
                allocator.dealloc(block, layout(current, align));
            }
        }
    }
}
