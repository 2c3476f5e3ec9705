use super::*;
use crate::epoch::Guard;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Microseconds and milliseconds at which the tests' clocks start.
const START_MICROS: u64 = 1_700_000_000_000_000;
const START: u64 = START_MICROS / 1000;

fn cache<V: Send + Sync>(max_bytes: u64, shards: usize) -> (L1<V>, Clock) {
    let clock = Clock::manual(START_MICROS);
    (L1::new(Options { shards, clock: clock.clone(), ..Options::new(max_bytes) }), clock)
}

fn until(deadline: u64, until: u64) -> New<'static> {
    New { deadline: Some(START + deadline), until: Some(START + until), ..New::default() }
}

fn advance(clock: &Clock, milliseconds: u64) {
    clock.advance(Duration::from_millis(milliseconds));
}

#[test]
fn a_place_in_the_table_is_charged_at_what_it_takes() {
    let (cache, _) = cache::<usize>(1 << 30, 1);
    for number in 0..100_000_u64 {
        cache.insert(&number.to_le_bytes(), 0, New::default());
    }
    let used = cache.table.memory_used();
    assert_eq!(used.entries as u64, SLOT * 100_000);
    // Hash tables double: between 5.7 and 11.4 bytes an entry.
    assert!((500_000..1_200_000).contains(&used.map), "{}", used.map);
}

#[test]
fn an_entry_weighs_its_allocation_and_what_its_value_holds() {
    let (cache, _) = cache::<[u8; 32]>(1 << 20, 1);
    let empty = |key: &[u8], bytes, guards| {
        cache.clear();
        assert!(cache.insert(key, [0; 32], New { bytes, guards, ..New::default() }));
        cache.stats().bytes
    };
    // Count, weight, three times, value, two lengths; the allocator's word.
    let least = (4 + 4 + 24 + 32 + 6 + 8_u64).next_multiple_of(16) + PLACE;
    assert_eq!(empty(b"", 0, b""), least);
    assert_eq!(empty(b"kk", 0, b""), least);
    assert_eq!(empty(b"kkk", 0, b""), least + 16);
    assert_eq!(empty(b"", 1, b""), least + 16);
    assert_eq!(empty(b"", 4096, b""), least + 4096);
    assert_eq!(empty(b"0123456", 0, &[0; 12]), least + 32);
    assert_eq!(cache.entry(b"0123456", false).map(|entry| entry.bytes()), Some(least + 32));
}

#[test]
fn entries_and_table_stay_within_the_bound_whatever_their_sizes() {
    for shards in [1, 2, 64] {
        let (cache, _) = cache::<()>(1 << 20, shards);
        // Small entries make a large table, large ones then leave places free.
        for (bytes, count) in [(0, 40_000_u32), (60_000, 200), (3, 40_000), (900, 5_000)] {
            for number in 0..count {
                cache.insert(&number.to_le_bytes(), (), New { bytes: bytes % 8_000, ..New::default() });
                if number % 97 == 0 {
                    let used = cache.table.memory_used();
                    let all = cache.table.weight() * UNIT as u64 + (used.entries + used.map) as u64;
                    assert!(all <= (1 << 20) + shards as u64 * 8_192, "{all} bytes, {shards} shards");
                    assert!(cache.stats().bytes <= 1 << 20);
                }
            }
            assert!(cache.stats().bytes > (1 << 20) / 2, "{:?}", cache.stats());
        }
    }
}

#[test]
fn an_entry_that_fits_a_shard_is_admitted_and_nothing_larger_is() {
    for shards in [1, 2, 64] {
        let (cache, _) = cache::<()>(16 << 20, shards);
        let part = (16 << 20) / cache.table.num_shards();
        assert_eq!(cache.table.num_shards(), shards);
        for number in 0..1_000_u32 {
            let key = number.to_le_bytes();
            assert!(cache.insert(&key, (), New { bytes: part * 9 / 10, ..New::default() }), "{shards} shards");
            assert!(cache.get(&key, |()| ()).is_some());
            assert!(!cache.insert(&key, (), New { bytes: part, ..New::default() }));
            assert!(cache.get(&key, |()| ()).is_none(), "what was to be replaced is out of date");
        }
        assert_eq!(cache.stats().rejected, 1_000);
    }
}

#[test]
fn what_no_entry_can_be_is_refused() {
    let (cache, _) = cache::<()>(u64::MAX, 1);
    assert!(cache.insert(b"key", (), New::default()));
    assert!(!cache.insert(b"key", (), New { bytes: usize::MAX, ..New::default() }));
    assert!(cache.get(b"key", |()| ()).is_none());
    assert!(!cache.insert(b"key", (), New { guards: &[0; 66_000], ..New::default() }));
    let (none, _) = self::cache::<()>(0, 1);
    assert!(!none.insert(b"key", (), New::default()));
    assert_eq!((none.stats().rejected, none.stats().bytes), (1, 0));
}

#[test]
fn an_entry_is_fresh_through_its_deadline_and_stale_through_its_until() {
    let (cache, clock) = cache::<u8>(1 << 20, 1);
    assert!(cache.insert(b"key", 1, until(1000, 3000)));
    advance(&clock, 1000);
    assert_eq!(cache.get(b"key", |value| *value), Some(1));
    advance(&clock, 1);
    assert_eq!(cache.get(b"key", |value| *value), None);
    assert!(cache.entry(b"key", false).is_none() && !cache.touch(b"key", None));
    let stale = cache.entry(b"key", true).expect("stale");
    assert_eq!((stale.deadline(), stale.until()), (Some(START + 1000), Some(START + 3000)));
    assert_eq!(cache.stats().entries, 1);
    advance(&clock, 2000);
    assert!(cache.entry(b"key", true).is_none());
    assert_eq!(cache.get(b"key", |value| *value), None);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses, stats.expired), (0, 1, 2, 1));
}

#[test]
fn what_has_no_until_is_never_served_stale() {
    let (cache, clock) = cache::<u8>(1 << 20, 1);
    assert!(cache.insert(b"key", 1, New::default()));
    assert!(cache.touch(b"key", Some(START + 10)));
    advance(&clock, 11);
    assert!(cache.entry(b"key", true).is_none());
    assert!(!cache.insert(b"late", 1, New { deadline: Some(START), ..New::default() }));
}

#[test]
fn the_wall_clock_may_jump() {
    let (cache, clock) = cache::<u8>(1 << 20, 1);
    cache.insert(b"key", 1, until(1000, 1000));
    clock.set_wall(START_MICROS + 3_600_000_000);
    assert_eq!(cache.get(b"key", |value| *value), Some(1));
    // What is left of its time is as it was, by the clock as it stands now.
    assert_eq!(cache.entry(b"key", false).and_then(|entry| entry.deadline()), Some(START + 3_600_000 + 1000));
    clock.set_wall(0);
    advance(&clock, 1001);
    assert_eq!(cache.get(b"key", |value| *value), None);
}

#[test]
fn a_touch_moves_the_deadline_and_never_beyond_until() {
    let (cache, clock) = cache::<u8>(1 << 20, 1);
    cache.insert(b"key", 1, until(1000, 3000));
    assert!(cache.touch(b"key", Some(START + 2000)));
    assert_eq!(cache.entry(b"key", false).and_then(|entry| entry.deadline()), Some(START + 2000));
    for later in [Some(START + 9000), None] {
        assert!(cache.touch(b"key", later));
        assert_eq!(cache.entry(b"key", false).and_then(|entry| entry.deadline()), Some(START + 3000));
    }
    advance(&clock, 3001);
    assert!(cache.get(b"key", |value| *value).is_none() && !cache.touch(b"key", None) && !cache.touch(b"no", None));
}

#[test]
fn an_entry_is_served_while_all_of_its_guards_hold() {
    let (cache, _) = cache::<u8>(1 << 20, 1);
    let epochs = cache.epochs().clone();
    let guards: Vec<u8> = [1, 2, 3].iter().flat_map(|hash| epochs.guard(*hash).to_bytes()).collect();
    let guarded = New { guards: &guards, ..New::default() };
    assert!(cache.insert(b"key", 1, guarded));
    epochs.bump(4);
    assert_eq!(cache.get(b"key", |value| *value), Some(1));
    epochs.bump(3);
    assert_eq!(cache.get(b"key", |value| *value), None);
    assert!(!cache.insert(b"key", 1, guarded), "a late write");
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.invalidated, stats.rejected), (0, 1, 1));
}

#[test]
fn expired_entries_are_removed_by_insertions() {
    let (cache, clock) = cache::<u8>(64 << 20, 1);
    for number in 0..10_000_u32 {
        cache.insert(&number.to_le_bytes(), 0, until(1000, 2000));
    }
    advance(&clock, 2001);
    for number in 10_000..20_000_u32 {
        cache.insert(&number.to_le_bytes(), 0, New::default());
    }
    assert_eq!((cache.stats().entries, cache.stats().expired), (10_000, 10_000));
}

#[test]
fn a_walk_past_free_places_is_paid_for_by_many_insertions() {
    let (cache, clock) = cache::<u8>(64 << 20, 1);
    for number in 0..100_000_u32 {
        cache.insert(&number.to_le_bytes(), 0, until(1000, 1000));
    }
    advance(&clock, 1001);
    assert_eq!(cache.purge(), 100_000);
    cache.insert(b"short", 0, until(2000, 2000));
    advance(&clock, 2000);
    let rounds = (0..10_000_u32).take_while(|_| {
        cache.insert(b"long", 0, New::default());
        cache.stats().entries == 2
    });
    // Two entries lie among 100,000 places, of which each insertion pays for 32.
    let rounds = rounds.count();
    assert!((500..=10_000).contains(&rounds), "{rounds}");
}

#[test]
fn the_entries_that_are_left_are_those_that_may_be_served() {
    let (cache, clock) = cache::<u32>(1 << 20, 2);
    for number in 0..100_u32 {
        cache.insert(&number.to_le_bytes(), number, until(u64::from(number), 2 * u64::from(number)));
    }
    advance(&clock, 40);
    let mut live = HashSet::new();
    cache.each(|key, value| assert!(live.insert((key.to_vec(), *value))));
    assert_eq!(live, (40..100_u32).map(|number| (number.to_le_bytes().to_vec(), number)).collect());
    assert_eq!(cache.purge(), 20);
    assert!(!cache.remove(&30_u32.to_le_bytes()), "stale");
    assert!(cache.remove(&50_u32.to_le_bytes()) && !cache.remove(&50_u32.to_le_bytes()));
    cache.clear();
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
}

/// A value that comes back to its cache when it is dropped.
struct Returning(Arc<(L1<Returning>, AtomicUsize)>);

impl Drop for Returning {
    fn drop(&mut self) {
        let (cache, dropped) = &*self.0;
        dropped.fetch_add(1, Ordering::Relaxed);
        cache.get(b"key", |_| ());
        cache.remove(b"other");
        cache.purge();
        // Once in a while it stores another one.
        if dropped.load(Ordering::Relaxed).is_multiple_of(50) {
            let new = New { bytes: 400, ..New::default() };
            cache.insert(&dropped.load(Ordering::Relaxed).to_le_bytes(), Returning(self.0.clone()), new);
        }
    }
}

#[test]
fn a_value_may_come_back_to_the_cache_when_it_is_dropped() {
    let (cache, clock) = cache(64 * 1024, 1);
    let shared = Arc::new((cache, AtomicUsize::new(0)));
    let insert = |key: u32, bytes, deadline| {
        let new = New { bytes, deadline, ..New::default() };
        shared.0.insert(&key.to_le_bytes(), Returning(shared.clone()), new)
    };
    let dropped = || shared.1.load(Ordering::Relaxed);
    // Evicted one by one, then many by one large entry; replaced, refused, expired, removed, cleared.
    (0..1_000).for_each(|key| assert!(insert(key, 400, None)));
    let before = dropped();
    assert!(insert(1_000, 50_000, None));
    assert!(dropped() - before > 50);
    (0..100).for_each(|_| assert!(insert(1, 400, None)));
    assert!(!insert(2, 70_000, None));
    insert(3, 400, Some(START + 5));
    advance(&clock, 6);
    assert!(shared.0.get(&3_u32.to_le_bytes(), |_| ()).is_none());
    shared.0.remove(&1_u32.to_le_bytes());
    shared.0.clear();
    let left = shared.0.stats().entries as usize;
    assert!(left < 5 && dropped() > 1_100, "{left} left, {} dropped", dropped());
    // Those that hold the cache itself go before it.
    while shared.0.stats().entries > 0 {
        shared.0.clear();
        shared.1.store(1, Ordering::Relaxed);
    }
}

#[test]
fn threads_see_whole_entries_and_the_bound_holds() {
    let (cache, _) = cache::<Vec<u64>>(256 * 1024, 4);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cache = &cache;
            scope.spawn(move || {
                for turn in 0..20_000_u64 {
                    let number = (turn * 7_919 + thread) % 3_000;
                    let key = number.to_le_bytes();
                    match cache.get(&key, Vec::clone) {
                        Some(value) => assert_eq!(value, vec![number; 8]),
                        None => {
                            cache.insert(&key, vec![number; 8], New { bytes: 80, ..New::default() });
                        }
                    }
                    if turn % 500 == 0 {
                        cache.remove(&key);
                        cache.purge();
                        assert!(cache.stats().bytes <= 256 * 1024);
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.entries > 500 && stats.evicted > 0, "{stats:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u8, deadline: Option<u64>, until: Option<u64>, guards: Vec<u8> },
    Get(u8),
    Stale(u8),
    Touch(u8, Option<u64>),
    Remove(u8),
    Bump(u8),
    Advance(u64),
    Wall(u64),
    Purge,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = || proptest::option::of(0..2_000_u64);
    let key = || 0..12_u8;
    let step = prop_oneof![
        6 => (key(), time(), time(), proptest::collection::vec(0..6_u8, 0..4))
            .prop_map(|(key, deadline, until, guards)| Step::Insert { key, deadline, until, guards }),
        6 => key().prop_map(Step::Get),
        3 => key().prop_map(Step::Stale),
        3 => (key(), time()).prop_map(|(key, deadline)| Step::Touch(key, deadline)),
        1 => key().prop_map(Step::Remove),
        2 => (0..6_u8).prop_map(Step::Bump),
        4 => (0..400_u64).prop_map(Step::Advance),
        1 => (0..10_000_u64).prop_map(Step::Wall),
        1 => Just(Step::Purge),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..120)
}

/// An entry as the model has it: monotonic times, `NEVER` for none.
struct Modelled {
    value: usize,
    deadline: u64,
    until: u64,
    guards: Vec<Guard>,
}

proptest! {
    /// What the cache serves is what a map with the same rules serves; nothing is evicted, as all fits.
    #[test]
    fn it_serves_what_a_map_would(steps in steps(), shards in 1..5_usize) {
        let (cache, clock) = cache::<usize>(1 << 20, shards);
        let epochs = cache.epochs().clone();
        let mut model: HashMap<u8, Modelled> = HashMap::new();
        // Of the monotonic clock, and how far the wall clock is ahead.
        let (mut now, mut ahead) = (clock.monotonic(), clock.wall() - clock.monotonic());
        for (turn, step) in steps.into_iter().enumerate() {
            let holds = |entry: &Modelled| entry.guards.iter().all(|guard| epochs.holds(*guard));
            let fresh = |entry: &Modelled, now| holds(entry) && now <= entry.deadline;
            let stale = |entry: &Modelled, now| {
                fresh(entry, now) || holds(entry) && entry.until != NEVER && now <= entry.until
            };
            match step {
                Step::Insert { key, deadline, until, guards } => {
                    let kept = |time: Option<u64>| time.map_or(NEVER, |time| now + time);
                    let guards: Vec<_> = guards.into_iter().map(|hash| epochs.guard(u64::from(hash))).collect();
                    let bytes: Vec<u8> = guards.iter().flat_map(|guard| guard.to_bytes()).collect();
                    let wall = |time: Option<u64>| time.map(|time| now + ahead + time);
                    let new = New { deadline: wall(deadline), until: wall(until), guards: &bytes, ..New::default() };
                    prop_assert!(cache.insert(&[key], turn, new));
                    let (deadline, until) = (kept(deadline).min(kept(until)), kept(until));
                    model.insert(key, Modelled { value: turn, deadline, until, guards });
                }
                Step::Get(key) => {
                    let expected = model.get(&key).filter(|entry| fresh(entry, now)).map(|entry| entry.value);
                    prop_assert_eq!(cache.get(&[key], |value| *value), expected);
                }
                Step::Stale(key) => {
                    let expected = model.get(&key).filter(|entry| stale(entry, now));
                    let found = cache.entry(&[key], true);
                    prop_assert_eq!(found.as_ref().map(|entry| *entry.value()), expected.map(|entry| entry.value));
                    let wall = |time: u64| (time != NEVER).then(|| time + ahead);
                    prop_assert_eq!(
                        found.map(|entry| (entry.deadline(), entry.until())),
                        expected.map(|entry| (wall(entry.deadline), wall(entry.until)))
                    );
                }
                Step::Touch(key, deadline) => {
                    let touched = cache.touch(&[key], deadline.map(|time| now + ahead + time));
                    let entry = model.get_mut(&key).filter(|entry| fresh(entry, now));
                    prop_assert_eq!(touched, entry.is_some());
                    if let Some(entry) = entry {
                        entry.deadline = deadline.map_or(NEVER, |time| now + time).min(entry.until);
                    }
                }
                Step::Remove(key) => {
                    let removed = model.remove(&key);
                    prop_assert_eq!(cache.remove(&[key]), removed.is_some_and(|entry| fresh(&entry, now)));
                }
                Step::Bump(hash) => epochs.bump(u64::from(hash)),
                Step::Advance(by) => {
                    advance(&clock, by);
                    now += by;
                }
                Step::Wall(by) => {
                    ahead = START + by;
                    clock.set_wall((now + ahead) * 1000);
                }
                Step::Purge => {
                    cache.purge();
                    model.retain(|_, entry| stale(entry, now));
                    prop_assert_eq!(cache.stats().entries, model.len() as u64);
                }
                Step::Clear => {
                    cache.clear();
                    model.clear();
                }
            }
        }
        prop_assert_eq!(cache.stats().evicted + cache.stats().rejected, 0);
    }

    /// Entries of any sizes, in any number of shards: an entry that fits is there right after, and the bound holds.
    #[test]
    fn nothing_makes_it_larger_than_it_may_be(
        sizes in proptest::collection::vec((0..200_u8, 0..6_000_usize), 1..300), shards in 1..9_usize
    ) {
        let (cache, _) = cache::<usize>(96 * 1024, shards);
        for (key, bytes) in sizes {
            let taken = cache.insert(&[key], bytes, New { bytes, ..New::default() });
            prop_assert_eq!(cache.get(&[key], |value| *value), taken.then_some(bytes));
            prop_assert!(cache.stats().bytes <= 96 * 1024);
            prop_assert!(taken || bytes as u64 > 96 * 1024 / (2 * shards.next_power_of_two() as u64));
        }
    }
}
