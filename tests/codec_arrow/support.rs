//! Files to test with: written by the codec, and patched where their flatbuffers say.

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_data::ArrayData;
use arrow_ipc::{Block, Buffer, FieldNode, Footer, Message, root_as_footer, root_as_message};
use arrow_schema::{Field, Schema, SchemaRef};
use framecache::buffer::{ALIGN, FrameBuf, Origin};
use framecache::codec::arrow::{IpcFile, Table, read};
use framecache::frame::{self, Header, Payload};
use framecache::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A batch of nullable columns named as given.
pub(crate) fn batch_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let rows = columns.first().map_or(0, |(_, array)| array.len());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options).unwrap()
}

pub(crate) fn table_of(batches: Vec<RecordBatch>) -> Table {
    Table::new(batches[0].schema(), batches)
}

/// Writes a table into a frame and reads it back in place; every buffer of what it returns is in the frame.
pub(crate) fn through_a_frame(schema: SchemaRef, batches: Vec<RecordBatch>) -> Table {
    let payload = Table::new(schema, batches).into_payload().unwrap();
    let frame = frame::build(Header::new("arrow"), &payload).unwrap();
    let header = frame::locate_header(&frame).unwrap();
    assert_eq!(Header::parse(&frame[header.clone()]).unwrap().length, Some((frame.len() - header.end) as u64));
    let file = IpcFile::open(frame.slice(header.end..).unwrap()).unwrap();
    assert_eq!(file.verify().unwrap().misaligned, None);
    let table = read(&file, false).unwrap();
    assert_eq!((file.num_batches(), file.num_rows()), (table.batches().len(), table.num_rows()));
    assert_eq!(file.schema(), table.schema());
    let addresses = frame.as_ptr_range();
    let addresses = addresses.start.addr()..addresses.end.addr();
    for column in table.batches().iter().flat_map(RecordBatch::columns) {
        buffers_lie_in(&addresses, &column.to_data());
    }
    table
}

fn buffers_lie_in(addresses: &Range<usize>, data: &ArrayData) {
    let validity = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(validity).filter(|buffer| !buffer.is_empty()) {
        let (start, end) = (buffer.as_ptr().addr(), buffer.as_ptr().addr() + buffer.len());
        let inside = addresses.start <= start && end <= addresses.end;
        // The one offset of an empty list or string array may be a constant of arrow-rs.
        assert!(inside || data.is_empty(), "{} bytes of {} outside the frame", buffer.len(), data.data_type());
        assert!(start % ALIGN == 0 || data.is_empty(), "{} at {start:#x}", data.data_type());
    }
    for child in data.child_data() {
        buffers_lie_in(addresses, child);
    }
}

/// A payload to be patched.
#[derive(Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn of(columns: Vec<(&str, ArrayRef)>) -> Self {
        Self::of_batches(vec![batch_of(columns)])
    }

    pub(crate) fn of_batches(batches: Vec<RecordBatch>) -> Self {
        let mut bytes = Vec::new();
        table_of(batches).into_payload().unwrap().write_to(&mut bytes).unwrap();
        let bytes = Self(bytes);
        bytes.read(false).expect("what was just written");
        bytes
    }

    /// Opens and reads the payload.
    pub(crate) fn read(&self, may_copy: bool) -> Result<Table> {
        read(&IpcFile::open(self.frame())?, may_copy)
    }

    pub(crate) fn frame(&self) -> FrameBuf {
        FrameBuf::copy_of(&self.0, Origin::Foreign).unwrap()
    }

    pub(crate) fn footer_at(&self) -> Range<usize> {
        let end = self.0.len() - 10;
        let length = i32::from_le_bytes(self.0[end..end + 4].try_into().unwrap());
        end - usize::try_from(length).unwrap()..end
    }

    pub(crate) fn footer(&self) -> Footer<'_> {
        root_as_footer(&self.0[self.footer_at()]).unwrap()
    }

    /// Where `part`, a reference into the payload, stands in it.
    pub(crate) fn at<T: ?Sized>(&self, part: &T) -> usize {
        let at = std::ptr::from_ref(part).cast::<u8>().addr() - self.0.as_ptr().addr();
        assert!(at < self.0.len());
        at
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn dictionary(&self, index: usize) -> Part<'_> {
        Part { bytes: self, block: self.footer().dictionaries().unwrap().get(index) }
    }

    pub(crate) fn batch(&self, index: usize) -> Part<'_> {
        Part { bytes: self, block: self.footer().recordBatches().unwrap().get(index) }
    }
}

/// One message of a payload.
pub(crate) struct Part<'b> {
    bytes: &'b Bytes,
    pub(crate) block: &'b Block,
}

impl<'b> Part<'b> {
    pub(crate) fn message(&self) -> Message<'b> {
        let start = usize::try_from(self.block.offset()).unwrap() + 8;
        root_as_message(&self.bytes.0[start..]).unwrap()
    }

    fn batch(&self) -> arrow_ipc::RecordBatch<'b> {
        let message = self.message();
        let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        message.header_as_record_batch().or(dictionary).unwrap()
    }

    pub(crate) fn node(&self, index: usize) -> &'b FieldNode {
        self.batch().nodes().unwrap().get(index)
    }

    pub(crate) fn buffer(&self, index: usize) -> &'b Buffer {
        self.batch().buffers().unwrap().get(index)
    }

    /// Where the `index`th buffer's bytes stand in the payload.
    pub(crate) fn values_at(&self, index: usize) -> usize {
        let body = self.block.offset() + i64::from(self.block.metaDataLength());
        usize::try_from(body + self.buffer(index).offset()).unwrap()
    }

    /// Where the message's metadata version stands in the payload.
    pub(crate) fn version_at(&self) -> usize {
        let table = self.message()._tab;
        let field = table.vtable().get(Message::VT_VERSION);
        usize::try_from(self.block.offset()).unwrap() + 8 + table.loc() + usize::from(field)
    }
}

/// The error of reading these bytes, which is the same whether copying is allowed or not.
pub(crate) fn refusal(bytes: &Bytes) -> String {
    let texts = [false, true].map(|may_copy| match bytes.read(may_copy) {
        Err(error @ Error::Decode { codec: "arrow", .. }) => error.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(texts[0], texts[1]);
    texts[0].clone()
}

/// Requires that reading is refused by an error that names the column and says `why`.
pub(crate) fn refused(bytes: &Bytes, column: &str, why: &str) {
    let text = refusal(bytes);
    assert!(text.contains(&format!("column {column:?}")) && text.contains(why), "{text}");
}
