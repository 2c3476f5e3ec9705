//! Any bytes as an envelope, and as the data of one.
#![no_main]

use framecache::bytestorage::{Envelope, MAX_RATIO, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(envelope) = Envelope::parse(input) {
        assert!(envelope.size() <= MAX_RATIO * input.len());
        if let Ok(data) = envelope.open() {
            assert_eq!(data.len(), envelope.size());
            assert_opens(data.as_slice(), envelope.format());
        }
    }
    assert_opens(input, "format");
});

fn assert_opens(data: &[u8], format: &str) {
    let sealed = seal(data, format).expect("small");
    let envelope = Envelope::parse(&sealed).expect("what was written is read");
    assert_eq!((envelope.format(), envelope.size()), (format, data.len()));
    assert_eq!(envelope.open().expect("what was written opens").as_slice(), data);
}
