//! What is done to entries without reading or writing their values: deadlines, deletion, tags, leases, upkeep.

use super::blobs::{Found, Kind};
use super::change::{Change, Room};
use super::epochs;
use super::index::{Index, Opened, Stop};
use super::read::Asked;
use super::row::{Entry, LeaseRow, NEVER, NewRow, Row, RowKey};
use super::store::Store;
use super::write::check_guards;
use crate::error::{Error, Result};
use crate::random;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Writes between two steps of the search for left-over files.
const SWEEP_EVERY: u32 = 32;
/// How long a step takes at most.
const SWEEP_STEP: Duration = Duration::from_millis(1);
/// How long after the end of one search the next begins.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
/// Rows that one snapshot looks at.
const ROWS_AT_ONCE: usize = 1000;

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

/// What a write of a small row needs.
const A_ROW: Room = Room { index: 256, blob: 0 };

/// What [`Store::verify`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are what was written.
    pub whole: u64,
    /// Entries that are not; they are removed.
    pub damaged: u64,
    /// Files that no entry named; they are removed.
    pub orphans: u64,
}

impl Store {
    /// Moves the deadline of `key`'s entry, never beyond the last moment that was written with it; whether there was
    /// one to serve. `None` for as long as there is room.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`], [`Error::Argument`] for a key that is too long.
    pub fn touch(&self, key: &str, deadline: Option<u64>, now: u64) -> Result<bool> {
        let asked = self.asked(key, now)?;
        let name = &asked.name;
        self.must_change("touch", |change| {
            change.make_room(A_ROW, now)?;
            let Some(bytes) = change.txn.get(&RowKey::entry(name))?.map(<[u8]>::to_vec) else { return Ok(false) };
            let Some(row) = Row::parse(&bytes) else { return Ok(false) };
            if self.reason_against(change.index, &row, &change.txn, &asked)?.is_some() {
                return Ok(false);
            }
            let entry = Entry { deadline: deadline.unwrap_or(NEVER).min(row.until()), ..row.entry() };
            let tags: Vec<_> = row.tags().collect();
            let moved = NewRow { entry, tags: &tags, namespace: row.namespace, key: row.key, inline: row.inline };
            change.outdates(epochs::of_name(name));
            change.move_end(name, row.entry().end(), moved.entry.end())?;
            change.txn.put_with(&RowKey::entry(name), moved.length(), |room| moved.write(room))?;
            Ok(true)
        })
    }

    /// Removes the entry of `key`, and the lease on it: who computes it now will not store it. Whether there was an
    /// entry to serve. Views of it stay valid.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`], [`Error::Argument`] for a key that is too long.
    pub fn delete(&self, key: &str, now: u64) -> Result<bool> {
        Ok(self.delete_many(&[key], now)? > 0)
    }

    /// As [`Self::delete`] for several keys, in one transaction; how many entries there were.
    ///
    /// # Errors
    /// Those of [`Self::delete`].
    pub fn delete_many(&self, keys: &[&str], now: u64) -> Result<u64> {
        let all = keys.iter().map(|key| self.asked(key, now)).collect::<Result<Vec<_>>>()?;
        self.must_change("delete", |change| {
            let mut count = 0;
            for asked in &all {
                let name = &asked.name;
                // Even where there is no entry: who has a copy of one that was evicted is to drop it.
                change.outdates(epochs::of_name(name));
                change.txn.delete(&RowKey::lease(name))?;
                let row_key = RowKey::entry(name);
                let Some(bytes) = change.txn.get(&row_key)? else { continue };
                match Row::parse(bytes) {
                    Some(row) if row.key == asked.key.as_bytes() => {
                        count += u64::from(self.reason_against(change.index, &row, &change.txn, asked)?.is_none());
                        let entry = row.entry();
                        change.remove(name, &entry)?;
                    }
                    Some(_) => {}
                    None => drop(change.txn.delete(&row_key)?),
                }
            }
            self.index()?.sweep_step(change, now)?;
            Ok(count)
        })
    }

    /// Removes the entry of `key` if it is still the one that was read, and so all of `guards` hold that were
    /// [looked up](super::Terms::guards) with it; whether it was removed. A store that is only read keeps it.
    ///
    /// # Errors
    /// Those of [`Self::delete`], [`Error::Argument`] for what are no guards.
    pub fn delete_if(&self, key: &str, guards: &[u8], now: u64) -> Result<bool> {
        check_guards("guards", guards)?;
        let name = self.name_of(key)?;
        if self.options.read_only {
            return Ok(false);
        }
        self.must_change("delete", |change| {
            let entry = match change.entry(&name)? {
                Some(entry) if change.holds(guards) => entry,
                _ => return Ok(false),
            };
            change.outdates(epochs::of_name(&name));
            change.remove(&name, &entry)?;
            self.index()?.sweep_step(change, now)?;
            Ok(true)
        })
    }

    /// Makes all entries with one of `tags` misses, in this namespace. They are evicted in time.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`].
    pub fn invalidate_tags(&self, tags: &[&str], now: u64) -> Result<()> {
        self.must_change("invalidate tags", |change| {
            change.make_room(Room { index: (tags.len() as u64 + 1) * A_ROW.index, blob: 0 }, now)?;
            for tag in tags {
                let stamp: [u8; 8] = random::bytes()?;
                let tag = self.namespace.hash_of_tag(tag);
                change.outdates(epochs::of_tag(&tag));
                change.txn.put(&RowKey::tag(&tag), &stamp)?;
            }
            Ok(())
        })
    }

    /// Makes all entries of this namespace misses, at once. They are evicted in time.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`].
    pub fn clear(&self) -> Result<()> {
        self.must_change("clear", |change| {
            let stamp: [u8; 8] = random::bytes()?;
            change.outdates(epochs::of_namespace(self.namespace.hash()));
            Ok(change.txn.put(&RowKey::namespace(self.namespace.hash()), &stamp)?)
        })
    }

    /// The right to compute the value of `key` for `milliseconds`: a token for [`New::lease`](super::New), or `None`
    /// where somebody else has it who is alive and in time.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`], [`Error::Argument`] for a key that is too long.
    pub fn lease(&self, key: &str, milliseconds: u64, now: u64) -> Result<Option<u64>> {
        let name = self.name_of(key)?;
        self.must_change("lease", |change| {
            let held = change.txn.get(&RowKey::lease(&name))?.and_then(LeaseRow::parse);
            if held.is_some_and(|lease| lease.expires >= now && lease.owner.is_alive()) {
                return Ok(None);
            }
            change.make_room(A_ROW, now)?;
            let token = u64::from_le_bytes(random::bytes()?);
            let lease = LeaseRow { owner: change.index.owner, expires: now.saturating_add(milliseconds), token };
            change.txn.put(&RowKey::lease(&name), &lease.to_bytes())?;
            Ok(Some(token))
        })
    }

    /// Gives a lease back; whether it was still held.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`], [`Error::Argument`] for a key that is too long.
    pub fn release(&self, key: &str, token: u64) -> Result<bool> {
        let name = self.name_of(key)?;
        self.must_change("release", |change| {
            let held = change.txn.get(&RowKey::lease(&name))?.and_then(LeaseRow::parse);
            match held.filter(|lease| lease.token == token) {
                Some(_) => Ok(change.txn.delete(&RowKey::lease(&name))?),
                None => Ok(false),
            }
        })
    }

    /// The keys of this namespace that begin with `prefix` and can be served, in no order: of up to 1000 entries, and
    /// where to go on, `None` at the end. `from` is where to begin, `None` at first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keys(&self, prefix: &str, from: Option<[u8; 32]>, now: u64) -> Result<(Vec<String>, Option<[u8; 32]>)> {
        let index = self.index()?;
        let reading = index.read()?;
        let (mut keys, mut last, mut looked, mut failed) = (Vec::new(), None, 0, None);
        let walked = reading.walk(&RowKey::entry(&from.unwrap_or_default()), |row_key, bytes| {
            let Some(name) = super::row::name_in(row_key) else {
                last = None;
                return false;
            };
            match self.served_key(index, name, bytes, prefix, &reading, now) {
                Ok(key) => keys.extend(key),
                Err(fault) => failed = Some(fault),
            }
            last = Some(*name);
            looked += 1;
            looked < ROWS_AT_ONCE && failed.is_none()
        });
        match walked.err().or(failed) {
            Some(fault) => Err(index.fault("read", fault)),
            None => Ok((keys, last.filter(|_| looked >= ROWS_AT_ONCE).as_ref().and_then(next_name))),
        }
    }

    fn served_key(
        &self,
        index: &Index,
        name: &[u8; 32],
        bytes: &[u8],
        prefix: &str,
        view: &super::lmdb::View,
        now: u64,
    ) -> Result<Option<String>, super::lmdb::Fault> {
        let row = Row::parse(bytes).filter(|row| row.key.starts_with(prefix.as_bytes()));
        let Some((row, key)) = row.and_then(|row| Some((row, str::from_utf8(row.key).ok()?))) else { return Ok(None) };
        Ok(self
            .reason_against(index, &row, view, &Asked { key, name: *name, now, stale: false })?
            .is_none()
            .then(|| key.to_owned()))
    }

    /// Sizes and counts.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stats(&self) -> Result<Stats> {
        let index = self.index()?;
        let reading = index.read()?;
        let failed = |fault| index.fault("read", fault);
        let totals = reading.get(&RowKey::totals()).map_err(failed)?.and_then(super::row::Totals::parse);
        let totals = totals.unwrap_or_default();
        let mut pinned = 0;
        for (id, size) in index.blobs.mapped() {
            let linked = reading.get(&RowKey::blob(&id)).map_err(failed)?.is_some();
            pinned += if linked { 0 } else { size };
        }
        Ok(Stats {
            index_bytes: reading.usage().map_err(failed)?.0,
            blob_bytes: totals.linked,
            reserved_bytes: totals.reserved,
            pinned_bytes: pinned,
            blobs: totals.blobs,
            max_bytes: self.options.max_bytes,
            dropped: self.counts.dropped.get(),
            evicted: self.counts.evicted.get(),
            expired: self.counts.expired.get(),
            damaged: self.counts.damaged.get(),
        })
    }

    /// Checks every entry of the store, of all namespaces, removes those that are damaged, the files that no entry names,
    /// and what dead writers reserved. Others may read and write meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Busy`].
    pub fn verify(&self) -> Result<Verified> {
        let index = self.index()?;
        let mut verified = Verified::default();
        let mut from = [0; 32];
        loop {
            let names = entries_from(index, &from)?;
            for name in &names {
                match self.check_entry(index, name)? {
                    true => verified.whole += 1,
                    false => verified.damaged += 1,
                }
            }
            match names.last().and_then(next_name) {
                Some(next) if names.len() == ROWS_AT_ONCE => from = next,
                _ => break,
            }
        }
        if !self.options.read_only {
            self.must_change("verify", |change| change.clear_reservations())?;
            for name in index.blobs.names()? {
                let removed = self.must_change("verify", |change| change.remove_left_over(&name))?;
                verified.orphans += u64::from(removed);
            }
        }
        Ok(verified)
    }

    /// Whether the entry is whole; a damaged one is removed if it is still the one that was looked at.
    fn check_entry(&self, index: &Opened, name: &[u8; 32]) -> Result<bool> {
        let failed = |fault| index.fault("read", fault);
        let entry = {
            let reading = index.read()?;
            let Some(bytes) = reading.get(&RowKey::entry(name)).map_err(failed)? else { return Ok(true) };
            Row::parse(bytes).map(|row| row.entry())
        };
        let whole = match entry.and_then(|entry| Some((entry, entry.blob?))) {
            Some((entry, id)) => matches!(index.blobs.open(&id, &entry)?, Found::Frame(_)),
            None => entry.is_some(),
        };
        if whole || self.options.read_only {
            return Ok(whole);
        }
        self.must_change("verify", |change| Ok(!change.remove_damaged(name, entry.as_ref())?))
    }

    fn must_change<T>(
        &self,
        operation: &'static str,
        work: impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
    ) -> Result<T> {
        let index = self.index()?;
        index.must_change(&self.options, work)?.ok_or_else(|| Error::Busy {
            path: index.path().to_owned(),
            operation,
            waited: self.options.writer_timeout,
        })
    }
}

/// The name after `name`, in their order.
fn next_name(name: &[u8; 32]) -> Option<[u8; 32]> {
    let mut next = *name;
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// Names of up to [`ROWS_AT_ONCE`] entries, from one on.
fn entries_from(index: &Index, from: &[u8; 32]) -> Result<Vec<[u8; 32]>> {
    let mut names = Vec::new();
    let walked = index.read()?.walk(&RowKey::entry(from), |key, _| match super::row::name_in(key) {
        Some(name) => {
            names.push(*name);
            names.len() < ROWS_AT_ONCE
        }
        None => false,
    });
    walked.map_err(|fault| index.fault("read", fault))?;
    Ok(names)
}

impl Index {
    /// A step of the search for files that no entry names: those of killed writers, and those whose removal failed. Called
    /// by writes, in whose transaction nobody else can publish.
    pub(super) fn sweep_step(&self, change: &mut Change<'_>, now: u64) -> Result<(), Stop> {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        sweep.waited += 1;
        let pausing = sweep.ended.is_some_and(|ended| ended.elapsed() < SWEEP_PAUSE);
        if pausing || sweep.names.is_none() && sweep.waited > 1 && sweep.waited < SWEEP_EVERY {
            return Ok(());
        }
        sweep.waited = 1;
        let started = Instant::now();
        let mut names = match sweep.names.take() {
            Some(names) => names,
            None => self.blobs.names()?,
        };
        while let Some(name) = names.next() {
            change.remove_left_over(&name)?;
            if started.elapsed() >= SWEEP_STEP {
                sweep.names = Some(names);
                return Ok(());
            }
        }
        sweep.ended = Some(Instant::now());
        change.clear_reservations()?;
        change.clear_leases(now, false)
    }
}

impl Change<'_> {
    /// Removes the file `name` if nobody will ever need it; whether it was removed.
    fn remove_left_over(&mut self, name: &str) -> Result<bool, Stop> {
        match Kind::of(name) {
            Kind::Blob(id) if !self.is_linked(&id)? => self.forget_blob(&id)?,
            Kind::Temporary(owner) if owner != self.index.owner && !owner.is_alive() => {
                self.index.blobs.remove(name)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
