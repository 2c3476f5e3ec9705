//! Results that come in any order, handed on in the order in which their places were reserved.

use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::num::NonZeroUsize;
use std::task::Poll;

/// A ring of places, one for each item that was begun and not handed on yet.
///
/// A place is [reserved](Self::reserve) before the item's work begins, and is filled when it is done; what is not
/// filled is abandoned when its [`Reserved`] is dropped. So every place that was reserved yields exactly one result, in
/// order, and the ring never holds more than its window: a place is free again when its result was handed on.
///
/// ```
/// use framecache::memory::SequenceRing;
/// use std::{num::NonZeroUsize, sync::Arc};
/// let ring = Arc::new(SequenceRing::new(NonZeroUsize::MIN.saturating_add(1)));
/// let (first, second) = (SequenceRing::reserve(&ring).unwrap(), SequenceRing::reserve(&ring).unwrap());
/// assert!(SequenceRing::reserve(&ring).is_none());
/// second.fill("second");
/// assert!(ring.try_recv_ordered().is_pending());
/// first.fill("first");
/// assert_eq!(ring.recv_ordered(), Some(Ok("first")));
/// assert_eq!(ring.recv_ordered(), Some(Ok("second")));
/// assert_eq!(ring.recv_ordered(), None);
/// ```
#[derive(Debug)]
pub struct SequenceRing<T> {
    state: Mutex<State<T>>,
    /// The result that is handed on next is there.
    ready: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// That of sequence `n` is `n % slots.len()`.
    slots: Box<[Slot<T>]>,
    reserved: u64,
    emitted: u64,
    waiting: usize,
    peak: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Free,
    Reserved,
    Filled(Result<T, Abandoned>),
}

/// A place whose work ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

/// What [`SequenceRing::stats`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRingStats {
    /// The sequence number, from 0, of the result that is handed on next.
    pub next_sequence_id: u64,
    /// The sequence number that is reserved next.
    pub next_reserved_id: u64,
    /// Results that are there and not handed on yet.
    pub reorder_buffer_size: usize,
    /// The most places that were reserved at a time.
    pub peak_window_size: usize,
    /// The most places that can be.
    pub max_window_size: usize,
}

impl<T> SequenceRing<T> {
    /// A ring of so many places.
    pub fn new(window: NonZeroUsize) -> Self {
        let slots = (0..window.get()).map(|_| Slot::Free).collect();
        let state = State { slots, reserved: 0, emitted: 0, waiting: 0, peak: 0 };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// The next place; `None` while all are taken.
    pub fn reserve(ring: &Arc<Self>) -> Option<Reserved<T>> {
        let mut state = ring.lock();
        let taken = state.taken();
        if taken == state.slots.len() {
            return None;
        }
        let sequence = state.reserved;
        *state.slot(sequence) = Slot::Reserved;
        state.reserved += 1;
        state.peak = state.peak.max(taken + 1);
        drop(state);
        Some(Reserved { ring: Arc::clone(ring), sequence, filled: false })
    }

    /// The next result in order; waits for it. `None` where everything that was reserved was handed on.
    pub fn recv_ordered(&self) -> Option<Result<T, Abandoned>> {
        let mut state = self.lock();
        loop {
            match state.take() {
                Poll::Ready(taken) => return taken,
                Poll::Pending => {
                    state.waiting += 1;
                    state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
            }
        }
    }

    /// As [`Self::recv_ordered`]; pending where it would wait.
    pub fn try_recv_ordered(&self) -> Poll<Option<Result<T, Abandoned>>> {
        self.lock().take()
    }

    /// Places reserved and not handed on.
    pub fn outstanding(&self) -> usize {
        self.lock().taken()
    }

    /// How far it is.
    pub fn stats(&self) -> SequenceRingStats {
        let state = self.lock();
        SequenceRingStats {
            next_sequence_id: state.emitted,
            next_reserved_id: state.reserved,
            reorder_buffer_size: state.slots.iter().filter(|slot| matches!(slot, Slot::Filled(_))).count(),
            peak_window_size: state.peak,
            max_window_size: state.slots.len(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that runs under the lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, sequence: u64, result: Result<T, Abandoned>) {
        let mut state = self.lock();
        *state.slot(sequence) = Slot::Filled(result);
        let wake = sequence == state.emitted && state.waiting > 0;
        drop(state);
        if wake {
            // All: of several receivers, any may be the one whose turn it is.
            self.ready.notify_all();
        }
    }
}

impl<T> State<T> {
    fn taken(&self) -> usize {
        // At most the number of slots.
        (self.reserved - self.emitted) as usize
    }

    fn slot(&mut self, sequence: u64) -> &mut Slot<T> {
        let at = (sequence % self.slots.len() as u64) as usize;
        &mut self.slots[at]
    }

    fn take(&mut self) -> Poll<Option<Result<T, Abandoned>>> {
        if self.taken() == 0 {
            return Poll::Ready(None);
        }
        let slot = self.slot(self.emitted);
        match std::mem::replace(slot, Slot::Free) {
            Slot::Filled(result) => {
                self.emitted += 1;
                Poll::Ready(Some(result))
            }
            unfinished => {
                *slot = unfinished;
                Poll::Pending
            }
        }
    }
}

/// A place in a [`SequenceRing`] that is to be filled; dropped before, it is handed on as [`Abandoned`].
#[derive(Debug)]
pub struct Reserved<T> {
    ring: Arc<SequenceRing<T>>,
    sequence: u64,
    filled: bool,
}

impl<T> Reserved<T> {
    /// Its sequence number, from 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Puts the result in its place.
    pub fn fill(mut self, result: T) {
        self.filled = true;
        self.ring.put(self.sequence, Ok(result));
    }
}

impl<T> Drop for Reserved<T> {
    fn drop(&mut self) {
        if !self.filled {
            self.ring.put(self.sequence, Err(Abandoned));
        }
    }
}
