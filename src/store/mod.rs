//! This machine's tier: one directory, shared by every process of one user, read without copying.
//!
//! Small frames live in an index (LMDB), larger ones in blob files beside it, which are mapped. Readers take no lock and
//! never wait; a writer waits for other writers, never longer than it was told. A process may be killed at any
//! instruction: what was committed stays, what was not leaves nothing that is ever seen. Trust rests on the
//! [directory](Directory): owned by the effective user and closed to everybody else. `proto-docs/store.md` specifies
//! every file.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! use framecache::frame::{Header, locate_header};
//! use framecache::store::{Lookup, New, Options, Store};
//! let store = Store::open(&directory.path().join("cache"), Options::default())?;
//! let new = New { header: Header::new("raw"), ..New::default() };
//! store.put("greeting", new, b"hello".as_slice(), 0)?;
//! let Lookup::Hit(hit) = store.get("greeting", 0)? else { panic!("a miss") };
//! assert_eq!(&hit.frame[locate_header(&hit.frame)?.end..], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blobs;
mod change;
mod directory;
mod epochs;
mod index;
mod lmdb;
mod look;
mod marks;
mod opening;
mod options;
mod process;
mod read;
mod row;
mod spare;
mod stamp;
#[expect(clippy::module_inception, reason = "the store, of the module that has its parts")]
mod store;
mod stream;
mod upkeep;
mod write;
mod writer_lock;

pub use blobs::MAPPED_ABOVE;
pub use directory::Directory;
pub use look::Terms;
pub use options::{Options, Verify};
pub use read::{AtHand, Hit, Inline, Lookup, Miss};
pub use stamp::{Durability, IndexMode};
pub use store::Store;
pub use stream::EntryWriter;
pub use upkeep::{Stats, Verified};
pub use write::{New, Stored};

/// Frames of up to this many bytes live in the index, larger ones in files.
pub const INLINE_UP_TO: usize = 8 * 1024;

/// Entries below this are checked whole when they are read, larger ones only as far as their header: 1 MiB.
pub const FULLY_CHECKED_BELOW: usize = 1024 * 1024;
