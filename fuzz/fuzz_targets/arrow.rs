//! Any bytes as an Arrow payload, at any distance from a 64-byte boundary.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let [shift, payload @ ..] = input {
        framecache_fuzz::check_arrow(payload, usize::from(shift % 64));
    }
});
