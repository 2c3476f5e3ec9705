//! The map of several threads.

use super::{WeakMap, WeakRef};
use std::borrow::Borrow;
use std::collections::hash_map::{HashMap, RandomState};
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`WeakMap`] that threads share. `V` is `sync::Weak<T>`.
///
/// Under its lock, nothing is allocated, no value is made and no value is dropped; so a thread may hold the GIL while it
/// waits for the lock, and a value's `drop` may use the map. Only `Hash`, `Eq` and `drop` of keys run under it.
///
/// ```
/// use framecache::memory::SyncWeakMap;
/// use std::sync::{Arc, Weak};
/// let map: SyncWeakMap<u64, Weak<String>> = SyncWeakMap::new();
/// let first = map.get_or_insert_with(1, || Arc::new("made once".to_owned()));
/// let second = map.get_or_insert_with(1, || unreachable!("it is alive"));
/// assert!(Arc::ptr_eq(&first, &second));
/// ```
pub struct SyncWeakMap<K, V, S = RandomState>(Mutex<WeakMap<K, V, S>>);

impl<K, V> SyncWeakMap<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<K, V, S> SyncWeakMap<K, V, S> {
    /// An empty map that hashes keys with `hasher`.
    pub fn with_hasher(hasher: S) -> Self {
        Self(Mutex::new(WeakMap::with_hasher(hasher)))
    }

    /// How many entries there are, dead ones included; takes constant time.
    pub fn raw_len(&self) -> usize {
        self.lock().raw_len()
    }

    fn lock(&self) -> MutexGuard<'_, WeakMap<K, V, S>> {
        // A panic under it (of a key's `eq`) leaves a table in which at most that entry is missing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V: WeakRef, S: BuildHasher + Clone> SyncWeakMap<K, V, S> {
    /// How many values are alive. Takes time in proportion to [`Self::raw_len`].
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no value is alive. Takes time in proportion to the dead entries.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The value under `key`, if it is alive.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V::Strong>
    where
        K: Borrow<Q>,
    {
        self.lock().get(key)
    }

    /// Puts `value` under `key`; returns the value that was there, if it is alive.
    pub fn insert(&self, key: K, value: &V::Strong) -> Option<V::Strong> {
        let replaced = self.with_room(|map| map.replace(key, value));
        replaced?.upgrade()
    }

    /// Removes the entry of `key`; returns its value, if it is alive.
    pub fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V::Strong>
    where
        K: Borrow<Q>,
    {
        let removed = self.lock().take(key);
        removed?.1.upgrade()
    }

    /// The value under `key`; if none is alive, the one that `make` returns, which is then under `key`.
    ///
    /// `make` runs without the lock. Of threads that make a value for one key at a time, one wins: its value is
    /// returned to all, the others' are dropped unseen.
    pub fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V::Strong) -> V::Strong {
        match self.get_or_try_insert_with(key, || Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`Self::get_or_insert_with`], where making a value can fail; the map is then as it was.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_try_insert_with<E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<V::Strong, E>,
    ) -> Result<V::Strong, E> {
        if let Some(live) = self.get(&key) {
            return Ok(live);
        }
        let made = make()?;
        // What it returns (a dead pointer, or the winner's value) and `made` are dropped after the lock.
        Ok(match self.with_room(|map| map.insert_if_dead(key, &made)) {
            Ok(_dead) => made,
            Err(winner) => winner,
        })
    }

    /// Removes the entries whose value is gone, now.
    pub fn cleanup(&self) {
        let mut dead = Vec::with_capacity(self.raw_len());
        self.lock().sweep(&mut dead);
        // `dead` is dropped after the lock.
    }

    /// Does what inserts one entry, under the lock, with room for it and after a cleanup if one is due.
    fn with_room<T>(&self, insert: impl FnOnce(&mut WeakMap<K, V, S>) -> T) -> T {
        loop {
            let mut map = self.lock();
            let (due, room) = (map.is_due(), map.has_room());
            if room && !due {
                return insert(&mut map);
            }
            drop(map);
            if due { self.cleanup() } else { self.grow() }
        }
    }

    /// Moves the entries to a new table with room for as many again.
    fn grow(&self) {
        let (entries, hasher) = {
            let map = self.lock();
            (map.raw_len(), map.hasher().clone())
        };
        let mut table = HashMap::with_capacity_and_hasher(entries.saturating_mul(2).max(8), hasher);
        self.lock().move_to(&mut table);
        // The old table is dropped after the lock.
    }
}

impl<K, V, S: Default> Default for SyncWeakMap<K, V, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<K, V, S> fmt::Debug for SyncWeakMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncWeakMap").field("raw_len", &self.raw_len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, Weak};

    #[test]
    fn it_finds_replaces_and_removes() {
        let map: SyncWeakMap<&str, Weak<u32>> = SyncWeakMap::new();
        let (one, two) = (Arc::new(1), Arc::new(2));
        assert_eq!((map.insert("a", &one), map.insert("a", &two)), (None, Some(one)));
        assert_eq!((map.get("a"), map.remove("a"), map.remove("a")), (Some(two.clone()), Some(two), None));
        assert!(map.is_empty());
    }

    #[test]
    fn making_a_value_may_fail_and_may_use_the_map() {
        let map: SyncWeakMap<u32, Weak<u32>> = SyncWeakMap::new();
        assert_eq!(map.get_or_try_insert_with(1, || Err("no")), Err("no"));
        assert_eq!(map.raw_len(), 0);
        let value = map.get_or_insert_with(1, || Arc::new(map.raw_len() as u32 + 7));
        assert_eq!(*value, 7);
    }

    #[test]
    fn dead_entries_are_bounded_and_a_live_one_survives_cleanups() {
        let map: SyncWeakMap<u32, Weak<u32>> = SyncWeakMap::new();
        let kept = map.get_or_insert_with(0, || Arc::new(0));
        for key in 1..20_000 {
            map.get_or_insert_with(key, || Arc::new(key));
            assert!(map.raw_len() <= 1001, "{}", map.raw_len());
        }
        map.cleanup();
        assert_eq!((map.raw_len(), map.len(), map.get(&0)), (1, 1, Some(kept)));
    }

    /// Uses the map when it is dropped, which would wait for ever for a lock that is held meanwhile.
    struct Reentrant(Arc<SyncWeakMap<u32, Weak<Reentrant>>>);

    impl Drop for Reentrant {
        fn drop(&mut self) {
            self.0.cleanup();
        }
    }

    #[test]
    fn values_are_dropped_without_the_lock() {
        let map = Arc::new(SyncWeakMap::new());
        let made = || Arc::new(Reentrant(map.clone()));
        let first = map.get_or_insert_with(1, made);
        drop(map.insert(1, &made()));
        drop(first);
        let other = made();
        map.insert(2, &other);
        let mut early = None;
        let found = map.get_or_insert_with(3, || {
            // As if another thread were first.
            map.insert(3, early.insert(made()));
            made()
        });
        assert!(early.is_some_and(|early| Arc::ptr_eq(&early, &found)));
        drop((found, other));
        map.cleanup();
    }

    #[test]
    fn threads_never_see_two_live_values_of_one_key() {
        const THREADS: usize = 8;
        const ROUNDS: u32 = 2000;
        let map: SyncWeakMap<u32, Weak<u32>> = SyncWeakMap::new();
        let seen: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
        let barrier = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for key in 0..ROUNDS {
                        barrier.wait();
                        let value = map.get_or_insert_with(key, || Arc::new(key));
                        let address = Arc::as_ptr(&value).addr();
                        let seen = &seen[key as usize];
                        let first = seen.compare_exchange(0, address, Ordering::SeqCst, Ordering::SeqCst);
                        assert!(first.is_ok() || first == Err(address));
                        // All hold theirs until all have compared.
                        barrier.wait();
                    }
                });
            }
        });
        assert_eq!(map.len(), 0);
    }
}
