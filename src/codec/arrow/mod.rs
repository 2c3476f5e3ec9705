//! The `arrow` codec: an Arrow IPC *file*, uncompressed, every buffer at a multiple of 64.
//!
//! - [`Table`] is what is written: batches by reference, whose buffers go to the frame or the file from where they
//!   lie.
//! - [`IpcFile`] finds the messages of a payload and [verifies](IpcFile::verify) everything in them that is used as an
//!   address, without reading a value it need not.
//! - [`read`] decodes a verified payload into a [`Table`] over the payload's own memory.
//!
//! Format: <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>.

mod file;
mod import;
mod table;
mod verify;

pub use file::IpcFile;
pub(crate) use import::refused;
pub use table::{Table, TablePayload, read};
pub(crate) use table::{buffer_over, conforms, write_error};

use crate::error::{Error, Text};

/// An [`Error::Decode`] of this codec.
pub(crate) fn malformed(place: impl Into<String>, expected: impl Into<Text>, found: impl Into<String>) -> Error {
    Error::Decode { codec: super::ARROW, place: place.into(), expected: expected.into(), found: found.into() }
}
