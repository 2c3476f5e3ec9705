//! What the fuzz targets share: valid payloads to start from, and what must hold of any payload.
//!
//! ```text
//! cargo +nightly run --manifest-path fuzz/Cargo.toml --example seeds   # writes fuzz/corpus
//! cargo +nightly fuzz run arrow -- -max_total_time=240
//! ```

use arrow_array::builder::{
    BinaryViewBuilder, FixedSizeBinaryBuilder, Int32Builder, ListBuilder, ListViewBuilder, MapBuilder,
    PrimitiveRunBuilder, StringBuilder, UnionBuilder,
};
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeListArray, Float64Array, Int64Array,
    LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{Field, Schema};
use framecache::buffer::{AlignedBuf, FrameBuf, Origin};
use framecache::codec::arrow::{IpcFile, Table, read};
use framecache::frame::Payload;
use std::sync::{Arc, LazyLock};

/// Valid payloads, one for each kind of layout and one with all of them.
pub static SAMPLES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let columns = columns();
    let mut samples: Vec<_> =
        columns.iter().map(|(name, array)| (*name, payload(&[(*name, array.clone())], 1))).collect();
    samples.push(("all", payload(&columns, 2)));
    samples.push(("none", payload(&[], 1)));
    samples
});

fn payload(columns: &[(&str, ArrayRef)], batches: usize) -> Vec<u8> {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = match columns {
        [] => RecordBatch::new_empty(schema.clone()),
        _ => RecordBatch::try_new(schema.clone(), columns.iter().map(|(_, array)| array.clone()).collect()).unwrap(),
    };
    let mut bytes = Vec::new();
    Table::new(schema, vec![batch; batches]).into_payload().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

/// Columns of four rows.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let long = "a string of more than twelve bytes";
    let mut union = [UnionBuilder::new_dense(), UnionBuilder::new_sparse()];
    for union in &mut union {
        union.append::<Int32Type>("int", 1).unwrap();
        union.append::<Int64Type>("long", 2).unwrap();
        union.append_null::<Int32Type>("int").unwrap();
        union.append::<Int64Type>("long", 4).unwrap();
    }
    let [dense, sparse] = union.map(|union| Arc::new(union.build().unwrap()));
    let mut runs = PrimitiveRunBuilder::<Int16Type, Int64Type>::new();
    runs.extend([Some(1), Some(1), None, Some(2)]);
    let rows = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(3), Some(4), Some(5)])];
    let (mut lists, mut views) = (ListBuilder::new(Int32Builder::new()), ListViewBuilder::new(Int32Builder::new()));
    for row in rows {
        lists.append_option(row.clone());
        views.append_option(row);
    }
    let pairs = [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(3)]), Some(vec![Some(4), Some(5)])];
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    let mut fixed = FixedSizeBinaryBuilder::new(3);
    let mut bytes = BinaryViewBuilder::new();
    for row in 0..4 {
        map.keys().append_value(long);
        map.values().append_value(row);
        map.append(row != 2).unwrap();
        fixed.append_value(b"abc").unwrap();
        bytes.append_option((row != 1).then_some(&long[..10 * row as usize]));
    }
    let codes = DictionaryArray::<Int8Type>::new(
        vec![Some(0i8), Some(1), None, Some(0)].into(),
        Arc::new(StringArray::from(vec!["a", "bc"])),
    );
    let codes: ArrayRef = Arc::new(codes);
    let nested = Field::new("codes", codes.data_type().clone(), true);
    let nulls = NullBuffer::from(vec![true, false, true, true]);
    vec![
        ("ints", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]))),
        ("floats", Arc::new(Float64Array::from(vec![1.0, f64::NAN, 0.0, -1.0]))),
        ("decimals", Arc::new(Decimal128Array::from(vec![1, -2, 3, 4]))),
        ("flags", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None]))),
        ("texts", Arc::new(StringArray::from(vec![Some("zero"), None, Some("two"), Some("žluťoučký")]))),
        ("large texts", Arc::new(LargeStringArray::from(vec!["zero", "one", "two", ""]))),
        ("text views", Arc::new(StringViewArray::from(vec![Some(long), None, Some("short"), Some(long)]))),
        ("byte views", Arc::new(bytes.finish())),
        ("fixed", Arc::new(fixed.finish())),
        ("lists", Arc::new(lists.finish())),
        ("list views", Arc::new(views.finish())),
        ("pairs", Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2))),
        ("map", Arc::new(map.finish())),
        ("struct", Arc::new(StructArray::new(vec![nested].into(), vec![codes.clone()], Some(nulls)))),
        ("codes", codes),
        ("dense", dense),
        ("sparse", sparse),
        ("runs", Arc::new(runs.finish())),
        ("nulls", Arc::new(NullArray::new(4))),
    ]
}

/// Requires what must hold of any bytes: no panic; what is not verified is not read; what is read is valid, can be
/// looked at, and can be written and read again.
pub fn check_arrow(payload: &[u8], shift: usize) {
    let mut buffer = AlignedBuf::with_capacity(shift + payload.len()).unwrap();
    buffer.extend_zeroed(shift).unwrap();
    buffer.extend_from_slice(payload).unwrap();
    let frame = FrameBuf::from_aligned(buffer, Origin::Foreign).slice(shift..).unwrap();
    let Ok(file) = IpcFile::open(frame) else { return };
    let verified = file.verify();
    let tables = [false, true].map(|may_copy| read(&file, may_copy));
    assert!(verified.is_ok() || tables.iter().all(Result::is_err), "read, though not verified");
    assert!(tables[0].is_err() || tables[1].is_ok(), "read in place, but not with copying allowed");
    for table in tables.into_iter().flatten() {
        assert_eq!((table.num_rows(), table.batches().len()), (file.num_rows(), file.num_batches()));
        for column in table.batches().iter().flat_map(RecordBatch::columns) {
            column.to_data().validate_full().expect("what was read is valid");
        }
        written_again(table);
    }
}

fn written_again(table: Table) {
    let rows = table.num_rows();
    let Ok(payload) = table.into_payload() else { return };
    let mut buffer = AlignedBuf::default();
    payload.write_to(&mut buffer).unwrap();
    assert_eq!(buffer.len(), payload.length());
    let file = IpcFile::open(FrameBuf::from_aligned(buffer, Origin::Trusted)).expect("what was written opens");
    assert_eq!(read(&file, false).expect("what was written is read in place").num_rows(), rows);
}
