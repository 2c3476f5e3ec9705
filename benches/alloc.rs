//! The Python build's allocator against the system's, on small, large and over-aligned blocks.
//!
//! `cargo bench --features python --bench alloc`; results stand in `benchmarks/RESULTS.md`.
#![allow(unsafe_code, clippy::expect_used, reason = "allocators are called directly; the layouts are constants")]

mod timing;

use framecache::alloc::PyMemAllocator;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

fn main() {
    let ours = PyMemAllocator::new();
    for (size, align, calls) in [
        (32, 8, 100_000),
        (32, 64, 100_000),
        (4096, 8, 50_000),
        (4096, 64, 50_000),
        (65_536, 64, 20_000),
        (64 << 20, 64, 200),
    ] {
        let layout = Layout::from_size_align(size, align).expect("a valid layout");
        timing::compare(
            &format!("allocate and free {size} bytes at {align}"),
            41,
            calls,
            vec![
                ("system", Box::new(move || cycle(&System, layout))),
                ("PyMemAllocator", Box::new(|| cycle(&ours, layout))),
            ],
        );
        timing::compare(
            &format!("grow {size} bytes at {align} to twice the size"),
            41,
            calls / 2,
            vec![
                ("system", Box::new(move || grow(&System, layout))),
                ("PyMemAllocator", Box::new(|| grow(&ours, layout))),
            ],
        );
    }
}

fn cycle(allocator: &impl GlobalAlloc, layout: Layout) {
    // SAFETY: the layout has a size; the block is freed with the layout it was made with.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        block.write(1);
        allocator.dealloc(block, layout);
    }
}

fn grow(allocator: &impl GlobalAlloc, layout: Layout) {
    // SAFETY: as above; after `realloc` the block has the doubled size.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        let size = layout.size() * 2;
        let block = black_box(allocator.realloc(block, layout, size));
        allocator.dealloc(block, Layout::from_size_align_unchecked(size, layout.align()));
    }
}
