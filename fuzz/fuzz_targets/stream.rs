//! Any bytes as a stream and as an index, and streams with bytes replaced or cut off: no panic, no allocation beyond what
//! stands there, and nothing but what was sealed is read from a sealed one.
#![no_main]

use framecache::Error;
use framecache::buffer::{FrameBuf, Origin};
use framecache::compress::Compression;
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::Header;
use framecache::stream::{Access, Index, StreamOptions, StreamReader, StreamWriter};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const KEY: &str = "tables:1";
const PAYLOAD: [u8; 9000] = [b'a'; 9000];

static KEYRING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::new(MasterKey::from_bytes(&[1; 32]).unwrap(), Vec::new()).unwrap());

static OPTIONS: LazyLock<StreamOptions> = LazyLock::new(|| StreamOptions {
    chunk_size: 4096,
    compression: Compression::Lz4,
    workers: 0,
    ..StreamOptions::default()
});

static STREAMS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [written(sealed()), written(Access::Plain)]);

fn sealed() -> Access<'static> {
    Access::Sealed { keyring: &KEYRING, tenant: "default" }
}

fn written(access: Access<'_>) -> Vec<u8> {
    let times = Times { created: Some(1_700_000_000_000), until: None };
    let mut writer = StreamWriter::new(Vec::new(), KEY, Header::new("raw"), times, access, &OPTIONS).unwrap();
    writer.push(&PAYLOAD).unwrap();
    writer.finish().unwrap().0
}

fuzz_target!(|input: &[u8]| {
    for sealed in [false, true] {
        if let Ok(index) = Index::parse(input, sealed) {
            assert_eq!(Index::parse(&index.to_bytes(), sealed), Ok(index));
        }
    }
    // Two bytes say where, two how many bytes are left in all, the others stand there instead.
    let Some(([a, b, c, d], patch)) = input.split_first_chunk() else { return };
    for (stream, access) in STREAMS.iter().zip([sealed(), Access::Plain]) {
        check(input, stream, access);
        let mut changed = stream.clone();
        let at = usize::from(u16::from_be_bytes([*a, *b])) % changed.len();
        for (byte, patch) in changed[at..].iter_mut().zip(patch) {
            *byte = *patch;
        }
        changed.truncate(changed.len() - usize::from(u16::from_be_bytes([*c, *d])) % changed.len());
        check(&changed, stream, access);
    }
});

fn check(bytes: &[u8], whole: &[u8], access: Access<'_>) {
    let frame = FrameBuf::copy_of(bytes, Origin::Foreign).unwrap();
    let read = StreamReader::open(frame, KEY, access, &OPTIONS).and_then(|reader| {
        reader.verify()?;
        reader.slice(0, reader.len() as usize)
    });
    if let Access::Sealed { .. } = access {
        match read {
            Ok(payload) => assert!(bytes == whole && *payload == PAYLOAD),
            Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
        }
    }
}
