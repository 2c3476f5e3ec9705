//! A read of entries: what to ask an engine for, and what its answers come to.
//!
//! Guards are taken before anything is asked, so that a tier above keeps nothing that changed meanwhile.

use super::head::{Head, Tag};
use super::names::Names;
use crate::epoch::{Epochs, Guard};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// Groups of keys whose tags are remembered, and the most tags of one.
const GROUPS: usize = 1024;
const TAGS: usize = 8;

/// The tags that entries of one group of keys had last, whose stamps are asked for with the next of them. The group of a
/// key is what stands before its last `#` or `:`.
#[derive(Debug, Default)]
pub struct Tagged(Mutex<HashMap<Box<str>, Vec<[u8; 16]>>>);

impl Tagged {
    fn expected(&self, keys: &[&str]) -> Vec<[u8; 16]> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tags: Vec<[u8; 16]> = Vec::new();
        if !known.is_empty() {
            for tag in keys.iter().filter_map(|key| known.get(group_of(key))).flatten() {
                if !tags.contains(tag) {
                    tags.push(*tag);
                }
            }
        }
        tags
    }

    fn note(&self, key: &str, tags: &[Tag]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = group_of(key);
        let same = known.get(group).map_or(&[][..], Vec::as_slice).iter().eq(tags.iter().map(tag_of));
        if tags.len() > TAGS || same {
            return;
        }
        if known.len() >= GROUPS {
            known.clear();
        }
        known.insert(group.into(), tags.iter().map(|tag| *tag_of(tag)).collect());
    }
}

fn group_of(key: &str) -> &str {
    key.rfind('#').or_else(|| key.rfind(':')).map_or("", |end| &key[..end])
}

fn tag_of(tag: &Tag) -> &[u8; 16] {
    tag.first_chunk().unwrap_or(&[0; 16])
}

fn stamp_of(tag: &Tag) -> &[u8; 8] {
    tag.last_chunk().unwrap_or(&[0; 8])
}

/// Why there is nothing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// There is no entry.
    Absent,
    /// Its namespace or a tag of it was invalidated, or lost its stamp.
    Invalidated,
    /// Its deadline has passed.
    Expired,
}

/// What an answer was, without its frame.
#[derive(Debug)]
enum Found {
    Absent,
    Entry(Entry),
    Wrong(Error),
}

/// What the head of an entry says.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "see `Head`")]
pub struct Entry {
    pub deadline: Option<u64>,
    pub until: Option<u64>,
    pub created: u64,
    pub id: [u8; 8],
    pub length: usize,
    stamp: [u8; 8],
    tags: Vec<Tag>,
}

impl From<Head<'_>> for Entry {
    fn from(head: Head<'_>) -> Self {
        let Head { deadline, until, created, stamp, id, tags, length } = head;
        Self { deadline, until, created, id, length, stamp, tags: tags.to_vec() }
    }
}

/// Names, one after the other.
#[derive(Debug, Default)]
struct Asks {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Asks {
    fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.text[std::mem::replace(&mut start, *end)..*end])
    }

    /// Ends the name that was appended to the text.
    fn end(&mut self) {
        self.ends.push(self.text.len());
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// Room for the name of an entry.
const NAME: usize = 80;

/// A read of the entries of several keys.
#[derive(Debug)]
pub struct Reading {
    /// What to ask for: the entries, the stamp of the namespace, those of the tags that they should have. Then what is
    /// still to be asked for.
    names: Asks,
    /// Whose stamps are among them, in order.
    asked: Vec<[u8; 16]>,
    found: Vec<Found>,
    generation: Option<[u8; 8]>,
    /// The stamps that were answered, and guards of what was asked.
    stamps: HashMap<[u8; 16], (Option<[u8; 8]>, Guard)>,
    guards: Vec<Guard>,
    keys: usize,
}

impl Reading {
    /// Begins to read `keys`. `all` is the name whose guard tells that something may have been missed.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key that is too long.
    pub fn new(names: &Names, tagged: &Tagged, epochs: &Epochs, all: &str, keys: &[&str]) -> Result<Self> {
        let asked = tagged.expected(keys);
        let count = keys.len() + 1 + asked.len();
        let mut asks = Asks { text: String::with_capacity(NAME * count), ends: Vec::with_capacity(count) };
        for key in keys {
            names.push_entry(&mut asks.text, key)?;
            asks.end();
        }
        asks.text.push_str(names.generation());
        asks.end();
        let guard = |name: &str| epochs.guard(xxh3_64(name.as_bytes()));
        let guards = std::iter::once(all).chain(asks.iter()).map(guard).collect();
        let mut reading = Self {
            names: asks,
            asked: Vec::new(),
            found: Vec::new(),
            generation: None,
            stamps: HashMap::new(),
            guards,
            keys: keys.len(),
        };
        reading.ask(names, epochs, asked);
        Ok(reading)
    }

    fn ask(&mut self, names: &Names, epochs: &Epochs, tags: Vec<[u8; 16]>) {
        for tag in &tags {
            let name = names.stamp(tag);
            self.stamps.insert(*tag, (None, epochs.guard(xxh3_64(name.as_bytes()))));
            self.names.text.push_str(&name);
            self.names.end();
        }
        self.asked = tags;
    }

    /// What to ask for now; nothing, when all is answered.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter()
    }

    /// Takes the answers to [`Self::names`], in their order.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are more or fewer.
    pub fn feed<B: Deref<Target = [u8]>>(
        &mut self,
        names: &Names,
        tagged: &Tagged,
        epochs: &Epochs,
        keys: &[&str],
        values: &[Option<B>],
    ) -> Result<()> {
        if values.len() != self.names.ends.len() || keys.len() != self.keys {
            let expected = format!("answers to {} names", self.names.ends.len()).into();
            return Err(Error::Argument { argument: "values", expected, found: values.len().to_string() });
        }
        let mut values = values.iter().map(|value| value.as_deref());
        let first = self.found.is_empty();
        if first {
            let entries = values.by_ref().take(keys.len());
            self.found = entries
                .map(|value| match value.map(Head::parse) {
                    None => Found::Absent,
                    Some(Ok(head)) => Found::Entry(head.into()),
                    Some(Err(error)) => Found::Wrong(error),
                })
                .collect();
            self.generation = values.next().flatten().and_then(stamp_from);
        }
        for (tag, value) in std::mem::take(&mut self.asked).into_iter().zip(values) {
            if let Some((stamp, _)) = self.stamps.get_mut(&tag) {
                *stamp = value.and_then(stamp_from);
            }
        }
        self.names.clear();
        if first {
            let more = self.unknown(tagged, keys);
            self.ask(names, epochs, more);
        }
        Ok(())
    }

    /// Tags of entries whose stamps were not asked for.
    fn unknown(&self, tagged: &Tagged, keys: &[&str]) -> Vec<[u8; 16]> {
        let mut more: Vec<[u8; 16]> = Vec::new();
        for (key, found) in keys.iter().zip(&self.found) {
            let Found::Entry(entry) = found else { continue };
            if entry.tags.is_empty() && self.stamps.is_empty() {
                continue;
            }
            tagged.note(key, &entry.tags);
            for tag in entry.tags.iter().map(tag_of) {
                if !self.stamps.contains_key(tag) && !more.contains(tag) {
                    more.push(*tag);
                }
            }
        }
        more
    }

    /// The entry of the key at `index`, if it may be served; with `stale` also past its deadline.
    ///
    /// # Errors
    /// [`Error::Frame`] where something else stands under its name.
    pub fn entry(&mut self, index: usize, now: u64, stale: bool) -> Result<Result<&Entry, Missed>> {
        let slot = self.found.get_mut(index);
        if let Some(Found::Wrong(_)) = slot
            && let Some(Found::Wrong(error)) = slot.map(|slot| std::mem::replace(slot, Found::Absent))
        {
            return Err(error);
        }
        let Some(Found::Entry(entry)) = self.found.get(index) else { return Ok(Err(Missed::Absent)) };
        let holds =
            |tag: &Tag| self.stamps.get(tag_of(tag)).is_some_and(|(stamp, _)| stamp.as_ref() == Some(stamp_of(tag)));
        if self.generation != Some(entry.stamp) || !entry.tags.iter().all(holds) {
            return Ok(Err(Missed::Invalidated));
        }
        let passed = |end: Option<u64>| end.is_some_and(|end| end < now);
        if passed(entry.until) || (!stale && passed(entry.deadline)) {
            return Ok(Err(Missed::Expired));
        }
        Ok(Ok(entry))
    }

    /// Guards of the entry of the key at `index`: of what may have been missed, its name, its namespace and its tags.
    pub fn guards(&self, index: usize) -> Vec<u8> {
        let tags = match self.found.get(index) {
            Some(Found::Entry(entry)) => &*entry.tags,
            _ => &[],
        };
        let all = [self.guards.first(), self.guards.get(1 + index), self.guards.last()];
        let tags = tags.iter().filter_map(|tag| self.stamps.get(tag_of(tag)).map(|(_, guard)| guard));
        all.into_iter().flatten().chain(tags).flat_map(|guard| guard.to_bytes()).collect()
    }
}

fn stamp_from(value: &[u8]) -> Option<[u8; 8]> {
    value.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::head::NewHead;
    use super::*;

    struct Engine {
        names: Names,
        tagged: Tagged,
        epochs: Epochs,
        values: HashMap<String, Vec<u8>>,
        asked: usize,
    }

    impl Engine {
        fn new() -> Self {
            let names = Names::new("n").expect("short");
            let values = HashMap::from([(names.generation().to_owned(), vec![1; 8])]);
            Self { names, tagged: Tagged::default(), epochs: Epochs::private(), values, asked: 0 }
        }

        fn put(&mut self, key: &str, tags: &[(u8, u8)]) {
            let tags = tags
                .iter()
                .map(|(tag, stamp)| {
                    let mut both = [*tag; 24];
                    both[16..].fill(*stamp);
                    both
                })
                .collect();
            let head = NewHead { deadline: Some(10), until: Some(20), created: 1, stamp: [1; 8], id: [9; 8], tags };
            self.values.insert(self.names.entry(key).expect("short"), head.to_bytes().expect("few tags"));
        }

        fn read(&mut self, keys: &[&str]) -> Reading {
            let mut reading = Reading::new(&self.names, &self.tagged, &self.epochs, "all", keys).expect("short keys");
            self.asked = 0;
            while reading.names().len() > 0 {
                self.asked += 1;
                let values: Vec<_> = reading.names().map(|name| self.values.get(name).cloned()).collect();
                reading.feed(&self.names, &self.tagged, &self.epochs, keys, &values).expect("as many");
            }
            reading
        }
    }

    fn missed(reading: &mut Reading, index: usize, now: u64, stale: bool) -> Option<Missed> {
        reading.entry(index, now, stale).expect("an entry").err()
    }

    #[test]
    fn an_entry_counts_with_the_stamps_that_it_says() {
        let mut engine = Engine::new();
        engine.put("a:1", &[]);
        engine.put("a:2", &[(5, 6)]);
        engine.values.insert(engine.names.stamp(&[5; 16]), vec![6; 8]);
        let mut reading = engine.read(&["a:1", "a:2", "a:3"]);
        assert_eq!(engine.asked, 2);
        assert_eq!([0, 1, 2].map(|at| missed(&mut reading, at, 5, false)), [None, None, Some(Missed::Absent)]);
        assert_eq!((reading.guards(0).len(), reading.guards(1).len()), (18, 24));
        // The next read of the group asks for the stamp at once.
        engine.put("a:7", &[(5, 7)]);
        let mut reading = engine.read(&["a:7"]);
        assert_eq!((engine.asked, missed(&mut reading, 0, 5, false)), (1, Some(Missed::Invalidated)));
        engine.values.remove(engine.names.generation());
        let mut reading = engine.read(&["a:1"]);
        assert_eq!(missed(&mut reading, 0, 5, false), Some(Missed::Invalidated));
    }

    #[test]
    fn times_pass() {
        let mut engine = Engine::new();
        engine.put("a", &[]);
        let mut reading = engine.read(&["a"]);
        assert_eq!(missed(&mut reading, 0, 10, false), None);
        assert_eq!(missed(&mut reading, 0, 11, false), Some(Missed::Expired));
        assert_eq!(missed(&mut reading, 0, 20, true), None);
        assert_eq!(missed(&mut reading, 0, 21, true), Some(Missed::Expired));
    }

    #[test]
    fn guards_break_with_any_change_that_matters() {
        let mut engine = Engine::new();
        engine.put("a", &[(5, 6)]);
        engine.values.insert(engine.names.stamp(&[5; 16]), vec![6; 8]);
        let entry = engine.names.entry("a").expect("short");
        for name in ["all", &entry, engine.names.generation(), &engine.names.stamp(&[5; 16])].map(str::to_owned) {
            let guards = engine.read(&["a"]).guards(0);
            let hold = |engine: &Engine| {
                guards.as_chunks().0.iter().all(|guard| engine.epochs.holds(Guard::from_bytes(*guard)))
            };
            assert!(hold(&engine));
            engine.epochs.bump(xxh3_64(name.as_bytes()));
            assert!(!hold(&engine), "{name}");
        }
    }

    #[test]
    fn what_is_no_entry_is_an_error_of_its_key_alone() {
        let mut engine = Engine::new();
        engine.put("a", &[]);
        engine.values.insert(engine.names.entry("b").expect("short"), b"hello".to_vec());
        let mut reading = engine.read(&["a", "b"]);
        assert_eq!(missed(&mut reading, 0, 5, false), None);
        assert!(matches!(reading.entry(1, 5, false), Err(Error::Frame { .. })));
    }
}
