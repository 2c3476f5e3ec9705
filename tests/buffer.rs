//! Buffers and their pool from outside: old bytes stay unseen, blocks come back, and little is held.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use arrow_array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use framecache::buffer::{ALIGN, AlignedBuf, FrameBuf, Origin, pool};
use framecache::codec::arrow::Table;
use framecache::frame::{self, Header, Payload};
use framecache::store::{Lookup, New, Options, Store};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the blocks in the pool are full of; nothing that is written here contains it.
const MARKER: u8 = 0xA5;

/// The pool is the process's, and these tests count what is in it.
fn alone() -> MutexGuard<'static, ()> {
    static POOL: Mutex<()> = Mutex::new(());
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills the pool with blocks of several classes whose every byte is the marker.
fn soil_the_pool() {
    let sizes = [1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 40].map(|step| step * pool::SMALLEST);
    let blocks: Vec<AlignedBuf> = sizes
        .into_iter()
        .flat_map(|size| [size, size])
        .map(|size| {
            let mut block = AlignedBuf::with_capacity(size).unwrap();
            let marked = vec![MARKER; block.capacity()];
            block.extend_from_slice(&marked).unwrap();
            block
        })
        .collect();
    drop(blocks);
    assert!(pool::held() >= 2 * sizes.iter().sum::<usize>());
}

fn clean(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 101) as u8).collect()
}

/// Requires that a frame is its header, spaces, and the payload.
fn is_only(frame: &[u8], header: &Header, payload: &[u8]) {
    let json = header.clone().with_length(payload.len()).to_json();
    let range = frame::locate_header(frame).unwrap();
    let (text, padding) = frame[range.clone()].split_at(json.len());
    assert_eq!((&frame[..3], text), (b"CK\x03".as_slice(), json.as_slice()));
    assert!(padding.len() < ALIGN && padding.iter().all(|byte| *byte == b' '), "{padding:?}");
    assert!(&frame[range.end..] == payload);
    assert!(!frame.contains(&MARKER));
}

const LENGTHS: [usize; 16] = [
    0, 1, 63, 64, 1000, 65_000, 65_408, 65_535, 65_536, 65_537, 100_000, 131_072, 131_073, 1_000_003, 1_048_576,
    2_000_001,
];

#[test]
fn a_frame_shows_nothing_of_the_block_it_lies_in() {
    let _alone = alone();
    for length in LENGTHS {
        soil_the_pool();
        let payload = clean(length);
        let frame = frame::build(Header::new("raw"), payload.as_slice()).unwrap();
        is_only(&frame, &Header::new("raw"), &payload);
        let copy = FrameBuf::copy_of(&payload, Origin::Foreign).unwrap();
        assert!(*copy == *payload);
    }
}

#[test]
fn a_blob_and_its_file_show_nothing_of_old_blocks() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, Options::default()).unwrap();
    let header = Header { key: Some("key".into()), ..Header::new("raw") };
    for length in LENGTHS {
        soil_the_pool();
        let payload = clean(length);
        let new = New { header: Header::new("raw"), ..New::default() };
        store.put("key", new, payload.as_slice(), 0).unwrap();
        if let Some(file) = std::fs::read_dir(path.join("blobs")).unwrap().next() {
            is_only(&std::fs::read(file.unwrap().path()).unwrap(), &header, &payload);
        }
        let Lookup::Hit(hit) = store.get("key", 0).unwrap() else { panic!("a miss") };
        is_only(&hit.frame, &header, &payload);
    }
}

#[test]
fn the_padding_of_arrow_buffers_is_zero() {
    let _alone = alone();
    for rows in [0, 1, 7, 1000, 8191, 30_000] {
        soil_the_pool();
        let schema = Arc::new(Schema::new(vec![
            Field::new("ints", DataType::Int64, true),
            Field::new("flags", DataType::Boolean, false),
            Field::new("texts", DataType::Utf8, false),
        ]));
        // No byte of these is the marker: small numbers, bits all alike, and ASCII.
        let ints = Int64Array::from_iter((0..rows).map(|row| Some(row % 101)));
        let flags = BooleanArray::from(vec![true; rows as usize]);
        let texts = StringArray::from_iter_values((0..rows).map(|_| "text"));
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(ints), Arc::new(flags), Arc::new(texts)]).unwrap();
        let payload = Table::new(schema, vec![batch]).into_payload().unwrap();
        let frame = frame::build(Header::new("arrow"), &payload).unwrap();
        let mut expected = Vec::new();
        payload.write_to(&mut expected).unwrap();
        let start = frame::locate_header(&frame).unwrap().end;
        assert!(frame[start..] == expected, "a frame and a file differ");
        let marked = frame.iter().filter(|byte| **byte == MARKER).count();
        // String offsets count up by four, so that some contain the byte.
        let offsets =
            (0..=rows).flat_map(|row| ((row * 4) as i32).to_le_bytes()).filter(|byte| *byte == MARKER).count();
        assert_eq!(marked, offsets);
    }
}

#[test]
fn a_buffer_that_grows_shows_only_what_was_written() {
    let _alone = alone();
    soil_the_pool();
    let mut buffer = AlignedBuf::default();
    let mut length = 0;
    for step in 0..60 {
        buffer.write_all(&clean(step * 999)).unwrap();
        buffer.extend_zeroed(step * 31).unwrap();
        length += step * (999 + 31);
        assert_eq!(buffer.len(), length);
        assert!(!buffer.as_slice().contains(&MARKER));
    }
    buffer.truncate(10);
    buffer.extend_zeroed(500_000).unwrap();
    assert!(buffer.as_slice()[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_pool_hands_blocks_out_again_and_holds_no_more_than_its_limit() {
    let _alone = alone();
    pool::trim();
    assert_eq!((pool::held(), pool::trim()), (0, 0));

    let address = |buffer: &AlignedBuf| buffer.as_slice().as_ptr().addr();
    let mut first = AlignedBuf::with_capacity(1 << 20).unwrap();
    first.extend_zeroed(1).unwrap();
    let (block, capacity) = (address(&first), first.capacity());
    drop(first);
    assert_eq!(pool::held(), capacity);
    let again = AlignedBuf::with_capacity(1 << 20).unwrap();
    assert_eq!((address(&again), pool::held()), (block, 0));
    drop(again);

    // A frame's block comes back when its last view goes, and a smaller buffer may take a slightly larger block.
    pool::trim();
    let frame = frame::build(Header::new("raw"), vec![0; 1 << 20].as_slice()).unwrap();
    let (block, view) = (frame.as_ptr().addr(), frame.slice(100..200).unwrap());
    drop(frame);
    assert_eq!(pool::held(), 0);
    drop(view);
    let smaller = AlignedBuf::with_capacity(1 << 20).unwrap();
    assert_eq!(address(&smaller), block);
    drop(smaller);

    // Small buffers are the allocator's.
    pool::trim();
    drop(AlignedBuf::with_capacity(pool::SMALLEST - 1).unwrap());
    assert_eq!(pool::held(), 0);

    let mut most = 0;
    for size in [1 << 16, 1 << 20, 1 << 24, 1 << 26, 1 << 27, 1 << 28, (1 << 28) + 1, 1 << 29] {
        let blocks: Vec<_> = (0..6).map(|_| AlignedBuf::with_capacity(size).unwrap()).collect();
        for block in blocks {
            drop(block);
            assert!(pool::held() <= pool::LIMIT, "{} bytes", pool::held());
            most = most.max(pool::held());
        }
    }
    assert!(most > pool::LIMIT / 2);
    let held = pool::held();
    assert_eq!((pool::trim(), pool::held()), (held, 0));

    // Many threads at once lose no count.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..2000 {
                    let mut buffer = AlignedBuf::with_capacity(pool::SMALLEST * (1 + (round + thread) % 9)).unwrap();
                    buffer.extend_zeroed(100).unwrap();
                    buffer.as_mut_slice().fill(thread as u8);
                    assert!(buffer.as_slice().iter().all(|byte| *byte == thread as u8));
                }
            });
        }
    });
    let held = pool::held();
    assert_eq!((pool::trim(), pool::held()), (held, 0));
}
