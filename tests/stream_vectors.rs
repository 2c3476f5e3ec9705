//! The vectors of `proto-docs/stream.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::Error;
use framecache::buffer::{FrameBuf, Origin};
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::stream::{Access, StreamOptions, StreamReader};
use serde_json::Value;
use std::io::Read;

const VECTORS: &str = include_str!("../proto-docs/vectors/stream.jsonl");

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn keyring(vector: &Value) -> Option<Keyring> {
    let mut keys = vector["masters"].as_array()?.iter().map(|key| MasterKey::from_bytes(&hex(key)).unwrap());
    Some(Keyring::new(keys.next().unwrap(), keys.collect()).unwrap())
}

fn opened(vector: &Value) -> Result<StreamReader, Error> {
    let keyring = keyring(vector);
    let access = match &keyring {
        Some(keyring) => Access::Sealed { keyring, tenant: vector["tenant"].as_str().unwrap() },
        None => Access::Plain,
    };
    let frame = FrameBuf::copy_of(&hex(&vector["hex"]), Origin::Foreign).unwrap();
    StreamReader::open(frame, vector["key"].as_str().unwrap(), access, &StreamOptions::default())
}

fn reason_of(error: &Error) -> Option<&'static str> {
    match error {
        Error::Refused { reason, .. } => Some(reason.name()),
        _ => None,
    }
}

#[test]
fn streams_are_read_and_refused_as_specified() {
    let mut kinds = [0, 0, 0];
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let name = &vector["name"];
        match (vector["kind"].as_str().unwrap(), opened(&vector)) {
            ("opened", reader) => {
                kinds[0] += 1;
                let mut reader = reader.unwrap_or_else(|error| panic!("{name}: {error}"));
                let parts = vector["payload"]["parts"].as_array().unwrap();
                let expected: Vec<u8> =
                    parts.iter().flat_map(|part| hex(&part[0]).repeat(part[1].as_u64().unwrap() as usize)).collect();
                let mut payload = Vec::new();
                reader.read_to_end(&mut payload).unwrap();
                assert!(payload == expected, "{name}");
                let times = Times { created: Some(1_700_000_000_000), until: Some(1_700_000_060_000) };
                assert_eq!((reader.times(), reader.verify().is_ok()), (times, true), "{name}");
            }
            ("refused", Err(error)) => {
                kinds[1] += 1;
                assert_eq!(
                    (reason_of(&error), &vector["verify"]),
                    (vector["reason"].as_str(), &Value::Null),
                    "{name}: {error}"
                );
            }
            ("refused", Ok(mut reader)) => {
                kinds[1] += 1;
                let refused = vector["verify"].as_u64().unwrap_or_else(|| panic!("{name} was opened"));
                for _ in 0..refused {
                    assert!(reader.next_chunk().unwrap().is_some(), "{name}");
                }
                let error = reader.next_chunk().unwrap_err();
                assert_eq!(reason_of(&error), vector["reason"].as_str(), "{name}: {error}");
                assert!(reader.slice(refused * 4096, 1).is_err() && reader.verify().is_err(), "{name}");
            }
            ("malformed", reader) => {
                kinds[2] += 1;
                assert!(matches!(reader, Err(Error::Frame { .. })), "{name}");
            }
            (kind, _) => panic!("{name}: {kind}"),
        }
    }
    assert!(kinds[0] >= 7 && kinds[1] >= 22 && kinds[2] >= 7, "{kinds:?}");
}
