//! A store as one process has it open: the index, the blobs beside it, and the locks, shared by all who open the
//! directory.

use super::blobs::{Blobs, Unlinked};
use super::change::Change;
use super::directory::{Directory, Names, refused};
use super::epochs;
use super::lmdb::{Environment, Fault, Reading};
use super::marks::Marks;
use super::opening::{self, INDEX, Parts};
use super::options::Options;
use super::process::Owner;
use super::row::RowKey;
use super::spare::{SPARE_BYTES, Spare};
use super::stamp::{Durability, Stamp, StampFile};
use super::writer_lock::{Held, WriterLock};
use crate::epoch::{Epochs, Guard};
use crate::error::{Error, Result};
use crate::fork::PerProcess;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long opening the index anew waits for transactions of other threads, which take microseconds.
const REVIVING: Duration = Duration::from_secs(10);
/// Bytes that are evicted for a set that finds no page in the index.
const EVICTED_FOR_SETS: u64 = 64 * 1024;
/// Bytes that are evicted for what must not fail, before it is tried again; twice as many before each time that follows.
const EVICTED_FIRST: u64 = 16 * 1024;
const MOST_TRIES: u32 = 12;
/// Bytes that one transaction evicts of these.
const EVICTED_AT_ONCE: u64 = 8 * 1024;
/// Free pages that sets leave in the index on a full disk.
const KEPT_PAGES: usize = 128;

/// What the index answered, and what else went wrong.
#[derive(Debug)]
pub(super) enum Stop {
    Index(Fault),
    Other(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Index(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

pub(super) struct Index {
    pub(super) env: Environment,
    pub(super) marks: Marks,
    pub(super) epochs: Arc<Epochs>,
    pub(super) blobs: Blobs,
    pub(super) owner: Owner,
    /// `None` for who may only read.
    writer: Option<WriterLock>,
    /// `None` for who may only read.
    spare: Option<Spare>,
    directory: Directory,
    pub(super) stamp: Stamp,
    /// Holds the shared lock for as long as the index is open.
    _stamp_file: StampFile,
    /// Where the search for left-over files goes on.
    pub(super) sweep: Mutex<Sweep>,
    reservations: AtomicU64,
    /// Reservations of this process that nobody needs any more.
    pub(super) unneeded: Mutex<Vec<u64>>,
}

/// Room that was booked for a blob. Where it is dropped, the next write gives it back.
pub(super) struct Reservation<'i> {
    index: &'i Index,
    pub(super) count: u64,
}

impl<'i> Reservation<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self { index, count: index.reservations.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.index.unneeded.lock().unwrap_or_else(PoisonError::into_inner).push(self.count);
    }
}

/// The search for files that no row names, a step at a time.
#[derive(Default)]
pub(super) struct Sweep {
    pub(super) names: Option<Names>,
    /// When the last one came to its end.
    pub(super) ended: Option<Instant>,
    /// Transactions since its last step.
    pub(super) waited: u32,
}

impl Index {
    fn open(directory: &Directory, options: &Options) -> Result<Self> {
        directory.check_local()?;
        let directory = directory.try_clone()?;
        let Parts { env, marks, writer, spare, stamp, stamp_file } = opening::open(&directory, options)?;
        let owner = Owner::this();
        let index = Self {
            env,
            marks,
            epochs: Arc::new(epochs::open(&directory, options.read_only)?),
            blobs: Blobs::new(directory.inside("blobs")?, owner),
            owner,
            writer,
            spare,
            directory,
            stamp,
            _stamp_file: stamp_file,
            sweep: Mutex::default(),
            reservations: AtomicU64::new(0),
            unneeded: Mutex::default(),
        };
        index.env.clear_dead_readers().map_err(|fault| index.fault("open", fault))?;
        index.take_over_reservations().map_err(|fault| index.fault("open", fault))?;
        Ok(index)
    }

    /// What this process reserved when it had the index open before is not needed any more.
    fn take_over_reservations(&self) -> Result<(), Fault> {
        let prefix = RowKey::reservations(self.owner);
        let mut left = Vec::new();
        self.env.read()?.walk(&prefix, |key, _| match key.strip_prefix(&*prefix).map(<[u8; 8]>::try_from) {
            Some(Ok(count)) => {
                left.push(u64::from_be_bytes(count));
                true
            }
            _ => false,
        })?;
        self.reservations.store(left.iter().max().map_or(0, |count| count + 1), Ordering::Relaxed);
        *self.unneeded.lock().unwrap_or_else(PoisonError::into_inner) = left;
        Ok(())
    }

    pub(super) fn path(&self) -> &str {
        self.directory.path()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.stamp.durability == Durability::Power
    }

    /// A snapshot. Not with the GIL held: see [`Self::read_at_once`].
    pub(super) fn read(&self) -> Result<Reading<'_>> {
        let found = self.env.read().or_else(|fault| {
            if !fault.is_broken() {
                return Err(fault);
            }
            self.env.revive(REVIVING)?;
            self.env.read()
        });
        found.map_err(|fault| self.fault("read", fault))
    }

    /// A snapshot, if it needs no waiting.
    pub(super) fn read_at_once(&self) -> Result<Option<Reading<'_>>> {
        match self.env.read() {
            Ok(reading) => Ok(Some(reading)),
            Err(fault) if fault.is_broken() => Ok(None),
            Err(fault) => Err(self.fault("read", fault)),
        }
    }

    pub(super) fn fault(&self, operation: &'static str, fault: Fault) -> Error {
        Error::io(operation, format!("{}/{INDEX}", self.path()), fault)
    }

    /// The right to write; `None` if somebody else had it for as long as the options say.
    fn lock(&self, options: &Options) -> Result<Option<Held<'_>>> {
        // An index that others of this process write to is shared by who may only read.
        let Some(writer) = self.writer.as_ref().filter(|_| !options.read_only) else {
            return Err(refused(self.path(), "a store opened for writing", "one opened read-only".to_owned()));
        };
        writer
            .acquire(options.writer_timeout, options.interrupted)
            .map_err(|error| Error::io("lock", format!("{}/writer.lock", self.path()), error))
    }

    /// A guard as the epochs have it. One that a dead writer left odd is ended first, so that copies can be kept again.
    pub(super) fn guard(&self, hash: u64) -> Guard {
        let guard = self.epochs.guard(hash);
        if guard.is_odd()
            && let Some(writer) = &self.writer
            && let Ok(Some(_held)) = writer.acquire(Duration::ZERO, None)
        {
            self.epochs.recover();
            return self.epochs.guard(hash);
        }
        guard
    }

    /// Does `work` in one transaction, then unlinks what it no longer needs; `None` where no right to write was had in
    /// time. In a full index, dead readers are cleared, entries evicted, and the work is done once more.
    ///
    /// On a disk without room for the [`Spare`], only as long as the index keeps free pages for what must not fail.
    pub(super) fn change<T>(
        &self,
        options: &Options,
        mut work: impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
    ) -> Result<Option<T>> {
        let Some(held) = self.lock(options)? else { return Ok(None) };
        let roomy = self.spare.as_ref().is_none_or(|spare| spare.restore(&self.directory, &self.marks));
        let work = |change: &mut Change<'_>| {
            if !roomy && self.env.read()?.free_pages()? < KEPT_PAGES {
                return Err(Stop::Index(Fault::NO_SPACE));
            }
            work(change)
        };
        let make_way = |fault: Fault, tried| {
            let full = fault.is_full() || !roomy && fault.is_out_of_disk();
            Ok(full && tried == 0 && self.evict(options, EVICTED_FOR_SETS)?)
        };
        let (done, unlinked) = self.change_with(options, work, make_way)?;
        // Freeing a gigabyte takes a tenth of a second, in which others may write.
        drop(held);
        drop(unlinked);
        Ok(Some(done))
    }

    /// As [`Self::change`], for what must not fail for want of room: a full disk is made room on too, first by giving up
    /// the [`Spare`].
    pub(super) fn must_change<T>(
        &self,
        options: &Options,
        work: impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
    ) -> Result<Option<T>> {
        let Some(held) = self.lock(options)? else { return Ok(None) };
        let make_way = |fault: Fault, tried| {
            let spared = fault.is_out_of_disk() && self.give_up_spare();
            let full = fault.is_full() || fault.is_out_of_disk();
            Ok(spared || full && tried < MOST_TRIES && self.evict(options, EVICTED_FIRST << tried)?)
        };
        let (done, unlinked) = self.change_with(options, work, make_way)?;
        if let Some(spare) = &self.spare {
            spare.restore(&self.directory, &self.marks);
        }
        drop(held);
        drop(unlinked);
        Ok(Some(done))
    }

    /// Does `work` in one transaction, and once more wherever `make_way`, told what the index answered and how often it was
    /// asked, made way for it.
    fn change_with<T>(
        &self,
        options: &Options,
        mut work: impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
        make_way: impl Fn(Fault, u32) -> Result<bool>,
    ) -> Result<(T, Unlinked)> {
        self.epochs.recover();
        let (mut tried, mut revived) = (0, false);
        loop {
            let fault = match self.transaction(options, &mut work) {
                Ok(done) => return Ok(done),
                Err(Stop::Other(error)) => return Err(error),
                // LMDB's answer to a write that was cut short.
                Err(Stop::Index(fault)) if fault.is_input_output() && self.directory.is_on_a_full_disk() => {
                    Fault::NO_SPACE
                }
                Err(Stop::Index(fault)) => fault,
            };
            // An error in its last step leaves LMDB unable to go on; what an earlier one left is not this write's.
            self.env.revive(REVIVING).map_err(|fault| self.fault("reopen", fault))?;
            if fault.is_broken() && !revived {
                revived = true;
            } else if make_way(fault, tried)? {
                tried += 1;
            } else {
                return Err(self.fault("write", fault));
            }
        }
    }

    fn transaction<T>(
        &self,
        options: &Options,
        work: &mut impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
    ) -> Result<(T, Unlinked), Stop> {
        let mut change = Change::begin(self, options)?;
        let done = work(&mut change)?;
        Ok((done, change.commit()?))
    }

    /// Gives the spare room to the index, behind what it has used: wherever it needs room next. Whether there was some.
    fn give_up_spare(&self) -> bool {
        let given = self.spare.as_ref().is_some_and(|spare| spare.give_up(&self.marks));
        if given && let (Ok(end), Ok(file)) = (self.env.end(), self.directory.open_or_create(INDEX)) {
            // Others may be quicker; then there is none.
            let _ = self.directory.reserve(&file.into(), INDEX, end, SPARE_BYTES);
        }
        given
    }

    /// Evicts `bytes`, whatever it meets, and clears dead readers; true, as it is worth trying again.
    fn evict(&self, options: &Options, bytes: u64) -> Result<bool> {
        self.env.clear_dead_readers().map_err(|fault| self.fault("clear readers of", fault))?;
        // In parts: each of these transactions needs pages too, and leaves some for the next but one.
        for _ in 0..bytes.div_ceil(EVICTED_AT_ONCE) {
            let evicted = self.transaction(options, &mut |change| {
                change.evict(EVICTED_AT_ONCE)?;
                Ok(change.evicted)
            });
            match evicted {
                Ok((1.., _)) => {}
                Err(Stop::Other(error)) => return Err(error),
                Ok((0, _)) | Err(Stop::Index(_)) => break,
            }
        }
        Ok(true)
    }
}

/// The stores that this process has open, by device and inode of their directories: LMDB allows one environment each.
type Known = Vec<((u64, u64), Arc<Index>)>;

static REGISTRY: PerProcess<Mutex<Known>> = PerProcess::new();

/// Opening and closing happen under it, since an environment must be closed before it is opened again. Never with the
/// GIL held: its holder allocates.
fn registry() -> Result<MutexGuard<'static, Known>> {
    let registry = REGISTRY.get_or_try_make(|| Ok::<_, Error>(Mutex::default()))?;
    Ok(registry.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A user's hold on an open index.
pub(super) struct Opened(Option<Arc<Index>>);

impl Opened {
    pub(super) fn open(directory: &Directory, options: &Options) -> Result<Self> {
        let identity = directory.identity()?;
        let mut registry = registry()?;
        if let Some((_, index)) = registry.iter().find(|(known, _)| *known == identity) {
            if index.writer.is_none() && !options.read_only {
                return Err(refused(
                    directory.path(),
                    "a store that this process has not opened read-only",
                    "one that it has; close that one first".to_owned(),
                ));
            }
            options.check_stamp(&index.stamp, directory.path())?;
            return Ok(Self(Some(Arc::clone(index))));
        }
        let index = Arc::new(Index::open(directory, options)?);
        registry.push((identity, Arc::clone(&index)));
        Ok(Self(Some(index)))
    }
}

impl std::ops::Deref for Opened {
    type Target = Index;

    fn deref(&self) -> &Index {
        match &self.0 {
            Some(index) => index,
            None => unreachable!("taken only when dropped"),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let index = self.0.take();
        let Ok(mut registry) = registry() else { return };
        drop(index);
        // What only the registry holds is closed, here and now.
        registry.retain(|(_, index)| Arc::strong_count(index) > 1);
    }
}

/// Counts of one handle.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
