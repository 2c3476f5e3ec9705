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

use memmap2::MmapRaw;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// How many counters a table has.
pub const EPOCHS: usize = 1 << 16;
/// Words of a table: the counters, then one that is not 0 while a change is being made, then 15 that are 0.
const WORDS: usize = EPOCHS + 16;
/// The bytes of a table: 256 KiB and 64.
pub const TABLE_BYTES: usize = WORDS * size_of::<AtomicU32>();

/// A counter and what it stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which counter.
    pub place: u16,
    /// What it stood at; odd while what it counts was being changed, and such a guard never holds.
    pub count: u32,
}

impl Guard {
    /// Bytes of its form.
    pub const LENGTH: usize = 6;

    /// Its bytes: place and count, little-endian.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let ([a, b], [c, d, e, f]) = (self.place.to_le_bytes(), self.count.to_le_bytes());
        [a, b, c, d, e, f]
    }

    /// The guard of these bytes.
    pub fn from_bytes([a, b, c, d, e, f]: [u8; Self::LENGTH]) -> Self {
        Self { place: u16::from_le_bytes([a, b]), count: u32::from_le_bytes([c, d, e, f]) }
    }

    /// Whether it was taken while what it guards was being changed.
    pub fn is_odd(self) -> bool {
        self.count & 1 == 1
    }
}

/// A table of counters, of this process or of all that share a mapping.
#[derive(Debug)]
pub struct Epochs(Table);

#[derive(Debug)]
enum Table {
    Private(Box<[AtomicU32]>),
    /// At least [`TABLE_BYTES`] of them, aligned to a page.
    Shared {
        mapping: MmapRaw,
        writable: bool,
    },
}

impl Epochs {
    /// A table of this process alone.
    pub fn private() -> Self {
        Self(Table::Private((0..WORDS).map(|_| AtomicU32::new(0)).collect()))
    }

    /// A table whose guards never hold, where there is none to see others' changes in.
    pub fn without() -> Self {
        Self(Table::Private((0..WORDS).map(|_| AtomicU32::new(1)).collect()))
    }

    /// The table in a shared mapping whose other users look at it through this type too; what is not `writable` is only
    /// read. `None` for one of less than [`TABLE_BYTES`].
    pub fn shared(mapping: MmapRaw, writable: bool) -> Option<Self> {
        (mapping.len() >= TABLE_BYTES).then_some(Self(Table::Shared { mapping, writable }))
    }

    #[inline]
    fn words(&self) -> &[AtomicU32; WORDS] {
        let start = match &self.0 {
            Table::Private(words) => words.as_ptr(),
            Table::Shared { mapping, .. } => mapping.as_ptr().cast(),
        };
        // SAFETY: the constructors made or checked that length; a mapping is aligned to its page, both live as long as
        // `self`, and all who share a mapping use atomics, which nobody stores to where it may only be read.
        unsafe { &*start.cast() }
    }

    #[inline]
    fn counter(&self, hash: u64) -> &AtomicU32 {
        &self.words()[hash as usize % EPOCHS]
    }

    fn changing(&self) -> &AtomicU32 {
        &self.words()[EPOCHS]
    }

    fn is_writable(&self) -> bool {
        !matches!(self.0, Table::Shared { writable: false, .. })
    }

    /// Where the counter of `hash` stands. To be taken before what it guards is read.
    #[inline]
    pub fn guard(&self, hash: u64) -> Guard {
        let place = (hash as usize % EPOCHS) as u16;
        Guard { place, count: self.words()[usize::from(place)].load(Ordering::Acquire) }
    }

    /// Whether nothing changed since the guard was taken, and nothing was being changed then.
    #[inline]
    pub fn holds(&self, guard: Guard) -> bool {
        !guard.is_odd() && self.words()[usize::from(guard.place)].load(Ordering::Acquire) == guard.count
    }

    /// What `hashes` stand for is about to change, until what is returned is dropped: when the change is visible, or was
    /// given up. Only one thread of all processes may have one; a table that may only be read stays as it is.
    pub fn change<'c>(&'c self, hashes: &'c [u64]) -> Changing<'c> {
        let hashes = if self.is_writable() { hashes } else { &[] };
        if !hashes.is_empty() {
            // Before the first counter: who finds the word knows that there may be more.
            self.changing().store(1, Ordering::SeqCst);
        }
        for hash in hashes {
            self.counter(*hash).fetch_or(1, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        Changing { epochs: self, hashes }
    }

    /// Makes guards of `hash` not hold, at once and by any thread: for changes that are made in one step. A table that
    /// may only be read stays as it is.
    pub fn bump(&self, hash: u64) {
        if self.is_writable() {
            self.counter(hash).fetch_add(2, Ordering::AcqRel);
        }
    }

    /// Ends the change that a process was making when it died, if one did; whether one did. Only who may
    /// [change](Self::change) something, before it does.
    pub fn recover(&self) -> bool {
        if !self.is_writable() || self.changing().load(Ordering::Acquire) == 0 {
            return false;
        }
        for counter in &self.words()[..EPOCHS] {
            end(counter);
        }
        self.changing().store(0, Ordering::Release);
        true
    }
}

/// A change that is being made.
#[derive(Debug)]
#[must_use = "the change ends when this is dropped"]
pub struct Changing<'c> {
    epochs: &'c Epochs,
    hashes: &'c [u64],
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for hash in self.hashes {
            end(self.epochs.counter(*hash));
        }
        if !self.hashes.is_empty() {
            self.epochs.changing().store(0, Ordering::Release);
        }
    }
}

/// Moves an odd counter on; what has the same one may have done so already.
fn end(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) & 1 == 1 {
        counter.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;

    #[test]
    fn a_guard_taken_during_a_change_never_holds() {
        let epochs = Epochs::private();
        let before = epochs.guard(5);
        let changing = epochs.change(&[5, 5, 6]);
        let during = epochs.guard(5);
        epochs.bump(5);
        assert!(!epochs.holds(before) && !epochs.holds(during) && !epochs.holds(epochs.guard(5)));
        drop(changing);
        assert!(!epochs.holds(before) && !epochs.holds(during) && epochs.holds(epochs.guard(5)));
        assert!(epochs.holds(epochs.guard(6)) && !epochs.recover());
    }

    #[test]
    fn a_bump_during_a_change_is_not_lost() {
        let epochs = Epochs::private();
        epochs.bump(5);
        let guard = epochs.guard(5);
        let changing = epochs.change(&[5]);
        epochs.bump(5);
        drop(changing);
        assert_eq!((guard.count, epochs.guard(5).count), (2, 6));
    }

    #[test]
    fn the_change_of_a_dead_writer_is_ended() {
        let epochs = Epochs::private();
        let before = epochs.guard(5);
        std::mem::forget(epochs.change(&[5, u64::MAX]));
        assert!(!epochs.holds(epochs.guard(5)));
        assert!(epochs.recover() && !epochs.recover());
        assert!(!epochs.holds(before) && epochs.holds(epochs.guard(5)) && epochs.holds(epochs.guard(u64::MAX)));
        assert_eq!(epochs.guard(6).count, 0);
    }

    #[test]
    fn guards_of_no_table_never_hold() {
        let epochs = Epochs::without();
        assert!(!epochs.holds(epochs.guard(5)));
        epochs.bump(5);
        assert!(!epochs.holds(epochs.guard(5)));
    }

    #[test]
    fn two_users_of_one_mapping_see_each_other() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(TABLE_BYTES as u64).unwrap();
        let one = Epochs::shared(MmapOptions::new().map_raw(&file).unwrap(), true).unwrap();
        let other = Epochs::shared(MmapOptions::new().map_raw(&file).unwrap(), true).unwrap();
        let reader = Epochs::shared(MmapOptions::new().map_raw_read_only(&file).unwrap(), false).unwrap();
        let guard = one.guard(u64::MAX);
        assert!(reader.holds(guard));
        reader.bump(u64::MAX);
        drop(reader.change(&[u64::MAX]));
        assert!(!reader.recover() && one.holds(guard));
        other.bump(u64::MAX);
        assert!(!one.holds(guard) && !reader.holds(guard));
        file.set_len(TABLE_BYTES as u64 - 1).unwrap();
        assert!(Epochs::shared(MmapOptions::new().map_raw(&file).unwrap(), true).is_none());
    }

    #[test]
    fn a_guard_survives_its_bytes() {
        let guard = Guard { place: 0xabcd, count: 0x0123_4567 };
        assert_eq!(Guard::from_bytes(guard.to_bytes()), guard);
    }
}
