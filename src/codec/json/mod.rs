//! The json codec: Python values as JSON (RFC 8259), and back.
//!
//! The interface is that of orjson 3.13, which `framecache.json` describes; JSON keeps fewer types than the msgpack
//! codec, so that values are written this way only where the caller says so.
//!
//! Reading: [`decode`] is one loop over the text, straight to Python objects; [`text`] (with `unescape`) and [`number`]
//! (with [`float`]) read the leaves.
//! Writing: [`encode`] dispatches on exact types; [`containers`] writes lists and dicts, [`keys`] dicts whose keys need
//! work, [`escape`] strings ([`transcode`] those with escapes and those that are not ASCII), [`digits`] integers,
//! [`shortest`] floats, [`types`] everything rarer, [`dates`] and [`numpy`] what their names say. [`block`] looks at 16
//! bytes and more at once.

mod block;
mod containers;
mod dates;
mod decode;
mod digits;
mod encode;
mod escape;
mod fault;
mod float;
mod keys;
mod number;
mod numpy;
mod shortest;
mod text;
mod transcode;
mod types;
#[cfg(target_arch = "x86_64")]
mod unescape;

pub(crate) use decode::{Decoder, Invalid};
pub(crate) use encode::{Encoder, Failure};
pub(crate) use types::Fragment;

/// The codec's name.
pub(crate) const JSON: &str = "json";
/// How deep a text may be nested.
const MAX_READ_DEPTH: usize = 1024;
/// How deep a value may be nested, and how many calls of `default` may follow on one another.
const MAX_WRITE_DEPTH: u32 = 254;

/// What `option=` consists of.
pub(crate) mod option {
    pub(crate) const INDENT_2: u32 = 1;
    pub(crate) const NAIVE_UTC: u32 = 1 << 1;
    pub(crate) const NON_STR_KEYS: u32 = 1 << 2;
    pub(crate) const OMIT_MICROSECONDS: u32 = 1 << 3;
    pub(crate) const SERIALIZE_NUMPY: u32 = 1 << 4;
    pub(crate) const SORT_KEYS: u32 = 1 << 5;
    pub(crate) const STRICT_INTEGER: u32 = 1 << 6;
    pub(crate) const UTC_Z: u32 = 1 << 7;
    pub(crate) const PASSTHROUGH_SUBCLASS: u32 = 1 << 8;
    pub(crate) const PASSTHROUGH_DATETIME: u32 = 1 << 9;
    pub(crate) const APPEND_NEWLINE: u32 = 1 << 10;
    pub(crate) const PASSTHROUGH_DATACLASS: u32 = 1 << 11;
    /// What is on by default and has no bit of its own.
    pub(crate) const NONE: u32 = 0;
    /// All bits that mean something.
    pub(crate) const ALL: u32 = (1 << 12) - 1;

    /// The names under which Python has them.
    pub(crate) const NAMES: [(&str, u32); 14] = [
        ("OPT_APPEND_NEWLINE", APPEND_NEWLINE),
        ("OPT_INDENT_2", INDENT_2),
        ("OPT_NAIVE_UTC", NAIVE_UTC),
        ("OPT_NON_STR_KEYS", NON_STR_KEYS),
        ("OPT_OMIT_MICROSECONDS", OMIT_MICROSECONDS),
        ("OPT_PASSTHROUGH_DATACLASS", PASSTHROUGH_DATACLASS),
        ("OPT_PASSTHROUGH_DATETIME", PASSTHROUGH_DATETIME),
        ("OPT_PASSTHROUGH_SUBCLASS", PASSTHROUGH_SUBCLASS),
        ("OPT_SERIALIZE_DATACLASS", NONE),
        ("OPT_SERIALIZE_NUMPY", SERIALIZE_NUMPY),
        ("OPT_SERIALIZE_UUID", NONE),
        ("OPT_SORT_KEYS", SORT_KEYS),
        ("OPT_STRICT_INTEGER", STRICT_INTEGER),
        ("OPT_UTC_Z", UTC_Z),
    ];
}
