//! The stamp: what a directory is, who may use it, and whether what it holds can still be believed.
//!
//! `proto-docs/store.md` specifies its lines. Every user of the store holds a shared lock (`flock`) on it for as long as
//! the store is open; who gets the exclusive one is alone, and may make, adopt or empty the store.

use super::process::{boot_id, pid_namespace};
use crate::error::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// The format that this module reads and writes. 1 had one blob file per key and no stamp.
pub(super) const FORMAT: u32 = 2;

/// How long opening waits for another process that is just opening the store.
const OPENING: Duration = Duration::from_secs(10);

/// How often a store may have been opened without success before it is emptied.
pub(super) const MOST_STARTS: u32 = 2;

/// The longest stamp that is read.
const LONGEST: usize = 4096;

/// How the index file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexMode {
    /// With `write`: the file is as long as it needs to be.
    #[default]
    Pwrite,
    /// In its mapping, 4 times faster: the file is allocated whole, at a fixed size.
    WriteMap,
}

/// What survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What was stored survives the death of any process, not that of the machine: after a restart the store is empty.
    #[default]
    Process,
    /// What was stored survives power failures too: each write waits for the disk.
    Power,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) boot: String,
    pub(super) namespace: u64,
    pub(super) map_size: u64,
    pub(super) index: IndexMode,
    pub(super) durability: Durability,
    /// How often it was opened without getting as far as reading it.
    pub(super) starts: u32,
}

impl Stamp {
    /// The stamp of a store made here and now.
    pub(super) fn new(map_size: u64, index: IndexMode, durability: Durability) -> Self {
        Self { boot: boot_id(), namespace: pid_namespace(), map_size, index, durability, starts: 0 }
    }

    pub(super) fn to_text(&self) -> String {
        let index = if self.index == IndexMode::WriteMap { "writemap" } else { "pwrite" };
        let durability = if self.durability == Durability::Power { "power" } else { "process" };
        format!(
            "framecache store\nformat {FORMAT}\nboot {}\nnamespace {}\nmap {}\nindex {index}\ndurability {durability}\n\
             starts {}\n",
            self.boot, self.namespace, self.map_size, self.starts
        )
    }

    /// # Errors
    /// [`Error::Store`] for text that is no stamp, and for a format that is newer.
    pub(super) fn parse(text: &str, path: &str) -> Result<Self> {
        let wrong = |expected: &'static str, found: String| Error::Store {
            path: path.to_owned(),
            expected: expected.into(),
            found,
        };
        let mut lines = text.lines();
        if lines.next() != Some("framecache store") {
            return Err(wrong("a stamp that begins with 'framecache store'", format!("{:.40?}", text)));
        }
        let mut field = |name: &'static str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.ok_or_else(|| wrong("a complete stamp", format!("none of its line '{name}'")))
        };
        let number =
            |text: &str| text.parse::<u64>().map_err(|_| wrong("a number in the stamp", format!("{text:.40?}")));
        let format = number(field("format")?)?;
        if format != u64::from(FORMAT) {
            return Err(wrong(
                "a store of format 2, or an older one",
                format!("format {format}, of a newer framecache"),
            ));
        }
        let (boot, namespace, map_size) = (field("boot")?, number(field("namespace")?)?, number(field("map")?)?);
        let index = match field("index")? {
            "pwrite" => IndexMode::Pwrite,
            "writemap" => IndexMode::WriteMap,
            other => return Err(wrong("index 'pwrite' or 'writemap' in the stamp", format!("{other:.40?}"))),
        };
        let durability = match field("durability")? {
            "process" => Durability::Process,
            "power" => Durability::Power,
            other => return Err(wrong("durability 'process' or 'power' in the stamp", format!("{other:.40?}"))),
        };
        let starts = u32::try_from(number(field("starts")?)?).unwrap_or(u32::MAX);
        Ok(Self { boot: boot.to_owned(), namespace, map_size, index, durability, starts })
    }
}

/// The open stamp file.
#[derive(Debug)]
pub(super) struct StampFile(OwnedFd);

/// Which lock on the stamp was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nobody else has the store open.
    Alone,
    /// Others do.
    Shared,
}

impl StampFile {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Takes the exclusive lock, or the shared one as soon as nobody has the other.
    ///
    /// # Errors
    /// [`Error::Busy`] where another process has been opening the store for 10 seconds.
    pub(super) fn lock(&self, path: &str) -> Result<Use> {
        self.take(&[Use::Alone, Use::Shared], path, OPENING)
    }

    /// Takes the shared lock only; who has the exclusive one has neither for a moment.
    ///
    /// # Errors
    /// Those of [`Self::lock`].
    pub(super) fn lock_shared(&self, path: &str) -> Result<Use> {
        self.take(&[Use::Shared], path, OPENING)
    }

    /// Whether nobody else has the store open. Any lock is lost by asking.
    pub(super) fn is_alone(&self) -> bool {
        flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    fn take(&self, usages: &[Use], path: &str, timeout: Duration) -> Result<Use> {
        let deadline = Instant::now() + timeout;
        loop {
            for usage in usages {
                let operation = match usage {
                    Use::Alone => FlockOperation::NonBlockingLockExclusive,
                    Use::Shared => FlockOperation::NonBlockingLockShared,
                };
                match flock(&self.0, operation) {
                    Ok(()) => return Ok(*usage),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(Error::io("lock", format!("{path}/stamp"), error)),
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Busy { path: path.to_owned(), operation: "open", waited: timeout });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it says; `None` for an empty file.
    pub(super) fn read(&self, path: &str) -> Result<Option<Stamp>> {
        let mut buffer = [0; LONGEST];
        let mut filled = 0;
        loop {
            match rustix::io::pread(&self.0, &mut buffer[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("read", format!("{path}/stamp"), error)),
            }
        }
        let text = String::from_utf8_lossy(&buffer[..filled]);
        if text.is_empty() { Ok(None) } else { Stamp::parse(&text, path).map(Some) }
    }

    /// Makes it say what it said before; `None` for nothing.
    pub(super) fn restore(&self, stamp: Option<&Stamp>, path: &str) -> Result<()> {
        match stamp {
            Some(stamp) => self.write(stamp, path),
            None => {
                rustix::fs::ftruncate(&self.0, 0).map_err(|error| Error::io("write", format!("{path}/stamp"), error))
            }
        }
    }

    /// Replaces what it says. Only by who is alone.
    pub(super) fn write(&self, stamp: &Stamp, path: &str) -> Result<()> {
        let text = stamp.to_text();
        let failed = |error: Errno| Error::io("write", format!("{path}/stamp"), error);
        let mut written = 0;
        while written < text.len() {
            match rustix::io::pwrite(&self.0, &text.as_bytes()[written..], written as u64) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        rustix::fs::ftruncate(&self.0, text.len() as u64).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        for (index, durability) in [(IndexMode::Pwrite, Durability::Power), (IndexMode::WriteMap, Durability::Process)]
        {
            let stamp = Stamp { starts: 7, ..Stamp::new(1 << 36, index, durability) };
            assert_eq!(Stamp::parse(&stamp.to_text(), "p").unwrap(), stamp);
        }
    }

    #[test]
    fn what_is_no_stamp_of_this_format_is_refused_with_the_reason() {
        let text = Stamp::new(1, IndexMode::Pwrite, Durability::Process).to_text();
        for (from, to, reason) in [
            ("framecache store", "something else", "begins with"),
            ("format 2", "format 3", "newer"),
            ("boot ", "b ", "'boot'"),
            ("map 1", "map x", "a number"),
            ("pwrite", "quick", "'pwrite' or 'writemap'"),
            ("durability process", "durability none", "'process' or 'power'"),
        ] {
            let error = Stamp::parse(&text.replacen(from, to, 1), "p").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn who_may_only_read_waits_no_longer_than_others_for_who_opens_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let path = directory.path().join("stamp");
            StampFile::new(std::fs::File::options().create(true).append(true).open(path).unwrap().into())
        };
        let (opening, reader, other) = (open(), open(), open());
        assert_eq!(opening.lock("p").unwrap(), Use::Alone);
        for usages in [[Use::Shared].as_slice(), &[Use::Alone, Use::Shared]] {
            let waited = reader.take(usages, "p", Duration::from_millis(5));
            assert!(matches!(waited, Err(Error::Busy { operation: "open", .. })), "{waited:?}");
        }
        opening.lock_shared("p").unwrap();
        assert_eq!((reader.lock_shared("p").unwrap(), other.lock("p").unwrap()), (Use::Shared, Use::Shared));
    }
}
