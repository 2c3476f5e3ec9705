//! Ordered work on threads: what handing an item over costs, from which size on it pays, and how two workers compare with
//! one.
//!
//! `cargo bench --bench memory`; results stand in `benchmarks/RESULTS.md`.

mod timing;

use framecache::Error;
use framecache::compress::Compression;
use framecache::memory::{ScratchBuffers, StreamingProcessor, Work, WorkerPool};
use std::hint::black_box;
use std::sync::Arc;

/// Bytes of which a third repeats, as columns of numbers do.
fn sample(len: usize) -> Arc<[u8]> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state
    };
    (0..len / 8).flat_map(|_| (next() >> 40).to_le_bytes()).collect()
}

/// Compresses its items, as chunks of a stream are. Costs are such that all go to workers, where there are any.
fn compressing() -> impl Work<Arc<[u8]>, usize> {
    (
        |item: &Arc<[u8]>| item.len().max(framecache::memory::ON_CALLER_BELOW),
        |item: Arc<[u8]>, _: &mut ScratchBuffers| match Compression::Lz4.compress(&item) {
            Ok(Some((_, compressed))) => compressed.len(),
            _ => item.len(),
        },
    )
}

fn run<I: Send + 'static>(pool: &mut WorkerPool<I, usize>, items: impl Iterator<Item = I>) {
    let done = pool.process(items.map(Ok::<_, Error>), |size| {
        black_box(size);
        Ok(())
    });
    drop(black_box(done));
}

fn pool<I: Send + 'static>(workers: usize, work: impl Work<I, usize>) -> WorkerPool<I, usize> {
    WorkerPool::new(workers, Arc::new(StreamingProcessor::with_default_limit()), work)
}

fn without_pool(item: &Arc<[u8]>, count: usize) {
    let half = || (0..count / 2).for_each(|_| drop(black_box(Compression::Lz4.compress(item))));
    std::thread::scope(|scope| {
        scope.spawn(half);
        half();
    });
}

fn main() {
    const ITEMS: usize = 10_000;
    let empty = || (|_: &usize| framecache::memory::ON_CALLER_BELOW, |item: usize, _: &mut ScratchBuffers| item);
    let [mut inline, mut one, mut two] = [0, 1, 2].map(|workers| pool(workers, empty()));
    timing::compare(
        "10,000 items without work: nanoseconds are tens of picoseconds an item",
        7,
        5,
        vec![
            ("on the calling thread", Box::new(|| run(&mut inline, 0..ITEMS))),
            ("one worker", Box::new(|| run(&mut one, 0..ITEMS))),
            ("two workers", Box::new(|| run(&mut two, 0..ITEMS))),
        ],
    );
    for size in [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let item = sample(size);
        let count = (64 << 20) / size;
        let items = || std::iter::repeat_with(|| Arc::clone(&item)).take(count.min(4096));
        let [mut inline, mut one, mut two] = [0, 1, 2].map(|workers| pool(workers, compressing()));
        timing::compare(
            &format!("LZ4 of {} items of {} KiB", count.min(4096), size >> 10),
            7,
            2,
            vec![
                ("one worker", Box::new(|| run(&mut one, items()))),
                ("on the calling thread", Box::new(|| run(&mut inline, items()))),
                ("two workers", Box::new(|| run(&mut two, items()))),
                // What the machine has to give at this moment.
                ("two threads, a half of them each", Box::new(|| without_pool(&item, count.min(4096)))),
            ],
        );
    }
}
