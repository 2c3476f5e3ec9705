//! Valid files with one thing changed, each refused by an error that says where.

use crate::support::{Bytes, batch_of, refusal, refused};
use arrow_array::builder::{FixedSizeBinaryBuilder, ListBuilder, ListViewBuilder, PrimitiveRunBuilder, UnionBuilder};
use arrow_array::types::{Int8Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Int8Array, Int32Array, Int64Array,
    LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{CompressionType, DictionaryBatch, DictionaryEncoding, RecordBatch as IpcBatch};
use arrow_schema::{DataType, Field};
use framecache::Error;
use framecache::codec::arrow::{IpcFile, Table, read};
use std::sync::Arc;

// Where the fields of the format's structs stand in them.
const NODE_LENGTH: usize = 0;
const NODE_NULLS: usize = 8;
const BUFFER_OFFSET: usize = 0;
const BUFFER_LENGTH: usize = 8;
const BLOCK_OFFSET: usize = 0;
const BLOCK_METADATA: usize = 8;
const BLOCK_BODY: usize = 16;

// The buffers of a column that is not nested; the values of lists and strings start with their offsets.
const VALIDITY: usize = 0;
const VALUES: usize = 1;

fn one(name: &str, array: impl Array + 'static) -> Bytes {
    Bytes::of(vec![(name, Arc::new(array) as ArrayRef)])
}

/// The file with bytes written over those that a buffer has at `offset`.
fn with_value(mut bytes: Bytes, buffer: usize, offset: usize, value: &[u8]) -> Bytes {
    let at = bytes.batch(0).values_at(buffer) + offset;
    bytes.put(at, value);
    bytes
}

fn with_buffer(mut bytes: Bytes, buffer: usize, field: usize, value: i64) -> Bytes {
    let at = bytes.at(bytes.batch(0).buffer(buffer)) + field;
    bytes.put(at, &value.to_le_bytes());
    bytes
}

fn with_node(mut bytes: Bytes, node: usize, field: usize, value: i64) -> Bytes {
    let at = bytes.at(bytes.batch(0).node(node)) + field;
    bytes.put(at, &value.to_le_bytes());
    bytes
}

fn with_block(mut bytes: Bytes, field: usize, value: &[u8]) -> Bytes {
    let at = bytes.at(bytes.batch(0).block) + field;
    bytes.put(at, value);
    bytes
}

fn texts() -> Bytes {
    one("texts", StringArray::from(vec!["zero", "one", "two", "three", "four", "five"]))
}

#[test]
fn offsets_that_fall_in_the_middle_of_a_column() {
    for value in [16i32, 1000, i32::MAX, -1, i32::MIN, 0] {
        let bytes = with_value(texts(), VALUES, 3 * 4, &value.to_le_bytes());
        refused(&bytes, "texts", "offsets that never fall");
    }
    let large = one("large", LargeStringArray::from(vec!["zero", "one", "two", "three"]));
    for value in [12i64, i64::MAX, -1, i64::from(u32::MAX) + 1] {
        refused(&with_value(large.clone(), VALUES, 2 * 8, &value.to_le_bytes()), "large", "offsets that never fall");
    }
}

#[test]
fn two_hostile_offsets_in_the_middle_of_a_column() {
    for (low, high) in [(1000i32, 2000i32), (-2000, -1000), (i32::MAX, i32::MAX), (i32::MIN, i32::MAX)] {
        let pair = [low.to_le_bytes(), high.to_le_bytes()].concat();
        refused(&with_value(texts(), VALUES, 2 * 4, &pair), "texts", "offsets that never fall");
    }
}

#[test]
fn a_first_offset_below_zero() {
    refused(&with_value(texts(), VALUES, 0, &(-1i32).to_le_bytes()), "texts", "-1 as offset 0");
}

#[test]
fn offsets_past_the_values() {
    let bytes = with_value(texts(), VALUES, 6 * 4, &10_000i32.to_le_bytes());
    refused(&bytes, "texts", "a buffer of at least 10000 bytes");
}

#[test]
fn text_that_is_not_utf8() {
    let text = refusal(&with_value(texts(), VALUES + 1, 2, b"\xff"));
    assert!(text.contains("batch 0") && text.contains("UTF"), "{text}");
}

#[test]
fn text_cut_inside_a_character() {
    let bytes = one("texts", StringArray::from(vec!["é", "é"]));
    let text = refusal(&with_value(bytes, VALUES, 4, &1i32.to_le_bytes()));
    assert!(text.contains("batch 0") && text.contains("utf-8"), "{text}");
}

fn coded() -> Bytes {
    let keys = Int8Array::from(vec![Some(0), None, Some(1), Some(2)]);
    one("coded", DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["a", "b", "c"]))))
}

#[test]
fn a_dictionary_index_out_of_range() {
    for index in [3i8, 127, -1, i8::MIN] {
        refused(&with_value(coded(), VALUES, 2, &index.to_le_bytes()), "coded", &format!("{index} in row 2"));
    }
}

#[test]
fn an_unsigned_dictionary_index_out_of_range() {
    let keys = arrow_array::UInt64Array::from(vec![0, 1]);
    let bytes = one("coded", DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["a", "b"]))));
    for index in [2, u64::MAX, 1 << 63] {
        refused(&with_value(bytes.clone(), VALUES, 8, &index.to_le_bytes()), "coded", "an index below 2");
    }
}

#[test]
fn a_null_dictionary_index_may_be_anything() {
    for index in [3i8, 127, -1] {
        let table = with_value(coded(), VALUES, 1, &index.to_le_bytes()).read(false).unwrap();
        assert!(table.batches()[0].column(0).is_null(1));
    }
}

#[test]
fn a_dictionary_that_the_file_lacks() {
    let mut bytes = coded();
    let count = bytes.at(bytes.footer().dictionaries().unwrap().bytes()) - 4;
    bytes.put(count, &0u32.to_le_bytes());
    refused(&bytes, "coded", "an index below 0");
}

fn two_dictionaries() -> Bytes {
    let column = |value: &str| -> ArrayRef {
        let values = StringArray::from(vec![value]);
        Arc::new(DictionaryArray::<Int8Type>::new(vec![0i8, 0].into(), Arc::new(values)))
    };
    Bytes::of(vec![("first", column("a")), ("second", column("b"))])
}

#[test]
fn a_second_dictionary_with_the_same_id() {
    let mut bytes = two_dictionaries();
    let [from, to] = [0, 1].map(|index| bytes.at(bytes.dictionary(index).block));
    bytes.0.copy_within(from..from + 24, to);
    let text = refusal(&bytes);
    assert!(text.contains("dictionary 1") && text.contains("a second one for id 0"), "{text}");
}

#[test]
fn a_dictionary_with_an_id_that_the_schema_lacks() {
    let mut bytes = two_dictionaries();
    let part = bytes.dictionary(1);
    let table = part.message().header_as_dictionary_batch().unwrap()._tab;
    let id = usize::from(table.vtable().get(DictionaryBatch::VT_ID)) + table.loc();
    let at = id + usize::try_from(part.block.offset()).unwrap() + 8;
    bytes.put(at, &77i64.to_le_bytes());
    let text = refusal(&bytes);
    assert!(text.contains("dictionary 1") && text.contains("found 77"), "{text}");
}

#[test]
fn a_batch_where_a_dictionary_should_be_and_the_reverse() {
    let (dictionary, batch) = (coded(), coded());
    let mut bytes = coded();
    let to = bytes.at(dictionary_block(&bytes));
    let from = dictionary.at(batch_block(&dictionary));
    bytes.put(to, &batch.0[from..from + 24]);
    let text = refusal(&bytes);
    assert!(text.contains("dictionary 0") && text.contains("a dictionary batch"), "{text}");
    let mut bytes = coded();
    let (to, from) = (bytes.at(batch_block(&bytes)), batch.at(dictionary_block(&batch)));
    bytes.put(to, &batch.0[from..from + 24]);
    let text = refusal(&bytes);
    assert!(text.contains("batch 0") && text.contains("a record batch"), "{text}");
}

fn dictionary_block(bytes: &Bytes) -> &arrow_ipc::Block {
    bytes.dictionary(0).block
}

fn batch_block(bytes: &Bytes) -> &arrow_ipc::Block {
    bytes.batch(0).block
}

fn views() -> Bytes {
    let long = "a string of more than twelve bytes";
    one("views", StringViewArray::from(vec![Some(long), Some("short"), None, Some(long)]))
}

#[test]
fn a_view_outside_its_buffer() {
    for (at, value) in [(12, 35u32), (12, 100), (12, u32::MAX), (0, 1000), (0, i32::MAX as u32 + 1), (0, u32::MAX)] {
        refused(&with_value(views(), VALUES, 3 * 16 + at, &value.to_le_bytes()), "views", "in row 3");
    }
}

#[test]
fn a_view_of_a_buffer_that_is_not_there() {
    for index in [1u32, u32::MAX] {
        refused(&with_value(views(), VALUES, 8, &index.to_le_bytes()), "views", &format!("buffer {index} in row 0"));
    }
}

#[test]
fn more_data_buffers_than_there_are() {
    for count in [2i64, 1 << 40, i64::MAX, -1] {
        let mut bytes = views();
        let at = {
            let part = bytes.batch(0);
            let counts = part.message().header_as_record_batch().unwrap().variadicBufferCounts().unwrap();
            bytes.at(counts.bytes())
        };
        bytes.put(at, &count.to_le_bytes());
        refused(&bytes, "views", "buffer");
    }
}

fn lists() -> ListBuilder<arrow_array::builder::Int32Builder> {
    let mut builder = ListBuilder::new(Int32Array::builder(4));
    builder.append_value([Some(1), Some(2)]);
    builder.append_value([Some(3)]);
    builder
}

#[test]
fn list_offsets_beyond_the_child() {
    let bytes = one("lists", lists().finish());
    refused(&with_value(bytes.clone(), VALUES, 2 * 4, &4i32.to_le_bytes()), "lists", "4 values in \"item\"");
    refused(&with_value(bytes, VALUES, 4, &4i32.to_le_bytes()), "lists", "offsets that never fall");
}

#[test]
fn the_path_of_a_nested_column_is_named() {
    let list = Arc::new(lists().finish()) as ArrayRef;
    let parent = StructArray::from(vec![(Arc::new(Field::new("list", list.data_type().clone(), true)), list)]);
    let bytes = with_value(one("parent", parent), 2, 4, &(-1i32).to_le_bytes());
    refused(&bytes, "parent.list", "offsets that never fall");
}

#[test]
fn list_views_beyond_the_child() {
    let mut builder = ListViewBuilder::new(Int32Array::builder(4));
    builder.append_value([Some(1), Some(2)]);
    builder.append_value([Some(3)]);
    let bytes = one("lists", builder.finish());
    for (buffer, value) in [(1, 3i32), (1, -1), (1, i32::MAX), (2, 2), (2, -1), (2, i32::MAX)] {
        refused(&with_value(bytes.clone(), buffer, 4, &value.to_le_bytes()), "lists", "in row 1");
    }
}

#[test]
fn a_fixed_size_list_of_too_few_values() {
    let rows = [Some(vec![Some(1), Some(2)]), Some(vec![Some(3), Some(4)])];
    let bytes = one("pairs", FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(rows, 2));
    refused(&with_node(bytes, 1, NODE_LENGTH, 3), "pairs", "4 values");
}

#[test]
fn a_struct_with_a_short_child() {
    let child = Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef;
    let bytes = one("parent", StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int32, true)), child)]));
    refused(&with_node(bytes, 1, NODE_LENGTH, 2), "parent", "3 values in \"x\"");
}

fn union_of(mut builder: UnionBuilder) -> Bytes {
    builder.append::<Int32Type>("int", 1).unwrap();
    builder.append::<Int64Type>("long", 2).unwrap();
    builder.append::<Int32Type>("int", 3).unwrap();
    one("union", builder.build().unwrap())
}

#[test]
fn an_unknown_union_type() {
    for id in [2i8, 127, -1, i8::MIN] {
        for builder in [UnionBuilder::new_dense(), UnionBuilder::new_sparse()] {
            refused(&with_value(union_of(builder), 0, 1, &id.to_le_bytes()), "union", "in row 1");
        }
    }
}

#[test]
fn a_dense_union_offset_out_of_range() {
    for offset in [2i32, -1, i32::MAX, i32::MIN] {
        let bytes = union_of(UnionBuilder::new_dense());
        refused(&with_value(bytes, 1, 2 * 4, &offset.to_le_bytes()), "union", &format!("value {offset} in row 2"));
    }
}

#[test]
fn a_sparse_union_with_a_short_child() {
    refused(&with_node(union_of(UnionBuilder::new_sparse()), 1, NODE_LENGTH, 2), "union", "in row 2");
}

fn runs() -> Bytes {
    let mut builder = PrimitiveRunBuilder::<Int32Type, Int64Type>::new();
    builder.extend([Some(1), Some(1), Some(2), Some(3)]);
    one("runs", builder.finish())
}

#[test]
fn run_ends_that_do_not_rise() {
    for end in [2i32, 1, 0, -1, 4, i32::MAX] {
        refused(&with_value(runs(), VALUES, 4, &end.to_le_bytes()), "runs", "run ends that rise");
    }
    refused(&with_value(runs(), VALUES, 0, &0i32.to_le_bytes()), "runs", "0 as end 0");
}

#[test]
fn run_ends_that_are_too_short() {
    let ends = [1i32, 2, 3].map(i32::to_le_bytes).concat();
    refused(&with_value(runs(), VALUES, 0, &ends), "runs", "run ends that reach 4");
    refused(&with_node(runs(), 1, NODE_LENGTH, 2), "runs", "run ends that reach 4");
    refused(&with_node(runs(), 1, NODE_LENGTH, 0), "runs", "run ends that reach 4");
}

#[test]
fn fewer_values_than_runs() {
    refused(&with_node(runs(), 2, NODE_LENGTH, 2), "runs", "3 values");
}

#[test]
fn null_run_ends() {
    refused(&with_node(runs(), 1, NODE_NULLS, 1), "runs", "run ends that are not null");
}

fn ints() -> Bytes {
    one("ints", Int64Array::from_iter((0..100).map(|row| (row % 2 == 0).then_some(row))))
}

#[test]
fn a_validity_bitmap_that_is_too_short() {
    for length in [12, 1, 0] {
        let bytes = with_buffer(ints(), VALIDITY, BUFFER_LENGTH, length);
        refused(&bytes, "ints", "a validity bitmap of 13 bytes");
    }
}

#[test]
fn a_null_count_that_lies() {
    refused(&with_node(ints(), 0, NODE_NULLS, 101), "ints", "at most 100 nulls");
    refused(&with_node(ints(), 0, NODE_NULLS, -1), "ints", "at least 0");
    let text = refusal(&with_node(ints(), 0, NODE_NULLS, 49));
    assert!(text.contains("batch 0") && text.contains("null"), "{text}");
}

#[test]
fn a_buffer_outside_the_body() {
    for offset in [1 << 20, i64::MAX, -1, i64::MIN] {
        refused(&with_buffer(ints(), VALUES, BUFFER_OFFSET, offset), "ints", "a buffer inside the body");
    }
    for length in [1 << 20, i64::MAX, -1, i64::MIN] {
        refused(&with_buffer(ints(), VALUES, BUFFER_LENGTH, length), "ints", "a buffer inside the body");
    }
}

#[test]
fn a_buffer_that_is_too_short() {
    refused(&with_buffer(ints(), VALUES, BUFFER_LENGTH, 799), "ints", "a buffer of at least 800 bytes");
    let flags = one("flags", BooleanArray::from(vec![true; 9]));
    refused(&with_buffer(flags, VALUES, BUFFER_LENGTH, 1), "flags", "a buffer of at least 2 bytes");
}

#[test]
fn negative_lengths() {
    refused(&with_node(ints(), 0, NODE_LENGTH, -1), "ints", "a length and null count of at least 0");
    let text = refusal(&with_batch_length(ints(), 0, -1));
    assert!(text.contains("batch 0") && text.contains("-1"), "{text}");
}

#[test]
fn a_column_shorter_or_longer_than_its_batch() {
    refused(&with_node(ints(), 0, NODE_LENGTH, 99), "ints", "the batch's 100 rows");
    refused(&with_batch_length(ints(), 0, 99), "ints", "the batch's 99 rows");
}

/// The file with another length in the batch's own field.
fn with_batch_length(mut bytes: Bytes, index: usize, length: i64) -> Bytes {
    let part = bytes.batch(index);
    let table = part.message().header_as_record_batch().unwrap()._tab;
    let field = usize::from(table.vtable().get(IpcBatch::VT_LENGTH)) + table.loc();
    let at = field + usize::try_from(part.block.offset()).unwrap() + 8;
    bytes.put(at, &length.to_le_bytes());
    bytes
}

#[test]
fn lengths_that_overflow_together() {
    let batch = batch_of(vec![("nulls", Arc::new(NullArray::new(5)))]);
    let mut bytes = Bytes::of_batches(vec![batch; 3]);
    for index in 0..3 {
        bytes = with_batch_length(bytes, index, i64::MAX);
        let node = bytes.at(bytes.batch(index).node(0));
        bytes.put(node + NODE_LENGTH, &i64::MAX.to_le_bytes()).put(node + NODE_NULLS, &i64::MAX.to_le_bytes());
    }
    assert!(IpcFile::open(bytes.frame()).unwrap().num_rows() > 0);
    assert!(refusal(&bytes).contains("batch 1"));
}

#[test]
fn a_length_that_overflows_its_width() {
    for length in [i64::MAX, i64::MAX / 8, 1 << 61] {
        let bytes = with_node(with_batch_length(ints(), 0, length), 0, NODE_LENGTH, length);
        refused(&with_node(bytes, 0, NODE_NULLS, 0), "ints", "");
    }
    let mut builder = FixedSizeBinaryBuilder::new(7);
    builder.append_value(b"seven B").unwrap();
    let bytes = with_batch_length(one("bytes", builder.finish()), 0, i64::MAX);
    refused(&with_node(bytes, 0, NODE_LENGTH, i64::MAX), "bytes", "");
}

#[test]
fn a_block_outside_the_payload() {
    for offset in [1i64 << 20, i64::MAX, -8, i64::MIN] {
        let text = refusal(&with_block(ints(), BLOCK_OFFSET, &offset.to_le_bytes()));
        assert!(text.contains("batch 0") && text.contains("a block before the footer"), "{text}");
    }
    for length in [1i32 << 20, i32::MAX, -8] {
        let text = refusal(&with_block(ints(), BLOCK_METADATA, &length.to_le_bytes()));
        assert!(text.contains("batch 0") && text.contains("a block before the footer"), "{text}");
    }
    for length in [1i64 << 20, i64::MAX, -8] {
        let text = refusal(&with_block(ints(), BLOCK_BODY, &length.to_le_bytes()));
        assert!(text.contains("batch 0") && text.contains("a block before the footer"), "{text}");
    }
}

#[test]
fn a_block_that_disagrees_with_its_message() {
    let text = refusal(&with_block(ints(), BLOCK_METADATA, &0i32.to_le_bytes()));
    assert!(text.contains("a metadata length inside the block"), "{text}");
    let text = refusal(&with_block(ints(), BLOCK_BODY, &64i64.to_le_bytes()));
    assert!(text.contains("the footer's body length 64"), "{text}");
}

#[test]
fn a_metadata_length_that_lies() {
    for length in [i32::MAX, -1, 1 << 20] {
        let mut bytes = ints();
        let at = usize::try_from(bytes.batch(0).block.offset()).unwrap() + 4;
        bytes.put(at, &length.to_le_bytes());
        assert!(refusal(&bytes).contains("a metadata length inside the block"));
    }
    let mut bytes = ints();
    let at = usize::try_from(bytes.batch(0).block.offset()).unwrap() + 4;
    bytes.put(at, &8i32.to_le_bytes());
    assert!(refusal(&bytes).contains("a message flatbuffer"));
}

#[test]
fn a_footer_length_that_lies() {
    for length in [0i32, -1, i32::MIN, i32::MAX, 1 << 20] {
        let mut bytes = ints();
        let at = bytes.0.len() - 10;
        bytes.put(at, &length.to_le_bytes());
        assert!(refusal(&bytes).contains("a footer inside the payload"));
    }
    let length = i32::try_from(ints().footer_at().len()).unwrap();
    for length in (1..2 * length).filter(|wrong| *wrong != length) {
        let mut bytes = ints();
        let at = bytes.0.len() - 10;
        bytes.put(at, &length.to_le_bytes());
        refusal(&bytes);
    }
}

#[test]
fn a_wrong_magic() {
    let mut bytes = ints();
    bytes.put(0, b"PARQUE");
    assert!(refusal(&bytes).contains("offset 0: expected the magic"));
    let mut bytes = ints();
    let end = bytes.0.len() - 6;
    bytes.put(end, b"ARROW2");
    assert!(refusal(&bytes).contains(&format!("offset {end}: expected the magic")));
}

#[test]
fn a_payload_cut_anywhere() {
    let bytes = ints();
    for length in 0..bytes.0.len() {
        refusal(&Bytes(bytes.0[..length].to_vec()));
    }
}

#[test]
fn a_message_of_another_version() {
    for version in [0i16, 3, 7, -1] {
        let mut bytes = ints();
        let at = bytes.batch(0).version_at();
        bytes.put(at, &version.to_le_bytes());
        let text = refusal(&bytes);
        assert!(text.contains("batch 0") && text.contains("metadata version"), "{text}");
    }
}

#[test]
fn compressed_buffers_are_refused_as_a_copy() {
    // Buffers without bytes need no compressor, and the message says that it is compressed all the same.
    let batch = RecordBatch::new_empty(batch_of(vec![("ints", Arc::new(Int64Array::from(vec![1])))]).schema());
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    let bytes = Bytes(writer.into_inner().unwrap());
    for may_copy in [false, true] {
        match bytes.read(may_copy) {
            Err(Error::CopyRequired { place, reason }) => {
                assert_eq!(place, "batch 0");
                assert!(reason.contains("compressed"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn read_at(bytes: &Bytes, shift: usize, may_copy: bool) -> framecache::Result<Table> {
    let shifted = Bytes([vec![0; shift], bytes.0.clone()].concat());
    read(&IpcFile::open(shifted.frame().slice(shift..).unwrap())?, may_copy)
}

#[test]
fn a_payload_that_is_not_aligned_is_copied_or_refused() {
    let columns = |bytes: &Bytes| bytes.read(false).unwrap().batches().to_vec();
    for (name, bytes) in [
        ("ints", ints()),
        ("union", union_of(UnionBuilder::new_dense())),
        ("views", views()),
        ("runs", runs()),
        ("coded", coded()),
    ] {
        for shift in [1, 2, 7, 8, 63] {
            assert_eq!(read_at(&bytes, shift, true).unwrap().batches(), columns(&bytes), "{name} at {shift}");
            match read_at(&bytes, shift, false) {
                Err(Error::CopyRequired { place, .. }) => assert!(place.contains(name), "{place}"),
                // Eight is enough for these types.
                Ok(table) => assert_eq!((shift, table.batches()), (8, &*columns(&bytes))),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_buffer_that_is_not_aligned_in_its_body_is_copied_or_refused() {
    let zeros = one("zeros", Int64Array::from(vec![0]));
    let offset = zeros.batch(0).buffer(VALUES).offset();
    let zeros = with_buffer(zeros, VALUES, BUFFER_OFFSET, offset + 1);
    assert!(matches!(zeros.read(false), Err(Error::CopyRequired { place, .. }) if place.contains("zeros")));
    let table = zeros.read(true).unwrap();
    assert_eq!(table.batches(), [batch_of(vec![("zeros", Arc::new(Int64Array::from(vec![0])))])]);
}

#[test]
fn dense_union_offsets_that_are_not_aligned_in_their_body() {
    let mut builder = UnionBuilder::new_dense();
    builder.append::<Int32Type>("int", 0).unwrap();
    // One byte on, the only offset is zero still.
    let bytes = with_buffer(one("union", builder.build().unwrap()), 1, BUFFER_OFFSET, 65);
    refused(&bytes, "union", "offsets at a multiple of 4");
}

#[test]
fn offsets_that_are_not_whole() {
    for length in 29..32 {
        refused(&with_buffer(texts(), VALUES, BUFFER_LENGTH, length), "texts", "a multiple of 4 bytes");
    }
    let none = one("texts", StringArray::from(vec!["a"]).slice(0, 0));
    if none.batch(0).block.bodyLength() > 5 {
        refused(&with_buffer(none, VALUES, BUFFER_LENGTH, 5), "texts", "a multiple of 4 bytes");
    }
}

#[test]
fn columns_that_share_a_dictionary_of_two_types() {
    let texts = DictionaryArray::<Int8Type>::new(vec![0i8].into(), Arc::new(StringArray::from(vec!["a"])));
    let longs = DictionaryArray::<Int8Type>::new(vec![0i8].into(), Arc::new(Int64Array::from(vec![1])));
    let mut bytes = Bytes::of(vec![("texts", Arc::new(texts)), ("longs", Arc::new(longs))]);
    let footer = bytes.footer();
    let table = footer.schema().unwrap().fields().unwrap().get(1).dictionary().unwrap()._tab;
    let id = bytes.footer_at().start + table.loc() + usize::from(table.vtable().get(DictionaryEncoding::VT_ID));
    let count = bytes.at(footer.dictionaries().unwrap().bytes()) - 4;
    // As numbers, the first dictionary is all in its body; as strings, it is not.
    let outside = bytes.at(bytes.dictionary(0).buffer(2));
    bytes.put(id, &0i64.to_le_bytes()).put(count, &1u32.to_le_bytes()).put(outside, &(1i64 << 40).to_le_bytes());
    refused(&bytes, "longs", "values of Utf8 in dictionary 0");
}
