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

    /// Bytes of a header that ends with `tail`, padded so that the ciphertext starts at a multiple of 64.
    pub(super) fn header_with(&self, tail: &Tail) -> usize {
        padded(frame::PREFIX + self.start().len() + 2 * NAME_BYTES + tail.length + BEFORE) - BEFORE
    }

    /// Writes the associated data of the entry under `name`, whose header takes `header` bytes, to the end of `room`, which
    /// has [`lead`] bytes before the header, and zeros before them. Returns them; the header is their end.
    pub(super) fn write<'r>(&self, room: &'r mut [u8], name: &Name, header: usize, tail: &Tail) -> &'r [u8] {
        let start = room.len() - header - self.header();
        let (unused, room) = room.split_at_mut(start);
        unused.fill(0);
        let (same, rest) = room.split_at_mut(self.bytes.len());
        same.copy_from_slice(&self.bytes);
        // At most MAX_HEADER and its prefix.
        let lengths = [(self.header() - LENGTH_BYTES, header), (self.header() + 3, header - frame::PREFIX)];
        for (at, length) in lengths {
            same[at..at + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
        }
        same[self.name..self.name + NAME_BYTES].copy_from_slice(name.as_bytes());
        let (digits, rest) = rest.split_at_mut(2 * NAME_BYTES);
        digits.copy_from_slice(&hex::<NAME_BYTES, { 2 * NAME_BYTES }>(name.as_bytes()));
        let (last, padding) = rest.split_at_mut(rest.len().min(Tail::ROOM));
        last.copy_from_slice(&tail.bytes[..last.len()]);
        padding.fill(b' ');
        room
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

/// The JSON of a header after the name, and spaces.
pub(super) struct Tail {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Tail {
    const LONGEST: usize = LENGTH.len() + CREATED.len() + UNTIL.len() + END.len() + 3 * digits::MOST;
    /// The longest, and padding.
    const ROOM: usize = padded(Self::LONGEST) + ALIGN;

    /// For a payload of `length` bytes.
    pub(super) fn new(length: usize, times: Times) -> Self {
        let mut tail = Self { bytes: [b' '; Self::ROOM], length: 0 };
        tail.number(LENGTH, length as u64);
        if let Some(created) = times.created {
            tail.number(CREATED, created);
        }
        if let Some(until) = times.until {
            tail.number(UNTIL, until);
        }
        tail.text(END);
        tail
    }

    #[inline]
    fn text<const N: usize>(&mut self, text: &[u8; N]) {
        self.bytes[self.length..self.length + N].copy_from_slice(text);
        self.length += N;
    }

    #[inline]
    fn number<const N: usize>(&mut self, field: &[u8; N], number: u64) {
        self.text(field);
        self.length += decimal(number, &mut self.bytes[self.length..]);
    }
}

/// Bytes before the ciphertext of a frame under construction, whatever its header will say: a multiple of 64.
pub(super) fn room_for(tenant: &str) -> usize {
    let json = BEFORE_SALT + SALT_DIGITS + TENANT.len() + tenant.len() + NAME.len() + 2 * NAME_BYTES;
    padded(frame::PREFIX + json + Tail::LONGEST + BEFORE)
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
    #[inline]
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
    #[inline]
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
        let (number, digits) = digits::number(self.rest())?;
        self.at += digits;
        Some(number)
    }
}
