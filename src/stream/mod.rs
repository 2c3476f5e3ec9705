//! Frames larger than memory: a payload in chunks, each compressed and sealed on its own.
//!
//! A [`StreamWriter`] takes the payload a piece at a time and writes chunks in order, worked on in parallel; what it
//! writes never goes back, so that any [`io::Write`](std::io::Write) will do. The index comes last: it names number and
//! lengths of the chunks, and is read before any of them. A [`StreamReader`] reads the payload from the start or from
//! anywhere. What both take is a [part](crate::memory::StreamingProcessor::part) of a budget in bytes, however long the
//! payload is. `proto-docs/stream.md` specifies the bytes.
//!
//! ```
//! use framecache::buffer::{FrameBuf, Origin};
//! use framecache::compress::Compression;
//! use framecache::crypto::{Keyring, MasterKey, Times};
//! use framecache::frame::Header;
//! use framecache::stream::{Access, StreamOptions, StreamReader, StreamWriter};
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! let keyring = Keyring::new(MasterKey::from_bytes(&[7; 32])?, Vec::new())?;
//! let access = Access::Sealed { keyring: &keyring, tenant: "default" };
//! let options = StreamOptions { compression: Compression::Lz4, ..StreamOptions::default() };
//! let mut writer = StreamWriter::new(Vec::new(), "big", Header::new("raw"), Times::default(), access, &options)?;
//! for _ in 0..100_000 {
//!     writer.write_all(b"a line of a large text\n")?;
//! }
//! let (frame, summary) = writer.finish()?;
//! assert!(summary.payload == 2_300_000 && frame.len() < 100_000);
//! let frame = FrameBuf::copy_of(&frame, Origin::Foreign)?;
//! let mut reader = StreamReader::open(frame, "big", access, &options)?;
//! let mut text = [0; 22];
//! reader.read_exact_at(23 * 70_000, &mut text)?;
//! assert_eq!(&text, b"a line of a large text");
//! assert_eq!(reader.read_to_end(&mut Vec::new())?, 2_300_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunk;
mod index;
mod reader;
mod scan;
mod table;
mod writer;

pub use index::{Fault, Index, MAX_INDEX};
pub use reader::StreamReader;
pub use scan::TableScan;
pub use table::TableWriter;
pub use writer::{StreamWriter, Summary};

use crate::compress::Compression;
use crate::crypto::{Keyring, STREAM_CODEC};
use crate::error::{Error, Result};
use crate::frame;
use crate::memory::StreamingProcessor;
use std::sync::{Arc, LazyLock};

/// The codec of streams that are not sealed.
pub const CODEC: &str = "stream";
/// Bytes of payload in a chunk, where nothing else is said: 1 MiB.
pub const CHUNK: usize = 1 << 20;
/// The fewest and the most bytes of payload in a chunk: 4 KiB to 64 MiB, in steps of 64 bytes.
pub const CHUNKS: std::ops::RangeInclusive<usize> = 4096..=64 << 20;

/// The end of every stream: the length of the index, u64 big-endian, and this.
const END_MAGIC: &[u8; 8] = b"CKstream";
/// Bytes of the end.
const END: usize = 16;

/// Whether entries are sealed: the configuration says so, never the entry.
#[derive(Clone, Copy, Debug)]
pub enum Access<'k> {
    /// They are not.
    Plain,
    /// They are, and one that is not is refused.
    Sealed {
        /// The keys.
        keyring: &'k Keyring,
        /// Whose entries they are.
        tenant: &'k str,
    },
}

/// How streams are written and read.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Bytes of payload in a chunk, one of [`CHUNKS`]; of writers only.
    pub chunk_size: usize,
    /// Of each chunk; of writers only. The sizes of compressed chunks tell something of what is in them, sealed or not.
    pub compression: Compression,
    /// The most threads that work on chunks; with 0 the calling thread does it all.
    pub workers: usize,
    /// What the chunks in progress are counted in. A stream takes an eighth of it, less where others have taken theirs.
    pub budget: Arc<StreamingProcessor>,
}

impl Default for StreamOptions {
    /// Chunks of 1 MiB as they are, a worker for each processor, and the budget of this process: 256 MiB.
    fn default() -> Self {
        static BUDGET: LazyLock<Arc<StreamingProcessor>> =
            LazyLock::new(|| Arc::new(StreamingProcessor::with_default_limit()));
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        Self { chunk_size: CHUNK, compression: Compression::None, workers, budget: Arc::clone(&BUDGET) }
    }
}

impl StreamOptions {
    fn check(&self) -> Result<()> {
        if CHUNKS.contains(&self.chunk_size) && self.chunk_size.is_multiple_of(64) {
            return Ok(());
        }
        Err(Error::Argument {
            argument: "chunk_size",
            expected: "4096 to 67108864 bytes, a multiple of 64".into(),
            found: self.chunk_size.to_string(),
        })
    }

    /// What a stream may take whose items cost so much each: room for an item at least.
    fn part(&self, item: usize) -> Result<Arc<StreamingProcessor>> {
        let mut share = (self.budget.limit() / 8).max(item);
        loop {
            if let Some(part) = self.budget.part(share) {
                return Ok(Arc::new(part));
            }
            if share == item {
                return Err(Error::TooLarge {
                    place: "chunk (budget of streams)",
                    bytes: item,
                    limit: self.budget.limit(),
                });
            }
            share = (share / 2).max(item);
        }
    }
}

/// Whether a frame is a stream, sealed or not, as far as its header says.
pub fn is_stream(bytes: &[u8]) -> bool {
    frame::locate_header(bytes).is_ok_and(|json| {
        let codec = frame::Header::parse(&bytes[json]).map(|header| header.codec);
        codec.is_ok_and(|codec| codec == CODEC || codec == STREAM_CODEC)
    })
}
