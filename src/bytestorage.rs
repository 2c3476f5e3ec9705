//! cachekit's envelope of compressed bytes: LZ4 block, XXH3-64 checksum, size and format in a MessagePack array.
//!
//! `proto-docs/bytestorage.md` specifies it byte by byte. What is written is what cachekit 0.17 to 0.24 write; what they
//! and older versions wrote is read. The shape is so small and fixed that it is parsed here, by rules narrower than
//! MessagePack's: nothing is skipped, nested or converted.

use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::compress::{Algorithm, decompress, lz4_after};
use crate::error::{Error, Result, Text};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64;

/// The most bytes that are stored: 512 MiB.
pub const MAX_UNCOMPRESSED: usize = 512 * 1024 * 1024;
/// The longest LZ4 block in an envelope: 512 MiB.
pub const MAX_COMPRESSED: usize = 512 * 1024 * 1024;
/// The longest envelope that is read or written: 512 MiB.
pub const MAX_ENVELOPE: usize = 512 * 1024 * 1024;
/// The most bytes that one byte of the LZ4 block may stand for.
pub const MAX_RATIO: usize = 1000;

const CODEC: &str = "ByteStorage";
/// The fields in their order, and their names in the map form.
const FIELDS: [&str; 4] = ["compressed_data", "checksum", "original_size", "format"];
/// The longest start of an envelope: array of four, and the longest head of a binary.
const HEAD: usize = 6;

/// Puts `data` into an envelope; `format` says what it is and is kept as it is.
///
/// # Errors
/// [`Error::TooLarge`] for data, a block or an envelope above the limits; [`Error::Memory`].
///
/// ```
/// use framecache::bytestorage::{Envelope, seal};
/// let sealed = seal(b"some bytes", "msgpack")?;
/// let envelope = Envelope::parse(&sealed)?;
/// assert_eq!((envelope.format(), envelope.open()?.as_slice()), ("msgpack", b"some bytes".as_slice()));
/// # Ok::<(), framecache::Error>(())
/// ```
pub fn seal(data: &[u8], format: &str) -> Result<FrameBuf> {
    check_size("data of an envelope", data.len(), MAX_UNCOMPRESSED)?;
    // Where the block ends is known when it is written; its head then stands right before it.
    let mut buffer = lz4_after(&[0; HEAD], data, AlignedBuf::stale)?;
    let block = buffer.len() - HEAD;
    check_size("LZ4 block of an envelope", block, MAX_COMPRESSED)?;
    let mut head = Vec::with_capacity(HEAD);
    head.push(0x94);
    write_length(&mut head, block, [0xC4, 0xC5, 0xC6]);
    let start = HEAD - head.len();
    buffer.as_mut_slice()[start..HEAD].copy_from_slice(&head);

    let mut tail = Vec::with_capacity(32);
    tail.push(0x98);
    for byte in xxh3_64(data).to_be_bytes() {
        write_uint(&mut tail, usize::from(byte));
    }
    write_uint(&mut tail, data.len());
    match format.len() {
        // At most 31.
        short @ 0..32 => tail.push(0xA0 | short as u8),
        longer => write_length(&mut tail, longer, [0xD9, 0xDA, 0xDB]),
    }
    check_size("envelope", buffer.len() - start + tail.len() + format.len(), MAX_ENVELOPE)?;
    buffer.extend_from_slice(&tail)?;
    buffer.extend_from_slice(format.as_bytes())?;
    FrameBuf::from_aligned(buffer, Origin::Trusted).slice(start..)
}

fn check_size(place: &'static str, bytes: usize, limit: usize) -> Result<()> {
    if bytes > limit { Err(Error::TooLarge { place, bytes, limit }) } else { Ok(()) }
}

/// Writes the marker for the shortest of the lengths of 1, 2 and 4 bytes that holds `length`, and the length.
fn write_length(out: &mut Vec<u8>, length: usize, markers: [u8; 3]) {
    // Lengths are at most MAX_ENVELOPE, or refused before they are used.
    let bytes = (length as u32).to_be_bytes();
    let (marker, used) = match length {
        0..0x100 => (markers[0], 1),
        0x100..0x1_0000 => (markers[1], 2),
        _ => (markers[2], 4),
    };
    out.push(marker);
    out.extend_from_slice(&bytes[4 - used..]);
}

fn write_uint(out: &mut Vec<u8>, number: usize) {
    match number {
        // At most 127.
        0..0x80 => out.push(number as u8),
        _ => write_length(out, number, [0xCC, 0xCD, 0xCE]),
    }
}

/// A parsed envelope, whose sizes are within the limits.
#[derive(Debug)]
pub struct Envelope<'e> {
    block: Cow<'e, [u8]>,
    checksum: u64,
    size: usize,
    format: &'e str,
}

impl<'e> Envelope<'e> {
    /// Reads an envelope: the array that is written, or the forms before it (integers for bytes, a map of four). What
    /// follows it is not looked at, as cachekit does not.
    ///
    /// # Errors
    /// [`Error::Decode`]; [`Error::Memory`].
    pub fn parse(bytes: &'e [u8]) -> Result<Self> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(wrong("envelope", format!("at most {MAX_ENVELOPE} bytes"), format!("{} bytes", bytes.len())));
        }
        let mut reader = Reader { bytes, at: 0 };
        let named = reader.outer()?;
        let (mut block, mut checksum, mut size, mut format) = (None, None, None, None);
        for position in 0..FIELDS.len() {
            let at = reader.at;
            let field = if named { reader.name()? } else { position };
            let repeated = match field {
                0 => block.replace(reader.bytes_or_integers("compressed_data")?).is_some(),
                1 => checksum.replace(reader.checksum()?).is_some(),
                2 => size.replace(reader.unsigned("original_size", u64::from(u32::MAX))?).is_some(),
                _ => format.replace(reader.text("format")?).is_some(),
            };
            if repeated {
                return Err(reader.wrong_at(at, "map", "each field once", format!("a second {:?}", FIELDS[field])));
            }
        }
        match (block, checksum, size, format) {
            // The size has at most 32 bits.
            (Some(block), Some(checksum), Some(size), Some(format)) => {
                Self { block, checksum, size: size as usize, format }.within_limits()
            }
            // Four fields, each of them one of four and none twice.
            _ => Err(wrong("map", "all four fields".to_owned(), "fewer".to_owned())),
        }
    }

    fn within_limits(self) -> Result<Self> {
        if self.size > MAX_UNCOMPRESSED {
            let expected = format!("at most {MAX_UNCOMPRESSED} bytes");
            return Err(wrong("original_size", expected, format!("{} bytes", self.size)));
        }
        // Neither product nor sum of these overflows 64 bits. No block is empty: that of nothing has one byte.
        if self.block.is_empty() || self.size > MAX_RATIO * self.block.len() {
            let expected = format!("at most {MAX_RATIO} times the {} bytes of compressed_data", self.block.len());
            return Err(wrong("original_size", expected, format!("{} bytes", self.size)));
        }
        Ok(self)
    }

    /// How many bytes it says it holds; at most [`MAX_UNCOMPRESSED`].
    pub fn size(&self) -> usize {
        self.size
    }

    /// What it says its bytes are.
    pub fn format(&self) -> &'e str {
        self.format
    }

    /// Decompresses its bytes and checks them against the checksum.
    ///
    /// # Errors
    /// [`Error::Decode`]; [`Error::Memory`].
    pub fn open(&self) -> Result<AlignedBuf> {
        let data =
            decompress(Algorithm::Lz4, &self.block, self.size as u64, MAX_UNCOMPRESSED).map_err(
                |error| match error {
                    Error::Decode { expected, found, .. } => wrong("compressed_data", expected, found),
                    other => other,
                },
            )?;
        match xxh3_64(data.as_slice()) {
            checksum if checksum == self.checksum => Ok(data),
            checksum => {
                let expected = format!("data with the checksum {:016x}", self.checksum);
                Err(wrong("checksum", expected, format!("{checksum:016x}")))
            }
        }
    }
}

fn wrong(place: impl Into<String>, expected: impl Into<Text>, found: impl Into<String>) -> Error {
    Error::Decode { codec: CODEC, place: place.into(), expected: expected.into(), found: found.into() }
}

/// Reads what an envelope may consist of.
struct Reader<'e> {
    bytes: &'e [u8],
    at: usize,
}

impl<'e> Reader<'e> {
    fn wrong_at(&self, at: usize, what: &str, expected: &'static str, found: impl Into<String>) -> Error {
        wrong(format!("{what} at offset {at}"), expected, found)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'e [u8]> {
        let Some(taken) = self.bytes[self.at..].get(..count) else {
            let place = format!("{what} at offset {}", self.at);
            return Err(wrong(place, format!("{count} bytes"), format!("{}, the envelope ends", self.left())));
        };
        self.at += count;
        Ok(taken)
    }

    fn marker(&mut self, what: &str) -> Result<u8> {
        Ok(self.take(1, what)?[0])
    }

    /// A number in big-endian order.
    fn big_endian(&mut self, width: usize, what: &str) -> Result<u64> {
        Ok(self.take(width, what)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, width: usize, what: &str) -> Result<usize> {
        // At most 32 bits.
        Ok(self.big_endian(width, what)? as usize)
    }

    /// Whether the envelope is a map; else it is an array. Either has four fields.
    fn outer(&mut self) -> Result<bool> {
        let what = "envelope";
        let marker = self.marker(what)?;
        let (named, count) = match marker {
            0x90..=0x9F => (false, usize::from(marker & 0x0F)),
            0xDC => (false, self.length(2, what)?),
            0xDD => (false, self.length(4, what)?),
            0x80..=0x8F => (true, usize::from(marker & 0x0F)),
            0xDE => (true, self.length(2, what)?),
            0xDF => (true, self.length(4, what)?),
            other => return Err(self.wrong_at(0, what, "an array or map of four", format!("marker {other:#04x}"))),
        };
        if count == FIELDS.len() {
            return Ok(named);
        }
        Err(self.wrong_at(0, what, "an array or map of four", format!("one of {count}")))
    }

    /// The position in [`FIELDS`] of a name in a map.
    fn name(&mut self) -> Result<usize> {
        let at = self.at;
        let name = self.text("field name")?;
        FIELDS.iter().position(|field| *field == name).ok_or_else(|| {
            wrong(format!("map at offset {at}"), format!("one of the names {FIELDS:?}"), format!("{name:.40?}"))
        })
    }

    fn text(&mut self, what: &str) -> Result<&'e str> {
        let at = self.at;
        let length = match self.marker(what)? {
            short @ 0xA0..=0xBF => usize::from(short & 0x1F),
            0xD9 => self.length(1, what)?,
            0xDA => self.length(2, what)?,
            0xDB => self.length(4, what)?,
            other => return Err(self.wrong_at(at, what, "a string", format!("marker {other:#04x}"))),
        };
        std::str::from_utf8(self.take(length, what)?)
            .map_err(|error| self.wrong_at(at, what, "UTF-8", error.to_string()))
    }

    /// An integer from 0 to `most`, in any of MessagePack's encodings.
    fn unsigned(&mut self, what: &str, most: u64) -> Result<u64> {
        let at = self.at;
        let number = match self.marker(what)? {
            small @ 0..=0x7F => Some(u64::from(small)),
            marker @ 0xCC..=0xCF => Some(self.big_endian(1 << (marker - 0xCC), what)?),
            marker @ 0xD0..=0xD3 => {
                let width = 1 << (marker - 0xD0);
                let number = self.big_endian(width, what)?;
                // The sign is the number's first bit.
                (number >> (8 * width - 1) == 0).then_some(number)
            }
            _ => None,
        };
        number.filter(|number| *number <= most).ok_or_else(|| {
            let found = self.bytes[at..self.at].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            wrong(format!("{what} at offset {at}"), format!("an integer from 0 to {most}"), found)
        })
    }

    /// A binary where it lies, or the bytes that an array of integers gives.
    fn bytes_or_integers(&mut self, what: &str) -> Result<Cow<'e, [u8]>> {
        let at = self.at;
        let count = match self.marker(what)? {
            marker @ 0xC4..=0xC6 => {
                let length = self.length(1 << (marker - 0xC4), what)?;
                return Ok(Cow::Borrowed(self.take(length, what)?));
            }
            marker @ 0x90..=0x9F => usize::from(marker & 0x0F),
            0xDC => self.length(2, what)?,
            0xDD => self.length(4, what)?,
            other => {
                return Err(self.wrong_at(
                    at,
                    what,
                    "a binary or an array of integers",
                    format!("marker {other:#04x}"),
                ));
            }
        };
        // Each integer takes a byte at least.
        if count > self.left() {
            let expected = format!("an array of at most the {} bytes left", self.left());
            return Err(wrong(format!("{what} at offset {at}"), expected, format!("one of {count}")));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count).map_err(|_| Error::Memory { bytes: count })?;
        for _ in 0..count {
            // At most 255.
            bytes.push(self.unsigned(what, u64::from(u8::MAX))? as u8);
        }
        Ok(Cow::Owned(bytes))
    }

    fn checksum(&mut self) -> Result<u64> {
        let at = self.at;
        let bytes = self.bytes_or_integers("checksum")?;
        match <[u8; 8]>::try_from(&*bytes) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(self.wrong_at(at, "checksum", "8 bytes", format!("{} bytes", bytes.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The envelope of `81 a1 61 01` as cachekit 0.17 to 0.24 write it.
    const SMALL: [u8; 35] =
        *b"\x94\xc4\x05\x40\x81\xa1a\x01\x98\xcc\x84\xcc\x8c\x4f\xcc\x99\xcc\xe3X\x4c\xcc\xc8\x04\xa7msgpack\0\0\0\0";

    fn small() -> &'static [u8] {
        &SMALL[..31]
    }

    fn opened(envelope: &[u8]) -> Result<(Vec<u8>, String)> {
        let envelope = Envelope::parse(envelope)?;
        Ok((envelope.open()?.as_slice().to_vec(), envelope.format().to_owned()))
    }

    fn refused(envelope: &[u8]) -> String {
        match opened(envelope) {
            Err(error @ Error::Decode { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The parts of an envelope of `data`: those of the array after its first byte.
    fn parts(data: &[u8]) -> [Vec<u8>; 4] {
        let block = lz4_after(&[], data, AlignedBuf::stale).expect("memory");
        let mut parts = [const { Vec::new() }; 4];
        write_length(&mut parts[0], block.len(), [0xC4, 0xC5, 0xC6]);
        parts[0].extend_from_slice(block.as_slice());
        parts[1].extend_from_slice(b"\xc4\x08");
        parts[1].extend_from_slice(&xxh3_64(data).to_be_bytes());
        write_uint(&mut parts[2], data.len());
        parts[3].extend_from_slice(b"\xa1x");
        parts
    }

    fn joined(head: &[u8], parts: &[Vec<u8>]) -> Vec<u8> {
        [head, &parts.concat()].concat()
    }

    #[test]
    fn what_is_written_is_what_cachekit_writes() {
        assert_eq!(&*seal(b"\x81\xa1a\x01", "msgpack").expect("memory"), small());
        let empty = seal(b"", "msgpack").expect("memory");
        assert_eq!(&*empty, b"\x94\xc4\x01\0\x98\x2d\x06\xcc\x80\x05\x38\xcc\xd3\xcc\x94\xcc\xc2\0\xa7msgpack");
        assert_eq!(opened(&empty).expect("own"), (Vec::new(), "msgpack".to_owned()));
    }

    #[test]
    fn what_follows_an_envelope_is_not_looked_at() {
        assert_eq!(opened(&SMALL).expect("valid"), (b"\x81\xa1a\x01".to_vec(), "msgpack".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(data in prop::collection::vec(any::<u8>(), 0..300), times in 0usize..300, format: String) {
            let data = data.repeat(times);
            let sealed = seal(&data, &format).expect("small");
            prop_assert_eq!(opened(&sealed).expect("own"), (data, format));
        }

        #[test]
        fn every_older_form_is_read(data in prop::collection::vec(any::<u8>(), 0..300), wide: bool, order in 0usize..24) {
            let mut parts = parts(&data);
            let block = lz4_after(&[], &data, AlignedBuf::stale).expect("memory");
            let mut integers = vec![0xDD];
            integers.extend_from_slice(&(block.len() as u32).to_be_bytes());
            for byte in block.as_slice() {
                match (wide, *byte) {
                    (false, byte @ 0..0x80) => integers.push(byte),
                    (false, byte) => integers.extend_from_slice(&[0xCC, byte]),
                    (true, byte) => integers.extend_from_slice(&[0xD1, 0, byte]),
                }
            }
            parts[0] = integers;
            for head in [b"\x94".as_slice(), b"\xdc\0\x04", b"\xdd\0\0\0\x04"] {
                prop_assert_eq!(opened(&joined(head, &parts)).expect("an older form"), (data.clone(), "x".to_owned()));
            }
            let mut fields: Vec<_> = FIELDS.iter().zip(&parts).map(|(name, part)| {
                [&[0xA0 | name.len() as u8], name.as_bytes(), part].concat()
            }).collect();
            fields.swap(0, order % 4);
            fields.swap(1, order % 3);
            for head in [b"\x84".as_slice(), b"\xde\0\x04", b"\xdf\0\0\0\x04"] {
                prop_assert_eq!(opened(&joined(head, &fields)).expect("a map"), (data.clone(), "x".to_owned()));
            }
        }

        #[test]
        fn a_damaged_envelope_never_gives_other_data(
            data in prop::collection::vec(any::<u8>(), 0..200), times in 1usize..30, at: usize, byte: u8,
        ) {
            let data = data.repeat(times);
            let mut sealed = seal(&data, "x").expect("small").to_vec();
            let at = at % sealed.len();
            sealed[at] = byte;
            match opened(&sealed) {
                Ok((found, _)) => prop_assert_eq!(found, data),
                Err(error) => prop_assert!(matches!(error, Error::Decode { .. }), "{error}"),
            }
        }

        #[test]
        fn any_bytes_are_an_envelope_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), head in 0usize..4) {
            let heads: [&[u8]; 4] = [b"", b"\x94", b"\x94\xc4\x05", b"\x84\xaf"];
            match opened(&[heads[head], &bytes].concat()) {
                Ok(_) => {}
                Err(error) => prop_assert!(matches!(error, Error::Decode { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn every_cut_is_an_error_that_says_so() {
        for end in 0..small().len() {
            let found = refused(&small()[..end]);
            assert!(found.contains("the envelope ends") || found.contains("bytes left"), "{end}: {found}");
        }
    }

    #[test]
    fn every_part_is_checked() {
        let good = parts(b"0123456789");
        let with = |position: usize, part: &[u8]| {
            let mut parts = good.clone();
            parts[position] = part.to_vec();
            refused(&joined(b"\x94", &parts))
        };
        assert_eq!(opened(&joined(b"\x94", &good)).expect("valid").0, b"0123456789");
        for (position, part, text) in [
            (0, b"\xa5\x40abcd".as_slice(), "compressed_data at offset 1: expected a binary or an array of integers"),
            (0, b"\xc0", "found marker 0xc0"),
            (0, b"\x91\xcd\x01\x00", "expected an integer from 0 to 255, found cd0100"),
            (0, b"\x91\xd0\xff", "found d0ff"),
            (0, b"\xc4\x00", "at most 1000 times the 0 bytes"),
            (0, b"\xdd\xff\xff\xff\xff", "found one of 4294967295"),
            (0, b"\xc6\xff\xff\xff\xff", "expected 4294967295 bytes"),
            (0, b"\xc4\x01\x00", "expected data that becomes the declared 10 bytes, found 0 bytes"),
            (0, b"\xc4\x03\x0f\x01\x00", "compressed_data: expected data that becomes"),
            (1, b"\xc4\x07abcdefg", "expected 8 bytes, found 7 bytes"),
            (1, b"\xc4\x09abcdefghi", "expected 8 bytes, found 9 bytes"),
            (1, b"\xc4\x08abcdefgh", "expected data with the checksum 6162636465666768, found "),
            (1, b"\xa8abcdefgh", "checksum at offset"),
            (2, b"\x09", "declared 9 bytes"),
            (2, b"\x0b", "declared 11 bytes, found 10 bytes"),
            (2, b"\xcd\x2a\xf9", "at most 1000 times the 11 bytes of compressed_data, found 11001 bytes"),
            (2, b"\xcd\x2a\xf8", "a size that 11 compressed bytes can become, found 11000 bytes"),
            (2, b"\xce\x20\x00\x00\x01", "at most 536870912 bytes, found 536870913 bytes"),
            (2, b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "from 0 to 4294967295, found cf0000000100000000"),
            (2, b"\xcb\0\0\0\0\0\0\0\0", "found cb"),
            (2, b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", "an integer from 0"),
            (3, b"\xc4\x01x", "expected a string, found marker 0xc4"),
            (3, b"\xa1\xff", "expected UTF-8"),
            (3, b"\xdb\xff\xff\xff\xff", "expected 4294967295 bytes"),
        ] {
            let found = with(position, part);
            assert!(found.contains(text), "{part:x?}: {found}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let good = parts(b"0123456789");
        for head in [b"\x93".as_slice(), b"\x95", b"\xdd\xff\xff\xff\xff", b"\x83", b"\xdf\xff\xff\xff\xff"] {
            assert!(refused(&joined(head, &good)).contains("an array or map of four"));
        }
        assert!(refused(b"\xc0").contains("found marker 0xc0"));
        assert!(refused(b"").contains("0, the envelope ends"));
        let field = |name: &str, part: &[u8]| [&[0xA0 | name.len() as u8], name.as_bytes(), part].concat();
        let unknown = field("other", b"\0");
        assert!(refused(&joined(b"\x84", &[unknown])).contains("found \"other\""));
        let twice = [field(FIELDS[3], &good[3]), field(FIELDS[3], &good[3])];
        assert!(refused(&joined(b"\x84", &twice)).contains("found a second \"format\""));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_compressed() {
        let sealed = seal(&vec![0; MAX_UNCOMPRESSED + 1], "msgpack");
        assert!(matches!(sealed, Err(Error::TooLarge { bytes, limit, .. }) if bytes == limit + 1));
        let long = String::from_utf8(vec![0; MAX_ENVELOPE]).expect("NULs");
        assert!(matches!(seal(b"", &long), Err(Error::TooLarge { place: "envelope", .. })));
    }

    #[test]
    fn an_envelope_above_the_limit_is_refused_unread() {
        let found = refused(&vec![0; MAX_ENVELOPE + 1]);
        assert!(found.contains("at most 536870912 bytes, found 536870913 bytes"), "{found}");
    }
}
