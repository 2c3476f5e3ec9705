//! How a store is opened.

use super::directory::refused;
use super::stamp::{Durability, IndexMode, Stamp};
use crate::compress::Compression;
use crate::error::{Error, Result};
use crate::frame;
use std::time::Duration;

/// The size of the index' mapping where nothing else asks for more: address space, not memory or disk.
const MAP_SIZE: u64 = 64 << 30;

/// The size of a preallocated index where none is given.
const INDEX_BYTES: u64 = 256 << 20;

/// The smallest bound that leaves room for the index' own pages.
const LEAST_BYTES: u64 = 256 * 1024;

/// How much of an entry its checksum covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// All of entries below 1 MiB and of compressed ones; of larger ones the header.
    #[default]
    Header,
    /// All of every entry: the first reader in each process pays for it.
    Full,
}

/// How a [`Store`](super::Store) is opened; `..Options::default()` fills in the rest.
#[derive(Clone, Debug)]
pub struct Options {
    /// What index, blobs and reservations may take together, in bytes: 10 GiB.
    pub max_bytes: u64,
    /// What checksums of new entries cover; readers check all that they cover.
    pub verify: Verify,
    /// What survives; as the store was made, if not given.
    pub durability: Option<Durability>,
    /// How the index is written; as the store was made, if not given.
    pub index: Option<IndexMode>,
    /// The size of the index file of [`IndexMode::WriteMap`], allocated when the store is made: 256 MiB, if not given; one
    /// that was made smaller grows to what is given.
    pub index_bytes: Option<u64>,
    /// Nothing is written, not even who reads if the file system cannot be written to.
    pub read_only: bool,
    /// Of new entries.
    pub compression: Compression,
    /// The largest payload that is stored or decompressed: 1 GiB.
    pub max_value: usize,
    /// How long a write waits for another process that writes: 50 ms.
    pub writer_timeout: Duration,
    /// Asked every 50 ms by a write that waits, without locks held: whether it is to give up.
    pub interrupted: Option<fn() -> bool>,
    /// Keys of one namespace are apart from those of all others; at most 1024 bytes of UTF-8.
    pub namespace: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_bytes: 10 << 30,
            verify: Verify::default(),
            durability: None,
            index: None,
            index_bytes: None,
            read_only: false,
            compression: Compression::None,
            max_value: frame::MAX_VALUE,
            writer_timeout: Duration::from_millis(50),
            interrupted: None,
            namespace: String::new(),
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |argument, expected: String, found: String| {
            Err(Error::Argument { argument, expected: expected.into(), found })
        };
        if self.max_bytes < LEAST_BYTES || self.max_bytes > 1 << 46 {
            return wrong("max_bytes", format!("{LEAST_BYTES} bytes to 64 TiB"), self.max_bytes.to_string());
        }
        if let Some(bytes) = self.index_bytes.filter(|bytes| !(LEAST_BYTES..=1 << 40).contains(bytes)) {
            return wrong("index_bytes", format!("{LEAST_BYTES} bytes to 1 TiB"), bytes.to_string());
        }
        Ok(())
    }

    /// The size of the index' mapping that this asks for, where the store has one of `known` bytes.
    pub(super) fn map_size(&self, index: IndexMode, known: Option<u64>) -> u64 {
        let asked = match index {
            IndexMode::Pwrite => MAP_SIZE.max(self.max_bytes.saturating_mul(2)),
            IndexMode::WriteMap => match (self.index_bytes, known) {
                (None, Some(known)) => known,
                (asked, _) => asked.unwrap_or(INDEX_BYTES).next_multiple_of(1 << 16),
            },
        };
        asked.max(known.unwrap_or(0))
    }

    /// Whether a store with that stamp is what was asked for.
    pub(super) fn check_stamp(&self, stamp: &Stamp, path: &str) -> Result<()> {
        let differs = |what: &str| {
            let expected = format!("{what} as the store was made with (or none given)");
            Err(refused(path, expected, "another one; remove the directory to change it".to_owned()))
        };
        if self.index.is_some_and(|index| index != stamp.index) {
            return differs("the index mode");
        }
        if self.durability.is_some_and(|durability| durability != stamp.durability) {
            return differs("the durability");
        }
        if stamp.index == IndexMode::Pwrite && stamp.map_size < self.max_bytes.saturating_mul(2) {
            let expected = format!("max_bytes of at most {} while others have the store open", stamp.map_size / 2);
            return Err(refused(path, expected, format!("{}", self.max_bytes)));
        }
        Ok(())
    }
}
