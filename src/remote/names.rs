//! Under which names an engine has what belongs to a namespace.

use crate::error::Result;
use crate::key::Namespace;

/// Bytes of a key's hash that its names have.
const KEY: usize = 20;

/// The names of one namespace.
///
/// ```
/// # use framecache::remote::Names;
/// let names = Names::new("")?;
/// assert!(names.entry("greeting")?.ends_with(":{f454281569de1efce41a86745de3a3029b768527}"));
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Names {
    namespace: Namespace,
    prefix: String,
    generation: String,
}

impl Names {
    /// Those of `namespace`.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for one of more than [`crate::key::MAX_NAMESPACE`] bytes.
    pub fn new(namespace: &str) -> Result<Self> {
        let namespace = Namespace::new(namespace)?;
        let mut prefix = String::with_capacity(36);
        prefix.push_str("fc:");
        push_hex(&mut prefix, namespace.hash());
        prefix.push(':');
        Ok(Self { generation: format!("{prefix}g"), namespace, prefix })
    }

    /// What the names of entries and stamps begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Of the stamp of the namespace.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Of the entry of a key.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a key of more than [`crate::key::MAX_KEY`] bytes.
    pub fn entry(&self, key: &str) -> Result<String> {
        self.of_key(&self.prefix, key)
    }

    /// Of what is removed when a key is written or removed.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn fence(&self, key: &str) -> Result<String> {
        self.of_key(&format!("fcf:{}", &self.prefix[3..]), key)
    }

    /// Of the lease of a key.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn lease(&self, key: &str) -> Result<String> {
        self.of_key(&format!("fcl:{}", &self.prefix[3..]), key)
    }

    /// The hash of a tag.
    pub fn tag(&self, tag: &str) -> [u8; 16] {
        self.namespace.hash_of_tag(tag)
    }

    /// Of the stamp of a tag.
    pub fn stamp(&self, tag: &[u8; 16]) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 36);
        name.push_str(&self.prefix);
        name.push_str("t:{");
        push_hex(&mut name, tag);
        name.push('}');
        name
    }

    /// Appends the name of the entry of a key.
    pub(super) fn push_entry(&self, text: &mut String, key: &str) -> Result<()> {
        self.push_of_key(text, &self.prefix, key)
    }

    fn of_key(&self, start: &str, key: &str) -> Result<String> {
        let mut name = String::with_capacity(start.len() + 2 * KEY + 2);
        self.push_of_key(&mut name, start, key)?;
        Ok(name)
    }

    fn push_of_key(&self, text: &mut String, start: &str, key: &str) -> Result<()> {
        let hash = self.namespace.name_of(key)?;
        text.push_str(start);
        text.push('{');
        push_hex(text, hash.as_bytes().first_chunk::<KEY>().unwrap_or(&[0; KEY]));
        text.push('}');
        Ok(())
    }
}

/// The digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    let (digits, mut table, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[allow(unsafe_code)]
fn push_hex<const N: usize>(text: &mut String, bytes: &[u8; N]) {
    let digits = bytes.map(|byte| DIGITS[usize::from(byte)]);
    // SAFETY: digits are ASCII.
    text.push_str(unsafe { std::str::from_utf8_unchecked(digits.as_flattened()) });
}
