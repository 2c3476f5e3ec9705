//! The store as its users see it.

use super::blobs::{Found, Temporary, random};
use super::change::Change;
use super::directory::Directory;
use super::index::{Counter, Opened, Reservation, Stop};
use super::lmdb::Reading;
use super::options::{Options, Verify};
use super::row::{Entry, NEVER, NewRow, Row, RowKey, TagStamp, number_of};
use super::{FULLY_CHECKED_BELOW, INLINE_UP_TO};
use crate::buffer::{ALIGN, AlignedBuf, FrameBuf, Origin};
use crate::error::{Error, Result};
use crate::fork::ForkLocal;
use crate::frame::{self, Header, Payload};
use crate::key::Namespace;
use std::path::Path;

/// How often a reader looks again at an entry whose blob went away between index and file.
const LOOKS: usize = 16;

/// A directory of entries, shared by all processes of one user on this machine.
///
/// Cheap to open more than once: one process has one index of a directory. Everything but opening and writing is safe to
/// do with locks held: readers wait for nobody.
pub struct Store {
    directory: Directory,
    pub(super) options: Options,
    pub(super) namespace: Namespace,
    opened: ForkLocal<Opened>,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) dropped: Counter,
    pub(super) evicted: Counter,
    pub(super) expired: Counter,
    pub(super) damaged: Counter,
}

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

/// An entry to be written, beside its payload.
#[derive(Clone, Debug, Default)]
pub struct New<'n> {
    /// Its header; the store adds key, length and what compression needs. Not looked at by [`Store::put_frame`].
    pub header: Header,
    /// When it was written, in milliseconds since 1970-01-01 UTC; the header's, or now, if not given.
    pub created: Option<u64>,
    /// The last moment at which any tier may serve it, in the same unit; the header's if not given.
    pub until: Option<u64>,
    /// Until when this store serves it, in milliseconds since 1970-01-01 UTC; for as long as there is room, if not given.
    pub deadline: Option<u64>,
    /// What it can be invalidated by; at most 1000.
    pub tags: &'n [&'n str],
    /// Whether an entry that can be served is left as it is.
    pub if_absent: bool,
    /// The token of the lease under which it was computed: where that is lost, it is not written.
    pub lease: Option<u64>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, in a frame of so many bytes.
    Written(u64),
    /// There was an entry, and `if_absent` was asked for.
    Exists,
    /// The lease was lost: the key was deleted, or somebody else computes it.
    Superseded,
    /// It is not stored: another process writes for too long, or there is no room. What was there before stays.
    Dropped,
}

/// Sizes and counts of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the pages of the index.
    pub index_bytes: u64,
    /// Bytes of the blobs that entries link.
    pub blob_bytes: u64,
    /// Bytes that writers have reserved for blobs.
    pub reserved_bytes: u64,
    /// Bytes of blobs that no entry links and that this process still views.
    pub pinned_bytes: u64,
    /// How many blobs are linked.
    pub blobs: u64,
    /// The bound on the first three together.
    pub max_bytes: u64,
    /// Writes of this handle that were dropped.
    pub dropped: u64,
    /// Entries that writes of this handle evicted.
    pub evicted: u64,
    /// Entries that writes of this handle found expired.
    pub expired: u64,
    /// Entries that this handle found damaged.
    pub damaged: u64,
}

/// A frame to be written, in two parts.
struct Parts<'p, P: ?Sized> {
    prefix: &'p [u8],
    payload: &'p P,
    compressed: bool,
}

/// A write that is ready for its transaction.
struct Prepared<'s> {
    name: [u8; 32],
    entry: Entry,
    /// A frame that goes into the index.
    inline: AlignedBuf,
    blob: Option<(Temporary<'s>, Reservation<'s>)>,
}

impl Store {
    /// Opens the store in `path`, as [`Directory::open`] opens that, creating it if it is not there.
    ///
    /// # Errors
    /// [`Error::Store`] for a directory that is not private or not a store, one of a newer format, one on a file system
    /// of another machine, one in use from another PID namespace, and options that differ from those it was made with;
    /// [`Error::Busy`] where another process has been opening it for 10 seconds; [`Error::Io`]; [`Error::Argument`].
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let directory = Directory::open_as(path, !options.read_only)?;
        let namespace = Namespace::new(&options.namespace)?;
        let store = Self { directory, options, namespace, opened: ForkLocal::new(), counts: Counts::default() };
        store.index()?;
        Ok(store)
    }

    /// The path it was opened at.
    pub fn path(&self) -> &str {
        self.directory.path()
    }

    /// What it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn index(&self) -> Result<&Opened> {
        self.opened.get_or_try_make(|| Opened::open(&self.directory, &self.options))
    }

    pub(super) fn name_of(&self, key: &str) -> Result<[u8; 32]> {
        Ok(*self.namespace.name_of(key)?.as_bytes())
    }

    /// Looks `key` up; `now` is in milliseconds since 1970-01-01 UTC. Counts as a read of the entry.
    ///
    /// Frames of up to [`INLINE_UP_TO`] bytes are copied out of the index, others are read or mapped; they are
    /// [trusted](Origin::Trusted), as the directory is closed to others.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Argument`] for a key that is too long, [`Error::Memory`].
    pub fn get(&self, key: &str, now: u64) -> Result<Lookup> {
        let (index, name) = (self.index()?, self.name_of(key)?);
        for _ in 0..LOOKS {
            let seen = self.look(&index.read()?, index, &name, key, now)?;
            let (entry, id) = match seen {
                Seen::Hit(hit) => return Ok(Lookup::Hit(hit)),
                Seen::Miss(Miss::Damaged) => return self.damaged(index, &name, None),
                Seen::Miss(miss) => return Ok(Lookup::Miss(miss)),
                Seen::Blob(entry, id) => (entry, id),
            };
            match index.blobs.open(&id, &entry)? {
                Found::Frame(frame) => return Ok(Lookup::Hit(Hit::new(frame, &entry))),
                Found::Damaged => return self.damaged(index, &name, Some(&entry)),
                Found::Gone => {}
            }
        }
        // Its blob is gone for good.
        let entry = index.read()?.get(&RowKey::entry(&name)).ok().flatten().and_then(Row::parse).map(|row| row.entry);
        self.damaged(index, &name, entry.as_ref())
    }

    /// As [`Self::get`], if that needs no file and no lock that is held for long; else `None`.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn get_at_hand(&self, key: &str, now: u64) -> Result<Option<Lookup>> {
        let Some(index) = self.opened.get() else { return Ok(None) };
        let name = self.name_of(key)?;
        Ok(match self.look(&index.read()?, index, &name, key, now)? {
            Seen::Hit(hit) => Some(Lookup::Hit(hit)),
            Seen::Miss(Miss::Damaged) => None,
            Seen::Miss(miss) => Some(Lookup::Miss(miss)),
            Seen::Blob(entry, id) => index.blobs.mapped_frame(&id).map(|frame| Lookup::Hit(Hit::new(frame, &entry))),
        })
    }

    /// Looks several keys up, in one snapshot.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn get_many(&self, keys: &[&str], now: u64) -> Result<Vec<Lookup>> {
        let index = self.index()?;
        let names = keys.iter().map(|key| self.name_of(key)).collect::<Result<Vec<_>>>()?;
        let seen = {
            let reading = index.read()?;
            let looks = keys.iter().zip(&names).map(|(key, name)| self.look(&reading, index, name, key, now));
            looks.collect::<Result<Vec<_>>>()?
        };
        let found = seen.into_iter().zip(keys).map(|(seen, key)| match seen {
            Seen::Hit(hit) => Ok(Lookup::Hit(hit)),
            Seen::Miss(miss) if miss != Miss::Damaged => Ok(Lookup::Miss(miss)),
            // Files are opened, and damage is dealt with, one at a time.
            Seen::Blob(..) | Seen::Miss(_) => self.get(key, now),
        });
        found.collect()
    }

    fn look(&self, reading: &Reading<'_>, index: &Opened, name: &[u8; 32], key: &str, now: u64) -> Result<Seen> {
        let failed = |fault| index.fault("read", fault);
        let Some(bytes) = reading.get(&RowKey::entry(name)).map_err(failed)? else {
            return Ok(Seen::Miss(Miss::Absent));
        };
        let Some(row) = Row::parse(bytes) else {
            return Ok(Seen::Miss(Miss::Damaged));
        };
        if let Some(miss) = self.reason_against(&row, reading, key, now).map_err(failed)? {
            return Ok(Seen::Miss(miss));
        }
        index.marks.touch(name);
        Ok(match row.entry.blob {
            Some(id) => Seen::Blob(row.entry, id),
            None => {
                let frame = FrameBuf::copy_of(row.inline, Origin::Trusted)?;
                Seen::Hit(Hit::new(frame, &row.entry))
            }
        })
    }

    /// Why an entry cannot be served, if so.
    pub(super) fn reason_against(
        &self,
        row: &Row<'_>,
        view: &super::lmdb::View<'_>,
        key: &str,
        now: u64,
    ) -> Result<Option<Miss>, super::lmdb::Fault> {
        if row.key != key.as_bytes() || row.namespace != self.namespace.as_str().as_bytes() {
            return Ok(Some(Miss::OtherKey));
        }
        if row.entry.deadline < now || row.entry.until < now {
            return Ok(Some(Miss::Expired));
        }
        if self.namespace_stamp(view)? != row.entry.namespace_stamp {
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
    pub(super) fn namespace_stamp(&self, view: &super::lmdb::View<'_>) -> Result<u64, super::lmdb::Fault> {
        Ok(view.get(&RowKey::namespace(self.namespace.hash()))?.and_then(number_of).unwrap_or(0))
    }

    /// Removes a damaged entry, if it is still the one that was read: `seen`, or one whose row is damaged.
    fn damaged(&self, index: &Opened, name: &[u8; 32], seen: Option<&Entry>) -> Result<Lookup> {
        self.counts.damaged.add(1);
        if !index.is_read_only() {
            index.change(&self.options, |change| {
                match (change.entry(name)?, seen) {
                    (Some(entry), Some(seen)) if entry.fence == seen.fence => change.remove(name, &entry)?,
                    (None, None) => drop(change.txn.delete(&RowKey::entry(name))?),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(Lookup::Miss(Miss::Damaged))
    }

    /// Whether [`Self::get`] would find an entry. Does not count as a read, and opens no file.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn contains(&self, key: &str, now: u64) -> Result<bool> {
        let (index, name) = (self.index()?, self.name_of(key)?);
        let reading = index.read()?;
        let failed = |fault| index.fault("read", fault);
        let row = reading.get(&RowKey::entry(&name)).map_err(failed)?.and_then(Row::parse);
        match row {
            Some(row) => Ok(self.reason_against(&row, &reading, key, now).map_err(failed)?.is_none()),
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

    /// Stores an entry, replacing the one that `key` had.
    ///
    /// A frame of up to [`INLINE_UP_TO`] bytes goes into the index, a larger one to a file, its large parts from where
    /// they lie unless it is compressed first. Readers see the old entry or the new one.
    ///
    /// # Errors
    /// [`Error::Io`] (a full disk is one), [`Error::Argument`] for a key or header that is too long and for too many
    /// tags, [`Error::TooLarge`] for a payload above the store's limit and a frame above `max_bytes`, those of the
    /// payload. What was stored before then stays.
    pub fn put(&self, key: &str, new: New<'_>, payload: &(impl Payload + ?Sized), now: u64) -> Result<Stored> {
        let written = self.put_many(&mut [(key, new, payload)], now)?;
        Ok(written.first().copied().unwrap_or(Stored::Dropped))
    }

    /// Stores a frame as it is, which another tier or process made; its header is not looked at, and not compressed.
    ///
    /// # Errors
    /// Those of [`Self::put`].
    pub fn put_frame(&self, key: &str, frame: &[u8], new: New<'_>, now: u64) -> Result<Stored> {
        check_tags(new.tags)?;
        let index = self.index()?;
        let header = frame::locate_header(frame).map_or(frame.len(), |header| header.end);
        let parts = Parts { prefix: &frame[..header], payload: &frame[header..], compressed: false };
        let Some(prepared) = self.prepare(index, key, &new, &parts, now)? else {
            return Ok(Stored::Dropped);
        };
        let stored = self.commit(index, &mut [(key, &new, prepared)], now)?;
        Ok(stored.first().copied().unwrap_or(Stored::Dropped))
    }

    /// Stores several entries in one transaction: readers see all of them or none.
    ///
    /// # Errors
    /// Those of [`Self::put`]; nothing is stored then.
    pub fn put_many<P: Payload + ?Sized>(&self, news: &mut [(&str, New<'_>, &P)], now: u64) -> Result<Vec<Stored>> {
        let index = self.index()?;
        let mut prepared = Vec::with_capacity(news.len());
        for (key, new, payload) in &mut *news {
            check_tags(new.tags)?;
            let header = std::mem::take(&mut new.header);
            (new.created, new.until) = (new.created.or(header.created), new.until.or(header.until));
            let (header, payload) = frame::pack(header, *payload, self.options.compression, self.options.max_value)?;
            let compressed = header.compression.is_some();
            let header = Header { key: Some((*key).to_owned()), ..header.with_length(payload.length()) };
            let prefix = frame::prefix(&header.to_json(), ALIGN, 0)?;
            let parts = Parts { prefix: &prefix, payload: &payload, compressed };
            match self.prepare(index, key, new, &parts, now)? {
                Some(one) => prepared.push(one),
                None => return Ok(self.dropped(news.len())),
            }
        }
        let mut all: Vec<_> = news.iter().zip(prepared).map(|((key, new, _), one)| (*key, new, one)).collect();
        self.commit(index, &mut all, now)
    }

    /// Does the transaction of writes that are ready.
    fn commit(&self, index: &Opened, all: &mut [(&str, &New<'_>, Prepared<'_>)], now: u64) -> Result<Vec<Stored>> {
        let mut counted = (0, 0);
        let stored = index.change(&self.options, |change| {
            let mut stored = Vec::with_capacity(all.len());
            for (key, new, one) in &mut *all {
                stored.push(self.commit_one(change, key, new, one, now)?);
            }
            counted = (change.evicted, change.expired);
            index.sweep_step(change)?;
            Ok(stored)
        })?;
        self.counts.evicted.add(counted.0);
        self.counts.expired.add(counted.1);
        let Some(stored) = stored else {
            return Ok(self.dropped(all.len()));
        };
        for ((_, _, one), stored) in all.iter_mut().zip(&stored) {
            match stored {
                Stored::Written(_) => {
                    index.marks.begin(&one.name);
                    if let Some((blob, _)) = &mut one.blob {
                        blob.keep();
                    }
                }
                Stored::Dropped => self.counts.dropped.add(1),
                Stored::Exists | Stored::Superseded => {}
            }
        }
        Ok(stored)
    }

    fn dropped(&self, count: usize) -> Vec<Stored> {
        self.counts.dropped.add(count as u64);
        vec![Stored::Dropped; count]
    }

    /// Everything that needs no transaction: the frame, and for a large one its reservation and its file. `None` where
    /// there is no room for it.
    fn prepare<'s, P: Payload + ?Sized>(
        &'s self,
        index: &'s Opened,
        key: &str,
        new: &New<'_>,
        parts: &Parts<'_, P>,
        now: u64,
    ) -> Result<Option<Prepared<'s>>> {
        let name = self.name_of(key)?;
        let size = (parts.prefix.len() + parts.payload.length()) as u64;
        let until = new.until.unwrap_or(NEVER);
        let entry = Entry {
            created: new.created.unwrap_or(now),
            deadline: new.deadline.unwrap_or(NEVER).min(until),
            until,
            size,
            fence: u64::from_le_bytes(random()?),
            namespace_stamp: 0,
            blob: None,
            checksum: 0,
            checked: 0,
        };
        if size <= INLINE_UP_TO as u64 {
            let mut inline = AlignedBuf::with_capacity(parts.prefix.len() + parts.payload.length())?;
            inline.extend_from_slice(parts.prefix)?;
            parts.payload.write_to(&mut inline)?;
            return Ok(Some(Prepared { name, entry, inline, blob: None }));
        }
        if size > self.options.max_bytes - self.options.max_bytes / 32 {
            let limit = usize::try_from(self.options.max_bytes).unwrap_or(usize::MAX);
            return Err(Error::TooLarge { place: "frame (max_bytes of the store)", bytes: size as usize, limit });
        }
        let Some(reservation) = self.reserve(index, size, now)? else { return Ok(None) };
        let full = self.options.verify == Verify::Full || parts.compressed || size < FULLY_CHECKED_BELOW as u64;
        let checked = if full { size } else { parts.prefix.len() as u64 };
        let blob = index.blobs.write(size, checked, index.is_durable(), |out| {
            out.write_all(parts.prefix).map_err(|source| Error::io("write", "frame", source))?;
            parts.payload.write_to(out)
        })?;
        let entry = Entry { blob: Some(blob.id), checksum: blob.checksum, checked: blob.checked, ..entry };
        Ok(Some(Prepared { name, entry, inline: AlignedBuf::default(), blob: Some((blob, reservation)) }))
    }

    /// Books room for a blob, evicting what must go, in as many transactions as that takes.
    fn reserve<'s>(&self, index: &'s Opened, size: u64, now: u64) -> Result<Option<Reservation<'s>>> {
        let reservation = Reservation::new(index);
        loop {
            let done = index.change(&self.options, |change| {
                let room = change.make_room(size, now)?;
                if room {
                    change.reserve(index.owner, reservation.count, size)?;
                }
                Ok((room, change.evicted, change.expired))
            })?;
            let Some((room, evicted, expired)) = done else { return Ok(None) };
            self.counts.evicted.add(evicted);
            self.counts.expired.add(expired);
            if room {
                return Ok(Some(reservation));
            }
            if evicted + expired == 0 {
                return Ok(None);
            }
        }
    }

    fn commit_one(
        &self,
        change: &mut Change<'_>,
        key: &str,
        new: &New<'_>,
        one: &mut Prepared<'_>,
        now: u64,
    ) -> Result<Stored, Stop> {
        if let Some((_, reservation)) = &one.blob {
            change.unreserve(change.index.owner, reservation.count)?;
        }
        if let Some(refused) = self.refusal(change, key, new, &one.name, now)? {
            return Ok(refused);
        }
        let row_size = (one.inline.as_slice().len() + key.len() + 512) as u64;
        if !change.make_room(row_size + one.entry.blob.map_or(0, |_| one.entry.size), now)? {
            return Ok(Stored::Dropped);
        }
        // Only now, since making room may have removed it.
        let old = change.entry(&one.name)?;
        let tags = self.stamps_of(change, new.tags)?;
        one.entry.namespace_stamp = self.namespace_stamp(&change.txn)?;
        if let Some((blob, _)) = &mut one.blob {
            blob.publish()?;
        }
        let row = NewRow {
            entry: one.entry,
            tags: &tags,
            namespace: self.options.namespace.as_bytes(),
            key: key.as_bytes(),
            inline: one.inline.as_slice(),
        };
        change.put(&one.name, &row, old.as_ref())?;
        if new.lease.is_some() {
            change.txn.delete(&RowKey::lease(&one.name))?;
        }
        Ok(Stored::Written(one.entry.size))
    }

    /// Why the write is not to happen, if so.
    fn refusal(
        &self,
        change: &Change<'_>,
        key: &str,
        new: &New<'_>,
        name: &[u8; 32],
        now: u64,
    ) -> Result<Option<Stored>, Stop> {
        if let Some(token) = new.lease {
            let held = change.txn.get(&RowKey::lease(name))?.and_then(super::row::LeaseRow::parse);
            if held.is_none_or(|lease| lease.token != token) {
                return Ok(Some(Stored::Superseded));
            }
        }
        if new.if_absent
            && let Some(row) = change.txn.get(&RowKey::entry(name))?.and_then(Row::parse)
            && self.reason_against(&row, &change.txn, key, now)?.is_none()
        {
            return Ok(Some(Stored::Exists));
        }
        Ok(None)
    }

    /// The tags with their stamps; a tag without one gets one.
    fn stamps_of(&self, change: &mut Change<'_>, tags: &[&str]) -> Result<Vec<TagStamp>, Stop> {
        let mut stamps = Vec::with_capacity(tags.len());
        for tag in tags {
            let tag = self.namespace.hash_of_tag(tag);
            let known = change.txn.get(&RowKey::tag(&tag))?.and_then(number_of);
            let stamp = match known {
                Some(stamp) => stamp,
                None => {
                    let stamp: [u8; 8] = random()?;
                    change.txn.put(&RowKey::tag(&tag), &stamp)?;
                    u64::from_le_bytes(stamp)
                }
            };
            stamps.push(TagStamp { tag, stamp });
        }
        Ok(stamps)
    }
}

enum Seen {
    Hit(Hit),
    Blob(Entry, super::row::BlobId),
    Miss(Miss),
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

    fn new(frame: FrameBuf, entry: &Entry) -> Self {
        let deadline = (entry.deadline != NEVER).then_some(entry.deadline);
        Self { frame, created: entry.created, deadline, fence: entry.fence }
    }
}

fn check_tags(tags: &[&str]) -> Result<()> {
    if tags.len() <= 1000 {
        return Ok(());
    }
    Err(Error::Argument { argument: "tags", expected: "at most 1000".into(), found: tags.len().to_string() })
}
