//! A valid Arrow payload with bytes replaced, which gets past the checks of its outer parts.
//!
//! The input is one byte for the sample, one for the shift, and then edits: three bytes of place (the top four bits
//! say how many bytes there are) and the bytes.
#![no_main]

use framecache_fuzz::SAMPLES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [sample, shift, edits @ ..] = input else { return };
    let mut payload = SAMPLES[usize::from(*sample) % SAMPLES.len()].1.clone();
    let mut edits = edits;
    while let [high, middle, low, rest @ ..] = edits {
        let at = u32::from_be_bytes([0, high & 0x0F, *middle, *low]) as usize % payload.len();
        let (bytes, rest) = rest.split_at(usize::from(high >> 4).min(rest.len()));
        for (old, new) in payload[at..].iter_mut().zip(bytes) {
            *old = *new;
        }
        edits = rest;
    }
    framecache_fuzz::check_arrow(&payload, usize::from(shift % 64));
});
