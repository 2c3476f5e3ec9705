//! The one error of the crate: its kind, what was expected, what was found, and where.
//!
//! The text is made only when it is shown. Rust callers match on the variant; the Python layer turns each
//! variant into one exception class (`python::error`).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

/// Text that is a constant in most errors and computed in some.
pub type Text = Cow<'static, str>;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in framecache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not a frame, or a frame whose header says something impossible.
    #[error("not a valid frame: at offset {offset}, expected {expected}, found {found}")]
    Frame {
        /// Bytes from the start of the frame.
        offset: usize,
        /// What a reader accepts there.
        expected: Text,
        /// What stood there.
        found: String,
    },
    /// A payload that its codec cannot read.
    #[error("cannot decode {codec} payload: {place}: expected {expected}, found {found}")]
    Decode {
        /// The codec's name.
        codec: &'static str,
        /// Where in the payload: a column, a message, an offset.
        place: String,
        /// What a reader accepts there.
        expected: Text,
        /// What stood there.
        found: String,
    },
    /// A value that no codec, or not the one asked for, can write.
    #[error("cannot encode {place}: expected {expected}, found {found}")]
    Encode {
        /// The argument, column or field in question.
        place: String,
        /// What can be written there.
        expected: Text,
        /// What was given.
        found: String,
    },
    /// A read without copying was required and is not possible.
    #[error("reading {place} would copy: {reason}")]
    CopyRequired {
        /// The column, or `payload` where all of it is concerned.
        place: String,
        /// Why the bytes cannot be used where they are.
        reason: Text,
    },
    /// An argument outside its range.
    #[error("{argument}: expected {expected}, got {found}")]
    Argument {
        /// The argument's name.
        argument: &'static str,
        /// Its range.
        expected: Text,
        /// What was given.
        found: String,
    },
    /// A value that is larger than was allowed.
    #[error("{place}: expected at most {limit} bytes, found {bytes}")]
    TooLarge {
        /// What is too large, and what limits it.
        place: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A buffer that cannot change now, because a view of it is exported.
    #[error("{operation}: {views} exported view(s) of the FrameBuilder exist; release them first")]
    Exported {
        /// What was attempted.
        operation: &'static str,
        /// How many views there are.
        views: usize,
    },
    /// Memory that could not be had.
    #[error("cannot allocate {bytes} bytes")]
    Memory {
        /// How many bytes were asked for.
        bytes: usize,
    },
    /// A sealed entry that is not the one that was asked for, as it was sealed.
    #[error("sealed entry refused ({reason}): expected {expected}, found {found}")]
    Refused {
        /// What it is, in a word.
        reason: Refusal,
        /// What is accepted.
        expected: Text,
        /// What was there.
        found: String,
    },
    /// Work on a worker thread that panicked: a defect.
    #[error("defect in framecache, please report it: a worker panicked: {found}")]
    Panicked {
        /// What the panic said.
        found: String,
    },
    /// A store directory that must not be used.
    #[error("store {path}: expected {expected}, found {found}")]
    Store {
        /// The directory.
        path: String,
        /// What a store needs.
        expected: Text,
        /// What is there.
        found: String,
    },
    /// A lock that somebody else holds.
    #[error("store {path}: {operation} waited {waited:?} for another writer; it may be stopped. Try again, or end it")]
    Busy {
        /// The directory.
        path: String,
        /// What was attempted.
        operation: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// A failed system call.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// A [`Error::Frame`].
    pub fn frame(offset: usize, expected: impl Into<Text>, found: impl Into<String>) -> Self {
        Self::Frame { offset, expected: expected.into(), found: found.into() }
    }

    /// A [`Error::Io`].
    pub fn io(operation: &'static str, path: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.into(), source: source.into() }
    }
}

/// Why a sealed entry is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is no sealed frame: whoever wrote it had no key, or was not told to seal.
    NotSealed,
    /// Its master key is not in the keyring. It may be a newer one: such an entry is left where it is.
    NoKey,
    /// Key id, tenant and salt name another key than the one it was sealed with: one of them was changed.
    WrongKey,
    /// It is the entry of another key or another tenant.
    WrongEntry,
    /// Its header is none that sealing writes, or contradicts its payload.
    ChangedHeader,
    /// Its end is missing.
    Truncated,
    /// A byte of header, nonce, ciphertext or tag was changed.
    Changed,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::NotSealed,
        Self::NoKey,
        Self::WrongKey,
        Self::WrongEntry,
        Self::ChangedHeader,
        Self::Truncated,
        Self::Changed,
    ];

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSealed => "not_sealed",
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::WrongEntry => "wrong_entry",
            Self::ChangedHeader => "changed_header",
            Self::Truncated => "truncated",
            Self::Changed => "changed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
