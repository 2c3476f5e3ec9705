//! A store as one process has it open: the index, the blobs beside it, and the locks, shared by all who open the
//! directory.

use super::blobs::Blobs;
use super::change::Change;
use super::directory::{Directory, Names, refused};
use super::epochs;
use super::lmdb::{Environment, Fault, Flags, Reading};
use super::marks::{MARKS, Marks};
use super::options::Options;
use super::process::{Owner, boot_id, pid_namespace};
use super::row::RowKey;
use super::stamp::{Durability, IndexMode, MOST_STARTS, Stamp, StampFile, Use};
use super::writer_lock::{Held, WriterLock};
use crate::epoch::{Epochs, Guard};
use crate::error::{Error, Result};
use crate::fork::PerProcess;
use std::ffi::CString;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Slots of LMDB's table of readers: 64 bytes each.
const MAX_READERS: u32 = 4096;

/// LMDB's files in a store's directory.
const INDEX: &str = "index";
const INDEX_LOCK: &str = "index-lock";

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
        let path = directory.path().to_owned();
        let stamp_file = if options.read_only {
            let (file, _) = directory
                .read("stamp")?
                .ok_or_else(|| refused(&path, "a store, to be read only", "a directory without a stamp".to_owned()))?;
            StampFile::new(file.into())
        } else {
            check_ours(&directory)?;
            StampFile::new(directory.open_or_create("stamp")?)
        };
        let usage = if options.read_only {
            stamp_file.lock_shared(&path)?;
            Use::Shared
        } else {
            stamp_file.lock(&path)?
        };
        let found = stamp_file.read(&path)?;
        let opened = match usage {
            Use::Shared => Self::join(&directory, found, options),
            Use::Alone => Self::begin(&directory, &stamp_file, found.clone(), options).inspect_err(|_| {
                // An error is no crash: the next start finds the stamp as this one did. The first error is the one to
                // report.
                let _ = stamp_file.restore(found.as_ref(), &path);
            }),
        };
        let (env, marks, writer, stamp) = opened?;
        let owner = Owner::this();
        let index = Self {
            env,
            marks,
            epochs: Arc::new(epochs::open(&directory, options.read_only)?),
            blobs: Blobs::new(directory.inside("blobs")?, owner),
            owner,
            writer,
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

    /// Opens a store that others have open.
    fn join(directory: &Directory, found: Option<Stamp>, options: &Options) -> Result<Parts> {
        let path = directory.path();
        let Some(stamp) = found else {
            return Err(refused(path, "a store", "an empty stamp: it was never opened".to_owned()));
        };
        let stamp = check_shared(stamp, path)?;
        options.check_stamp(&stamp, path)?;
        open_parts(directory, stamp, options)
    }

    /// Opens, makes or empties a store that nobody has open. The stamp counts the start until the index was read.
    fn begin(directory: &Directory, stamp_file: &StampFile, found: Option<Stamp>, options: &Options) -> Result<Parts> {
        let path = directory.path();
        let stamp = prepare(directory, found, options)?;
        options.check_stamp(&stamp, path)?;
        stamp_file.write(&Stamp { starts: stamp.starts + 1, ..stamp.clone() }, path)?;
        let parts = open_parts(directory, Stamp { starts: 0, ..stamp }, options)?;
        try_out(&parts.0).map_err(|fault| directory.io("open", INDEX, fault))?;
        stamp_file.write(&parts.3, path)?;
        stamp_file.share(path)?;
        Ok(parts)
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

    pub(super) fn read(&self) -> Result<Reading<'_>> {
        self.env.read().map_err(|fault| self.fault("read", fault))
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
    pub(super) fn change<T>(
        &self,
        options: &Options,
        mut work: impl FnMut(&mut Change<'_>) -> Result<T, Stop>,
    ) -> Result<Option<T>> {
        let Some(_held) = self.lock(options)? else {
            return Ok(None);
        };
        self.epochs.recover();
        let mut again = true;
        loop {
            let mut change = Change::begin(self, options)?;
            match work(&mut change).and_then(|done| change.commit().map(|()| done)) {
                Ok(done) => return Ok(Some(done)),
                Err(Stop::Other(error)) => return Err(error),
                Err(Stop::Index(fault)) if fault.is_full() && again => {
                    again = false;
                    self.env.clear_dead_readers().map_err(|fault| self.fault("clear readers of", fault))?;
                    let mut change = Change::begin(self, options)?;
                    let evicted = change.evict_some().and_then(|()| change.commit());
                    if let Err(Stop::Other(error)) = evicted {
                        return Err(error);
                    }
                }
                Err(Stop::Index(fault)) => return Err(self.fault("write", fault)),
            }
        }
    }
}

/// What an index is made of: its environment, the marks, the lock of writers, the stamp.
type Parts = (Environment, Marks, Option<WriterLock>, Stamp);

fn open_parts(directory: &Directory, stamp: Stamp, options: &Options) -> Result<Parts> {
    let env = open_environment(directory, &stamp, options.read_only)?;
    if options.read_only {
        return Ok((env, Marks::private()?, None, stamp));
    }
    let marks = Marks::open(directory)?;
    let writer = WriterLock::new(directory.open_or_create("writer.lock")?, directory.path())?;
    Ok((env, marks, Some(writer), stamp))
}

/// Reads what every use will read: an index that kills its reader does so here, where starts are counted.
fn try_out(env: &Environment) -> Result<(), Fault> {
    let mut rows = 0;
    env.read()?.walk(&[0], |_, row| {
        rows += usize::from(!row.is_empty());
        rows < 16
    })
}

/// A directory is ours if it is empty, or has a stamp, or has only what older formats made.
fn check_ours(directory: &Directory) -> Result<()> {
    let Some(other) = directory.names()?.find(|name| !is_old(name)) else { return Ok(()) };
    // A store has its stamp before any other file.
    match directory.read("stamp")? {
        Some(_) => Ok(()),
        None => Err(refused(
            directory.path(),
            "an empty directory or a store",
            format!("a directory with other files, such as {other:.60?}; choose another one"),
        )),
    }
}

/// Whether a file is a blob of format 1: 64 hexadecimal digits, or a temporary name.
fn is_old(name: &str) -> bool {
    name.starts_with(".tmp-") || name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What others use too can be used if they are of this boot and see the same process ids.
fn check_shared(stamp: Stamp, path: &str) -> Result<Stamp> {
    if stamp.namespace != pid_namespace() || stamp.boot != boot_id() {
        return Err(refused(
            path,
            "a store in use only by processes of this PID namespace",
            "one in use from another; give each container a directory of its own, or let them share the namespace"
                .to_owned(),
        ));
    }
    Ok(stamp)
}

/// The stamp to work with, by who is alone: what cannot be believed any more is removed first.
fn prepare(directory: &Directory, found: Option<Stamp>, options: &Options) -> Result<Stamp> {
    let (index, durability) = (options.index.unwrap_or_default(), options.durability.unwrap_or_default());
    let Some(stamp) = found else {
        empty(directory)?;
        return Ok(Stamp::new(options.map_size(index, None), index, durability));
    };
    // Nobody has it mapped, so it may grow.
    let map_size = options.map_size(stamp.index, Some(stamp.map_size));
    // After another boot, only what was written through to the disk is whole.
    let is_whole = stamp.boot == boot_id() || stamp.durability == Durability::Power;
    if stamp.starts < MOST_STARTS && is_whole {
        return Ok(Stamp { boot: boot_id(), namespace: pid_namespace(), map_size, ..stamp });
    }
    empty(directory)?;
    Ok(Stamp::new(map_size, stamp.index, stamp.durability))
}

/// Removes what a store consists of, and what format 1 left.
fn empty(directory: &Directory) -> Result<()> {
    let blobs = directory.inside("blobs")?;
    for name in blobs.names()? {
        blobs.unlink(&name)?;
    }
    for name in directory.names()? {
        if is_old(&name) || matches!(name.as_str(), INDEX | INDEX_LOCK | MARKS) {
            directory.unlink(&name)?;
        }
    }
    Ok(())
}

fn open_environment(directory: &Directory, stamp: &Stamp, read_only: bool) -> Result<Environment> {
    let failed = |error: std::io::Error| directory.io("open", INDEX, error);
    let path = CString::new(directory.path_to(INDEX)).map_err(|error| failed(error.into()))?;
    let map_size = usize::try_from(stamp.map_size).map_err(|_| Error::Memory { bytes: usize::MAX })?;
    let write_map = stamp.index == IndexMode::WriteMap;
    if !read_only {
        // A reader whose slot the disk has no room for would be killed.
        let file = File::from(directory.open_or_create(INDEX_LOCK)?);
        directory.allocate(&file, INDEX_LOCK, u64::from(MAX_READERS) * 64 + 4096)?;
    }
    if write_map && !read_only {
        // A page that the disk has no room for would kill its writer. LMDB extends the file: what is not empty it takes for
        // an index.
        let file = File::from(directory.open_or_create(INDEX)?);
        directory.allocate(&file, INDEX, stamp.map_size)?;
    }
    let flags = Flags { read_only, synchronous: stamp.durability == Durability::Power, write_map };
    Environment::open(&path, map_size, MAX_READERS, flags).map_err(|fault| failed(fault.into()))
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
