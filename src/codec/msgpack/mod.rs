//! The msgpack codec: Python values as MessagePack, exactly.
//!
//! `proto-docs/msgpack.md` specifies it byte by byte. [`Types::Plain`] is MessagePack that any language reads, and
//! refuses what that has no form for. [`Types::Python`] adds extension types, one for each Python type that is kept,
//! with the codes in [`code`]; a dict never stands for anything else. What is decoded has the type and value of what
//! was encoded; identity is not kept.
//!
//! Classes of the application are never looked up by name: the reader registers them (`framecache._registry`).

mod classes;
mod decode;
mod decode_types;
mod encode;
mod encode_types;
mod fault;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// The codec's name.
pub(crate) const MSGPACK: &str = "msgpack";
/// How deep values may be nested.
pub(crate) const MAX_DEPTH: u32 = 1024;
/// The default bound on an int beyond 64 bits, in bytes.
pub(crate) const MAX_INT_BYTES: usize = 4096;
/// `bytes` from this size on can come back as views.
pub(crate) const VIEWS_FROM: usize = 64 * 1024;
/// Array data from this size on stands at a multiple of 64 in the payload.
pub(crate) const ALIGNED_FROM: usize = 4096;
/// More keys of one dict or set than this with one hash are refused: looking them up takes time in proportion to their
/// square.
pub(crate) const MAX_EQUAL_HASHES: usize = 64;

/// Which types are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Types {
    /// MessagePack's own.
    Plain,
    /// Those, and Python's as extension types.
    Python,
}

/// The codes of the extension types. Those up to [`LAST`](code::LAST) are this codec's.
pub(crate) mod code {
    pub(crate) const TUPLE: i8 = 1;
    pub(crate) const SET: i8 = 2;
    pub(crate) const FROZENSET: i8 = 3;
    pub(crate) const INT: i8 = 4;
    pub(crate) const SURROGATES: i8 = 5;
    pub(crate) const BYTEARRAY: i8 = 6;
    pub(crate) const COMPLEX: i8 = 7;
    pub(crate) const DECIMAL: i8 = 8;
    pub(crate) const FRACTION: i8 = 9;
    pub(crate) const DATETIME: i8 = 10;
    pub(crate) const DATE: i8 = 11;
    pub(crate) const TIME: i8 = 12;
    pub(crate) const TIMEDELTA: i8 = 13;
    pub(crate) const UUID: i8 = 14;
    pub(crate) const PATH: i8 = 15;
    pub(crate) const IP: i8 = 16;
    pub(crate) const RANGE: i8 = 17;
    pub(crate) const SLICE: i8 = 18;
    pub(crate) const ENUM: i8 = 19;
    pub(crate) const NAMEDTUPLE: i8 = 20;
    pub(crate) const DATACLASS: i8 = 21;
    pub(crate) const OBJECT: i8 = 22;
    pub(crate) const ARRAY: i8 = 23;
    pub(crate) const SCALAR: i8 = 24;
    /// Reserved up to here.
    pub(crate) const LAST: i8 = 63;
}
