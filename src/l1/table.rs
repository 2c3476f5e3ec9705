//! quick_cache under an [`L1`](super::L1): what it is told of records, and how one is looked up.

use super::record::Record;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, Weighter};
use std::hash::{Hash, Hasher};

/// Records are keys without values: one pointer a place. Hashed with seeds that are random in each process, since keys
/// are chosen by whoever calls.
pub(super) type Table<V> = Cache<Record<V>, (), Units, DefaultHashBuilder, Collect>;

/// Weighs records, in [`UNIT`](super::record::UNIT)s.
#[derive(Clone)]
pub(super) struct Units;

impl<V> Weighter<Record<V>, ()> for Units {
    #[inline]
    fn weight(&self, record: &Record<V>, (): &()) -> u64 {
        u64::from(record.weight())
    }
}

/// Hands what is evicted or replaced to the caller, who drops it when no lock is held: dropping a value may run code
/// that comes back to the cache.
#[derive(Clone)]
pub(super) struct Collect;

impl<V> Lifecycle<Record<V>, ()> for Collect {
    type RequestState = Gone<V>;

    fn on_evict(&self, gone: &mut Gone<V>, record: Record<V>, (): ()) {
        gone.0.push(record);
    }
}

/// Records that left the table.
pub(super) struct Gone<V>(pub(super) Vec<Record<V>>);

impl<V> Default for Gone<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Looks for a key, and shows the record that has it to `seen`, with the lock of its shard held.
pub(super) struct Find<'a, F> {
    pub(super) key: &'a [u8],
    pub(super) seen: F,
}

impl<F> Hash for Find<'_, F> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key);
    }
}

impl<V, F: Fn(&Record<V>)> Equivalent<Record<V>> for Find<'_, F> {
    #[inline]
    fn equivalent(&self, record: &Record<V>) -> bool {
        let same = same(self.key, record.key());
        if same {
            (self.seen)(record);
        }
        same
    }
}

/// Whether two keys are the same; those of a call with an argument or two without calling a function.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    match (one.first_chunk::<8>(), one.last_chunk(), other.first_chunk(), other.last_chunk::<8>()) {
        (Some(first), Some(last), Some(start), Some(end)) if one.len() <= 16 => {
            one.len() == other.len() && first == start && last == end
        }
        _ => one == other,
    }
}

/// Looks for this very record, not for another of its key.
pub(super) struct Same<'a, V>(pub(super) &'a Record<V>);

impl<V> Hash for Same<'_, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<V> Equivalent<Record<V>> for Same<'_, V> {
    fn equivalent(&self, record: &Record<V>) -> bool {
        self.0.is(record)
    }
}
