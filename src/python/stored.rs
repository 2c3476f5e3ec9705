//! What Python gets of an entry of a store: the value where it needs no decoding, else payload, codec and description.

use super::described::{Described, Kind};
use super::frame::Frame;
use super::msgpack;
use super::store::Store;
use crate::buffer::FrameBuf;
use crate::codec::msgpack::MSGPACK;
use crate::crypto;
use crate::error::Result;
use crate::store::{AtHand, Hit, Inline, Lookup, Miss};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// What is made of a frame in the index, while its snapshot lives.
pub(super) enum Short<'py> {
    /// The value.
    Bytes(Bound<'py, PyBytes>),
    /// A copy of the frame.
    Frame(Box<Result<Hit>>),
}

/// What Python gets.
pub(super) enum Shown<'py> {
    /// The value that was stored.
    Value(Bound<'py, PyAny>),
    /// What it has to be decoded from, or why there is none.
    Other(Bound<'py, PyAny>),
}

impl<'py> Shown<'py> {
    /// As `get` returns it.
    pub(super) fn into_object(self) -> Bound<'py, PyAny> {
        match self {
            Self::Value(shown) | Self::Other(shown) => shown,
        }
    }
}

/// How a value is to be shown.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// As a view, where it can be one.
    pub(super) views: bool,
    /// In place: what would have to be copied is an error.
    pub(super) zero_copy: bool,
    /// Decoded, where its codec needs no more than its bytes and they are few.
    pub(super) decoded: bool,
}

/// The longest payload that is decoded at once.
const SMALL: usize = 64 * 1024;

impl Store {
    pub(super) fn inline<'py>(&self, py: Python<'py>, inline: Inline<'_>, in_place: bool) -> Short<'py> {
        if !in_place
            && inline.has_own_header()
            && let Some((Kind::Bytes, start)) = self.kinds.kind_of(inline.frame)
        {
            return Short::Bytes(PyBytes::new(py, inline.frame.get(start..).unwrap_or_default()));
        }
        Short::Frame(Box::new(inline.to_hit()))
    }

    /// Shows what was found; a file is opened without the GIL.
    pub(super) fn at_hand<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        now: u64,
        found: AtHand<Short<'py>>,
        Wanted { views, zero_copy, decoded }: Wanted,
    ) -> PyResult<Shown<'py>> {
        let hit = match self.hit(py, key, now, found)? {
            Ok(hit) => hit,
            Err(shown) => return Ok(shown),
        };
        let known = if hit.own_header { self.kinds.find(py, &hit.frame)? } else { None };
        let (payload, described) = match known {
            Some((described, start)) => (hit.frame.slice(start..)?, described),
            None => self.read_header(py, &hit, zero_copy)?,
        };
        Ok(match described.kind {
            Kind::Bytes if !views && !zero_copy => Shown::Value(PyBytes::new(py, &payload).into_any()),
            Kind::View => Shown::Value(Frame::from(payload).into_memoryview(py)?.into_any()),
            Kind::Bytes | Kind::Bytearray if views => {
                Shown::Value(Frame::from(payload).into_memoryview(py)?.into_any())
            }
            _ => {
                // One that cannot be decoded is looked at once more, by who says why.
                if decoded
                    && !views
                    && payload.len() <= SMALL
                    && described.codec.bind(py) == MSGPACK
                    && let Ok(value) = msgpack::value_of(py, &payload)
                {
                    return Ok(Shown::Value(value));
                }
                let payload = Bound::new(py, Frame::from(payload))?;
                Shown::Other((payload, described.codec, described.python).into_pyobject(py)?.into_any())
            }
        })
    }

    /// As [`Self::at_hand`], the frame as it stands.
    pub(super) fn whole<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        now: u64,
        found: AtHand<Short<'py>>,
    ) -> PyResult<Shown<'py>> {
        Ok(match self.hit(py, key, now, found)? {
            Ok(hit) => Shown::Other(Bound::new(py, Frame::from(hit.frame))?.into_any()),
            Err(shown) => shown,
        })
    }

    /// What `key` has now.
    pub(super) fn show<'py>(&self, py: Python<'py>, key: &str, now: u64, views: bool) -> PyResult<Shown<'py>> {
        let found = self.inner()?.get_at_hand(key, now, |inline| self.inline(py, inline, views))?;
        self.at_hand(py, key, now, found, Wanted { views, zero_copy: false, decoded: true })
    }

    /// The entry, or else what is shown.
    fn hit<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        now: u64,
        found: AtHand<Short<'py>>,
    ) -> PyResult<Result<Hit, Shown<'py>>> {
        let found = match found {
            AtHand::Inline(Short::Bytes(bytes)) => return Ok(Err(Shown::Value(bytes.into_any()))),
            AtHand::Inline(Short::Frame(hit)) => Lookup::Hit((*hit)?),
            AtHand::Found(found) => found,
            AtHand::Elsewhere => self.detached(py, |store| store.get(key, now))?,
        };
        Ok(match found {
            Lookup::Hit(hit) => Ok(hit),
            Lookup::Miss(reason) => Err(Shown::Other(reason_of(py, reason).clone().into_any())),
        })
    }

    fn read_header(&self, py: Python<'_>, hit: &Hit, zero_copy: bool) -> PyResult<(FrameBuf, Described)> {
        let (header, start) = hit.header()?;
        let inner = self.inner()?;
        let payload = match header.compression {
            // What opens it needs all of it.
            None if header.codec == crypto::CODEC => hit.frame.clone(),
            None => hit.frame.slice(start..)?,
            Some(_) => py.detach(|| inner.payload(&hit.frame, &header, start, !zero_copy))?,
        };
        let described = Described::of(py, &header)?;
        if hit.own_header {
            self.kinds.remember(py, &hit.frame, &header, &described)?;
        }
        Ok((payload, described))
    }
}

fn reason_of(py: Python<'_>, reason: Miss) -> &Bound<'_, PyString> {
    match reason {
        Miss::Absent => intern!(py, "absent"),
        Miss::Expired => intern!(py, "expired"),
        Miss::OtherKey => intern!(py, "other_key"),
        Miss::Invalidated => intern!(py, "invalidated"),
        Miss::Damaged => intern!(py, "unreadable"),
    }
}
