//! Opening: from a sealed frame to the frame inside, or the reason why not.

use super::Keyring;
use super::aead::Aead;
use super::digits::is_hex_of;
use super::header::{Sealed, Times};
use super::keyring::SealingKey;
use crate::buffer::{AlignedBuf, FrameBuf};
use crate::error::{Error, Refusal, Result, Text};
use crate::frame::{self, Header};
use crate::key::Name;
use std::sync::Arc;

pub(super) fn refused(reason: Refusal, expected: impl Into<Text>, found: impl Into<String>) -> Error {
    Error::Refused { reason, expected: expected.into(), found: found.into() }
}

/// An entry that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The frame that was sealed.
    pub frame: FrameBuf,
    /// Its header.
    pub header: Header,
    /// Where its payload starts.
    pub payload: usize,
    /// The times that the sealed frame shows.
    pub times: Times,
}

impl Opened {
    /// What the payload was before it was packed: a part of the frame, or decompressed, in memory that is wiped as the
    /// frame's is.
    ///
    /// # Errors
    /// Those of [`frame::unpack`], which `limit` is for.
    pub fn unpacked(&self, limit: usize) -> Result<FrameBuf> {
        frame::unpack_in(&self.frame, &self.header, self.payload, limit, true, AlignedBuf::stale_plaintext)
    }
}

impl Keyring {
    /// The frame inside `sealed`, if that is the entry that the tenant has under `name`, as it was sealed.
    ///
    /// It stands in aligned memory of its own, which is wiped when its last view goes, and is trusted.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Memory`].
    #[inline(always)]
    pub fn open(&self, tenant: &str, name: &Name, sealed: &[u8]) -> Result<FrameBuf> {
        let opened = self.open_named(tenant, name, sealed);
        opened.inspect_err(|error| self.count_refused(error))
    }

    /// The entry of `key`, under whichever master key of the keyring it is.
    ///
    /// # Errors
    /// As [`Self::open`], and [`Error::Frame`] where what was sealed is no frame.
    pub fn open_entry(&self, tenant: &str, key: &str, sealed: &[u8]) -> Result<Opened> {
        let opened = self.open_by_key(tenant, key, sealed);
        opened.inspect_err(|error| self.count_refused(error))
    }

    /// What anybody can read in a sealed frame without a key, and so can have written: the times it shows.
    ///
    /// # Errors
    /// [`Error::Refused`] for a frame that is not sealed, or whose header is not as sealing writes it.
    pub fn times(sealed: &[u8]) -> Result<Times> {
        Sealed::parse(sealed).map(|parts| parts.times)
    }

    #[inline(always)]
    fn open_named(&self, tenant: &str, name: &Name, sealed: &[u8]) -> Result<FrameBuf> {
        let (key, parts) = self.parse(sealed)?;
        let key = key.map_or_else(|| self.key_of(&parts), Ok)?;
        self.open_parts(tenant, name, &key, &parts)
    }

    fn open_by_key(&self, tenant: &str, key: &str, sealed: &[u8]) -> Result<Opened> {
        let (sealing_key, parts) = self.parse(sealed)?;
        let name = self.name_under(parts.key_id(), tenant, key)?;
        let sealing_key = sealing_key.map_or_else(|| self.key_of(&parts), Ok)?;
        let frame = self.open_parts(tenant, &name, &sealing_key, &parts)?;
        let json = frame::locate_header(&frame)?;
        let header = Header::parse(&frame[json.clone()])?;
        if header.key.as_deref() != Some(key) {
            return Err(refused(Refusal::WrongEntry, "the key that was asked for inside", "another one"));
        }
        Ok(Opened { frame, header, payload: json.end, times: parts.times })
    }

    /// The parts of a sealed frame, and its key, if that is the one that was used last.
    #[inline(always)]
    fn parse<'f>(&self, sealed: &'f [u8]) -> Result<(Option<Arc<SealingKey>>, Sealed<'f>)> {
        let mut key = None;
        let parts = Sealed::parse_after(sealed, |json| {
            key = self.last_sealing_key(json);
            key.as_ref().map_or(0, |key| key.template.start().len())
        })?;
        Ok((key, parts))
    }

    #[inline(always)]
    fn open_parts(&self, tenant: &str, name: &Name, key: &SealingKey, parts: &Sealed<'_>) -> Result<FrameBuf> {
        if *key.tenant != *tenant {
            let (expected, found) = (format!("an entry of tenant {tenant:?}"), format!("{:?}", key.tenant));
            return Err(refused(Refusal::WrongEntry, expected, found));
        }
        if *parts.check != key.check {
            return Err(refused(Refusal::WrongKey, "the key that key id, tenant and salt name", "another one"));
        }
        if !is_hex_of(parts.name, name.as_bytes()) {
            return Err(refused(Refusal::WrongEntry, "the name that was asked for", "an entry of another name"));
        }
        let associated = key.template.associated(name, parts.header);
        let length = parts.data.len();
        // SAFETY: opening writes all bytes of `room`, or fails.
        #[allow(unsafe_code)]
        let plain = unsafe {
            FrameBuf::filled(length, true, |room| {
                let room = std::slice::from_raw_parts_mut(room.as_ptr(), length);
                match key.cipher.open(*parts.nonce, associated.bytes(), parts.data, parts.tag, room) {
                    Ok(()) => Ok(0..length),
                    Err(_) => {
                        let expected = "header and payload as they were sealed";
                        Err(refused(Refusal::Changed, expected, "a tag that is not theirs"))
                    }
                }
            })?
        };
        self.count_opened(key);
        Ok(plain.copied())
    }
}
