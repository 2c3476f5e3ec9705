//! By the crate `aes-gcm`, which needs no C compiler; it wipes keys that are dropped.

use super::{Aead, Failed, KEY, NONCE, TAG};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};

pub(in crate::crypto) struct Portable(Box<Aes256Gcm>);

impl Aead for Portable {
    fn new(key: &[u8; KEY]) -> Result<Self, Failed> {
        Ok(Self(Box::new(Aes256Gcm::new(key.into()))))
    }

    fn seal(&self, nonce: [u8; NONCE], associated: &[u8], data: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let tag = self.0.encrypt_inout_detached(&nonce.into(), associated, data.into());
        tag.map(Into::into).map_err(|_| Failed)
    }

    fn seal_to(
        &self,
        nonce: [u8; NONCE],
        associated: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<[u8; TAG], Failed> {
        let data = InOutBuf::new(plain, out).map_err(|_| Failed)?;
        let tag = self.0.encrypt_inout_detached(&nonce.into(), associated, data);
        tag.map(Into::into).map_err(|_| Failed)
    }

    fn open(
        &self,
        nonce: [u8; NONCE],
        associated: &[u8],
        data: &[u8],
        tag: &[u8; TAG],
        out: &mut [u8],
    ) -> Result<(), Failed> {
        let data = InOutBuf::new(data, out).map_err(|_| Failed)?;
        self.0.decrypt_inout_detached(&nonce.into(), associated, data, tag.into()).map_err(|_| Failed)
    }
}
