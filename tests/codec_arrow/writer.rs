//! What the writer hands on, and what it leaves out.

use crate::support::{batch_of, table_of};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, BinaryViewArray, BooleanArray, Int64Array, LargeStringArray, RecordBatch, StringViewArray};
use arrow_buffer::Buffer;
use framecache::Error;
use framecache::codec::arrow::{Table, TablePayload};
use framecache::frame::{self, Header, Payload};
use std::io;
use std::sync::Arc;

/// Records where each piece that is written to it lies.
#[derive(Default)]
struct Pieces(Vec<(usize, usize)>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push((bytes.as_ptr().addr(), bytes.len()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn payload_of(batch: RecordBatch) -> TablePayload {
    table_of(vec![batch]).into_payload().unwrap()
}

#[test]
fn large_buffers_go_out_from_where_they_lie() {
    let long = "a string of more than twelve bytes".repeat(100);
    let batch = batch_of(vec![
        ("ints", Arc::new(Int64Array::from_iter((0..50_000).map(|row| (row % 3 != 0).then_some(row))))),
        ("texts", Arc::new(LargeStringArray::from_iter_values((0..50_000).map(|row| row.to_string())))),
        ("views", Arc::new(StringViewArray::from_iter_values((0..50_000).map(|row| &long[..row % long.len()])))),
    ]);
    let data: Vec<_> = batch.columns().iter().map(|column| column.to_data()).collect();
    let buffers = data.iter().flat_map(|data| data.buffers().iter().chain(data.nulls().map(|nulls| nulls.buffer())));
    let (large, small): (Vec<_>, Vec<_>) = buffers.partition(|buffer| buffer.len() >= 64 * 1024);
    assert!(large.len() >= 6, "{}", large.len());
    let payload = payload_of(batch.clone());
    let mut pieces = Pieces::default();
    payload.write_to(&mut pieces).unwrap();
    for buffer in &large {
        let piece = (buffer.as_ptr().addr(), buffer.len());
        assert!(pieces.0.contains(&piece), "{} bytes were copied or cut", buffer.len());
    }
    let length = |buffers: &[&Buffer]| buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
    let copied = payload.length() - length(&large);
    assert!(copied < length(&small) + 8 * 1024, "{copied} bytes besides");
    assert_eq!(pieces.0.iter().map(|(_, length)| length).sum::<usize>(), payload.length());
}

#[test]
fn a_slice_of_numbers_goes_out_from_its_own_address() {
    let batch = batch_of(vec![("ints", Arc::new(Int64Array::from_iter_values(0..100_000)))]);
    let slice = batch.slice(1000, 50_000);
    let address = slice.column(0).as_primitive::<Int64Type>().values().as_ptr().addr();
    let mut pieces = Pieces::default();
    payload_of(slice).write_to(&mut pieces).unwrap();
    assert!(pieces.0.contains(&(address, 400_000)));
}

#[test]
fn the_stated_length_is_the_written_one() {
    for rows in [0, 1, 7, 8, 9, 1000] {
        let flags: BooleanArray = (0..rows).map(|row| (row % 5 != 0).then_some(row % 2 == 0)).collect();
        let payload = payload_of(batch_of(vec![("flags", Arc::new(flags))]));
        let mut bytes = Vec::new();
        payload.write_to(&mut bytes).unwrap();
        assert_eq!(bytes.len(), payload.length());
    }
}

#[test]
fn few_rows_of_a_large_column_of_views_are_written_without_its_other_bytes() {
    let long = |row: usize| format!("row {row:06} of a column whose strings are all too long to be inlined");
    let rows = 20_000;
    let texts = StringViewArray::from_iter_values((0..rows).map(long));
    let bytes = BinaryViewArray::from_iter_values((0..rows).map(long));
    let held: usize = texts.data_buffers().iter().map(|buffer| buffer.len()).sum();
    let batch = batch_of(vec![("texts", Arc::new(texts)), ("bytes", Arc::new(bytes))]);
    let slice = batch.slice(5000, 10);
    let frame = frame::build(Header::new("arrow"), &payload_of(slice.clone())).unwrap();
    assert!(frame.len() < 8 * 1024 && held > 1024 * 1024, "{} bytes of {held}", frame.len());
    let table = crate::support::through_a_frame(slice.schema(), vec![slice.clone()]);
    assert_eq!(table.batches(), [slice]);
    let whole = frame::build(Header::new("arrow"), &payload_of(batch)).unwrap();
    assert!(whole.len() > 2 * held);
}

/// Fails after some bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_at_any_byte_is_an_io_error() {
    let payload = payload_of(batch_of(vec![("ints", Arc::new(Int64Array::from_iter_values(0..100)))]));
    for room in 0..payload.length() {
        match payload.write_to(&mut Full(room)) {
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
            other => panic!("{other:?} after {room} bytes"),
        }
    }
}

#[test]
fn batches_of_another_schema_are_refused() {
    let ints = batch_of(vec![("column", Arc::new(Int64Array::from(vec![1])))]);
    let texts = batch_of(vec![("column", Arc::new(LargeStringArray::from(vec!["a"])))]);
    let refused = Table::new(ints.schema(), vec![ints, texts]).into_payload();
    assert!(matches!(refused, Err(Error::Encode { .. })), "{refused:?}");
}
