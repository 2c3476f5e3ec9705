//! The directory of a store: opened once, checked, and from then on the only way to its files.

use crate::error::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// An open directory that belongs to the effective user and is closed to group and others.
///
/// All files are named relative to its descriptor: what happens to its path afterwards leads nobody elsewhere.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    /// For messages only.
    path: String,
}

impl Directory {
    /// Opens `path`, creating it (and missing parents) with mode 0700.
    ///
    /// # Errors
    /// [`Error::Store`] where it is a symbolic link, not a directory, owned by somebody else or open to group or
    /// others; [`Error::Io`] where the system refuses.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(Error::io("create directory", shown, error));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(refused(&shown, "a directory", "a symbolic link or another kind of file".to_owned()));
            }
            Err(error) => return Err(Error::io("open directory", shown, error)),
        };
        let stat = rustix::fs::fstat(&descriptor).map_err(|error| Error::io("stat", shown.clone(), error))?;
        check_private(&shown, &stat)?;
        Ok(Self { descriptor, path: shown })
    }

    /// The path it was opened at.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens the published file `name` to read; `None` where there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<(File, usize)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let descriptor = match rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.io("open", name, error)),
        };
        let stat = rustix::fs::fstat(&descriptor).map_err(|error| self.io("stat", name, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_own(&stat) {
            let found = format!("mode {:o}, owner {}", stat.st_mode, stat.st_uid);
            return Err(refused(&self.shown(name), "a regular file of the effective user", found));
        }
        let size = usize::try_from(stat.st_size)
            .map_err(|_| refused(&self.shown(name), "a size that fits in memory", stat.st_size.to_string()))?;
        Ok(Some((File::from(descriptor), size)))
    }

    /// Writes a file with `write`, to a temporary name, and publishes it as `name` in one step.
    ///
    /// `size` bytes are allocated first, so that a full disk is an error before the first byte is written. Whatever
    /// fails, the temporary file is gone and what `name` stood for is unchanged.
    pub(super) fn publish(&self, name: &str, size: usize, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        let temporary = temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, &*temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| self.io("create", &temporary, error))?;
        let file = File::from(descriptor);
        let published = self.allocate(&file, &temporary, size).and_then(|()| write(&file)).and_then(|()| {
            rustix::fs::renameat(&self.descriptor, &*temporary, &self.descriptor, name)
                .map_err(|error| self.io("rename", name, error))
        });
        if published.is_err() {
            // The first error is the one to report.
            let _ = rustix::fs::unlinkat(&self.descriptor, &*temporary, AtFlags::empty());
        }
        published
    }

    /// Unlinks the file `name`; whether there was one.
    pub(super) fn unlink(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.io("unlink", name, error)),
        }
    }

    fn allocate(&self, file: &File, name: &str, size: usize) -> Result<()> {
        #[cfg(target_os = "linux")]
        if size > 0 {
            match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size as u64) {
                // Where the file system cannot allocate ahead, writing finds out.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(self.io("allocate", name, error)),
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (file, name, size);
        Ok(())
    }

    pub(super) fn io(&self, operation: &'static str, name: &str, error: impl Into<std::io::Error>) -> Error {
        Error::io(operation, self.shown(name), error)
    }

    fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

fn check_private(path: &str, stat: &Stat) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
    if !is_own(stat) {
        let expected = format!("a directory owned by user {}", rustix::process::geteuid().as_raw());
        return Err(refused(path, expected, format!("one owned by user {}", stat.st_uid)));
    }
    if mode & OTHERS != 0 {
        let expected = "a directory closed to group and others (chmod 700)";
        return Err(refused(path, expected, format!("mode {mode:03o}")));
    }
    Ok(())
}

fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn refused(path: &str, expected: impl Into<crate::error::Text>, found: String) -> Error {
    Error::Store { path: path.to_owned(), expected: expected.into(), found }
}

/// A name that no published file has and no other writer uses.
fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!(".tmp-{}-{count}-{:x}", std::process::id(), now.as_nanos())
}
