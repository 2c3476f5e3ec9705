//! Weak maps by size: inserting into 10,000 to 1,000,000 live entries, against a `HashMap` of the same pointers.
//!
//! `cargo bench --bench weak_map`; results stand in `benchmarks/RESULTS.md`.

mod timing;

use framecache::memory::{SyncWeakMap, WeakMap};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Weak};

fn main() {
    for live in [10_000_usize, 100_000, 1_000_000] {
        let values: Vec<Arc<usize>> = (0..live).map(Arc::new).collect();
        let entries = || values.iter().map(|value| (spread(**value), value));
        let mut strong: HashMap<u64, Weak<usize>> =
            entries().map(|(key, value)| (key, Arc::downgrade(value))).collect();
        let mut weak: WeakMap<u64, Weak<usize>> = WeakMap::new();
        weak.extend(entries().map(|(key, value)| (key, value.clone())));
        let shared: SyncWeakMap<u64, Weak<usize>> = SyncWeakMap::new();
        entries().for_each(|(key, value)| drop(shared.insert(key, value)));
        let at = |turn: &mut usize| {
            *turn = (*turn + 7_919) % live;
            (spread(*turn), &values[*turn])
        };
        // More calls a round than entries, so that cleanups are in the figure.
        let calls = live.max(100_000) + 1000;
        let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
        timing::compare(
            &format!("one operation on {live} live entries"),
            7,
            calls,
            vec![
                (
                    "HashMap::insert",
                    Box::new(|| {
                        let (key, value) = at(&mut a);
                        drop(black_box(strong.insert(key, Arc::downgrade(value))));
                    }),
                ),
                (
                    "WeakMap::insert",
                    Box::new(|| {
                        let (key, value) = at(&mut b);
                        drop(black_box(weak.insert(key, value)));
                    }),
                ),
                (
                    "SyncWeakMap::insert",
                    Box::new(|| {
                        let (key, value) = at(&mut c);
                        drop(black_box(shared.insert(key, value)));
                    }),
                ),
                ("SyncWeakMap::get", Box::new(|| drop(black_box(shared.get(&at(&mut d).0))))),
            ],
        );
        let filled = |values: &[Arc<usize>]| {
            let mut map: WeakMap<u64, Weak<usize>> = WeakMap::new();
            values.iter().for_each(|value| drop(map.insert(spread(**value), value)));
            map.raw_len()
        };
        let start = std::time::Instant::now();
        assert_eq!(black_box(filled(&values)), live);
        eprintln!("  filling an empty WeakMap: {:.1} ns an entry", start.elapsed().as_nanos() as f64 / live as f64);
    }
}

/// Keys that lie nowhere near each other.
fn spread(index: usize) -> u64 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
