//! Streams: what is written comes back, from anywhere; what was changed is refused, and why; within the budget.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::buffer::{FrameBuf, Origin};
use framecache::compress::Compression;
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::{self, Header};
use framecache::memory::StreamingProcessor;
use framecache::stream::{Access, StreamOptions, StreamReader, StreamWriter, Summary};
use framecache::{Error, Refusal};
use proptest::prelude::*;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

const KEY: &str = "tables:1";
const CHUNK: usize = 4096;

fn keyring(byte: u8) -> Keyring {
    Keyring::new(MasterKey::from_bytes(&[byte; 32]).unwrap(), Vec::new()).unwrap()
}

fn options(compression: Compression, workers: usize) -> StreamOptions {
    let budget = Arc::new(StreamingProcessor::with_default_limit());
    StreamOptions { chunk_size: CHUNK, compression, workers, budget }
}

fn sealed(keyring: &Keyring) -> Access<'_> {
    Access::Sealed { keyring, tenant: "default" }
}

/// Numbers that compress, and noise that does not, in turn.
fn payload(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut byte = |at: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if (at / 10_000).is_multiple_of(2) { (at / 100) as u8 } else { (state >> 56) as u8 }
    };
    (0..len).map(&mut byte).collect()
}

fn written_for(key: &str, payload: &[u8], access: Access<'_>, options: &StreamOptions) -> (Vec<u8>, Summary) {
    let times = Times { created: Some(1), until: Some(2) };
    let mut writer = StreamWriter::new(Vec::new(), key, Header::new("raw"), times, access, options).unwrap();
    for piece in payload.chunks(1500) {
        writer.push(piece).unwrap();
    }
    writer.finish().unwrap()
}

fn written(payload: &[u8], access: Access<'_>, options: &StreamOptions) -> Vec<u8> {
    written_for(KEY, payload, access, options).0
}

fn frame_of(bytes: &[u8]) -> FrameBuf {
    FrameBuf::copy_of(bytes, Origin::Foreign).unwrap()
}

fn opened(bytes: &[u8], access: Access<'_>) -> Result<StreamReader, Error> {
    StreamReader::open(frame_of(bytes), KEY, access, &options(Compression::None, 2))
}

fn reason<T>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_comes_back_from_the_start_and_from_anywhere(
        len in 0usize..400_000, how in 0usize..4, seal: bool, workers in 0usize..4, large: bool,
        reads in prop::collection::vec((any::<u32>(), 0usize..20_000), 0..12),
    ) {
        let keyring = keyring(1);
        let access = if seal { sealed(&keyring) } else { Access::Plain };
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Auto][how];
        let payload = payload(len);
        // Large chunks are worked on by the workers, small ones by this thread.
        let chunk_size = if large { 48 << 10 } else { CHUNK };
        let how = StreamOptions { chunk_size, ..options(compression, workers) };
        let (stream, summary) = written_for(KEY, &payload, access, &how);
        prop_assert_eq!(summary.written, stream.len() as u64);
        prop_assert_eq!((summary.payload, summary.chunks), (len as u64, len.div_ceil(chunk_size) as u64));
        let mut reader = StreamReader::open(frame_of(&stream), KEY, access, &options(Compression::None, workers)).unwrap();
        prop_assert_eq!((reader.len(), reader.times()), (len as u64, Times { created: Some(1), until: Some(2) }));
        prop_assert_eq!((reader.index().header.codec.as_str(), reader.index().header.key.as_deref()), ("raw", Some(KEY)));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        prop_assert!(all == payload);
        reader.verify().unwrap();
        for (offset, count) in reads.iter().copied() {
            let offset = offset as usize % (len + 1000);
            let expected = &payload[offset.min(len)..(offset + count).min(len)];
            let mut out = vec![0; count];
            prop_assert_eq!(reader.read_at(offset as u64, &mut out).unwrap(), expected.len());
            prop_assert!(out[..expected.len()] == *expected);
            let slice = reader.slice(offset as u64, count).ok();
            prop_assert_eq!(slice.as_deref(), (offset + count <= len).then_some(expected));
            reader.seek(SeekFrom::Start(offset as u64)).unwrap();
            let mut from_here = Vec::new();
            (&mut reader).take(count as u64).read_to_end(&mut from_here).unwrap();
            prop_assert!(from_here == expected);
        }
        let ends: std::collections::BTreeSet<_> = reads.iter().map(|(offset, _)| u64::from(*offset) % (len as u64 + 1)).collect();
        let ends: Vec<_> = ends.into_iter().collect();
        let ranges: Vec<_> = ends.as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect();
        let mut gathered = Vec::new();
        reader
            .gather(&ranges, |offset, bytes| {
                assert!(payload[offset as usize..][..bytes.len()] == *bytes);
                gathered.push(bytes.len() as u64);
            })
            .unwrap();
        prop_assert_eq!(gathered.iter().sum::<u64>(), ranges.iter().map(|range| range.end - range.start).sum::<u64>());
        match reader.as_plain() {
            Some(plain) => prop_assert!(!seal && *plain == *payload),
            None => prop_assert!(seal || compression != Compression::None),
        }
    }

    #[test]
    fn any_bytes_are_a_stream_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), at: u32, cut: u32, seal: bool) {
        let keyring = keyring(1);
        let access = if seal { sealed(&keyring) } else { Access::Plain };
        let plain = payload(3 * CHUNK);
        let whole = written(&plain, access, &options(Compression::Lz4, 0));
        let mut stream = whole.clone();
        let at = at as usize % stream.len();
        let end = (at + bytes.len()).min(stream.len());
        stream[at..end].copy_from_slice(&bytes[..end - at]);
        stream.truncate(stream.len() - cut as usize % 3);
        if let Ok(reader) = opened(&stream, access) && reader.verify().is_ok() {
            prop_assert!(reader.slice(0, plain.len()).is_ok_and(|read| *read == *plain));
            prop_assert!(!seal || stream == whole);
        }
        prop_assert!(opened(&bytes, access).is_err());
    }
}

#[test]
fn every_bit_of_a_sealed_stream_counts() {
    let keyring = keyring(1);
    let stream = written(&payload(2 * CHUNK + 100), sealed(&keyring), &options(Compression::Lz4, 0));
    for at in 0..stream.len() {
        let mut changed = stream.clone();
        changed[at] ^= 1 << (at % 8);
        let read = opened(&changed, sealed(&keyring)).and_then(|reader| reader.verify());
        assert!(matches!(read, Err(Error::Refused { .. })), "byte {at}: {read:?}");
    }
}

/// A sealed stream of three whole chunks and a part of one, none compressed, and where they stand.
struct Cut {
    head: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    /// With the end.
    index: Vec<u8>,
}

fn cut(stream: &[u8]) -> Cut {
    const SEALED: usize = CHUNK + 16;
    let start = frame::locate_header(stream).unwrap().end + 16;
    let chunks: Vec<_> = (0..3).map(|number| stream[start + number * SEALED..][..SEALED].to_vec()).collect();
    let rest = &stream[start + 3 * SEALED..];
    let (last, index) = rest.split_at(100 + 16);
    Cut { head: stream[..start].to_vec(), chunks: [chunks, vec![last.to_vec()]].concat(), index: index.to_vec() }
}

impl Cut {
    fn joined(&self, order: &[usize]) -> Vec<u8> {
        let chunks = order.iter().flat_map(|number| self.chunks[*number].clone());
        self.head.iter().copied().chain(chunks).chain(self.index.iter().copied()).collect()
    }
}

#[test]
fn each_manipulation_of_chunks_has_its_reason() {
    let keyring = keyring(1);
    let access = sealed(&keyring);
    let plain = payload(3 * CHUNK + 100);
    let whole = cut(&written(&plain, access, &options(Compression::None, 0)));
    assert!(opened(&whole.joined(&[0, 1, 2, 3]), access).unwrap().verify().is_ok());
    let opening = |bytes: &[u8]| reason(opened(bytes, access));
    // Dropped, duplicated, at the start, in the middle and at the end: no chunk is read.
    for (order, expected) in [
        (&[1, 2, 3][..], Refusal::Truncated),
        (&[0, 1, 3], Refusal::Truncated),
        (&[0, 1, 2], Refusal::Truncated),
        (&[], Refusal::Truncated),
        (&[0, 0, 1, 2, 3], Refusal::Changed),
        (&[0, 1, 2, 3, 3], Refusal::Changed),
    ] {
        assert_eq!(opening(&whole.joined(order)), expected, "{order:?}");
    }
    // In another order, or one instead of another, on random access too: others can be read.
    for (order, wrong) in [([1, 0, 2, 3], [0, 1]), ([0, 2, 1, 3], [1, 2]), ([0, 0, 2, 3], [1, 1])] {
        let reader = opened(&whole.joined(&order), access).unwrap();
        for number in 0..4 {
            let read = reader.slice((number * CHUNK) as u64, 100);
            match wrong.contains(&number) {
                true => assert_eq!(reason(read), Refusal::Changed),
                false => assert_eq!(*read.unwrap(), plain[number * CHUNK..][..100]),
            }
        }
    }
    // Cut off anywhere.
    let all = whole.joined(&[0, 1, 2, 3]);
    for kept in
        [0, 5, 100, whole.head.len() - 1, whole.head.len(), 5000, all.len() - 100, all.len() - 16, all.len() - 1]
    {
        let refused = opening(&all[..kept]);
        assert!(
            matches!(refused, Refusal::Truncated) || kept < 3 && refused == Refusal::NotSealed,
            "{kept}: {refused}"
        );
    }
}

#[test]
fn parts_of_other_streams_are_refused() {
    let keyring = keyring(1);
    let access = sealed(&keyring);
    let plain = payload(3 * CHUNK + 100);
    let of = |key: &str, access| cut(&written_for(key, &plain, access, &options(Compression::None, 0)).0);
    let [one, mut two] = [of(KEY, access), of(KEY, access)];
    // A chunk of the same place, of another stream of the same payload and key.
    two.chunks[1] = one.chunks[1].clone();
    assert_eq!(reason(opened(&two.joined(&[0, 1, 2, 3]), access).unwrap().verify()), Refusal::Changed);
    two.index = one.index.clone();
    assert_eq!(reason(opened(&two.joined(&[0, 1, 2, 3]), access)), Refusal::Changed);
    // The header of another one, with and without its check.
    let [mut mixed, third] = [of(KEY, access), of(KEY, access)];
    let check = mixed.head.len() - 16;
    mixed.head[..check].copy_from_slice(&third.head[..check]);
    assert_eq!(reason(opened(&mixed.joined(&[0, 1, 2, 3]), access)), Refusal::WrongKey);
    mixed.head = third.head;
    assert_eq!(reason(opened(&mixed.joined(&[0, 1, 2, 3]), access)), Refusal::Changed);
    let other = of("tables:2", access);
    assert_eq!(reason(opened(&other.joined(&[0, 1, 2, 3]), access)), Refusal::WrongEntry);
    let stranger = of(KEY, Access::Sealed { keyring: &keyring, tenant: "stranger" });
    assert_eq!(reason(opened(&stranger.joined(&[0, 1, 2, 3]), access)), Refusal::WrongEntry);
    let unknown = self::keyring(2);
    assert_eq!(reason(opened(&of(KEY, sealed(&unknown)).joined(&[0, 1, 2, 3]), access)), Refusal::NoKey);
    let open = written(&plain, Access::Plain, &options(Compression::None, 0));
    assert_eq!(reason(opened(&open, access)), Refusal::NotSealed);
    assert!(matches!(opened(&one.joined(&[0, 1, 2, 3]), Access::Plain), Err(Error::Frame { .. })));
}

#[test]
fn a_compressed_chunk_that_was_damaged_is_an_error_and_a_plain_one_is_found_by_verifying() {
    let plain = vec![1; 3 * CHUNK];
    for compression in [Compression::Lz4, Compression::None] {
        let mut stream = written(&plain, Access::Plain, &options(compression, 0));
        let start = frame::locate_header(&stream).unwrap().end;
        stream[start + 3] ^= 1;
        let reader = opened(&stream, Access::Plain).unwrap();
        assert!(matches!(reader.verify(), Err(Error::Decode { codec: "stream", .. })));
        assert_eq!(reader.slice(0, 10).is_err(), compression == Compression::Lz4);
        assert!(reader.slice(2 * CHUNK as u64, 10).is_ok());
    }
}

#[test]
fn a_plain_stream_is_read_where_it_stands() {
    let plain = payload(10 * CHUNK + 1);
    let frame = frame_of(&written(&plain, Access::Plain, &options(Compression::None, 2)));
    let start = frame::locate_header(&frame).unwrap().end;
    let mut reader = StreamReader::open(frame.clone(), KEY, Access::Plain, &options(Compression::None, 2)).unwrap();
    assert_eq!(reader.as_plain().unwrap().as_ptr(), frame[start..].as_ptr());
    assert_eq!(reader.slice(5000, 20_000).unwrap().as_ptr(), frame[start + 5000..].as_ptr());
    let mut at = start;
    while let Some(chunk) = reader.next_chunk().unwrap() {
        assert_eq!(chunk.as_ptr(), frame[at..].as_ptr());
        at += chunk.len();
    }
    assert_eq!(at - start, plain.len());
}

/// Takes so many bytes, and fails then.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("no space left"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_write_stops_the_writer_and_gives_the_budget_back() {
    let keyring = keyring(1);
    let options = StreamOptions { chunk_size: 48 << 10, ..options(Compression::Lz4, 2) };
    for room in [0, 1000, 20_000, 60_000] {
        let new = StreamWriter::new(Full(room), KEY, Header::new("raw"), Times::default(), sealed(&keyring), &options);
        let Ok(mut writer) = new else { continue };
        let pushed = payload(400_000).chunks(1000).try_for_each(|piece| writer.push(piece));
        if pushed.is_err() {
            let again = writer.push(b"x").unwrap_err().to_string();
            assert!(again.contains("an earlier write failed"), "{again}");
        }
        assert!(writer.finish().is_err());
    }
    assert_eq!(options.budget.stats().current_memory_bytes, 0);
}

#[test]
fn what_was_not_finished_is_no_stream() {
    let keyring = keyring(1);
    let mut out = Vec::new();
    let mut writer = StreamWriter::new(
        &mut out,
        KEY,
        Header::new("raw"),
        Times::default(),
        sealed(&keyring),
        &options(Compression::None, 2),
    )
    .unwrap();
    writer.push(&payload(100_000)).unwrap();
    drop(writer);
    assert_eq!(reason(opened(&out, sealed(&keyring))), Refusal::Truncated);
}

#[test]
fn streams_share_a_budget_and_say_when_there_is_none() {
    let budget = Arc::new(StreamingProcessor::new(200_000).unwrap());
    let options = StreamOptions { budget: Arc::clone(&budget), ..options(Compression::Lz4, 2) };
    let new = || StreamWriter::new(Vec::new(), KEY, Header::new("raw"), Times::default(), Access::Plain, &options);
    let mut writers = Vec::new();
    let error = loop {
        match new() {
            Ok(writer) => writers.push(writer),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooLarge { place: "chunk (budget of streams)", .. }) && writers.len() > 4);
    let plain = payload(300_000);
    for writer in &mut writers {
        writer.push(&plain).unwrap();
    }
    for writer in writers {
        let (stream, _) = writer.finish().unwrap();
        let mut all = Vec::new();
        let reader = StreamReader::open(frame_of(&stream), KEY, Access::Plain, &options);
        reader.unwrap().read_to_end(&mut all).unwrap();
        assert!(all == plain);
    }
    assert!(budget.stats().peak_memory_bytes <= 200_000 && budget.stats().current_memory_bytes == 0);
}

#[test]
#[allow(unsafe_code)]
fn a_child_does_not_go_on_with_its_parents_stream() {
    let keyring = keyring(1);
    let plain = payload(60 * CHUNK);
    let many = options(Compression::Lz4, 2);
    let stream = written(&plain, sealed(&keyring), &many);
    let mut reader = StreamReader::open(frame_of(&stream), KEY, sealed(&keyring), &many).unwrap();
    let mut begun = vec![0; 10 * CHUNK];
    reader.read_exact(&mut begun).unwrap();
    let mut writer = StreamWriter::new(
        Vec::new(),
        KEY,
        Header::new("raw"),
        Times::default(),
        sealed(&keyring),
        &options(Compression::None, 0),
    )
    .unwrap();
    writer.push(&plain).unwrap();
    // SAFETY: no other thread of this test holds a lock that the child takes: small chunks are worked on by this one.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = writer.push(b"more").is_err() && writer.finish().is_err();
        let mut rest = Vec::new();
        let read = reader.read_to_end(&mut rest).is_ok() && rest == plain[10 * CHUNK..];
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!(refused && read))) }
    }
    let mut status = -1;
    // SAFETY: waits for the child of this test.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(writer.finish().unwrap().1.payload, plain.len() as u64);
}

#[test]
fn impossible_chunk_sizes_are_refused() {
    for chunk_size in [0, 64, 4095, 4097, 65 << 20, usize::MAX] {
        let options = StreamOptions { chunk_size, ..options(Compression::None, 0) };
        let new = StreamWriter::new(Vec::new(), KEY, Header::new("raw"), Times::default(), Access::Plain, &options);
        assert!(matches!(new.err(), Some(Error::Argument { argument: "chunk_size", .. })));
    }
}
