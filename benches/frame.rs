//! Building and parsing frames in Rust: against `memcpy` into warm memory, and by size.
//!
//! `cargo bench --bench frame`; results stand in `benchmarks/RESULTS.md`.
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on panics")]

mod timing;

use framecache::frame::{Header, build, locate_header, read_flat};
use std::hint::black_box;

fn main() {
    for megabytes in [1, 16, 100] {
        let payload = vec![7u8; megabytes << 20];
        let mut warm = vec![1u8; payload.len()];
        timing::compare(
            &format!("a frame of {megabytes} MiB"),
            41,
            1,
            vec![
                ("memcpy into warm memory", Box::new(|| black_box(&mut warm).copy_from_slice(black_box(&payload)))),
                ("frame::build", Box::new(|| drop(black_box(build(Header::new("raw"), &*payload).expect("memory"))))),
            ],
        );
    }
    for size in [100, 100 << 20] {
        let frame =
            build(Header { key: Some("users:42".into()), ..Header::new("raw") }, &*vec![7u8; size]).expect("memory");
        timing::compare(
            &format!("read the header of a frame of {size} bytes"),
            41,
            10_000,
            vec![
                (
                    "flat",
                    Box::new(|| drop(black_box(locate_header(&frame).map(|at| read_flat(&frame[at], |_, _| true))))),
                ),
                ("typed", Box::new(|| drop(black_box(locate_header(&frame).and_then(|at| Header::parse(&frame[at])))))),
            ],
        );
    }
}
