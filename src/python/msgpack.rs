//! `framecache.msgpack`.

use super::error::guard;
use super::frame::Frame;
use super::input::{Input, View};
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::codec::msgpack::{Decoder, Encoder, MAX_DEPTH, MAX_INT_BYTES, MSGPACK, Types};
use crate::cpython::{Sink, Writer};
use crate::error::Error;
use crate::frame::{Draft, Header};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// `value` as MessagePack.
///
/// Args:
///     obj: with `types="python"` any value of the types in proto-docs/msgpack.md; with `types="plain"` None, bool, int
///         of 64 bits, float, str, bytes, list and dict of these.
///     default: called with each object that has no form; what it returns is written in its place.
///     types: `"python"` or `"plain"`.
///     limits: the longest int beyond 64 bits, in bytes, and the longest Decimal, in characters.
#[pyfunction]
#[pyo3(signature = (obj, /, *, default=None, types=None, limits=None))]
pub(super) fn packb<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    default: Option<&Bound<'py, PyAny>>,
    types: Option<&str>,
    limits: Option<isize>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (types, limit) = (types_of(types)?, limit_of(limits)?);
    guard(|| {
        Writer::with(Sink::Bytes, |writer| {
            Encoder::new(py, writer, types, default, limit).encode(obj)?;
            Ok(writer.finish_bytes(py)?)
        })
    })
}

/// The value that `data` is as MessagePack.
///
/// Exact `bytes` and `Frame`s are read in place, memoryviews of them too without `views`; any other buffer is copied
/// first, and with `views` the views stand on that copy.
#[pyfunction]
#[pyo3(signature = (data, /, *, types=None, max_depth=None, ext_hook=None, limits=None, views=false))]
pub(super) fn unpackb<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    types: Option<&str>,
    max_depth: Option<isize>,
    ext_hook: Option<&Bound<'py, PyAny>>,
    limits: Option<isize>,
    views: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let (types, limit) = (types_of(types)?, limit_of(limits)?);
    let max_depth = match max_depth.map(u32::try_from) {
        None => MAX_DEPTH,
        Some(Ok(depth @ 1..=MAX_DEPTH)) => depth,
        Some(_) => {
            return Err(argument("max_depth", format!("1 to {MAX_DEPTH}"), max_depth.unwrap_or_default().to_string()));
        }
    };
    guard(|| {
        let copy: FrameBuf;
        let mut input = Input::from(data)?;
        if input.stable().is_none() && (views || input.fixed(data).is_none()) {
            copy = input.to_frame()?;
            input = Input::Frame(&copy);
        }
        let bytes = input.fixed(data).unwrap_or_default();
        let view_of = |range: std::ops::Range<usize>| Ok(View::part(py, &input, range)?.into_any());
        Decoder::new(py, bytes, types, &view_of)
            .max_depth(max_depth)
            .max_int_bytes(limit)
            .ext_hook(ext_hook)
            .views(views)
            .decode()
    })
}

/// The value that a payload is as MessagePack.
pub(super) fn value_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let copy_of = |range: std::ops::Range<usize>| Ok(PyBytes::new(py, &bytes[range]).into_any());
    Decoder::new(py, bytes, Types::Python, &copy_of).decode()
}

fn types_of(types: Option<&str>) -> PyResult<Types> {
    match types {
        None | Some("python") => Ok(Types::Python),
        Some("plain") => Ok(Types::Plain),
        Some(other) => Err(argument("types", "\"python\" or \"plain\"".to_owned(), format!("{other:?}"))),
    }
}

fn limit_of(limits: Option<isize>) -> PyResult<usize> {
    match limits {
        None => Ok(MAX_INT_BYTES),
        Some(limit) => {
            usize::try_from(limit).map_err(|_| argument("limits", "0 or more".to_owned(), limit.to_string()))
        }
    }
}

fn argument(argument: &'static str, expected: String, found: String) -> PyErr {
    Error::Argument { argument, expected: expected.into(), found }.into()
}

/// `value` as MessagePack in aligned memory.
pub(super) fn payload(value: &Bound<'_, PyAny>) -> PyResult<AlignedBuf> {
    guard(|| append_to(AlignedBuf::default(), value))
}

fn append_to(buffer: AlignedBuf, value: &Bound<'_, PyAny>) -> PyResult<AlignedBuf> {
    Writer::with(Sink::Buffer(buffer), |writer| {
        Encoder::new(value.py(), writer, Types::Python, None, MAX_INT_BYTES).encode(value)?;
        Ok(writer.finish_buffer())
    })
}

/// Appends `value` as MessagePack to a frame under construction.
pub(super) fn write_to(mut draft: Draft, value: &Bound<'_, PyAny>) -> PyResult<Draft> {
    guard(|| {
        draft.buffer = append_to(std::mem::take(&mut draft.buffer), value)?;
        Ok(draft)
    })
}

/// `value` as MessagePack, without a frame's header.
#[pyfunction]
pub(super) fn msgpack_payload(value: &Bound<'_, PyAny>) -> PyResult<Frame> {
    Ok(FrameBuf::from_aligned(payload(value)?, Origin::Trusted).into())
}

/// A frame whose payload is `value` as MessagePack, written where it stays.
#[pyfunction]
pub(super) fn encode_msgpack(value: &Bound<'_, PyAny>) -> PyResult<Frame> {
    guard(|| {
        let draft = write_to(Draft::new(Header::new(MSGPACK))?, value)?;
        Ok(draft.finish()?.into())
    })
}
