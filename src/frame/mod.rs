//! The v3 frame: `"CK"`, version 3, header length (u32, big-endian), header (JSON), payload.
//!
//! `proto-docs/frame-v3.md` specifies it byte by byte and registers the header's fields. This crate pads its headers
//! with spaces so that the payload starts at a multiple of 64; readers accept any padding. Nothing here trusts what
//! it reads: every error says at which offset what was expected and what was found.

mod flat;
mod header;
mod json;
mod legacy;
mod payload;

pub use flat::{Scalar, read_flat};
pub use header::Header;
pub use json::{Text, check_json, parse_json, write_string};
pub use legacy::{Legacy, parse_legacy};
pub use payload::{MAX_VALUE, Packed, pack, unpack};
pub(crate) use payload::{pack_in, unpack_in};

use crate::buffer::{ALIGN, AlignedBuf, FrameBuf, Origin};
use crate::error::{Error, Result};
use std::io;
use std::ops::Range;

/// The first two bytes of every frame.
pub const MAGIC: &[u8; 2] = b"CK";
/// The frame version this crate reads and writes.
pub const VERSION: u8 = 3;
/// Bytes before the header.
pub const PREFIX: usize = 7;
/// The longest header that is read or written, padding included: 1 MiB.
pub const MAX_HEADER: usize = 1024 * 1024;
/// How deep the header's JSON may be nested.
pub const MAX_DEPTH: usize = 127;

/// What a codec writes after the header.
pub trait Payload {
    /// How many bytes [`Self::write_to`] will write.
    fn length(&self) -> usize;

    /// Writes the payload: large parts in one call each, straight from where they lie.
    ///
    /// # Errors
    /// Those of `out`, and the codec's own.
    fn write_to(&self, out: &mut dyn io::Write) -> Result<()>;

    /// All of it, where it is one piece of memory already.
    fn as_bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// Bytes as they are.
impl Payload for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        out.write_all(self).map_err(|source| Error::io("write", "frame", source))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl Payload for AlignedBuf {
    fn length(&self) -> usize {
        self.as_slice().length()
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        self.as_slice().write_to(out)
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self.as_slice())
    }
}

impl Payload for FrameBuf {
    fn length(&self) -> usize {
        self.len()
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        (**self).write_to(out)
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// Whether `bytes` begin like a frame of any version.
pub fn is_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Where the header's JSON stands in `frame`; the payload follows it.
///
/// Checks the prefix only: magic, version, and a length that is at most [`MAX_HEADER`] and inside the frame.
///
/// # Errors
/// [`Error::Frame`].
///
/// ```
/// let header = framecache::frame::locate_header(b"CK\x03\x00\x00\x00\x02{}payload")?;
/// assert_eq!(header, 7..9);
/// # Ok::<(), framecache::Error>(())
/// ```
pub fn locate_header(frame: &[u8]) -> Result<Range<usize>> {
    let Some((prefix, rest)) = frame.split_first_chunk::<PREFIX>() else {
        return Err(Error::frame(0, "a prefix of 7 bytes", format!("{} bytes in all", frame.len())));
    };
    if !is_frame(prefix) {
        return Err(Error::frame(0, "the magic b\"CK\"", format!("{:?}", &prefix[..2])));
    }
    if prefix[2] != VERSION {
        return Err(Error::frame(2, "frame version 3", format!("version {}", prefix[2])));
    }
    let length = u32::from_be_bytes([prefix[3], prefix[4], prefix[5], prefix[6]]) as usize;
    if length > MAX_HEADER {
        return Err(Error::frame(3, "a header of at most 1 MiB", format!("a length of {length} bytes")));
    }
    if length > rest.len() {
        return Err(Error::frame(
            3,
            format!("a header of at most the {} bytes left", rest.len()),
            format!("a length of {length} bytes"),
        ));
    }
    Ok(PREFIX..PREFIX + length)
}

/// Starts a frame: prefix and header, padded with spaces until `offset` plus its length is a multiple of `align`.
///
/// # Errors
/// [`Error::Argument`] for an `align` of 0 and a header that would be longer than [`MAX_HEADER`].
pub fn prefix(json: &[u8], align: usize, offset: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity((PREFIX + json.len()).saturating_add(align));
    prefix_into(&mut out, align, offset, |out| {
        out.extend_from_slice(json);
        Ok(())
    })?;
    Ok(out)
}

/// As [`prefix`], appended to `out`; `write` appends the JSON.
pub(crate) fn prefix_into(
    out: &mut Vec<u8>,
    align: usize,
    offset: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    if align == 0 {
        return Err(Error::Argument { argument: "align", expected: "1 or more".into(), found: "0".into() });
    }
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let bare = out.len() - start;
    let pad = (align - (offset % align + bare % align) % align) % align;
    let json = bare - PREFIX;
    let length = json.checked_add(pad).filter(|length| *length <= MAX_HEADER).ok_or_else(|| Error::Argument {
        argument: "metadata",
        expected: "a header of at most 1 MiB".into(),
        found: format!("{} bytes, {pad} of them padding", json.saturating_add(pad)),
    })?;
    // At most MAX_HEADER.
    out[start + 3..start + PREFIX].copy_from_slice(&(length as u32).to_be_bytes());
    out.resize(start + bare + pad, b' ');
    Ok(())
}

/// Writes a frame of this crate: `header` with the payload's length, padded to 64, then the payload, which is copied
/// once.
///
/// # Errors
/// Those of the payload, [`Error::Memory`], [`Error::Argument`] for a header that is too long.
///
/// ```
/// use framecache::frame::{self, Header};
/// let frame = frame::build(Header::new("raw"), b"payload".as_slice())?;
/// let header = frame::locate_header(&frame)?;
/// assert_eq!(header.end % 64, 0);
/// assert_eq!(&frame[header.end..], b"payload");
/// # Ok::<(), framecache::Error>(())
/// ```
pub fn build(header: Header, payload: &(impl Payload + ?Sized)) -> Result<FrameBuf> {
    let length = payload.length();
    let prefix = prefix(&header.with_length(length).to_json(), ALIGN, 0)?;
    let mut buffer = AlignedBuf::with_capacity(prefix.len().saturating_add(length))?;
    buffer.extend_from_slice(&prefix)?;
    payload.write_to(&mut buffer)?;
    Ok(FrameBuf::from_aligned(buffer, Origin::Trusted))
}

/// A frame under construction: room for the header, and after it the payload, which an encoder appends to `buffer`.
///
/// The header states the payload's length, and so is written last; the padding makes up for what it was expected to be.
///
/// ```
/// use framecache::frame::{Draft, Header, locate_header};
/// let mut draft = Draft::new(Header::new("raw"))?;
/// draft.buffer.extend_from_slice(b"payload")?;
/// let frame = draft.finish()?;
/// assert_eq!(&frame[locate_header(&frame)?.end..], b"payload");
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Debug)]
pub struct Draft {
    /// The header, without the payload's length.
    pub header: Header,
    /// What stands in the frame so far; the payload goes to its end.
    pub buffer: AlignedBuf,
    /// Where the frame starts in the buffer.
    start: usize,
}

impl Draft {
    /// Starts a frame with room for `header` and the length of any payload.
    ///
    /// # Errors
    /// As [`prefix`].
    pub fn new(header: Header) -> Result<Self> {
        Self::after(AlignedBuf::default(), header)
    }

    /// As [`Self::new`], after what stands in `buffer`, a multiple of 64 bytes.
    ///
    /// # Errors
    /// As [`prefix`].
    pub(crate) fn after(mut buffer: AlignedBuf, header: Header) -> Result<Self> {
        let start = buffer.len();
        debug_assert_eq!(start % ALIGN, 0);
        buffer.extend_zeroed(Self::room_for(&header)?)?;
        Ok(Self { header, buffer, start })
    }

    fn room_for(header: &Header) -> Result<usize> {
        Ok(prefix(&header.clone().with_length(usize::MAX).to_json(), ALIGN, 0)?.len())
    }

    /// What stands after the header so far.
    pub(crate) fn payload(&self) -> Result<&[u8]> {
        let start = self.start + Self::room_for(&self.header)?;
        Ok(self.buffer.as_slice().get(start..).unwrap_or_default())
    }

    /// Bytes of the buffer before the frame.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Writes the header before the payload.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer or header that is not the one it was started with.
    pub fn finish(self) -> Result<FrameBuf> {
        Ok(FrameBuf::from_aligned(self.complete()?, Origin::Trusted))
    }

    /// As [`Self::finish`]; the buffer with the frame in it, after what stood there before.
    pub(crate) fn complete(mut self) -> Result<AlignedBuf> {
        let room = Self::room_for(&self.header)?;
        let payload = self.start + room;
        let length = self.buffer.len().checked_sub(payload).ok_or_else(|| Error::Argument {
            argument: "buffer",
            expected: format!("the {payload} bytes it was started with").into(),
            found: format!("{}", self.buffer.len()),
        })?;
        let json = self.header.with_length(length).to_json();
        // Never longer than with the longest length.
        let prefix = prefix(&json, room, 0)?;
        self.buffer.as_mut_slice()[self.start..payload].copy_from_slice(&prefix);
        Ok(self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fails_at(frame: &[u8], at: usize) -> String {
        match locate_header(frame) {
            Err(Error::Frame { offset, expected, found }) => {
                assert_eq!(offset, at, "{expected}: {found}");
                format!("{expected}: {found}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_malformed_prefix_says_where_and_what() {
        assert!(fails_at(b"", 0).contains("0 bytes in all"));
        assert!(fails_at(b"CK\x03\0\0\0", 0).contains("6 bytes in all"));
        assert!(fails_at(b"XK\x03\0\0\0\0", 0).contains("magic"));
        assert!(fails_at(b"CK\x01\0\0\0\0", 2).contains("version 1"));
        assert!(fails_at(b"CK\x03\0\0\0\x01", 3).contains("0 bytes left"));
        assert!(fails_at(b"CK\x03\xff\xff\xff\xff", 3).contains("1 MiB"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), magic: bool) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 3 {
                bytes[..3].copy_from_slice(b"CK\x03");
            }
            if let Ok(header) = locate_header(&bytes) {
                prop_assert!(header.start == PREFIX && header.end <= bytes.len());
                let _ = Header::parse(&bytes[header]);
            }
            let _ = parse_legacy(&bytes);
        }

        #[test]
        fn padding_aligns_the_payload(json in "[a-z]{0,200}", align in 1usize..300, offset in 0usize..1000) {
            let start = prefix(json.as_bytes(), align, offset).expect("short");
            prop_assert_eq!((offset + start.len()) % align, 0);
            prop_assert!(start.len() < PREFIX + json.len() + align);
            let header = locate_header(&start).expect("a frame");
            prop_assert_eq!(header.end, start.len());
        }
    }
}
