//! Keys of streams: each stream has its own, so that the numbers of its parts can be their nonces.

use super::Keyring;
use super::aead::{Aead, Cipher, NONCE, TAG};
use super::digits::hex;
use super::header::{Associated, CREATED, END, NAME, SALT, Scan, TENANT, Times, UNTIL, check_tenant, is_tenant};
use super::keys::decode_hex;
use super::open::refused;
use crate::buffer::ALIGN;
use crate::error::{Error, Refusal, Result};
use crate::frame;
use crate::key::Name;
use crate::random;
use std::ops::Range;

/// The codec of sealed streams.
pub const STREAM_CODEC: &str = "sealed-stream";
/// Bytes after the header that tell a key from others.
const CHECK: usize = 16;
/// Bytes that sealing adds to each part.
pub const STREAM_TAG: usize = TAG;

const CODEC_IS: &[u8] = b"{\"s\": \"sealed-stream\"";
const START: &[u8] = b"{\"s\": \"sealed-stream\", \"v\": \"2.0\", \"m\": {\"aad\": 4, \"kid\": \"";
const STREAM: &[u8] = b"\", \"stream\": \"";
const QUOTE: &[u8] = b"\"";

/// A part of a stream, and with it its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A chunk; the last one is told from the others.
    Chunk {
        /// Its number, from 0.
        number: u64,
        /// Whether none follows.
        last: bool,
    },
    /// The index.
    Index,
}

impl Part {
    /// Number, big-endian, and what kind of part it is: 0 a chunk, 1 the last one, 2 the index, whose number is 0.
    fn nonce(self) -> [u8; NONCE] {
        let (number, kind) = match self {
            Self::Chunk { number, last } => (number, u8::from(last)),
            Self::Index => (0, 2),
        };
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE - 1] = kind;
        nonce
    }
}

/// The key of one stream, bound to its header, its tenant and its name.
pub struct StreamKey {
    cipher: Cipher,
    associated: Associated,
    check: [u8; CHECK],
    /// The times that the header shows.
    pub times: Times,
}

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamKey").field("times", &self.times).finish_non_exhaustive()
    }
}

impl StreamKey {
    /// What the stream starts with: the header, and the check of the key.
    pub fn start(&self) -> Vec<u8> {
        [self.associated.header(), &self.check].concat()
    }

    /// Seals a part where it is; returns its tag. No part is sealed twice.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for what AES-GCM cannot seal at once.
    pub fn seal(&self, part: Part, data: &mut [u8]) -> Result<[u8; STREAM_TAG]> {
        let bytes = data.len();
        self.cipher.seal(part.nonce(), self.associated.bytes(), data).map_err(|_| Error::TooLarge {
            place: "part of a sealed stream",
            bytes,
            limit: super::MAX_PLAINTEXT,
        })
    }

    /// Opens a part, ciphertext and tag, to `out`, which has its length without the tag.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn open(&self, part: Part, sealed: &[u8], out: &mut [u8]) -> Result<()> {
        let changed = || {
            let expected = match part {
                Part::Chunk { number, .. } => format!("chunk {number} as it was sealed"),
                Part::Index => "the index as it was sealed".to_owned(),
            };
            refused(Refusal::Changed, expected, "a tag that is not its own")
        };
        let (data, tag) = sealed.split_last_chunk().filter(|(data, _)| data.len() == out.len()).ok_or_else(changed)?;
        self.cipher.open(part.nonce(), self.associated.bytes(), data, tag, out).map_err(|_| changed())
    }
}

impl Keyring {
    /// A new key for a stream that the tenant will have under `name`, with the header that says so.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tenant that cannot stand in a header, [`Error::Memory`], [`Error::Io`] where the system
    /// gives no random bytes.
    pub fn begin_stream(&self, tenant: &str, name: &Name, times: Times) -> Result<StreamKey> {
        check_tenant(tenant)?;
        let (salt, stream) = (random::bytes::<16>()?, random::bytes::<32>()?);
        let (cipher, check) = self.stream_cipher(0, tenant, &salt, &stream)?;
        let id = self.current_id();
        let associated = Associated::new(tenant, name, |out| {
            frame::prefix_into(out, ALIGN, 0, |out| {
                let parts = [
                    (START, id.as_bytes()),
                    (SALT, &hex::<16, 32>(&salt)),
                    (STREAM, &hex::<32, 64>(&stream)),
                    (TENANT, tenant.as_bytes()),
                    (NAME, &hex::<32, 64>(name.as_bytes())),
                ];
                parts.iter().for_each(|(before, value)| out.extend([*before, *value].concat()));
                out.extend_from_slice(QUOTE);
                for (field, time) in [(&CREATED[..], times.created), (UNTIL, times.until)] {
                    if let Some(time) = time {
                        out.extend_from_slice(field);
                        out.extend_from_slice(time.to_string().as_bytes());
                    }
                }
                out.extend_from_slice(END);
                Ok(())
            })
        })?;
        self.count_sealed();
        Ok(StreamKey { cipher, associated, check, times })
    }

    /// The key of the stream that `frame` starts, if it is the one that the tenant has under `key`, and where its first
    /// chunk starts.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Argument`], [`Error::Memory`].
    pub fn open_stream(&self, tenant: &str, key: &str, frame: &[u8]) -> Result<(StreamKey, usize)> {
        self.find_stream(tenant, key, frame).inspect_err(|error| self.count_refused(error))
    }

    fn find_stream(&self, tenant: &str, key: &str, frame: &[u8]) -> Result<(StreamKey, usize)> {
        let json = locate(frame)?;
        let changed = || refused(Refusal::ChangedHeader, "the header of a sealed stream", "another form");
        let header = StreamHeader::parse(&frame[json.clone()]).ok_or_else(changed)?;
        let check = frame[json.end..].first_chunk::<CHECK>().ok_or_else(|| {
            refused(Refusal::Truncated, "the check of the key after the header", format!("{} bytes", frame.len()))
        })?;
        let master = self.master_of(header.key_id)?;
        if header.tenant != tenant {
            let found = format!("{:?}", header.tenant);
            return Err(refused(Refusal::WrongEntry, format!("a stream of tenant {tenant:?}"), found));
        }
        let (cipher, expected) = self.stream_cipher(master, tenant, &header.salt, &header.stream)?;
        if *check != expected {
            return Err(refused(Refusal::WrongKey, "the key that the header names", "another one"));
        }
        let name = self.name_under(header.key_id, tenant, key)?;
        if *header.name != hex::<32, 64>(name.as_bytes()) {
            return Err(refused(Refusal::WrongEntry, "the name that was asked for", "a stream of another name"));
        }
        let associated = Associated::new(tenant, &name, |out| {
            out.extend_from_slice(&frame[..json.end]);
            Ok(())
        })?;
        self.count_opened_under(master);
        let key = StreamKey { cipher, associated, check: expected, times: header.times };
        Ok((key, json.end + CHECK))
    }
}

/// Where the header of a sealed stream stands.
fn locate(bytes: &[u8]) -> Result<Range<usize>> {
    let not_sealed = |found: &'static str| refused(Refusal::NotSealed, "a sealed stream", found);
    if !bytes.starts_with(frame::MAGIC) || bytes.get(2).is_some_and(|version| *version != frame::VERSION) {
        return Err(not_sealed("bytes that are no frame of version 3"));
    }
    let json = frame::locate_header(bytes).map_err(|error| match error {
        Error::Frame { found, .. } => refused(Refusal::Truncated, "a whole header", found),
        other => other,
    })?;
    if !bytes[json.clone()].starts_with(CODEC_IS) {
        return Err(not_sealed("a frame of another codec"));
    }
    Ok(json)
}

/// What a header says.
struct StreamHeader<'f> {
    /// Hexadecimal digits.
    key_id: &'f [u8],
    salt: [u8; 16],
    stream: [u8; 32],
    tenant: &'f str,
    /// Hexadecimal digits.
    name: &'f [u8],
    times: Times,
}

impl<'f> StreamHeader<'f> {
    /// The one form that it has, and padding.
    fn parse(json: &'f [u8]) -> Option<Self> {
        let mut scan = Scan::new(json);
        scan.literal(START)?;
        let key_id = scan.take(32)?;
        scan.literal(SALT)?;
        let salt = lower_hex(scan.take(32)?)?;
        scan.literal(STREAM)?;
        let stream = lower_hex(scan.take(64)?)?;
        scan.literal(TENANT)?;
        let tenant = std::str::from_utf8(scan.until(b'"')?).ok().filter(|tenant| is_tenant(tenant))?;
        scan.literal(NAME)?;
        let name = scan.take(64)?;
        scan.literal(QUOTE)?;
        let times = Times { created: scan.optional(CREATED)?, until: scan.optional(UNTIL)? };
        scan.literal(END)?;
        let padded = (frame::PREFIX + json.len()).is_multiple_of(ALIGN);
        (padded && scan.rest().iter().all(|byte| *byte == b' ')).then_some(Self {
            key_id,
            salt,
            stream,
            tenant,
            name,
            times,
        })
    }
}

fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (decode_hex(digits, &mut bytes) && !digits.iter().any(u8::is_ascii_uppercase)).then_some(bytes)
}
