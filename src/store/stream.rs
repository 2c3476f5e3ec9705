//! Entries whose length is not known when their first byte is written.

use super::blobs::Fresh;
use super::change::Room;
use super::index::Reservation;
use super::options::Verify;
use super::row::{Entry, NEVER};
use super::store::Store;
use super::write::{New, Stored, check};
use crate::error::{Error, Result};
use crate::fork;
use crate::random;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// Room is booked in steps of a 64th of the store's, of these sizes: 256 KiB to 64 MiB.
const STEPS: (u64, u64) = (256 << 10, 64 << 20);

/// An entry that is written front to back, into a file that nobody sees before [`Self::commit`].
///
/// Room for it is booked as it grows, and what must go for that is evicted. Dropped without a commit, it leaves nothing
/// behind; if its process is killed, the next ones remove the file and give the room back. The first write is taken for
/// the frame's header: it is what readers check.
pub struct EntryWriter {
    store: Arc<Store>,
    file: File,
    fresh: Fresh,
    /// The number of its reservation, and how many bytes that is for.
    reservation: u64,
    reserved: u64,
    written: u64,
    /// How many of the first bytes readers check; those of the first write, or all.
    checked: u64,
    hash: Xxh3,
    generation: u64,
    linked: bool,
    now: u64,
}

impl EntryWriter {
    /// Begins an entry of `store`; `now` is in milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(store: Arc<Store>, now: u64) -> Result<Self> {
        let (file, fresh, reservation) = {
            let index = store.index()?;
            let (file, fresh) = index.blobs.begin()?;
            let reservation = Reservation::new(index);
            let count = reservation.count;
            // Given back by `drop`, or by the commit.
            std::mem::forget(reservation);
            (file, fresh, count)
        };
        Ok(Self {
            store,
            file,
            fresh,
            reservation,
            reserved: 0,
            written: 0,
            checked: 0,
            hash: Xxh3::new(),
            generation: fork::generation(),
            linked: false,
            now,
        })
    }

    /// Makes it the entry of `key`, replacing the one that was there: readers see the old one or this one. `new.header`
    /// is not looked at.
    ///
    /// # Errors
    /// Those of [`Store::put`]; what was stored before then stays.
    pub fn commit(mut self, key: &str, new: &New<'_>) -> Result<Stored> {
        check(new)?;
        self.same_process()?;
        let store = Arc::clone(&self.store);
        let index = store.index()?;
        // What was allocated ahead and not needed.
        self.file.set_len(self.written).map_err(|error| self.failed(error))?;
        if index.is_durable() {
            rustix::fs::fsync(&self.file).map_err(|error| self.failed(error))?;
        }
        let until = new.until.unwrap_or(NEVER);
        let entry = Entry {
            created: new.created.unwrap_or(self.now),
            deadline: new.deadline.unwrap_or(NEVER).min(until),
            until,
            size: self.written,
            fence: u64::from_le_bytes(random::bytes()?),
            namespace_stamp: 0,
            blob: Some(self.fresh.id),
            checksum: self.hash.digest(),
            checked: self.checked,
            own_header: false,
        };
        let mut reservation = Reservation::new(index);
        reservation.count = self.reservation;
        // From here on, they see to file and room.
        self.linked = true;
        let blob = index.blobs.adopt(std::mem::take(&mut self.fresh), (entry.checksum, entry.checked));
        store.commit_blob(key, new, entry, (blob, reservation), self.now)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Books room for `more` bytes beyond what is written.
    fn grow(&mut self, more: u64) -> Result<()> {
        let needed = self.written + more;
        if needed <= self.reserved {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let (index, options) = (store.index()?, &store.options);
        let most = options.max_bytes - options.max_bytes / 32;
        if needed > most {
            let bytes = usize::try_from(needed).unwrap_or(usize::MAX);
            let limit = usize::try_from(most).unwrap_or(usize::MAX);
            return Err(Error::TooLarge { place: "stream (max_bytes of the store)", bytes, limit });
        }
        let wanted = needed.next_multiple_of((options.max_bytes / 64).clamp(STEPS.0, STEPS.1)).min(most);
        loop {
            let done = index.change(options, |change| {
                let room = change.make_room(Room { index: 0, blob: wanted - self.reserved }, self.now)?;
                if room {
                    change.unreserve(index.owner, self.reservation)?;
                    change.reserve(index.owner, self.reservation, wanted)?;
                }
                Ok((room, change.evicted, change.expired))
            })?;
            let Some((room, evicted, expired)) = done else {
                let waited = options.writer_timeout;
                return Err(Error::Busy { path: store.path().to_owned(), operation: "write", waited });
            };
            store.counts.evicted.add(evicted);
            store.counts.expired.add(expired);
            if room {
                self.reserved = wanted;
                return index.blobs.allocate(&self.file, &self.fresh, wanted);
            }
            if evicted + expired == 0 {
                return Err(self.failed(rustix::io::Errno::NOSPC));
            }
        }
    }

    fn same_process(&self) -> Result<()> {
        if self.generation == fork::generation() {
            return Ok(());
        }
        Err(self.failed(io::Error::other("another process began it; fork before that")))
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::io("write", format!("{}/blobs/{}", self.store.path(), self.fresh.name), error)
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<usize> {
        self.same_process()?;
        self.grow(bytes.len() as u64)?;
        let count = self.file.write(bytes).map_err(|error| self.failed(error))?;
        let first = self.written == 0;
        self.written += count as u64;
        if first || self.store.options.verify == Verify::Full {
            self.hash.update(&bytes[..count]);
            self.checked += count as u64;
        }
        Ok(count)
    }
}

impl Write for EntryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.write_some(bytes).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EntryWriter {
    fn drop(&mut self) {
        // In a child, file and room are still its parent's.
        if self.linked || self.generation != fork::generation() {
            return;
        }
        if let Ok(index) = self.store.index() {
            // What cannot be removed now is removed as an orphan.
            let _ = index.blobs.remove(&self.fresh.name);
            index.unneeded.lock().unwrap_or_else(PoisonError::into_inner).push(self.reservation);
        }
    }
}
