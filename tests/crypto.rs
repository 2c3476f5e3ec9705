//! Sealing and opening: what comes back, what is refused and why, and what a fork, a rotation and a wiped key do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test that cannot go on panics")]

use framecache::buffer::Origin;
use framecache::buffer::pool;
use framecache::compress::Compression;
use framecache::crypto::{Keyring, MAX_PLAINTEXT, MasterKey, OVERHEAD, Packing, Times};
use framecache::frame::{self, Header};
use framecache::key::{Name, Namespace};
use framecache::{Error, Refusal};
use proptest::prelude::*;

const TIMES: Times = Times { created: Some(1_700_000_000_000), until: Some(1_700_000_060_000) };

fn key(byte: u8) -> MasterKey {
    MasterKey::from_bytes(&[byte; 32]).unwrap()
}

fn keyring() -> Keyring {
    Keyring::new(key(1), Vec::new()).unwrap()
}

fn sealed(keyring: &Keyring, plain: &[u8]) -> (Name, Vec<u8>) {
    let name = keyring.name("default", "users:42").unwrap();
    (name, keyring.seal("default", &name, plain, TIMES).unwrap().to_vec())
}

fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        plain in prop::collection::vec(any::<u8>(), 0..5000), tenant in "[a-zA-Zü0-9 _.:-]{1,60}", text: String,
        created: Option<u64>, until: Option<u64>,
    ) {
        let keyring = keyring();
        let name = keyring.name(&tenant, &text).unwrap();
        let times = Times { created, until };
        let frame = keyring.seal(&tenant, &name, &plain, times).unwrap();
        let opened = keyring.open(&tenant, &name, &frame).unwrap();
        prop_assert!(*opened == *plain);
        prop_assert_eq!(opened.as_ptr().addr() % 64, 0);
        prop_assert_eq!(Keyring::times(&frame).unwrap(), times);
        let payload = frame::locate_header(&frame).unwrap().end;
        prop_assert_eq!(frame.len() - payload, plain.len() + OVERHEAD);
        prop_assert_eq!((payload + 28) % 64, 0);
        let header = Header::parse(&frame[frame::locate_header(&frame).unwrap()]).unwrap();
        prop_assert_eq!((header.codec.as_str(), header.length), ("sealed", Some((plain.len() + OVERHEAD) as u64)));
        prop_assert_eq!((header.created, header.until), (created, until));
    }

    #[test]
    fn a_draft_is_sealed_as_a_whole_frame(payload in prop::collection::vec(any::<u8>(), 0..200_000), text: String) {
        let keyring = keyring();
        let (name, frame) =
            keyring.seal_entry("default", &text, Header::new("raw"), payload.as_slice(), TIMES).unwrap();
        prop_assert_eq!(name, keyring.name("default", &text).unwrap());
        let opened = keyring.open_entry("default", &text, &frame).unwrap();
        prop_assert!(opened.frame[opened.payload..] == *payload);
        prop_assert_eq!((opened.header.key.as_deref(), opened.payload % 64), (Some(text.as_str()), 0));
        prop_assert_eq!((opened.header.length, opened.times), (Some(payload.len() as u64), TIMES));
        prop_assert!(*keyring.open("default", &name, &frame).unwrap() == *opened.frame);
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), start in 0usize..600) {
        let keyring = keyring();
        let (name, mut frame) = sealed(&keyring, b"plain");
        prop_assert!(keyring.open("default", &name, &bytes).is_err());
        let end = (start + bytes.len()).min(frame.len());
        let start = start.min(end);
        let before = frame.clone();
        frame[start..end].copy_from_slice(&bytes[..end - start]);
        prop_assert!(frame == before || keyring.open("default", &name, &frame).is_err());
    }
}

/// A frame with one change, its header's length set to fit.
fn changed(frame: &[u8], change: usize, at: prop::sample::Index, byte: u8, number: &str) -> Vec<u8> {
    let header = frame::locate_header(frame).unwrap();
    let (json, payload) = (&frame[header.clone()], &frame[header.end..]);
    let text = String::from_utf8(json.to_vec()).unwrap();
    let rebuilt = |json: Vec<u8>| {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        [&frame[..3], &length[..], &json[..], payload].concat()
    };
    let padded = |text: String| {
        let text = text.trim_end();
        let bare = text.len() + 7 + 28;
        rebuilt(format!("{text}{}", " ".repeat(bare.next_multiple_of(64) - bare)).into_bytes())
    };
    match change {
        0 => {
            let mut bytes = frame.to_vec();
            bytes[at.index(frame.len())] = byte;
            bytes
        }
        1 => {
            let mut json = json.to_vec();
            json[at.index(header.len())] = byte;
            rebuilt(json)
        }
        2 => padded(text.replacen("1700000000000", number, 1)),
        3 => padded(text.replacen("\"length\": ", &format!("\"length\": {number}"), 1)),
        4 => padded(text.replacen(", \"created\": 1700000000000", "", 1)),
        5 => rebuilt([json, &[b' '; 64]].concat()),
        6 => {
            let mut json = json.to_vec();
            json.remove(at.index(header.len()));
            padded(String::from_utf8(json).unwrap())
        }
        7 => frame[..at.index(frame.len())].to_vec(),
        _ => [frame, &[byte]].concat(),
    }
}

proptest! {
    /// The header of an entry under the key that was used last is compared with that key's, others are parsed: both
    /// accept the same frames, and refuse the others for the same reason.
    #[test]
    fn a_header_is_read_alike_whichever_key_was_used_last(
        change in 0_usize..9, at: prop::sample::Index, byte: u8, plain in prop::collection::vec(any::<u8>(), 0..40),
        number in prop_oneof!["[0-9]{0,22}", "-?[1-9][0-9]{7,16}", Just("18446744073709551616".to_owned())],
    ) {
        let keyring = keyring();
        let (name, frame) = sealed(&keyring, &plain);
        let theirs = keyring.seal("another", &name, &plain, TIMES).unwrap();
        let frame_changed = changed(&frame, change, at, byte, &number);
        let read_after = |other: &[u8], tenant: &str, bytes: &[u8]| {
            keyring.open(tenant, &name, other).unwrap();
            let opened = keyring.open("default", &name, bytes);
            opened.map(|frame| frame.to_vec()).map_err(|error| error.to_string())
        };
        let (same, other) =
            (read_after(&frame, "default", &frame_changed), read_after(&theirs, "another", &frame_changed));
        prop_assert_eq!(&same, &other);
        prop_assert_eq!(same.is_ok(), frame_changed == frame, "{:?}", same);
    }
}

#[test]
fn every_bit_counts() {
    let keyring = Keyring::new(key(1), vec![key(2)]).unwrap();
    let (name, frame) = sealed(&keyring, b"some plaintext of several bytes");
    let payload = frame::locate_header(&frame).unwrap().end;
    for bit in 0..frame.len() * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let why = reason(keyring.open("default", &name, &flipped));
        if bit / 8 >= payload {
            let expected = if bit / 8 < payload + 16 { Refusal::WrongKey } else { Refusal::Changed };
            assert_eq!(why, expected, "bit {bit}");
        }
    }
    for cut in 0..frame.len() {
        let why = reason(keyring.open("default", &name, &frame[..cut]));
        assert_eq!(why, if cut < 2 { Refusal::NotSealed } else { Refusal::Truncated }, "{cut} bytes");
    }
    let longer = [&*frame, &[0]].concat();
    assert_eq!(reason(keyring.open("default", &name, &longer)), Refusal::ChangedHeader);
}

#[test]
fn every_bit_of_the_key_and_the_tenant_counts() {
    let (name, frame) = sealed(&keyring(), b"plain");
    for bit in 0..256 {
        let mut master = [1; 32];
        master[bit / 8] ^= 1 << (bit % 8);
        let other = Keyring::new(MasterKey::from_bytes(&master).unwrap(), Vec::new()).unwrap();
        assert_eq!(reason(other.open("default", &name, &frame)), Refusal::NoKey);
        assert_eq!(other.statistics().refused.iter().map(|(_, count)| count).sum::<u64>(), 1);
    }
    for tenant in ["Default", "defaul", "default ", "e", ""] {
        assert_eq!(reason(keyring().open(tenant, &name, &frame)), Refusal::WrongEntry, "{tenant}");
    }
}

/// `frame` with `from` in its header replaced by `to`, of the same length.
fn with_header(frame: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = frame.windows(from.len()).position(|window| window == from.as_bytes()).expect("in the header");
    [&frame[..at], to.as_bytes(), &frame[at + from.len()..]].concat()
}

#[test]
fn each_manipulation_has_its_reason() {
    let keyring = Keyring::new(key(1), vec![key(2)]).unwrap();
    let (name, frame) = sealed(&keyring, b"plain");
    let open = |frame: &[u8]| reason(keyring.open("default", &name, frame));
    let ids: Vec<String> = keyring.key_ids().map(|id| id.to_hex()).collect();

    // Under another entry's name, in its own frame or with the name in the header changed to fit.
    let other = keyring.name("default", "users:43").unwrap();
    let hex = (name.to_hex(), other.to_hex());
    assert_eq!(reason(keyring.open("default", &other, &frame)), Refusal::WrongEntry);
    let moved = with_header(&frame, &hex.0, &hex.1);
    assert_eq!(reason(keyring.open("default", &other, &moved)), Refusal::Changed);
    assert_eq!(open(&moved), Refusal::WrongEntry);

    // For another tenant, or said to be the reader's.
    let theirs = keyring.name("another", "users:42").unwrap();
    let foreign = keyring.seal("another", &theirs, b"plain", TIMES).unwrap();
    assert_eq!(reason(keyring.open("default", &theirs, &foreign)), Refusal::WrongEntry);
    let renamed = with_header(&foreign, "\"another\"", "\"default\"");
    assert_eq!(reason(keyring.open("default", &theirs, &renamed)), Refusal::WrongKey);

    // Under another key of the keyring, or one that it does not have.
    assert_eq!(open(&with_header(&frame, &ids[0], &ids[1])), Refusal::WrongKey);
    assert_eq!(open(&with_header(&frame, &ids[0], &"0".repeat(32))), Refusal::NoKey);

    // Served longer.
    assert_eq!(open(&with_header(&frame, "1700000060000", "1700000060001")), Refusal::Changed);
    // Header forms that sealing does not write.
    assert_eq!(open(&with_header(&frame, "\"v\": \"2.0\"", "\"v\": \"2.1\"")), Refusal::ChangedHeader);
    assert_eq!(open(&with_header(&frame, "\"aad\": 4", "\"aad\": 3")), Refusal::ChangedHeader);
    assert_eq!(open(&with_header(&frame, "}}  ", "}} \n")), Refusal::ChangedHeader);
    assert_eq!(open(&with_header(&frame, &ids[0], &ids[0].to_uppercase())), Refusal::NoKey);

    // No sealed frame at all.
    let plaintext = frame::build(Header::new("raw"), b"plain".as_slice()).unwrap();
    for bytes in [&*plaintext, b"", b"{}", b"CK\x01"] {
        assert_eq!(open(bytes), Refusal::NotSealed);
    }
}

#[test]
fn the_key_inside_must_be_the_one_that_was_asked_for() {
    let keyring = keyring();
    let inner = frame::build(Header { key: Some("b".into()), ..Header::new("raw") }, b"x".as_slice()).unwrap();
    let name = keyring.name("default", "a").unwrap();
    let frame = keyring.seal("default", &name, &inner, TIMES).unwrap();
    assert_eq!(reason(keyring.open_entry("default", "a", &frame)), Refusal::WrongEntry);
    assert!(keyring.open("default", &name, &frame).is_ok());
}

#[test]
fn nothing_of_an_entry_can_be_read_in_its_frame() {
    let keyring = keyring();
    let header = Header { compression: Some("lz4".into()), size: Some(987_654_321), ..Header::new("arrow") };
    let (name, frame) = keyring.seal_entry("acme", "users:jane", header, b"secret value".as_slice(), TIMES).unwrap();
    for plain in [
        "arrow",
        "lz4",
        "987654321",
        "users:jane",
        "secret",
        &Namespace::new("").unwrap().name_of("users:jane").unwrap().to_hex(),
    ] {
        assert!(!frame.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain}");
    }
    let json = &frame[frame::locate_header(&frame).unwrap()];
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    let fields: Vec<&str> = json["m"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["aad", "created", "kid", "length", "name", "salt", "tenant", "until"]);
    assert_eq!((json["m"]["name"].as_str(), json["m"]["tenant"].as_str()), (Some(&*name.to_hex()), Some("acme")));
}

#[test]
fn a_rotation_reads_both_and_counts_the_old() {
    let old = Keyring::new(key(1), Vec::new()).unwrap();
    let (_, under_old) = old.seal_entry("default", "k", Header::new("raw"), b"1".as_slice(), TIMES).unwrap();
    let both = Keyring::new(key(2), vec![key(1)]).unwrap();
    let (_, under_new) = both.seal_entry("default", "k", Header::new("raw"), b"2".as_slice(), TIMES).unwrap();
    let value =
        |frame: &[u8]| both.open_entry("default", "k", frame).map(|opened| opened.frame[opened.payload..].to_vec());
    assert_eq!((value(&under_old).unwrap(), value(&under_new).unwrap()), (b"1".to_vec(), b"2".to_vec()));
    value(&under_old).unwrap();
    let opened = both.statistics().opened;
    assert_eq!(opened, vec![(key(2).id(), 1), (key(1).id(), 2)]);
    // The old worker does not know the new key, and says which it is.
    let error = old.open_entry("default", "k", &under_new).unwrap_err();
    assert!(error.to_string().contains(&key(2).id().to_hex()), "{error}");
    assert_eq!(reason::<()>(Err(error)), Refusal::NoKey);
    let names = both.names("default", "k").unwrap();
    assert_eq!(names[1], old.name("default", "k").unwrap());
}

#[test]
fn erasing_a_tenant_is_dropping_its_key() {
    let tenants = Keyring::new(key(7), Vec::new()).unwrap();
    let (_, frame) = tenants.seal_entry("acme", "k", Header::new("raw"), b"x".as_slice(), TIMES).unwrap();
    drop(tenants);
    assert_eq!(reason(keyring().open_entry("acme", "k", &frame)), Refusal::NoKey);
}

#[test]
fn sealing_twice_gives_different_bytes() {
    let keyring = keyring();
    let (first, second) = (sealed(&keyring, b"plain").1, sealed(&keyring, b"plain").1);
    let payload = frame::locate_header(&first).unwrap().end;
    assert_eq!(first[..payload + 16], second[..payload + 16]);
    assert_ne!(first[payload + 16..payload + 28], second[payload + 16..payload + 28]);
    assert_ne!(first[payload + 28..], second[payload + 28..]);
}

#[test]
fn a_draft_of_another_tenant_is_an_error_and_one_grows_as_needed() {
    let keyring = keyring();
    let name = keyring.name("default", "k").unwrap();
    let draft =
        keyring.draft("a tenant with a name that is much longer than that of the other tenant", Header::new("raw"));
    assert!(matches!(keyring.seal_draft("default", &name, draft.unwrap(), TIMES), Err(Error::Argument { .. })));
    let mut draft = keyring.draft("default", Header::new("raw")).unwrap();
    for part in 0..300_u32 {
        draft.buffer.extend_from_slice(&[part as u8; 1000]).unwrap();
    }
    let frame = keyring.seal_draft("default", &name, draft, TIMES).unwrap();
    let inner = keyring.open("default", &name, &frame).unwrap();
    assert_eq!(inner[inner.len() - 1000..], [299_u32 as u8; 1000]);
}

#[test]
fn too_much_for_one_nonce_is_an_error() {
    struct Huge;
    impl frame::Payload for Huge {
        fn length(&self) -> usize {
            MAX_PLAINTEXT + 1
        }
        fn write_to(&self, _: &mut dyn std::io::Write) -> framecache::Result<()> {
            unreachable!("its length is looked at first")
        }
    }
    let sealed = keyring().seal_entry("default", "k", Header::new("raw"), &Huge, TIMES);
    assert!(matches!(sealed, Err(Error::TooLarge { limit: MAX_PLAINTEXT, .. })));
}

#[test]
fn a_payload_is_packed_before_it_is_sealed() {
    let (keyring, plain) = (keyring(), b"again and ".repeat(10_000));
    for compression in [Compression::Lz4, Compression::Zstd(1), Compression::Auto, Compression::None] {
        let packing = Packing { compression, max_value: plain.len() };
        let seal = |packing| keyring.seal_packed("default", "k", Header::new("raw"), plain.as_slice(), packing, TIMES);
        let (name, frame) = seal(packing).unwrap();
        let mut draft = keyring.draft("default", Header { key: Some("k".into()), ..Header::new("raw") }).unwrap();
        draft.buffer.extend_from_slice(&plain).unwrap();
        let drafted = keyring.seal_packed_draft("default", &name, draft, packing, TIMES).unwrap();
        for frame in [frame, drafted] {
            assert_eq!(frame.len() < plain.len() / 2, compression != Compression::None);
            let opened = keyring.open_entry("default", "k", &frame).unwrap();
            assert_eq!(*opened.unpacked(plain.len()).unwrap(), *plain);
            assert_eq!(opened.unpacked(plain.len()).unwrap().origin(), Origin::Trusted);
            if compression != Compression::None {
                assert!(matches!(opened.unpacked(plain.len() - 1), Err(Error::Decode { .. })));
            }
        }
        let narrow = Packing { max_value: plain.len() - 1, ..packing };
        assert!(matches!(seal(narrow), Err(Error::TooLarge { .. })));
    }
}

#[test]
fn what_was_decompressed_is_wiped() {
    // A size that no other test opens or decompresses.
    const SIZE: usize = 5 << 20;
    let (keyring, plain) = (keyring(), vec![0x5b; SIZE]);
    let packing = Packing { compression: Compression::Lz4, ..Packing::default() };
    let (_, frame) = keyring.seal_packed("default", "k", Header::new("raw"), plain.as_slice(), packing, TIMES).unwrap();
    let opened = keyring.open_entry("default", "k", &frame).unwrap();
    let payload = opened.unpacked(SIZE).unwrap();
    assert_eq!(*payload, *plain);
    let address = payload.as_ptr();
    drop(payload);
    #[allow(unsafe_code)]
    // SAFETY: the block is idle in the pool, which no other test takes one of its size from.
    let idle = unsafe { std::slice::from_raw_parts(address, SIZE) };
    assert!(idle[8..].iter().all(|byte| *byte == 0));
}

#[test]
fn threads_share_a_keyring_while_keys_rotate() {
    let old = std::sync::Arc::new(Keyring::new(key(1), vec![key(2)]).unwrap());
    let new = std::sync::Arc::new(Keyring::new(key(2), vec![key(1)]).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (old, new) = (old.clone(), new.clone());
            scope.spawn(move || {
                for round in 0..500 {
                    let (writer, reader) = if (thread + round) % 2 == 0 { (&old, &new) } else { (&new, &old) };
                    let (tenant, text) = (format!("t{}", round % 7), format!("{thread}:{round}"));
                    let payload = text.as_bytes();
                    let (_, frame) = writer.seal_entry(&tenant, &text, Header::new("raw"), payload, TIMES).unwrap();
                    let opened = reader.open_entry(&tenant, &text, &frame).unwrap();
                    assert_eq!(opened.frame[opened.payload..], *payload);
                }
            });
        }
    });
    let opened = |keyring: &Keyring| keyring.statistics().opened.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(opened(&old) + opened(&new), 2000);
}

#[test]
fn plaintext_is_wiped_before_its_memory_is_used_again() {
    const SIZE: usize = 3 << 20;
    let keyring = keyring();
    let plain = vec![0x5a; SIZE];
    let (name, frame) = sealed(&keyring, &plain);
    let opened = keyring.open("default", &name, &frame).unwrap();
    let address = opened.as_ptr();
    drop(opened);
    // The pool hands the same block out again; what it holds beyond the pool's own word is zeros.
    let again = keyring.open("default", &name, &frame).unwrap();
    assert_eq!(again.as_ptr(), address);
    drop(again);
    assert!(pool::held() >= SIZE);
    #[allow(unsafe_code)]
    // SAFETY: the block is idle in the pool, which no other thread of this test process takes it from: no other test
    // opens a frame of its size.
    let idle = unsafe { std::slice::from_raw_parts(address, SIZE) };
    assert!(idle[8..].iter().all(|byte| *byte == 0));
}
