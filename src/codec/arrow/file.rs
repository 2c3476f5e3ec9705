//! The frame of an IPC file: magic, footer, and the messages that the footer lists.

use super::malformed;
use crate::buffer::FrameBuf;
use crate::error::{Error, Result};
use arrow_ipc::{Block, Footer, Message, MessageHeader, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::SchemaRef;
use std::ops::Range;
use std::sync::Arc;

const MAGIC: &[u8; 6] = b"ARROW1";
/// The start of a file: the magic, padded to 8.
const START: usize = 8;
/// The end of a file: the footer's length and the magic.
const END: usize = 10;
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// One message of a file, its place and its parts checked.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The footer's entry for it.
    pub(super) block: Block,
    /// The flatbuffer.
    pub(super) metadata: Range<usize>,
    /// The buffers' bytes.
    pub(super) body: Range<usize>,
    /// For messages: `dictionary 3` or `batch 0`.
    pub(super) name: String,
}

/// An Arrow IPC file in memory: its schema, and where its messages are.
#[derive(Debug)]
pub struct IpcFile {
    payload: FrameBuf,
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Place>,
    batches: Vec<Place>,
}

impl IpcFile {
    /// Reads the footer of `payload`, and no value.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn open(payload: FrameBuf) -> Result<Self> {
        let footer_range = locate_footer(&payload)?;
        let footer = root_as_footer(&payload[footer_range.clone()])
            .map_err(|error| malformed("footer", "a footer flatbuffer", error.to_string()))?;
        let ipc_schema = footer.schema().ok_or_else(|| malformed("footer", "a schema", "none"))?;
        if !ipc_schema.endianness().equals_to_target_endianness() {
            return Err(malformed("footer", "this machine's byte order", "the other"));
        }
        let schema = arrow_ipc::convert::try_fb_to_schema(ipc_schema)
            .map_err(|error| malformed("footer", "a schema of known types", error.to_string()))?;
        let version = footer.version();
        if !matches!(version, MetadataVersion::V4 | MetadataVersion::V5) {
            return Err(malformed("footer", "metadata version 4 or 5", format!("{version:?}")));
        }
        let (dictionaries, batches) = locate_messages(&payload, footer_range.start, &footer)?;
        Ok(Self { schema: Arc::new(schema), version, dictionaries, batches, payload })
    }

    /// The schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many record batches there are.
    pub fn num_batches(&self) -> usize {
        self.batches.len()
    }

    /// Rows of all batches together; call it after [`Self::verify`].
    pub fn num_rows(&self) -> usize {
        let rows = |place: &Place| {
            let batch = self.message(place).ok().and_then(|message| message.header_as_record_batch());
            batch.map_or(0, |batch| usize::try_from(batch.length()).unwrap_or(0))
        };
        self.batches.iter().map(rows).fold(0, usize::saturating_add)
    }

    pub(super) fn payload(&self) -> &FrameBuf {
        &self.payload
    }

    pub(super) fn version(&self) -> MetadataVersion {
        self.version
    }

    pub(super) fn dictionaries(&self) -> &[Place] {
        &self.dictionaries
    }

    pub(super) fn batches(&self) -> &[Place] {
        &self.batches
    }

    /// The message at `place`, checked against the footer's version and the block's length.
    pub(super) fn message(&self, place: &Place) -> Result<Message<'_>> {
        let message = root_as_message(&self.payload[place.metadata.clone()])
            .map_err(|error| malformed(&*place.name, "a message flatbuffer", error.to_string()))?;
        if message.version() != self.version {
            let expected = format!("the footer's metadata version {:?}", self.version);
            return Err(malformed(&*place.name, expected, format!("{:?}", message.version())));
        }
        if message.bodyLength() != place.block.bodyLength() {
            let expected = format!("the footer's body length {}", place.block.bodyLength());
            return Err(malformed(&*place.name, expected, message.bodyLength().to_string()));
        }
        Ok(message)
    }
}

fn locate_footer(payload: &[u8]) -> Result<Range<usize>> {
    if payload.len() < START + END {
        return Err(malformed("payload", "an Arrow IPC file", format!("{} bytes", payload.len())));
    }
    if !payload.starts_with(MAGIC) {
        return Err(malformed("offset 0", "the magic \"ARROW1\"", format!("{:?}", &payload[..MAGIC.len()])));
    }
    let end = payload.len() - END;
    let Some((length, magic)) = payload[end..].split_first_chunk::<4>() else {
        return Err(malformed("payload", "an Arrow IPC file", "a short end"));
    };
    if magic != MAGIC {
        return Err(malformed(format!("offset {}", end + 4), "the magic \"ARROW1\"", format!("{magic:?}")));
    }
    let length = i32::from_le_bytes(*length);
    match usize::try_from(length).ok().and_then(|length| end.checked_sub(length)) {
        Some(start) if start >= START && start < end => Ok(start..end),
        _ => Err(malformed(format!("offset {end}"), "a footer inside the payload", format!("{length} bytes"))),
    }
}

fn locate_messages(payload: &[u8], end: usize, footer: &Footer<'_>) -> Result<(Vec<Place>, Vec<Place>)> {
    let locate =
        |kind: &str, index: usize, block: &Block| locate_message(payload, end, block, format!("{kind} {index}"));
    let dictionaries = footer.dictionaries().into_iter().flatten().enumerate();
    let batches = footer.recordBatches().into_iter().flatten().enumerate();
    Ok((
        dictionaries.map(|(index, block)| locate("dictionary", index, block)).collect::<Result<_>>()?,
        batches.map(|(index, block)| locate("batch", index, block)).collect::<Result<_>>()?,
    ))
}

/// Checks that a block's metadata and body lie before the footer, and finds the flatbuffer in the metadata.
fn locate_message(payload: &[u8], end: usize, block: &Block, name: String) -> Result<Place> {
    let outside = || {
        let found = format!("offset {}, {} + {} bytes", block.offset(), block.metaDataLength(), block.bodyLength());
        malformed(name.clone(), "a block before the footer", found)
    };
    let number = |value: i64| usize::try_from(value).map_err(|_| outside());
    let start = number(block.offset())?;
    let body = start.checked_add(number(block.metaDataLength().into())?).ok_or_else(outside)?;
    let stop = body.checked_add(number(block.bodyLength())?).filter(|stop| *stop <= end).ok_or_else(outside)?;
    let metadata = payload.get(start..body).ok_or_else(outside)?;
    let (length_at, metadata_at) = if metadata.starts_with(&CONTINUATION) { (4, 8) } else { (0, 4) };
    let length = metadata.get(length_at..metadata_at).and_then(|bytes| bytes.try_into().ok()).map(i32::from_le_bytes);
    let length = length.and_then(|length| usize::try_from(length).ok());
    match length.and_then(|length| metadata_at.checked_add(length)).filter(|stop| *stop <= metadata.len()) {
        Some(stop_at) => {
            Ok(Place { block: *block, metadata: start + metadata_at..start + stop_at, body: body..stop, name })
        }
        None => Err(malformed(name, "a metadata length inside the block", format!("{length:?}"))),
    }
}

/// The record batch a message carries: its own, or its dictionary's.
pub(super) fn batch_of<'m>(
    place: &Place,
    message: Message<'m>,
) -> Result<(arrow_ipc::RecordBatch<'m>, Option<arrow_ipc::DictionaryBatch<'m>>)> {
    let found = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch().map(|batch| (batch, None)),
        MessageHeader::DictionaryBatch => message
            .header_as_dictionary_batch()
            .and_then(|dictionary| dictionary.data().map(|batch| (batch, Some(dictionary)))),
        _ => None,
    };
    let (batch, dictionary) =
        found.ok_or_else(|| malformed(&*place.name, "a batch", format!("{:?}", message.header_type())))?;
    if batch.compression().is_some() {
        return Err(Error::CopyRequired {
            place: place.name.clone(),
            reason: "its buffers are compressed; framecache reads uncompressed Arrow IPC only".into(),
        });
    }
    Ok((batch, dictionary))
}
