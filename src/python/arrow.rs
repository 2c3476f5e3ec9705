//! Arrow in and out of Python through the PyCapsule interface, and `framecache.ArrowTable`.
//!
//! <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>
#![allow(unsafe_code)]

use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::metadata;
use crate::buffer::{ALIGN, FrameBuf};
use crate::codec::ARROW;
use crate::codec::arrow::{IpcFile, Table, read};
use crate::error::{Error, Result};
use crate::frame::{Header, build};
use arrow_array::RecordBatchReader;
use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::Schema;
use arrow_schema::ffi::FFI_ArrowSchema;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use std::ffi::CStr;

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

/// Arrow data taken over from a producer, not yet read.
pub(super) enum Source {
    Stream(FFI_ArrowArrayStream),
    Array(FFI_ArrowSchema, FFI_ArrowArray),
}

impl Source {
    /// Reads it, by reference. Needs no GIL: producers that do take it themselves.
    pub(super) fn into_table(self) -> Result<Table> {
        match self {
            Self::Stream(stream) => Table::from_stream(stream),
            // SAFETY: the producer promises that array and schema agree; both came from one call.
            Self::Array(schema, array) => unsafe { Table::from_c_array(&schema, array) },
        }
    }
}

/// Takes over what `value`'s `__arrow_c_array__` or `__arrow_c_stream__` gives. Of a producer with both, which is one
/// batch, the array is taken: its stream may leave out a batch without rows.
pub(super) fn table_from(value: &Bound<'_, PyAny>) -> PyResult<Source> {
    let py = value.py();
    if let Some(method) = value.getattr_opt(intern!(py, "__arrow_c_array__"))? {
        let (schema, array) = method.call0()?.extract::<(Bound<'_, PyCapsule>, Bound<'_, PyCapsule>)>()?;
        // SAFETY: a capsule's name says what it points to; taking it leaves a released struct there.
        return unsafe {
            Ok(Source::Array(
                take(&schema, SCHEMA, FFI_ArrowSchema::empty())?,
                take(&array, ARRAY, FFI_ArrowArray::empty())?,
            ))
        };
    }
    let Some(method) = value.getattr_opt(intern!(py, "__arrow_c_stream__"))? else {
        return Err(Error::Encode {
            place: "value".into(),
            expected: "an object with __arrow_c_stream__ or __arrow_c_array__".into(),
            found: value.get_type().name()?.to_string(),
        }
        .into());
    };
    let capsule = method.call0()?.cast_into::<PyCapsule>()?;
    // SAFETY: as above.
    Ok(Source::Stream(unsafe { take(&capsule, STREAM, FFI_ArrowArrayStream::empty())? }))
}

/// Moves the struct out of a capsule, leaving `empty` (released) in its place.
///
/// # Safety
/// A capsule of this name points to a `T` that the caller may take over.
unsafe fn take<T>(capsule: &Bound<'_, PyCapsule>, name: &CStr, empty: T) -> PyResult<T> {
    let pointer = capsule.pointer_checked(Some(name))?;
    // SAFETY: the caller's guarantee; `pointer_checked` compared the name.
    Ok(unsafe { pointer.cast::<T>().replace(empty) })
}

/// A table over the memory of an Arrow IPC file. Nothing is copied; every value was validated, text for UTF-8 too.
///
/// Consumers take it through `__arrow_c_stream__`: `polars.DataFrame(t)`, `pyarrow.table(t)`, `duckdb`, `nanoarrow`.
///
/// Args:
///     payload: a `Frame` or any bytes-like object that holds an Arrow IPC file.
///     require_zero_copy: raise `CopyRequired` instead of copying a payload that is not aligned or may change.
#[pyclass(frozen, weakref, module = "framecache")]
pub(super) struct ArrowTable {
    table: Table,
    payload: FrameBuf,
}

#[pymethods]
impl ArrowTable {
    #[new]
    #[pyo3(signature = (payload, /, *, require_zero_copy=false))]
    fn new(py: Python<'_>, payload: &Bound<'_, PyAny>, require_zero_copy: bool) -> PyResult<Self> {
        let payload = aligned(py, payload, require_zero_copy)?;
        py.detach(|| {
            guard(|| {
                let table = read(&IpcFile::open(payload.clone())?, !require_zero_copy)?;
                // What could not be exported later (a NUL in a name) is refused now.
                c_schema(table.schema())?;
                Ok(Self { table, payload })
            })
        })
    }

    /// The table as a capsule of the Arrow C stream interface; `requested_schema` is not looked at.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        PyCapsule::new_with_value(py, self.table.to_stream(), STREAM)
    }

    /// Its schema as a capsule of the Arrow C data interface.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_of(py, self.table.schema())
    }

    /// How many rows it has.
    #[getter]
    fn num_rows(&self) -> usize {
        self.table.num_rows()
    }

    /// The names of its columns.
    #[getter]
    fn column_names(&self) -> Vec<&str> {
        self.table.schema().fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Bytes of the Arrow IPC file it stands on.
    #[getter]
    fn nbytes(&self) -> usize {
        self.payload.len()
    }

    /// The Arrow IPC file it stands on.
    #[getter]
    fn payload(&self) -> Frame {
        Frame::from(self.payload.clone())
    }

    fn __len__(&self) -> usize {
        self.table.num_rows()
    }

    fn __repr__(&self) -> String {
        let columns = self.table.schema().fields().len();
        format!("<framecache.ArrowTable of {} rows, {columns} columns, {} bytes>", self.num_rows(), self.nbytes())
    }
}

/// Batches as a capsule of the Arrow C stream interface.
pub(super) fn capsule_of<'py>(
    py: Python<'py>,
    batches: Box<dyn RecordBatchReader + Send>,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(batches), STREAM)
}

/// A schema as a capsule of the Arrow C data interface.
pub(super) fn schema_of<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, c_schema(schema)?, SCHEMA)
}

fn c_schema(schema: &Schema) -> Result<FFI_ArrowSchema> {
    FFI_ArrowSchema::try_from(schema).map_err(|error| Error::Decode {
        codec: ARROW,
        place: "schema".into(),
        expected: "a schema of the C data interface".into(),
        found: error.to_string(),
    })
}

/// A frame whose payload is `value` as an Arrow IPC file; `python` is kept in the header.
#[pyfunction]
pub(super) fn encode_arrow(py: Python<'_>, value: &Bound<'_, PyAny>, python: &Bound<'_, PyDict>) -> PyResult<Frame> {
    let header = Header { python: Some(metadata::to_json_object(python)?), ..Header::new(ARROW) };
    let source = table_from(value)?;
    py.detach(|| guard(|| Ok(Frame::from(build(header, &source.into_table()?.into_payload()?)?))))
}

/// Checks everything in an Arrow IPC file that a reader uses as an address. Returns `payload` as a `Frame`, aligned:
/// the same memory, or a copy where it was not aligned or may change.
///
/// Raises `DecodeError`; `CopyRequired` for compressed buffers and, with `require_zero_copy`, for a payload that would
/// have to be copied.
#[pyfunction]
#[pyo3(signature = (payload, /, *, require_zero_copy=false))]
pub(super) fn verify_arrow(py: Python<'_>, payload: &Bound<'_, PyAny>, require_zero_copy: bool) -> PyResult<Frame> {
    let payload = aligned(py, payload, require_zero_copy)?;
    py.detach(|| {
        guard(|| {
            IpcFile::open(payload.clone())?.verify()?;
            Ok(Frame::from(payload))
        })
    })
}

fn aligned(py: Python<'_>, payload: &Bound<'_, PyAny>, require_zero_copy: bool) -> PyResult<FrameBuf> {
    let input = Input::from(payload)?;
    let refuse =
        |reason: &'static str| Err(Error::CopyRequired { place: "payload".into(), reason: reason.into() }.into());
    if input.stable().is_none() && require_zero_copy {
        return refuse("its memory may change; pass bytes or a Frame");
    }
    let frame = input.to_frame()?;
    if frame.as_ptr().addr() % ALIGN == 0 {
        return Ok(frame);
    }
    if require_zero_copy {
        return refuse("it does not start at a multiple of 64 in memory");
    }
    py.detach(|| Ok(FrameBuf::copy_of(&frame, frame.origin())?))
}
