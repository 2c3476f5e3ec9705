//! From a key to its name.
//!
//! The key is what the user caches under. The name is its hash (keyed, where entries are sealed), the only thing a tier sees in a file name; the key
//! itself stands in the entry and is compared on every read.

mod short;

use crate::error::{Error, Result};
use short::{Block, LANES, Mode};
use std::fmt::Write;

/// The longest key, in bytes of UTF-8: it must leave room in a header of 1 MiB.
pub const MAX_KEY: usize = 64 * 1024;

/// The longest namespace, in bytes of UTF-8.
pub const MAX_NAMESPACE: usize = 1024;

/// What names of namespaced keys are derived in, apart from those of keys without a namespace.
const NAMESPACED: &str = "framecache 2026 key in a namespace";
/// What hashes of namespaces and tags are derived in.
const TAGGED: &str = "framecache 2026 tag in a namespace";

/// The name of a key: BLAKE3-256 of its UTF-8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name([u8; 32]);

impl Name {
    /// The name of `key` for those who have `secret`: keyed BLAKE3-256.
    ///
    /// # Errors
    /// As [`Namespace::name_of`].
    pub fn keyed(secret: &[u8; 32], key: &str) -> Result<Self> {
        check_length("key", key, MAX_KEY)?;
        Ok(Self(*blake3::keyed_hash(secret, key.as_bytes()).as_bytes()))
    }

    /// As [`Self::keyed`], of a tag: the hash begins with the byte 255, which no key does.
    ///
    /// # Errors
    /// As [`Namespace::name_of`].
    pub fn keyed_tag(secret: &[u8; 32], tag: &str) -> Result<Self> {
        check_length("tag", tag, MAX_KEY)?;
        let hash = blake3::Hasher::new_keyed(secret).update(&[0xff]).update(tag.as_bytes()).finalize();
        Ok(Self(*hash.as_bytes()))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Keys that are apart from those of other namespaces.
///
/// ```
/// # use framecache::key::Namespace;
/// let (none, users) = (Namespace::new("")?, Namespace::new("users")?);
/// assert_ne!(none.name_of("42")?, users.name_of("42")?);
/// assert!(none.name_of("greeting")?.to_hex().starts_with("f454281569de1efc"));
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Namespace {
    text: String,
    /// After the namespace, where there is one.
    keys: Option<blake3::Hasher>,
    /// How short ones are hashed, and what stands before them.
    mode: Mode,
    prefix: Vec<u8>,
    tags: blake3::Hasher,
    hash: [u8; 16],
}

impl Namespace {
    /// The namespace `text`; the empty one is that of keys without a namespace.
    ///
    /// # Errors
    /// [`Error::Argument`] for one of more than [`MAX_NAMESPACE`] bytes.
    pub fn new(text: &str) -> Result<Self> {
        check_length("namespace", text, MAX_NAMESPACE)?;
        let prefix = [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let start = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(&prefix);
            hasher
        };
        let tags = start(TAGGED);
        let (keys, mode, prefix) = if text.is_empty() {
            (None, Mode::HASH, Vec::new())
        } else {
            (Some(start(NAMESPACED)), Mode::derive_key(NAMESPACED), prefix)
        };
        Ok(Self { text: text.to_owned(), keys, mode, prefix, hash: half(tags.finalize()), tags })
    }

    /// The namespace itself.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of `key`: BLAKE3-256 of its UTF-8 bytes; in a namespace, of that one's length (32 bits, little-endian),
    /// its bytes and the key's, in the mode that derives keys.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key of more than [`MAX_KEY`] bytes.
    pub fn name_of(&self, key: &str) -> Result<Name> {
        check_length("key", key, MAX_KEY)?;
        Ok(Name(
            *match &self.keys {
                None => blake3::hash(key.as_bytes()),
                Some(keys) => keys.clone().update(key.as_bytes()).finalize(),
            }
            .as_bytes(),
        ))
    }

    /// The [names](Self::name_of) of several keys, in their order; those of short ones are made eight at a time.
    ///
    /// # Errors
    /// As [`Self::name_of`].
    pub fn names_of(&self, keys: &[&str]) -> Result<Vec<Name>> {
        let mut names = Vec::with_capacity(keys.len());
        for group in keys.chunks(LANES) {
            match self.short_names(group) {
                Some(found) => names.extend(found.into_iter().take(group.len()).map(Name)),
                None => {
                    for key in group {
                        names.push(self.name_of(key)?);
                    }
                }
            }
        }
        Ok(names)
    }

    /// The names of up to eight keys, if each of them fits into a block and the processor can make them at once.
    fn short_names(&self, keys: &[&str]) -> Option<[[u8; 32]; LANES]> {
        // Two alone take as long.
        if keys.len() < 3 {
            return None;
        }
        let (mut blocks, mut lengths): ([Block; LANES], _) = ([[0; 64]; LANES], [0; LANES]);
        for ((block, length), key) in blocks.iter_mut().zip(&mut lengths).zip(keys) {
            let (prefix, rest) = block.split_at_mut_checked(self.prefix.len())?;
            prefix.copy_from_slice(&self.prefix);
            rest.get_mut(..key.len())?.copy_from_slice(key.as_bytes());
            *length = (self.prefix.len() + key.len()) as u32;
        }
        self.mode.hash(&blocks, &lengths)
    }

    /// The hash of the namespace itself.
    pub fn hash(&self) -> &[u8; 16] {
        &self.hash
    }

    /// The hash of a tag in it.
    pub fn hash_of_tag(&self, tag: &str) -> [u8; 16] {
        half(self.tags.clone().update(b"\0").update(tag.as_bytes()).finalize())
    }
}

fn half(hash: blake3::Hash) -> [u8; 16] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn check_length(argument: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(Error::Argument {
        argument,
        expected: format!("at most {limit} bytes of UTF-8").into(),
        found: format!("{} bytes", text.len()),
    })
}

impl From<[u8; 32]> for Name {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_names_are_those_of_each() {
        let keys: Vec<String> = (0..200).map(|length| "k".repeat(length * 7 % 90)).collect();
        for namespace in ["", "users", &"n".repeat(60), &"n".repeat(100)] {
            let namespace = Namespace::new(namespace).unwrap();
            for count in [0, 1, 2, 3, 8, 9, 200] {
                let keys: Vec<&str> = keys[..count].iter().map(String::as_str).collect();
                let each: Vec<_> = keys.iter().map(|key| namespace.name_of(key).unwrap()).collect();
                assert_eq!(namespace.names_of(&keys).unwrap(), each);
            }
        }
        let long = "k".repeat(MAX_KEY + 1);
        assert!(Namespace::new("").unwrap().names_of(&["", "k", &long]).is_err());
    }
}
