//! framecache: a cache whose values are written once into a frame and read in place.
//!
//! A value is encoded into a [frame]: a small header and a payload. The frame lives in a [buffer], is kept by a
//! [store], and is read as views of its own bytes: [codec]s rebuild only what they must. `CONTRIBUTING.md` shows how
//! the modules fit together; `proto-docs/` specifies what is written, byte by byte.
//!
//! The crate is plain Rust. The feature `python` adds the extension module of the Python package.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics"))]

#[allow(unsafe_code)]
pub mod alloc;
pub mod buffer;
pub mod bytestorage;
mod checksum;
pub mod codec;
pub mod compress;
pub mod crypto;
pub mod epoch;
pub mod error;
pub mod fork;
pub mod frame;
pub mod key;
pub mod l1;
pub mod memory;
mod random;
pub mod remote;
pub mod store;
pub mod stream;

#[cfg(feature = "python")]
mod call;
#[cfg(feature = "python")]
mod cpython;
#[cfg(target_arch = "x86_64")]
mod processor;
#[cfg(feature = "python")]
mod python;

pub use error::{Error, Refusal, Result};

/// The extension module, for programs that embed an interpreter.
#[cfg(feature = "python")]
pub use python::_framecache;

#[cfg(feature = "python")]
#[global_allocator]
static ALLOCATOR: alloc::PyMemAllocator = alloc::PyMemAllocator::new();
