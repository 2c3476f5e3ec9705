//! The store from outside: what it keeps, in what order, how much of it, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use framecache::frame::{Header, Payload, locate_header};
use framecache::key::{MAX_KEY, MAX_NAMESPACE};
use framecache::store::{Durability, INLINE_UP_TO, IndexMode, Lookup, MAPPED_ABOVE, Miss, New, Options, Store, Stored};
use framecache::{Error, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A store and the directory that goes with it.
struct Place {
    store: Store,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(&directory.path().join("store"), options).unwrap(), directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Another handle on the same store.
    fn again(&self, options: Options) -> Store {
        Store::open(&self.path(), options).unwrap()
    }

    fn put(&self, key: &str, payload: &[u8]) -> Stored {
        self.store.put(key, raw(), payload, 0).unwrap()
    }

    fn files(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.path().join("blobs")).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect()
    }

    /// One file per linked blob and no other, nothing reserved, and the bound holds.
    fn check_bookkeeping(&self) {
        let (stats, files) = (self.store.stats().unwrap(), self.files());
        let bytes: u64 = files.iter().map(|(_, size)| size).sum();
        assert_eq!((files.len() as u64, bytes), (stats.blobs, stats.blob_bytes), "{files:?}");
        assert_eq!(stats.reserved_bytes, 0);
        assert!(stats.index_bytes + stats.blob_bytes <= stats.max_bytes, "{stats:?}");
    }
}

fn raw() -> New<'static> {
    New { header: Header::new("raw"), ..New::default() }
}

/// The payload of a hit.
fn payload(lookup: Result<Lookup>) -> Vec<u8> {
    match lookup.unwrap() {
        Lookup::Hit(hit) => hit.frame[locate_header(&hit.frame).unwrap().end..].to_vec(),
        Lookup::Miss(miss) => panic!("{miss:?}"),
    }
}

fn miss(lookup: Result<Lookup>) -> Miss {
    match lookup.unwrap() {
        Lookup::Miss(miss) => miss,
        Lookup::Hit(hit) => panic!("{hit:?}"),
    }
}

/// All keys that begin with `prefix`, and in how many parts they came.
fn keys(store: &Store, prefix: &str, now: u64) -> (Vec<String>, usize) {
    let (mut all, mut from, mut parts) = (Vec::new(), None, 0);
    loop {
        let (keys, next) = store.keys(prefix, from, now).unwrap();
        all.extend(keys);
        parts += 1;
        match next {
            Some(_) => from = next,
            None => return (all, parts),
        }
    }
}

/// Bytes that tell where they stand.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[test]
fn what_is_put_is_got_until_it_is_deleted() {
    for index in [IndexMode::Pwrite, IndexMode::WriteMap] {
        let place = Place::with(Options { index: Some(index), index_bytes: Some(1 << 20), ..Options::default() });
        assert_eq!(miss(place.store.get("key", 0)), Miss::Absent);
        for length in [0, 1, 63, 64, 65, INLINE_UP_TO - 300, INLINE_UP_TO, MAPPED_ABOVE, MAPPED_ABOVE + 1, 3 << 20] {
            let value = pattern(length, 3);
            let Stored::Written(size) = place.put("key", &value) else { panic!("not stored") };
            let Lookup::Hit(hit) = place.store.get("key", 0).unwrap() else { panic!("a miss") };
            let start = locate_header(&hit.frame).unwrap().end;
            assert_eq!((hit.frame.len() as u64, &hit.frame[start..]), (size, value.as_slice()));
            assert_eq!(hit.frame.as_ptr().addr() % 64, 0);
            assert_eq!(
                (hit.frame.is_mapped(), place.files().len()),
                (size > MAPPED_ABOVE as u64, usize::from(size > INLINE_UP_TO as u64))
            );
            place.check_bookkeeping();
        }
        assert!(place.store.delete("key", 0).unwrap());
        assert!(!place.store.delete("key", 0).unwrap());
        assert_eq!(miss(place.store.get("key", 0)), Miss::Absent);
        place.check_bookkeeping();
    }
}

#[test]
fn keys_of_any_text_are_kept_apart_and_those_too_long_refused() {
    let place = Place::new();
    let longest = "k".repeat(MAX_KEY);
    let keys = ["", "/", "..", "a/b", "a\0b", "ключ", "\"\\\n", &longest];
    for key in keys {
        place.put(key, key.as_bytes());
    }
    for key in keys {
        assert_eq!(payload(place.store.get(key, 0)), key.as_bytes());
    }
    let refused = |error: Option<Error>| matches!(error, Some(Error::Argument { argument: "key", .. }));
    let key = longest + "k";
    assert!(refused(place.store.put(&key, raw(), b"".as_slice(), 0).err()));
    assert!(refused(place.store.get(&key, 0).err()));
    assert!(refused(place.store.delete(&key, 0).err()));
    let options = Options { namespace: "n".repeat(MAX_NAMESPACE + 1), ..Options::default() };
    assert!(matches!(Store::open(&place.path(), options), Err(Error::Argument { argument: "namespace", .. })));
}

#[test]
fn an_entry_is_served_up_to_its_last_moment() {
    let place = Place::new();
    let header = Header { until: Some(1000), ..Header::new("raw") };
    place.store.put("until", New { header, ..New::default() }, b"value".as_slice(), 0).unwrap();
    place.store.put("deadline", New { deadline: Some(1000), ..raw() }, b"value".as_slice(), 0).unwrap();
    place.put("forever", b"value");
    for key in ["until", "deadline"] {
        assert_eq!(payload(place.store.get(key, 1000)), b"value");
        assert_eq!(miss(place.store.get(key, 1001)), Miss::Expired);
        assert!(!place.store.contains(key, 1001).unwrap());
    }
    assert_eq!(payload(place.store.get("forever", u64::MAX)), b"value");
    // Touching moves a deadline, never beyond what was written as the last moment.
    assert!(
        place.store.touch("until", Some(5000), 0).unwrap() && place.store.touch("deadline", Some(5000), 0).unwrap()
    );
    assert_eq!(miss(place.store.get("until", 1001)), Miss::Expired);
    assert_eq!(payload(place.store.get("deadline", 5000)), b"value");
    assert!(place.store.touch("until", Some(10), 0).unwrap());
    assert_eq!(miss(place.store.get("until", 11)), Miss::Expired);
    assert!(!place.store.touch("until", None, 11).unwrap());
}

/// What the model does and the store does, side by side.
#[derive(Clone, Debug)]
enum Action {
    Put { key: u8, length: usize, ttl: Option<u64>, tag: u8, if_absent: bool },
    PutMany { keys: Vec<u8>, length: usize },
    Delete(Vec<u8>),
    Touch(u8, Option<u64>),
    Invalidate(u8),
    Clear,
    Wait(u64),
    Keys(bool),
    Verify,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let length = prop_oneof![4 => 0..100usize, 2 => 7000..9000usize, 1 => Just(70_000usize)];
    let ttl = prop::option::of(prop_oneof![Just(1u64), Just(50), Just(1000)]);
    let key = 0..8u8;
    prop_oneof![
        8 => (key.clone(), length.clone(), ttl.clone(), 0..3u8, any::<bool>())
            .prop_map(|(key, length, ttl, tag, if_absent)| Action::Put { key, length, ttl, tag, if_absent }),
        3 => (vec(key.clone(), 0..5), length).prop_map(|(keys, length)| Action::PutMany { keys, length }),
        3 => vec(key.clone(), 0..4).prop_map(Action::Delete),
        3 => (key, ttl).prop_map(|(key, ttl)| Action::Touch(key, ttl)),
        1 => (0..3u8).prop_map(Action::Invalidate),
        1 => Just(Action::Clear),
        2 => prop_oneof![Just(1u64), Just(49), Just(2000)].prop_map(Action::Wait),
        2 => any::<bool>().prop_map(Action::Keys),
        1 => Just(Action::Verify),
        1 => Just(Action::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: Vec<u8>,
    deadline: u64,
    tag: u8,
}

fn key_of(number: u8) -> String {
    format!("{}{number}", if number.is_multiple_of(2) { "even " } else { "odd " })
}

/// Does `action` to both; `model` has only what can be served at `now`.
fn act(place: &mut Place, model: &mut BTreeMap<u8, Known>, now: &mut u64, seed: u8, action: &Action) {
    let options = place.store.options().clone();
    let store = &place.store;
    match action {
        Action::Put { key, length, ttl, tag, if_absent } => {
            let (value, tag_name) = (pattern(*length, seed), format!("tag {tag}"));
            let deadline = ttl.map(|ttl| *now + ttl);
            let new = New { deadline, tags: &[&tag_name], if_absent: *if_absent, ..raw() };
            let stored = store.put(&key_of(*key), new, value.as_slice(), *now).unwrap();
            if *if_absent && model.contains_key(key) {
                assert_eq!(stored, Stored::Exists);
            } else {
                assert!(matches!(stored, Stored::Written(_)));
                model.insert(*key, Known { value, deadline: deadline.unwrap_or(u64::MAX), tag: *tag });
            }
        }
        Action::PutMany { keys, length } => {
            let value = pattern(*length, seed);
            let names: Vec<_> = keys.iter().map(|key| key_of(*key)).collect();
            let mut news: Vec<_> = names.iter().map(|name| (name.as_str(), raw(), value.as_slice())).collect();
            let stored = store.put_many(&mut news, *now).unwrap();
            assert!(stored.len() == keys.len() && stored.iter().all(|one| matches!(one, Stored::Written(_))));
            for key in keys {
                model.insert(*key, Known { value: value.clone(), deadline: u64::MAX, tag: 255 });
            }
        }
        Action::Delete(keys) => {
            let names: Vec<_> = keys.iter().map(|key| key_of(*key)).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let expected = keys.iter().collect::<BTreeSet<_>>().iter().filter(|key| model.contains_key(key)).count();
            assert_eq!(store.delete_many(&names, *now).unwrap(), expected as u64);
            keys.iter().for_each(|key| drop(model.remove(key)));
        }
        Action::Touch(key, ttl) => {
            let deadline = ttl.map(|ttl| *now + ttl);
            assert_eq!(store.touch(&key_of(*key), deadline, *now).unwrap(), model.contains_key(key));
            if let Some(known) = model.get_mut(key) {
                known.deadline = deadline.unwrap_or(u64::MAX);
            }
        }
        Action::Invalidate(tag) => {
            store.invalidate_tags(&[&format!("tag {tag}")], *now).unwrap();
            model.retain(|_, known| known.tag != *tag);
        }
        Action::Clear => {
            store.clear().unwrap();
            model.clear();
        }
        Action::Wait(milliseconds) => {
            *now += milliseconds;
            model.retain(|_, known| known.deadline >= *now);
        }
        Action::Keys(even) => {
            let (prefix, wanted) = if *even { ("even ", 0) } else { ("odd ", 1) };
            let found: BTreeSet<_> = keys(store, prefix, *now).0.into_iter().collect();
            assert_eq!(found, model.keys().filter(|key| *key % 2 == wanted).map(|key| key_of(*key)).collect());
        }
        Action::Verify => assert_eq!(store.verify().unwrap().damaged, 0),
        Action::Reopen => place.store = Store::open(&place.path(), options).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_map_with_deadlines_and_tags(actions in vec(action(), 1..60), map in any::<bool>()) {
        let index = Some(if map { IndexMode::WriteMap } else { IndexMode::Pwrite });
        let mut place = Place::with(Options { index, index_bytes: Some(4 << 20), ..Options::default() });
        let (mut model, mut now) = (BTreeMap::new(), 1_000_000);
        for (at, action) in actions.iter().enumerate() {
            act(&mut place, &mut model, &mut now, at as u8, action);
            let names: Vec<_> = (0..8).map(key_of).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            for (key, found) in (0..8u8).zip(place.store.get_many(&names, now).unwrap()) {
                prop_assert_eq!(place.store.contains(names[usize::from(key)], now).unwrap(), model.contains_key(&key));
                match (found, model.get(&key)) {
                    (Lookup::Hit(hit), Some(known)) => {
                        prop_assert_eq!(&hit.frame[locate_header(&hit.frame).unwrap().end..], known.value.as_slice());
                        prop_assert_eq!(hit.deadline.unwrap_or(u64::MAX), known.deadline);
                    }
                    (Lookup::Miss(_), None) => {}
                    (found, known) => prop_assert!(false, "{:?} instead of {:?}", found, known.is_some()),
                }
            }
            place.check_bookkeeping();
        }
    }
}

#[test]
fn many_keys_come_in_parts_each_once() {
    let place = Place::new();
    let names: Vec<_> =
        (0..2500).map(|number| format!("{} {number}", if number % 5 == 0 { "five" } else { "other" })).collect();
    for part in names.chunks(500) {
        let mut news: Vec<_> = part.iter().map(|name| (name.as_str(), raw(), b"v".as_slice())).collect();
        place.store.put_many(&mut news, 0).unwrap();
    }
    let theirs = place.again(Options { namespace: "theirs".into(), ..Options::default() });
    theirs.put("five of theirs", raw(), b"v".as_slice(), 0).unwrap();
    for (prefix, expected) in [("five", 500), ("other", 2000), ("", 2500), ("x", 0)] {
        let (found, parts) = keys(&place.store, prefix, 0);
        assert!(parts >= 3, "{parts}");
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
        assert_eq!(found.len(), expected, "{prefix:?}");
    }
    assert_eq!(keys(&theirs, "", 0).0, ["five of theirs"]);
    theirs.clear().unwrap();
    assert_eq!((keys(&theirs, "", 0).0.len(), keys(&place.store, "", 0).0.len()), (0, 2500));
}

#[test]
fn readers_see_all_of_a_batch_or_none_of_it() {
    let place = Place::new();
    // Inline, read, mapped.
    let sizes = [10, 20_000, 100_000];
    let names = ["a", "b", "c"];
    let done = AtomicBool::new(false);
    let put = |round: u8| {
        let values: Vec<_> = sizes.iter().map(|size| vec![round; *size]).collect();
        let mut news: Vec<_> =
            names.iter().zip(&values).map(|(name, value)| (*name, raw(), value.as_slice())).collect();
        let stored = place.store.put_many(&mut news, 0).unwrap();
        assert!(stored.iter().all(|one| matches!(one, Stored::Written(_))));
    };
    put(0);
    let looked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // What lies in the index is of one moment; a blob that was replaced since may be newer.
                    let found = place.store.get_many(&["a", "a", "b"], 0).unwrap();
                    let first: Vec<_> = found
                        .iter()
                        .map(|found| match found {
                            Lookup::Hit(hit) => {
                                let value = &hit.frame[locate_header(&hit.frame).unwrap().end..];
                                assert!(value.iter().all(|byte| *byte == value[0]), "bytes of two values");
                                value[0]
                            }
                            Lookup::Miss(miss) => panic!("{miss:?}"),
                        })
                        .collect();
                    assert_eq!(first[0], first[1], "two moments");
                    assert!(first[2] >= first[0], "a batch that was seen in part: {first:?}");
                    looked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=100 {
            put(round);
            let seen = looked.load(Ordering::Relaxed);
            while round % 10 == 0 && looked.load(Ordering::Relaxed) < seen + 4 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    place.check_bookkeeping();
}

/// A payload that does something in the midst of being written, or does not keep its word.
struct Acting<F> {
    stated: usize,
    written: usize,
    act: F,
}

impl<F: Fn() -> Result<()> + Send + Sync> Payload for Acting<F> {
    fn length(&self) -> usize {
        self.stated
    }

    fn write_to(&self, out: &mut dyn Write) -> Result<()> {
        for part in pattern(self.written, 9).chunks(10_000) {
            out.write_all(part).map_err(|error| Error::io("write", "payload", error))?;
        }
        (self.act)()
    }
}

#[test]
fn a_batch_with_one_that_fails_stores_none_of_it() {
    let place = Place::new();
    place.put("a", b"old");
    for (stated, written) in [(20_000, 19_999), (20_000, 20_001), (100_000, 0), (10, 9)] {
        let [fine, broken] =
            [(20_000, 20_000), (stated, written)].map(|(stated, written)| Acting { stated, written, act: || Ok(()) });
        let mut news = [("a", raw(), &fine), ("b", raw(), &broken), ("c", raw(), &fine)];
        assert!(place.store.put_many(&mut news, 0).is_err());
        assert_eq!(payload(place.store.get("a", 0)), b"old");
        assert_eq!((miss(place.store.get("b", 0)), miss(place.store.get("c", 0))), (Miss::Absent, Miss::Absent));
        assert!(place.files().is_empty());
        place.put("a", b"old");
        place.check_bookkeeping();
    }
}

#[test]
fn a_payload_that_fails_or_panics_leaves_the_old_entry_and_nothing_else() {
    let place = Place::new();
    place.put("key", b"old");
    let fails = || Err(Error::io("write", "payload", std::io::Error::other("broken")));
    for written in [0, 10, 50_000, 100_000] {
        let broken = Acting { stated: 100_000, written, act: fails };
        assert!(matches!(place.store.put("key", raw(), &broken, 0), Err(Error::Io { .. })));
        let panics = Acting { stated: 100_000, written, act: || panic!("by a payload") };
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| place.store.put("key", raw(), &panics, 0)));
        assert!(caught.is_err());
        assert!(place.files().is_empty());
        assert_eq!(payload(place.store.get("key", 0)), b"old");
    }
    place.put("other", b"gives the reservations back");
    place.check_bookkeeping();
}

#[test]
fn the_longest_batch_is_stored_and_too_many_tags_are_refused() {
    let place =
        Place::with(Options { index: Some(IndexMode::WriteMap), index_bytes: Some(1 << 20), ..Options::default() });
    let tags: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
    let tags: Vec<_> = tags.iter().map(String::as_str).collect();
    let refused = place.store.put("key", New { tags: &tags, ..raw() }, b"".as_slice(), 0);
    assert!(matches!(refused, Err(Error::Argument { argument: "tags", .. })));
    place.store.put("key", New { tags: &tags[..1000], ..raw() }, b"value".as_slice(), 0).unwrap();
    assert_eq!(payload(place.store.get("key", 0)), b"value");
    place.store.invalidate_tags(&["999"], 0).unwrap();
    assert_eq!(miss(place.store.get("key", 0)), Miss::Invalidated);
    assert!(place.store.put_many::<[u8]>(&mut [], 0).unwrap().is_empty());
}

#[test]
fn a_batch_larger_than_the_index_changes_nothing_that_cannot_be_had_again() {
    let place =
        Place::with(Options { index: Some(IndexMode::WriteMap), index_bytes: Some(256 << 10), ..Options::default() });
    let value = pattern(4000, 1);
    let names: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    let mut news: Vec<_> = names.iter().map(|name| (name.as_str(), raw(), value.as_slice())).collect();
    // Evicted by the end of the batch, or refused as a whole.
    if let Ok(stored) = place.store.put_many(&mut news, 0) {
        assert!(stored.iter().any(|one| matches!(one, Stored::Written(_))));
    }
    for name in &names {
        if let Lookup::Hit(hit) = place.store.get(name, 0).unwrap() {
            assert_eq!(&hit.frame[locate_header(&hit.frame).unwrap().end..], value.as_slice());
        }
    }
    assert!(matches!(place.put("after", &value), Stored::Written(_)));
    assert_eq!(payload(place.store.get("after", 0)), value);
    place.check_bookkeeping();
}

fn lock(place: &Place) -> File {
    let file = File::options().write(true).open(place.path().join("writer.lock")).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

#[test]
fn a_write_that_finds_another_writer_is_dropped_and_other_changes_are_busy() {
    let place = Place::with(Options { writer_timeout: Duration::from_millis(1), ..Options::default() });
    place.put("key", b"old");
    let held = lock(&place);
    assert_eq!(place.put("key", b"new"), Stored::Dropped);
    assert_eq!(place.put("large", &pattern(100_000, 0)), Stored::Dropped);
    let value = b"new".as_slice();
    assert_eq!(place.store.put_many(&mut [("a", raw(), value), ("b", raw(), value)], 0).unwrap(), [Stored::Dropped; 2]);
    assert_eq!(place.store.stats().unwrap().dropped, 4);
    let busy = |error: Option<Error>| matches!(error, Some(Error::Busy { .. }));
    assert!(busy(place.store.delete("key", 0).err()));
    assert!(busy(place.store.touch("key", None, 0).err()));
    assert!(busy(place.store.invalidate_tags(&["tag"], 0).err()));
    assert!(busy(place.store.clear().err()));
    assert!(busy(place.store.lease("key", 1, 0).err()));
    assert!(busy(place.store.release("key", 1).err()));
    assert_eq!(payload(place.store.get("key", 0)), b"old");
    drop(held);
    assert!(matches!(place.put("key", b"new"), Stored::Written(_)));
    place.check_bookkeeping();
}

/// Another writer comes between a blob's reservation and its link: the write is dropped, and what it reserved is given
/// back by this handle, and by the next one.
#[test]
fn a_reservation_is_given_back_where_the_blob_is_not_linked() {
    let options = Options { writer_timeout: Duration::from_millis(1), ..Options::default() };
    let mut place = Place::with(options.clone());
    place.put("key", b"old");
    let held = std::sync::Mutex::new(None);
    let overtaken = |place: &Place| {
        let value = Acting {
            stated: 50_000,
            written: 50_000,
            act: || {
                *held.lock().unwrap() = Some(lock(place));
                Ok(())
            },
        };
        assert_eq!(place.store.put("key", raw(), &value, 0).unwrap(), Stored::Dropped);
        assert!(place.store.stats().unwrap().reserved_bytes >= 50_000);
        assert!(place.files().is_empty());
        *held.lock().unwrap() = None;
    };
    overtaken(&place);
    place.put("other", b"x");
    place.check_bookkeeping();
    for _ in 0..3 {
        // Closed before it wrote again.
        overtaken(&place);
        drop(place.store);
        place.store = Store::open(&place.directory.path().join("store"), options.clone()).unwrap();
    }
    place.put("large", &pattern(50_000, 0));
    assert_eq!(payload(place.store.get("key", 0)), b"old");
    place.check_bookkeeping();
}

#[test]
fn a_bounded_store_evicts_and_counts_it() {
    for (index, sizes) in [
        (IndexMode::Pwrite, [100, 5000]),
        (IndexMode::Pwrite, [10_000, 90_000]),
        (IndexMode::WriteMap, [100, 5000]),
        (IndexMode::WriteMap, [1000, 90_000]),
    ] {
        let options =
            Options { index: Some(index), index_bytes: Some(512 << 10), max_bytes: 1 << 20, ..Options::default() };
        let place = Place::with(options);
        for number in 0..1000 {
            let value = pattern(sizes[number % 2], number as u8);
            let key = format!("key {number}");
            assert!(matches!(place.put(&key, &value), Stored::Written(_)), "{number}");
            assert_eq!(payload(place.store.get(&key, 0)), value);
            place.check_bookkeeping();
        }
        let (stats, left) = (place.store.stats().unwrap(), keys(&place.store, "", 0).0.len() as u64);
        assert!(stats.evicted > 0 && left > 5);
        assert_eq!(stats.evicted + left, 1000);
    }
}

#[test]
fn a_blob_is_bounded_by_the_store_not_by_its_preallocated_index() {
    let options = Options { index: Some(IndexMode::WriteMap), index_bytes: Some(256 << 10), ..Options::default() };
    let place = Place::with(options);
    for number in 0..20 {
        place.put(&format!("small {number}"), b"value");
    }
    assert!(matches!(place.put("large", &pattern(3 << 20, 1)), Stored::Written(_)));
    assert_eq!(payload(place.store.get("large", 0)), pattern(3 << 20, 1));
    assert_eq!(place.store.stats().unwrap().evicted, 0);
    place.check_bookkeeping();
}

#[test]
fn threads_read_and_write_one_store() {
    for index in [IndexMode::Pwrite, IndexMode::WriteMap] {
        let options = Options {
            index: Some(index),
            index_bytes: Some(4 << 20),
            max_bytes: 4 << 20,
            writer_timeout: Duration::from_secs(60),
            ..Options::default()
        };
        let place = Place::with(options.clone());
        let hits = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let (place, hits, options) = (&place, &hits, options.clone());
                scope.spawn(move || {
                    let own = place.again(options);
                    for round in 0..150usize {
                        let (key, length) =
                            (format!("{}", (round + usize::from(thread)) % 20), [50, 9000, 70_000][round % 3]);
                        match round % 10 {
                            9 => drop(own.delete(&key, 0).unwrap()),
                            _ => {
                                // The value tells its key.
                                let value = key.repeat(length);
                                assert!(matches!(
                                    own.put(&key, raw(), value.as_bytes(), 0).unwrap(),
                                    Stored::Written(_)
                                ));
                            }
                        }
                        for number in 0..20 {
                            let key = number.to_string();
                            if let Lookup::Hit(hit) = place.store.get(&key, 0).unwrap() {
                                let value = &hit.frame[locate_header(&hit.frame).unwrap().end..];
                                assert!(value.chunks(key.len()).all(|chunk| chunk == key.as_bytes()));
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        assert!(hits.load(Ordering::Relaxed) > 1000);
        place.put("last", b"gives back");
        assert_eq!(place.store.verify().unwrap().damaged, 0);
        place.check_bookkeeping();
    }
}

#[test]
fn a_lease_has_one_owner_and_an_end() {
    let place = Place::new();
    let token = place.store.lease("key", 100, 1000).unwrap().unwrap();
    assert_eq!(place.store.lease("key", 100, 1100).unwrap(), None);
    let second = place.store.lease("key", 100, 1101).unwrap().unwrap();
    let with = |lease| New { lease: Some(lease), ..raw() };
    assert_eq!(place.store.put("key", with(token), b"late".as_slice(), 1101).unwrap(), Stored::Superseded);
    assert_eq!(place.store.put("key", with(token), pattern(20_000, 0).as_slice(), 1101).unwrap(), Stored::Superseded);
    assert!(matches!(place.store.put("key", with(second), b"value".as_slice(), 1101).unwrap(), Stored::Written(_)));
    assert_eq!(payload(place.store.get("key", 1101)), b"value");
    assert!(!place.store.release("key", second).unwrap());
    let third = place.store.lease("key", 100, 1101).unwrap().unwrap();
    assert!(place.store.delete("key", 1101).unwrap());
    assert_eq!(place.store.put("key", with(third), b"late".as_slice(), 1101).unwrap(), Stored::Superseded);
    place.put("other", b"gives back");
    place.check_bookkeeping();
}

#[test]
fn a_view_outlives_delete_replace_and_the_store() {
    for length in [1000, 20_000, 1 << 20] {
        let place = Place::new();
        let old = pattern(length, 1);
        let views = ["replaced", "deleted", "kept"].map(|key| {
            place.put(key, &old);
            match place.store.get(key, 0).unwrap() {
                Lookup::Hit(hit) => hit.frame,
                Lookup::Miss(miss) => panic!("{miss:?}"),
            }
        });
        place.put("replaced", &pattern(length + 5, 2));
        assert!(place.store.delete("deleted", 0).unwrap());
        for number in 0..4 {
            place.put(&format!("other {number}"), &pattern(length, 3));
        }
        let Place { store, directory } = place;
        drop(store);
        directory.close().unwrap();
        for view in views {
            assert_eq!(&view[locate_header(&view).unwrap().end..], old.as_slice());
        }
    }
}

#[test]
fn what_was_made_one_way_is_opened_that_way() {
    let place = Place::with(Options {
        index: Some(IndexMode::WriteMap),
        index_bytes: Some(1 << 20),
        durability: Some(Durability::Power),
        ..Options::default()
    });
    place.put("key", b"value");
    let options = |index, durability| Options { index, durability, index_bytes: Some(1 << 20), ..Options::default() };
    assert_eq!(payload(place.again(options(None, None)).get("key", 0)), b"value");
    let refused = |options| matches!(Store::open(&place.path(), options), Err(Error::Store { .. }));
    assert!(refused(options(Some(IndexMode::Pwrite), None)));
    assert!(refused(options(None, Some(Durability::Process))));
    for (max_bytes, index_bytes) in [(1 << 10, 1 << 20), (u64::MAX, 1 << 20), (1 << 20, 0), (1 << 20, u64::MAX)] {
        let options = Options { max_bytes, index_bytes: Some(index_bytes), ..Options::default() };
        assert!(matches!(Store::open(&place.path(), options), Err(Error::Argument { .. })));
    }
}
