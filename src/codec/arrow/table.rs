//! Tables: batches by reference, written to a payload, or decoded over one.
#![allow(unsafe_code)]

use super::file::{IpcFile, Place};
use super::import::refused;
use super::malformed;
use crate::buffer::{FrameBuf, padded};
use crate::error::{Error, Result};
use crate::frame::Payload;
use arrow_array::cast::AsArray;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchIterator, RecordBatchOptions, StructArray};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// A schema and record batches that share it.
#[derive(Clone, Debug)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// A table of these batches.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches: batches.into_iter().map(compacted).collect() }
    }

    /// A table of arrays of one field: its columns where it is a struct, else the one column.
    pub(super) fn from_arrays(field: &Field, arrays: Vec<ArrayRef>) -> Result<Self> {
        let schema = schema_of(field);
        let batches = arrays.into_iter().map(|array| batch_of(&schema, field, array)).collect::<Result<_>>()?;
        Ok(Self::new(schema, batches))
    }

    /// The schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batches.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Rows of all batches together.
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The table as a C stream; its buffers are shared, not copied.
    pub fn to_stream(&self) -> FFI_ArrowArrayStream {
        let batches = self.batches.clone().into_iter().map(Ok);
        FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new(batches, self.schema.clone())))
    }

    /// The table as the payload of a frame: an Arrow IPC file.
    ///
    /// A file has one dictionary a column; where the batches' dictionaries differ, the rows are merged into one batch.
    ///
    /// # Errors
    /// [`Error::Encode`] for what Arrow IPC cannot hold, and for batches that are not as the schema says.
    pub fn into_payload(self) -> Result<TablePayload> {
        for batch in &self.batches {
            conforms(batch, &self.schema)?;
        }
        let mut length = Length(0);
        match self.write_file(&mut length) {
            Ok(()) => return Ok(TablePayload { table: self, length: length.0 }),
            Err(ArrowError::InvalidArgumentError(text)) if text.contains("Dictionary replacement") => {}
            Err(error) => return Err(write_error(error)),
        }
        if let Some(field) = self.schema.flattened_fields().iter().find(|field| field.dict_is_ordered() == Some(true)) {
            let found = format!("different ones in column {:?}", field.name());
            return Err(refused("one ordered dictionary a column: merging would change its order", found));
        }
        let batch = arrow_select::concat::concat_batches(&self.schema, &self.batches)
            .map_err(|error| refused("dictionaries that can be merged", error.to_string()))?;
        let merged = Self { schema: self.schema, batches: vec![batch] };
        length.0 = 0;
        merged.write_file(&mut length).map_err(write_error)?;
        Ok(TablePayload { table: merged, length: length.0 })
    }

    fn write_file(&self, out: &mut dyn io::Write) -> Result<(), ArrowError> {
        let mut writer = FileWriter::try_new(out, &self.schema)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        writer.finish()
    }
}

/// A table to be written as an Arrow IPC file; each buffer goes out in one piece, from where it lies.
#[derive(Debug)]
pub struct TablePayload {
    table: Table,
    length: usize,
}

impl Payload for TablePayload {
    fn length(&self) -> usize {
        self.length
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        self.table.write_file(out).map_err(write_error)
    }
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes a payload into a table whose buffers lie in it. Every value is validated, text for UTF-8 too, so that any
/// consumer of the C data interface may trust it.
///
/// # Errors
/// [`Error::Decode`], and [`Error::CopyRequired`] for compressed buffers. Buffers that are not aligned for their type,
/// which this crate never writes, are copied if `may_copy`, and [`Error::CopyRequired`] else.
pub fn read(file: &IpcFile, may_copy: bool) -> Result<Table> {
    let misaligned = file.verify()?.misaligned;
    if let Some(column) = misaligned.as_ref().filter(|_| !may_copy) {
        return Err(Error::CopyRequired { place: format!("column {column:?}"), reason: "it is not aligned".into() });
    }
    let buffer = buffer_over(file.payload());
    let failed = |place: &Place, error: ArrowError| malformed(&*place.name, "valid Arrow data", error.to_string());
    let block = |place: &Place| {
        let start = place.block.offset() as usize;
        let message = buffer.slice_with_length(start, place.body.end - start);
        if misaligned.is_some() { realigned(&message, place.body.start - start) } else { message }
    };
    let mut decoder = FileDecoder::new(file.schema().clone(), file.version()).with_require_alignment(!may_copy);
    for place in file.dictionaries() {
        decoder.read_dictionary(&place.block, &block(place)).map_err(|error| failed(place, error))?;
    }
    let batches = file.batches().iter().map(|place| {
        let batch = decoder.read_record_batch(&place.block, &block(place)).map_err(|error| failed(place, error))?;
        batch.ok_or_else(|| malformed(&*place.name, "a record batch", "none"))
    });
    Ok(Table { schema: file.schema().clone(), batches: batches.collect::<Result<_>>()? })
}

/// A copy of a message whose body starts at a multiple of 64, as in a payload of this crate. What is not aligned in
/// its body the decoder copies once more.
fn realigned(message: &Buffer, body: usize) -> Buffer {
    let pad = padded(body) - body;
    let mut copy = MutableBuffer::from_len_zeroed(pad);
    copy.extend_from_slice(message);
    Buffer::from(copy).slice(pad)
}

/// An Arrow buffer that is the payload's memory and keeps it alive.
pub(crate) fn buffer_over(payload: &FrameBuf) -> Buffer {
    let owner = Arc::new(payload.clone());
    let start = NonNull::from(&**owner).cast();
    // SAFETY: the frame's memory stays where it is and unchanged for as long as `owner` lives (`FrameMemory`).
    unsafe { Buffer::from_custom_allocation(start, owner.len(), owner) }
}

fn schema_of(field: &Field) -> SchemaRef {
    match field.data_type() {
        DataType::Struct(fields) => Arc::new(Schema::new(fields.clone()).with_metadata(field.metadata().clone())),
        _ => Arc::new(Schema::new(vec![field.clone()])),
    }
}

fn batch_of(schema: &SchemaRef, field: &Field, array: ArrayRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
    let columns = match array.as_struct_opt() {
        Some(rows) if matches!(field.data_type(), DataType::Struct(_)) => columns_of(rows)?,
        _ => vec![array],
    };
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| refused("columns as the schema says", error.to_string()))
}

/// Refuses a batch that could not be read back, because the one schema of its file is not its own.
pub(crate) fn conforms(batch: &RecordBatch, schema: &SchemaRef) -> Result<()> {
    if Arc::ptr_eq(schema, batch.schema_ref()) {
        return Ok(());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map(drop)
        .map_err(|error| refused("columns as the schema says", error.to_string()))
}

fn columns_of(rows: &StructArray) -> Result<Vec<ArrayRef>> {
    match rows.null_count() {
        0 => Ok(rows.columns().to_vec()),
        nulls => Err(refused("rows that are not null as a whole", format!("{nulls} null rows"))),
    }
}

/// The batch without data buffers that its views hardly use: a filtered or sliced column of views still holds all
/// the bytes of the column it came from.
fn compacted(batch: RecordBatch) -> RecordBatch {
    let mut changed = false;
    let mut compact = |column: &ArrayRef| -> ArrayRef {
        let (held, used) = match (column.as_string_view_opt(), column.as_binary_view_opt()) {
            (Some(views), _) => (held(views.data_buffers()), views.total_buffer_bytes_used()),
            (_, Some(views)) => (held(views.data_buffers()), views.total_buffer_bytes_used()),
            _ => return column.clone(),
        };
        if held / 2 <= used {
            return column.clone();
        }
        changed = true;
        match column.as_string_view_opt() {
            Some(views) => Arc::new(views.gc()),
            None => Arc::new(column.as_binary_view().gc()),
        }
    };
    let columns: Vec<ArrayRef> = batch.columns().iter().map(&mut compact).collect();
    if !changed {
        return batch;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    // Types and lengths are the old columns'.
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or(batch)
}

fn held(buffers: &[Buffer]) -> usize {
    buffers.iter().map(Buffer::len).sum()
}

pub(crate) fn write_error(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => match source.downcast() {
            Ok(error) => error,
            Err(source) => Error::io("write", "frame", source),
        },
        error => refused("data that Arrow IPC can hold", error.to_string()),
    }
}
