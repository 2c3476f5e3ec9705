//! Any bytes as a sealed frame, and a sealed frame with bytes replaced or cut off: nothing but what was sealed is opened.
#![no_main]

use framecache::Error;
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::Header;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const KEY: &str = "users:42";
const PLAIN: &[u8] = b"jane@example.org";

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let key = |byte| MasterKey::from_bytes(&[byte; 32]).unwrap();
    Keyring::new(key(1), vec![key(2)]).unwrap()
});

static SEALED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let times = Times { created: Some(1_700_000_000_000), until: Some(1_700_000_060_000) };
    KEYRING.seal_entry("default", KEY, Header::new("raw"), PLAIN, times).unwrap().1.to_vec()
});

fuzz_target!(|input: &[u8]| {
    check(input);
    // Two bytes say where, two how many bytes are left in all, the others stand there instead.
    if let Some(([a, b, c, d], patch)) = input.split_first_chunk() {
        let mut frame = SEALED.clone();
        let at = usize::from(u16::from_be_bytes([*a, *b])) % frame.len();
        for (byte, patch) in frame[at..].iter_mut().zip(patch) {
            *byte = *patch;
        }
        frame.truncate(frame.len() - usize::from(u16::from_be_bytes([*c, *d])) % frame.len());
        check(&frame);
    }
});

fn check(frame: &[u8]) {
    match KEYRING.open_entry("default", KEY, frame) {
        Ok(opened) => {
            assert_eq!(frame, SEALED.as_slice());
            assert_eq!(&opened.frame[opened.payload..], PLAIN);
        }
        Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
    }
}
