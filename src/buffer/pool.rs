//! Bounded, lock-free pools of warm large blocks: one for frames, one for plaintext.
//!
//! Blocks come in size classes, four to a doubling, so that a block's class tells its capacity and at most a fifth of
//! it is unused. A class has 32 slots, each one atomic pointer: taking a block is a swap with null, returning one a
//! compare-exchange from null. There is no lock to be held across an allocation, by a thread without the GIL, or
//! through a fork; a forked child simply uses the (copied) blocks that its memory holds.
//!
//! Blocks keep the bytes of the frame that used them last, except that plaintext is wiped before it is pooled or freed;
//! the plaintext pool's blocks are left out of core dumps. [`AlignedBuf`](super::AlignedBuf) hands out none of these bytes: what it exposes was written or zeroed first, or is about to be overwritten by a decompressor. How many of a
//! block's bytes were ever written stands, while it is idle, in its own first bytes.
#![allow(unsafe_code)]

use super::ALIGN;
#[cfg(target_arch = "x86_64")]
use crate::processor::{self, Level};
use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The smallest block that is pooled: 64 KiB.
pub const SMALLEST: usize = 64 * 1024;
/// The most bytes that the idle blocks of a pool may hold together: 256 MiB.
pub const LIMIT: usize = 256 * 1024 * 1024;
/// From here on, blocks ask the kernel for huge pages.
const HUGE: usize = 4 * 1024 * 1024;

const STEPS: usize = 4;
const CLASSES: usize = 12 * STEPS + 1;
const SLOTS: usize = 32;
/// How many classes above the one asked for a taken block may be: at most 1.5 times the size.
const REACH: usize = 2;

/// The blocks of frames.
pub(super) static FRAMES: Pool = Pool::new(false);
/// The blocks of plaintext.
pub(super) static PLAINTEXT: Pool = Pool::new(true);

/// Idle blocks of one kind.
#[derive(Debug)]
pub(super) struct Pool {
    blocks: [[AtomicPtr<u8>; SLOTS]; CLASSES],
    held: AtomicUsize,
    /// Whether its blocks are left out of core dumps.
    undumped: bool,
}

/// Bytes that idle blocks hold now.
pub fn held() -> usize {
    FRAMES.held.load(Ordering::Relaxed) + PLAINTEXT.held.load(Ordering::Relaxed)
}

/// Frees all idle blocks; returns how many bytes they had.
pub fn trim() -> usize {
    FRAMES.trim() + PLAINTEXT.trim()
}

/// A block of memory on its way between the pool and a buffer.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) start: NonNull<u8>,
    pub(super) capacity: usize,
    /// How many of its first bytes hold something, old or new; the others are uninitialized.
    pub(super) initialized: usize,
}

impl Pool {
    const fn new(undumped: bool) -> Self {
        let blocks = [const { [const { AtomicPtr::new(null_mut()) }; SLOTS] }; CLASSES];
        Self { blocks, held: AtomicUsize::new(0), undumped }
    }

    fn trim(&self) -> usize {
        let mut freed = 0;
        for (class, slots) in self.blocks.iter().enumerate() {
            for slot in slots {
                if let Some(block) = NonNull::new(slot.swap(null_mut(), Ordering::Acquire)) {
                    self.held.fetch_sub(capacity_of(class), Ordering::Relaxed);
                    self.free(block, capacity_of(class));
                    freed += capacity_of(class);
                }
            }
        }
        freed
    }

    /// A warm block of at least `size` bytes.
    pub(super) fn take(&self, size: usize) -> Option<Block> {
        let first = class_of(size)?;
        for (class, slots) in self.blocks.iter().enumerate().skip(first).take(REACH + 1) {
            for slot in slots {
                if slot.load(Ordering::Relaxed).is_null() {
                    continue;
                }
                if let Some(start) = NonNull::new(slot.swap(null_mut(), Ordering::Acquire)) {
                    self.held.fetch_sub(capacity_of(class), Ordering::Relaxed);
                    // SAFETY: `keep` wrote it there; the swap made the block this thread's own.
                    let initialized = unsafe { start.cast::<usize>().read() };
                    return Some(Block { start, capacity: capacity_of(class), initialized });
                }
            }
        }
        None
    }

    /// Keeps `block` for the next taker, or frees it where its class is full. Where the pool is full, what was idle before
    /// goes: sizes change with the work that is done, and the last one is the likeliest to be asked for next.
    ///
    /// The block must have come from this pool's [`Self::take`], [`Self::allocate`] or [`reallocate`], and is not used
    /// afterwards.
    pub(super) fn give(&self, block: Block) {
        if !self.keep(block) {
            self.free(block.start, block.capacity);
        }
    }

    fn keep(&self, Block { start, capacity, initialized }: Block) -> bool {
        let Some(class) = class_of(capacity).filter(|class| capacity_of(*class) == capacity) else {
            return false;
        };
        // SAFETY: blocks of the classes have room for it at their start, aligned, and this one is nobody else's.
        unsafe { start.cast::<usize>().write(initialized.max(size_of::<usize>())) };
        let park = |slot: &AtomicPtr<u8>| {
            slot.compare_exchange(null_mut(), start.as_ptr(), Ordering::Release, Ordering::Relaxed).is_ok()
        };
        let fits = self.reserve(capacity) || self.trim() > 0 && self.reserve(capacity);
        let kept = fits && self.blocks[class].iter().any(park);
        if fits && !kept {
            self.held.fetch_sub(capacity, Ordering::Relaxed);
        }
        kept
    }

    /// Counts so many bytes more as held, if they are within the limit.
    fn reserve(&self, capacity: usize) -> bool {
        let fits = self.held.fetch_add(capacity, Ordering::Relaxed) + capacity <= LIMIT;
        if !fits {
            self.held.fetch_sub(capacity, Ordering::Relaxed);
        }
        fits
    }

    /// A new block, of zeros if asked for: large ones are the system's zero pages, which cost nothing until used.
    pub(super) fn allocate(&self, capacity: usize, zeroed: bool) -> Option<Block> {
        let layout = layout(capacity)?;
        // SAFETY: the layout's size is not zero.
        let start =
            NonNull::new(unsafe { if zeroed { std::alloc::alloc_zeroed(layout) } else { std::alloc::alloc(layout) } })?;
        advise_huge(start, capacity);
        if self.undumped {
            advise_dump(start, capacity, false);
        }
        Some(Block { start, capacity, initialized: if zeroed { capacity } else { 0 } })
    }

    /// Frees a block of this capacity.
    fn free(&self, block: NonNull<u8>, capacity: usize) {
        if let Some(layout) = layout(capacity) {
            if self.undumped {
                advise_dump(block, capacity, true);
            }
            // SAFETY: the block was allocated with this layout; the callers give it up.
            unsafe { std::alloc::dealloc(block.as_ptr(), layout) };
        }
    }
}

/// The capacity to allocate for `size` bytes: its class's, or `size` itself outside the classes.
pub(super) fn capacity_for(size: usize) -> usize {
    class_of(size).map_or(size, capacity_of)
}

/// Moves a block of [`FRAMES`] to a new capacity, keeping its bytes; in place where the allocator can. `None` leaves it
/// as it was.
pub(super) fn reallocate(block: NonNull<u8>, capacity: usize, wanted: usize) -> Option<NonNull<u8>> {
    let layout = layout(capacity)?;
    self::layout(wanted)?;
    // SAFETY: the block was allocated with `layout`, and `wanted` is a valid size at its alignment.
    let block = NonNull::new(unsafe { std::alloc::realloc(block.as_ptr(), layout, wanted) })?;
    advise_huge(block, wanted);
    Some(block)
}

/// Overwrites `len` bytes with zeros that the compiler cannot leave out.
///
/// # Safety
/// They are the caller's own to write.
pub(crate) unsafe fn wipe(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's guarantee.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if len >= PAST_CACHES && processor::level() >= Level::Avx2 {
            wipe_past_caches(start, len);
        } else {
            start.write_bytes(0, len);
        }
        #[cfg(not(target_arch = "x86_64"))]
        start.write_bytes(0, len);
    }
    std::hint::black_box(start);
}

/// Bytes from which wiping goes past the caches: they could not keep the zeros, and would lose what is in them.
#[cfg(target_arch = "x86_64")]
const PAST_CACHES: usize = 4 * 1024 * 1024;

/// # Safety
/// As [`wipe`]; there is AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn wipe_past_caches(start: NonNull<u8>, len: usize) {
    use std::arch::x86_64::{__m256i, _mm_sfence, _mm256_setzero_si256, _mm256_stream_si256};
    const WIDTH: usize = size_of::<__m256i>();
    let head = start.align_offset(WIDTH).min(len);
    let whole = (len - head) / WIDTH;
    let zeros = _mm256_setzero_si256();
    // SAFETY: the head, whole vectors at multiples of their width, and the tail are the caller's bytes. The fence makes what
    // was streamed visible before anything that comes after.
    unsafe {
        start.write_bytes(0, head);
        let vectors = start.add(head).cast::<__m256i>();
        for index in 0..whole {
            _mm256_stream_si256(vectors.add(index).as_ptr(), zeros);
        }
        vectors.add(whole).cast::<u8>().write_bytes(0, len - head - whole * WIDTH);
        _mm_sfence();
    }
}

fn layout(capacity: usize) -> Option<Layout> {
    Layout::from_size_align(capacity, ALIGN).ok().filter(|layout| layout.size() > 0)
}

/// The smallest class whose capacity is at least `size`; none below [`SMALLEST`] and above the largest class.
fn class_of(size: usize) -> Option<usize> {
    if size < SMALLEST {
        return None;
    }
    // size lies in (base, 2 * base], where base = SMALLEST << octave.
    let octave = (size.div_ceil(SMALLEST)).next_power_of_two().trailing_zeros() as usize;
    let class = if octave == 0 {
        0
    } else {
        let base = SMALLEST << (octave - 1);
        (octave - 1) * STEPS + (size - base).div_ceil(base / STEPS)
    };
    (class < CLASSES).then_some(class)
}

fn capacity_of(class: usize) -> usize {
    let base = SMALLEST << (class / STEPS);
    base + base / STEPS * (class % STEPS)
}

/// Asks for huge pages for the whole pages inside a fresh block: filling it then costs a fault every 2 MiB.
pub(crate) fn advise_huge(block: NonNull<u8>, len: usize) {
    #[cfg(target_os = "linux")]
    if len >= HUGE {
        advise(block, len, rustix::mm::Advice::LinuxHugepage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, len);
}

/// Leaves the whole pages inside a large block out of core dumps, or not any more.
fn advise_dump(block: NonNull<u8>, len: usize, dump: bool) {
    #[cfg(target_os = "linux")]
    if len >= SMALLEST {
        use rustix::mm::Advice;
        advise(block, len, if dump { Advice::LinuxDoDump } else { Advice::LinuxDontDump });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, len, dump);
}

/// Gives advice that changes no byte for the whole pages inside a block.
#[cfg(target_os = "linux")]
fn advise(block: NonNull<u8>, len: usize, advice: rustix::mm::Advice) {
    const PAGE: usize = 4096;
    let start = block.as_ptr().map_addr(|addr| addr.next_multiple_of(PAGE));
    let inside = len.saturating_sub(start.addr() - block.addr().get()) / PAGE * PAGE;
    // SAFETY: the range is whole pages inside the block; the callers' advice changes no byte. Failing, it changes nothing.
    let _ = unsafe { rustix::mm::madvise(start.cast(), inside, advice) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_class_holds_its_sizes_and_wastes_at_most_a_fifth(size in SMALLEST..(256usize << 20)) {
            let class = class_of(size).expect("in range");
            let capacity = capacity_of(class);
            prop_assert!(capacity >= size);
            prop_assert!(class == 0 || capacity_of(class - 1) < size);
            prop_assert!((capacity - size) * 5 <= capacity);
        }
    }

    #[test]
    fn all_that_is_wiped_is_zeros_and_nothing_else() {
        const LARGE: usize = 4 << 20;
        for (start, len) in [(0, LARGE), (1, LARGE + 1), (31, LARGE + 63), (40, LARGE), (3, 100), (7, 0)] {
            let mut bytes = vec![7_u8; LARGE + 200];
            // SAFETY: a part of the vector's bytes.
            unsafe { wipe(NonNull::from(&mut bytes[start..start + len]).cast(), len) };
            assert!(bytes[start..start + len].iter().all(|byte| *byte == 0));
            assert!(bytes[..start].iter().chain(&bytes[start + len..]).all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_block_that_comes_back_to_a_full_pool_takes_the_place_of_others() {
        static OWN: Pool = Pool::new(false);
        let allocate = |mebibytes: usize| OWN.allocate(mebibytes << 20, false).expect("memory");
        let (small, other, large) = (allocate(80), allocate(80), allocate(160));
        OWN.give(small);
        OWN.give(other);
        assert_eq!(OWN.held.load(Ordering::Relaxed), 160 << 20);
        OWN.give(large);
        assert_eq!(OWN.held.load(Ordering::Relaxed), 160 << 20);
        assert_eq!(OWN.take(160 << 20).map(|block| block.start), Some(large.start));
        assert!(OWN.take(80 << 20).is_none());
        OWN.give(large);
        assert_eq!(OWN.trim(), 160 << 20);
    }

    #[test]
    fn the_chunks_of_a_stream_come_from_warm_blocks() {
        static OWN: Pool = Pool::new(true);
        let chunks: Vec<_> = (0..SLOTS).map(|_| OWN.allocate(capacity_for(1 << 20), false).expect("memory")).collect();
        chunks.iter().for_each(|chunk| OWN.give(*chunk));
        let warm: Vec<_> = std::iter::from_fn(|| OWN.take(1 << 20)).map(|chunk| chunk.start).collect();
        assert_eq!(warm, chunks.iter().map(|chunk| chunk.start).collect::<Vec<_>>());
        chunks.into_iter().for_each(|chunk| OWN.give(chunk));
        assert_eq!(OWN.trim(), SLOTS << 20);
    }

    #[test]
    fn the_classes_end_where_they_say() {
        assert_eq!(class_of(SMALLEST - 1), None);
        assert_eq!(class_of(SMALLEST), Some(0));
        assert_eq!(class_of(LIMIT), Some(CLASSES - 1));
        assert_eq!(capacity_of(CLASSES - 1), LIMIT);
        assert_eq!(class_of(LIMIT + 1), None);
    }
}
