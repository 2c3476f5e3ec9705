//! What was written is what is read, by value, and lies in the frame.

use crate::support::{batch_of, table_of, through_a_frame};
use arrow_array::builder::{
    FixedSizeBinaryBuilder, Int32Builder, LargeListBuilder, ListBuilder, ListViewBuilder, MapBuilder,
    PrimitiveRunBuilder, StringBuilder, StringDictionaryBuilder, UnionBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{IntervalDayTime, IntervalMonthDayNano, NullBuffer, i256};
use arrow_schema::{DataType, Field, Schema};
use framecache::Error;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// Requires that the batch comes back equal: whole, in two slices, and without its first and last row.
fn comes_back(batch: &RecordBatch) {
    let rows = batch.num_rows();
    let middle = batch.slice(1, rows - 2);
    let halves = [batch.slice(0, rows / 2), batch.slice(rows / 2, rows - rows / 2)];
    for batches in [vec![batch.clone()], vec![middle], halves.to_vec(), vec![batch.slice(0, 0), batch.clone()]] {
        let table = through_a_frame(batch.schema(), batches.clone());
        assert_eq!(table.schema(), &batch.schema());
        assert_eq!(table.batches(), batches);
    }
}

fn column_comes_back(array: impl Array + 'static) {
    comes_back(&batch_of(vec![("column", Arc::new(array))]));
}

/// Ten values, every third one null.
fn primitive<T: ArrowPrimitiveType>(low: T::Native, high: T::Native) -> PrimitiveArray<T> {
    (0..10).map(|row| (row % 3 != 2).then_some(if row % 2 == 0 { low } else { high })).collect()
}

fn texts() -> Vec<Option<&'static str>> {
    let long = "a string that is longer than twelve bytes, so that a view points to it";
    vec![
        Some("short"),
        None,
        Some(""),
        Some(long),
        Some("twelve bytes"),
        Some("thirteen byte"),
        None,
        Some("žluťoučký kůň"),
    ]
}

#[test]
fn numbers_come_back() {
    comes_back(&batch_of(vec![
        ("int8", Arc::new(primitive::<Int8Type>(i8::MIN, i8::MAX))),
        ("int16", Arc::new(primitive::<Int16Type>(i16::MIN, i16::MAX))),
        ("int32", Arc::new(primitive::<Int32Type>(i32::MIN, i32::MAX))),
        ("int64", Arc::new(primitive::<Int64Type>(i64::MIN, i64::MAX))),
        ("uint8", Arc::new(primitive::<UInt8Type>(1, u8::MAX))),
        ("uint16", Arc::new(primitive::<UInt16Type>(1, u16::MAX))),
        ("uint32", Arc::new(primitive::<UInt32Type>(1, u32::MAX))),
        ("uint64", Arc::new(primitive::<UInt64Type>(1, u64::MAX))),
        ("float32", Arc::new(primitive::<Float32Type>(f32::MIN, f32::INFINITY))),
        ("float64", Arc::new(primitive::<Float64Type>(f64::MIN_POSITIVE, f64::NEG_INFINITY))),
    ]));
}

#[test]
fn half_precision_floats_come_back() {
    let bits = arrow_buffer::Buffer::from_slice_ref([0x3C00_u16, 0x7C00, 0x0001, 0xC000]);
    let data = arrow_data::ArrayData::builder(DataType::Float16).len(4).add_buffer(bits).build().unwrap();
    column_comes_back(Float16Array::from(data));
}

#[test]
fn decimals_come_back() {
    comes_back(&batch_of(vec![
        ("32", Arc::new(primitive::<Decimal32Type>(-1, 999).with_precision_and_scale(9, 2).unwrap())),
        ("64", Arc::new(primitive::<Decimal64Type>(-1, 999).with_precision_and_scale(18, -2).unwrap())),
        ("128", Arc::new(primitive::<Decimal128Type>(-1, 10i128.pow(37)).with_precision_and_scale(38, 10).unwrap())),
        ("256", Arc::new(primitive::<Decimal256Type>(i256::MINUS_ONE, i256::from_i128(i128::MAX)))),
    ]));
}

#[test]
fn temporal_types_come_back() {
    comes_back(&batch_of(vec![
        ("date32", Arc::new(primitive::<Date32Type>(-1, 20_000))),
        ("date64", Arc::new(primitive::<Date64Type>(-86_400_000, 86_400_000))),
        ("time32 s", Arc::new(primitive::<Time32SecondType>(0, 86_399))),
        ("time32 ms", Arc::new(primitive::<Time32MillisecondType>(0, 86_399_999))),
        ("time64 us", Arc::new(primitive::<Time64MicrosecondType>(0, 86_399_999_999))),
        ("time64 ns", Arc::new(primitive::<Time64NanosecondType>(0, 86_399_999_999_999))),
        ("timestamp s", Arc::new(primitive::<TimestampSecondType>(-1, 1 << 40))),
        ("timestamp ms", Arc::new(primitive::<TimestampMillisecondType>(-1, 1).with_timezone("UTC"))),
        ("timestamp us", Arc::new(primitive::<TimestampMicrosecondType>(-1, 1).with_timezone("Europe/Prague"))),
        ("timestamp ns", Arc::new(primitive::<TimestampNanosecondType>(i64::MIN, i64::MAX).with_timezone("+01:30"))),
        ("duration s", Arc::new(primitive::<DurationSecondType>(-1, 1))),
        ("duration ms", Arc::new(primitive::<DurationMillisecondType>(-1, 1))),
        ("duration us", Arc::new(primitive::<DurationMicrosecondType>(-1, 1))),
        ("duration ns", Arc::new(primitive::<DurationNanosecondType>(i64::MIN, i64::MAX))),
        ("year month", Arc::new(primitive::<IntervalYearMonthType>(-1, 11))),
        ("day time", Arc::new(primitive::<IntervalDayTimeType>(IntervalDayTime::MIN, IntervalDayTime::new(1, 2)))),
        (
            "month day nano",
            Arc::new(primitive::<IntervalMonthDayNanoType>(
                IntervalMonthDayNano::MIN,
                IntervalMonthDayNano::new(1, 2, 3),
            )),
        ),
    ]));
}

#[test]
fn booleans_come_back_at_any_bit_offset() {
    let array: BooleanArray = (0..100).map(|row| (row % 7 != 3).then_some(row % 3 == 0)).collect();
    column_comes_back(array.clone());
    for start in 0..20 {
        column_comes_back(array.slice(start, 61));
    }
}

#[test]
fn strings_and_binary_come_back() {
    let bytes = || texts().into_iter().map(|text| text.map(str::as_bytes)).collect::<Vec<_>>();
    comes_back(&batch_of(vec![
        ("utf8", Arc::new(StringArray::from(texts()))),
        ("large utf8", Arc::new(LargeStringArray::from(texts()))),
        ("utf8 view", Arc::new(StringViewArray::from(texts()))),
        ("binary", Arc::new(BinaryArray::from(bytes()))),
        ("large binary", Arc::new(LargeBinaryArray::from(bytes()))),
        ("binary view", Arc::new(BinaryViewArray::from(bytes()))),
    ]));
}

#[test]
fn fixed_size_binary_comes_back() {
    let mut builder = FixedSizeBinaryBuilder::new(3);
    for value in [Some(b"abc"), None, Some(b"\0\0\0"), Some(b"xyz")] {
        match value {
            Some(value) => builder.append_value(value).unwrap(),
            None => builder.append_null(),
        }
    }
    column_comes_back(builder.finish());
}

fn lists() -> ListArray {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in [Some(vec![Some("a"), None, Some("bc")]), None, Some(vec![]), Some(vec![Some("a longer string")])] {
        builder.append_option(row);
    }
    builder.finish()
}

#[test]
fn lists_of_every_kind_come_back() {
    let rows = || [Some(vec![Some(1), None, Some(3)]), None, Some(vec![]), Some(vec![Some(4)])];
    column_comes_back(lists());
    let mut large = LargeListBuilder::new(Int32Builder::new());
    let mut views = ListViewBuilder::new(Int32Builder::new());
    for row in rows() {
        large.append_option(row.clone());
        views.append_option(row);
    }
    column_comes_back(large.finish());
    column_comes_back(views.finish());
    let rows = [Some(vec![Some(1), None]), None, Some(vec![Some(3), Some(4)]), Some(vec![None, None])];
    column_comes_back(FixedSizeListArray::from_iter_primitive::<Int16Type, _, _>(rows, 2));
}

#[test]
fn large_list_views_that_overlap_and_run_backwards_come_back() {
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let values = Arc::new(Int32Array::from_iter_values(0..10));
    let (offsets, sizes) = (vec![5i64, 0, 4, 10], vec![5i64, 6, 0, 0]);
    let nulls = NullBuffer::from(vec![true, true, false, true]);
    column_comes_back(LargeListViewArray::new(item, offsets.into(), sizes.into(), values, Some(nulls)));
}

#[test]
fn maps_come_back() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..5 {
        for entry in 0..row {
            builder.keys().append_value(format!("key {entry} of row {row}"));
            builder.values().append_option((entry % 2 == 0).then_some(entry));
        }
        builder.append(row != 3).unwrap();
    }
    column_comes_back(builder.finish());
}

#[test]
fn structs_of_lists_of_structs_come_back() {
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int32, true)), Arc::new(primitive::<Int32Type>(1, 2)) as ArrayRef),
        (Arc::new(Field::new("empty", DataType::Null, true)), Arc::new(NullArray::new(10)) as ArrayRef),
    ]);
    let item = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
    let offsets = arrow_buffer::OffsetBuffer::from_lengths([3, 0, 5, 2]);
    let list = Arc::new(ListArray::new(item, offsets, Arc::new(inner), Some(vec![true, false, true, true].into())));
    let fields = vec![
        Field::new("list", list.data_type().clone(), true),
        Field::new("strings", lists().data_type().clone(), true),
    ];
    let nulls = NullBuffer::from(vec![true, true, true, false]);
    column_comes_back(StructArray::new(fields.into(), vec![list, Arc::new(lists())], Some(nulls)));
}

#[test]
fn a_struct_without_fields_comes_back() {
    column_comes_back(StructArray::new_empty_fields(9, Some(NullBuffer::from_iter((0..9).map(|row| row % 2 == 0)))));
}

fn dictionary(values: &[Option<&str>]) -> DictionaryArray<Int8Type> {
    let mut builder = StringDictionaryBuilder::<Int8Type>::new();
    builder.extend(values.iter().copied());
    builder.finish()
}

#[test]
fn dictionaries_come_back() {
    column_comes_back(dictionary(&[Some("a"), None, Some("b"), Some("a"), Some("c"), None]));
    let keys = UInt64Array::from(vec![Some(0), Some(2), None, Some(1)]);
    column_comes_back(DictionaryArray::new(keys, Arc::new(primitive::<Int64Type>(7, 8))));
}

#[test]
fn dictionaries_that_differ_between_batches_merge() {
    let first = batch_of(vec![("column", Arc::new(dictionary(&[Some("a"), Some("b"), None])))]);
    let second = batch_of(vec![("column", Arc::new(dictionary(&[Some("x"), Some("a"), Some("y")])))]);
    let table = through_a_frame(first.schema(), vec![first, second]);
    assert_eq!((table.batches().len(), table.num_rows()), (1, 6));
    let column = table.batches()[0].column(0).as_dictionary::<Int8Type>();
    let values = column.downcast_dict::<StringArray>().unwrap();
    let values: Vec<_> = (0..6).map(|row| column.is_valid(row).then(|| values.value(row))).collect();
    assert_eq!(values, [Some("a"), Some("b"), None, Some("x"), Some("a"), Some("y")]);
}

#[test]
fn dictionaries_that_together_outgrow_their_keys_are_refused() {
    let batches: Vec<_> = (0..2)
        .map(|batch| {
            let values = StringArray::from_iter_values((0..100).map(|value| format!("{value} of {batch}")));
            let keys = Int8Array::from_iter_values(0..100);
            batch_of(vec![("column", Arc::new(DictionaryArray::new(keys, Arc::new(values))))])
        })
        .collect();
    match table_of(batches).into_payload() {
        Err(Error::Encode { expected, .. }) => assert_eq!(expected, "dictionaries that can be merged"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_dictionaries_and_one_inside_a_list_come_back() {
    let inside = Arc::new(dictionary(&[Some("in"), Some("a"), None, Some("list"), Some("in")]));
    let item = Arc::new(Field::new_list_field(inside.data_type().clone(), true));
    let offsets = arrow_buffer::OffsetBuffer::from_lengths([2, 0, 3]);
    comes_back(&batch_of(vec![
        ("first", Arc::new(dictionary(&[Some("a"), Some("b"), Some("a")]))),
        ("second", Arc::new(dictionary(&[None, Some("c"), Some("c")]))),
        ("third", Arc::new(ListArray::new(item, offsets, inside, None))),
    ]));
}

fn fill(mut builder: UnionBuilder) -> UnionArray {
    for row in 0..12 {
        match row % 4 {
            0 => builder.append::<Int32Type>("int", row).unwrap(),
            1 => builder.append::<Float64Type>("float", f64::from(row)).unwrap(),
            2 => builder.append_null::<Int32Type>("int").unwrap(),
            _ => builder.append::<UInt8Type>("byte", 9).unwrap(),
        }
    }
    builder.build().unwrap()
}

#[test]
fn unions_come_back() {
    column_comes_back(fill(UnionBuilder::new_dense()));
    column_comes_back(fill(UnionBuilder::new_sparse()));
}

#[test]
fn run_ends_come_back() {
    let mut builder = PrimitiveRunBuilder::<Int32Type, Int64Type>::new();
    builder.extend([Some(1), Some(1), None, None, None, Some(3), Some(3), Some(3), Some(1)]);
    column_comes_back(builder.finish());
    for strings in [vec!["a", "a", "b", "b"], vec!["a", "b", "c", "d"]] {
        column_comes_back(strings.into_iter().collect::<Int16RunArray>());
    }
}

#[test]
fn nulls_come_back() {
    column_comes_back(NullArray::new(7));
    let all_null =
        batch_of(vec![("ints", Arc::new(Int32Array::new_null(5))), ("texts", Arc::new(StringArray::new_null(5)))]);
    comes_back(&all_null);
}

#[test]
fn empty_tables_come_back() {
    let some = batch_of(vec![
        ("int", Arc::new(Int32Array::from(vec![1]))),
        ("text", Arc::new(StringArray::from(vec!["a"]))),
        ("list", Arc::new(lists().slice(0, 1))),
        ("dictionary", Arc::new(dictionary(&[Some("a")]))),
    ]);
    let no_batches = through_a_frame(some.schema(), vec![]);
    assert_eq!((no_batches.schema(), no_batches.batches().len()), (&some.schema(), 0));
    let no_rows = through_a_frame(some.schema(), vec![some.slice(0, 0), some.slice(1, 0)]);
    assert_eq!((no_rows.batches().len(), no_rows.num_rows()), (2, 0));
    let schema = Arc::new(Schema::empty());
    assert_eq!(through_a_frame(schema.clone(), vec![]).num_rows(), 0);
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let no_columns = RecordBatch::try_new_with_options(schema.clone(), vec![], &options).unwrap();
    assert_eq!(through_a_frame(schema, vec![no_columns]).num_rows(), 3);
}

#[test]
fn metadata_of_schema_and_fields_come_back() {
    let pair = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    let child = Field::new("child", DataType::Int32, false).with_metadata(pair("of", "child"));
    let fields = vec![
        Field::new("plain", DataType::Int32, false),
        Field::new("extended", DataType::Int32, true).with_metadata(pair("ARROW:extension:name", "x.y")),
        Field::new("parent", DataType::Struct(vec![child].into()), true).with_metadata(pair("of", "parent")),
    ];
    let schema = Arc::new(Schema::new(fields).with_metadata(pair("pandas", "{\"columns\": []}")));
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let DataType::Struct(children) = schema.field(2).data_type() else { panic!("a struct") };
    let parent = StructArray::new(children.clone(), vec![ints.clone()], None);
    let batch = RecordBatch::try_new(schema.clone(), vec![ints.clone(), ints, Arc::new(parent)]).unwrap();
    let table = through_a_frame(schema.clone(), vec![batch.clone()]);
    assert_eq!((table.schema(), &table.batches()[0]), (&schema, &batch));
}

#[test]
fn a_decoded_table_outlives_its_frame_and_can_be_written_again() {
    let batch = batch_of(vec![
        ("ints", Arc::new(primitive::<Int64Type>(1, 2))),
        ("flags", Arc::new(BooleanArray::from(vec![true; 10]))),
    ]);
    let first = through_a_frame(batch.schema(), vec![batch.clone(), batch.slice(3, 4)]);
    let second = through_a_frame(first.schema().clone(), first.batches().to_vec());
    drop(first);
    assert_eq!(second.batches(), [batch.clone(), batch.slice(3, 4)]);
}

proptest! {
    #[test]
    fn any_slice_of_any_strings_comes_back(
        strings in prop::collection::vec(prop::option::of(".{0,20}"), 1..60),
        cuts in prop::collection::vec(0.0..1.0f64, 2),
    ) {
        let views: StringViewArray = strings.iter().collect();
        let batch = batch_of(vec![
            ("utf8", Arc::new(strings.iter().collect::<StringArray>())),
            ("views", Arc::new(views)),
            ("lengths", Arc::new(strings.iter().map(|text| text.as_ref().map(|text| text.len() as u64)).collect::<UInt64Array>())),
        ]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| (cut * strings.len() as f64) as usize).collect();
        cuts.sort_unstable();
        let slice = batch.slice(cuts[0], cuts[1] - cuts[0]);
        let table = through_a_frame(batch.schema(), vec![slice.clone(), batch.clone()]);
        prop_assert_eq!(table.batches(), &[slice, batch][..]);
    }
}
