//! What a sealed frame shows: the header, and the parts of its payload.
//!
//! The header has one form, byte for byte, so that reading it is comparing it; its bytes are authenticated as they stand.

use super::aead::{NONCE, TAG};
use super::open::refused;
use crate::buffer::ALIGN;
use crate::error::{Error, Refusal, Result};
use crate::frame;
use crate::key::Name;
use std::cell::Cell;

/// The codec of sealed frames.
pub const CODEC: &str = "sealed";
/// Bytes before the ciphertext: the key's check and the nonce.
pub(super) const BEFORE: usize = CHECK + NONCE;
/// Bytes that sealing adds to a payload: check, nonce and tag.
pub const OVERHEAD: usize = BEFORE + TAG;
/// Bytes that tell a key from others.
const CHECK: usize = 16;
/// The version of the associated data.
const VERSION: u8 = 4;
/// The longest tenant id, in bytes of UTF-8.
const LONGEST_TENANT: usize = 256;

/// When an entry was written and until when it may be served, in milliseconds since 1970-01-01 UTC. Every tier sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was written.
    pub created: Option<u64>,
    /// The last moment at which any tier may serve it.
    pub until: Option<u64>,
}

/// Fails for a tenant id that cannot stand in a header as it is.
pub(super) fn check_tenant(tenant: &str) -> Result<()> {
    if is_tenant(tenant) {
        return Ok(());
    }
    Err(Error::Argument {
        argument: "tenant",
        expected: format!("1 to {LONGEST_TENANT} bytes of UTF-8 without quotes, backslashes and control characters")
            .into(),
        found: format!("{tenant:.80?}"),
    })
}

pub(super) fn is_tenant(tenant: &str) -> bool {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f;
    (1..=LONGEST_TENANT).contains(&tenant.len()) && tenant.bytes().all(plain)
}

/// Whether all of it is padding.
fn is_padding(bytes: &[u8]) -> bool {
    const SPACES: [u8; ALIGN] = [b' '; ALIGN];
    bytes.chunks(ALIGN).all(|chunk| *chunk == SPACES[..chunk.len()])
}

/// The associated data of an entry, of which its header is the end.
#[derive(Debug)]
pub(super) struct Associated {
    bytes: Vec<u8>,
    header: usize,
}

thread_local! {
    /// Room for the next ones of this thread.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Associated {
    /// As much room as is kept: more than the longest header takes that sealing writes.
    const KEPT: usize = 1024;

    /// Those of the tenant's entry under `name`; `write` appends the header.
    pub(super) fn new(tenant: &str, name: &Name, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Self> {
        // A thread that is about to end has none.
        let mut bytes = ROOM.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        bytes.reserve(Self::KEPT);
        bytes.push(VERSION);
        for part in [tenant.as_bytes(), name.as_bytes()] {
            // Both are short.
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        let header = bytes.len() + 4;
        bytes.extend_from_slice(&[0; 4]);
        write(&mut bytes)?;
        // At most MAX_HEADER and its prefix.
        let length = (bytes.len() - header) as u32;
        bytes[header - 4..header].copy_from_slice(&length.to_be_bytes());
        Ok(Self { bytes, header })
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Prefix, JSON and padding.
    pub(super) fn header(&self) -> &[u8] {
        &self.bytes[self.header..]
    }
}

impl Drop for Associated {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= 2 * Self::KEPT {
            let _ = ROOM.try_with(|room| room.set(bytes));
        }
    }
}

/// The part of a header's JSON that is the same for all entries under one key.
///
/// Key id and salt are given in hexadecimal digits.
pub(super) fn write_start(out: &mut Vec<u8>, key_id: &[u8], salt: &[u8; 32], tenant: &str) {
    out.extend_from_slice(START);
    out.extend_from_slice(key_id);
    out.extend_from_slice(SALT);
    out.extend_from_slice(salt);
    out.extend_from_slice(TENANT);
    out.extend_from_slice(tenant.as_bytes());
    out.extend_from_slice(NAME);
}

/// The rest of it, for a payload of `length` bytes.
pub(super) fn write_rest(out: &mut Vec<u8>, name: &Name, length: usize, times: Times) {
    out.extend_from_slice(&hex::<32, 64>(name.as_bytes()));
    out.extend_from_slice(LENGTH);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(length).as_bytes());
    for (field, time) in [(CREATED, times.created), (UNTIL, times.until)] {
        if let Some(time) = time {
            out.extend_from_slice(field);
            out.extend_from_slice(digits.format(time).as_bytes());
        }
    }
    out.extend_from_slice(END);
}

/// Bytes before the ciphertext of a frame under construction, whatever its header will say: a multiple of 64.
pub(super) fn room_for(tenant: &str) -> usize {
    const DIGITS: usize = 20;
    let fields = [START, SALT, TENANT, NAME, LENGTH, CREATED, UNTIL, END];
    let json = fields.iter().map(|field| field.len()).sum::<usize>() + 32 + 32 + tenant.len() + 64 + 3 * DIGITS;
    crate::buffer::padded(frame::PREFIX + json + BEFORE)
}

/// A sealed frame, taken apart and not verified.
#[derive(Debug)]
pub(super) struct Sealed<'f> {
    /// Prefix, JSON and padding.
    pub(super) header: &'f [u8],
    /// The part of the JSON that [`write_start`] writes.
    pub(super) start: &'f [u8],
    /// Hexadecimal digits.
    pub(super) key_id: &'f [u8],
    /// Hexadecimal digits.
    pub(super) salt: &'f [u8],
    pub(super) tenant: &'f str,
    /// Hexadecimal digits.
    pub(super) name: &'f [u8],
    pub(super) times: Times,
    pub(super) check: &'f [u8; CHECK],
    pub(super) nonce: &'f [u8; NONCE],
    pub(super) data: &'f [u8],
    pub(super) tag: &'f [u8; TAG],
}

impl<'f> Sealed<'f> {
    /// # Errors
    /// [`Error::Refused`].
    pub(super) fn parse(bytes: &'f [u8]) -> Result<Self> {
        if !bytes.starts_with(frame::MAGIC) || bytes.get(2).is_some_and(|version| *version != frame::VERSION) {
            return Err(not_sealed("bytes that are no frame of version 3"));
        }
        let at = match frame::locate_header(bytes) {
            Ok(at) => at,
            Err(Error::Frame { found, .. }) => {
                return Err(refused(
                    Refusal::Truncated,
                    "a whole header",
                    format!("{found} before {} bytes", bytes.len()),
                ));
            }
            Err(other) => return Err(other),
        };
        let (json, header) = (&bytes[at.clone()], &bytes[..at.end]);
        if !json.starts_with(CODEC_IS) {
            return Err(not_sealed("a frame of another codec"));
        }
        let Some((sealed, length)) = Self::parse_header(header, json) else {
            return Err(refused(Refusal::ChangedHeader, "the header of a sealed frame", "another form"));
        };
        sealed.with_payload(&bytes[at.end..], length)
    }

    /// The header's fields, and the payload's length that it states.
    fn parse_header(header: &'f [u8], json: &'f [u8]) -> Option<(Self, u64)> {
        let mut scan = Scan::new(json);
        scan.literal(START)?;
        let key_id = scan.take(32)?;
        scan.literal(SALT)?;
        let salt = scan.take(32)?;
        scan.literal(TENANT)?;
        let tenant = std::str::from_utf8(scan.until(b'"')?).ok().filter(|tenant| is_tenant(tenant))?;
        scan.literal(NAME)?;
        let start = &json[..scan.at];
        let name = scan.take(64)?;
        scan.literal(LENGTH)?;
        let length = scan.number()?;
        let created = scan.optional(CREATED)?;
        let until = scan.optional(UNTIL)?;
        scan.literal(END)?;
        // Padding is spaces, to the next multiple of 64 or further.
        let aligned = (header.len() + BEFORE).is_multiple_of(ALIGN);
        if !aligned || !is_padding(scan.rest()) {
            return None;
        }
        let times = Times { created, until };
        let (check, nonce, tag) = (&[0; CHECK], &[0; NONCE], &[0; TAG]);
        Some((Self { header, start, key_id, salt, tenant, name, times, check, nonce, data: &[], tag }, length))
    }

    fn with_payload(self, payload: &'f [u8], length: u64) -> Result<Self> {
        let found = payload.len() as u64;
        if found < length {
            let expected = format!("{length} bytes of payload, as the header states");
            return Err(refused(Refusal::Truncated, expected, format!("{found}")));
        }
        let parts = payload.split_first_chunk().and_then(|(check, rest)| {
            let (nonce, rest) = rest.split_first_chunk()?;
            rest.split_last_chunk().map(|(data, tag)| (check, nonce, data, tag))
        });
        match parts {
            Some((check, nonce, data, tag)) if found == length => Ok(Self { check, nonce, data, tag, ..self }),
            _ => {
                let expected = format!("a payload of {OVERHEAD} bytes or more, of the length that the header states");
                Err(refused(Refusal::ChangedHeader, expected, format!("{found} bytes instead of {length}")))
            }
        }
    }
}

fn not_sealed(found: &'static str) -> Error {
    refused(Refusal::NotSealed, "a sealed frame", found)
}

const CODEC_IS: &[u8] = b"{\"s\": \"sealed\"";
const START: &[u8] = b"{\"s\": \"sealed\", \"v\": \"2.0\", \"m\": {\"aad\": 4, \"kid\": \"";
pub(super) const SALT: &[u8] = b"\", \"salt\": \"";
/// Bytes of a header's JSON before the salt.
pub(super) const BEFORE_SALT: usize = START.len() + 32 + SALT.len();
pub(super) const TENANT: &[u8] = b"\", \"tenant\": \"";
pub(super) const NAME: &[u8] = b"\", \"name\": \"";
const LENGTH: &[u8] = b"\", \"length\": ";
pub(super) const CREATED: &[u8] = b", \"created\": ";
pub(super) const UNTIL: &[u8] = b", \"until\": ";
pub(super) const END: &[u8] = b"}}";

/// Reads a header of one form.
pub(super) struct Scan<'j> {
    bytes: &'j [u8],
    at: usize,
}

impl<'j> Scan<'j> {
    pub(super) fn new(bytes: &'j [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'j [u8] {
        &self.bytes[self.at..]
    }

    /// What stands before the next `byte`.
    pub(super) fn until(&mut self, byte: u8) -> Option<&'j [u8]> {
        let length = self.rest().iter().position(|found| *found == byte)?;
        self.take(length)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'j [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub(super) fn literal(&mut self, literal: &[u8]) -> Option<()> {
        (self.take(literal.len())? == literal).then_some(())
    }

    /// The number after `field`, if that is what comes next; `None` for a field without one.
    pub(super) fn optional(&mut self, field: &[u8]) -> Option<Option<u64>> {
        if !self.bytes[self.at..].starts_with(field) {
            return Some(None);
        }
        self.at += field.len();
        self.number().map(Some)
    }

    /// A number without leading zeros.
    fn number(&mut self) -> Option<u64> {
        /// So many digits cannot overflow.
        const SAFE: usize = 19;
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (safe, more) = rest[..count].split_at(count.min(SAFE));
        let mut number = 0_u64;
        for digit in safe {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit & 15));
        }
        for digit in more {
            number = number.checked_mul(10)?.checked_add(u64::from(digit & 15))?;
        }
        self.at += count;
        (count == 1 || count > 1 && rest[0] != b'0').then_some(number)
    }
}

/// The hexadecimal digits of `bytes`, in lower case; `M` is twice `N`.
pub(super) fn hex<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const { assert!(M == 2 * N) };
    // Nothing overflows; with checks for it, this would not be vectorized.
    let digit = |nibble: u8| nibble.wrapping_add(if nibble < 10 { b'0' } else { b'a' - 10 });
    let mut digits = [0; M];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}
