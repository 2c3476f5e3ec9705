//! Room on the disk that is given up when there is no other left: deleting and invalidating write too, and must not fail.

use super::directory::Directory;
use super::marks::Marks;
use crate::error::Result;
use std::fs::File;

const SPARE: &str = "spare";
/// Its size: 64 pages of the index.
pub(super) const SPARE_BYTES: u64 = 256 * 1024;

/// A file that is allocated and never read. That it is given up stands in the [`Marks`], for all processes.
#[derive(Debug)]
pub(super) struct Spare(File);

impl Spare {
    /// Opens it; on a full disk it has no room to give up.
    pub(super) fn open(directory: &Directory, marks: &Marks) -> Result<Self> {
        let spare = Self(directory.open_or_create(SPARE)?.into());
        marks.set_spare_given_up(true);
        spare.restore(directory, marks);
        Ok(spare)
    }

    /// Gives its room to whoever writes next; whether there was some. Only who has the right to write.
    pub(super) fn give_up(&self, marks: &Marks) -> bool {
        marks.set_spare_given_up(true);
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        length > 0 && self.0.set_len(0).is_ok()
    }

    /// Takes the room back if it was given up and there is some again; whether it is there.
    pub(super) fn restore(&self, directory: &Directory, marks: &Marks) -> bool {
        if !marks.is_spare_given_up() {
            return true;
        }
        let restored = directory.fill(&self.0, SPARE, SPARE_BYTES).is_ok();
        marks.set_spare_given_up(!restored);
        restored
    }
}
