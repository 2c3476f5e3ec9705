//! Reading: the index first, then the blob that it names.

use super::blobs::Found;
use super::epochs;
use super::index::{Index, Opened};
use super::lmdb::{Fault, Reading, View, fetch};
use super::row::{BlobId, Entry, NEVER, Row, RowKey, number_of, tag_name};
use super::store::Store;
use crate::buffer::{FrameBuf, Origin};
use crate::epoch::Guard;
use crate::error::{Error, Result};
use crate::frame::{self, Header};
use crate::key::Name;

/// What [`Store::get`] found.
#[derive(Debug)]
pub enum Lookup {
    /// The entry.
    Hit(Hit),
    /// No entry to serve.
    Miss(Miss),
}

/// An entry.
#[derive(Debug)]
pub struct Hit {
    /// All of it: header and payload.
    pub frame: FrameBuf,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub created: u64,
    /// Until when this store serves it, in the same unit.
    pub deadline: Option<u64>,
    /// A random number of this write: two entries with the same number are the same entry.
    pub fence: u64,
    /// Whether [`Store::put`] wrote the header, so that its fields stand in the order of [`Header::to_json`].
    pub own_header: bool,
}

/// Why there is no entry to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None under the key's name.
    Absent,
    /// Its deadline has passed.
    Expired,
    /// The name is that of an entry of another key.
    OtherKey,
    /// A tag of it, or its namespace, was invalidated since it was written.
    Invalidated,
    /// Row or blob are not what was written; the entry is removed.
    Damaged,
}

/// How many rows are looked for before the first of them is read: 16 of 1 KiB fit into a processor's nearest cache.
const AHEAD: usize = 16;
/// How many are looked for together.
const ABREAST: usize = 4;

impl Store {
    /// Looks `key` up; `now` is in milliseconds since 1970-01-01 UTC. Counts as a read of the entry.
    ///
    /// Frames of up to [`INLINE_UP_TO`] bytes are copied out of the index, others are read or mapped; they are
    /// [trusted](Origin::Trusted), as the directory is closed to others.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Argument`] for a key that is too long, [`Error::Memory`].
    pub fn get(&self, key: &str, now: u64) -> Result<Lookup> {
        let (index, asked) = (self.index()?, self.asked(key, now)?);
        let mut gone = None;
        loop {
            let snapshot = self.snapshot(index)?;
            let seen = match self.find(&snapshot, index, &asked)? {
                Ok(row) => Seen::of(index, &asked, &row, |inline| inline.to_hit()),
                Err(miss) => Seen::Miss(miss),
            };
            drop(snapshot);
            let (entry, id) = match seen {
                Seen::Inline(hit) => return Ok(Lookup::Hit(hit?)),
                Seen::Miss(Miss::Damaged) => return self.damaged(index, &asked.name, None),
                Seen::Miss(miss) => return Ok(Lookup::Miss(miss)),
                Seen::Blob(entry, id) => (entry, id),
            };
            match index.blobs.open(&id, &entry)? {
                Found::Frame(frame) => return Ok(Lookup::Hit(Hit::new(frame, &entry))),
                // Whoever replaced the entry unlinked its blob: the index says what is there now. It changes for every
                // turn of this loop, so that somebody else gets on.
                Found::Gone if gone != Some(entry.fence) => gone = Some(entry.fence),
                Found::Gone | Found::Damaged => return self.damaged(index, &asked.name, Some(&entry)),
            }
        }
    }

    /// As [`Self::get`], if that needs no file and no lock that is held for long. A frame that stands in the index is
    /// given to `inline`, which is not to take long: pages that it sees cannot be used again meanwhile.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn get_at_hand<T>(&self, key: &str, now: u64, inline: impl FnOnce(Inline<'_>) -> T) -> Result<AtHand<T>> {
        let Some((index, snapshot)) = self.snapshot_at_hand()? else { return Ok(AtHand::Elsewhere) };
        let asked = self.asked(key, now)?;
        Ok(AtHand::of(index, &asked, self.find(&snapshot, index, &asked)?, inline))
    }

    /// Looks several keys up in one snapshot, as [`Self::get_at_hand`] looks one up; what is found of each is given to
    /// `found`, in the order of the keys, which is not to take long either.
    ///
    /// # Errors
    /// Those of [`Self::get`], and of `found`.
    pub fn get_many_at_hand<T, E: From<Error>>(
        &self,
        keys: &[&str],
        now: u64,
        inline: impl Fn(Inline<'_>) -> T,
        mut found: impl FnMut(AtHand<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((index, snapshot)) = self.snapshot_at_hand()? else {
            return keys.iter().try_for_each(|_| found(AtHand::Elsewhere));
        };
        let names = self.namespace.names_of(keys)?;
        for (keys, names) in keys.chunks(AHEAD).zip(names.chunks(AHEAD)) {
            for ((key, name), row) in keys.iter().zip(names).zip(snapshot.rows_of(index, names)?) {
                let asked = Asked { key, name: *name.as_bytes(), now, stale: false };
                found(AtHand::of(index, &asked, self.served(&snapshot, index, &asked, row)?, &inline))?;
            }
        }
        Ok(())
    }

    /// Looks several keys up, in one snapshot.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn get_many(&self, keys: &[&str], now: u64) -> Result<Vec<Lookup>> {
        self.index()?;
        let mut all = Vec::with_capacity(keys.len());
        let inline = |inline: Inline<'_>| inline.to_hit();
        self.get_many_at_hand::<_, Error>(keys, now, inline, |found| {
            all.push(found);
            Ok(())
        })?;
        let found = all.into_iter().zip(keys).map(|(found, key)| match found {
            AtHand::Inline(hit) => hit.map(Lookup::Hit),
            AtHand::Found(found) => Ok(found),
            // Files are opened, and damage is dealt with, one at a time.
            AtHand::Elsewhere => self.get(key, now),
        });
        found.collect()
    }

    pub(super) fn asked<'k>(&self, key: &'k str, now: u64) -> Result<Asked<'k>> {
        Ok(Asked { key, name: self.name_of(key)?, now, stale: false })
    }

    /// A snapshot, if this process has the index open and it needs no waiting.
    fn snapshot_at_hand(&self) -> Result<Option<(&Opened, Snapshot<'_>)>> {
        let Some(index) = self.opened.current() else { return Ok(None) };
        let guard = self.namespace_guard(index);
        let Some(reading) = index.read_at_once()? else { return Ok(None) };
        Ok(Some((index, self.snapshot_of(index, guard, reading)?)))
    }

    fn snapshot<'i>(&self, index: &'i Opened) -> Result<Snapshot<'i>> {
        let guard = self.namespace_guard(index);
        self.snapshot_of(index, guard, index.read()?)
    }

    pub(super) fn namespace_guard(&self, index: &Opened) -> Guard {
        index.epochs.guard(epochs::of_namespace(self.namespace.hash()))
    }

    /// `guard` is the namespace's, taken before the reading was begun.
    pub(super) fn snapshot_of<'i>(
        &self,
        index: &'i Opened,
        guard: Guard,
        reading: Reading<'i>,
    ) -> Result<Snapshot<'i>> {
        let stamp = self.namespace_stamp(index, &reading).map_err(|fault| index.fault("read", fault))?;
        self.last_stamp.set(&index.epochs, guard, stamp);
        Ok(Snapshot { reading, namespace_stamp: stamp })
    }

    /// The row of an entry that can be served.
    pub(super) fn find<'s>(
        &self,
        snapshot: &'s Snapshot<'_>,
        index: &Opened,
        asked: &Asked<'_>,
    ) -> Result<Result<Row<'s>, Miss>> {
        self.served(snapshot, index, asked, snapshot.row_of(index, &asked.name)?)
    }

    /// The row of these bytes, if its entry can be served.
    #[inline]
    fn served<'s>(
        &self,
        snapshot: &'s Snapshot<'_>,
        index: &Opened,
        asked: &Asked<'_>,
        bytes: Option<&'s [u8]>,
    ) -> Result<Result<Row<'s>, Miss>> {
        let Some(bytes) = bytes else { return Ok(Err(Miss::Absent)) };
        let Some(row) = Row::parse(bytes) else { return Ok(Err(Miss::Damaged)) };
        let reason = self.reason_in(snapshot.namespace_stamp, &row, &snapshot.reading, asked);
        Ok(reason.map_err(|fault| index.fault("read", fault))?.map_or(Ok(row), Err))
    }

    /// Why an entry cannot be served, if so.
    pub(super) fn reason_against(
        &self,
        index: &Index,
        row: &Row<'_>,
        view: &View,
        asked: &Asked<'_>,
    ) -> Result<Option<Miss>, Fault> {
        self.reason_in(self.namespace_stamp(index, view)?, row, view, asked)
    }

    fn reason_in(
        &self,
        namespace_stamp: u64,
        row: &Row<'_>,
        view: &View,
        asked: &Asked<'_>,
    ) -> Result<Option<Miss>, Fault> {
        let namespace = self.namespace.as_str().as_bytes();
        // No bytes at no address are slow to compare: that faults within the processor.
        let in_namespace =
            row.namespace.len() == namespace.len() && (namespace.is_empty() || row.namespace == namespace);
        if row.key != asked.key.as_bytes() || !in_namespace {
            return Ok(Some(Miss::OtherKey));
        }
        let last = if asked.stale { row.until() } else { row.deadline().min(row.until()) };
        if last < asked.now {
            return Ok(Some(Miss::Expired));
        }
        if row.namespace_stamp() != namespace_stamp {
            return Ok(Some(Miss::Invalidated));
        }
        for tag in row.tags() {
            // A tag whose stamp is lost counts as invalidated.
            if view.get(&RowKey::tag(&tag.tag))?.and_then(number_of) != Some(tag.stamp) {
                return Ok(Some(Miss::Invalidated));
            }
        }
        Ok(None)
    }

    /// Zero until the namespace is first cleared.
    pub(super) fn namespace_stamp(&self, index: &Index, view: &View) -> Result<u64, Fault> {
        if let Some(stamp) = self.last_stamp.get(&index.epochs, self.namespace.hash()) {
            return Ok(stamp);
        }
        Ok(view.get(&RowKey::namespace(self.namespace.hash()))?.and_then(number_of).unwrap_or(0))
    }

    /// Removes a damaged entry, if it is still the one that was read: `seen`, or one whose row is damaged.
    pub(super) fn damaged(&self, index: &Opened, name: &[u8; 32], seen: Option<&Entry>) -> Result<Lookup> {
        self.counts.damaged.add(1);
        if !self.options.read_only {
            index.change(&self.options, |change| change.remove_damaged(name, seen))?;
        }
        Ok(Lookup::Miss(Miss::Damaged))
    }

    /// Whether [`Self::get`] would find an entry. Does not count as a read, and opens no file.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn contains(&self, key: &str, now: u64) -> Result<bool> {
        let (index, asked) = (self.index()?, self.asked(key, now)?);
        let reading = index.read()?;
        let failed = |fault| index.fault("read", fault);
        let row = reading.get(&RowKey::entry(&asked.name)).map_err(failed)?.and_then(Row::parse);
        match row {
            Some(row) => Ok(self.reason_against(index, &row, &reading, &asked).map_err(failed)?.is_none()),
            None => Ok(false),
        }
    }

    /// The payload of a [`Hit`]: the frame's own bytes, or those that it holds compressed, which is a copy.
    ///
    /// # Errors
    /// Those of [`frame::unpack`].
    pub fn payload(&self, frame: &FrameBuf, header: &Header, start: usize, may_copy: bool) -> Result<FrameBuf> {
        frame::unpack(frame, header, start, self.options.max_value, may_copy)
    }
}

/// A frame that stands in the index.
#[derive(Clone, Copy, Debug)]
pub struct Inline<'r> {
    /// All of it.
    pub frame: &'r [u8],
    row: &'r Row<'r>,
}

impl Inline<'_> {
    /// Whether [`Store::put`] wrote the header, so that its fields stand in the order of [`Header::to_json`].
    pub fn has_own_header(&self) -> bool {
        self.row.own_header()
    }

    /// A copy of it.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn to_hit(self) -> Result<Hit> {
        Ok(Hit::new(FrameBuf::copy_of(self.frame, Origin::Trusted)?, &self.row.entry()))
    }
}

/// What [`Store::get_at_hand`] found.
#[derive(Debug)]
pub enum AtHand<T> {
    /// What was made of a frame in the index.
    Inline(T),
    /// A mapped blob, or a miss.
    Found(Lookup),
    /// [`Store::get`] has to look.
    Elsewhere,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'k> {
    pub(super) key: &'k str,
    pub(super) name: [u8; 32],
    pub(super) now: u64,
    /// Whether an entry past its deadline will do, until its `until` passes.
    pub(super) stale: bool,
}

/// What readers see, and what is looked up once for all of them.
pub(super) struct Snapshot<'i> {
    reading: Reading<'i>,
    namespace_stamp: u64,
}

impl Snapshot<'_> {
    /// The bytes of an entry's row.
    #[inline]
    fn row_of(&self, index: &Opened, name: &[u8; 32]) -> Result<Option<&[u8]>> {
        self.reading.get(&RowKey::entry(name)).map_err(|fault| index.fault("read", fault))
    }
}

impl<'i> Snapshot<'i> {
    /// The bytes of up to [`AHEAD`] rows.
    fn rows_of(&self, index: &Opened, names: &[Name]) -> Result<[Option<&[u8]>; AHEAD]> {
        let failed = |fault| index.fault("read", fault);
        let mut rows = [None; AHEAD];
        let (groups, rest) = names.as_chunks::<ABREAST>();
        for (rows, names) in rows.as_chunks_mut::<ABREAST>().0.iter_mut().zip(groups) {
            let keys = names.each_ref().map(|name| RowKey::entry(name.as_bytes()));
            *rows = self.reading.get_each(keys.each_ref().map(|key| &**key)).map_err(failed)?;
            rows.iter().flatten().for_each(|row| fetch(row));
        }
        for (row, name) in rows[groups.as_flattened().len()..].iter_mut().zip(rest) {
            *row = self.row_of(index, name.as_bytes())?;
        }
        Ok(rows)
    }
}

/// What the index says.
pub(super) enum Seen<T> {
    Inline(T),
    Blob(Entry, BlobId),
    Miss(Miss),
}

impl<T> Seen<T> {
    /// Counts the read of an entry that is served.
    pub(super) fn of(index: &Opened, asked: &Asked<'_>, row: &Row<'_>, inline: impl FnOnce(Inline<'_>) -> T) -> Self {
        row.count_read(index, asked);
        match row.blob() {
            Some(id) => Seen::Blob(row.entry(), id),
            None => Seen::Inline(inline(Inline { frame: row.inline, row })),
        }
    }

    pub(super) fn at_hand(self, index: &Opened) -> AtHand<T> {
        match self {
            Seen::Inline(made) => AtHand::Inline(made),
            Seen::Miss(miss) => AtHand::missed(miss),
            Seen::Blob(entry, id) => AtHand::mapped(index, &id, &entry),
        }
    }
}

impl<T> AtHand<T> {
    /// Counts the read of an entry that is served.
    #[inline]
    fn of(
        index: &Opened,
        asked: &Asked<'_>,
        found: std::result::Result<Row<'_>, Miss>,
        inline: impl FnOnce(Inline<'_>) -> T,
    ) -> Self {
        let row = match found {
            Ok(row) => row,
            Err(miss) => return Self::missed(miss),
        };
        row.count_read(index, asked);
        match row.blob() {
            Some(id) => Self::mapped(index, &id, &row.entry()),
            None => Self::Inline(inline(Inline { frame: row.inline, row: &row })),
        }
    }

    fn missed(miss: Miss) -> Self {
        if miss == Miss::Damaged { Self::Elsewhere } else { Self::Found(Lookup::Miss(miss)) }
    }

    fn mapped(index: &Opened, id: &BlobId, entry: &Entry) -> Self {
        match index.blobs.mapped_frame(id) {
            Some(frame) => Self::Found(Lookup::Hit(Hit::new(frame, entry))),
            None => Self::Elsewhere,
        }
    }
}

impl Row<'_> {
    fn count_read(&self, index: &Opened, asked: &Asked<'_>) {
        index.marks.touch(&asked.name);
        for tag in self.tags() {
            index.marks.touch(&tag_name(&tag.tag));
        }
    }
}

impl Hit {
    /// The frame's header, and where its payload starts.
    ///
    /// # Errors
    /// [`Error::Frame`] for what is not a whole frame, or does not state its payload's length.
    pub fn header(&self) -> Result<(Header, usize)> {
        let json = frame::locate_header(&self.frame)?;
        let header = Header::parse(&self.frame[json.clone()])?;
        let length = (self.frame.len() - json.end) as u64;
        if header.length != Some(length) {
            let expected: crate::error::Text = match header.length {
                Some(stated) => format!("the {stated} bytes of payload that the header states").into(),
                None => "a header that states the payload's length".into(),
            };
            return Err(Error::frame(json.end, expected, format!("{length} bytes")));
        }
        Ok((header, json.end))
    }

    pub(super) fn new(frame: FrameBuf, entry: &Entry) -> Self {
        let deadline = (entry.deadline != NEVER).then_some(entry.deadline);
        Self { frame, created: entry.created, deadline, fence: entry.fence, own_header: entry.own_header }
    }
}
