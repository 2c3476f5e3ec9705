//! The map of one thread.

use super::{StrongRef, WeakRef};
use std::borrow::Borrow;
use std::collections::hash_map::{self, Entry, HashMap, RandomState};
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer operations than this never trigger a cleanup.
const FEWEST: usize = 1000;

/// A map that keeps its values alive: what [`WeakMap::upgrade`] gives.
pub type StrongMap<K, V, S = RandomState> = HashMap<K, V, S>;

/// A map that does not keep its values alive. `V` is the weak pointer, `rc::Weak<T>` or `sync::Weak<T>`.
///
/// An entry whose value is gone is not found any more, and is removed by the next cleanup. One is made by the first
/// changing operation after `max(1000, len)` operations, where `len` is what the last cleanup left; so operations cost
/// amortised constant time, and at most as many entries are dead as were alive then, or 1000. Reading operations count,
/// but cannot clean.
///
/// ```
/// use framecache::memory::WeakMap;
/// use std::rc::{Rc, Weak};
/// let mut map: WeakMap<&str, Weak<u32>> = WeakMap::new();
/// let one = map.get_or_insert_with("one", || Rc::new(1));
/// assert!(Rc::ptr_eq(&map.get("one").expect("alive"), &one));
/// drop(one);
/// assert_eq!((map.get("one"), map.len(), map.raw_len()), (None, 0, 1));
/// ```
pub struct WeakMap<K, V, S = RandomState> {
    entries: HashMap<K, V, S>,
    /// Since the last cleanup.
    operations: AtomicUsize,
    /// How many of them trigger the next one.
    threshold: usize,
}

impl<K, V> WeakMap<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<K, V, S> WeakMap<K, V, S> {
    /// An empty map that hashes keys with `hasher`.
    pub fn with_hasher(hasher: S) -> Self {
        Self::over(HashMap::with_hasher(hasher))
    }

    fn over(entries: HashMap<K, V, S>) -> Self {
        let threshold = entries.len().max(FEWEST);
        Self { entries, operations: AtomicUsize::new(0), threshold }
    }

    /// How many entries there are, dead ones included; takes constant time.
    pub fn raw_len(&self) -> usize {
        self.entries.len()
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.restart();
    }

    pub(super) fn count(&self, operations: usize) {
        self.operations.fetch_add(operations, Ordering::Relaxed);
    }

    /// Whether the next changing operation shall clean up.
    pub(super) fn is_due(&self) -> bool {
        self.operations.load(Ordering::Relaxed) >= self.threshold
    }

    fn restart(&mut self) {
        *self.operations.get_mut() = 0;
        self.threshold = self.entries.len().max(FEWEST);
    }
}

impl<K, V: WeakRef, S> WeakMap<K, V, S> {
    /// How many values are alive. Takes time in proportion to [`Self::raw_len`].
    pub fn len(&self) -> usize {
        self.count(self.raw_len());
        self.entries.values().filter(|value| !value.is_expired()).count()
    }

    /// Whether no value is alive. Takes time in proportion to the dead entries.
    pub fn is_empty(&self) -> bool {
        self.count(self.raw_len());
        self.entries.values().all(WeakRef::is_expired)
    }

    /// Keys and values of the live entries, in any order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.count(self.raw_len());
        Iter(self.entries.iter())
    }

    /// Removes the entries whose value is gone, now.
    pub fn cleanup(&mut self) {
        self.entries.retain(|_, value| !value.is_expired());
        self.restart();
    }

    /// Keeps the live entries for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, V::Strong) -> bool) {
        self.entries.retain(|key, value| value.upgrade().is_some_and(|value| keep(key, value)));
        self.restart();
    }

    /// Counts an operation that changes the map, after a cleanup if one is due.
    fn begin_change(&mut self) {
        if self.is_due() {
            self.cleanup();
        }
        *self.operations.get_mut() += 1;
    }
}

impl<K: Eq + Hash, V: WeakRef, S: BuildHasher> WeakMap<K, V, S> {
    /// The value under `key`, if it is alive.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V::Strong>
    where
        K: Borrow<Q>,
    {
        self.count(1);
        self.entries.get(key)?.upgrade()
    }

    /// Puts `value` under `key`; returns the value that was there, if it is alive.
    pub fn insert(&mut self, key: K, value: &V::Strong) -> Option<V::Strong> {
        self.begin_change();
        self.entries.insert(key, value.downgrade())?.upgrade()
    }

    /// Removes the entry of `key`; returns its value, if it is alive.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V::Strong>
    where
        K: Borrow<Q>,
    {
        self.begin_change();
        self.entries.remove(key)?.upgrade()
    }

    /// The value under `key`; if none is alive, the one that `make` returns, which is then under `key`.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V::Strong) -> V::Strong {
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
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V::Strong, E>,
    ) -> Result<V::Strong, E> {
        self.begin_change();
        match self.entries.entry(key) {
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                Some(value) => Ok(value),
                None => make().inspect(|value| {
                    entry.insert(value.downgrade());
                }),
            },
            Entry::Vacant(entry) => make().inspect(|value| {
                entry.insert(value.downgrade());
            }),
        }
    }

    /// The live entries as a map that keeps them alive.
    pub fn upgrade(&self) -> StrongMap<K, V::Strong, S>
    where
        K: Clone,
        S: Clone,
    {
        let mut strong = HashMap::with_hasher(self.entries.hasher().clone());
        strong.extend(self.iter().map(|(key, value)| (key.clone(), value)));
        strong
    }
}

/// What [`SyncWeakMap`](super::SyncWeakMap) needs to allocate and free nothing under its lock.
impl<K: Eq + Hash, V: WeakRef, S: BuildHasher + Clone> WeakMap<K, V, S> {
    /// Whether an entry can be inserted without allocating.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.entries.capacity()
    }

    pub(super) fn hasher(&self) -> &S {
        self.entries.hasher()
    }

    /// Moves dead entries to `dead`, as many as it has room for.
    pub(super) fn sweep(&mut self, dead: &mut Vec<(K, V)>) {
        let room = dead.capacity() - dead.len();
        dead.extend(self.entries.extract_if(|_, value| value.is_expired()).take(room));
        self.restart();
    }

    /// Moves the entries to `larger`, an empty table, and leaves the old one there, if they fit.
    pub(super) fn move_to(&mut self, larger: &mut HashMap<K, V, S>) {
        if self.entries.len() < larger.capacity() {
            larger.extend(self.entries.drain());
            std::mem::swap(&mut self.entries, larger);
        }
    }

    /// As [`Self::insert`], but keeps a live value and returns it, and otherwise returns what is to be dropped.
    pub(super) fn insert_if_dead(&mut self, key: K, value: &V::Strong) -> Result<Option<V>, V::Strong> {
        self.count(1);
        match self.entries.entry(key) {
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                Some(live) => Err(live),
                None => Ok(Some(entry.insert(value.downgrade()))),
            },
            Entry::Vacant(entry) => {
                entry.insert(value.downgrade());
                Ok(None)
            }
        }
    }

    /// As [`Self::insert`], but returns the weak pointer that was there.
    pub(super) fn replace(&mut self, key: K, value: &V::Strong) -> Option<V> {
        self.count(1);
        self.entries.insert(key, value.downgrade())
    }

    /// Removes and returns the entry of `key`.
    pub(super) fn take<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.count(1);
        self.entries.remove_entry(key)
    }
}

impl<K, V, S: Default> Default for WeakMap<K, V, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

/// Two maps are equal if the same keys have the same values, by address; dead entries do not count.
impl<K: Eq + Hash, V: WeakRef, S: BuildHasher> PartialEq for WeakMap<K, V, S> {
    fn eq(&self, other: &Self) -> bool {
        // Held while they are compared, no value dies between the two sides.
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.iter().collect(), other.iter().collect());
        let same = |key, value: &V::Strong| other.get(key).is_some_and(|found| found.ptr_eq(value));
        ours.len() == theirs.len() && ours.iter().all(|(key, value)| same(*key, value))
    }
}

impl<K: Eq + Hash, V: WeakRef, S: BuildHasher> Eq for WeakMap<K, V, S> {}

impl<K: Clone, V: Clone, S: Clone> Clone for WeakMap<K, V, S> {
    fn clone(&self) -> Self {
        Self::over(self.entries.clone())
    }
}

impl<K: fmt::Debug, V: WeakRef<Strong: fmt::Debug>, S> fmt::Debug for WeakMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Eq + Hash, R: StrongRef, S: BuildHasher> Extend<(K, R)> for WeakMap<K, R::Weak, S> {
    fn extend<I: IntoIterator<Item = (K, R)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, &value);
        }
    }
}

impl<K: Eq + Hash + Clone, R: StrongRef, S: BuildHasher + Clone> From<&StrongMap<K, R, S>> for WeakMap<K, R::Weak, S> {
    fn from(strong: &StrongMap<K, R, S>) -> Self {
        let mut map = Self::with_hasher(strong.hasher().clone());
        map.entries.extend(strong.iter().map(|(key, value)| (key.clone(), value.downgrade())));
        Self::over(map.entries)
    }
}

impl<'m, K, V: WeakRef, S> IntoIterator for &'m WeakMap<K, V, S> {
    type Item = (&'m K, V::Strong);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Iter<'m, K, V> {
        self.iter()
    }
}

/// The live entries of a [`WeakMap`], in any order.
pub struct Iter<'m, K, V>(hash_map::Iter<'m, K, V>);

impl<'m, K, V: WeakRef> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, V::Strong);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find_map(|(key, value)| value.upgrade().map(|value| (key, value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.len()))
    }
}

impl<K, V: WeakRef> std::iter::FusedIterator for Iter<'_, K, V> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::rc::{Rc, Weak};
    use std::sync::Arc;

    type Map = WeakMap<u8, Weak<u32>>;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u8, u32),
        GetOrInsert(u8, u32),
        Remove(u8),
        /// Drops all strong pointers to the key's value.
        Release(u8),
        Cleanup,
        RetainEven,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (any::<u8>(), any::<u32>()).prop_map(|(key, value)| Op::Insert(key % 16, value)),
            (any::<u8>(), any::<u32>()).prop_map(|(key, value)| Op::GetOrInsert(key % 16, value)),
            any::<u8>().prop_map(|key| Op::Remove(key % 16)),
            any::<u8>().prop_map(|key| Op::Release(key % 16)),
            Just(Op::Cleanup),
            Just(Op::RetainEven),
        ];
        prop::collection::vec(op, 0..200)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_of_the_living_holds(ops in ops()) {
            let (mut map, mut model) = (Map::new(), HashMap::new());
            for op in ops {
                match op {
                    Op::Insert(key, value) => {
                        let value = Rc::new(value);
                        prop_assert_eq!(map.insert(key, &value), model.insert(key, value));
                    }
                    Op::GetOrInsert(key, value) => {
                        let found = map.get_or_insert_with(key, || Rc::new(value));
                        let expected = model.entry(key).or_insert_with(|| found.clone());
                        prop_assert!(Rc::ptr_eq(&found, expected));
                    }
                    Op::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Op::Release(key) => drop(model.remove(&key)),
                    Op::Cleanup => {
                        map.cleanup();
                        prop_assert_eq!(map.raw_len(), model.len());
                    }
                    Op::RetainEven => {
                        map.retain(|_, value| *value % 2 == 0);
                        model.retain(|_, value| **value % 2 == 0);
                        prop_assert_eq!(map.raw_len(), model.len());
                    }
                }
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(&map.upgrade(), &model);
                prop_assert!(map == WeakMap::from(&model) && WeakMap::from(&model) == map);
            }
        }
    }

    #[test]
    fn making_a_value_may_fail_and_leaves_the_map_as_it_was() {
        let mut map = Map::new();
        assert_eq!(map.get_or_try_insert_with(1, || Err("no")), Err("no"));
        assert_eq!(map.raw_len(), 0);
        let value = map.get_or_insert_with(1, || Rc::new(7));
        assert_eq!(map.get_or_try_insert_with(1, || Err("not called")), Ok(value));
        assert_eq!(map.get_or_try_insert_with(1, || Err("dead now")), Err("dead now"));
        assert_eq!((map.len(), map.raw_len()), (0, 1));
    }

    #[test]
    fn equality_is_symmetric_and_by_address() {
        let (one, other) = (Rc::new(1), Rc::new(1));
        let (mut left, mut right) = (Map::new(), Map::new());
        left.insert(1, &one);
        let both_ways = |left: &Map, right: &Map| (left.eq(right), right.eq(left));
        assert_eq!(both_ways(&left, &right), (false, false));
        right.insert(1, &other);
        assert_eq!(both_ways(&left, &right), (false, false));
        right.insert(1, &one);
        assert_eq!(both_ways(&left, &right), (true, true));
        right.insert(2, &other);
        assert_eq!(both_ways(&left, &right), (false, false));
        drop(other);
        assert_eq!(both_ways(&left, &right), (true, true));
    }

    #[test]
    fn dead_entries_are_bounded_by_the_living_or_a_thousand() {
        for alive in [0, 10, 5000] {
            let mut map: WeakMap<usize, std::sync::Weak<usize>> = WeakMap::new();
            let kept: Vec<_> = (0..alive).map(Arc::new).collect();
            map.extend(kept.iter().map(|value| (**value, value.clone())));
            for key in alive..alive + 50_000 {
                map.insert(key, &Arc::new(key));
                assert!(map.raw_len() <= alive + alive.max(FEWEST));
            }
            assert_eq!(map.len(), alive);
        }
    }

    #[test]
    fn reads_count_and_the_next_change_cleans() {
        let mut map = Map::new();
        for key in 0..100 {
            map.insert(key, &Rc::new(0));
        }
        (0..FEWEST).for_each(|_| assert_eq!(map.get(&0), None));
        assert_eq!(map.raw_len(), 100);
        map.remove(&200);
        assert_eq!(map.raw_len(), 0);
    }

    #[test]
    fn a_clone_and_a_debug_form_show_the_living() {
        let (mut map, value) = (Map::new(), Rc::new(7));
        map.insert(1, &value);
        map.insert(2, &Rc::new(8));
        assert_eq!((map.clone(), format!("{map:?}").as_str()), (map, "{1: 7}"));
    }
}
