//! Opening: from a sealed frame to the frame inside, or the reason why not.

use super::Keyring;
use super::aead::Aead;
use super::header::{Sealed, Times, append_header, hex, start_associated};
use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::error::{Error, Refusal, Result, Text};
use crate::frame::{self, Header};
use crate::key::Name;

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
    pub fn open(&self, tenant: &str, name: &Name, sealed: &[u8]) -> Result<FrameBuf> {
        let opened = Sealed::parse(sealed).and_then(|parts| self.open_parts(tenant, name, &parts));
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

    fn open_by_key(&self, tenant: &str, key: &str, sealed: &[u8]) -> Result<Opened> {
        let parts = Sealed::parse(sealed)?;
        let name = self.name_under(parts.key_id, tenant, key)?;
        let frame = self.open_parts(tenant, &name, &parts)?;
        let json = frame::locate_header(&frame)?;
        let header = Header::parse(&frame[json.clone()])?;
        if header.key.as_deref() != Some(key) {
            return Err(refused(Refusal::WrongEntry, "the key that was asked for inside", "another one"));
        }
        Ok(Opened { frame, header, payload: json.end, times: parts.times })
    }

    fn open_parts(&self, tenant: &str, name: &Name, parts: &Sealed<'_>) -> Result<FrameBuf> {
        let key = self.key_of(parts.start, parts.key_id, parts.salt, parts.tenant)?;
        if parts.tenant != tenant {
            return Err(refused(
                Refusal::WrongEntry,
                format!("an entry of tenant {tenant:?}"),
                format!("{:?}", parts.tenant),
            ));
        }
        if *parts.check != key.check {
            return Err(refused(Refusal::WrongKey, "the key that key id, tenant and salt name", "another one"));
        }
        if *parts.name != hex::<32, 64>(name.as_bytes()) {
            return Err(refused(Refusal::WrongEntry, "the name that was asked for", "an entry of another name"));
        }
        let mut associated = start_associated(tenant, name);
        append_header(&mut associated, |out| {
            out.extend_from_slice(parts.header);
            Ok(())
        })?;
        let mut plain = AlignedBuf::stale_plaintext(parts.data.len())?;
        let opened = key.cipher.open(*parts.nonce, &associated, parts.data, parts.tag, plain.as_mut_slice());
        if opened.is_err() {
            let expected = "header and payload as they were sealed";
            return Err(refused(Refusal::Changed, expected, "a tag that is not theirs"));
        }
        self.count_opened(&key);
        Ok(FrameBuf::from_aligned(plain, Origin::Trusted).copied())
    }
}
