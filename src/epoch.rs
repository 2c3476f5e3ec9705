//! Epochs: how a copy of an entry sees that the entry may have changed.
//!
//! A table of counters, each for all entries, tags and namespaces whose hashes fall to it. Whoever changes one of them
//! moves its counter on: to an odd number before the change is visible, to the next even one after it (a seqlock's
//! counter). Whoever keeps a copy takes a [`Guard`] *before* it reads what it copies; the copy may be served while its
//! guards hold, which is one load each. Two names that share a counter cost a copy now and then, and nothing else.
//!
//! The same guards fence a late write: taken before a value is computed, they do not hold any more once somebody deleted,
//! replaced or invalidated what the value is for.
//!
//! ```
//! # use framecache::epoch::Epochs;
//! let epochs = Epochs::private();
//! let (guard, other) = (epochs.guard(7), epochs.guard(8));
//! epochs.bump(7);
//! assert!(!epochs.holds(guard) && epochs.holds(other));
//! ```
#![allow(unsafe_code)]

use memmap2::MmapMut;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// How many counters a table has.
pub const EPOCHS: usize = 1 << 16;
/// The bytes of a table: 256 KiB.
pub const TABLE_BYTES: usize = EPOCHS * size_of::<AtomicU32>();

/// A counter and what it stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which counter.
    pub place: u16,
    /// What it stood at; odd while what it counts was being changed, and such a guard never holds.
    pub count: u32,
}

impl Guard {
    /// Its bytes: place and count, little-endian.
    pub fn to_bytes(self) -> [u8; 6] {
        let ([a, b], [c, d, e, f]) = (self.place.to_le_bytes(), self.count.to_le_bytes());
        [a, b, c, d, e, f]
    }

    /// The guard of these bytes.
    pub fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self { place: u16::from_le_bytes([a, b]), count: u32::from_le_bytes([c, d, e, f]) }
    }
}

/// A table of counters, of this process or of all that share a mapping.
#[derive(Debug)]
pub struct Epochs(Table);

#[derive(Debug)]
enum Table {
    Private(Box<[AtomicU32]>),
    /// At least [`TABLE_BYTES`] of them, aligned to a page.
    Shared(MmapMut),
}

impl Epochs {
    /// A table of this process alone.
    pub fn private() -> Self {
        Self(Table::Private((0..EPOCHS).map(|_| AtomicU32::new(0)).collect()))
    }

    /// The table in a shared mapping whose other users look at it through this type too. `None` for one of less than
    /// [`TABLE_BYTES`].
    pub fn shared(mapping: MmapMut) -> Option<Self> {
        (mapping.len() >= TABLE_BYTES).then_some(Self(Table::Shared(mapping)))
    }

    #[inline]
    fn counters(&self) -> &[AtomicU32] {
        match &self.0 {
            Table::Private(counters) => counters,
            // SAFETY: `shared` checked the length; a mapping is aligned to its page and lives as long as `self`, and all
            // who share it use atomics.
            Table::Shared(mapping) => unsafe { std::slice::from_raw_parts(mapping.as_ptr().cast(), EPOCHS) },
        }
    }

    #[inline]
    fn counter(&self, hash: u64) -> &AtomicU32 {
        &self.counters()[hash as usize % EPOCHS]
    }

    /// Where the counter of `hash` stands. To be taken before what it guards is read.
    #[inline]
    pub fn guard(&self, hash: u64) -> Guard {
        let place = (hash as usize % EPOCHS) as u16;
        Guard { place, count: self.counters()[usize::from(place)].load(Ordering::Acquire) }
    }

    /// Whether nothing changed since the guard was taken, and nothing was being changed then.
    #[inline]
    pub fn holds(&self, guard: Guard) -> bool {
        guard.count & 1 == 0 && self.counters()[usize::from(guard.place)].load(Ordering::Acquire) == guard.count
    }

    /// What `hash` stands for is about to change. Only one thread of all processes may be between this and
    /// [`Self::end`].
    pub fn begin(&self, hash: u64) {
        let counter = self.counter(hash);
        counter.store(counter.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The change that [`Self::begin`] announced is visible, or was given up.
    pub fn end(&self, hash: u64) {
        let counter = self.counter(hash);
        let count = counter.load(Ordering::Relaxed);
        counter.store((count | 1).wrapping_add(1), Ordering::Release);
    }

    /// As [`Self::begin`] and [`Self::end`] in one, by any thread: for changes that are made in one step.
    pub fn bump(&self, hash: u64) {
        self.counter(hash).fetch_add(2, Ordering::AcqRel);
    }

    /// Ends every change that was begun, by a writer that does not live any more.
    pub fn end_all(&self) {
        for counter in self.counters() {
            if counter.load(Ordering::Relaxed) & 1 == 1 {
                counter.fetch_add(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_taken_during_a_change_never_holds() {
        let epochs = Epochs::private();
        let before = epochs.guard(5);
        epochs.begin(5);
        let during = epochs.guard(5);
        assert!(!epochs.holds(before) && !epochs.holds(during));
        epochs.end(5);
        assert!(!epochs.holds(before) && !epochs.holds(during) && epochs.holds(epochs.guard(5)));
    }

    #[test]
    fn changes_that_a_dead_writer_began_are_ended() {
        let epochs = Epochs::private();
        epochs.begin(5);
        epochs.begin(5);
        epochs.end_all();
        assert_eq!(epochs.guard(5).count, 2);
        assert_eq!(epochs.guard(6).count, 0);
    }

    #[test]
    fn two_users_of_one_mapping_see_each_other() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(TABLE_BYTES as u64).unwrap();
        // SAFETY: only atomics look at the mapping.
        let map = || Epochs::shared(unsafe { MmapMut::map_mut(&file) }.unwrap()).unwrap();
        let (one, other) = (map(), map());
        let guard = one.guard(u64::MAX);
        other.bump(u64::MAX);
        assert!(!one.holds(guard));
    }

    #[test]
    fn a_guard_survives_its_bytes() {
        let guard = Guard { place: 0xabcd, count: 0x0123_4567 };
        assert_eq!(Guard::from_bytes(guard.to_bytes()), guard);
    }
}
