//! The tier in a process's own memory: bounded in bytes, with deadlines, on quick_cache's S3-FIFO.
//!
//! An entry is one allocation (`record`): its times, its value, its key and the [guards](crate::epoch) under which it
//! may be served. `table` is what quick_cache is told of it. A read compares keys, not hashes, then deadline and guards.
//!
//! **Bounded in bytes.** An entry weighs what it takes: its allocation and what its value holds, as the caller says.
//! The table's own memory, with the places of entries that are gone and of keys that are remembered as evicted lately,
//! is measured and taken off the room for entries, so that both together stay within `max_bytes`.
//!
//! **Expired entries** are misses at once. They are removed by the read that finds them, and by a walk that insertions
//! drive: each goes past about 32 places of the table, so that a round takes as many insertions as there are entries
//! at the most.
//!
//! **No value is dropped while a lock is held.** What dropping it runs may come back to the cache.
//!
//! A forked child has a copy of the cache, which it goes on with, unless another thread was in the cache at that moment
//! (which in the Python build cannot be: only the holder of the GIL is).
//!
//! ```
//! use framecache::l1::{Clock, L1, New, Options};
//! use std::time::Duration;
//!
//! let clock = Clock::manual(1_700_000_000_000_000);
//! let cache = L1::new(Options { clock: clock.clone(), ..Options::new(64 * 1024) });
//! let ttl = Some(clock.wall() + 60_000);
//! assert!(cache.insert(b"key", "value".to_owned(), New { bytes: 5, deadline: ttl, ..New::default() }));
//! assert_eq!(cache.get(b"key", String::clone), Some("value".to_owned()));
//! clock.advance(Duration::from_millis(60_001));
//! assert_eq!(cache.get(b"key", String::clone), None);
//! assert_eq!(cache.stats().expired, 1);
//! ```

mod clock;
mod counters;
mod record;
mod sweep;
mod table;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use counters::Stats;

use crate::epoch::Epochs;
use counters::Counters;
use quick_cache::{DefaultHashBuilder, OptionsBuilder};
use record::{NEVER, Parts, Record, UNIT};
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use sweep::Sweep;
use table::{Collect, Find, Gone, Same, Table, Units};

/// For how many bytes one key is remembered that was evicted lately, twice.
const BYTES_A_GHOST: u64 = 512;
/// Bytes of a place in the table: quick_cache's links and states around a pointer.
const SLOT: u64 = 32;
/// A place and its share of the hash table, which is 5.7 to 11.4 bytes.
const PLACE: u64 = SLOT + 8;
/// The table's memory is taken off the room for entries in this part of all.
const STEPS: u64 = 256;
/// How often an entry is put into the table until it stays.
const ATTEMPTS: usize = 3;
/// Places that an insertion's part of the walk goes past.
const PLACES_A_STEP: u64 = 32;

/// How an [`L1`] is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What entries and table may take together, in bytes.
    pub max_bytes: u64,
    /// Into how many parts it is split for threads to work side by side, rounded up to a power of two, and down where a
    /// part would be too small to be of use. The largest entry is one that fits a part.
    pub shards: usize,
    /// The clock that deadlines are kept in.
    pub clock: Clock,
    /// The table that guards refer to.
    pub epochs: Arc<Epochs>,
}

impl Options {
    /// One shard, the system's clock, a table of guards of its own.
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, shards: 1, clock: Clock::system(), epochs: Arc::new(Epochs::private()) }
    }
}

/// What is said of a new entry besides key and value. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct New<'a> {
    /// What the value holds, in bytes, besides its own size. What is mapped from a file counts as nothing.
    pub bytes: usize,
    /// When it was written.
    pub created: u64,
    /// The last moment at which it is fresh.
    pub deadline: Option<u64>,
    /// The last moment at which it may be served, stale or not. `None`: it is never served stale.
    pub until: Option<u64>,
    /// [Guards](crate::epoch::Guard), 6 bytes each, that must hold whenever it is served.
    pub guards: &'a [u8],
}

/// A cache in this process's memory. See the [module](self).
pub struct L1<V: 'static> {
    table: Arc<Table<V>>,
    epochs: Arc<Epochs>,
    clock: Clock,
    counters: Counters,
    max_bytes: u64,
    /// How many steps of its size the table has grown by.
    steps: AtomicU64,
    sweep: Mutex<Walk<V>>,
}

struct Walk<V: 'static> {
    sweep: Sweep<V>,
    /// Places that insertions have paid for.
    credit: u64,
}

/// Whether a record may be served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// Past its deadline, within its `until`.
    Stale,
    Expired,
    Invalid,
}

enum Seen<T> {
    Nothing,
    Hit(T),
    Not(State),
}

impl<V: Send + Sync> L1<V> {
    /// An empty one.
    pub fn new(options: Options) -> Self {
        let Options { max_bytes, shards, clock, epochs } = options;
        let table = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(max_bytes / BYTES_A_GHOST).unwrap_or(usize::MAX))
            .weight_capacity(max_bytes / UNIT as u64)
            .shards(shards.clamp(1, 1 << 16))
            .build()
            .unwrap_or_else(|_| unreachable!("what is required is set"));
        let table = Arc::new(Table::with_options(table, Units, DefaultHashBuilder::default(), Collect));
        let sweep = Mutex::new(Walk { sweep: Sweep::new(table.clone()), credit: 0 });
        Self { table, epochs, clock, counters: Counters::default(), max_bytes, steps: AtomicU64::new(0), sweep }
    }

    /// The table that guards refer to.
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The clock that deadlines are kept in.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What `read` makes of the value of `key`, if there is one that may be served.
    ///
    /// `read` is called with a lock held: it takes a copy or a reference and does not come back to the cache.
    #[inline]
    pub fn get<T>(&self, key: &[u8], read: impl FnOnce(&V) -> T) -> Option<T> {
        let read = Cell::new(Some(read));
        let seen = Cell::new(Seen::Nothing);
        self.table.get(&Find {
            key,
            seen: |record: &Record<V>| {
                let state = self.state(record);
                match (state, read.take()) {
                    (State::Live, Some(read)) => seen.set(Seen::Hit(read(record.value()))),
                    _ => seen.set(Seen::Not(state)),
                }
            },
        });
        match seen.into_inner() {
            Seen::Hit(hit) => {
                self.counters.hits.count();
                Some(hit)
            }
            Seen::Nothing => {
                self.counters.misses.count();
                None
            }
            Seen::Not(state) => {
                self.counters.misses.count();
                if state != State::Stale {
                    self.remove_dead(key);
                }
                None
            }
        }
    }

    /// The entry of `key`, with `stale` also one past its deadline, as long as its `until` has not passed. Counts
    /// neither as a hit nor as a miss.
    pub fn entry(&self, key: &[u8], stale: bool) -> Option<Entry<V>> {
        let record = self.find(key)?;
        match self.state(&record) {
            State::Live => {}
            State::Stale if stale => {}
            _ => return None,
        }
        let offset = self.clock.offset();
        let on_the_wall = |time: u64| (time != NEVER).then(|| time.saturating_add_signed(offset));
        let (deadline, until) = (on_the_wall(record.deadline()), on_the_wall(record.until()));
        Some(Entry { record, deadline, until })
    }

    /// Keeps `value` under `key`, in place of what was there. False if it is out of date already or larger than a
    /// shard's entries may be; what was there is gone in the second case too.
    ///
    /// Drops, before it returns, the values that gave way.
    pub fn insert(&self, key: &[u8], value: V, new: New<'_>) -> bool {
        let offset = if new.deadline.or(new.until).is_some() { self.clock.offset() } else { 0 };
        let (deadline, until) = (kept(new.deadline, offset), kept(new.until, offset));
        let New { bytes, created, guards, .. } = new;
        let parts = Parts { key, guards, value, bytes, created, deadline: deadline.min(until), until };
        let Some(record) = Record::new(parts) else {
            self.counters.rejected.count();
            self.remove(key);
            return false;
        };
        if !matches!(self.state(&record), State::Live | State::Stale) {
            self.counters.rejected.count();
            return false;
        }
        let mut gone = Gone::default();
        // One that is larger than the one it replaces, or that made the table grow, may be the first to give way.
        let taken = (0..ATTEMPTS).any(|_| self.place(&record, &mut gone));
        if !taken {
            self.counters.rejected.count();
        }
        self.walk(&mut gone);
        taken
    }

    /// Moves the deadline of the entry of `key`, to `until` at the latest; whether there was one to serve. `None` is
    /// for as long as it may be served at all.
    pub fn touch(&self, key: &[u8], deadline: Option<u64>) -> bool {
        let Some(record) = self.find(key).filter(|record| self.state(record) == State::Live) else { return false };
        record.set_deadline(kept(deadline, self.clock.offset()).min(record.until()));
        true
    }

    /// Removes the entry of `key`; whether there was one to serve.
    pub fn remove(&self, key: &[u8]) -> bool {
        let removed = self.table.remove(&Find { key, seen: |_: &Record<V>| () });
        removed.is_some_and(|(record, ())| self.state(&record) == State::Live)
    }

    /// Shows each entry that may be served to `visit`, no lock held. Those that come or go meanwhile may be among them.
    pub fn each(&self, mut visit: impl FnMut(&[u8], &V)) {
        for (record, ()) in self.table.iter() {
            if self.state(&record) == State::Live {
                visit(record.key(), record.value());
            }
        }
    }

    /// Removes the entries that may not be served any more, not even stale; how many there were. Goes past all entries.
    pub fn purge(&self) -> usize {
        self.table.iter().filter(|(record, ())| self.remove_if_dead(record)).count()
    }

    /// Removes all entries.
    pub fn clear(&self) {
        // All of them first: what dropping a value runs may add entries.
        drop(self.table.drain().collect::<Vec<_>>());
    }

    /// Sizes and counts.
    pub fn stats(&self) -> Stats {
        let entries = self.table.len() as u64;
        Stats {
            entries,
            bytes: self.table.weight() * UNIT as u64 + entries * PLACE,
            max_bytes: self.max_bytes,
            hits: self.counters.hits.get(),
            misses: self.counters.misses.get(),
            evicted: self.counters.evicted.get(),
            expired: self.counters.expired.get(),
            invalidated: self.counters.invalidated.get(),
            rejected: self.counters.rejected.get(),
        }
    }

    fn find(&self, key: &[u8]) -> Option<Record<V>> {
        let found = Cell::new(None);
        self.table.get(&Find { key, seen: |record: &Record<V>| found.set(Some(record.clone())) });
        found.into_inner()
    }

    #[inline]
    fn state(&self, record: &Record<V>) -> State {
        if !record.guards().all(|guard| self.epochs.holds(guard)) {
            return State::Invalid;
        }
        let deadline = record.deadline();
        // Reading the clock costs a fifth of a hit.
        if deadline == NEVER {
            return State::Live;
        }
        let (now, until) = (self.clock.coarse(), record.until());
        if now <= deadline {
            State::Live
        } else if until != NEVER && now <= until {
            State::Stale
        } else {
            State::Expired
        }
    }

    #[cold]
    fn remove_dead(&self, key: &[u8]) {
        if let Some(record) = self.find(key) {
            self.remove_if_dead(&record);
        }
    }

    fn remove_if_dead(&self, record: &Record<V>) -> bool {
        let counter = match self.state(record) {
            State::Live | State::Stale => return false,
            State::Expired => &self.counters.expired,
            State::Invalid => &self.counters.invalidated,
        };
        let removed = self.table.remove_if(&Same(record), |()| true).is_some();
        if removed {
            counter.count();
        }
        removed
    }

    /// Puts a record into the table; whether it stayed there.
    fn place(&self, record: &Record<V>, gone: &mut Gone<V>) -> bool {
        let before = gone.0.len();
        self.table.insert_with_lifecycle(record.clone(), (), gone);
        let gone = &gone.0[before..];
        let mut evicted = gone.iter().filter(|gone| *gone != record).count() as u64;
        let mut stays = !gone.iter().any(|gone| gone.is(record));
        if let Some(gave_way) = self.settle() {
            let stayed = stays;
            stays = self.table.contains_key(&Same(record));
            evicted += gave_way.saturating_sub(u64::from(stayed && !stays));
        }
        self.counters.evicted.add(evicted);
        stays
    }

    /// Takes what the table has grown by off the room for entries; how many gave way, `None` where it did not grow. It
    /// never shrinks.
    fn settle(&self) -> Option<u64> {
        let used = self.table.memory_used();
        // At least what `stats` says of it.
        let used = ((used.entries + used.map) as u64).max(used.entries as u64 / SLOT * PLACE);
        let step = (self.max_bytes / STEPS).max(1);
        let steps = used.div_ceil(step);
        if self.steps.fetch_max(steps, Ordering::Relaxed) >= steps {
            return None;
        }
        let room = self.max_bytes.saturating_sub(steps * step);
        let before = self.table.len();
        self.table.set_capacity(room / UNIT as u64);
        Some(before.saturating_sub(self.table.len()) as u64)
    }

    /// This insertion's part of the walk that removes what is dead.
    fn walk(&self, gone: &mut Gone<V>) {
        let mut walk = match self.sweep.try_lock() {
            Ok(walk) => walk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let places = self.table.memory_used().entries as u64 / SLOT;
        let gap = places / (self.table.len() as u64).max(1) + 1;
        walk.credit += PLACES_A_STEP;
        while walk.credit >= gap {
            walk.credit -= gap;
            match walk.sweep.step() {
                // Dropped by the caller, who holds no lock.
                Some(record) if self.remove_if_dead(&record) => gone.0.push(record),
                Some(_) => {}
                None => break,
            }
        }
    }
}

impl<V> fmt::Debug for L1<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

/// An entry, which stays as it is whatever becomes of it in the cache. Times are milliseconds since 1970, as the wall
/// clock stood when it was looked up.
pub struct Entry<V> {
    record: Record<V>,
    deadline: Option<u64>,
    until: Option<u64>,
}

impl<V> Entry<V> {
    /// Its value.
    pub fn value(&self) -> &V {
        self.record.value()
    }

    /// When it was written.
    pub fn created(&self) -> u64 {
        self.record.created()
    }

    /// The last moment at which it is fresh.
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// The last moment at which it may be served.
    pub fn until(&self) -> Option<u64> {
        self.until
    }

    /// What it takes of the cache's bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.record.weight()) * UNIT as u64 + PLACE
    }
}

impl<V> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("created", &self.created()).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A time of a wall clock that is `offset` ahead of the monotonic one, by the latter.
fn kept(time: Option<u64>, offset: i64) -> u64 {
    time.map_or(NEVER, |time| time.saturating_add_signed(-offset).min(NEVER - 1))
}
