//! Any bytes as compressed data of any declared size, and as a payload to compress.
//!
//! The input is one byte for the algorithm, three for the size, and the data.
#![no_main]

use framecache::compress::{Algorithm, Compression, decompress};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [algorithm, high, middle, low, data @ ..] = input else { return };
    let (algorithm, compression) = match algorithm % 2 {
        0 => (Algorithm::Lz4, Compression::Lz4),
        _ => (Algorithm::Zstd, Compression::Zstd(1)),
    };
    let size = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if let Ok(payload) = decompress(algorithm, data, size as u64, LIMIT) {
        assert!(payload.len() == size && size <= LIMIT);
    }
    if let Some((used, compressed)) = compression.compress(data).expect("memory") {
        assert!(used == algorithm && compressed.len() < data.len());
        let back = decompress(algorithm, compressed.as_slice(), data.len() as u64, usize::MAX);
        assert_eq!(back.expect("what was written is read").as_slice(), data);
    }
});
