//! Tables read a batch at a time, and of their columns only those that are asked for.

use super::StreamReader;
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::codec::arrow::{buffer_over, malformed};
use crate::error::{Error, Result};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef, UnionMode};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The end of an Arrow IPC file: the footer's length and the magic.
const END: usize = 10;

/// The record batches of a table in a stream, read as they are asked for.
///
/// Batches of a plain stream that is not compressed stand on its memory. Of others, the chunks are read ahead; where
/// columns are left out, only the chunks are read in which the others lie.
pub struct TableScan {
    reader: StreamReader,
    schema: SchemaRef,
    projected: SchemaRef,
    decoder: FileDecoder,
    version: MetadataVersion,
    columns: Option<Vec<usize>>,
    batches: Vec<Block>,
    next: usize,
}

impl TableScan {
    /// A scan of the table that the payload of `reader` is; of these columns, all of them if none are named.
    ///
    /// # Errors
    /// [`Error::Decode`] for a payload that is no Arrow IPC file, [`Error::Argument`] for a column that it does not have,
    /// and those of the reader.
    pub fn new(reader: StreamReader, columns: Option<&[String]>) -> Result<Self> {
        let footer_at = locate_footer(&reader)?;
        let footer = reader.slice(footer_at.start, (footer_at.end - footer_at.start) as usize)?;
        let footer =
            root_as_footer(&footer).map_err(|error| malformed("footer", "a footer flatbuffer", error.to_string()))?;
        let ipc_schema = footer.schema().ok_or_else(|| malformed("footer", "a schema", "none"))?;
        let schema = arrow_ipc::convert::try_fb_to_schema(ipc_schema)
            .map_err(|error| malformed("footer", "a schema of known types", error.to_string()))?;
        let columns = columns.map(|names| places_of(&schema, names)).transpose()?;
        let schema = Arc::new(schema);
        let mut decoder = FileDecoder::new(Arc::clone(&schema), footer.version());
        for block in footer.dictionaries().into_iter().flatten() {
            let (start, lengths) = place_of(block, footer_at.start)?;
            let message = aligned(reader.slice(start, lengths.0 + lengths.1)?)?;
            decoder
                .read_dictionary(block, &buffer_over(&message))
                .map_err(|error| malformed("dictionary", "valid Arrow data", error.to_string()))?;
        }
        let projected = match &columns {
            None => Arc::clone(&schema),
            Some(columns) => {
                decoder = decoder.with_projection(columns.clone());
                let projected = schema.project(columns);
                Arc::new(projected.map_err(|error| malformed("footer", "a schema", error.to_string()))?)
            }
        };
        let batches: Vec<_> = footer.recordBatches().into_iter().flatten().copied().collect();
        for block in &batches {
            place_of(block, footer_at.start)?;
        }
        let version = footer.version();
        Ok(Self { reader, schema, projected, decoder, version, columns, batches, next: 0 })
    }

    /// How many batches there are.
    pub fn num_batches(&self) -> usize {
        self.batches.len()
    }

    /// Bytes of payload up to the last batch that was read, and in all.
    pub fn progress(&self) -> (u64, u64) {
        let read = self.next.checked_sub(1).and_then(|last| place_of(&self.batches[last], self.reader.len()).ok());
        let done = read.map_or(0, |(start, (metadata, body))| start + (metadata + body) as u64);
        (if self.next == self.batches.len() { self.reader.len() } else { done }, self.reader.len())
    }

    fn read(&mut self, block: Block) -> Result<RecordBatch> {
        let name = format!("batch {}", self.next);
        let (start, (metadata, body)) = place_of(&block, self.reader.len())?;
        let message = match &self.columns {
            None => self.whole(start, metadata + body)?,
            Some(_) => self.parts(&name, start, (metadata, body))?,
        };
        // What was written is read: a panic is that of a stream that another program made.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.read_record_batch(&block, &buffer_over(&message))));
        match decoded {
            Ok(Ok(Some(batch))) => Ok(batch),
            Ok(Ok(None)) => Err(malformed(name, "a record batch", "none")),
            Ok(Err(error)) => Err(malformed(name, "valid Arrow data", error.to_string())),
            Err(_) => Err(malformed(name, "valid Arrow data", "offsets outside of it")),
        }
    }

    /// A message and its body; in place, or read ahead.
    fn whole(&mut self, start: u64, len: usize) -> Result<FrameBuf> {
        if let Some(plain) = self.reader.as_plain() {
            return plain.slice(start as usize..start as usize + len);
        }
        let mut out = AlignedBuf::stale_plaintext(len)?;
        self.reader.seek(SeekFrom::Start(start)).map_err(unwrapped)?;
        self.reader.read_exact(out.as_mut_slice()).map_err(unwrapped)?;
        Ok(FrameBuf::from_aligned(out, Origin::Trusted).copied())
    }

    /// A message and of its body the buffers of the chosen columns; the others hold anything.
    fn parts(&mut self, name: &str, start: u64, (metadata, body): (usize, usize)) -> Result<FrameBuf> {
        if let Some(plain) = self.reader.as_plain() {
            return plain.slice(start as usize..start as usize + metadata + body);
        }
        let head = self.reader.slice(start, metadata)?;
        let mut out = AlignedBuf::stale_plaintext(metadata + body)?;
        out.as_mut_slice()[..metadata].copy_from_slice(&head);
        let mut ranges = self.ranges(name, &head)?;
        if let Some(range) = ranges.iter().find(|range| range.end > body) {
            return Err(malformed(name, "buffers inside the body", format!("{range:?}")));
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let base = start + metadata as u64;
        let places: Vec<_> = ranges.iter().map(|range| base + range.start as u64..base + range.end as u64).collect();
        let room = &mut out.as_mut_slice()[metadata..];
        // What lies in the ranges lies in the body.
        self.reader
            .gather(&places, |offset, bytes| room[(offset - base) as usize..][..bytes.len()].copy_from_slice(bytes))?;
        Ok(FrameBuf::from_aligned(out, Origin::Trusted).copied())
    }

    /// Where the buffers of the chosen columns stand in the body.
    fn ranges(&self, name: &str, head: &[u8]) -> Result<Vec<Range<usize>>> {
        let wrong = |expected: &'static str| malformed(name, expected, "another message");
        // The length of the flatbuffer stands before it, after four bytes of 255 in files of today.
        let skip = if head.starts_with(&[255; 4]) { 8 } else { 4 };
        let message = head.get(skip..).and_then(|bytes| root_as_message(bytes).ok());
        let batch = message.as_ref().and_then(|message| message.header_as_record_batch());
        let batch = batch.ok_or_else(|| wrong("a record batch"))?;
        let buffers = batch.buffers().ok_or_else(|| wrong("a record batch with buffers"))?;
        let mut variadic = batch.variadicBufferCounts().into_iter().flatten();
        let (mut at, mut ranges) = (0_usize, Vec::new());
        for (number, field) in self.schema.fields().iter().enumerate() {
            let count = buffers_of(field.data_type(), self.version, &mut variadic);
            for index in at..at.saturating_add(count) {
                if index >= buffers.len() {
                    return Err(wrong("buffers for every column"));
                }
                let buffer = buffers.get(index);
                let start = usize::try_from(buffer.offset()).map_err(|_| wrong("buffers inside the body"))?;
                let len = usize::try_from(buffer.length()).map_err(|_| wrong("buffers inside the body"))?;
                if self.columns.as_ref().is_none_or(|columns| columns.contains(&number)) && len > 0 {
                    ranges.push(start..start.saturating_add(len));
                }
            }
            at = at.saturating_add(count);
        }
        Ok(ranges)
    }
}

/// How many buffers an array of this type has in a message, its children's with them.
fn buffers_of(of: &DataType, version: MetadataVersion, variadic: &mut impl Iterator<Item = i64>) -> usize {
    let old_union = usize::from(version < MetadataVersion::V5);
    match of {
        DataType::Null => 0,
        DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary => 3,
        DataType::Utf8View | DataType::BinaryView => {
            2 + variadic.next().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
        }
        DataType::List(child) | DataType::LargeList(child) | DataType::Map(child, _) => {
            2 + buffers_of(child.data_type(), version, variadic)
        }
        DataType::ListView(child) | DataType::LargeListView(child) => {
            3 + buffers_of(child.data_type(), version, variadic)
        }
        DataType::FixedSizeList(child, _) => 1 + buffers_of(child.data_type(), version, variadic),
        DataType::Struct(children) => {
            1 + children.iter().map(|child| buffers_of(child.data_type(), version, variadic)).sum::<usize>()
        }
        DataType::Union(children, mode) => {
            let own = old_union + if *mode == UnionMode::Dense { 2 } else { 1 };
            own + children.iter().map(|(_, child)| buffers_of(child.data_type(), version, variadic)).sum::<usize>()
        }
        DataType::RunEndEncoded(ends, values) => {
            buffers_of(ends.data_type(), version, variadic) + buffers_of(values.data_type(), version, variadic)
        }
        // Validity and values; of dictionaries the indices.
        _ => 2,
    }
}

/// Where each named column stands, in the order of the schema: what is read comes in it.
fn places_of(schema: &Schema, names: &[String]) -> Result<Vec<usize>> {
    let find = |name: &String| {
        schema.index_of(name).map_err(|_| {
            let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let expected = format!("columns of the table: {:.400}", known.join(", ")).into();
            Error::Argument { argument: "columns", expected, found: format!("{name:.100?}") }
        })
    };
    let mut places = names.iter().map(find).collect::<Result<Vec<_>>>()?;
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn locate_footer(reader: &StreamReader) -> Result<Range<u64>> {
    let mut end = [0; END];
    let at = reader.len().checked_sub(END as u64);
    let at = at.ok_or_else(|| malformed("payload", "an Arrow IPC file", format!("{} bytes", reader.len())))?;
    reader.read_exact_at(at, &mut end)?;
    let length = arrow_ipc::reader::read_footer_length(end)
        .map_err(|error| malformed("end", "the end of an Arrow IPC file", error.to_string()))?;
    match at.checked_sub(length as u64) {
        Some(start) => Ok(start..at),
        None => Err(malformed("end", "a footer inside the payload", format!("{length} bytes"))),
    }
}

/// Where a message starts, and the lengths of its metadata and its body, which end before `end`.
fn place_of(block: &Block, end: u64) -> Result<(u64, (usize, usize))> {
    let place = || {
        let start = u64::try_from(block.offset()).ok()?;
        let (metadata, body) =
            (usize::try_from(block.metaDataLength()).ok()?, usize::try_from(block.bodyLength()).ok()?);
        let length = metadata.checked_add(body)? as u64;
        (start.checked_add(length)? <= end).then_some((start, (metadata, body)))
    };
    place().ok_or_else(|| malformed("footer", "blocks before the footer", format!("{block:?}")))
}

fn aligned(message: FrameBuf) -> Result<FrameBuf> {
    if message.as_ptr().addr().is_multiple_of(crate::buffer::ALIGN) {
        return Ok(message);
    }
    FrameBuf::copy_of(&message, message.origin())
}

/// An error of this crate that went through [`std::io`].
fn unwrapped(error: std::io::Error) -> Error {
    error.downcast().unwrap_or_else(|error| Error::io("read", "stream", error))
}

impl Iterator for TableScan {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = *self.batches.get(self.next)?;
        let batch = self.read(block);
        // After an error nothing follows.
        self.next = if batch.is_ok() { self.next + 1 } else { self.batches.len() };
        Some(batch.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }
}

impl RecordBatchReader for TableScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.projected)
    }
}
