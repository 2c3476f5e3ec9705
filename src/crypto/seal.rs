//! Sealing: a whole frame becomes the payload of a sealed one.

use super::Keyring;
use super::aead::{Aead, NONCE, TAG};
use super::header::{BEFORE, Times, check_tenant, lead, room_for};
use crate::buffer::{ALIGN, AlignedBuf, FrameBuf, Origin};
use crate::compress::Compression;
use crate::error::{Error, Result};
use crate::frame::{Draft, Header, MAX_VALUE, Packed, Payload, pack_in};
use crate::key::Name;
use crate::random;

/// The most bytes that are sealed at once, which AES-GCM limits: 2^36 - 32. Larger values go through streams.
pub const MAX_PLAINTEXT: usize = (1 << 36) - 32;

/// What is done with a payload before it is sealed, and how large it may be.
///
/// Whoever sees a sealed frame sees its size, and so how well the payload was compressed, which says something of what is
/// in it; where somebody else has a say in a part of the payload, the size of many can tell the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// How it is compressed.
    pub compression: Compression,
    /// Its most bytes, before that.
    pub max_value: usize,
}

impl Default for Packing {
    /// Not compressed, up to [`MAX_VALUE`].
    fn default() -> Self {
        Self { compression: Compression::None, max_value: MAX_VALUE }
    }
}

impl Keyring {
    /// A sealed copy of `inner`, a whole frame, for the entry that the tenant has under `name`. Its bytes are read once.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than [`MAX_PLAINTEXT`] bytes, [`Error::Argument`] for a tenant that cannot stand in a
    /// header, [`Error::Memory`], [`Error::Io`] where the system gives no random bytes.
    #[inline(always)]
    pub fn seal(&self, tenant: &str, name: &Name, inner: &[u8], times: Times) -> Result<FrameBuf> {
        check_size(inner.len())?;
        let key = self.begin_entry(tenant)?;
        let nonce = random::bytes::<NONCE>()?;
        let start = lead(tenant);
        let before = start + room_for(tenant);
        let size = before.saturating_add(inner.len() + TAG);
        // SAFETY: all bytes up to the end of the tag are written, or it fails.
        #[allow(unsafe_code)]
        unsafe {
            FrameBuf::filled(size, false, |room| {
                let room = std::slice::from_raw_parts_mut(room.as_ptr(), size);
                let (before, associated) = key.template.write(&mut room[..before], name, inner.len(), times, ALIGN);
                let (before, rest) = room.split_at_mut(before);
                let (data, tag) = rest.split_at_mut(inner.len());
                put_key_and_nonce(before, &key.check, &nonce);
                let made = key.cipher.seal_to(nonce, &before[associated], inner, data).map_err(too_long(inner))?;
                tag[..TAG].copy_from_slice(&made);
                Ok(start..before.len() + inner.len() + TAG)
            })
        }
    }

    /// Starts a frame that [`Self::seal_draft`] will seal where it stands, in memory for plaintext.
    ///
    /// # Errors
    /// As [`Draft::new`], and [`Error::Argument`] for a tenant that cannot stand in a header.
    pub fn draft(&self, tenant: &str, header: Header) -> Result<Draft> {
        self.draft_for(tenant, header, 0)
    }

    fn draft_for(&self, tenant: &str, header: Header, payload: usize) -> Result<Draft> {
        const INNER_HEADER: usize = 1024;
        check_tenant(tenant)?;
        let room = lead(tenant) + room_for(tenant);
        let mut buffer = AlignedBuf::plaintext(payload.saturating_add(room + INNER_HEADER + TAG))?;
        buffer.extend_zeroed(room)?;
        Draft::after(buffer, header)
    }

    /// Seals a [draft](Self::draft) of the same tenant in place, for the entry that it has under `name`.
    ///
    /// # Errors
    /// As [`Self::seal`], and [`Error::Argument`] for a draft of another tenant.
    pub fn seal_draft(&self, tenant: &str, name: &Name, draft: Draft, times: Times) -> Result<FrameBuf> {
        let start = lead(tenant);
        let room = start + room_for(tenant);
        if draft.start() != room {
            let found = format!("one with {} bytes before it", draft.start());
            return Err(Error::Argument { argument: "draft", expected: "a draft of this tenant".into(), found });
        }
        let mut buffer = draft.complete()?;
        let length = buffer.len() - room;
        check_size(length)?;
        let key = self.begin_entry(tenant)?;
        let nonce = random::bytes::<NONCE>()?;
        buffer.reserve(TAG)?;
        let (before, inner) = buffer.as_mut_slice().split_at_mut(room);
        // The header fills the room that was left for it.
        let (_, associated) = key.template.write(before, name, length, times, room - start);
        put_key_and_nonce(before, &key.check, &nonce);
        let tag = key.cipher.seal(nonce, &before[associated], inner).map_err(too_long(inner))?;
        buffer.extend_from_slice(&tag)?;
        buffer.set_sealed();
        Ok(FrameBuf::from_aligned_at(buffer, start, Origin::Trusted))
    }

    /// Seals the entry of `key`: a frame of `header`, with the key in it, and `payload`, which is copied once. Returns its
    /// name too.
    ///
    /// # Errors
    /// As [`Self::seal`], and those of the payload.
    pub fn seal_entry(
        &self,
        tenant: &str,
        key: &str,
        header: Header,
        payload: &(impl Payload + ?Sized),
        times: Times,
    ) -> Result<(Name, FrameBuf)> {
        let name = self.name(tenant, key)?;
        check_size(payload.length())?;
        let header = Header { key: Some(key.to_owned()), ..header };
        Ok((name, self.seal_named(tenant, &name, header, payload, times)?))
    }

    /// As [`Self::seal_entry`], of a payload that is packed before; it is compressed into memory that is wiped.
    ///
    /// # Errors
    /// As [`Self::seal_entry`], [`Error::TooLarge`] for a payload of more than `max_value`.
    pub fn seal_packed(
        &self,
        tenant: &str,
        key: &str,
        header: Header,
        payload: &(impl Payload + ?Sized),
        packing: Packing,
        times: Times,
    ) -> Result<(Name, FrameBuf)> {
        let Packing { compression, max_value } = packing;
        let (header, packed) = pack_in(header, payload, compression, max_value, AlignedBuf::stale_plaintext)?;
        self.seal_entry(tenant, key, header, &packed, times)
    }

    /// As [`Self::seal_draft`], of a payload that is packed before: it stays where it stands unless that makes it smaller.
    ///
    /// # Errors
    /// As [`Self::seal_draft`], [`Error::TooLarge`] for a payload of more than `max_value`.
    pub fn seal_packed_draft(
        &self,
        tenant: &str,
        name: &Name,
        draft: Draft,
        packing: Packing,
        times: Times,
    ) -> Result<FrameBuf> {
        let Packing { compression, max_value } = packing;
        let (header, payload) = (draft.header.clone(), draft.payload());
        match pack_in(header, payload, compression, max_value, AlignedBuf::stale_plaintext)? {
            (_, Packed::Plain(_)) => self.seal_draft(tenant, name, draft, times),
            (header, packed) => self.seal_named(tenant, name, header, &packed, times),
        }
    }

    fn seal_named(
        &self,
        tenant: &str,
        name: &Name,
        header: Header,
        payload: &(impl Payload + ?Sized),
        times: Times,
    ) -> Result<FrameBuf> {
        let mut draft = self.draft_for(tenant, header, payload.length())?;
        payload.write_to(&mut draft.buffer)?;
        self.seal_draft(tenant, name, draft, times)
    }
}

/// Puts what stands between header and ciphertext at the end of what stands before the latter.
fn put_key_and_nonce(before: &mut [u8], check: &[u8; BEFORE - NONCE], nonce: &[u8; NONCE]) {
    let start = before.len() - BEFORE;
    before[start..start + BEFORE - NONCE].copy_from_slice(check);
    before[start + BEFORE - NONCE..].copy_from_slice(nonce);
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes > MAX_PLAINTEXT {
        return Err(Error::TooLarge {
            place: "sealed value (larger ones go through streams)",
            bytes,
            limit: MAX_PLAINTEXT,
        });
    }
    Ok(())
}

/// The one failure that AES-GCM has when it seals; sizes were checked before.
fn too_long(plain: &[u8]) -> impl Fn(super::aead::Failed) -> Error {
    let bytes = plain.len();
    move |_| Error::TooLarge { place: "sealed value", bytes, limit: MAX_PLAINTEXT }
}
