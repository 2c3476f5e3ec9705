//! Writes the corpora that the targets start from, a few kilobytes, into the directories where they look for them.

use framecache::frame::{self, Header};
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
    let legacy = [
        r#"{"data": "YWJj", "metadata": {"a": [1, 2.5, null, true]}, "serializer": "default", "version": "1.0"}"#,
        r#"{"data": "YQ==", "serializer": "\u0161\n"}"#,
    ];
    for (index, json) in legacy.into_iter().enumerate() {
        std::fs::write(frames.join(format!("legacy-{index}")), json).unwrap();
    }
}
