//! Ordered work on plain threads.

use super::budget::{Permit, StreamingProcessor};
use super::ring::{Abandoned, SequenceRing, SequenceRingStats};
use super::scratch::ScratchBuffers;
use super::worker::{Job, Jobs, run};
use crate::error::{Error, Result};
use crate::fork::PerProcess;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// Items that cost less than this are worked on by the thread that submits them: 32 KiB. Handing one to a worker and
/// back costs about what sealing so much does.
pub const ON_CALLER_BELOW: usize = 32 << 10;

/// The most items that are in a pool at a time, whatever they cost.
pub const WINDOW: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// What workers do with an item. A pair of closures, for the two methods, is one.
pub trait Work<I, O>: Send + Sync + 'static {
    /// The most bytes that the item and its result take while they are in the pool.
    fn cost(&self, input: &I) -> usize;

    /// Works on an item, with buffers that are empty at the start.
    fn run(&self, input: I, scratch: &mut ScratchBuffers) -> O;
}

impl<I, O, C, R> Work<I, O> for (C, R)
where
    C: Fn(&I) -> usize + Send + Sync + 'static,
    R: Fn(I, &mut ScratchBuffers) -> O + Send + Sync + 'static,
{
    fn cost(&self, input: &I) -> usize {
        self.0(input)
    }

    fn run(&self, input: I, scratch: &mut ScratchBuffers) -> O {
        self.1(input, scratch)
    }
}

/// Workers that yield one result for each item, in the order of the items.
///
/// - An item whose work panics yields an [`Error::Panicked`] in its place; its worker goes on.
/// - Items in progress and results that were not received hold permits of the budget, and never more than that:
///   [`Self::submit`] gives back an item for which there is no room instead of waiting for a receiver.
/// - Threads start with the first item that is large enough for them. With 0 workers, all work is done by the thread that
///   submits. A forked child has a pool without items, and starts threads of its own.
/// - Dropping the pool discards what was not begun, waits for what was, and ends the threads.
///
/// ```
/// use framecache::memory::{ScratchBuffers, StreamingProcessor, WorkerPool};
/// use std::sync::Arc;
/// let budget = Arc::new(StreamingProcessor::new(1 << 20)?);
/// let squares = (|_: &u64| 50_000, |number: u64, _: &mut ScratchBuffers| number * number);
/// let mut pool = WorkerPool::new(2, budget, squares);
/// let mut sum = 0;
/// pool.process((1..=100).map(Ok), |square| {
///     sum += square;
///     Ok::<(), framecache::Error>(())
/// })?;
/// assert_eq!(sum, 338_350);
/// # Ok::<(), framecache::Error>(())
/// ```
pub struct WorkerPool<I: Send + 'static, O: Send + 'static> {
    work: Arc<dyn Work<I, O>>,
    budget: Arc<StreamingProcessor>,
    workers: usize,
    own: PerProcess<Own<I, O>>,
}

/// A result on its way to the receiver.
pub(super) struct Done<O> {
    pub(super) result: Result<O>,
    pub(super) permit: Permit,
}

struct Own<I: Send + 'static, O: Send + 'static> {
    ring: Arc<SequenceRing<Done<O>>>,
    jobs: Jobs<I, O>,
    /// Of the thread that submits.
    scratch: Mutex<ScratchBuffers>,
}

impl<I: Send + 'static, O: Send + 'static> Own<I, O> {
    fn new() -> Self {
        Self { ring: Arc::new(SequenceRing::new(WINDOW)), jobs: Jobs::new(), scratch: Mutex::default() }
    }
}

/// Why an item was not accepted. It comes back.
#[derive(Debug)]
pub enum SubmitError<I> {
    /// There is no room for it until a result is received, or another pool of the budget gives room back.
    Full(I),
    /// There never will be.
    TooLarge {
        /// The item.
        input: I,
        /// What it costs.
        cost: usize,
        /// What the budget has.
        limit: usize,
    },
}

/// What [`WorkerPool::stats`] returns. Counts are of this process, since the pool was made or last cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerPoolStats {
    /// The most threads that there will be.
    pub num_workers: usize,
    /// Threads that were started.
    pub threads: usize,
    /// The sequence number, from 0, of the item that is submitted next.
    pub next_input_sequence: u64,
    /// Items that the submitting thread worked on.
    pub on_caller: u64,
    /// Of results, and of the most that were in the pool at a time.
    pub sequence_ring_stats: SequenceRingStats,
}

impl<I: Send + 'static, O: Send + 'static> WorkerPool<I, O> {
    /// A pool of at most `workers` threads, none of which is started yet.
    pub fn new(workers: usize, budget: Arc<StreamingProcessor>, work: impl Work<I, O>) -> Self {
        Self::shared(workers, budget, Arc::new(work))
    }

    /// As [`Self::new`], with work that the caller holds too.
    pub fn shared(workers: usize, budget: Arc<StreamingProcessor>, work: Arc<impl Work<I, O>>) -> Self {
        Self { work, budget, workers, own: PerProcess::new() }
    }

    /// Accepts an item, if there is room for it and its result. Never waits for a receiver.
    ///
    /// A small item, and every one where there are no workers, is worked on before this returns.
    ///
    /// # Errors
    /// [`SubmitError`], with the item.
    pub fn submit(&mut self, input: I) -> Result<(), SubmitError<I>> {
        let cost = self.work.cost(&input);
        if cost > self.budget.limit() {
            return Err(SubmitError::TooLarge { input, cost, limit: self.budget.limit() });
        }
        match self.budget.try_acquire(cost) {
            Some(permit) => self.accept(input, permit),
            None => Err(SubmitError::Full(input)),
        }
    }

    /// Begins an item that has its permit.
    fn accept(&self, input: I, permit: Permit) -> Result<(), SubmitError<I>> {
        let own = self.own.get(Own::new);
        let Some(slot) = SequenceRing::reserve(&own.ring) else { return Err(SubmitError::Full(input)) };
        let small = permit.bytes() < ON_CALLER_BELOW;
        let job = Job { input, slot, permit };
        let rejected = match self.workers {
            0 => Some(job),
            _ if small => Some(job),
            workers => own.jobs.give(job, workers, &self.work),
        };
        if let Some(job) = rejected {
            own.jobs.count_on_caller();
            run(&*self.work, job, &mut own.scratch.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    /// The next result in order; waits until its work is done. `None` where every item's result was received, as where
    /// nothing was submitted.
    ///
    /// # Errors
    /// [`Error::Panicked`] in place of the result of an item whose work panicked.
    pub fn recv_ordered(&mut self) -> Option<Result<O>> {
        let received = self.own.current()?.ring.recv_ordered()?;
        Some(self.hand_on(received))
    }

    /// As [`Self::recv_ordered`]; pending where it would wait.
    pub fn try_recv_ordered(&mut self) -> Poll<Option<Result<O>>> {
        let Some(own) = self.own.current() else { return Poll::Ready(None) };
        own.ring.try_recv_ordered().map(|received| received.map(|received| self.hand_on(received)))
    }

    fn hand_on(&self, received: Result<Done<O>, Abandoned>) -> Result<O> {
        match received {
            Ok(done) => {
                self.budget.record_processed(1, done.permit.bytes() as u64);
                done.result
            }
            Err(Abandoned) => Err(Error::Panicked { found: "its item without a result".to_owned() }),
        }
    }

    /// Items whose results were not received yet.
    pub fn outstanding(&self) -> usize {
        self.own.current().map_or(0, |own| own.ring.outstanding())
    }

    /// Works through `inputs`: submits them as there is room and gives the results to `sink`, in order. Returns how many
    /// there were.
    ///
    /// Waits for room that other pools of the budget have, where it has none itself.
    ///
    /// # Errors
    /// The first one of inputs, work and `sink`, [`Error::TooLarge`] for an item that costs more than the budget; the pool
    /// is then cancelled, and as if new.
    pub fn process<E: From<Error>>(
        &mut self,
        inputs: impl IntoIterator<Item = Result<I, E>>,
        mut sink: impl FnMut(O) -> Result<(), E>,
    ) -> Result<u64, E> {
        self.process_all(inputs, &mut sink).inspect_err(|_| self.cancel())
    }

    fn process_all<E: From<Error>>(
        &mut self,
        inputs: impl IntoIterator<Item = Result<I, E>>,
        sink: &mut dyn FnMut(O) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut count = 0;
        for input in inputs {
            let mut submitted = self.submit(input?);
            while let Err(SubmitError::Full(input)) = submitted {
                submitted = match self.recv_ordered() {
                    Some(result) => {
                        sink(result?)?;
                        self.submit(input)
                    }
                    // Other pools have it all. Nothing is held here, so that they do not wait for this one.
                    None => {
                        let permit = self.budget.acquire(self.work.cost(&input))?;
                        self.accept(input, permit)
                    }
                };
            }
            if let Err(SubmitError::TooLarge { cost, limit, .. }) = submitted {
                return Err(Error::TooLarge { place: "item (budget of its pool)", bytes: cost, limit }.into());
            }
            count += 1;
            while let Poll::Ready(Some(result)) = self.try_recv_ordered() {
                sink(result?)?;
            }
        }
        while let Some(result) = self.recv_ordered() {
            sink(result?)?;
        }
        Ok(count)
    }

    /// Discards what was not begun and every result that was not received, waits for what was begun, and ends the
    /// threads.
    pub fn cancel(&mut self) {
        self.own = PerProcess::new();
    }

    /// Waits for all work, and ends the threads; returns the results that were not received, in order.
    pub fn shutdown(mut self) -> Vec<Result<O>> {
        std::iter::from_fn(|| self.recv_ordered()).collect()
    }

    /// How far it is.
    pub fn stats(&self) -> WorkerPoolStats {
        let own = self.own.get(Own::new);
        let ring = own.ring.stats();
        WorkerPoolStats {
            num_workers: self.workers,
            threads: own.jobs.threads(),
            next_input_sequence: ring.next_reserved_id,
            on_caller: own.jobs.on_caller(),
            sequence_ring_stats: ring,
        }
    }
}

impl<I: Send + 'static, O: Send + 'static> fmt::Debug for WorkerPool<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}
