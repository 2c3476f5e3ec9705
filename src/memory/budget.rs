//! The bytes that work in progress may take.

use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::error::{Error, Result};
use crate::fork::{self, PerProcess};

/// The budget where nothing else is said: 256 MiB.
pub const DEFAULT_LIMIT: usize = 256 << 20;

/// A budget in bytes that pools share: whoever wants memory takes a [`Permit`] for it first.
///
/// The permits that are out never exceed the limit. Each process has its own count: a forked child starts with all of it.
///
/// ```
/// use framecache::memory::StreamingProcessor;
/// use std::sync::Arc;
/// let budget = Arc::new(StreamingProcessor::new(1000)?);
/// let permit = budget.try_acquire(900).expect("all of it is free");
/// assert!(budget.is_memory_pressure() && budget.try_acquire(101).is_none());
/// drop(permit);
/// assert_eq!((budget.stats().current_memory_bytes, budget.stats().peak_memory_bytes), (0, 900));
/// # Ok::<(), framecache::Error>(())
/// ```
pub struct StreamingProcessor {
    limit: usize,
    own: PerProcess<Own>,
    /// Of the budget that this is a part of.
    _part: Option<Permit>,
}

#[derive(Default)]
struct Own {
    counts: Mutex<Counts>,
    freed: Condvar,
}

#[derive(Default)]
struct Counts {
    current: usize,
    peak: usize,
    records: u64,
    bytes: u64,
    /// Those who wait are served in order, and before all who come later.
    next_ticket: u64,
    serving: u64,
}

/// What [`StreamingProcessor::stats`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamingProcessorStats {
    /// The limit.
    pub max_memory_bytes: usize,
    /// What permits stand for now.
    pub current_memory_bytes: usize,
    /// The most that they ever stood for.
    pub peak_memory_bytes: usize,
    /// How much of the limit is in use, rounded down.
    pub memory_utilization_percent: u8,
    /// Items that were handed on.
    pub records_processed: u64,
    /// The bytes that they were counted with.
    pub bytes_processed: u64,
}

impl StreamingProcessor {
    /// A budget of `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] for 0.
    pub fn new(limit: usize) -> Result<Self> {
        if limit == 0 {
            let expected = "1 byte or more".into();
            return Err(Error::Argument { argument: "max_memory_bytes", expected, found: "0".to_owned() });
        }
        Ok(Self::of(limit, None))
    }

    /// A budget of [`DEFAULT_LIMIT`].
    pub fn with_default_limit() -> Self {
        Self::of(DEFAULT_LIMIT, None)
    }

    fn of(limit: usize, part: Option<Permit>) -> Self {
        Self { limit, own: PerProcess::new(), _part: part }
    }

    /// A budget of its own that is a part of this one for as long as it lives; `None` where so much is not free, and
    /// for 0 bytes. Work under one part never waits for work under another.
    pub fn part(self: &Arc<Self>, bytes: usize) -> Option<Self> {
        (bytes > 0).then(|| self.try_acquire(bytes)).flatten().map(|permit| Self::of(bytes, Some(permit)))
    }

    /// A permit for `bytes`; `None` where so much is not free, or others wait for theirs.
    pub fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let mut counts = self.lock();
        (counts.serving == counts.next_ticket && counts.fits(bytes, self.limit)).then(|| self.grant(&mut counts, bytes))
    }

    /// A permit for `bytes`; waits for it, behind those who wait already. Who holds permits meanwhile may wait forever.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than the limit.
    pub fn acquire(self: &Arc<Self>, bytes: usize) -> Result<Permit> {
        if bytes > self.limit {
            return Err(Error::TooLarge { place: "item (budget of its pool)", bytes, limit: self.limit });
        }
        let mut counts = self.lock();
        let ticket = counts.next_ticket;
        counts.next_ticket += 1;
        while counts.serving != ticket || !counts.fits(bytes, self.limit) {
            counts = self.own().freed.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.serving += 1;
        let permit = self.grant(&mut counts, bytes);
        drop(counts);
        // The next one in order may fit too.
        self.own().freed.notify_all();
        Ok(permit)
    }

    fn grant(self: &Arc<Self>, counts: &mut Counts, bytes: usize) -> Permit {
        counts.current += bytes;
        counts.peak = counts.peak.max(counts.current);
        Permit { budget: Arc::clone(self), bytes, generation: fork::generation() }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether more than 80 % of the limit is in use.
    pub fn is_memory_pressure(&self) -> bool {
        self.lock().current as u128 * 5 > self.limit as u128 * 4
    }

    /// Counts `records` items of `bytes` bytes as handed on.
    pub fn record_processed(&self, records: u64, bytes: u64) {
        let mut counts = self.lock();
        counts.records = counts.records.saturating_add(records);
        counts.bytes = counts.bytes.saturating_add(bytes);
    }

    /// What is in use, and what was done.
    pub fn stats(&self) -> StreamingProcessorStats {
        let counts = self.lock();
        StreamingProcessorStats {
            max_memory_bytes: self.limit,
            current_memory_bytes: counts.current,
            peak_memory_bytes: counts.peak,
            // At most 100.
            memory_utilization_percent: (counts.current as u128 * 100 / self.limit as u128) as u8,
            records_processed: counts.records,
            bytes_processed: counts.bytes,
        }
    }

    fn own(&self) -> &Own {
        self.own.get(Own::default)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Every change is one assignment, or cannot panic.
        self.own().counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for StreamingProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

impl Counts {
    fn fits(&self, bytes: usize, limit: usize) -> bool {
        bytes <= limit - self.current
    }
}

/// So many bytes of a [`StreamingProcessor`]; given back when it is dropped.
pub struct Permit {
    budget: Arc<StreamingProcessor>,
    bytes: usize,
    generation: u64,
}

impl Permit {
    /// How many bytes it is for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A child's count never had the permits of its parent.
        if self.generation == fork::generation() {
            let mut counts = self.budget.lock();
            counts.current -= self.bytes;
            let wake = counts.serving != counts.next_ticket;
            drop(counts);
            if wake {
                self.budget.own().freed.notify_all();
            }
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({} bytes)", self.bytes)
    }
}
