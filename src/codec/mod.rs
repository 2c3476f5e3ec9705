//! Codecs: from values to payloads and back.
//!
//! `raw` needs no code: its payload is the bytes themselves (`[u8]` is a [`Payload`](crate::frame::Payload)).

pub mod arrow;
#[cfg(feature = "python")]
pub(crate) mod json;
#[cfg(feature = "python")]
pub(crate) mod msgpack;
#[cfg(feature = "python")]
pub(crate) mod path;

/// The name of the codec whose payload is the value's own bytes.
pub const RAW: &str = "raw";
/// The name of the codec whose payload is an Arrow IPC file.
pub const ARROW: &str = "arrow";
