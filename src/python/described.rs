//! What a header says of a value, as Python objects, remembered from entry to entry.
//!
//! Headers of one kind of value differ only from the key on, and what follows it stands in the index too. So the part
//! before it is compared with those of the last few kinds, and no JSON is read. Only for headers that the store wrote.

use super::metadata;
use crate::codec::RAW;
use crate::error::Result;
use crate::frame::{Header, locate_header};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

/// How many kinds are remembered.
const KINDS: usize = 8;
/// The longest part of a header that is remembered, in bytes.
const LONGEST: usize = 512;
/// What follows the part that entries of one kind have in common.
const KEY: &[u8] = b"\"key\": ";

/// The codec of an entry, and what the Python client keeps in its header. The dict is shared: nobody changes it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) codec: Py<PyString>,
    pub(super) python: Py<PyDict>,
    pub(super) kind: Kind,
}

/// Which values need no decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Exact `bytes`.
    Bytes,
    /// A `bytearray`.
    Bytearray,
    /// A one-dimensional memoryview of bytes.
    View,
    /// Anything else.
    Other,
}

impl Described {
    pub(super) fn of(py: Python<'_>, header: &Header) -> PyResult<Self> {
        let python = match &header.python {
            None => PyDict::new(py),
            Some(python) => metadata::parse_object(py, &serde_json::to_string(python).unwrap_or_default())?,
        };
        let kind = match &header.python {
            Some(python) if header.codec == RAW && python.len() == 1 => {
                match python.get("type").and_then(Value::as_str) {
                    Some("bytes") => Kind::Bytes,
                    Some("bytearray") => Kind::Bytearray,
                    Some("memoryview") => Kind::View,
                    _ => Kind::Other,
                }
            }
            _ => Kind::Other,
        };
        Ok(Self { codec: PyString::intern(py, &header.codec).unbind(), python: python.unbind(), kind })
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { codec: self.codec.clone_ref(py), python: self.python.clone_ref(py), kind: self.kind }
    }
}

/// The last few kinds of values.
#[derive(Default)]
pub(super) struct Kinds(Mutex<Known>);

#[derive(Default)]
struct Known {
    kinds: [Option<(Box<[u8]>, Described)>; KINDS],
    next: usize,
}

impl Kinds {
    /// What the header of `frame` says, if its kind is known, and where the payload starts.
    pub(super) fn find(&self, py: Python<'_>, frame: &[u8]) -> Result<Option<(Described, usize)>> {
        let header = locate_header(frame)?;
        Ok(self.find_rest(py, &frame[header.clone()]).map(|(described, _)| (described, header.end)))
    }

    /// Of which kind the value in `frame` is, if that is known, and where the payload starts.
    pub(super) fn kind_of(&self, frame: &[u8]) -> Option<(Kind, usize)> {
        let header = locate_header(frame).ok()?;
        self.known(&frame[header.clone()], |described| described.kind).map(|(kind, _)| (kind, header.end))
    }

    /// What a header says whose kind is known, and what of it follows the part that its kind has in common.
    pub(super) fn find_rest<'j>(&self, py: Python<'_>, json: &'j [u8]) -> Option<(Described, &'j [u8])> {
        self.known(json, |described| described.clone_ref(py))
    }

    /// What `take` makes of the kind that a header begins like, and the rest of that.
    fn known<'j, T>(&self, json: &'j [u8], take: impl FnOnce(&Described) -> T) -> Option<(T, &'j [u8])> {
        // Held with the GIL, for no longer than a comparison.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (described, rest) = known.kinds.iter().flatten().find_map(|(head, described)| {
            let rest = json.strip_prefix(&**head).filter(|rest| rest.starts_with(KEY))?;
            Some((described, rest))
        })?;
        Some((take(described), rest))
    }

    /// Remembers what `header`, which the store wrote into `frame`, was found to say.
    pub(super) fn remember(&self, py: Python<'_>, frame: &[u8], header: &Header, described: &Described) -> Result<()> {
        if header.compression.is_some() {
            return Ok(());
        }
        let common = Header { key: None, length: None, size: None, created: None, until: None, ..header.clone() };
        let mut head = common.to_json();
        head.truncate(head.len().saturating_sub(b"}}".len()));
        if header.python.is_some() {
            head.extend_from_slice(b", ");
        }
        let follows = frame[locate_header(frame)?].strip_prefix(&*head).is_some_and(|rest| rest.starts_with(KEY));
        if !follows || head.len() > LONGEST {
            return Ok(());
        }
        let kind = (head.into_boxed_slice(), described.clone_ref(py));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = known.next;
        let replaced = known.kinds[next].replace(kind);
        known.next = (next + 1) % KINDS;
        drop(known);
        drop(replaced);
        Ok(())
    }
}
