//! A store as one process has it open: the index, the blobs beside it, and the locks, shared by all who open the
//! directory.

use super::blobs::Blobs;
use super::change::Change;
use super::directory::{Directory, Names, refused};
use super::lmdb::{Environment, Fault, Flags, Reading};
use super::marks::Marks;
use super::options::Options;
use super::process::{Owner, boot_id, pid_namespace};
use super::stamp::{Durability, IndexMode, MOST_STARTS, Stamp, StampFile, Use};
use super::writer_lock::{Held, WriterLock};
use crate::error::{Error, Result};
use crate::fork::ForkLocal;
use std::ffi::CString;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Slots of LMDB's table of readers: 64 bytes each.
const MAX_READERS: u32 = 4096;

/// Of the files in a store's directory.
const INDEX: &str = "index";
const FILES: [&str; 6] = [INDEX, "index-lock", "stamp", "writer.lock", "marks", "blobs"];

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
        let stamp = match stamp_file.read(&path)? {
            Some(stamp) if usage == Use::Shared => check_shared(stamp, &path)?,
            None if usage == Use::Shared => {
                return Err(refused(&path, "a store", "an empty stamp: it was never opened".to_owned()));
            }
            found => prepare(&directory, found, options)?,
        };
        options.check_stamp(&stamp, &path)?;
        if usage == Use::Alone {
            stamp_file.write(&Stamp { starts: stamp.starts + 1, ..stamp.clone() }, &path)?;
        }
        let env = open_environment(&directory, &stamp, options.read_only)?;
        let (marks, writer) = if options.read_only {
            (Marks::private()?, None)
        } else {
            let marks = Marks::open(&File::from(directory.open_or_create("marks")?), &path)?;
            (marks, Some(WriterLock::new(directory.open_or_create("writer.lock")?, &path)?))
        };
        let owner = Owner::this();
        let index = Self {
            env,
            marks,
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
        index.try_out()?;
        if usage == Use::Alone {
            index._stamp_file.write(&Stamp { starts: 0, ..index.stamp.clone() }, &path)?;
            index._stamp_file.share(&path)?;
        }
        Ok(index)
    }

    /// Reads what every use will read: an index that kills its reader does so here, where starts are counted.
    fn try_out(&self) -> Result<()> {
        self.env.clear_dead_readers().map_err(|fault| self.fault("open", fault))?;
        let reading = self.read()?;
        let mut rows = 0;
        let walked = reading.walk(&[0], |_, row| {
            rows += usize::from(!row.is_empty());
            rows < 16
        });
        walked.map_err(|fault| self.fault("open", fault))
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
            .acquire(options.writer_timeout)
            .map_err(|error| Error::io("lock", format!("{}/writer.lock", self.path()), error))
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

/// A directory is ours if it is empty, or has a stamp, or has only what older formats made.
fn check_ours(directory: &Directory) -> Result<()> {
    let names: Vec<_> = directory.names()?.take(64).collect();
    if names.iter().any(|name| name == "stamp") {
        return Ok(());
    }
    match names.iter().find(|name| !is_old(name) && !FILES.contains(&name.as_str())) {
        None => Ok(()),
        Some(other) => Err(refused(
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
        return Ok(Stamp::new(options.map_size(index), index, durability));
    };
    // Nobody has it mapped, so it may grow.
    let map_size = stamp.map_size.max(options.map_size(stamp.index));
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
        if is_old(&name) || matches!(name.as_str(), INDEX | "index-lock" | "marks") {
            directory.unlink(&name)?;
        }
    }
    Ok(())
}

fn open_environment(directory: &Directory, stamp: &Stamp, read_only: bool) -> Result<Environment> {
    let path = directory.path_to(INDEX);
    let write_map = stamp.index == IndexMode::WriteMap;
    let failed = |error: std::io::Error| directory.io("open", INDEX, error);
    let path = CString::new(path).map_err(|error| failed(error.into()))?;
    let map_size = usize::try_from(stamp.map_size).map_err(|_| Error::Memory { bytes: usize::MAX })?;
    let flags = Flags { read_only, synchronous: stamp.durability == Durability::Power, write_map };
    let env = Environment::open(&path, map_size, MAX_READERS, flags).map_err(|fault| failed(fault.into()))?;
    if write_map && !read_only {
        // A page that the disk has no room for would kill its writer. Only now, as LMDB makes an environment of an
        // empty file alone; it has made the file as long as its map.
        let file = File::from(directory.open_or_create(INDEX)?);
        directory.allocate(&file, INDEX, stamp.map_size)?;
    }
    Ok(env)
}

/// The stores that this process has open, by device and inode of their directories: LMDB allows one environment each.
type Known = Vec<((u64, u64), Arc<Index>)>;

static REGISTRY: ForkLocal<Mutex<Known>> = ForkLocal::new();

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

#[cfg(test)]
mod tests {
    use crate::frame::Header;
    use crate::store::{IndexMode, Lookup, New, Options, Store};

    fn put(store: &Store, key: &str) -> crate::Result<crate::store::Stored> {
        store.put(key, New { header: Header::new("raw"), ..New::default() }, b"value".as_slice(), 0)
    }

    #[test]
    fn an_index_written_in_its_mapping_is_allocated_whole_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        for turn in 0..2 {
            let options = Options { index: Some(IndexMode::WriteMap), index_bytes: 1 << 20, ..Options::default() };
            let store = Store::open(&path, options).unwrap();
            assert_eq!(matches!(store.get("key", 0).unwrap(), Lookup::Hit(_)), turn == 1);
            put(&store, "key").unwrap();
            let file = std::fs::metadata(path.join("index")).unwrap();
            assert_eq!(file.len(), 1 << 20);
            assert!(std::os::unix::fs::MetadataExt::blocks(&file) * 512 >= 1 << 20);
        }
    }

    #[test]
    fn who_may_only_read_shares_an_index_that_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = Store::open(&path, Options::default()).unwrap();
        let reader = Store::open(&path, Options { read_only: true, ..Options::default() }).unwrap();
        put(&store, "key").unwrap();
        assert!(matches!(reader.get("key", 0).unwrap(), Lookup::Hit(_)));
        assert!(put(&reader, "key").unwrap_err().to_string().contains("read-only"));
        assert!(reader.delete("key", 0).is_err());
        assert_eq!(reader.verify().unwrap().whole, 1);
    }
}
