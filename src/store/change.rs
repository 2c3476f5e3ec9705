//! What one write transaction does: rows put and removed together with what hangs on them (ends, blobs, sums), and
//! room made for it.

use super::blobs::Unlinked;
use super::epochs;
use super::index::{Index, Stop};
use super::lmdb::Writing;
use super::options::Options;
use super::process::Owner;
use super::row::{
    BLOB_ROW, BlobId, Entry, LeaseRow, NEVER, NewRow, Row, RowKey, Totals, end_in, kind, name_in, number_of, tag_in,
    tag_name,
};
use super::stamp::IndexMode;
use crate::epoch::Guard;
use crate::error::Result;
use std::sync::PoisonError;

/// Expired entries that every write removes, if there are any.
const EXPIRED_AT_ONCE: usize = 8;
/// Rows that the hand passes between two looks at what is used.
const PASSED_AT_ONCE: usize = 256;
/// Looks at what is used that one transaction takes at most.
const MOST_ROUNDS: usize = 16;
/// Rounds in which what was read lately is spared.
const ROUNDS_OF_MERCY: usize = 8;
/// Tags that their hand passes in one transaction.
const TAGS_AT_ONCE: usize = 64;
/// Leases that one transaction looks at.
const LEASES_AT_ONCE: usize = 1000;
/// What an inline entry costs beside its row: its key, its end's row, LMDB's own.
const OVERHEAD: u64 = 128;

/// Bytes that a write needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) index: u64,
    pub(super) blob: u64,
}

pub(super) struct Change<'i> {
    pub(super) txn: Writing<'i>,
    pub(super) index: &'i Index,
    /// Bytes of index and blobs together.
    limit: u64,
    /// Bytes of the index.
    index_limit: u64,
    totals: Totals,
    totals_before: Totals,
    /// Whether a blob was given its name.
    published: bool,
    /// Blobs whose files go when this is committed, and their sizes.
    unlink: Vec<(BlobId, u64)>,
    /// What copies are guarded by that this changes.
    epochs: Vec<u64>,
    pub(super) expired: u64,
    pub(super) evicted: u64,
}

impl<'i> Change<'i> {
    pub(super) fn begin(index: &'i Index, options: &Options) -> Result<Self, Stop> {
        let txn = index.env.write()?;
        let totals = txn.get(&RowKey::totals())?.and_then(Totals::parse).unwrap_or_default();
        let index_limit = match index.stamp.index {
            IndexMode::Pwrite => u64::MAX,
            // Copies of changed pages need room in the file too.
            IndexMode::WriteMap => index.stamp.map_size / 2,
        };
        Ok(Self {
            txn,
            index,
            limit: options.max_bytes,
            index_limit,
            totals,
            totals_before: totals,
            published: false,
            unlink: Vec::new(),
            epochs: Vec::new(),
            expired: 0,
            evicted: 0,
        })
    }

    /// Makes it visible, then removes the files that nothing names any more. Large ones are returned: they go when they
    /// are closed.
    pub(super) fn commit(mut self) -> Result<Unlinked, Stop> {
        let unneeded = self.index.unneeded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for count in &unneeded {
            self.unreserve(self.index.owner, *count)?;
        }
        if self.totals != self.totals_before {
            let row = self.totals.to_bytes();
            self.txn.put(&RowKey::totals(), &row)?;
        }
        let Self { txn, index, unlink, epochs, published, .. } = self;
        if published && index.is_durable() {
            index.blobs.sync()?;
        }
        let changing = index.epochs.change(&epochs);
        let committed = txn.commit();
        drop(changing);
        committed?;
        if !unneeded.is_empty() {
            // Only who holds the right to write takes from it.
            index.unneeded.lock().unwrap_or_else(PoisonError::into_inner).drain(..unneeded.len());
        }
        Ok(unlink.iter().filter_map(|(id, size)| index.blobs.unlink(id, *size)).collect())
    }

    /// The entry under `name`; none where its row is damaged.
    pub(super) fn entry(&self, name: &[u8; 32]) -> Result<Option<Entry>, Stop> {
        Ok(self.txn.get(&RowKey::entry(name))?.and_then(Row::parse).map(|row| row.entry()))
    }

    /// Whether all of these guards hold; nobody else changes anything until this is committed.
    pub(super) fn holds(&self, guards: &[u8]) -> bool {
        guards.as_chunks().0.iter().all(|guard| self.index.epochs.holds(Guard::from_bytes(*guard)))
    }

    /// Copies with guards of this counter are not to be served any more once this is committed.
    pub(super) fn outdates(&mut self, epoch: u64) {
        self.epochs.push(epoch);
    }

    /// Puts an entry's row; `old` is the entry that was there.
    pub(super) fn put(&mut self, name: &[u8; 32], row: &NewRow<'_>, old: Option<&Entry>) -> Result<(), Stop> {
        if let Some(old) = old {
            self.release_blob(old)?;
        }
        self.outdates(epochs::of_name(name));
        self.move_end(name, old.map_or(NEVER, Entry::end), row.entry.end())?;
        if let Some(id) = &row.entry.blob {
            let mut blob = [0; BLOB_ROW];
            blob[..32].copy_from_slice(name);
            blob[32..].copy_from_slice(&row.entry.size.to_le_bytes());
            self.txn.put(&RowKey::blob(id), &blob)?;
            self.published = true;
            self.totals.linked += row.entry.size;
            self.totals.blobs += 1;
        }
        Ok(self.txn.put_with(&RowKey::entry(name), row.length(), |room| row.write(room))?)
    }

    /// Keeps the row of an entry's end in step; [`NEVER`] has none.
    pub(super) fn move_end(&mut self, name: &[u8; 32], old: u64, new: u64) -> Result<(), Stop> {
        if old == new {
            return Ok(());
        }
        if old != NEVER {
            self.txn.delete(&RowKey::end(old, name))?;
        }
        if new != NEVER {
            self.txn.put(&RowKey::end(new, name), &[])?;
        }
        Ok(())
    }

    /// Removes an entry and all that hangs on it. Copies of it are served on, unless it is [outdated](Self::outdates).
    pub(super) fn remove(&mut self, name: &[u8; 32], entry: &Entry) -> Result<(), Stop> {
        self.release_blob(entry)?;
        self.move_end(name, entry.end(), NEVER)?;
        self.txn.delete(&RowKey::entry(name))?;
        Ok(())
    }

    /// Removes a damaged entry, if it is still the one that was `seen`, or one whose row is damaged; whether it was removed.
    pub(super) fn remove_damaged(&mut self, name: &[u8; 32], seen: Option<&Entry>) -> Result<bool, Stop> {
        match (self.entry(name)?, seen) {
            (Some(entry), Some(seen)) if entry.fence == seen.fence => self.remove(name, &entry)?,
            (None, None) if self.txn.delete(&RowKey::entry(name))? => {}
            // It was replaced, or removed, meanwhile.
            _ => return Ok(false),
        }
        self.outdates(epochs::of_name(name));
        Ok(true)
    }

    fn release_blob(&mut self, entry: &Entry) -> Result<(), Stop> {
        let Some(id) = entry.blob else { return Ok(()) };
        if self.txn.delete(&RowKey::blob(&id))? {
            self.totals.linked = self.totals.linked.saturating_sub(entry.size);
            self.totals.blobs = self.totals.blobs.saturating_sub(1);
        }
        self.unlink.push((id, entry.size));
        Ok(())
    }

    /// Books `size` bytes for a blob that is about to be written.
    pub(super) fn reserve(&mut self, owner: Owner, count: u64, size: u64) -> Result<(), Stop> {
        self.txn.put(&RowKey::reservation(owner, count), &size.to_le_bytes())?;
        self.totals.reserved += size;
        Ok(())
    }

    /// Gives a reservation back.
    pub(super) fn unreserve(&mut self, owner: Owner, count: u64) -> Result<(), Stop> {
        let key = RowKey::reservation(owner, count);
        let size = self.txn.get(&key)?.and_then(number_of).unwrap_or(0);
        if self.txn.delete(&key)? {
            self.totals.reserved = self.totals.reserved.saturating_sub(size);
        }
        Ok(())
    }

    /// Gives back what processes reserved that are gone.
    pub(super) fn clear_reservations(&mut self) -> Result<(), Stop> {
        if self.totals.reserved == 0 {
            return Ok(());
        }
        let mut dead = Vec::new();
        self.txn.walk(&[kind::RESERVATION], |key, _| {
            let Some(owner) = key.strip_prefix(&[kind::RESERVATION]).and_then(|key| key.split_first_chunk()) else {
                return false;
            };
            if let (owner, Ok(count)) = (Owner::from_bytes(owner.0), owner.1.try_into())
                && !owner.is_alive()
            {
                dead.push((owner, u64::from_be_bytes(count)));
            }
            true
        })?;
        for (owner, count) in dead {
            self.unreserve(owner, count)?;
        }
        Ok(())
    }

    /// By how much the store would exceed `part` of each of its limits with what comes. Pages of the index that hold rows,
    /// linked blobs and reservations count.
    fn excess(&self, incoming: Room, part: impl Fn(u64) -> u64) -> Result<u64, Stop> {
        let index = self.txn.usage()?.0 + incoming.index;
        let all = index + self.totals.linked + self.totals.reserved + incoming.blob;
        Ok(all.saturating_sub(part(self.limit)).max(index.saturating_sub(part(self.index_limit))))
    }

    /// Makes room for what comes: expired entries go first, then those that the hand of the CLOCK finds unread. Whether
    /// there is room now; false asks for another transaction, after which others may write first.
    ///
    /// In the last thirty-second of the room, a set evicts a little more than it brings: pages empty slowly, as what is
    /// evicted lies scattered over them.
    pub(super) fn make_room(&mut self, incoming: Room, now: u64) -> Result<bool, Stop> {
        self.expire(now, EXPIRED_AT_ONCE)?;
        let soft = self.excess(incoming, |limit| limit - limit / 32)?;
        if soft == 0 {
            return Ok(true);
        }
        self.clear_reservations()?;
        self.clear_leases(now, false)?;
        self.pass_tags(false)?;
        let mut debt = soft.min((incoming.index + incoming.blob).saturating_mul(2).saturating_add(4096));
        for round in 0..MOST_ROUNDS {
            let expired = self.expire(now, PASSED_AT_ONCE)?;
            // After a few rounds, everything else is in use: the next is as good as any.
            let any = round >= ROUNDS_OF_MERCY;
            if any {
                self.pass_tags(true)?;
                self.clear_leases(now, true)?;
            }
            if expired < debt {
                self.pass(debt - expired, any)?;
            }
            debt = self.excess(incoming, |limit| limit)?;
            if debt == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes leases that are over, or `any`: up to [`LEASES_AT_ONCE`] are looked at. Who loses one computes in vain.
    pub(super) fn clear_leases(&mut self, now: u64, any: bool) -> Result<(), Stop> {
        let (mut over, mut looked) = (Vec::new(), 0);
        self.txn.walk(&[kind::LEASE], |key, row| {
            looked += 1;
            let is_lease = key.first() == Some(&kind::LEASE);
            if is_lease && (any || LeaseRow::parse(row).is_none_or(|lease| lease.expires < now)) {
                over.push(key.to_vec());
            }
            is_lease && looked < LEASES_AT_ONCE
        })?;
        for key in over {
            self.txn.delete(&key)?;
        }
        Ok(())
    }

    /// Evicts entries of so many bytes, whatever they are, for an index that has no page left.
    pub(super) fn evict(&mut self, bytes: u64) -> Result<(), Stop> {
        self.pass(bytes, true)
    }

    /// Removes up to `most` expired entries; returns the bytes that they took.
    fn expire(&mut self, now: u64, most: usize) -> Result<u64, Stop> {
        let mut found = Vec::new();
        self.txn.walk(&[kind::END], |key, _| match end_in(key) {
            Some((end, name)) if end < now && found.len() < most => {
                found.push((end, *name));
                true
            }
            _ => false,
        })?;
        let mut freed = 0;
        for (end, name) in found {
            match self.entry(&name)? {
                Some(entry) if entry.end() == end => {
                    self.remove(&name, &entry)?;
                    self.expired += 1;
                    freed += entry.size + OVERHEAD;
                }
                // A row that something else than this code left.
                _ => drop(self.txn.delete(&RowKey::end(end, &name))?),
            }
        }
        Ok(freed)
    }

    /// Moves the hand of the tags on: those that nothing with them was read by lately go, and with them what still has
    /// them; all that it passes if `any`.
    fn pass_tags(&mut self, any: bool) -> Result<(), Stop> {
        let marks = &self.index.marks;
        let (mut found, mut last, mut passed) = (Vec::new(), None, 0);
        self.txn.walk(&RowKey::tag(&marks.tag_hand()), |key, _| {
            last = tag_in(key);
            let Some(tag) = last else { return false };
            if marks.pass(&tag_name(&tag)) || any {
                found.push(tag);
            }
            passed += 1;
            passed < TAGS_AT_ONCE
        })?;
        marks.move_tag_hand(last.as_ref());
        for tag in found {
            self.txn.delete(&RowKey::tag(&tag))?;
        }
        Ok(())
    }

    /// Moves the hand until it has evicted `debt` bytes or passed [`PASSED_AT_ONCE`] rows; all that it passes if `any`.
    fn pass(&mut self, debt: u64, any: bool) -> Result<(), Stop> {
        let mut found = Vec::new();
        let (mut freed, mut passed) = (0, 0);
        let marks = &self.index.marks;
        for start in [marks.hand(), [0; 32]] {
            let mut last = None;
            self.txn.walk(&RowKey::entry(&start), |key, row| {
                let Some(name) = name_in(key) else {
                    last = None;
                    return false;
                };
                last = Some(*name);
                passed += 1;
                if marks.pass(name) || any {
                    freed += size_of_row(row);
                    found.push(*name);
                }
                freed < debt && passed < PASSED_AT_ONCE
            })?;
            match last {
                Some(name) => marks.move_hand(&name),
                None => marks.move_hand(&[0xff; 32]),
            }
            if freed >= debt || passed >= PASSED_AT_ONCE {
                break;
            }
        }
        found.sort_unstable();
        found.dedup();
        for name in found {
            match self.entry(&name)? {
                Some(entry) => self.remove(&name, &entry)?,
                None => drop(self.txn.delete(&RowKey::entry(&name))?),
            }
            self.evicted += 1;
        }
        Ok(())
    }

    /// Whether a blob's file is linked by the entry that its row names, or was until this transaction, which may fail.
    pub(super) fn is_linked(&self, id: &BlobId) -> Result<bool, Stop> {
        if self.unlink.iter().any(|(unlinked, _)| unlinked == id) {
            return Ok(true);
        }
        let Some(row) = self.txn.get(&RowKey::blob(id))? else { return Ok(false) };
        let Some((name, _)) = row.split_first_chunk::<32>() else { return Ok(false) };
        Ok(self.entry(name)?.is_some_and(|entry| entry.blob == Some(*id)))
    }

    /// Removes the row of a blob that [`Self::is_linked`] found not to be, and after the commit its file.
    pub(super) fn forget_blob(&mut self, id: &BlobId) -> Result<(), Stop> {
        let size = self.txn.get(&RowKey::blob(id))?.and_then(|row| number_of(row.get(32..)?));
        let size = size.unwrap_or(0);
        if self.txn.delete(&RowKey::blob(id))? {
            self.totals.linked = self.totals.linked.saturating_sub(size);
            self.totals.blobs = self.totals.blobs.saturating_sub(1);
        }
        self.unlink.push((*id, size));
        Ok(())
    }
}

/// What evicting an entry frees, about.
fn size_of_row(row: &[u8]) -> u64 {
    let blob = Row::parse(row).and_then(|row| row.blob().map(|_| row.size()));
    row.len() as u64 + OVERHEAD + blob.unwrap_or(0)
}
