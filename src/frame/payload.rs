//! From a value's payload to what a frame holds, and back: compressed or as it is.

use super::{Header, Payload};
use crate::buffer::{AlignedBuf, FrameBuf};
use crate::compress::{Algorithm, Compression, Room, decompress_to};
use crate::error::{Error, Result};
use std::io;

/// How large a value may be that is written, or that comes out of a decompressor, where nothing else is said: 1 GiB.
pub const MAX_VALUE: usize = 1024 * 1024 * 1024;

/// A payload as a frame will hold it.
pub enum Packed<'p, P: ?Sized> {
    /// The payload itself.
    Plain(&'p P),
    /// Its bytes, compressed.
    Compressed(AlignedBuf),
}

impl<P: Payload + ?Sized> Payload for Packed<'_, P> {
    fn length(&self) -> usize {
        match self {
            Self::Plain(payload) => payload.length(),
            Self::Compressed(bytes) => bytes.len(),
        }
    }

    fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
        match self {
            Self::Plain(payload) => payload.write_to(out),
            Self::Compressed(bytes) => bytes.as_slice().write_to(out),
        }
    }
}

/// Compresses a payload as asked for, where that makes it smaller, and records it in the header.
///
/// A payload that is not one piece of memory yet is written to one first.
///
/// # Errors
/// [`Error::TooLarge`] for a payload of more than `limit` bytes; those of the payload; [`Error::Memory`].
pub fn pack<P: Payload + ?Sized>(
    header: Header,
    payload: &P,
    compression: Compression,
    limit: usize,
) -> Result<(Header, Packed<'_, P>)> {
    pack_in(header, payload, compression, limit, AlignedBuf::stale)
}

/// As [`pack`], in memory of that kind.
pub(crate) fn pack_in<P: Payload + ?Sized>(
    header: Header,
    payload: &P,
    compression: Compression,
    limit: usize,
    room: Room,
) -> Result<(Header, Packed<'_, P>)> {
    let size = payload.length();
    if size > limit {
        return Err(Error::TooLarge { place: "payload (max_value_bytes)", bytes: size, limit });
    }
    if compression == Compression::None {
        return Ok((header, Packed::Plain(payload)));
    }
    let mut joined = room(0)?;
    let bytes = match payload.as_bytes() {
        Some(bytes) => bytes,
        None => {
            joined.reserve(size)?;
            payload.write_to(&mut joined)?;
            joined.as_slice()
        }
    };
    Ok(match compression.compress_to(bytes, room)? {
        None => (header, Packed::Plain(payload)),
        Some((algorithm, compressed)) => {
            let compression = Some(algorithm.name().to_owned());
            (Header { compression, size: Some(size as u64), ..header }, Packed::Compressed(compressed))
        }
    })
}

/// The payload of `frame`, which starts at `start`: the frame's own bytes, or what they are when decompressed, which is
/// a copy. What comes out is trusted as far as the frame is.
///
/// # Errors
/// [`Error::CopyRequired`] for a compressed payload if nothing may be copied; [`Error::Decode`] for an unknown
/// algorithm, a size that is missing, above `limit` or wrong, and damaged data; [`Error::Memory`].
pub fn unpack(frame: &FrameBuf, header: &Header, start: usize, limit: usize, may_copy: bool) -> Result<FrameBuf> {
    unpack_in(frame, header, start, limit, may_copy, AlignedBuf::stale)
}

/// As [`unpack`], in memory of that kind.
pub(crate) fn unpack_in(
    frame: &FrameBuf,
    header: &Header,
    start: usize,
    limit: usize,
    may_copy: bool,
    room: Room,
) -> Result<FrameBuf> {
    let stored = frame.slice(start..)?;
    let Some(name) = header.compression.as_deref() else {
        return Ok(stored);
    };
    let wrong = |place: &str, expected: &'static str, found: String| Error::Decode {
        codec: "compressed",
        place: place.to_owned(),
        expected: expected.into(),
        found,
    };
    let Some(algorithm) = Algorithm::from_name(name) else {
        return Err(wrong("m.compression", "'lz4' or 'zstd'", format!("{name:.40?}")));
    };
    let Some(size) = header.size else {
        return Err(wrong("m.size", "the payload's size before compression", "none".to_owned()));
    };
    if !may_copy {
        let reason = format!("it is compressed ({name})").into();
        return Err(Error::CopyRequired { place: "payload".into(), reason });
    }
    let payload = decompress_to(algorithm, &stored, size, limit, room)?;
    Ok(FrameBuf::from_aligned(payload, frame.origin()).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Origin;
    use crate::error::Error;

    /// A payload of two pieces.
    struct Pieces(Vec<u8>);

    impl Payload for Pieces {
        fn length(&self) -> usize {
            self.0.len()
        }

        fn write_to(&self, out: &mut dyn io::Write) -> Result<()> {
            let (first, second) = self.0.split_at(self.0.len() / 2);
            first.write_to(out)?;
            second.write_to(out)
        }
    }

    fn built<P: Payload + ?Sized>(payload: &P, compression: Compression) -> (Header, FrameBuf) {
        let (header, packed) = pack(Header::new("raw"), payload, compression, MAX_VALUE).expect("small");
        (header.clone(), super::super::build(header, &packed).expect("memory"))
    }

    fn start_of(frame: &FrameBuf) -> usize {
        super::super::locate_header(frame).expect("a frame").end
    }

    #[test]
    fn a_payload_comes_back_and_says_whether_it_is_a_copy() {
        let bytes = b"again and ".repeat(100);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Auto] {
            for (header, frame) in [built(bytes.as_slice(), compression), built(&Pieces(bytes.clone()), compression)] {
                let payload = unpack(&frame, &header, start_of(&frame), bytes.len(), true).expect("own");
                assert_eq!(*payload, *bytes);
                let plain = compression == Compression::None;
                assert_eq!((payload.is_copy(), header.size.is_none()), (!plain, plain));
                assert_eq!(payload.origin(), Origin::Trusted);
                let strict = unpack(&frame, &header, start_of(&frame), bytes.len(), false);
                assert!(if plain { strict.is_ok() } else { matches!(strict, Err(Error::CopyRequired { .. })) });
            }
        }
    }

    #[test]
    fn a_foreign_frame_has_a_foreign_payload() {
        let (header, frame) = built(b"x".repeat(1000).as_slice(), Compression::Lz4);
        let copy = FrameBuf::copy_of(&frame, Origin::Foreign).expect("memory");
        assert_eq!(unpack(&copy, &header, start_of(&frame), 1000, true).expect("valid").origin(), Origin::Foreign);
    }

    #[test]
    fn what_a_header_lacks_or_overstates_is_an_error() {
        let (header, frame) = built(b"x".repeat(1000).as_slice(), Compression::Lz4);
        let refused = |header: Header, limit| match unpack(&frame, &header, start_of(&frame), limit, true) {
            Err(error @ Error::Decode { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(refused(header.clone(), 999).contains("at most 999 bytes (max_value_bytes), found 1000 bytes"));
        assert!(refused(Header { size: None, ..header.clone() }, 1000).contains("m.size"));
        assert!(refused(Header { size: Some(999), ..header.clone() }, 1000).contains("declared 999 bytes"));
        assert!(refused(Header { compression: Some("brotli".into()), ..header }, 1000).contains("found \"brotli\""));
    }

    #[test]
    fn a_payload_above_the_limit_is_refused_compressed_or_not() {
        for compression in [Compression::None, Compression::Lz4] {
            let packed = pack(Header::new("raw"), [0; 100].as_slice(), compression, 99);
            assert!(matches!(packed, Err(Error::TooLarge { bytes: 100, limit: 99, .. })));
        }
    }
}
