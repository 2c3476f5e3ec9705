//! Ordered work on threads: every row of the table of failures, by name, and what holds for any items.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::Error;
use framecache::memory::{ON_CALLER_BELOW, ScratchBuffers, StreamingProcessor, SubmitError, WINDOW, Work, WorkerPool};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// A cost for which items go to workers.
const LARGE: usize = ON_CALLER_BELOW;

/// One test at a time: some count the threads of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn budget(bytes: usize) -> Arc<StreamingProcessor> {
    Arc::new(StreamingProcessor::new(bytes).expect("not zero"))
}

/// Threads of pools in this process.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    // A thread that has ended meanwhile has no name.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "fc-worker").count()
}

/// Whether there are so many threads of pools, once those that end have left the system's list and those that begin have
/// their names.
fn has_threads(expected: usize) -> bool {
    comes_true(|| threads() == expected)
}

/// Waits for what other threads bring about; whether it came.
fn comes_true(condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Doubles numbers; 13 panics.
fn doubling() -> impl Work<u64, u64> {
    (
        |_: &u64| LARGE,
        |number: u64, _: &mut ScratchBuffers| {
            assert_ne!(number, 13, "thirteen");
            number * 2
        },
    )
}

fn received(pool: &mut WorkerPool<u64, u64>) -> Vec<Result<u64, String>> {
    std::iter::from_fn(|| pool.recv_ordered()).map(|result| result.map_err(|error| error.to_string())).collect()
}

#[test]
fn a_panic_yields_an_error_in_its_place_with_one_worker_and_with_two() {
    let _alone = alone();
    for workers in [0, 1, 2] {
        let mut pool = WorkerPool::new(workers, budget(100 * LARGE), doubling());
        for number in 10..20 {
            pool.submit(number).expect("room");
        }
        let results = received(&mut pool);
        assert_eq!(results.len(), 10);
        for (number, result) in (10..20).zip(results) {
            match result {
                Ok(double) => assert_eq!((double, number == 13), (number * 2, false)),
                Err(error) => assert!(number == 13 && error.contains("thirteen"), "{number}: {error}"),
            }
        }
    }
}

#[test]
fn shutdown_after_a_panic_returns_it() {
    let _alone = alone();
    let mut pool = WorkerPool::new(2, budget(100 * LARGE), doubling());
    for number in [1, 13, 2] {
        pool.submit(number).expect("room");
    }
    let results = pool.shutdown();
    assert!(matches!(&results[..], [Ok(2), Err(Error::Panicked { .. }), Ok(4)]), "{results:?}");
}

#[test]
fn a_worker_goes_on_after_a_panic() {
    let _alone = alone();
    let mut pool = WorkerPool::new(1, budget(100 * LARGE), doubling());
    for _ in 0..3 {
        pool.submit(13).expect("room");
        assert!(matches!(pool.recv_ordered(), Some(Err(Error::Panicked { .. }))));
    }
    pool.submit(4).expect("the only worker is still there");
    assert_eq!(received(&mut pool), [Ok(8)]);
    assert_eq!(pool.stats().threads, 1);
}

#[test]
fn submitting_far_more_than_fits_before_reading_gives_the_item_back() {
    let _alone = alone();
    let mut pool = WorkerPool::new(2, budget(8 * LARGE), doubling());
    for number in 20..28 {
        pool.submit(number).expect("room");
    }
    for _ in 0..100 {
        assert!(matches!(pool.submit(99), Err(SubmitError::Full(99))));
    }
    assert!(matches!(pool.recv_ordered(), Some(Ok(40))));
    pool.submit(28).expect("room for one");
    assert_eq!(received(&mut pool), (21..29).map(|number| Ok(number * 2)).collect::<Vec<_>>());
    let mut sum = 0;
    let count = pool.process((100..1100).map(Ok::<_, Error>), |double| {
        sum += double;
        Ok(())
    });
    assert_eq!((count.expect("no panic"), sum), (1000, (100..1100).sum::<u64>() * 2));
}

#[test]
fn shutdown_with_unread_results_returns_all_of_them() {
    let _alone = alone();
    let mut pool = WorkerPool::new(2, budget(20 * LARGE), doubling());
    for number in 0..10 {
        pool.submit(number).expect("room");
    }
    let results: Vec<_> = pool.shutdown().into_iter().map(|result| result.expect("no panic")).collect();
    assert_eq!(results, (0..10).map(|number| number * 2).collect::<Vec<_>>());
    assert!(has_threads(0));
}

#[test]
fn without_workers_the_submitting_thread_works() {
    let _alone = alone();
    let here = std::thread::current().id();
    let work = (|_: &()| LARGE, move |(): (), _: &mut ScratchBuffers| std::thread::current().id() == here);
    let mut pool = WorkerPool::new(0, budget(LARGE), work);
    assert!(matches!(pool.submit(()), Ok(())));
    assert_eq!(pool.stats().on_caller, 1);
    assert!(has_threads(0));
    assert!(matches!(pool.recv_ordered(), Some(Ok(true))));
    assert!(pool.recv_ordered().is_none());
}

#[test]
fn with_nothing_submitted_there_is_nothing_to_receive() {
    let _alone = alone();
    let mut pool = WorkerPool::new(2, budget(LARGE), doubling());
    assert!(pool.recv_ordered().is_none());
    assert!(matches!(pool.try_recv_ordered(), Poll::Ready(None)));
    assert_eq!(pool.outstanding(), 0);
    assert!(has_threads(0));
    assert_eq!(pool.process(std::iter::empty::<Result<u64, Error>>(), |_| Ok(())).expect("nothing"), 0);
    assert!(pool.shutdown().is_empty());
}

/// Work whose items say when they began, and wait until they are let go.
fn gated() -> (impl Work<u64, u64>, Receiver<u64>, Sender<()>) {
    let (began, begun) = channel();
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let work = (
        |_: &u64| LARGE,
        move |number: u64, _: &mut ScratchBuffers| {
            began.send(number).expect("somebody listens");
            if number == 0 {
                gate.lock().expect("no panic").recv().expect("somebody lets it go");
            }
            number
        },
    );
    (work, begun, go)
}

#[test]
fn a_slow_first_item_holds_back_no_more_than_the_budget() {
    let _alone = alone();
    let (work, begun, go) = gated();
    let all = budget(5 * LARGE);
    let mut pool = WorkerPool::new(2, Arc::clone(&all), work);
    for number in 0..5 {
        pool.submit(number).expect("room");
    }
    // The other worker did all others; their results wait for the first one.
    assert!(comes_true(|| pool.stats().sequence_ring_stats.reorder_buffer_size == 4));
    assert_eq!(begun.try_iter().count(), 5);
    assert!(matches!(pool.submit(5), Err(SubmitError::Full(5))));
    assert!(pool.try_recv_ordered().is_pending());
    assert_eq!((all.stats().current_memory_bytes, all.stats().peak_memory_bytes), (5 * LARGE, 5 * LARGE));
    go.send(()).expect("the worker waits");
    assert_eq!(std::iter::from_fn(|| pool.recv_ordered()).map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(all.stats().current_memory_bytes, 0);
    assert_eq!((all.stats().records_processed, all.stats().bytes_processed), (5, 5 * LARGE as u64));
}

#[test]
fn free_items_are_bounded_by_the_window() {
    let _alone = alone();
    let mut pool = WorkerPool::new(1, budget(1), (|_: &u64| 0, |number: u64, _: &mut ScratchBuffers| number));
    for number in 0..WINDOW.get() as u64 {
        pool.submit(number).expect("room");
    }
    assert!(matches!(pool.submit(0), Err(SubmitError::Full(0))));
    assert_eq!(received(&mut pool).len(), WINDOW.get());
}

#[test]
fn a_budget_of_nothing_is_refused_and_a_huge_one_is_not() {
    assert!(matches!(StreamingProcessor::new(0), Err(Error::Argument { argument: "max_memory_bytes", .. })));
    let huge = budget(usize::MAX);
    assert_eq!((huge.stats().memory_utilization_percent, huge.is_memory_pressure()), (0, false));
    let all = huge.try_acquire(usize::MAX).expect("all of it");
    assert_eq!((huge.stats().memory_utilization_percent, huge.is_memory_pressure()), (100, true));
    assert!(huge.try_acquire(1).is_none());
    drop(all);
}

#[test]
fn pressure_begins_above_four_fifths() {
    let budget = budget(1000);
    let most = budget.try_acquire(800).expect("room");
    assert!(!budget.is_memory_pressure());
    let more = budget.try_acquire(1).expect("room");
    assert!(budget.is_memory_pressure());
    drop((most, more));
    assert_eq!((budget.stats().peak_memory_bytes, budget.stats().current_memory_bytes), (801, 0));
}

#[test]
fn nothing_exceeds_the_limit() {
    let _alone = alone();
    let budget = budget(1000);
    let part = Arc::new(budget.part(600).expect("room"));
    assert!(budget.part(401).is_none() && budget.part(0).is_none() && part.try_acquire(601).is_none());
    assert!(matches!(part.acquire(601), Err(Error::TooLarge { bytes: 601, limit: 600, .. })));
    let mut pool = WorkerPool::new(1, Arc::clone(&part), (|cost: &usize| *cost, |cost, _: &mut ScratchBuffers| cost));
    assert!(matches!(pool.submit(601), Err(SubmitError::TooLarge { input: 601, cost: 601, limit: 600 })));
    let process = pool.process([Ok::<_, Error>(600), Ok(601)], |_| Ok(()));
    assert!(matches!(process, Err(Error::TooLarge { bytes: 601, .. })));
    drop((pool, part));
    assert_eq!((budget.stats().peak_memory_bytes, budget.stats().current_memory_bytes), (600, 0));
}

#[test]
fn a_large_item_does_not_leave_its_scratch_behind() {
    let _alone = alone();
    let work = (
        |_: &usize| LARGE,
        |grow: usize, scratch: &mut ScratchBuffers| {
            let before = (scratch.capacity(), scratch.byte_buffer.len() + scratch.string_buffer.len());
            scratch.byte_buffer.resize(grow, 1);
            scratch.string_buffer.push('x');
            before
        },
    );
    let mut pool = WorkerPool::new(1, budget(100 * LARGE), work);
    for grow in [64 << 20, 1000, 13] {
        pool.submit(grow).expect("room");
    }
    let found: Vec<_> = std::iter::from_fn(|| pool.recv_ordered()).map(Result::unwrap).collect();
    assert!(found.iter().all(|(capacity, length)| *length == 0 && *capacity <= (4 << 20) + 100), "{found:?}");
    assert!(found[1].0 >= 4 << 20, "{found:?}");
}

#[test]
fn dropping_discards_what_was_not_begun_and_waits_for_what_was() {
    let _alone = alone();
    assert!(has_threads(0));
    let (work, begun, go) = gated();
    let all = budget(100 * LARGE);
    let mut pool = WorkerPool::new(1, Arc::clone(&all), work);
    assert!(has_threads(0));
    for number in [0, 1, 2, 3] {
        pool.submit(number).expect("room");
    }
    assert_eq!(begun.recv().expect("the first"), 0);
    assert!(has_threads(1));
    let freed = Arc::clone(&all);
    let letting_go = std::thread::spawn(move || {
        // What was not begun gives its permits back before the drop waits for what was.
        while freed.stats().current_memory_bytes > LARGE {
            std::thread::yield_now();
        }
        go.send(()).expect("the worker waits");
    });
    drop(pool);
    letting_go.join().expect("no panic");
    assert_eq!((all.stats().current_memory_bytes, begun.try_iter().count()), (0, 0));
    assert!(has_threads(0));
}

#[test]
fn threads_start_with_the_first_large_item_and_only_as_many_as_are_needed() {
    let _alone = alone();
    let mut pool = WorkerPool::new(8, budget(100 * LARGE), (|cost: &usize| *cost, |_, _: &mut ScratchBuffers| ()));
    for _ in 0..10 {
        pool.submit(LARGE - 1).expect("room");
    }
    assert_eq!((pool.stats().threads, pool.stats().on_caller), (0, 10));
    assert!(has_threads(0));
    pool.submit(LARGE).expect("room");
    assert_eq!((pool.stats().threads, pool.stats().on_caller), (1, 10));
    assert!(has_threads(1));
    while let Some(result) = pool.recv_ordered() {
        result.expect("no panic");
    }
    pool.cancel();
    assert!(has_threads(0));
    pool.submit(LARGE).expect("a cancelled pool is as if new");
    assert_eq!(pool.shutdown().len(), 1);
    assert!(has_threads(0));
}

#[test]
fn an_error_of_input_or_sink_cancels_and_gives_everything_back() {
    let _alone = alone();
    let all = budget(4 * LARGE);
    let mut pool = WorkerPool::new(2, Arc::clone(&all), doubling());
    let failed = || Error::Argument { argument: "x", expected: "y".into(), found: "z".into() };
    for at in [0, 1, 2, 7, 8] {
        let inputs = (0..9).map(|number| if number == at { Err(failed()) } else { Ok(number) });
        assert!(matches!(pool.process(inputs, |_| Ok(())), Err(Error::Argument { .. })));
        assert_eq!((all.stats().current_memory_bytes, pool.outstanding()), (0, 0));
        assert!(has_threads(0));
        let sink = |double| if double == at * 2 { Err(failed()) } else { Ok(()) };
        assert!(matches!(pool.process((0..9).map(Ok), sink), Err(Error::Argument { .. })));
        assert_eq!((all.stats().current_memory_bytes, pool.outstanding()), (0, 0));
        assert!(has_threads(0));
        let inputs = (13 - at..20).map(Ok::<_, Error>);
        assert!(matches!(pool.process(inputs, |_| Ok(())), Err(Error::Panicked { .. })));
        assert_eq!(all.stats().current_memory_bytes, 0);
        assert!(has_threads(0));
    }
}

#[test]
fn pools_of_one_budget_wait_for_each_other_and_not_for_themselves() {
    let _alone = alone();
    let all = budget(3 * LARGE);
    let working = |offset: u64| {
        let mut pool = WorkerPool::new(2, Arc::clone(&all), doubling());
        let mut sum = 0;
        let inputs = (100..600).map(|number| Ok::<_, Error>(number + offset));
        pool.process(inputs, |double| {
            sum += double;
            Ok(())
        })
        .map(|_| sum)
    };
    let sums = std::thread::scope(|scope| {
        let others: Vec<_> = (1..4).map(|offset| scope.spawn(move || working(offset))).collect();
        others.into_iter().map(|other| other.join().expect("no panic").expect("no error")).collect::<Vec<_>>()
    });
    let expected = |offset: u64| (100..600).map(|number| (number + offset) * 2).sum::<u64>();
    assert_eq!(sums, [expected(1), expected(2), expected(3)]);
    assert_eq!(all.stats().current_memory_bytes, 0);
    assert!(has_threads(0));
    assert!(all.stats().peak_memory_bytes <= 3 * LARGE);
}

#[test]
#[allow(unsafe_code)]
fn a_forked_child_has_an_empty_pool_and_starts_its_own_threads() {
    let _alone = alone();
    // Not `gated`: the worker may hold a lock of its channel while the process is forked.
    let (began, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begin, gate) = (Arc::clone(&began), Arc::clone(&go));
    let work = (
        |_: &u64| LARGE,
        move |number: u64, _: &mut ScratchBuffers| {
            begin.store(true, Ordering::SeqCst);
            while number == 0 && !gate.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            number
        },
    );
    let all = budget(2 * LARGE);
    let mut pool = WorkerPool::new(1, Arc::clone(&all), work);
    pool.submit(0).expect("room");
    pool.submit(1).expect("room");
    assert!(comes_true(|| began.load(Ordering::SeqCst)));
    // SAFETY: the child uses locks that no other thread of its parent holds now: the worker waits at the gate.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let clean = has_threads(0) && pool.outstanding() == 0 && all.stats().current_memory_bytes == 0;
        let worked = pool.submit(5).is_ok() && pool.submit(6).is_ok() && has_threads(1);
        let results: Vec<_> = std::iter::from_fn(|| pool.recv_ordered()).filter_map(Result::ok).collect();
        drop(pool);
        let well = clean && worked && results == [5, 6] && has_threads(0);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!well)) }
    }
    let mut status = -1;
    // SAFETY: waits for the child of this test.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    go.store(true, Ordering::SeqCst);
    assert_eq!(status, 0);
    assert_eq!(std::iter::from_fn(|| pool.recv_ordered()).map(Result::unwrap).collect::<Vec<_>>(), [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_output_is_that_of_a_sequential_run(
        items in prop::collection::vec((any::<u32>(), 0usize..3 * LARGE, 0u32..2000), 0..80),
        workers in 0usize..5, bytes in 3 * LARGE..9 * LARGE,
    ) {
        let _alone = alone();
        let now = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&now);
        let all = budget(bytes);
        let work = (|item: &(u32, usize, u32)| item.1, move |(number, cost, turns): (u32, usize, u32), _: &mut ScratchBuffers| {
            let most = counted.fetch_add(cost, Ordering::Relaxed) + cost;
            let mixed = (0..turns).fold(number, |mixed, turn| mixed.rotate_left(5) ^ turn);
            counted.fetch_sub(cost, Ordering::Relaxed);
            assert!(most <= bytes, "more in work than the budget has");
            mixed
        });
        let mut pool = WorkerPool::new(workers, Arc::clone(&all), work);
        let mut results = Vec::new();
        let count = pool.process(items.iter().copied().map(Ok::<_, Error>), |result| {
            results.push(result);
            Ok(())
        });
        let sequential: Vec<_> =
            items.iter().map(|(number, _, turns)| (0..*turns).fold(*number, |mixed, turn| mixed.rotate_left(5) ^ turn)).collect();
        prop_assert_eq!(count.expect("no panic"), items.len() as u64);
        prop_assert_eq!(results, sequential);
        prop_assert!(all.stats().peak_memory_bytes <= bytes && all.stats().current_memory_bytes == 0);
        drop(pool);
        prop_assert_eq!(now.load(Ordering::Relaxed), 0);
        prop_assert!(has_threads(0));
    }
}
