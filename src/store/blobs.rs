//! Blob files: frames too large for the index, each in a file of its own.
//!
//! A blob is written to a temporary name, renamed to its random id inside the transaction that links it, and never
//! changed or truncated afterwards, so that a mapping of it stays valid for as long as anybody holds it. Replacing,
//! evicting and deleting only unlink. All readers in a process share one mapping of a blob, found by its id without a
//! system call; no descriptor stays open.

use super::directory::{Directory, Names};
use super::process::Owner;
use super::row::{BlobId, Entry};
use crate::buffer::{AlignedBuf, FrameBuf, FrameMemory, Mapping, Origin};
use crate::checksum::xxh3_64;
use crate::error::Result;
use crate::memory::SyncWeakMap;
use crate::random;
use rustix::io::Errno;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use xxhash_rust::xxh3::Xxh3;

/// Blobs of more than this are mapped, smaller ones read into memory: 64 KiB.
pub const MAPPED_ABOVE: usize = 64 * 1024;

/// From here on, freeing a file takes a millisecond and more: 16 MiB.
const LARGE: u64 = 16 << 20;

/// Large files without a name, freed when this is dropped: not before others may write again.
pub(super) type Unlinked = Vec<File>;

/// Prefix of the names of files under construction.
const TEMPORARY: &str = ".tmp-";

#[derive(Debug)]
pub(super) struct Blobs {
    directory: Directory,
    mapped: SyncWeakMap<BlobId, Weak<Mapping>, ByFirstBytes>,
    owner: Owner,
    count: AtomicU64,
}

/// Finds ids, which are random, by their first eight bytes.
#[derive(Clone, Copy, Debug, Default)]
struct ByFirstBytes;

impl BuildHasher for ByFirstBytes {
    type Hasher = FirstBytes;

    fn build_hasher(&self) -> FirstBytes {
        FirstBytes(0)
    }
}

struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first));
    }

    /// The length of an id says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is there under a blob id.
pub(super) enum Found {
    Frame(FrameBuf),
    /// No file: it was unlinked since the index was read.
    Gone,
    /// A file that is not what its entry says.
    Damaged,
}

/// A blob that nobody sees yet. Its file goes when this is dropped.
pub(super) struct Temporary<'b> {
    blobs: &'b Blobs,
    name: String,
    pub(super) id: BlobId,
    /// Of the first `checked` bytes.
    pub(super) checksum: u64,
    pub(super) checked: u64,
    linked: bool,
}

/// A file under construction that grows: its name, and the id it will have.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) name: String,
    pub(super) id: BlobId,
}

impl Blobs {
    pub(super) fn new(directory: Directory, owner: Owner) -> Self {
        Self { directory, mapped: SyncWeakMap::default(), owner, count: AtomicU64::new(0) }
    }

    /// Writes a blob of `size` bytes; the checksum is that of the first `checked` of them.
    pub(super) fn write(
        &self,
        size: u64,
        checked: u64,
        durable: bool,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Temporary<'_>> {
        let name = self.temporary_name();
        let file = self.directory.create(&name, size)?;
        let mut blob = Temporary { blobs: self, name, id: random::bytes()?, checksum: 0, checked, linked: false };
        let failed = |error| self.directory.io("write", &blob.name, error);
        let counted = Checked { file: &file, written: 0, left: checked, hash: Xxh3::new() };
        let mut out = BufWriter::with_capacity(MAPPED_ABOVE, counted);
        write(&mut out)?;
        let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
        if out.written != size {
            return Err(failed(std::io::Error::other(format!("{} bytes were written instead of {size}", out.written))));
        }
        blob.checksum = out.hash.digest();
        if durable {
            rustix::fs::fsync(&file).map_err(|error| failed(error.into()))?;
        }
        Ok(blob)
    }

    /// Begins a blob whose size is not known yet.
    pub(super) fn begin(&self) -> Result<(File, Fresh)> {
        let fresh = Fresh { name: self.temporary_name(), id: random::bytes()? };
        Ok((self.directory.create(&fresh.name, 0)?, fresh))
    }

    /// Allocates the first `size` bytes of it: a full disk is an error before they are written.
    pub(super) fn allocate(&self, file: &File, fresh: &Fresh, size: u64) -> Result<()> {
        self.directory.allocate(file, &fresh.name, size)
    }

    /// Such a blob when it is written, with the checksum of its first bytes.
    pub(super) fn adopt(&self, fresh: Fresh, (checksum, checked): (u64, u64)) -> Temporary<'_> {
        Temporary { blobs: self, name: fresh.name, id: fresh.id, checksum, checked, linked: false }
    }

    fn temporary_name(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{TEMPORARY}{}-{}-{count}", self.owner.pid, self.owner.started)
    }

    /// The frame of `entry`'s blob `id`, checked as far as the entry's checksum goes when it is read or mapped.
    pub(super) fn open(&self, id: &BlobId, entry: &Entry) -> Result<Found> {
        if let Some(frame) = self.mapped_frame(id) {
            return Ok(Found::Frame(frame));
        }
        let name = name_of(id);
        let Some((file, size)) = self.directory.read(&name)? else {
            return Ok(Found::Gone);
        };
        let Some(size) = usize::try_from(size).ok().filter(|_| size == entry.size) else {
            return Ok(Found::Damaged);
        };
        if size <= MAPPED_ABOVE {
            let frame = self.load(&file, &name, size)?;
            return Ok(if holds(&frame, entry) { Found::Frame(frame) } else { Found::Damaged });
        }
        let mapping = self.mapped.get_or_try_insert_with(*id, || {
            // SAFETY: blobs are published whole and never changed or truncated afterwards, in a directory that is
            // writable by this user alone (`Directory::open`).
            #[allow(unsafe_code)]
            let mapping = unsafe { Mapping::new(&file) };
            let mapping = Arc::new(mapping.map_err(|error| Some(self.directory.io("map", &name, error)))?);
            let frame = FrameBuf::from_mapping(Arc::clone(&mapping), Origin::Trusted);
            if holds(&frame, entry) { Ok(mapping) } else { Err(None) }
        });
        match mapping {
            Ok(mapping) => Ok(Found::Frame(FrameBuf::from_mapping(mapping, Origin::Trusted))),
            Err(None) => Ok(Found::Damaged),
            Err(Some(error)) => Err(error),
        }
    }

    /// The frame of a blob that is mapped already; needs no system call.
    pub(super) fn mapped_frame(&self, id: &BlobId) -> Option<FrameBuf> {
        self.mapped.get(id).map(|mapping| FrameBuf::from_mapping(mapping, Origin::Trusted))
    }

    /// The blobs that this process has mapped, and their sizes.
    pub(super) fn mapped(&self) -> Vec<(BlobId, u64)> {
        let live = self.mapped.live();
        live.into_iter().map(|(id, mapping)| (id, mapping.bytes().len() as u64)).collect()
    }

    /// Removes the name of a blob of `size` bytes that is no longer linked. A large one's file is returned: the system
    /// frees it when it is closed. One that cannot be removed now is found as an orphan.
    pub(super) fn unlink(&self, id: &BlobId, size: u64) -> Option<File> {
        let name = name_of(id);
        let file = (size >= LARGE).then(|| self.directory.read(&name)).and_then(Result::ok).flatten();
        let _ = self.directory.unlink(&name);
        file.map(|(file, _)| file)
    }

    pub(super) fn names(&self) -> Result<Names> {
        self.directory.names()
    }

    /// Removes a file that [`Kind::of`] found to be left over.
    pub(super) fn remove(&self, name: &str) -> Result<bool> {
        self.directory.unlink(name)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.directory.sync()
    }

    fn load(&self, file: &File, name: &str, size: usize) -> Result<FrameBuf> {
        let mut buffer = AlignedBuf::with_capacity(size)?;
        buffer.extend_zeroed(size)?;
        let mut filled = 0;
        while filled < size {
            match rustix::io::pread(file, &mut buffer.as_mut_slice()[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.directory.io("read", name, error)),
            }
        }
        buffer.truncate(filled);
        Ok(FrameBuf::from_aligned(buffer, Origin::Trusted).copied())
    }
}

/// Whether a blob is what its entry says.
fn holds(frame: &[u8], entry: &Entry) -> bool {
    let checked = usize::try_from(entry.checked).ok().and_then(|checked| frame.get(..checked));
    frame.len() as u64 == entry.size && checked.is_some_and(|checked| xxh3_64(checked) == entry.checksum)
}

impl Temporary<'_> {
    /// Gives the file its name. The caller links it in the transaction that it is in.
    pub(super) fn publish(&mut self) -> Result<()> {
        self.blobs.directory.rename(&self.name, &name_of(&self.id))?;
        self.name = name_of(&self.id);
        Ok(())
    }

    /// The transaction that links it is committed: the file stays.
    pub(super) fn keep(&mut self) {
        self.linked = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.linked {
            // What cannot be removed now is removed as an orphan.
            let _ = self.blobs.directory.unlink(&self.name);
        }
    }
}

/// What a name in the directory of blobs stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blob(BlobId),
    Temporary(Owner),
    Other,
}

impl Kind {
    pub(super) fn of(name: &str) -> Self {
        if let Some(rest) = name.strip_prefix(TEMPORARY) {
            let mut parts = rest.split('-');
            let mut number = || parts.next()?.parse::<u64>().ok();
            return match (number(), number()) {
                (Some(pid), Some(started)) => {
                    Self::Temporary(Owner { pid: u32::try_from(pid).unwrap_or(u32::MAX), started })
                }
                _ => Self::Other,
            };
        }
        let digits: &[u8; 32] = match name.as_bytes().try_into() {
            Ok(digits) => digits,
            Err(_) => return Self::Other,
        };
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Self::Other,
            }
        }
        Self::Blob(id)
    }
}

/// The name of a blob's file: 32 lower-case hexadecimal digits.
fn name_of(id: &BlobId) -> String {
    id.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Counts what reaches the file, and hashes the first of it.
struct Checked<'f> {
    file: &'f File,
    written: u64,
    left: u64,
    hash: Xxh3,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        let hashed = usize::try_from(self.left).unwrap_or(usize::MAX).min(count);
        self.hash.update(&bytes[..hashed]);
        self.left -= hashed as u64;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_blob_outlives_its_name_until_it_is_dropped() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("blobs");
        let root = Directory::open(&path).expect("own");
        let blobs = Blobs::new(root, Owner::this());
        for (size, kept) in [(LARGE - 1, false), (LARGE, true)] {
            let id = [7; 16];
            let path = path.join(name_of(&id));
            std::fs::write(&path, "a blob").expect("written");
            let unlinked = blobs.unlink(&id, size);
            assert!(!path.exists());
            assert_eq!(unlinked.map(|file| file.metadata().expect("open").nlink()), kept.then_some(0));
        }
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(Kind::of(&name_of(&[0xa5; 16])), Kind::Blob([0xa5; 16]));
        assert_eq!(Kind::of(".tmp-12-34-5"), Kind::Temporary(Owner { pid: 12, started: 34 }));
        for other in ["", ".tmp-", ".tmp-a-b", "A5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5", "index"] {
            assert_eq!(Kind::of(other), Kind::Other);
        }
    }
}
