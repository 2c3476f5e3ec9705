//! Taking arrays over from producers of the C data interface.
//!
//! <https://arrow.apache.org/docs/format/CDataInterface.html>
#![allow(unsafe_code)]

use super::table::Table;
use crate::error::{Error, Result, Text};
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, make_array};
use arrow_schema::{ArrowError, DataType, Field};
use std::ffi::{CStr, c_void};

impl Table {
    /// All batches of a C stream, by reference. Arrays that are not structs become the one column of a table.
    ///
    /// # Errors
    /// [`Error::Encode`] where the producer fails, has a type that arrow-rs does not know, or gives null rows, which a
    /// table cannot hold.
    pub fn from_stream(stream: FFI_ArrowArrayStream) -> Result<Self> {
        let (mut field, mut arrays) = (None, Vec::new());
        each_of_stream(stream, |of, array| {
            field.get_or_insert_with(|| of.clone());
            arrays.extend(array);
            Ok(())
        })?;
        match field {
            Some(field) => Self::from_arrays(&field, arrays),
            None => Err(refused("a stream with a schema", "none")),
        }
    }

    /// The batches of a C stream one at a time, each as a table, after one without batches that has the schema.
    ///
    /// # Errors
    /// As [`Self::from_stream`], and those of `sink`.
    pub fn each_of_stream(stream: FFI_ArrowArrayStream, mut sink: impl FnMut(Self) -> Result<()>) -> Result<()> {
        each_of_stream(stream, |field, array| sink(Self::from_arrays(field, array.into_iter().collect())?))
    }

    /// One array of the C data interface, by reference, as [`Self::from_stream`].
    ///
    /// # Safety
    /// `schema` describes `array`.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub unsafe fn from_c_array(schema: &FFI_ArrowSchema, array: FFI_ArrowArray) -> Result<Self> {
        let field = Field::try_from(schema).map_err(unknown)?;
        let array = import(&field, array)?;
        Self::from_arrays(&field, vec![array])
    }
}

/// Gives the field of a C stream to `sink`, alone first, then with each array.
fn each_of_stream(
    mut stream: FFI_ArrowArrayStream,
    mut sink: impl FnMut(&Field, Option<ArrayRef>) -> Result<()>,
) -> Result<()> {
    let (Some(get_schema), Some(get_next)) = (stream.get_schema(), stream.get_next()) else {
        return Err(refused("a stream that is not released yet", "a released one"));
    };
    let mut schema = FFI_ArrowSchema::empty();
    // SAFETY: the callback belongs to this stream, and `schema` is released.
    let code = unsafe { get_schema(&raw mut stream, &raw mut schema) };
    check(&mut stream, code)?;
    let field = Field::try_from(&schema).map_err(unknown)?;
    sink(&field, None)?;
    loop {
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: as above.
        let code = unsafe { get_next(&raw mut stream, &raw mut array) };
        check(&mut stream, code)?;
        if array.is_released() {
            return Ok(());
        }
        sink(&field, Some(import(&field, array)?))?;
    }
}

fn import(field: &Field, mut array: FFI_ArrowArray) -> Result<ArrayRef> {
    // SAFETY: producers promise that their arrays have the schema's type.
    unsafe {
        drop_buffers_of_nulls((&raw mut array).cast(), field.data_type());
        Ok(make_array(from_ffi_and_data_type(array, field.data_type().clone()).map_err(unknown)?))
    }
}

/// The struct `ArrowArray` of the C data interface.
#[repr(C)]
struct CArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut CArray,
    dictionary: *mut CArray,
    release: Option<unsafe extern "C" fn(*mut CArray)>,
    private_data: *mut c_void,
}

/// Sets the number of buffers of null arrays to 0, as the format has it: some producers give them a validity bitmap,
/// which arrow-rs refuses.
///
/// # Safety
/// `array` is null or a live array of `data_type` that nobody else uses.
unsafe fn drop_buffers_of_nulls(array: *mut CArray, data_type: &DataType) {
    // SAFETY: the caller's guarantee; children and dictionary are as the type says, and counts are checked.
    unsafe {
        let Some(array) = array.as_mut() else { return };
        let child = |index: usize| match i64::try_from(index) {
            Ok(position) if position < array.n_children => *array.children.add(index),
            _ => std::ptr::null_mut(),
        };
        match data_type {
            DataType::Null => array.n_buffers = 0,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => drop_buffers_of_nulls(child(0), item.data_type()),
            DataType::Struct(fields) => {
                for (index, field) in fields.iter().enumerate() {
                    drop_buffers_of_nulls(child(index), field.data_type());
                }
            }
            DataType::Union(fields, _) => {
                for (index, (_, field)) in fields.iter().enumerate() {
                    drop_buffers_of_nulls(child(index), field.data_type());
                }
            }
            DataType::RunEndEncoded(_, values) => drop_buffers_of_nulls(child(1), values.data_type()),
            DataType::Dictionary(_, values) => drop_buffers_of_nulls(array.dictionary, values),
            _ => {}
        }
    }
}

/// Turns a callback's error code into an error with the producer's message.
fn check(stream: &mut FFI_ArrowArrayStream, code: i32) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let message = stream.get_last_error().and_then(|get_last_error| {
        // SAFETY: the callback belongs to this stream, whose last call failed; its text, if any, is read at once.
        unsafe {
            let text = get_last_error(std::ptr::from_mut(stream));
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    });
    Err(refused("a stream that its producer can deliver", message.unwrap_or_else(|| format!("error code {code}"))))
}

fn unknown(error: ArrowError) -> Error {
    refused("arrays of types that arrow-rs knows", error.to_string())
}

pub(crate) fn refused(expected: impl Into<Text>, found: impl Into<String>) -> Error {
    Error::Encode { place: "Arrow data".into(), expected: expected.into(), found: found.into() }
}
