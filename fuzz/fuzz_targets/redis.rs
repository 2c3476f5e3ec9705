//! Any bytes as an entry beyond this machine, as the end of its header, and as an answer of Redis.
#![no_main]

use framecache::frame::Header;
use framecache::remote::{Head, Progress, Replies, read_rest};
use libfuzzer_sys::fuzz_target;

const START: &[u8] = br#"{"s": "raw", "v": "2.0", "m": {"#;
const KEY: &str = "a \"key\"";

fuzz_target!(|input: &[u8]| {
    if let Ok(head) = Head::parse(input) {
        assert!(head.length <= input.len() && head.length % 64 == 0);
        assert!(52 + 24 * head.tags.len() <= head.length);
        assert_eq!(Head::stated_length(input), Some(head.length));
    }
    rest(input);
    answer(input);
});

/// What is accepted without JSON, the full parser finds too.
fn rest(input: &[u8]) {
    let Some(rest) = read_rest(input, KEY) else { return };
    let header = Header::parse(&[START, input].concat()).expect("a header");
    assert_eq!(header.key.as_deref(), Some(KEY));
    assert_eq!((header.length, header.created, header.until), (Some(rest.length), Some(rest.created), rest.until));
    assert!(header.compression.is_none());
}

/// An answer is the same however it is cut.
fn answer(input: &[u8]) {
    let Some((count, input)) = input.split_first() else { return };
    let count = usize::from(count % 8);
    let (mut whole, mut cut) = (Replies::new(count).unwrap(), Replies::new(count).unwrap());
    let found = whole.take(input);
    let mut progress = Ok(Progress::More);
    for part in input.chunks(7) {
        if !matches!(progress, Ok(Progress::More)) {
            break;
        }
        progress = cut.take(part);
    }
    match (found, progress) {
        (Ok(Progress::Done), Ok(Progress::Done)) => {
            let values = whole.into_values();
            assert_eq!(values.len(), count);
            assert!(values.iter().zip(cut.into_values()).all(|(one, other)| one.as_deref() == other.as_deref()));
        }
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (one, other) => assert_eq!(one.is_err(), other.is_err()),
    }
}
