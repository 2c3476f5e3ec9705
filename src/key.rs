//! From a key to its name.
//!
//! The key is what the user caches under. The name is its hash, the only thing a tier sees in a file name; the key
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
        if key.len() > MAX_KEY {
            return Err(Error::Argument {
                argument: "key",
                expected: format!("at most {MAX_KEY} bytes of UTF-8").into(),
                found: format!("{} bytes", key.len()),
            });
        }
        Ok(Self(*blake3::hash(key.as_bytes()).as_bytes()))
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
