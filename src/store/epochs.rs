//! The file `epochs`: one table of [`Epochs`] for all processes of a store, so that each of them sees when a copy that it
//! keeps is not what the store has any more.
//!
//! Writers move its counters on, between the transaction's last change and its end; who may only read maps the file
//! read-only, and where there is none gets guards that never hold. It stays when a store is emptied: who has mapped it
//! goes on to see changes.

use super::directory::Directory;
use crate::epoch::{EPOCHS as COUNTERS, Epochs, Guard, TABLE_BYTES};
use crate::error::Result;
use memmap2::MmapOptions;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const EPOCHS: &str = "epochs";

/// Maps the table, making the file if it may be written to.
pub(super) fn open(directory: &Directory, read_only: bool) -> Result<Epochs> {
    let options = MmapOptions::new().len(TABLE_BYTES).clone();
    if !read_only {
        let file = directory.allocated(EPOCHS, TABLE_BYTES as u64)?;
        let mapping = options.map_raw(&file).map_err(|error| directory.io("map", EPOCHS, error))?;
        return Ok(Epochs::shared(mapping, true).unwrap_or_else(Epochs::without));
    }
    let file = directory.read(EPOCHS)?.filter(|(_, size)| *size >= TABLE_BYTES as u64);
    let mapping = file.and_then(|(file, _)| options.map_raw_read_only(&file).ok());
    Ok(mapping.and_then(|mapping| Epochs::shared(mapping, false)).unwrap_or_else(Epochs::without))
}

/// Counters of names, then of tags, then of namespaces. What many copies have in common has its own, as names change most.
const NAMES: u64 = 0xc000;
const TAGS: u64 = 0x3f00;
const NAMESPACES: u64 = 0x100;

/// The counter of the entry of a name.
pub(super) fn of_name(name: &[u8; 32]) -> u64 {
    number(name) % NAMES
}

/// The counter of a tag, by its hash.
pub(super) fn of_tag(tag: &[u8; 16]) -> u64 {
    NAMES + number(tag) % TAGS
}

/// The counter of a namespace, by its hash.
pub(super) fn of_namespace(hash: &[u8; 16]) -> u64 {
    NAMES + TAGS + number(hash) % NAMESPACES
}

fn number(hash: &[u8]) -> u64 {
    hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// The stamp of a namespace as it was last read, and its guard then: while that holds, it need not be read again.
#[derive(Debug)]
pub(super) struct LastStamp {
    count: AtomicU32,
    stamp: AtomicU64,
    /// Held by who changes both; a child that was forked meanwhile reads the stamp every time.
    changing: Mutex<()>,
}

impl Default for LastStamp {
    fn default() -> Self {
        // A guard that never holds.
        Self { count: AtomicU32::new(1), stamp: AtomicU64::new(0), changing: Mutex::default() }
    }
}

impl LastStamp {
    /// The stamp that every snapshot has which was begun before this is called, and after the last change.
    #[inline]
    pub(super) fn get(&self, epochs: &Epochs, hash: &[u8; 16]) -> Option<u64> {
        let guard = Guard { place: of_namespace(hash) as u16, count: self.count.load(Ordering::Acquire) };
        let stamp = self.stamp.load(Ordering::Relaxed);
        epochs.holds(guard).then_some(stamp)
    }

    /// `stamp` was read in a snapshot that was begun after `guard` was taken.
    pub(super) fn set(&self, epochs: &Epochs, guard: Guard, stamp: u64) {
        if self.count.load(Ordering::Relaxed) != guard.count
            && let Ok(_changing) = self.changing.try_lock()
            && epochs.holds(guard)
        {
            // In this order: who sees the new count sees a stamp that is no older. One that is older than what stands here
            // has a guard that does not hold.
            self.stamp.store(stamp, Ordering::Relaxed);
            self.count.store(guard.count, Ordering::Release);
        }
    }
}

const _: () = assert!(NAMES + TAGS + NAMESPACES == COUNTERS as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_known_until_its_namespace_changes() {
        let (epochs, last, hash) = (Epochs::private(), LastStamp::default(), [7; 16]);
        let guard = || epochs.guard(of_namespace(&hash));
        assert_eq!(last.get(&epochs, &hash), None);
        let before = guard();
        last.set(&epochs, before, 1);
        assert_eq!(last.get(&epochs, &hash), Some(1));
        let changes = [of_namespace(&hash)];
        let changing = epochs.change(&changes);
        assert_eq!(last.get(&epochs, &hash), None);
        last.set(&epochs, guard(), 2);
        assert_eq!(last.get(&epochs, &hash), None);
        drop(changing);
        last.set(&epochs, before, 1);
        assert_eq!(last.get(&epochs, &hash), None);
        last.set(&epochs, guard(), 3);
        assert_eq!(last.get(&epochs, &hash), Some(3));
    }

    #[test]
    fn names_tags_and_namespaces_share_no_counter() {
        for byte in 0..=255 {
            let (name, tag, namespace) = (of_name(&[byte; 32]), of_tag(&[byte; 16]), of_namespace(&[byte; 16]));
            assert!(name < NAMES && (NAMES..NAMES + TAGS).contains(&tag) && namespace >= NAMES + TAGS);
            assert!(namespace < COUNTERS as u64);
        }
    }
}
