//! Streams in the store: readers see the old entry or the new one, and what is not finished leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::buffer::FrameBuf;
use framecache::compress::Compression;
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::Header;
use framecache::store::{EntryWriter, Lookup, New, Options, Store, Stored};
use framecache::stream::{Access, StreamOptions, StreamReader, StreamWriter};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

const KEY: &str = "tables:1";

fn store(path: &Path) -> Arc<Store> {
    Arc::new(Store::open(path, Options { max_bytes: 256 << 20, ..Options::default() }).unwrap())
}

fn options() -> StreamOptions {
    StreamOptions { chunk_size: 256 << 10, compression: Compression::Lz4, workers: 2, ..StreamOptions::default() }
}

fn begin(store: &Arc<Store>, access: Access<'_>) -> StreamWriter<EntryWriter> {
    let out = EntryWriter::new(Arc::clone(store), 1000).unwrap();
    StreamWriter::new(out, KEY, Header::new("raw"), Times::default(), access, &options()).unwrap()
}

fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed) * 31 / 7 % 251) as u8).collect()
}

fn write(store: &Arc<Store>, access: Access<'_>, bytes: &[u8]) -> Stored {
    let mut writer = begin(store, access);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().0.commit(KEY, &New::default()).unwrap()
}

fn frame(store: &Store) -> Option<FrameBuf> {
    match store.get(KEY, 2000).unwrap() {
        Lookup::Hit(hit) => Some(hit.frame),
        Lookup::Miss(_) => None,
    }
}

fn read(store: &Store, access: Access<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    StreamReader::open(frame(store)?, KEY, access, &options()).unwrap().read_to_end(&mut out).unwrap();
    Some(out)
}

fn files(path: &Path) -> usize {
    std::fs::read_dir(path.join("blobs")).unwrap().count()
}

#[test]
fn a_stream_is_an_entry_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store(&path);
    let keyring = Keyring::new(MasterKey::from_bytes(&[1; 32]).unwrap(), Vec::new()).unwrap();
    for access in [Access::Plain, Access::Sealed { keyring: &keyring, tenant: "default" }] {
        for len in [0, 1, 3_000_000] {
            let bytes = payload(len, len);
            assert!(matches!(write(&store, access, &bytes), Stored::Written(_)));
            assert_eq!(read(&store, access), Some(bytes));
            assert_eq!(files(&path), 1);
        }
    }
    let linked = store.stats().unwrap();
    let on_disk = std::fs::read_dir(path.join("blobs")).unwrap().map(|file| file.unwrap().metadata().unwrap());
    // What was allocated ahead was given back.
    let blocks: u64 = on_disk.map(|file| std::os::unix::fs::MetadataExt::blocks(&file) * 512).sum();
    assert!(blocks < 4 << 20, "{blocks} {linked:?}");
    assert_eq!(store.verify().unwrap().damaged, 0);
}

#[test]
fn an_abandoned_writer_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store(&path);
    write(&store, Access::Plain, b"old");
    let mut writer = begin(&store, Access::Plain);
    writer.write_all(&payload(1, 2_000_000)).unwrap();
    assert_eq!((files(&path), read(&store, Access::Plain).as_deref()), (2, Some(&b"old"[..])));
    assert!(store.stats().unwrap().reserved_bytes > 0);
    drop(writer);
    assert_eq!((files(&path), read(&store, Access::Plain).as_deref()), (1, Some(&b"old"[..])));
    // The next write gives the room back.
    store.put("other", New { header: Header::new("raw"), ..New::default() }, b"x".as_slice(), 1000).unwrap();
    assert_eq!(store.stats().unwrap().reserved_bytes, 0);
}

#[test]
fn what_has_no_room_is_an_error_and_its_file_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Arc::new(Store::open(&path, Options { max_bytes: 2 << 20, ..Options::default() }).unwrap());
    write(&store, Access::Plain, b"old");
    let out = EntryWriter::new(Arc::clone(&store), 1000).unwrap();
    let plain = StreamOptions { compression: Compression::None, ..options() };
    let mut writer = StreamWriter::new(out, KEY, Header::new("raw"), Times::default(), Access::Plain, &plain).unwrap();
    let bytes = payload(1, 200_000);
    let error = (0..20).find_map(|_| writer.push(&bytes).err()).or_else(|| writer.finish().err()).unwrap();
    assert!(error.to_string().contains("max_bytes"), "{error}");
    // What was there may have been evicted to make room.
    let left = read(&store, Access::Plain);
    assert!(left.as_deref().is_none_or(|left| left == b"old"));
    assert_eq!(files(&path), usize::from(left.is_some()));
}

#[test]
fn a_reader_goes_on_with_what_it_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store(&path);
    let [old, new] = [payload(1, 3_000_000), payload(2, 2_000_000)];
    write(&store, Access::Plain, &old);
    let mut reader = StreamReader::open(frame(&store).unwrap(), KEY, Access::Plain, &options()).unwrap();
    let mut begun = vec![0; 1_000_000];
    reader.read_exact(&mut begun).unwrap();
    write(&store, Access::Plain, &new);
    assert_eq!(read(&store, Access::Plain), Some(new));
    store.delete_many(&[KEY], 2000).unwrap();
    assert_eq!((read(&store, Access::Plain), files(&path)), (None, 0));
    reader.read_to_end(&mut begun).unwrap();
    assert!(begun == old);
}

#[test]
#[allow(unsafe_code)]
fn a_killed_writer_leaves_what_was_there_and_its_file_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    {
        let store = store(&path);
        write(&store, Access::Plain, b"old");
    }
    let (mut told, tell) = std::io::pipe().unwrap();
    // SAFETY: the child uses no lock that another thread of this process may hold: it opens everything anew.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let store = store(&path);
        let mut writer = begin(&store, Access::Plain);
        let written = writer.write_all(&payload(1, 3_000_000)).is_ok();
        (&tell).write_all(&[u8::from(written)]).unwrap();
        loop {
            std::thread::park();
        }
    }
    drop(tell);
    let mut begun = [0];
    told.read_exact(&mut begun).unwrap();
    assert_eq!((begun, files(&path)), ([1], 2));
    let mut status = 0;
    // SAFETY: the child of this test.
    unsafe {
        assert_eq!(libc::kill(child, libc::SIGKILL), 0);
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
    }
    let store = store(&path);
    assert_eq!(read(&store, Access::Plain).as_deref(), Some(&b"old"[..]));
    let verified = store.verify().unwrap();
    assert_eq!((verified.damaged, files(&path)), (0, 1));
    write(&store, Access::Plain, b"new");
    assert_eq!(read(&store, Access::Plain).as_deref(), Some(&b"new"[..]));
}

#[test]
#[allow(unsafe_code)]
fn a_child_does_not_remove_what_its_parent_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store(&path);
    let out = EntryWriter::new(Arc::clone(&store), 1000).unwrap();
    let inline = StreamOptions { workers: 0, ..options() };
    let mut writer = StreamWriter::new(out, KEY, Header::new("raw"), Times::default(), Access::Plain, &inline).unwrap();
    let bytes = payload(1, 2_000_000);
    writer.write_all(&bytes).unwrap();
    // SAFETY: the child drops what it inherited, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = writer.push(b"more").is_err();
        drop(writer);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!refused)) }
    }
    let mut status = -1;
    // SAFETY: waits for the child of this test.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!((status, files(&path)), (0, 1));
    writer.finish().unwrap().0.commit(KEY, &New::default()).unwrap();
    assert_eq!(read(&store, Access::Plain), Some(bytes));
}
