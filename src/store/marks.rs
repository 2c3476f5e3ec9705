//! Which entries were read: one byte for each, in memory that all processes of a store share.
//!
//! A reader only stores into it, relaxed, and so needs no transaction. The bytes are the counters of a generalized CLOCK
//! (Corbató 1968): a read counts up to [`MOST`], the hand that looks for what to evict counts down, and takes what it
//! finds at zero. An entry's byte is found by its name; two entries may share one, which only keeps one of them longer.
//! Where the file is lost or damaged, the next evictions choose worse, and nothing else happens.
#![allow(unsafe_code)]

use super::directory::Directory;
use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bytes before the counters: where the hand stands.
const HEAD: usize = 64;
/// How many counters there are.
const COUNTERS: usize = 1 << 20;
/// Bytes of the file.
const LENGTH: usize = HEAD + COUNTERS;
/// Its name.
pub(super) const MARKS: &str = "marks";
/// The highest count.
const MOST: u8 = 3;

#[derive(Debug)]
pub(super) struct Marks {
    memory: MmapMut,
}

impl Marks {
    /// Maps those of a store.
    pub(super) fn open(directory: &Directory) -> Result<Self> {
        let file = directory.allocated(MARKS, LENGTH as u64)?;
        // SAFETY: shared memory is only looked at through atomics; the file is never truncated, in a directory that is
        // its user's alone.
        let memory = unsafe { MmapOptions::new().len(LENGTH).map_mut(&file) };
        memory.map(|memory| Self { memory }).map_err(|error| directory.io("map", MARKS, error))
    }

    /// Marks of this process alone, for who may not write to the store.
    pub(super) fn private() -> Result<Self> {
        let memory = MmapOptions::new().len(LENGTH).map_anon();
        memory.map(|memory| Self { memory }).map_err(|_| Error::Memory { bytes: LENGTH })
    }

    fn counter(&self, name: &[u8; 32]) -> &AtomicU8 {
        let [.., a, b, c, d] = *name;
        let index = u32::from_le_bytes([a, b, c, d]) as usize % COUNTERS;
        // SAFETY: inside the mapping, which lives as long as `self`; all processes use it through atomics.
        unsafe { AtomicU8::from_ptr(self.memory.as_ptr().cast_mut().add(HEAD + index)) }
    }

    /// Word 0 is the hand of the entries, word 1 that of the tags, word 2 whether the spare room is given up.
    fn word(&self, word: usize) -> &AtomicU64 {
        debug_assert!(word < HEAD / 8);
        // SAFETY: as in `counter`; a mapping is aligned to its page.
        unsafe { AtomicU64::from_ptr(self.memory.as_ptr().cast_mut().cast::<u64>().add(word)) }
    }

    /// An entry was read.
    #[inline]
    pub(super) fn touch(&self, name: &[u8; 32]) {
        let counter = self.counter(name);
        let count = counter.load(Ordering::Relaxed);
        if count < MOST {
            // Counts that get lost between two readers do not matter.
            counter.store(count + 1, Ordering::Relaxed);
        }
    }

    /// An entry is new: it stays for one turn of the hand.
    pub(super) fn begin(&self, name: &[u8; 32]) {
        self.counter(name).store(1, Ordering::Relaxed);
    }

    /// The hand passes an entry; whether it is to go.
    pub(super) fn pass(&self, name: &[u8; 32]) -> bool {
        let counter = self.counter(name);
        let count = counter.load(Ordering::Relaxed);
        if count == 0 {
            return true;
        }
        counter.store(count.min(MOST) - 1, Ordering::Relaxed);
        false
    }

    /// Where the hand stands: the first name that it has not passed in this turn.
    pub(super) fn hand(&self) -> [u8; 32] {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&self.word(0).load(Ordering::Relaxed).to_be_bytes());
        name
    }

    /// The hand has passed `name`.
    pub(super) fn move_hand(&self, name: &[u8; 32]) {
        let [a, b, c, d, e, f, g, h, ..] = *name;
        let next = u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_add(1);
        self.word(0).store(next, Ordering::Relaxed);
    }

    /// The first tag that its hand has not passed in this turn.
    pub(super) fn tag_hand(&self) -> [u8; 16] {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&self.word(1).load(Ordering::Relaxed).to_be_bytes());
        tag
    }

    /// The hand has passed `tag`; at the end it begins anew.
    pub(super) fn move_tag_hand(&self, tag: Option<&[u8; 16]>) {
        let next = tag.map_or(0, |tag| {
            let [a, b, c, d, e, f, g, h, ..] = *tag;
            u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_add(1)
        });
        self.word(1).store(next, Ordering::Relaxed);
    }

    /// Whether the [`Spare`](super::spare::Spare) is given up.
    pub(super) fn is_spare_given_up(&self) -> bool {
        self.word(2).load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_spare_given_up(&self, given_up: bool) {
        self.word(2).store(given_up.into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_often_is_passed_often() {
        let marks = Marks::private().unwrap();
        let name = [7; 32];
        assert!(marks.pass(&name));
        marks.begin(&name);
        assert_eq!((marks.pass(&name), marks.pass(&name)), (false, true));
        for _ in 0..100 {
            marks.touch(&name);
        }
        assert_eq!((0..10).position(|_| marks.pass(&name)), Some(usize::from(MOST)));
    }

    #[test]
    fn two_mappings_of_one_file_are_one() {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::open(&path.path().join("store")).unwrap();
        let (one, other) = (Marks::open(&directory).unwrap(), Marks::open(&directory).unwrap());
        one.touch(&[7; 32]);
        assert!(!other.pass(&[7; 32]));
        one.move_hand(&[1; 32]);
        assert!(other.hand() > [1; 32] && other.hand() < [2; 32]);
    }
}
