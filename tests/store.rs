//! The blob store from outside: what it keeps, what it refuses, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::buffer::FrameBuf;
use framecache::frame::{Header, Payload};
use framecache::key::{MAX_KEY, Name};
use framecache::store::{BlobStore, Lookup, MAPPED_ABOVE, Miss};
use framecache::{Error, Result};
use rustix::fs::{CWD, FileType, Mode};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// A store and the directory that goes with it.
struct Place {
    store: BlobStore,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: BlobStore::open(&directory.path().join("store")).unwrap(), directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn put(&self, key: &str, payload: &[u8]) {
        self.store.put(key, Header::new("raw"), payload).unwrap();
    }

    fn file_of(&self, key: &str) -> PathBuf {
        self.path().join(Name::of(key).unwrap().to_hex())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn payload(&self, key: &str) -> FrameBuf {
        hit(self.store.get(key, 0))
    }
}

/// The payload of a hit.
fn hit(lookup: Result<Lookup>) -> FrameBuf {
    match lookup.unwrap() {
        Lookup::Hit { frame, payload, .. } => frame.slice(payload..).unwrap(),
        Lookup::Miss(miss) => panic!("{miss:?}"),
    }
}

fn miss(lookup: Result<Lookup>) -> Miss {
    match lookup.unwrap() {
        Lookup::Miss(miss) => miss,
        Lookup::Hit { header, .. } => panic!("{header:?}"),
    }
}

/// Bytes that tell where they stand.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[test]
fn what_is_put_is_got_until_it_is_deleted() {
    let place = Place::new();
    assert_eq!(miss(place.store.get("key", 0)), Miss::Absent);
    for length in [0, 1, 63, 64, 65, 4096, MAPPED_ABOVE, MAPPED_ABOVE + 1, 1 << 20] {
        let payload = pattern(length, 0);
        let header = Header { created: Some(1), until: Some(2), ..Header::new("codec") };
        let size = place.store.put("key", header.clone(), payload.as_slice()).unwrap();
        let Lookup::Hit { frame, header: found, payload: start } = place.store.get("key", 2).unwrap() else {
            panic!("a miss")
        };
        assert_eq!(found, Header { key: Some("key".into()), ..header.with_length(length) });
        assert_eq!((frame.len(), &frame[start..]), (size, payload.as_slice()));
    }
    assert!(place.store.delete("key").unwrap());
    assert!(!place.store.delete("key").unwrap());
    assert_eq!(miss(place.store.get("key", 0)), Miss::Absent);
    assert!(place.names().is_empty());
}

#[test]
fn keys_of_any_text_are_kept_apart() {
    let place = Place::new();
    let longest = "k".repeat(MAX_KEY);
    let keys = ["", "/", "..", "a/b", "a\0b", "ключ", "\"\\\n", &longest];
    for key in keys {
        place.put(key, key.as_bytes());
    }
    for key in keys {
        assert_eq!(&*place.payload(key), key.as_bytes());
    }
    assert_eq!(place.names().len(), keys.len());
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let place = Place::new();
    let key = "k".repeat(MAX_KEY + 1);
    let refused = |error: Option<Error>| matches!(error, Some(Error::Argument { argument: "key", .. }));
    assert!(refused(place.store.put(&key, Header::new("raw"), b"".as_slice()).err()));
    assert!(refused(place.store.get(&key, 0).err()));
    assert!(refused(place.store.delete(&key).err()));
    assert!(place.names().is_empty());
}

#[test]
fn a_small_blob_is_read_and_a_large_one_mapped() {
    let place = Place::new();
    let prefix = place.store.put("key", Header::new("raw"), b"".as_slice()).unwrap();
    for (length, mapped) in
        [(0, false), (1000, false), (MAPPED_ABOVE - 2 * prefix, false), (MAPPED_ABOVE, true), (1 << 20, true)]
    {
        let payload = pattern(length, 1);
        place.put("key", &payload);
        let found = place.payload("key");
        assert_eq!((found.is_mapped(), found.is_copy()), (mapped, !mapped), "{length} bytes");
        assert_eq!(found.as_ptr().addr() % 64, 0);
        assert_eq!(&*found, &payload);
    }
}

#[test]
fn a_view_outlives_delete_replace_and_the_store() {
    for length in [1000, 1 << 20] {
        let place = Place::new();
        let (old, new) = (pattern(length, 1), pattern(length + 5, 2));
        place.put("replaced", &old);
        place.put("deleted", &old);
        place.put("kept", &old);
        let views = ["replaced", "deleted", "kept"].map(|key| place.payload(key));
        place.put("replaced", &new);
        assert_eq!(&*place.payload("replaced"), &new);
        assert!(place.store.delete("deleted").unwrap());
        // Reuses what space was freed.
        for number in 0..4 {
            place.put(&format!("other {number}"), &pattern(length, 3));
        }
        let Place { store, directory } = place;
        drop(store);
        directory.close().unwrap();
        for view in views {
            assert_eq!(&*view, &old);
        }
    }
}

#[test]
fn an_entry_under_the_name_of_another_key_is_a_miss() {
    for length in [10, 1 << 20] {
        let place = Place::new();
        place.put("mine", &pattern(length, 0));
        fs::rename(place.file_of("mine"), place.file_of("yours")).unwrap();
        assert_eq!(miss(place.store.get("yours", 0)), Miss::OtherKey);
        assert_eq!(miss(place.store.get("mine", 0)), Miss::Absent);
    }
}

#[test]
fn an_entry_without_a_key_is_a_miss() {
    let place = Place::new();
    let frame = framecache::frame::build(Header::new("raw"), b"payload".as_slice()).unwrap();
    fs::write(place.file_of("key"), &*frame).unwrap();
    assert_eq!(miss(place.store.get("key", 0)), Miss::OtherKey);
}

#[test]
fn an_entry_is_served_up_to_its_last_moment() {
    let place = Place::new();
    let header = Header { until: Some(1000), ..Header::new("raw") };
    place.store.put("key", header, b"payload".as_slice()).unwrap();
    for now in [0, 999, 1000] {
        assert_eq!(&*hit(place.store.get("key", now)), b"payload");
    }
    for now in [1001, u64::MAX] {
        assert_eq!(miss(place.store.get("key", now)), Miss::Expired);
    }
    place.put("forever", b"payload");
    assert_eq!(&*hit(place.store.get("forever", u64::MAX)), b"payload");
}

fn is_frame_error(lookup: Result<Lookup>) {
    assert!(matches!(lookup, Err(Error::Frame { .. })), "{lookup:?}");
}

#[test]
fn a_file_cut_anywhere_is_a_frame_error() {
    let place = Place::new();
    place.put("key", &pattern(100, 0));
    let whole = fs::read(place.file_of("key")).unwrap();
    for length in 0..whole.len() {
        fs::write(place.file_of("key"), &whole[..length]).unwrap();
        is_frame_error(place.store.get("key", 0));
    }
    fs::write(place.file_of("key"), [whole.as_slice(), b"x"].concat()).unwrap();
    is_frame_error(place.store.get("key", 0));
    fs::write(place.file_of("key"), &whole).unwrap();
    assert_eq!(&*place.payload("key"), &pattern(100, 0));
}

#[test]
fn a_large_file_cut_before_it_is_opened_is_a_frame_error() {
    let place = Place::new();
    place.put("key", &pattern(300_000, 0));
    for length in [299_999, MAPPED_ABOVE as u64 + 1, MAPPED_ABOVE as u64, 64, 10, 0] {
        fs::File::options().write(true).open(place.file_of("key")).unwrap().set_len(length).unwrap();
        is_frame_error(place.store.get("key", 0));
    }
}

#[test]
fn garbage_is_a_frame_error() {
    let place = Place::new();
    for garbage in [b"".as_slice(), b"x", b"garbage garbage", &pattern(1 << 20, 0), &[0; 100], b"CK\x03\0\0\0\x02{}"] {
        fs::write(place.file_of("key"), garbage).unwrap();
        is_frame_error(place.store.get("key", 0));
    }
}

#[test]
fn a_header_that_lies_about_lengths_is_a_frame_error() {
    let place = Place::new();
    place.put("key", &pattern(100, 0));
    let whole = fs::read(place.file_of("key")).unwrap();
    for length in [0u32, 1, whole.len() as u32 - 6, whole.len() as u32, 1 << 20, u32::MAX] {
        let mut lie = whole.clone();
        lie[3..7].copy_from_slice(&length.to_be_bytes());
        fs::write(place.file_of("key"), lie).unwrap();
        is_frame_error(place.store.get("key", 0));
    }
    let at = whole.windows(13).position(|part| part == b"\"length\": 100").unwrap();
    for stated in ["101", "099", "999", " 99", "-10", "1e2", "nul"] {
        let mut lie = whole.clone();
        lie[at + 10..at + 13].copy_from_slice(stated.as_bytes());
        fs::write(place.file_of("key"), lie).unwrap();
        is_frame_error(place.store.get("key", 0));
    }
    let mut silent = whole.clone();
    silent[at + 1] = b'L';
    fs::write(place.file_of("key"), silent).unwrap();
    is_frame_error(place.store.get("key", 0));
}

#[test]
fn every_byte_of_a_small_file_changed_is_never_a_panic() {
    let place = Place::new();
    place.put("key", b"payload");
    let whole = fs::read(place.file_of("key")).unwrap();
    for at in 0..whole.len() {
        for byte in [0, b' ', b'"', b'}', 0x7F, 0xFF] {
            let mut changed = whole.clone();
            changed[at] = byte;
            fs::write(place.file_of("key"), changed).unwrap();
            match place.store.get("key", 0) {
                Ok(_) | Err(Error::Frame { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

fn is_refused(path: &Path, found: &str) {
    match BlobStore::open(path) {
        Err(Error::Store { found: text, .. }) => assert!(text.contains(found), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_behind_a_symbolic_link_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let (real, link) = (outer.path().join("real"), outer.path().join("link"));
    BlobStore::open(&real).unwrap();
    symlink(&real, &link).unwrap();
    is_refused(&link, "a symbolic link");
    symlink(outer.path().join("nowhere"), outer.path().join("dangling")).unwrap();
    assert!(BlobStore::open(&outer.path().join("dangling")).is_err());
    assert!(!outer.path().join("nowhere").exists());
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    is_refused(file.path(), "another kind of file");
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o755, 0o750, 0o701, 0o770, 0o720, 0o777, 0o1777] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        is_refused(directory.path(), &format!("mode {mode:03o}"));
    }
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    BlobStore::open(directory.path()).unwrap();
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    // Only root can give a directory away.
    if std::os::unix::fs::chown(directory.path(), Some(12_345), None).is_ok() {
        is_refused(directory.path(), "one owned by user 12345");
    }
}

#[test]
fn an_entry_of_another_user_is_refused() {
    let place = Place::new();
    place.put("key", b"payload");
    if std::os::unix::fs::chown(place.file_of("key"), Some(12_345), None).is_ok() {
        assert!(matches!(place.store.get("key", 0), Err(Error::Store { .. })));
    }
}

#[test]
fn a_symbolic_link_in_place_of_an_entry_is_refused() {
    let place = Place::new();
    place.put("real", &pattern(1000, 0));
    symlink(place.file_of("real"), place.file_of("link")).unwrap();
    symlink("/dev/zero", place.file_of("device")).unwrap();
    for key in ["link", "device"] {
        let lookup = place.store.get(key, 0);
        assert!(matches!(lookup, Err(Error::Io { .. } | Error::Store { .. })), "{lookup:?}");
    }
    place.put("link", b"new");
    assert_eq!((&*place.payload("link"), place.payload("real").len()), (b"new".as_slice(), 1000));
}

/// Fails where `work` takes longer than it may.
fn without_hanging<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("an answer in 20 seconds")
}

#[test]
fn a_pipe_a_socket_or_a_directory_in_place_of_an_entry_is_an_error() {
    let place = Place::new();
    for kind in [FileType::Fifo, FileType::Socket] {
        let path = place.file_of(&format!("{kind:?}"));
        rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    fs::create_dir(place.file_of("directory")).unwrap();
    let keys = [format!("{:?}", FileType::Fifo), format!("{:?}", FileType::Socket), "directory".to_owned()];
    let place = without_hanging(move || {
        for key in &keys {
            let lookup = place.store.get(key, 0);
            assert!(matches!(lookup, Err(Error::Store { .. } | Error::Io { .. })), "{lookup:?}");
        }
        place
    });
    let before = place.names();
    assert!(matches!(place.store.put("directory", Header::new("raw"), b"x".as_slice()), Err(Error::Io { .. })));
    assert_eq!(place.names(), before);
    assert!(matches!(place.store.delete("directory"), Err(Error::Io { .. })));
}

#[test]
fn what_happens_to_the_path_later_leads_nobody_elsewhere() {
    let outer = tempfile::tempdir().unwrap();
    let (path, moved) = (outer.path().join("store"), outer.path().join("moved"));
    let store = BlobStore::open(&path).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    store.put("key", Header::new("raw"), b"payload".as_slice()).unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&moved).unwrap().count(), 1);
    assert_eq!(&*hit(store.get("key", 0)), b"payload");
}

#[test]
fn a_removed_directory_is_an_io_error() {
    let Place { store, directory } = Place::new();
    directory.close().unwrap();
    assert!(matches!(store.put("key", Header::new("raw"), b"x".as_slice()), Err(Error::Io { .. })));
    assert_eq!(miss(store.get("key", 0)), Miss::Absent);
}

#[test]
fn directories_and_files_are_closed_to_others_whatever_the_umask() {
    let outer = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    // The umask is the whole process's; the other tests set the modes that they rely on.
    for umask in [0o000, 0o022, 0o077] {
        let old = rustix::process::umask(Mode::from_raw_mode(umask));
        let path = outer.path().join(format!("{umask:03o}/inner/store"));
        let store = BlobStore::open(&path).unwrap();
        store.put("key", Header::new("raw"), b"payload".as_slice()).unwrap();
        rustix::process::umask(old);
        for directory in path.ancestors().take(3) {
            assert_eq!(mode(directory), 0o700, "{} under umask {umask:03o}", directory.display());
        }
        let file = path.join(Name::of("key").unwrap().to_hex());
        assert_eq!(mode(&file), 0o600, "under umask {umask:03o}");
    }
}

/// A payload that does not keep its word.
struct Broken {
    stated: usize,
    written: usize,
    fails: bool,
}

impl Payload for Broken {
    fn length(&self) -> usize {
        self.stated
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        let write = |error| Error::io("write", "payload", error);
        for part in pattern(self.written, 9).chunks(10_000) {
            out.write_all(part).map_err(write)?;
        }
        if self.fails { Err(write(io::Error::other("broken"))) } else { Ok(()) }
    }
}

#[test]
fn a_payload_that_fails_leaves_the_old_entry_and_nothing_else() {
    let place = Place::new();
    place.put("key", b"old");
    let before = place.names();
    for (stated, written, fails) in [
        (1000, 500, true),
        (1000, 0, true),
        (1000, 1000, true),
        (1 << 20, 1 << 19, true),
        (1000, 999, false),
        (1000, 1001, false),
        (1 << 20, 0, false),
        (1 << 20, (1 << 20) + 1, false),
        (0, 1, false),
    ] {
        let broken = Broken { stated, written, fails };
        let error = place.store.put("key", Header::new("raw"), &broken).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(place.store.put("new", Header::new("raw"), &broken).is_err());
        assert_eq!(place.names(), before);
        assert_eq!(&*place.payload("key"), b"old");
    }
}

#[test]
fn a_header_that_is_too_long_leaves_nothing() {
    let place = Place::new();
    let python = serde_json::Map::from_iter([("text".to_owned(), "x".repeat(1 << 20).into())]);
    let header = Header { python: Some(python), ..Header::new("raw") };
    assert!(matches!(place.store.put("key", header, b"".as_slice()), Err(Error::Argument { .. })));
    assert!(place.names().is_empty());
}

#[test]
fn many_puts_leave_one_file_a_key() {
    let place = Place::new();
    for number in 0..500 {
        place.put(&format!("key {}", number % 7), &pattern(number * 37, 0));
    }
    let mut expected: Vec<_> = (0..7).map(|number| Name::of(&format!("key {number}")).unwrap().to_hex()).collect();
    expected.sort();
    assert_eq!(place.names(), expected);
}

#[test]
fn readers_see_whole_values_while_a_key_is_replaced() {
    const LENGTHS: [usize; 6] = [1, 500, 60_000, 70_000, 200_000, 1_000_000];
    let place = Place::new();
    let whole = |value: &[u8]| {
        let seed = value[0];
        assert_eq!(value.len(), LENGTHS[usize::from(seed) % LENGTHS.len()]);
        assert!(value.iter().all(|byte| *byte == seed), "bytes of two values");
    };
    let value = |seed: u8| vec![seed; LENGTHS[usize::from(seed) % LENGTHS.len()]];
    place.put("key", &value(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let view = place.payload("key");
                        whole(&view);
                        held.push(view);
                        held.truncate(20);
                    }
                    held.iter().for_each(|view| whole(view));
                })
            })
            .collect();
        let writers: Vec<_> = (0..2u8)
            .map(|writer| {
                let (place, value) = (&place, &value);
                scope.spawn(move || (0..100).for_each(|round| place.put("key", &value(round * 2 + writer))))
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        assert!(written.iter().chain(&read).all(|end| end.is_ok()));
    });
    assert_eq!(place.names().len(), 1);
}

/// The part of the next test that runs where files may not grow beyond 64 KiB.
#[test]
#[ignore = "needs a limit on file sizes, which the test below sets"]
fn under_a_limit_on_file_sizes() {
    let place = Place::new();
    place.put("key", b"old");
    let before = place.names();
    for length in [1 << 20, 70_000] {
        let error = place.store.put("key", Header::new("raw"), pattern(length, 0).as_slice()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(place.names(), before);
        assert_eq!(&*place.payload("key"), b"old");
    }
    place.put("key", &pattern(50_000, 0));
}

#[test]
fn a_file_that_cannot_grow_leaves_the_old_entry_and_nothing_else() {
    // The limit's signal is ignored, so that it becomes an error; ulimit counts blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact under_a_limit_on_file_sizes --ignored";
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh").args(["-c", script]).arg(this).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
