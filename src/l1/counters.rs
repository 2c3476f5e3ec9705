//! What a cache counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that many threads add to.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn count(&self) {
        self.add(1);
    }

    /// In the Python build only a thread that holds the GIL adds, so that no atomic addition is needed.
    #[inline]
    pub(super) fn add(&self, number: u64) {
        if cfg!(feature = "python") {
            self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
        } else {
            self.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) evicted: Counter,
    pub(super) expired: Counter,
    pub(super) invalidated: Counter,
    pub(super) rejected: Counter,
}

/// Sizes, and counts since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries, those included that expired and were not removed yet.
    pub entries: u64,
    /// What they take, in bytes, with their places in the table.
    pub bytes: u64,
    /// What entries and table may take.
    pub max_bytes: u64,
    /// Reads that were served.
    pub hits: u64,
    /// Reads that were not.
    pub misses: u64,
    /// Entries removed to make room.
    pub evicted: u64,
    /// Entries removed because they may not be served any more.
    pub expired: u64,
    /// Entries removed because a guard did not hold any more.
    pub invalidated: u64,
    /// Entries that were not taken: too large, or out of date already.
    pub rejected: u64,
}
