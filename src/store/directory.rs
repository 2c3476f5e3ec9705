//! The directory of a store: opened once, checked, and from then on the only way to its files.

use crate::error::{Error, Result};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

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
        Self::open_as(path, true)
    }

    /// As [`Self::open`], or of an existing directory only.
    pub(super) fn open_as(path: &Path, create: bool) -> Result<Self> {
        let shown = path.display().to_string();
        if create
            && let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
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

    /// Opens the directory `name` inside of it, creating it.
    pub(super) fn inside(&self, name: &str) -> Result<Self> {
        match rustix::fs::mkdirat(&self.descriptor, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(error) => return Err(self.io("create directory", name, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())
            .map_err(|error| self.io("open directory", name, error))?;
        Ok(Self { descriptor, path: self.shown(name) })
    }

    /// Another descriptor of the same directory.
    pub(super) fn try_clone(&self) -> Result<Self> {
        let descriptor = self.descriptor.try_clone().map_err(|error| self.io("duplicate", ".", error))?;
        Ok(Self { descriptor, path: self.path.clone() })
    }

    /// A path to a file in it that holds as long as the descriptor is open.
    pub(super) fn path_to(&self, name: &str) -> String {
        let descriptor = self.descriptor.as_raw_fd();
        let inside = format!("/proc/self/fd/{descriptor}");
        if std::fs::exists(&inside).unwrap_or(false) { format!("{inside}/{name}") } else { self.shown(name) }
    }

    /// Device and inode: what it is, whatever its path.
    pub(super) fn identity(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.descriptor).map_err(|error| self.io("stat", ".", error))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Refuses file systems of other machines: their locks and mappings are not shared as a store needs it.
    pub(super) fn check_local(&self) -> Result<()> {
        let stat = rustix::fs::fstatfs(&self.descriptor).map_err(|error| self.io("stat file system", ".", error))?;
        match REMOTE.iter().find(|(magic, _)| i128::from(*magic) == i128::from(stat.f_type)) {
            None => Ok(()),
            Some((_, name)) => Err(refused(
                &self.path,
                "a local file system, whose locks and mappings all processes share",
                format!("{name}; use a directory on a local disk or tmpfs"),
            )),
        }
    }

    /// The names in it, except `.` and `..`.
    pub(super) fn names(&self) -> Result<Names> {
        let failed = |error| self.io("list", ".", error);
        // A reopened descriptor has a position of its own.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty()).map_err(failed)?;
        rustix::fs::Dir::new(descriptor).map(Names).map_err(failed)
    }

    /// Opens the file `name` to read; `None` where there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<(File, u64)>> {
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
        Ok(Some((File::from(descriptor), stat.st_size.unsigned_abs())))
    }

    /// Opens the file `name` to read and write, creating it.
    pub(super) fn open_or_create(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.descriptor, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| self.io("open", name, error))
    }

    /// Opens the file `name` to read and write, at least `size` bytes long and allocated as far: storing into its mapping
    /// never meets a full disk.
    pub(super) fn allocated(&self, name: &str, size: u64) -> Result<File> {
        let file = File::from(self.open_or_create(name)?);
        self.fill(&file, name, size)?;
        Ok(file)
    }

    /// Makes the open file `name` at least `size` bytes long, and allocates them, where the file system can.
    pub(super) fn fill(&self, file: &File, name: &str, size: u64) -> Result<()> {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(self.io("allocate", name, error)),
        }
        let length = file.metadata().map_err(|error| self.io("stat", name, error))?.len();
        file.set_len(length.max(size)).map_err(|error| self.io("extend", name, error))
    }

    /// Creates the file `name`, of `size` bytes that are allocated: a full disk is an error before the first is written.
    pub(super) fn create(&self, name: &str, size: u64) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| self.io("create", name, error))?;
        let file = File::from(descriptor);
        match self.allocate(&file, name, size) {
            Ok(()) => Ok(file),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.unlink(name);
                Err(error)
            }
        }
    }

    /// Whether its disk has less room than one large page of memory: where a write was cut short, that is why.
    pub(super) fn is_on_a_full_disk(&self) -> bool {
        let free = rustix::fs::fstatvfs(&self.descriptor).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        free.is_ok_and(|free| free < 2 << 20)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.descriptor, from, &self.descriptor, to).map_err(|error| self.io("rename", to, error))
    }

    /// Makes what was created, renamed and unlinked in it reach the disk.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.descriptor).map_err(|error| self.io("synchronize", ".", error))
    }

    /// Unlinks the file `name`; whether there was one.
    pub(super) fn unlink(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.io("unlink", name, error)),
        }
    }

    /// Allocates a file's first `size` bytes, where the file system can; elsewhere writing finds out. The file is as long
    /// as before.
    pub(super) fn allocate(&self, file: &File, name: &str, size: u64) -> Result<()> {
        self.reserve(file, name, 0, size)
    }

    /// As [`Self::allocate`], of `size` bytes from `start` on.
    pub(super) fn reserve(&self, file: &File, name: &str, start: u64, size: u64) -> Result<()> {
        #[cfg(target_os = "linux")]
        if size > 0 {
            match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, start, size) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(self.io("allocate", name, error)),
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (file, name, start, size);
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

pub(super) fn refused(path: &str, expected: impl Into<crate::error::Text>, found: String) -> Error {
    Error::Store { path: path.to_owned(), expected: expected.into(), found }
}

/// File systems of other machines, by the number that `statfs` gives.
const REMOTE: [(u64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x5346_414f, "AFS"),
    (0x7461_636f, "OCFS2"),
];

/// The names in a directory.
pub(super) struct Names(rustix::fs::Dir);

impl Iterator for Names {
    type Item = String;

    /// Names that are not UTF-8 come with replacement characters, and so as names that no file of a store has.
    fn next(&mut self) -> Option<String> {
        loop {
            // What cannot be listed is as good as absent; the next listing begins anew.
            let entry = self.0.next()?.ok()?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => return Some(String::from_utf8_lossy(name).into_owned()),
            }
        }
    }
}
