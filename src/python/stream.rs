//! `framecache._framecache.StreamWriter`, `StreamReader` and `TableScan`: streams under `Cache.open_writer` and the like.

use super::arrow::{Source, capsule_of, schema_of, table_from};
use super::crypto::Keyring;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::metadata;
use super::store::{Store, interruption};
use crate::codec::arrow::Table;
use crate::compress::Compression;
use crate::crypto::Times;
use crate::error::{Error, Result};
use crate::frame::Header;
use crate::store::{EntryWriter, New, Stored};
use crate::stream::{
    Access, StreamOptions, StreamReader as Reader, StreamWriter as Writer, TableScan as Scan, TableWriter,
};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use std::io::{Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that is only taken without the GIL: whoever has it may allocate.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(chunk_size: Option<usize>, workers: Option<usize>, compression: Option<&str>) -> Result<StreamOptions> {
    let default = StreamOptions::default();
    Ok(StreamOptions {
        chunk_size: chunk_size.unwrap_or(default.chunk_size),
        compression: compression.map_or(Ok(Compression::None), str::parse)?,
        workers: workers.unwrap_or(default.workers),
        ..default
    })
}

/// Calls `work` with the access that this keyring gives, without the GIL.
fn with_access<T: Send>(
    py: Python<'_>,
    keyring: Option<&Keyring>,
    work: impl FnOnce(Access<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let Some(keyring) = keyring else { return py.detach(|| guard(|| Ok(work(Access::Plain)?))) };
    let tenant = keyring.tenant(py)?;
    let (keyring, tenant) = (keyring.ring(), &*tenant);
    py.detach(|| guard(|| Ok(work(Access::Sealed { keyring, tenant })?)))
}

/// What is written, and how far it is.
enum Writing {
    Bytes(Box<Writer<EntryWriter>>),
    Table(Box<TableWriter<EntryWriter>>),
    Closed,
}

/// An entry of a store that is written front to back: bytes, or record batches.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct StreamWriter {
    state: Mutex<Writing>,
    /// The key in the store.
    name: String,
    times: Times,
    deadline: Option<u64>,
    tags: Vec<String>,
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // The workers that end now may allocate.
        let state = std::mem::replace(&mut self.state, Mutex::new(Writing::Closed));
        Python::attach(|py| py.detach(|| drop(state)));
    }
}

impl StreamWriter {
    /// Runs `work` without the GIL. After an error there is nothing more to write to.
    fn writing<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Writing) -> Result<T> + Send) -> PyResult<T> {
        let done = py.detach(|| {
            guard(|| {
                let mut state = lock(&self.state);
                Ok(work(&mut state).inspect_err(|_| *state = Writing::Closed)?)
            })
        });
        // An exception that a signal's handler raised meanwhile comes before what it returns.
        interruption().map_or(done, Err)
    }
}

fn closed() -> Error {
    Error::Argument { argument: "writer", expected: "an open one".into(), found: "one that is closed".to_owned() }
}

/// Appends the batches of `table`, and makes the stream one of tables first.
fn append(state: &mut Writing, table: &Table) -> Result<()> {
    if let Writing::Bytes(_) = state
        && let Writing::Bytes(stream) = std::mem::replace(state, Writing::Closed)
    {
        *state = Writing::Table(Box::new(TableWriter::new(*stream, table.schema().clone())?));
    }
    let Writing::Table(writer) = state else { return Err(closed()) };
    table.batches().iter().try_for_each(|batch| writer.write(batch))
}

#[pymethods]
impl StreamWriter {
    /// Begins the entry of `key` under `name` in the store. Times are in milliseconds since 1970.
    #[new]
    #[pyo3(signature = (store, name, key, codec, python, created, *, until=None, deadline=None, tags=Vec::new(),
        compression=None, chunk_size=None, workers=None, keyring=None))]
    #[expect(clippy::too_many_arguments, reason = "each a field of the entry, or an option of the stream")]
    fn new(
        py: Python<'_>,
        store: &Store,
        name: String,
        key: &str,
        codec: &str,
        python: &Bound<'_, PyDict>,
        created: u64,
        until: Option<u64>,
        deadline: Option<u64>,
        tags: Vec<String>,
        compression: Option<&str>,
        chunk_size: Option<usize>,
        workers: Option<usize>,
        keyring: Option<&Keyring>,
    ) -> PyResult<Self> {
        let python = if python.is_empty() { None } else { Some(metadata::to_json_object(python)?) };
        let header = Header { python, ..Header::new(codec) };
        let times = Times { created: Some(created), until };
        let options = options(chunk_size, workers, compression)?;
        let store = store.shared()?;
        let writer = with_access(py, keyring, |access| {
            Writer::new(EntryWriter::new(store, created)?, key, header, times, access, &options)
        })?;
        Ok(Self { state: Mutex::new(Writing::Bytes(Box::new(writer))), name, times, deadline, tags })
    }

    /// Appends bytes; a buffer that may change is copied first.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let bytes = Input::from(data)?.to_frame()?;
        self.writing(py, |state| match state {
            Writing::Bytes(writer) => writer.push(&bytes).map(|()| bytes.len()),
            _ => Err(closed()),
        })
    }

    /// Appends what `value`'s `__arrow_c_stream__` or `__arrow_c_array__` gives, a batch at a time.
    fn write_table(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let source = table_from(value)?;
        self.writing(py, |state| match source {
            Source::Stream(stream) => Table::each_of_stream(stream, |table| append(state, &table)),
            array @ Source::Array(..) => append(state, &array.into_table()?),
        })
    }

    /// Bytes of payload that were taken so far.
    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        self.writing(py, |state| match state {
            Writing::Bytes(writer) => Ok(writer.payload()),
            Writing::Table(writer) => Ok(writer.payload()),
            Writing::Closed => Err(closed()),
        })
    }

    /// Writes what is left, and makes it the key's entry: `"written"`, `"superseded"` or `"dropped"`; with it the bytes
    /// of the stream, and the most that its chunks took in memory at a time.
    fn commit(&self, py: Python<'_>) -> PyResult<(&'static str, u64, usize)> {
        self.writing(py, |state| {
            let (out, summary) = match std::mem::replace(state, Writing::Closed) {
                Writing::Bytes(writer) => writer.finish()?,
                Writing::Table(writer) => writer.finish()?,
                Writing::Closed => return Err(closed()),
            };
            let tags: Vec<_> = self.tags.iter().map(String::as_str).collect();
            let Times { created, until } = self.times;
            let new = New { created, until, deadline: self.deadline, tags: &tags, ..New::default() };
            let stored = match out.commit(&self.name, &new)? {
                Stored::Written(_) => "written",
                Stored::Exists => "exists",
                Stored::Superseded => "superseded",
                Stored::Dropped => "dropped",
            };
            Ok((stored, summary.written, summary.peak_memory_bytes))
        })
    }

    /// Leaves nothing behind of what was not committed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.writing(py, |state| {
            *state = Writing::Closed;
            Ok(())
        })
    }
}

/// The payload of a stream, read from anywhere.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct StreamReader {
    reader: Mutex<Option<Reader>>,
    header: Header,
    plain: Option<Frame>,
    /// Bytes of payload.
    #[pyo3(get)]
    nbytes: u64,
    /// When it was written, in milliseconds since 1970.
    #[pyo3(get)]
    created: Option<u64>,
    /// Until when it may be served.
    #[pyo3(get)]
    until: Option<u64>,
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        let reader = std::mem::take(&mut self.reader);
        Python::attach(|py| py.detach(|| drop(reader)));
    }
}

#[pymethods]
impl StreamReader {
    /// Opens the stream of `key` that `frame` is; with a keyring, a sealed one and no other.
    #[new]
    #[pyo3(signature = (frame, key, *, keyring=None, workers=None))]
    fn new(
        py: Python<'_>,
        frame: &Frame,
        key: &str,
        keyring: Option<&Keyring>,
        workers: Option<usize>,
    ) -> PyResult<Self> {
        let (frame, options) = (frame.buf().clone(), options(None, workers, None)?);
        let reader = with_access(py, keyring, |access| Reader::open(frame, key, access, &options))?;
        let times = reader.times();
        Ok(Self {
            header: reader.index().header.clone(),
            plain: reader.as_plain().map(Frame::from),
            nbytes: reader.len(),
            created: times.created,
            until: times.until,
            reader: Mutex::new(Some(reader)),
        })
    }

    /// The codec of the payload.
    #[getter]
    fn codec(&self) -> &str {
        &self.header.codec
    }

    /// All of the payload where it stands, if it stands there as it is.
    fn plain(&self) -> Option<Frame> {
        self.plain.as_ref().map(|frame| Frame::from(frame.buf().clone()))
    }

    /// Up to `size` bytes from `position` on, at least one where there are any: what one chunk has of them. Who goes on
    /// where it ended is read ahead.
    fn read(&self, py: Python<'_>, position: u64, size: usize) -> PyResult<Frame> {
        py.detach(|| {
            guard(|| {
                let mut reader = lock(&self.reader);
                let reader = reader.as_mut().ok_or_else(closed)?;
                reader.seek(SeekFrom::Start(position)).map_err(|error| Error::io("seek", "stream", error))?;
                let chunk = match reader.next_chunk()? {
                    Some(chunk) => chunk,
                    None => reader.slice(reader.len(), 0)?,
                };
                Ok(chunk.slice(..size.min(chunk.len()))?.into())
            })
        })
    }

    /// `size` bytes from `position` on: where they stand, where they stand there as they are.
    fn slice(&self, py: Python<'_>, position: u64, size: usize) -> PyResult<Frame> {
        py.detach(|| {
            guard(|| {
                let reader = lock(&self.reader);
                Ok(reader.as_ref().ok_or_else(closed)?.slice(position, size)?.into())
            })
        })
    }

    /// Reads every chunk, and compares tags and checksums.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| guard(|| Ok(lock(&self.reader).as_ref().ok_or_else(closed)?.verify()?)))
    }

    /// Ends the threads; nothing is read any more.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(lock(&self.reader).take()));
    }
}

/// Reads without the GIL, whether its caller has it or not.
struct Detached {
    /// Emptied only when dropped.
    scan: Option<Scan>,
    schema: SchemaRef,
    /// Called with the bytes that are done, and those in all, after each batch.
    progress: Option<Py<PyAny>>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        let scan = self.scan.take();
        Python::attach(|py| py.detach(|| drop(scan)));
    }
}

impl Iterator for Detached {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (scan, progress) = (self.scan.as_mut()?, self.progress.as_ref());
        Python::attach(|py| {
            let batch = py.detach(|| scan.next())?;
            match progress.map(|progress| progress.call1(py, scan.progress())) {
                Some(Err(error)) => Some(Err(ArrowError::ExternalError(error.to_string().into()))),
                _ => Some(batch),
            }
        })
    }
}

impl RecordBatchReader for Detached {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// The record batches of a table in a stream, read as a consumer of `__arrow_c_stream__` asks for them: once.
#[pyclass(frozen, module = "framecache")]
pub(super) struct TableScan {
    scan: Mutex<Option<Scan>>,
    schema: SchemaRef,
    progress: Option<Py<PyAny>>,
    /// How many batches there are.
    #[pyo3(get)]
    num_batches: usize,
}

impl Drop for TableScan {
    fn drop(&mut self) {
        let scan = std::mem::take(&mut self.scan);
        Python::attach(|py| py.detach(|| drop(scan)));
    }
}

#[pymethods]
impl TableScan {
    /// Opens the table of `key` that `frame` is; of its columns those that are named.
    #[new]
    #[pyo3(signature = (frame, key, *, columns=None, keyring=None, workers=None, progress=None))]
    fn new(
        py: Python<'_>,
        frame: &Frame,
        key: &str,
        columns: Option<Vec<String>>,
        keyring: Option<&Keyring>,
        workers: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let (frame, options) = (frame.buf().clone(), options(None, workers, None)?);
        let scan = with_access(py, keyring, |access| {
            Scan::new(Reader::open(frame, key, access, &options)?, columns.as_deref())
        })?;
        Ok(Self { schema: scan.schema(), num_batches: scan.num_batches(), scan: Mutex::new(Some(scan)), progress })
    }

    /// The batches as a capsule of the Arrow C stream interface; `requested_schema` is not looked at.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let taken = py.detach(|| lock(&self.scan).take());
        let scan = taken.ok_or_else(|| Error::Argument {
            argument: "scan",
            expected: "one that nobody has read".into(),
            found: "one that was given to a consumer".to_owned(),
        })?;
        capsule_of(
            py,
            Box::new(Detached {
                scan: Some(scan),
                schema: self.schema.clone(),
                progress: self.progress.as_ref().map(|progress| progress.clone_ref(py)),
            }),
        )
    }

    /// The schema of what is read.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_of(py, &self.schema)
    }
}
