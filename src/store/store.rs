//! The store: a directory, how it was opened, and the index that it shares.

use super::directory::Directory;
use super::epochs::LastStamp;
use super::index::{Counter, Opened};
use super::options::Options;
use crate::error::Result;
use crate::fork::PerProcess;
use crate::key::Namespace;
use std::path::Path;

/// A directory of entries, shared by all processes of one user on this machine.
///
/// Cheap to open more than once: one process has one index of a directory. Everything but opening and writing is safe to
/// do with locks held: readers wait for nobody.
pub struct Store {
    directory: Directory,
    pub(super) options: Options,
    pub(super) namespace: Namespace,
    pub(super) opened: PerProcess<Opened>,
    pub(super) counts: Counts,
    pub(super) last_stamp: LastStamp,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) dropped: Counter,
    pub(super) evicted: Counter,
    pub(super) expired: Counter,
    pub(super) damaged: Counter,
}

impl Store {
    /// Opens the store in `path`, as [`Directory::open`] opens that, creating it if it is not there.
    ///
    /// # Errors
    /// [`Error::Store`] for a directory that is not private or not a store, one of a newer format, one on a file system
    /// of another machine, one in use from another PID namespace, and options that differ from those it was made with;
    /// [`Error::Busy`] where another process has been opening it for 10 seconds; [`Error::Io`]; [`Error::Argument`].
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let directory = Directory::open_as(path, !options.read_only)?;
        let namespace = Namespace::new(&options.namespace)?;
        let (counts, last_stamp) = (Counts::default(), LastStamp::default());
        let store = Self { directory, options, namespace, opened: PerProcess::new(), counts, last_stamp };
        store.index()?;
        Ok(store)
    }

    /// The path it was opened at.
    pub fn path(&self) -> &str {
        self.directory.path()
    }

    /// What it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn index(&self) -> Result<&Opened> {
        self.opened.get_or_try_make(|| Opened::open(&self.directory, &self.options))
    }

    pub(super) fn name_of(&self, key: &str) -> Result<[u8; 32]> {
        Ok(*self.namespace.name_of(key)?.as_bytes())
    }
}
