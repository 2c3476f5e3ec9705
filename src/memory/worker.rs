//! The threads of a [`WorkerPool`](super::WorkerPool), and the items that wait for them.

use super::budget::Permit;
use super::pool::{Done, Work};
use super::ring::Reserved;
use super::scratch::ScratchBuffers;
use crate::error::Error;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// The name of every worker thread.
const NAME: &str = "fc-worker";

/// An item on its way to a worker.
pub(super) struct Job<I, O> {
    pub(super) input: I,
    pub(super) slot: Reserved<Done<O>>,
    pub(super) permit: Permit,
}

/// Items that wait for a worker, and the workers. Dropping it discards the items and joins the workers.
pub(super) struct Jobs<I, O> {
    queue: Arc<Queue<I, O>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Queue<I, O> {
    state: Mutex<State<I, O>>,
    /// There is an item, or there will be none.
    changed: Condvar,
}

struct State<I, O> {
    waiting: VecDeque<Job<I, O>>,
    /// Workers that wait and were not woken yet.
    idle: usize,
    open: bool,
    on_caller: u64,
}

impl<I: Send + 'static, O: Send + 'static> Jobs<I, O> {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), idle: 0, open: true, on_caller: 0 };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        Self { queue, threads: Mutex::default() }
    }

    /// Gives an item to a worker, of which there may be `workers`; starts one if none is idle. The item comes back where
    /// there is none and the system starts none.
    pub(super) fn give(&self, job: Job<I, O>, workers: usize, work: &Arc<dyn Work<I, O>>) -> Option<Job<I, O>> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = self.queue.lock().idle == 0;
        if busy && threads.len() < workers {
            let (queue, work) = (Arc::clone(&self.queue), Arc::clone(work));
            let started = Builder::new().name(NAME.to_owned()).spawn(move || queue.work_off(&*work));
            match started {
                Ok(thread) => threads.push(thread),
                Err(_) if threads.is_empty() => return Some(job),
                // Those that run do it all.
                Err(_) => {}
            }
        }
        let mut state = self.queue.lock();
        state.waiting.push_back(job);
        if state.idle > 0 {
            state.idle -= 1;
            drop(state);
            self.queue.changed.notify_one();
        }
        None
    }

    pub(super) fn count_on_caller(&self) {
        self.queue.lock().on_caller += 1;
    }

    pub(super) fn on_caller(&self) -> u64 {
        self.queue.lock().on_caller
    }

    /// Workers that were started.
    pub(super) fn threads(&self) -> usize {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<I, O> Drop for Jobs<I, O> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.open = false;
        let discarded = std::mem::take(&mut state.waiting);
        drop(state);
        self.queue.changed.notify_all();
        drop(discarded);
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Workers catch the panics of their work, and have none of their own.
            let _ = thread.join();
        }
    }
}

impl<I, O> Queue<I, O> {
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: 'static, O: 'static> Queue<I, O> {
    fn work_off(&self, work: &dyn Work<I, O>) {
        let mut scratch = ScratchBuffers::new();
        while let Some(job) = self.next() {
            run(work, job, &mut scratch);
        }
    }

    /// The next item; waits for it. `None` where there will be none.
    fn next(&self) -> Option<Job<I, O>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if !state.open {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Works on an item, and puts the result, or the panic, in its place.
pub(super) fn run<I: 'static, O: 'static>(work: &dyn Work<I, O>, job: Job<I, O>, scratch: &mut ScratchBuffers) {
    let Job { input, slot, permit } = job;
    // Of what a panic interrupts, only the scratch buffers are used again, and those are made anew.
    let result = catch_unwind(AssertUnwindSafe(|| work.run(input, scratch))).map_err(|panic| {
        *scratch = ScratchBuffers::new();
        Error::Panicked { found: text_of(panic) }
    });
    scratch.clear();
    slot.fill(Done { result, permit });
}

/// What a panic said. A payload of another type is leaked: dropping it may panic again.
fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| {
        std::mem::forget(panic);
        "a panic without a message".to_owned()
    })
}
