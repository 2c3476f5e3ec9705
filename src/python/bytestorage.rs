//! `framecache.ByteStorage`.

use super::detached;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::bytestorage::{self, Envelope, MAX_COMPRESSED, MAX_ENVELOPE, MAX_RATIO, MAX_UNCOMPRESSED};
use crate::error::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// Puts bytes into cachekit's envelopes and takes them out: LZ4 with a checksum, under limits that no envelope can
/// exceed whatever it says.
///
/// Args:
///     default_format: what `store` says that its data is, unless it is told.
#[pyclass(frozen, module = "framecache")]
pub(super) struct ByteStorage {
    default_format: String,
}

#[pymethods]
impl ByteStorage {
    /// The most bytes that `store` takes and `retrieve` gives: 512 MiB.
    #[classattr]
    const MAX_UNCOMPRESSED_SIZE: usize = MAX_UNCOMPRESSED;
    /// The longest compressed data in an envelope: 512 MiB.
    #[classattr]
    const MAX_COMPRESSED_SIZE: usize = MAX_COMPRESSED;
    /// The longest envelope: 512 MiB.
    #[classattr]
    const MAX_ENVELOPE_SIZE: usize = MAX_ENVELOPE;
    /// How many bytes a byte of compressed data may become: 1000.
    #[classattr]
    const MAX_COMPRESSION_RATIO: usize = MAX_RATIO;

    #[new]
    #[pyo3(signature = (default_format="msgpack"))]
    fn new(default_format: &str) -> Self {
        Self { default_format: default_format.to_owned() }
    }

    /// An envelope of `data`, which cachekit 0.17 to 0.24 read.
    ///
    /// Data that may change while it is read (anything but `bytes`, a `Frame`, and views of these) is copied first.
    /// Raises `ValueTooLarge` for more than 512 MiB.
    #[pyo3(signature = (data, format=None))]
    fn store<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        format: Option<&str>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let format = format.unwrap_or(&self.default_format);
        let input = Input::from(data)?;
        let copy;
        let bytes = match input.fixed(data) {
            Some(bytes) => bytes,
            None => {
                copy = input.to_frame()?;
                &copy
            }
        };
        let sealed = detached(py, bytes.len(), || guard(|| Ok(bytestorage::seal(bytes, format)?)))?;
        Frame::from(sealed).tobytes(py)
    }

    /// The data of an envelope, as a read-only `memoryview` of the memory it was decompressed into, and its format.
    ///
    /// Envelopes of all versions of cachekit are read. Those that may change while they are read are copied first.
    /// Raises `DecodeError`, a `ValueError`, for one that is damaged, beyond the limits, or of another form.
    fn retrieve<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyMemoryView>, String)> {
        let input = Input::from(envelope)?;
        // A checksum makes nothing trusted.
        let origin = if let Input::Frame(frame) = &input { frame.origin() } else { Origin::Foreign };
        let (data, format) = opened(py, envelope, &input)??;
        Ok((Frame::from(FrameBuf::from_aligned(data, origin).copied()).into_memoryview(py)?, format))
    }

    /// Whether `retrieve` would give the data.
    fn validate(&self, py: Python<'_>, envelope: &Bound<'_, PyAny>) -> PyResult<bool> {
        match opened(py, envelope, &Input::from(envelope)?)? {
            Ok(_) => Ok(true),
            Err(Error::Decode { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn __repr__(&self) -> String {
        format!("framecache.ByteStorage({:?})", self.default_format)
    }
}

fn opened<'py>(
    py: Python<'py>,
    object: &Bound<'py, PyAny>,
    input: &Input<'_, 'py>,
) -> PyResult<Result<(AlignedBuf, String)>> {
    let copy;
    let bytes = match input.fixed(object) {
        Some(bytes) => bytes,
        None => {
            copy = input.to_frame()?;
            &copy
        }
    };
    let envelope = match detached(py, bytes.len(), || guard(|| Ok(Envelope::parse(bytes))))? {
        Ok(envelope) => envelope,
        Err(error) => return Ok(Err(error)),
    };
    let data = detached(py, envelope.size(), || guard(|| Ok(envelope.open())))?;
    Ok(data.map(|data| (data, envelope.format().to_owned())))
}
