//! Writing: the frame, the file of a large one, then one transaction that makes it visible.

use super::blobs::Temporary;
use super::change::{Change, Room};
use super::epochs;
use super::index::{Opened, Reservation, Stop};
use super::options::Verify;
use super::read::Asked;
use super::row::{Entry, LeaseRow, NEVER, NewRow, Row, RowKey, TagStamp, number_of};
use super::store::Store;
use super::{FULLY_CHECKED_BELOW, INLINE_UP_TO};
use crate::buffer::{ALIGN, AlignedBuf};
use crate::epoch::Guard;
use crate::error::{Error, Result};
use crate::frame::{self, Header, Payload};
use crate::random;

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
    /// What [`Store::fence`] returned before it was computed: where one of these guards does not hold any more, it is not
    /// written.
    pub fence: Option<&'n [u8]>,
    /// Other keys whose entries this one takes the place of: they are removed as it is written, and count for `if_absent`
    /// as its own does.
    pub replaces: &'n [&'n str],
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, in a frame of so many bytes.
    Written(u64),
    /// There was an entry, and `if_absent` was asked for.
    Exists,
    /// The lease was lost: the key was deleted, or somebody else computes it. Or the fence fell: the entry was written,
    /// touched or deleted since, or a tag or the namespace was invalidated.
    Superseded,
    /// It is not stored: another process writes for too long, or there is no room. What was there before stays.
    Dropped,
}

/// A frame to be written, in two parts.
struct Parts<'p, P: ?Sized> {
    prefix: &'p [u8],
    payload: &'p P,
    compressed: bool,
    /// Whether the prefix was written here.
    own: bool,
}

/// A write that is ready for its transaction.
struct Prepared<'s> {
    name: [u8; 32],
    entry: Entry,
    /// A frame that goes into the index.
    inline: AlignedBuf,
    blob: Option<(Temporary<'s>, Reservation<'s>)>,
    /// Names of the entries that it takes the place of.
    replaces: Vec<[u8; 32]>,
}

impl Store {
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
        let written = self.put_frames(&[(key, new, frame)], now)?;
        Ok(written.first().copied().unwrap_or(Stored::Dropped))
    }

    /// As [`Self::put_frame`] for several frames, in one transaction: readers see all of them or none.
    ///
    /// # Errors
    /// Those of [`Self::put`]; nothing is stored then.
    pub fn put_frames(&self, frames: &[(&str, New<'_>, &[u8])], now: u64) -> Result<Vec<Stored>> {
        let index = self.index()?;
        let mut all = Vec::with_capacity(frames.len());
        for (key, new, frame) in frames {
            check(new)?;
            let header = frame::locate_header(frame).map_or(frame.len(), |header| header.end);
            let parts = Parts { prefix: &frame[..header], payload: &frame[header..], compressed: false, own: false };
            match self.prepare(index, key, new, &parts, now)? {
                Some(one) => all.push((*key, new, one)),
                None => return Ok(self.dropped(frames.len())),
            }
        }
        self.commit(index, &mut all, now)
    }

    /// Stores several entries in one transaction: readers see all of them or none.
    ///
    /// # Errors
    /// Those of [`Self::put`]; nothing is stored then.
    pub fn put_many<P: Payload + ?Sized>(&self, news: &mut [(&str, New<'_>, &P)], now: u64) -> Result<Vec<Stored>> {
        let index = self.index()?;
        let mut prepared = Vec::with_capacity(news.len());
        for (key, new, payload) in &mut *news {
            check(new)?;
            let header = std::mem::take(&mut new.header);
            (new.created, new.until) = (new.created.or(header.created), new.until.or(header.until));
            let (header, payload) = frame::pack(header, *payload, self.options.compression, self.options.max_value)?;
            let compressed = header.compression.is_some();
            let header = Header { key: Some((*key).to_owned()), ..header.with_length(payload.length()) };
            let prefix = frame::prefix(&header.to_json(), ALIGN, 0)?;
            let parts = Parts { prefix: &prefix, payload: &payload, compressed, own: true };
            match self.prepare(index, key, new, &parts, now)? {
                Some(one) => prepared.push(one),
                None => return Ok(self.dropped(news.len())),
            }
        }
        let mut all: Vec<_> = news.iter().zip(prepared).map(|((key, new, _), one)| (*key, new, one)).collect();
        self.commit(index, &mut all, now)
    }

    /// Links a blob that was written front to back.
    pub(super) fn commit_blob<'s>(
        &'s self,
        key: &str,
        new: &New<'_>,
        entry: Entry,
        blob: (Temporary<'s>, Reservation<'s>),
        now: u64,
    ) -> Result<Stored> {
        let replaces = new.replaces.iter().map(|key| self.name_of(key)).collect::<Result<Vec<_>>>()?;
        let (name, inline) = (self.name_of(key)?, AlignedBuf::default());
        let one = Prepared { name, entry, inline, blob: Some(blob), replaces };
        let stored = self.commit(self.index()?, &mut [(key, new, one)], now)?;
        Ok(stored.first().copied().unwrap_or(Stored::Dropped))
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
            index.sweep_step(change, now)?;
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
        let replaces = new.replaces.iter().map(|key| self.name_of(key)).collect::<Result<Vec<_>>>()?;
        let size = (parts.prefix.len() + parts.payload.length()) as u64;
        let until = new.until.unwrap_or(NEVER);
        let entry = Entry {
            created: new.created.unwrap_or(now),
            deadline: new.deadline.unwrap_or(NEVER).min(until),
            until,
            size,
            fence: u64::from_le_bytes(random::bytes()?),
            namespace_stamp: 0,
            blob: None,
            checksum: 0,
            checked: 0,
            own_header: parts.own,
        };
        if size <= INLINE_UP_TO as u64 {
            let mut inline = AlignedBuf::with_capacity(parts.prefix.len() + parts.payload.length())?;
            inline.extend_from_slice(parts.prefix)?;
            parts.payload.write_to(&mut inline)?;
            if inline.len() as u64 != size {
                let found = format!("{} bytes were written instead of {size}", inline.len());
                return Err(Error::io("write", "frame", std::io::Error::other(found)));
            }
            return Ok(Some(Prepared { name, entry, inline, blob: None, replaces }));
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
        Ok(Some(Prepared { name, entry, inline: AlignedBuf::default(), blob: Some((blob, reservation)), replaces }))
    }

    /// Books room for a blob, evicting what must go, in as many transactions as that takes.
    fn reserve<'s>(&self, index: &'s Opened, size: u64, now: u64) -> Result<Option<Reservation<'s>>> {
        let reservation = Reservation::new(index);
        loop {
            let done = index.change(&self.options, |change| {
                let room = change.make_room(Room { index: 0, blob: size }, now)?;
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
        let asked = Asked { key, name: one.name, now, stale: false };
        if let Some(refused) = self.refusal(change, new, &asked, &one.replaces)? {
            return Ok(refused);
        }
        let room = Room {
            index: (one.inline.as_slice().len() + key.len() + 512 + new.tags.len() * 128) as u64,
            blob: one.entry.blob.map_or(0, |_| one.entry.size),
        };
        if !change.make_room(room, now)? {
            return Ok(Stored::Dropped);
        }
        // Only now, since making room may have removed it.
        let old = change.entry(&one.name)?;
        let tags = self.stamps_of(change, new.tags)?;
        one.entry.namespace_stamp = self.namespace_stamp(change.index, &change.txn)?;
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
        for name in one.replaces.iter().filter(|name| **name != one.name) {
            self.replace(change, name)?;
        }
        if new.lease.is_some() {
            change.txn.delete(&RowKey::lease(&one.name))?;
        }
        Ok(Stored::Written(one.entry.size))
    }

    /// Why the write is not to happen, if so.
    fn refusal(
        &self,
        change: &Change<'_>,
        new: &New<'_>,
        asked: &Asked<'_>,
        replaces: &[[u8; 32]],
    ) -> Result<Option<Stored>, Stop> {
        if new.fence.is_some_and(|fence| !change.holds(fence)) {
            return Ok(Some(Stored::Superseded));
        }
        if let Some(token) = new.lease {
            let held = change.txn.get(&RowKey::lease(&asked.name))?.and_then(LeaseRow::parse);
            if held.is_none_or(|lease| lease.token != token) {
                return Ok(Some(Stored::Superseded));
            }
        }
        if !new.if_absent {
            return Ok(None);
        }
        let others = new.replaces.iter().zip(replaces).map(|(key, name)| Asked { key, name: *name, ..*asked });
        for asked in others.chain([*asked]) {
            if let Some(row) = change.txn.get(&RowKey::entry(&asked.name))?.and_then(Row::parse)
                && self.reason_against(change.index, &row, &change.txn, &asked)?.is_none()
            {
                return Ok(Some(Stored::Exists));
            }
        }
        Ok(None)
    }

    /// Removes an entry whose place another one has taken, and the lease on it.
    fn replace(&self, change: &mut Change<'_>, name: &[u8; 32]) -> Result<(), Stop> {
        change.outdates(epochs::of_name(name));
        change.txn.delete(&RowKey::lease(name))?;
        match change.entry(name)? {
            Some(entry) => change.remove(name, &entry),
            None => change.txn.delete(&RowKey::entry(name)).map(drop).map_err(Stop::from),
        }
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
                    let stamp: [u8; 8] = random::bytes()?;
                    change.txn.put(&RowKey::tag(&tag), &stamp)?;
                    u64::from_le_bytes(stamp)
                }
            };
            stamps.push(TagStamp { tag, stamp });
        }
        Ok(stamps)
    }
}

pub(super) fn check(new: &New<'_>) -> Result<()> {
    if new.tags.len() > 1000 {
        let found = new.tags.len().to_string();
        return Err(Error::Argument { argument: "tags", expected: "at most 1000".into(), found });
    }
    check_guards("fence", new.fence.unwrap_or_default())
}

/// Fails for what are no guards.
pub(super) fn check_guards(argument: &'static str, guards: &[u8]) -> Result<()> {
    if guards.len().is_multiple_of(Guard::LENGTH) {
        return Ok(());
    }
    let found = format!("{} bytes", guards.len());
    Err(Error::Argument {
        argument,
        expected: "the guards that fence() or look() returned, of 6 bytes each".into(),
        found,
    })
}
