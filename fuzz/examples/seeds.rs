//! Writes the corpora that the targets start from, a few kilobytes, into the directories where they look for them.

use framecache::buffer::{FrameBuf, Origin};
use framecache::bytestorage::seal;
use framecache::compress::{Algorithm, Compression};
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::{self, Header};
use framecache::stream::{Access, StreamOptions, StreamReader, StreamWriter};
use framecache_fuzz::SAMPLES;
use std::path::{Path, PathBuf};

fn directory_of(target: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn main() {
    let (frames, payloads, patches) = (directory_of("frame"), directory_of("arrow"), directory_of("arrow_patch"));
    for (index, (name, payload)) in SAMPLES.iter().enumerate() {
        // The first byte is how far the payload is shifted.
        std::fs::write(payloads.join(name), [&[0], payload.as_slice()].concat()).unwrap();
        std::fs::write(patches.join(name), [index as u8, 0, 0, 0, 0]).unwrap();
    }
    let python = serde_json::Map::from_iter([("types".to_owned(), serde_json::json!([1, 2.5, null, {"a": "\n"}]))]);
    let headers = [
        Header::new("raw"),
        Header { key: Some("users:42".into()), created: Some(1), until: Some(u64::MAX), ..Header::new("arrow") },
        Header { python: Some(python), ..Header::new("raw") },
    ];
    for (index, header) in headers.into_iter().enumerate() {
        std::fs::write(frames.join(format!("frame-{index}")), &*frame::build(header, b"payload".as_slice()).unwrap())
            .unwrap();
    }
    compressed();
    messages();
    sealed();
    streams();
    entries();
    let legacy = [
        r#"{"data": "YWJj", "metadata": {"a": [1, 2.5, null, true]}, "serializer": "default", "version": "1.0"}"#,
        r#"{"data": "YQ==", "serializer": "\u0161\n"}"#,
    ];
    for (index, json) in legacy.into_iter().enumerate() {
        std::fs::write(frames.join(format!("legacy-{index}")), json).unwrap();
    }
}

/// Payloads under each algorithm, and envelopes in each form.
fn compressed() {
    let (data, envelopes) = (directory_of("decompress"), directory_of("bytestorage"));
    let text = b"GET /users/1 200\nGET /users/2 404\n".repeat(20);
    for (name, payload) in [("text", text.as_slice()), ("runs", &[7; 3000]), ("short", b"0123456789012345678901")] {
        for compression in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)] {
            let Some((algorithm, bytes)) = compression.compress(payload).unwrap() else { continue };
            let size = (payload.len() as u32).to_be_bytes();
            let seed = [&[u8::from(algorithm == Algorithm::Zstd)], &size[1..], bytes.as_slice()].concat();
            std::fs::write(data.join(format!("{name}-{compression:?}")), seed).unwrap();
        }
        std::fs::write(envelopes.join(name), &*seal(payload, "msgpack").unwrap()).unwrap();
    }
    // The block as integers, and the fields in a map.
    let integers =
        b"\x94\x95\x40\xcc\x81\xcc\xa1\x61\x01\x98\xcc\x84\xcc\x8c\x4f\xcc\x99\xcc\xe3X\x4c\xcc\xc8\x04\xa7msgpack";
    let map = b"\x84\xafcompressed_data\xc4\x05\x40\x81\xa1a\x01\xa8checksum\xc4\x08\x84\x8c\x4f\x99\xe3X\x4c\xc8\
        \xadoriginal_size\x04\xa6format\xa7msgpack";
    std::fs::write(envelopes.join("integers"), integers).unwrap();
    std::fs::write(envelopes.join("map"), map).unwrap();
}

/// The vectors of entries beyond this machine, a header's end, and answers.
fn entries() {
    let directory = directory_of("redis");
    for (index, line) in include_str!("../../proto-docs/vectors/redis-entries.jsonl").lines().enumerate() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        std::fs::write(directory.join(index.to_string()), bytes_of(vector["hex"].as_str().unwrap())).unwrap();
    }
    let rest = br#""key": "a \"key\"", "length": 5, "created": 1790000000000, "until": 7}}  "#;
    std::fs::write(directory.join("rest"), rest).unwrap();
    std::fs::write(directory.join("answer"), b"\x04*4\r\n$3\r\nabc\r\n$-1\r\n_\r\n$0\r\n\r\n").unwrap();
    std::fs::write(directory.join("large"), [b"\x01*1\r\n$70000\r\n", &[b'x'; 70_000][..], b"\r\n"].concat()).unwrap();
}

fn bytes_of(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The vectors of the codec.
fn messages() {
    let directory = directory_of("msgpack");
    for (index, line) in include_str!("../../proto-docs/vectors/msgpack.jsonl").lines().enumerate() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        std::fs::write(directory.join(index.to_string()), bytes_of(vector["hex"].as_str().unwrap())).unwrap();
    }
}

/// Frames under the target's keys, and patches of its own frame: nothing, in the header, in the payload, a shorter one.
fn sealed() {
    let directory = directory_of("sealed");
    for (name, byte, tenant, key) in [
        ("current", 1, "default", "users:44"),
        ("previous", 2, "default", "users:44"),
        ("stranger", 3, "default", "users:42"),
        ("tenant", 1, "acme", "users:42"),
        ("key", 1, "default", "users:43"),
    ] {
        let keyring = Keyring::new(MasterKey::from_bytes(&[byte; 32]).unwrap(), Vec::new()).unwrap();
        let times = Times { created: Some(1), until: (byte == 1).then_some(u64::MAX) };
        let (_, frame) = keyring.seal_entry(tenant, key, Header::new("raw"), b"x".as_slice(), times).unwrap();
        std::fs::write(directory.join(name), &*frame).unwrap();
    }
    for (name, patch) in [
        ("nothing", &[0, 0, 0, 0][..]),
        ("magic", b"\0\0\0\0CK\x03"),
        ("payload", b"\x01\xa0\0\0x"),
        ("short", b"\0\0\0\x10"),
    ] {
        std::fs::write(directory.join(format!("patch-{name}")), patch).unwrap();
    }
}

/// Streams under the target's key and their indices, sealed and plain, and patches of the target's own streams.
fn streams() {
    const KEY: &str = "tables:1";
    let directory = directory_of("stream");
    let keyring = Keyring::new(MasterKey::from_bytes(&[1; 32]).unwrap(), Vec::new()).unwrap();
    let sealed = Access::Sealed { keyring: &keyring, tenant: "default" };
    let options = StreamOptions { chunk_size: 4096, compression: Compression::Lz4, ..StreamOptions::default() };
    for (name, access, payload) in [
        ("sealed", sealed, [b'b'; 5000].as_slice()),
        ("sealed-empty", sealed, b""),
        ("plain", Access::Plain, &[b'b'; 5000]),
        ("plain-short", Access::Plain, b"0123456789"),
    ] {
        let writer = StreamWriter::new(Vec::new(), KEY, Header::new("raw"), Times::default(), access, &options);
        let mut writer = writer.unwrap();
        writer.push(payload).unwrap();
        let (stream, _) = writer.finish().unwrap();
        std::fs::write(directory.join(name), &stream).unwrap();
        let frame = FrameBuf::copy_of(&stream, Origin::Foreign).unwrap();
        let reader = StreamReader::open(frame, KEY, access, &options).unwrap();
        std::fs::write(directory.join(format!("index-of-{name}")), reader.index().to_bytes()).unwrap();
    }
    for (name, patch) in [
        ("nothing", &[0, 0, 0, 0][..]),
        ("magic", b"\0\0\0\0CK\x03"),
        ("header", b"\0\x30\0\0x"),
        ("short", b"\0\0\0\x10"),
    ] {
        std::fs::write(directory.join(format!("patch-{name}")), patch).unwrap();
    }
}
