//! Files with random bytes changed are read or refused, and never a panic.

use crate::support::{Bytes, batch_of};
use arrow_array::builder::{ListViewBuilder, PrimitiveRunBuilder, UnionBuilder};
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, ListArray, NullArray, RecordBatch,
    StringArray, StringViewArray, StructArray,
};
use arrow_schema::{DataType, Field};
use framecache::codec::arrow::{IpcFile, read};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

/// A file with every kind of layout, small so that most bytes matter.
static MIXED: LazyLock<Bytes> = LazyLock::new(|| {
    let long = "a string of more than twelve bytes";
    let mut union = UnionBuilder::new_dense();
    union.append::<Int32Type>("int", 1).unwrap();
    union.append::<Int64Type>("long", 2).unwrap();
    union.append::<Int32Type>("int", 3).unwrap();
    let mut runs = PrimitiveRunBuilder::<Int16Type, Int64Type>::new();
    runs.extend([Some(1), Some(1), None]);
    let mut list_views = ListViewBuilder::new(Int32Array::builder(4));
    list_views.append_value([Some(1), None]);
    list_views.append_null();
    list_views.append_value([Some(3)]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
    let list: ArrayRef = Arc::new(list);
    let codes = DictionaryArray::<Int8Type>::new(vec![0i8, 1, 0].into(), Arc::new(StringArray::from(vec!["a", "bc"])));
    let batch = batch_of(vec![
        ("ints", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("flags", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("texts", Arc::new(StringArray::from(vec!["zero", "one", "two"]))),
        ("views", Arc::new(StringViewArray::from(vec![Some(long), None, Some("short")]))),
        ("codes", Arc::new(codes)),
        ("union", Arc::new(union.build().unwrap())),
        ("runs", Arc::new(runs.finish())),
        ("list views", Arc::new(list_views.finish())),
        (
            "struct",
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("list", list.data_type().clone(), true)), list)])),
        ),
        ("nulls", Arc::new(NullArray::new(3))),
    ]);
    assert!(batch.columns().iter().any(|column| matches!(column.data_type(), DataType::RunEndEncoded(..))));
    Bytes::of_batches(vec![batch.clone(), batch])
});

/// What must hold for any bytes at all.
fn is_read_or_refused(bytes: &Bytes) {
    let Ok(file) = IpcFile::open(bytes.frame()) else { return };
    let verified = file.verify();
    for may_copy in [false, true] {
        let Ok(table) = read(&file, may_copy) else { continue };
        assert!(verified.is_ok(), "read, though not verified");
        assert_eq!(table.num_rows(), file.num_rows());
        for column in table.batches().iter().flat_map(RecordBatch::columns) {
            column.to_data().validate_full().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_anywhere_are_read_or_refused(edits in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..8)) {
        let mut bytes = MIXED.clone();
        let length = bytes.0.len();
        for (place, byte) in edits {
            bytes.0[(place * length as f64) as usize] = byte;
        }
        is_read_or_refused(&bytes);
    }

    #[test]
    fn numbers_at_their_limits_anywhere_are_read_or_refused(
        place in 0.0..1.0f64,
        value in prop::sample::select(vec![0u64, 1, 2, 3, 1 << 7, 1 << 15, 1 << 31, u64::MAX >> 33, u64::MAX >> 1, u64::MAX]),
        width in prop::sample::select(vec![1usize, 2, 4, 8]),
    ) {
        let mut bytes = MIXED.clone();
        let at = (place * (bytes.0.len() - 8) as f64) as usize / width * width;
        bytes.put(at, &value.to_le_bytes()[..width]);
        is_read_or_refused(&bytes);
    }

    #[test]
    fn a_file_cut_and_joined_is_read_or_refused(cut in 0.0..1.0f64, left_out in 0usize..64) {
        let length = MIXED.0.len();
        let cut = (cut * length as f64) as usize;
        let rest = &MIXED.0[(cut + left_out).min(length)..];
        is_read_or_refused(&Bytes([&MIXED.0[..cut], rest].concat()));
    }
}

#[test]
fn every_single_byte_set_to_its_extremes_is_read_or_refused() {
    for at in 0..MIXED.0.len() {
        for byte in [0, 1, 0x7F, 0x80, 0xFF, MIXED.0[at].wrapping_add(1)] {
            let mut bytes = MIXED.clone();
            bytes.0[at] = byte;
            is_read_or_refused(&bytes);
        }
    }
}
