//! By AWS-LC, with AES and vector instructions chosen at run time; it wipes a key's memory when it frees it.

use super::{Aead, Failed, KEY, NONCE, TAG};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;

pub(in crate::crypto) struct AwsLc(LessSafeKey);

impl From<Unspecified> for Failed {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl Aead for AwsLc {
    fn new(key: &[u8; KEY]) -> Result<Self, Failed> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?)))
    }

    fn seal(&self, nonce: [u8; NONCE], associated: &[u8], data: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), data)?;
        tag.as_ref().try_into().map_err(|_| Failed)
    }

    fn seal_to(
        &self,
        nonce: [u8; NONCE],
        associated: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<[u8; TAG], Failed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut tag = [0; TAG];
        self.0.seal_out_of_place_scatter(nonce, Aad::from(associated), plain, out, &[], &mut tag)?;
        Ok(tag)
    }

    fn open(
        &self,
        nonce: [u8; NONCE],
        associated: &[u8],
        data: &[u8],
        tag: &[u8; TAG],
        out: &mut [u8],
    ) -> Result<(), Failed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        Ok(self.0.open_separate_gather(nonce, Aad::from(associated), data, tag, out)?)
    }
}
