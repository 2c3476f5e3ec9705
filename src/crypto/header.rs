//! What a sealed frame shows: the header, and the parts of its payload.
//!
//! The header has one form, byte for byte, so that reading it is comparing it; its bytes are authenticated as they stand.

use super::aead::{NONCE, TAG};
use super::digits::{self, decimal, hex};
use super::open::refused;
use crate::buffer::{ALIGN, padded};
use crate::error::{Error, Refusal, Result};
use crate::frame;
use crate::key::Name;
use std::cell::Cell;
use std::ops::Range;

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
/// Bytes of a name.
const NAME_BYTES: usize = 32;
/// Bytes of a length, in associated data and prefixes.
const LENGTH_BYTES: usize = 4;
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
    let (words, rest) = bytes.as_chunks();
    words.iter().all(|word| *word == [b' '; 8]) && rest.iter().all(|byte| *byte == b' ')
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
        let mut bytes = Self::room();
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

    fn room() -> Vec<u8> {
        // A thread that is about to end has none.
        let mut bytes = ROOM.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        bytes.reserve(Self::KEPT);
        bytes
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

/// The associated data of a sealed frame with all that is the same for every entry under one key.
#[derive(Debug)]
pub(super) struct Template {
    /// Up to the header's name, with zeros for what differs.
    bytes: Box<[u8]>,
    /// Where the entry's name stands.
    name: usize,
}

impl Template {
    /// Key id and salt are given in hexadecimal digits.
    pub(super) fn new(key_id: &[u8], salt: &[u8], tenant: &str) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(VERSION);
        // Both are short.
        bytes.extend_from_slice(&(tenant.len() as u32).to_be_bytes());
        bytes.extend_from_slice(tenant.as_bytes());
        bytes.extend_from_slice(&(NAME_BYTES as u32).to_be_bytes());
        let name = bytes.len();
        bytes.extend_from_slice(&[0; NAME_BYTES + LENGTH_BYTES]);
        bytes.extend_from_slice(frame::MAGIC);
        bytes.push(frame::VERSION);
        bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        for part in [START, key_id, SALT, salt, TENANT, tenant.as_bytes(), NAME] {
            bytes.extend_from_slice(part);
        }
        Self { bytes: bytes.into(), name }
    }

    /// Where the header begins.
    fn header(&self) -> usize {
        self.name + NAME_BYTES + LENGTH_BYTES
    }

    /// What the JSON of its headers starts with.
    pub(super) fn start(&self) -> &[u8] {
        &self.bytes[self.header() + frame::PREFIX..]
    }

    /// Writes what stands before the ciphertext of a frame, but for check and nonce, which come last: zeros, the associated
    /// data of the entry under `name` with `length` bytes of plaintext, and as their end, from [`lead`] bytes on, the header,
    /// padded so that the ciphertext starts `align` bytes after it or a multiple of that. Returns where it starts, and where
    /// the associated data stand.
    ///
    /// `room` has [`room_for`] bytes more than [`lead`].
    #[inline(always)]
    pub(super) fn write(
        &self,
        room: &mut [u8],
        name: &Name,
        length: usize,
        times: Times,
        align: usize,
    ) -> (usize, Range<usize>) {
        let lead = padded(self.header());
        let start = lead - self.header();
        room[..start].fill(0);
        let mut at = start + self.bytes.len();
        room[start..at].copy_from_slice(&self.bytes);
        room[start + self.name..][..NAME_BYTES].copy_from_slice(name.as_bytes());
        put(room, &mut at, &hex::<NAME_BYTES, { 2 * NAME_BYTES }>(name.as_bytes()));
        put_number(room, &mut at, LENGTH, (length + OVERHEAD) as u64);
        if let Some(created) = times.created {
            put_number(room, &mut at, CREATED, created);
        }
        if let Some(until) = times.until {
            put_number(room, &mut at, UNTIL, until);
        }
        put(room, &mut at, END);
        let data = lead + (at + BEFORE - lead).next_multiple_of(align);
        let header = lead..data - BEFORE;
        room[at..header.end].fill(b' ');
        // At most MAX_HEADER and its prefix.
        let lengths = [(lead - LENGTH_BYTES, header.len()), (lead + 3, header.len() - frame::PREFIX)];
        for (at, length) in lengths {
            room[at..at + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
        }
        (data, start..header.end)
    }

    /// Those of the entry under `name` with this header, one under the template's key.
    pub(super) fn associated(&self, name: &Name, header: &[u8]) -> Associated {
        let mut bytes = Associated::room();
        bytes.extend_from_slice(&self.bytes[..self.name]);
        bytes.extend_from_slice(name.as_bytes());
        // At most MAX_HEADER and its prefix.
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(header);
        Associated { bytes, header: self.header() }
    }
}

/// Bytes before a frame under construction, a multiple of 64: the associated data are written to where the header stands.
pub(super) fn lead(tenant: &str) -> usize {
    padded(1 + LENGTH_BYTES + tenant.len() + LENGTH_BYTES + NAME_BYTES + LENGTH_BYTES)
}

#[inline(always)]
fn put<const N: usize>(room: &mut [u8], at: &mut usize, text: &[u8; N]) {
    room[*at..*at + N].copy_from_slice(text);
    *at += N;
}

/// After it there is room for check and nonce, and so for the spaces after the digits.
#[inline(always)]
fn put_number<const N: usize>(room: &mut [u8], at: &mut usize, field: &[u8; N], number: u64) {
    put(room, at, field);
    *at += decimal(number, &mut room[*at..]);
}

/// Bytes before the ciphertext of a frame under construction, whatever its header will say: a multiple of 64.
pub(super) fn room_for(tenant: &str) -> usize {
    let same = BEFORE_SALT + SALT_DIGITS + TENANT.len() + tenant.len() + NAME.len();
    let fields = LENGTH.len() + CREATED.len() + UNTIL.len() + END.len() + 3 * digits::MOST;
    padded(frame::PREFIX + same + 2 * NAME_BYTES + fields + BEFORE)
}

/// A sealed frame, taken apart and not verified.
#[derive(Debug)]
pub(super) struct Sealed<'f> {
    /// Prefix, JSON and padding.
    pub(super) header: &'f [u8],
    /// The part of the JSON before the name, which tells which key the entry is under.
    pub(super) start: &'f [u8],
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
        Self::parse_after(bytes, |_| 0)
    }

    /// As [`Self::parse`]. `known` is shown the JSON, and says how many of its first bytes are a start that was read before,
    /// or 0.
    #[inline(always)]
    pub(super) fn parse_after(bytes: &'f [u8], known: impl FnOnce(&[u8]) -> usize) -> Result<Self> {
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
        let (header, payload) = bytes.split_at(at.end);
        let json = &header[at.start..];
        let start = match known(json) {
            0 if !json.starts_with(CODEC_IS) => return Err(not_sealed("a frame of another codec")),
            0 => start_of(json),
            known => Some(known),
        };
        let Some((sealed, length)) = start.and_then(|start| Self::parse_rest(header, json, start)) else {
            return Err(refused(Refusal::ChangedHeader, "the header of a sealed frame", "another form"));
        };
        sealed.with_payload(payload, length)
    }

    /// What comes after the start, and the payload's length that it states.
    #[inline(always)]
    fn parse_rest(header: &'f [u8], json: &'f [u8], start: usize) -> Option<(Self, u64)> {
        let mut scan = Scan { bytes: json, at: start };
        let name = scan.take(2 * NAME_BYTES)?;
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
        let (start, times) = (&json[..start], Times { created, until });
        let (check, nonce, tag) = (&[0; CHECK], &[0; NONCE], &[0; TAG]);
        Some((Self { header, start, name, times, check, nonce, data: &[], tag }, length))
    }

    /// Hexadecimal digits.
    pub(super) fn key_id(&self) -> &'f [u8] {
        &self.start[START.len()..][..KEY_ID]
    }

    /// Hexadecimal digits.
    pub(super) fn salt(&self) -> &'f [u8] {
        &self.start[BEFORE_SALT..][..SALT_DIGITS]
    }

    /// UTF-8.
    pub(super) fn tenant(&self) -> &'f [u8] {
        &self.start[BEFORE_SALT + SALT_DIGITS + TENANT.len()..self.start.len() - NAME.len()]
    }

    #[inline(always)]
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

/// Bytes of JSON that stand before the name, if they have the form of those that sealing writes.
fn start_of(json: &[u8]) -> Option<usize> {
    let mut scan = Scan::new(json);
    scan.literal(START)?;
    scan.take(KEY_ID)?;
    scan.literal(SALT)?;
    scan.take(SALT_DIGITS)?;
    scan.literal(TENANT)?;
    std::str::from_utf8(scan.until(b'"')?).ok().filter(|tenant| is_tenant(tenant))?;
    scan.literal(NAME)?;
    Some(scan.at)
}

fn not_sealed(found: &'static str) -> Error {
    refused(Refusal::NotSealed, "a sealed frame", found)
}

const CODEC_IS: &[u8] = b"{\"s\": \"sealed\"";
const START: &[u8] = b"{\"s\": \"sealed\", \"v\": \"2.0\", \"m\": {\"aad\": 4, \"kid\": \"";
pub(super) const SALT: &[u8] = b"\", \"salt\": \"";
/// Digits of a key id.
const KEY_ID: usize = 32;
/// Digits of a salt.
const SALT_DIGITS: usize = 32;
/// Bytes of a header's JSON before the salt.
pub(super) const BEFORE_SALT: usize = START.len() + KEY_ID + SALT.len();
pub(super) const TENANT: &[u8] = b"\", \"tenant\": \"";
pub(super) const NAME: &[u8] = b"\", \"name\": \"";
const LENGTH: &[u8; 13] = b"\", \"length\": ";
pub(super) const CREATED: &[u8; 13] = b", \"created\": ";
pub(super) const UNTIL: &[u8; 11] = b", \"until\": ";
pub(super) const END: &[u8; 2] = b"}}";

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

    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> Option<&'j [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    #[inline(always)]
    pub(super) fn literal(&mut self, literal: &[u8]) -> Option<()> {
        (self.take(literal.len())? == literal).then_some(())
    }

    /// The number after `field`, if that is what comes next; `None` for a field without one.
    #[inline(always)]
    pub(super) fn optional(&mut self, field: &[u8]) -> Option<Option<u64>> {
        if !self.bytes[self.at..].starts_with(field) {
            return Some(None);
        }
        self.at += field.len();
        self.number().map(Some)
    }

    /// A number without leading zeros.
    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        let (number, digits) = digits::number(self.rest())?;
        self.at += digits;
        Some(number)
    }
}
