//! This machine's tier: blob files in a private directory, shared by every process of one user.
//!
//! One file is one frame. It is written to a temporary name, renamed, and never changed or truncated afterwards, so
//! that a mapping of it stays valid for as long as anybody holds it; replacing and deleting only unlink. Trust rests
//! on the [directory](Directory): owned by the effective user and closed to everybody else.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! use framecache::frame::Header;
//! use framecache::store::{BlobStore, Lookup};
//! let store = BlobStore::open(&directory.path().join("cache"))?;
//! store.put("greeting", Header::new("raw"), b"hello".as_slice())?;
//! let Lookup::Hit { frame, header, payload } = store.get("greeting", 0)? else { panic!("a miss") };
//! assert_eq!((header.codec.as_str(), &frame[payload..]), ("raw", b"hello".as_slice()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
mod directory;

pub use blob::{BlobStore, Lookup, MAPPED_ABOVE, Miss};
pub use directory::Directory;
