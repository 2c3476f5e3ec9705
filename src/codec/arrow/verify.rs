//! Verification of everything in an IPC file that is used as an address.
//!
//! Lengths against the bytes that are there, offsets for order and range, dictionary indices, views, union ids and
//! run ends. A file that passes can be read without leaving its memory; what its numbers and strings say is not
//! looked at. Fixed-width columns cost nothing, the others one pass over their offsets or indices.

use super::file::{IpcFile, Place, batch_of};
use super::malformed;
use crate::error::{Error, Result};
use arrow_ipc::{Buffer, FieldNode, MetadataVersion};
use arrow_schema::{DataType, Field, UnionFields, UnionMode};
use std::collections::HashMap;

/// What [`IpcFile::verify`] found besides errors.
#[derive(Debug, Default)]
pub struct Verified {
    /// The first column with a buffer that is not aligned for its type.
    pub misaligned: Option<String>,
}

impl IpcFile {
    /// Checks every message; see the [module](self).
    ///
    /// # Errors
    /// [`Error::Decode`] with the message and the column, [`Error::CopyRequired`] for compressed buffers.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let mut values = HashMap::new();
        for field in self.schema().fields() {
            dictionary_values(field, &mut values)?;
        }
        let mut lengths: HashMap<i64, usize> = HashMap::new();
        for place in self.dictionaries() {
            let (batch, Some(dictionary)) = batch_of(place, self.message(place)?)? else {
                return Err(malformed(&*place.name, "a dictionary batch", "a record batch"));
            };
            let id = dictionary.id();
            let Some(field) = values.get(&id) else {
                return Err(malformed(&*place.name, "an id of the schema", id.to_string()));
            };
            if lengths.contains_key(&id) && !dictionary.isDelta() {
                return Err(malformed(&*place.name, "one dictionary an id", format!("a second one for id {id}")));
            }
            let length = self.columns(place, &batch, &lengths, std::slice::from_ref(field), &mut verified)?;
            let known = lengths.entry(id).or_default();
            *known = together(place, *known, length)?;
        }
        let fields: Vec<&Field> = self.schema().fields().iter().map(AsRef::as_ref).collect();
        let mut rows = 0;
        for place in self.batches() {
            let (batch, None) = batch_of(place, self.message(place)?)? else {
                return Err(malformed(&*place.name, "a record batch", "a dictionary batch"));
            };
            let length = self.columns(place, &batch, &lengths, &fields, &mut verified)?;
            rows = together(place, rows, length)?;
        }
        Ok(verified)
    }

    /// Checks the columns of one batch; returns its length.
    fn columns(
        &self,
        place: &Place,
        batch: &arrow_ipc::RecordBatch<'_>,
        dictionaries: &HashMap<i64, usize>,
        fields: &[impl AsRef<Field>],
        verified: &mut Verified,
    ) -> Result<usize> {
        let length = usize::try_from(batch.length())
            .map_err(|_| malformed(&*place.name, "a length", batch.length().to_string()))?;
        let mut columns = Columns {
            body: &self.payload()[place.body.clone()],
            message: &place.name,
            path: Vec::new(),
            nodes: batch.nodes().into_iter().flatten(),
            buffers: batch.buffers().into_iter().flatten(),
            variadic: batch.variadicBufferCounts().into_iter().flatten(),
            dictionaries,
            unions_have_validity: self.version() < MetadataVersion::V5,
            misaligned: None,
        };
        for field in fields {
            let field = field.as_ref();
            let found = columns.column(field)?;
            if found != length {
                return Err(columns.error(field, format!("the batch's {length} rows"), format!("{found}")));
            }
        }
        if verified.misaligned.is_none() {
            verified.misaligned = columns.misaligned;
        }
        Ok(length)
    }
}

/// The length with that of the message at `place` added. Columns without buffers may state any length, so that sums
/// of lengths could overflow.
fn together(place: &Place, length: usize, more: usize) -> Result<usize> {
    let sum = length.checked_add(more).filter(|sum| i64::try_from(*sum).is_ok());
    sum.ok_or_else(|| malformed(&*place.name, "lengths that 63 bits can count", format!("{length} and {more} more")))
}

/// Collects, for each dictionary id below `field`, a field of its values' type.
fn dictionary_values(field: &Field, values: &mut HashMap<i64, Field>) -> Result<()> {
    match field.data_type() {
        DataType::Dictionary(_, value) => {
            let values_field = Field::new(field.name(), value.as_ref().clone(), true);
            dictionary_values(&values_field, values)?;
            #[expect(deprecated, reason = "the file's ids are what its dictionary batches name")]
            if let Some(id) = field.dict_id() {
                // The decoder takes the values' type from one of the columns, and must take the one checked here.
                let other = values.insert(id, values_field).filter(|other| other.data_type() != value.as_ref());
                if let Some(other) = other {
                    let expected =
                        format!("values of {} in dictionary {id}, as column {:?} has", other.data_type(), other.name());
                    return Err(malformed(format!("column {:?}", field.name()), expected, value.to_string()));
                }
            }
            Ok(())
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => dictionary_values(item, values),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| dictionary_values(field, values)),
        DataType::Union(fields, _) => fields.iter().try_for_each(|(_, field)| dictionary_values(field, values)),
        _ => Ok(()),
    }
}

/// Walks the columns of one batch in the order of their nodes and buffers.
struct Columns<'a, N, B, V> {
    body: &'a [u8],
    message: &'a str,
    /// Names from the column down to the field being checked.
    path: Vec<String>,
    nodes: N,
    buffers: B,
    variadic: V,
    /// Length of each dictionary seen so far.
    dictionaries: &'a HashMap<i64, usize>,
    unions_have_validity: bool,
    misaligned: Option<String>,
}

impl<'a, N, B, V> Columns<'a, N, B, V>
where
    N: Iterator<Item = &'a FieldNode>,
    B: Iterator<Item = &'a Buffer>,
    V: Iterator<Item = i64>,
{
    /// Checks one column and everything below it; returns its length.
    fn column(&mut self, field: &Field) -> Result<usize> {
        self.path.push(field.name().clone());
        let length = self.checked(field)?;
        self.path.pop();
        Ok(length)
    }

    fn checked(&mut self, field: &Field) -> Result<usize> {
        let node = self.nodes.next().ok_or_else(|| self.error(field, "a field node", "none"))?;
        let (Ok(length), Ok(nulls)) = (usize::try_from(node.length()), usize::try_from(node.null_count())) else {
            return Err(self.error(field, "a length and null count of at least 0", format!("{node:?}")));
        };
        if nulls > length {
            return Err(self.error(field, format!("at most {length} nulls"), nulls.to_string()));
        }
        match field.data_type() {
            DataType::Null => {}
            DataType::RunEndEncoded(ends, values) => self.run_ends(field, length, ends, values)?,
            DataType::Union(fields, mode) => self.union(field, length, fields, *mode)?,
            _ => {
                let valid = self.validity(field, length, nulls)?;
                self.values(field, length, valid)?;
            }
        }
        Ok(length)
    }

    /// The buffers after the validity bitmap, and the children.
    fn values(&mut self, field: &Field, length: usize, valid: Option<&'a [u8]>) -> Result<()> {
        match field.data_type() {
            DataType::Boolean => drop(self.buffer(field, Some(length.div_ceil(8)), 1)?),
            DataType::Utf8 | DataType::Binary => {
                let end = self.offsets::<4>(field, length)?;
                self.buffer(field, Some(end), 1)?;
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                let end = self.offsets::<8>(field, length)?;
                self.buffer(field, Some(end), 1)?;
            }
            DataType::Utf8View | DataType::BinaryView => self.views(field, length, valid)?,
            DataType::List(item) | DataType::Map(item, _) => {
                let end = self.offsets::<4>(field, length)?;
                self.child(field, item, end)?;
            }
            DataType::LargeList(item) => {
                let end = self.offsets::<8>(field, length)?;
                self.child(field, item, end)?;
            }
            DataType::ListView(item) => self.list_views::<4>(field, length, valid, item)?,
            DataType::LargeListView(item) => self.list_views::<8>(field, length, valid, item)?,
            DataType::FixedSizeList(item, size) => {
                let size =
                    usize::try_from(*size).map_err(|_| self.error(field, "a size of at least 0", size.to_string()))?;
                let needed = length.checked_mul(size).ok_or_else(|| self.error(field, "a size in memory", "more"))?;
                self.child(field, item, needed)?;
            }
            DataType::Struct(fields) => {
                for child in fields {
                    self.child(field, child, length)?;
                }
            }
            DataType::Dictionary(key, _) => self.indices(field, length, key, valid)?,
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width)
                    .map_err(|_| self.error(field, "a width of at least 0", width.to_string()))?;
                self.fixed(field, length, width, 1)?;
            }
            other => match other.primitive_width() {
                Some(width) => drop(self.fixed(field, length, width, alignment(other, width))?),
                None => return Err(self.error(field, "a type this codec knows", other.to_string())),
            },
        }
        Ok(())
    }

    /// The next buffer: inside the body, of at least `needed` bytes where that is known, and of whole values.
    fn buffer(&mut self, field: &Field, needed: Option<usize>, align: usize) -> Result<&'a [u8]> {
        let buffer = self.buffers.next().ok_or_else(|| self.error(field, "a buffer", "none"))?;
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(start, length)| self.body.get(start..start.checked_add(length)?));
        let Some(bytes) = bytes else {
            let expected = format!("a buffer inside the body's {} bytes", self.body.len());
            return Err(self.error(field, expected, format!("{} bytes at {}", buffer.length(), buffer.offset())));
        };
        if let Some(needed) = needed.filter(|needed| bytes.len() < *needed) {
            return Err(self.error(field, format!("a buffer of at least {needed} bytes"), bytes.len().to_string()));
        }
        if bytes.len() % align != 0 {
            return Err(self.error(field, format!("a buffer of a multiple of {align} bytes"), bytes.len().to_string()));
        }
        if !bytes.is_empty() && bytes.as_ptr().addr() % align != 0 && self.misaligned.is_none() {
            self.misaligned = Some(self.path.join("."));
        }
        Ok(bytes)
    }

    fn fixed(&mut self, field: &Field, length: usize, width: usize, align: usize) -> Result<&'a [u8]> {
        let needed = length.checked_mul(width).ok_or_else(|| self.error(field, "a size in memory", "more"))?;
        Ok(&self.buffer(field, Some(needed), align)?[..needed])
    }

    /// The validity bitmap, if there is one.
    fn validity(&mut self, field: &Field, length: usize, nulls: usize) -> Result<Option<&'a [u8]>> {
        let bitmap = self.buffer(field, None, 1)?;
        let needed = length.div_ceil(8);
        if bitmap.len() < needed && (nulls > 0 || !bitmap.is_empty()) {
            return Err(self.error(field, format!("a validity bitmap of {needed} bytes"), bitmap.len().to_string()));
        }
        Ok((nulls > 0).then_some(bitmap))
    }

    /// `length + 1` offsets of `W` bytes that start at 0 or above and never fall; returns the last.
    fn offsets<const W: usize>(&mut self, field: &Field, length: usize) -> Result<usize> {
        let count = length.checked_add(1).ok_or_else(|| self.error(field, "a size in memory", "more"))?;
        if length == 0 {
            self.buffer(field, None, W)?;
            return Ok(0);
        }
        let bytes = self.fixed(field, count, W, W)?;
        let (first, last) = (number::<W>(&bytes[..W]), number::<W>(&bytes[bytes.len() - W..]));
        if first < 0 || !rising::<W>(bytes) {
            let all = bytes.chunks_exact(W).map(number::<W>);
            let at = all.clone().zip(all.skip(1)).position(|(low, high)| high < low).map_or(0, |at| at + 1);
            let found = number::<W>(&bytes[at * W..][..W]);
            return Err(self.error(field, "offsets that never fall", format!("{found} as offset {at}")));
        }
        usize::try_from(last).map_err(|_| self.error(field, "an offset in memory", last.to_string()))
    }

    fn child(&mut self, parent: &Field, child: &Field, needed: usize) -> Result<()> {
        let length = self.column(child)?;
        if length < needed {
            return Err(self.error(parent, format!("{needed} values in {:?}", child.name()), length.to_string()));
        }
        Ok(())
    }

    fn list_views<const W: usize>(
        &mut self,
        field: &Field,
        length: usize,
        valid: Option<&[u8]>,
        item: &Field,
    ) -> Result<()> {
        let offsets = self.fixed(field, length, W, W)?;
        let sizes = self.fixed(field, length, W, W)?;
        let count = self.column(item)?;
        let pairs = offsets.chunks_exact(W).zip(sizes.chunks_exact(W)).enumerate();
        for (row, (offset, size)) in pairs.filter(|(row, _)| is_valid(valid, *row)) {
            let (offset, size) = (number::<W>(offset), number::<W>(size));
            let end = usize::try_from(offset).ok().zip(usize::try_from(size).ok()).and_then(|(o, s)| o.checked_add(s));
            if end.is_none_or(|end| end > count) {
                let found = format!("{size} at {offset} in row {row}");
                return Err(self.error(field, format!("a list inside its {count} values"), found));
            }
        }
        Ok(())
    }

    /// String and binary views: 16 bytes each, long ones pointing into a variadic buffer.
    fn views(&mut self, field: &Field, length: usize, valid: Option<&[u8]>) -> Result<()> {
        const INLINE: u32 = 12;
        let count = self.variadic.next().and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or_else(|| self.error(field, "a count of data buffers", "none"))?;
        let views = self.fixed(field, length, 16, 16)?;
        let mut sizes = Vec::new();
        for _ in 0..count {
            sizes.push(self.buffer(field, None, 1)?.len() as u64);
        }
        for (row, view) in views.chunks_exact(16).enumerate() {
            let word = |at: usize| u32::from_le_bytes([view[at], view[at + 1], view[at + 2], view[at + 3]]);
            let (size, buffer, offset) = (word(0), word(8), word(12));
            let inside = size <= INLINE
                || sizes.get(buffer as usize).is_some_and(|bytes| u64::from(offset) + u64::from(size) <= *bytes)
                    && i32::try_from(size).is_ok();
            if !inside && is_valid(valid, row) {
                let found = format!("{size} bytes at {offset} of buffer {buffer} in row {row}");
                return Err(self.error(field, "a view inside its buffers", found));
            }
        }
        Ok(())
    }

    /// Dictionary indices below the length of their dictionary.
    fn indices(&mut self, field: &Field, length: usize, key: &DataType, valid: Option<&[u8]>) -> Result<()> {
        #[expect(deprecated, reason = "the file's ids are what its dictionary batches name")]
        let count = field.dict_id().and_then(|id| self.dictionaries.get(&id)).copied().unwrap_or(0);
        let width = key.primitive_width().filter(|_| key.is_dictionary_key_type());
        let width = width.ok_or_else(|| self.error(field, "integer indices", key.to_string()))?;
        let bytes = self.fixed(field, length, width, width)?;
        let unsigned = !key.is_signed_integer();
        let check = |row: usize, index: &[u8]| {
            let index = wide(index, unsigned);
            if is_valid(valid, row) && u64::try_from(index).map_or(true, |index| index >= count as u64) {
                return Err((row, index));
            }
            Ok(())
        };
        let mut rows = bytes.chunks_exact(width).enumerate();
        rows.try_for_each(|(row, index)| check(row, index)).map_err(|(row, index)| {
            self.error(field, format!("an index below {count}"), format!("{index} in row {row}"))
        })
    }

    fn union(&mut self, field: &Field, length: usize, fields: &UnionFields, mode: UnionMode) -> Result<()> {
        if self.unions_have_validity {
            self.buffer(field, None, 1)?;
        }
        let ids = self.fixed(field, length, 1, 1)?;
        let offsets = match mode {
            UnionMode::Dense => Some(self.fixed(field, length, 4, 4)?),
            UnionMode::Sparse => None,
        };
        // The decoder cannot read these from elsewhere than an aligned place, not even by copying them.
        let place = offsets.map_or(0, |offsets| offsets.as_ptr().addr() - self.body.as_ptr().addr());
        if place % 4 != 0 {
            return Err(self.error(field, "offsets at a multiple of 4", place.to_string()));
        }
        // Length of the child that each type id names.
        let mut lengths = [None; 128];
        for (id, child) in fields.iter() {
            let count = self.column(child)?;
            if let Some(slot) = usize::try_from(id).ok().and_then(|id| lengths.get_mut(id)) {
                *slot = Some(count);
            }
        }
        for (row, id) in ids.iter().enumerate() {
            let count = lengths.get(usize::from(*id)).copied().flatten();
            let index = offsets.map_or(row as i64, |offsets| number::<4>(&offsets[row * 4..][..4]));
            if count.is_none_or(|count| usize::try_from(index).map_or(true, |index| index >= count)) {
                let found = format!("type id {id} and value {index} in row {row}");
                return Err(self.error(field, "a type of the union and a value of its child", found));
            }
        }
        Ok(())
    }

    /// Run ends rise strictly, the last reaches the length, and each has a value.
    fn run_ends(&mut self, field: &Field, length: usize, ends: &Field, values: &Field) -> Result<()> {
        let width = match ends.data_type() {
            DataType::Int16 => 2,
            DataType::Int32 => 4,
            DataType::Int64 => 8,
            other => return Err(self.error(field, "run ends of 16, 32 or 64 bits", other.to_string())),
        };
        let node = self.nodes.next().ok_or_else(|| self.error(field, "a field node", "none"))?;
        let runs = usize::try_from(node.length()).map_err(|_| self.error(field, "a length", "a negative one"))?;
        if node.null_count() != 0 {
            return Err(self.error(field, "run ends that are not null", format!("{} nulls", node.null_count())));
        }
        self.validity(field, runs, 0)?;
        let bytes = self.fixed(field, runs, width, width)?;
        let mut last = 0;
        for (run, end) in bytes.chunks_exact(width).enumerate() {
            let end = wide(end, false);
            if end <= last {
                return Err(self.error(field, "run ends that rise", format!("{end} as end {run}")));
            }
            last = end;
        }
        if u64::try_from(last).map_or(true, |last| last < length as u64) {
            return Err(self.error(field, format!("run ends that reach {length}"), last.to_string()));
        }
        self.child(field, values, runs)
    }

    fn error(&self, field: &Field, expected: impl Into<crate::error::Text>, found: impl Into<String>) -> Error {
        let column = if self.path.is_empty() { field.name().clone() } else { self.path.join(".") };
        malformed(format!("column {column:?} ({}) in {}", field.data_type(), self.message), expected, found)
    }
}

/// What a value's address must be a multiple of, as arrow-rs and C compilers load it.
fn alignment(data_type: &DataType, width: usize) -> usize {
    match data_type {
        DataType::Interval(_) => width.min(8),
        _ => width.min(16),
    }
}

/// Whether row `row` is not null.
fn is_valid(validity: Option<&[u8]>, row: usize) -> bool {
    validity.is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
}

/// A little-endian signed number of `W` bytes.
fn number<const W: usize>(bytes: &[u8]) -> i64 {
    wide(&bytes[..W], false)
}

/// A little-endian number of 1, 2, 4 or 8 bytes; an unsigned one above `i64::MAX` comes out negative.
fn wide(bytes: &[u8], unsigned: bool) -> i64 {
    let mut raw = [0; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let value = i64::from_le_bytes(raw);
    let shift = 64 - 8 * bytes.len() as u32;
    if unsigned { value } else { value << shift >> shift }
}

/// Whether no number is below the one before it. Without early exit, so that it vectorizes.
fn rising<const W: usize>(bytes: &[u8]) -> bool {
    let (pairs, all) = (bytes.chunks_exact(W).zip(bytes[W..].chunks_exact(W)), true);
    match W {
        4 => pairs.fold(all, |all, (low, high)| all & (int32(low) <= int32(high))),
        _ => pairs.fold(all, |all, (low, high)| all & (number::<W>(low) <= number::<W>(high))),
    }
}

fn int32(bytes: &[u8]) -> i32 {
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
