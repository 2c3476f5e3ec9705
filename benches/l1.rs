//! L1: what a hit costs, and what a million entries take.
//!
//! `cargo bench --bench l1`; results stand in `benchmarks/RESULTS.md`.

mod timing;

use framecache::l1::{L1, New, Options};
use std::collections::HashMap;
use std::hint::black_box;

const ENTRIES: u64 = 1_000_000;

fn main() {
    memory();
    hits();
    fills();
}

/// As a call with one int has it: 4 bytes of scope, 10 of the argument.
fn key_of(number: u64) -> [u8; 14] {
    let mut key = [0; 14];
    key[6..].copy_from_slice(&number.to_le_bytes());
    key
}

fn new() -> New<'static> {
    const FAR: Option<u64> = Some(1 << 50);
    // Those of a key and of its namespace.
    New { deadline: FAR, until: FAR, guards: &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], ..New::default() }
}

fn filled(entries: u64, max_bytes: u64) -> L1<usize> {
    let cache = L1::new(Options::new(max_bytes));
    for number in 0..entries {
        cache.insert(&key_of(number), number as usize, new());
    }
    cache
}

/// What entries take of this process's memory beyond their keys and values, without evictions and with ten times as
/// many insertions as fit.
fn memory() {
    for (title, entries, max_bytes) in
        [("1,000,000 entries that fit", ENTRIES, 1 << 30), ("10,000,000 into 128 MiB", 10 * ENTRIES, 128 << 20)]
    {
        let before = resident();
        let cache = filled(entries, max_bytes);
        let taken = resident() - before;
        let stats = cache.stats();
        let each = taken as f64 / stats.entries as f64;
        eprintln!(
            "{title}: {} entries, {:.1} MiB resident, {:.1} MiB accounted, {each:.1} bytes an entry, {:.1} beyond key and value",
            stats.entries,
            taken as f64 / f64::from(1 << 20),
            stats.bytes as f64 / f64::from(1 << 20),
            each - (size_of::<usize>() + key_of(0).len()) as f64,
        );
    }
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

fn hits() {
    for live in [1_000, ENTRIES] {
        let cache = filled(live, 1 << 30);
        let map: HashMap<Vec<u8>, usize> = (0..live).map(|number| (key_of(number).to_vec(), 1)).collect();
        let next = |turn: &mut u64| {
            *turn = (*turn + 7_919) % live;
            key_of(*turn)
        };
        let (mut a, mut b, mut c) = (0, 0, 0);
        timing::compare(
            &format!("a hit among {live} entries"),
            21,
            200_000,
            vec![
                ("HashMap::get", Box::new(|| drop(black_box(map.get(&next(&mut a)[..]))))),
                ("L1::get", Box::new(|| drop(black_box(cache.get(&next(&mut b), |value| *value))))),
                (
                    "L1::get, a miss",
                    Box::new(|| {
                        let mut key = next(&mut c);
                        key[0] = 1;
                        drop(black_box(cache.get(&key, |value| *value)));
                    }),
                ),
            ],
        );
    }
}

fn fills() {
    let small = filled(2 * ENTRIES, 32 << 20);
    let (mut a, mut b) = (0, 0);
    timing::compare(
        "an insertion into 32 MiB that are full",
        11,
        200_000,
        vec![
            (
                "of a new key",
                Box::new(|| {
                    a += 1;
                    small.insert(&key_of((1 << 40) + a), 1, new());
                }),
            ),
            (
                "in place of an entry",
                Box::new(|| {
                    b = (b + 1) % 100;
                    small.insert(&key_of((1 << 50) + b), 1, new());
                }),
            ),
        ],
    );
}
