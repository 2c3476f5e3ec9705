//! What a store tells those who keep copies of its entries: guards that hold until something changes, and fences.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use framecache::epoch::{Epochs, Guard};
use framecache::frame::{Header, locate_header};
use framecache::store::{AtHand, Lookup, MAPPED_ABOVE, Miss, New, Options, Store, Stored, Terms};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

fn open(directory: &TempDir, options: Options) -> Store {
    Store::open(&path(directory), options).unwrap()
}

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("store")
}

fn new_store() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(&directory, Options::default()), directory)
}

fn raw() -> New<'static> {
    New { header: Header::new("raw"), ..New::default() }
}

fn put(store: &Store, key: &str, tags: &[&str]) {
    assert!(matches!(store.put(key, New { tags, ..raw() }, b"value".as_slice(), 0).unwrap(), Stored::Written(_)));
}

fn guards(bytes: &[u8]) -> Vec<Guard> {
    let (guards, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    guards.iter().map(|guard| Guard::from_bytes(*guard)).collect()
}

fn hold(epochs: &Epochs, bytes: &[u8]) -> bool {
    guards(bytes).into_iter().all(|guard| epochs.holds(guard))
}

fn look(store: &Store, key: &str) -> (Vec<u8>, Terms) {
    match store.look(key, 0, false).unwrap() {
        (Lookup::Hit(hit), Some(terms)) => {
            assert_eq!(terms.size, hit.frame.len() as u64);
            (hit.frame[locate_header(&hit.frame).unwrap().end..].to_vec(), terms)
        }
        other => panic!("{other:?}"),
    }
}

fn miss_of(store: &Store, key: &str, now: u64, stale: bool) -> Option<Miss> {
    match store.look(key, now, stale).unwrap() {
        (Lookup::Miss(miss), None) => Some(miss),
        (Lookup::Hit(_), Some(_)) => None,
        other => panic!("{other:?}"),
    }
}

type Action = (&'static str, fn(&Store));

const CHANGES: [Action; 5] = [
    ("put", |store| put(store, "key", &["a"])),
    ("touch", |store| assert!(store.touch("key", Some(10), 0).unwrap())),
    ("delete", |store| assert!(store.delete("key", 0).unwrap())),
    ("invalidate", |store| store.invalidate_tags(&["b"], 0).unwrap()),
    ("clear", |store| store.clear().unwrap()),
];

#[test]
fn guards_hold_until_the_entry_is_changed_by_any_handle() {
    for (name, change) in CHANGES {
        let (store, directory) = new_store();
        put(&store, "key", &["a", "b"]);
        put(&store, "other", &["c"]);
        let (copy, fence) = (look(&store, "key").1.guards, store.fence("key", &["a", "b"]).unwrap());
        assert_eq!(copy, fence);
        assert_eq!(guards(&copy).len(), 4);
        let epochs = store.epochs().unwrap();
        store.put("third", raw(), b"value".as_slice(), 0).unwrap();
        store.invalidate_tags(&["c"], 0).unwrap();
        assert!(hold(&epochs, &copy), "before {name}");
        change(&open(&directory, Options::default()));
        assert!(!hold(&epochs, &copy), "after {name}");
        assert!(hold(&epochs, &store.fence("key", &["a", "b"]).unwrap()), "after {name}");
    }
}

#[test]
fn what_changes_nothing_leaves_guards() {
    let (store, directory) = new_store();
    put(&store, "key", &["a"]);
    let copy = look(&store, "key").1.guards;
    let other = open(&directory, Options { namespace: "other".into(), ..Options::default() });
    put(&other, "key", &["a"]);
    other.clear().unwrap();
    let absent = New { if_absent: true, ..raw() };
    assert_eq!(store.put("key", absent, b"new".as_slice(), 0).unwrap(), Stored::Exists);
    let token = store.lease("key", 1000, 0).unwrap().unwrap();
    assert!(store.release("key", token).unwrap());
    assert!(!store.touch("absent", None, 0).unwrap());
    assert!(hold(&store.epochs().unwrap(), &copy));
}

/// Who has a copy of an entry that went by itself may serve it on, but not past its deletion.
#[test]
fn expiry_and_eviction_leave_guards_and_deletion_moves_them_even_then() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { max_bytes: 512 * 1024, ..Options::default() });
    let timed = New { until: Some(5), ..raw() };
    store.put("expired", timed, b"value".as_slice(), 0).unwrap();
    put(&store, "evicted", &[]);
    let copies = ["expired", "evicted"].map(|key| look(&store, key).1.guards);
    for number in 0..3000 {
        store.put(&number.to_string(), raw(), [7; 500].as_slice(), 10).unwrap();
    }
    assert_eq!(miss_of(&store, "expired", 10, false), Some(Miss::Absent));
    assert_eq!(miss_of(&store, "evicted", 10, false), Some(Miss::Absent));
    let epochs = store.epochs().unwrap();
    // A counter is shared by other names, of which 3000 were written: it may have moved by one of them.
    let fell = copies.iter().filter(|copy| !hold(&epochs, copy)).count();
    assert!(fell < 2, "both fell");
    for (key, before) in ["expired", "evicted"].into_iter().map(|key| (key, store.fence(key, &[]).unwrap())) {
        assert!(!store.delete(key, 10).unwrap());
        assert!(!hold(&epochs, &before));
    }
}

#[test]
fn a_value_whose_fence_fell_is_not_stored() {
    for (name, change) in CHANGES {
        let (store, directory) = new_store();
        put(&store, "key", &["a", "b"]);
        let fence = store.fence("key", &["a", "b"]).unwrap();
        let late = || New { fence: Some(&fence), ..raw() };
        change(&open(&directory, Options::default()));
        let before = store.fence("key", &["a", "b"]).unwrap();
        let large = vec![7; MAPPED_ABOVE + 1];
        assert_eq!(store.put("key", late(), b"late".as_slice(), 0).unwrap(), Stored::Superseded, "{name}");
        assert_eq!(store.put("key", late(), large.as_slice(), 0).unwrap(), Stored::Superseded, "{name}");
        assert_eq!(store.put_frame("key", b"late", late(), 0).unwrap(), Stored::Superseded, "{name}");
        assert_eq!(store.fence("key", &["a", "b"]).unwrap(), before, "what is superseded changes nothing: {name}");
        assert_eq!(std::fs::read_dir(path(&directory).join("blobs")).unwrap().count(), 0);
        assert!(matches!(
            store.put("key", New { fence: Some(&before), ..raw() }, b"new".as_slice(), 0).unwrap(),
            Stored::Written(_)
        ));
        assert_eq!(look(&store, "key").0, b"new");
    }
    let (store, _directory) = new_store();
    assert!(store.put("key", New { fence: Some(b"seven"), ..raw() }, b"".as_slice(), 0).is_err());
}

#[test]
fn only_what_was_looked_up_is_deleted_by_its_guards() {
    for (name, change) in CHANGES {
        let (store, directory) = new_store();
        put(&store, "key", &["a", "b"]);
        let seen = look(&store, "key").1.guards;
        assert!(store.holds(&seen).unwrap());
        change(&open(&directory, Options::default()));
        assert!(!store.holds(&seen).unwrap());
        assert!(!store.delete_if("key", &seen, 0).unwrap(), "{name}");
        put(&store, "key", &["a", "b"]);
        let seen = look(&store, "key").1.guards;
        let reader = open(&directory, Options { read_only: true, ..Options::default() });
        assert!(!reader.delete_if("key", &seen, 0).unwrap());
        assert!(store.delete_if("key", &seen, 0).unwrap());
        assert!(!store.contains("key", 0).unwrap() && !store.holds(&seen).unwrap());
        assert!(!store.delete_if("key", &seen, 0).unwrap());
    }
    let (store, _directory) = new_store();
    assert!(store.delete_if("key", b"seven", 0).is_err() && store.holds(b"seven").is_err());
}

#[test]
fn an_entry_takes_the_place_of_others_in_its_transaction() {
    let (store, _directory) = new_store();
    let large = vec![7; MAPPED_ABOVE + 1];
    for frame in [b"short".as_slice(), &large] {
        for key in ["old", "older", "kept"] {
            store.put_frame(key, frame, New::default(), 0).unwrap();
        }
        let copies = ["old", "older"].map(|key| store.fence(key, &[]).unwrap());
        let replacing = New { replaces: &["old", "older", "none", "new"], ..New::default() };
        let absent = New { if_absent: true, ..replacing.clone() };
        assert_eq!(store.put_frame("new", frame, absent, 0).unwrap(), Stored::Exists);
        assert_eq!(store.put_frame("new", frame, replacing, 0).unwrap(), Stored::Written(frame.len() as u64));
        assert_eq!(
            ["new", "old", "older", "kept"].map(|key| store.contains(key, 0).unwrap()),
            [true, false, false, true]
        );
        assert!(copies.iter().all(|guards| !store.holds(guards).unwrap()));
        store.delete("new", 0).unwrap();
    }
    assert_eq!(store.stats().unwrap().blobs, 1);
}

#[test]
fn a_copy_comes_with_the_terms_of_its_entry() {
    let (store, _directory) = new_store();
    for length in [10, 20_000, MAPPED_ABOVE + 1] {
        let new = New { until: Some(100), deadline: Some(50), created: Some(7), ..raw() };
        store.put("key", new, vec![7; length].as_slice(), 0).unwrap();
        let (value, terms) = look(&store, "key");
        assert_eq!(value, vec![7; length]);
        assert_eq!((terms.created, terms.deadline, terms.until), (7, Some(50), Some(100)));
    }
    put(&store, "endless", &[]);
    let terms = look(&store, "endless").1;
    assert_eq!((terms.deadline, terms.until), (None, None));
    assert_eq!(miss_of(&store, "absent", 0, false), Some(Miss::Absent));
}

#[test]
fn a_stale_entry_is_found_by_who_asks_for_it_up_to_its_last_moment() {
    let (store, _directory) = new_store();
    for length in [10, 20_000] {
        let new = New { until: Some(100), deadline: Some(50), ..raw() };
        store.put("key", new, vec![7; length].as_slice(), 0).unwrap();
        assert_eq!(miss_of(&store, "key", 50, false), None);
        assert_eq!(miss_of(&store, "key", 51, false), Some(Miss::Expired));
        // Writes sweep what has come to its end, and this has not.
        put(&store, "other", &[]);
        store.put("other", raw(), b"".as_slice(), 99).unwrap();
        assert_eq!(miss_of(&store, "key", 51, true), None);
        assert_eq!(miss_of(&store, "key", 100, true), None);
        assert_eq!(miss_of(&store, "key", 101, true), Some(Miss::Expired));
        store.put("other", raw(), b"".as_slice(), 101).unwrap();
        assert_eq!(miss_of(&store, "key", 101, true), Some(Miss::Absent));
    }
}

#[test]
fn an_entry_without_a_last_moment_is_swept_at_its_deadline() {
    let (store, _directory) = new_store();
    store.put("key", New { deadline: Some(50), ..raw() }, b"".as_slice(), 0).unwrap();
    assert!(store.touch("key", Some(70), 50).unwrap());
    store.put("other", raw(), b"".as_slice(), 70).unwrap();
    assert_eq!(miss_of(&store, "key", 71, true), None);
    store.put("other", raw(), b"".as_slice(), 71).unwrap();
    assert_eq!(miss_of(&store, "key", 71, true), Some(Miss::Absent));
    assert_eq!(store.stats().unwrap().expired, 1);
}

#[test]
fn what_needs_a_file_is_elsewhere_until_it_is_mapped() {
    let (store, _directory) = new_store();
    store.put("key", raw(), vec![7; MAPPED_ABOVE + 1].as_slice(), 0).unwrap();
    let at_hand = || store.look_at_hand("key", 0, false, |_| ()).unwrap();
    assert!(matches!(at_hand(), (AtHand::Elsewhere, _)));
    let (found, terms) = store.look("key", 0, false).unwrap();
    match at_hand() {
        (AtHand::Found(Lookup::Hit(_)), again) => assert_eq!(again, terms),
        other => panic!("{other:?}"),
    }
    drop(found);
    assert!(matches!(at_hand(), (AtHand::Elsewhere, _)));
}

#[test]
fn who_may_only_read_sees_others_change_things() {
    let (store, directory) = new_store();
    put(&store, "key", &["a"]);
    drop(store);
    let reader = open(&directory, Options { read_only: true, ..Options::default() });
    let (epochs, copy) = (reader.epochs().unwrap(), look(&reader, "key").1.guards);
    assert!(hold(&epochs, &copy));
    // Another process would write; this one may not have both open.
    let file = std::fs::File::options().read(true).write(true).open(path(&directory).join("epochs")).unwrap();
    let others = Epochs::shared(memmap2::MmapOptions::new().map_raw(&file).unwrap(), true).unwrap();
    others.bump(guards(&copy)[0].place.into());
    assert!(!hold(&epochs, &copy));
}

#[test]
fn without_a_table_guards_do_not_hold() {
    let (store, directory) = new_store();
    put(&store, "key", &["a"]);
    drop(store);
    std::fs::remove_file(path(&directory).join("epochs")).unwrap();
    let reader = open(&directory, Options { read_only: true, ..Options::default() });
    assert!(!hold(&reader.epochs().unwrap(), &look(&reader, "key").1.guards));
}

/// Two tags that every write has; versions go up, and a copy whose guards hold is never older than what was stored, or
/// invalidated, when they were looked at.
#[test]
fn no_copy_outlives_a_change_that_is_done() {
    const ROUNDS: u64 = 3000;
    let (store, _directory) = new_store();
    let (least, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..=ROUNDS {
                let new = New { tags: &["a", "b"], ..raw() };
                store.put("key", new, version.to_le_bytes().as_slice(), 0).unwrap();
                least.store(version, Ordering::SeqCst);
                if version % 2 == 0 {
                    store.invalidate_tags(&["b"], 0).unwrap();
                    least.store(version + 1, Ordering::SeqCst);
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        let epochs = store.epochs().unwrap();
        let (mut kept, mut held) = (Vec::new(), 0);
        while !done.load(Ordering::SeqCst) {
            if let (Lookup::Hit(hit), Some(terms)) = store.look("key", 0, false).unwrap() {
                let payload = hit.frame[locate_header(&hit.frame).unwrap().end..].try_into().unwrap();
                kept.push((u64::from_le_bytes(payload), terms.guards));
            }
            for (version, guards) in kept.iter().rev().take(4) {
                let least = least.load(Ordering::SeqCst);
                if hold(&epochs, guards) {
                    held += 1;
                    assert!(*version >= least, "version {version} of {least} is served on");
                }
            }
        }
        assert!(held > 0 && kept.iter().all(|(_, guards)| !hold(&epochs, guards)));
    });
}
