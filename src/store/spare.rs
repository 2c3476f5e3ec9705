//! Room on the disk that is given up when there is no other left: deleting and invalidating write too, and must not fail.

use super::directory::Directory;
use crate::error::Result;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

const SPARE: &str = "spare";
/// Its size: 64 pages of the index.
const BYTES: u64 = 256 * 1024;

/// A file that is allocated and never read.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    given_up: AtomicBool,
}

impl Spare {
    /// Opens it; on a full disk it has no room to give up.
    pub(super) fn open(directory: &Directory) -> Result<Self> {
        let spare = Self { file: directory.open_or_create(SPARE)?.into(), given_up: AtomicBool::new(true) };
        spare.restore(directory);
        Ok(spare)
    }

    /// Gives its room to whoever writes next. Only who has the right to write.
    pub(super) fn give_up(&self) {
        // Where this fails, so does what needs the room.
        let _ = self.file.set_len(0);
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Takes the room back that this process gave up, if there is some again.
    pub(super) fn restore(&self, directory: &Directory) {
        if self.given_up.load(Ordering::Relaxed) && directory.fill(&self.file, SPARE, BYTES).is_ok() {
            self.given_up.store(false, Ordering::Relaxed);
        }
    }
}
