//! Any bytes as a frame, a header, and an envelope from before frames.
#![no_main]

use framecache::frame::{Header, Scalar, locate_header, parse_legacy, read_flat};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;

fuzz_target!(|input: &[u8]| {
    if let Ok(range) = locate_header(input) {
        assert!(range.start <= range.end && range.end <= input.len());
        header(&input[range]);
    }
    header(input);
    if let Ok(legacy) = parse_legacy(input) {
        assert!(!legacy.serializer().is_empty());
        serde_json::from_str::<Value>(legacy.metadata()).ok();
        if let Ok(length) = legacy.decoded_len() {
            let mut payload = vec![0; length];
            let _ = legacy.decode(&mut payload);
            // A buffer of another size is an error, not a panic.
            assert!(legacy.decode(&mut vec![0; length + 1]).is_err());
        }
    }
});

fn header(json: &[u8]) {
    if let Ok(header) = Header::parse(json) {
        assert_eq!(Header::parse(&header.to_json()).expect("what was written is read"), header);
    }
    flat(json);
}

/// The fast way accepts nothing that the full parser does not, and finds the same.
fn flat(json: &[u8]) {
    let mut fields = BTreeMap::new();
    let name = read_flat(json, |name, value| {
        let value = match value {
            Scalar::Text(text) => Value::from(text),
            Scalar::Integer(number) => Value::from(number),
            Scalar::Flag(flag) => Value::from(flag),
            Scalar::Null => Value::Null,
        };
        fields.insert(name, value);
        true
    });
    let Some(name) = name else { return };
    let whole: Value = serde_json::from_slice(json).expect("JSON, as the fast way found");
    assert_eq!(whole["s"], name);
    let found = whole["m"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value.clone()));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), fields);
}
