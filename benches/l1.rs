//! L1: what a hit costs, and what a million entries take.
//!
//! `cargo bench --bench l1`; results stand in `benchmarks/RESULTS.md`.

mod timing;

use framecache::l1::{L1, New, Options};
use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;

const ENTRIES: u64 = 1_000_000;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if let [entries, max_bytes] = numbers[..] {
        return measure_memory(entries, max_bytes);
    }
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

/// What entries take of a process's memory beyond their keys and values: some that all fit, and ten times as many as fit.
fn memory() {
    for (entries, max_bytes) in [(ENTRIES, 1 << 30), (10 * ENTRIES, 128 << 20)] {
        let numbers = [entries, max_bytes].map(|number| number.to_string());
        // In a process of its own, whose memory nothing else was kept in before.
        let run = std::env::current_exe().and_then(|this| std::process::Command::new(this).args(numbers).status());
        assert!(run.is_ok_and(|status| status.success()));
    }
}

fn measure_memory(entries: u64, max_bytes: u64) {
    let before = resident();
    let cache = filled(entries, max_bytes);
    let taken = resident() - before;
    let stats = cache.stats();
    let each = taken as f64 / stats.entries as f64;
    let beyond = each - (size_of::<usize>() + key_of(0).len()) as f64;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!("{entries} insertions into {} MiB: {} entries are kept", mebibytes(max_bytes), stats.entries);
    eprintln!("  resident {:.1} MiB, counted {:.1} MiB", mebibytes(taken), mebibytes(stats.bytes));
    eprintln!("  {each:.1} bytes an entry, {beyond:.1} beyond key and value");
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

fn hits() {
    for live in [1_000, ENTRIES] {
        let cache = filled(live, 1 << 30);
        let keys: Vec<_> = (0..live).map(key_of).collect();
        let absent: Vec<_> = (live..2 * live).map(key_of).collect();
        let map: HashMap<&[u8], usize> = keys.iter().map(|key| (&key[..], 1)).collect();
        let turns = [(); 3].map(|()| Cell::new(0));
        let next = |turn: &Cell<usize>| {
            turn.set((turn.get() + 7_919) % live as usize);
            turn.get()
        };
        timing::compare(
            &format!("a hit among {live} entries"),
            21,
            200_000,
            vec![
                (
                    "HashMap::get",
                    Box::new(|| {
                        black_box(map.get(&keys[next(&turns[0])][..]));
                    }),
                ),
                (
                    "L1::get: two guards, a deadline",
                    Box::new(|| {
                        black_box(cache.get(&keys[next(&turns[1])], |value| *value));
                    }),
                ),
                (
                    "L1::get, a miss",
                    Box::new(|| {
                        black_box(cache.get(&absent[next(&turns[2])], |value| *value));
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
