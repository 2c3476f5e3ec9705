//! From a key to its name.
//!
//! The key is what the user caches under. The name is its hash (keyed, where entries are sealed), the only thing a tier sees in a file name; the key
//! itself stands in the entry and is compared on every read.

use crate::error::{Error, Result};
use std::fmt::Write;

/// The longest key, in bytes of UTF-8: it must leave room in a header of 1 MiB.
pub const MAX_KEY: usize = 64 * 1024;

/// The name of a key: BLAKE3-256 of its UTF-8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name([u8; 32]);

impl Name {
    /// The name of `key`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key of more than [`MAX_KEY`] bytes.
    ///
    /// ```
    /// # use framecache::key::Name;
    /// let name = Name::of("users:42")?;
    /// assert_eq!(name.to_hex().len(), 64);
    /// # Ok::<(), framecache::Error>(())
    /// ```
    pub fn of(key: &str) -> Result<Self> {
        check_length("key", key)?;
        Ok(Self(*blake3::hash(key.as_bytes()).as_bytes()))
    }

    /// The name of `key` for those who have `secret`: keyed BLAKE3-256.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn keyed(secret: &[u8; 32], key: &str) -> Result<Self> {
        check_length("key", key)?;
        Ok(Self(*blake3::keyed_hash(secret, key.as_bytes()).as_bytes()))
    }

    /// As [`Self::keyed`], of a tag: the hash begins with the byte 255, which no key does.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn keyed_tag(secret: &[u8; 32], tag: &str) -> Result<Self> {
        check_length("tag", tag)?;
        let hash = blake3::Hasher::new_keyed(secret).update(&[0xff]).update(tag.as_bytes()).finalize();
        Ok(Self(*hash.as_bytes()))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl From<[u8; 32]> for Name {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

fn check_length(argument: &'static str, text: &str) -> Result<()> {
    if text.len() > MAX_KEY {
        let found = format!("{} bytes", text.len());
        return Err(Error::Argument { argument, expected: format!("at most {MAX_KEY} bytes of UTF-8").into(), found });
    }
    Ok(())
}
