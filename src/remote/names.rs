//! Under which names an engine has what belongs to a namespace.

use crate::error::Result;
use crate::key::Namespace;
use std::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

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
#[derive(Debug)]
pub struct Names {
    namespace: Namespace,
    hot: Hot,
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
        Ok(Self { generation: format!("{prefix}g"), hot: Hot::default(), namespace, prefix })
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
        let digits = self.hot.digits_of(key, || {
            let name = self.namespace.name_of(key)?;
            Ok(hex(name.as_bytes().first_chunk::<KEY>().unwrap_or(&[0; KEY])))
        })?;
        text.push_str(start);
        text.push('{');
        push_digits(text, &digits);
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

fn hex<const N: usize>(bytes: &[u8; N]) -> [[u8; 2]; N] {
    bytes.map(|byte| DIGITS[usize::from(byte)])
}

fn push_hex<const N: usize>(text: &mut String, bytes: &[u8; N]) {
    push_digits(text, &hex(bytes));
}

fn push_digits(text: &mut String, digits: &[[u8; 2]]) {
    // Always text: digits are ASCII.
    text.push_str(std::str::from_utf8(digits.as_flattened()).unwrap_or_default());
}

/// How many keys' names are kept at hand, and how long these keys are at most.
const PLACES: usize = 1024;
const LONGEST: usize = 128;

/// The digits of keys that were asked for lately: a key has one place. Hot keys are hashed once.
#[derive(Debug, Default)]
struct Hot(Mutex<Vec<Option<Named>>>);

/// A key, and the digits of its name.
type Named = (Box<str>, [[u8; 2]; KEY]);

impl Hot {
    fn digits_of(&self, key: &str, make: impl FnOnce() -> Result<[[u8; 2]; KEY]>) -> Result<[[u8; 2]; KEY]> {
        if key.len() > LONGEST {
            return make();
        }
        let place = xxh3_64(key.as_bytes()) as usize % PLACES;
        // Whoever finds it locked hashes.
        if let Ok(places) = self.0.try_lock()
            && let Some(Some((known, digits))) = places.get(place)
            && **known == *key
        {
            return Ok(*digits);
        }
        let digits = make()?;
        let named = (Box::from(key), digits);
        let replaced = self.0.try_lock().ok().and_then(|mut places| {
            if places.is_empty() {
                places.resize_with(PLACES, || None);
            }
            places[place].replace(named)
        });
        // Dropped here, after the lock is released.
        drop(replaced);
        Ok(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_often_and_beside_whom_it_is_asked_for() {
        let names = Names::new("n").expect("short");
        let keys: Vec<String> = (0..5 * PLACES).map(|number| format!("key:{number}")).collect();
        let first: Vec<_> = keys.iter().map(|key| names.entry(key).expect("short")).collect();
        let again: Vec<_> = keys.iter().rev().map(|key| names.entry(key).expect("short")).collect();
        assert!(first.iter().eq(again.iter().rev()));
        for (key, name) in keys.iter().zip(&first) {
            let hash = names.namespace.name_of(key).expect("short").to_hex();
            assert_eq!(*name, format!("{}{{{}}}", names.prefix(), &hash[..2 * KEY]));
        }
        let long = "k".repeat(LONGEST + 1);
        assert_eq!(names.entry(&long).expect("short"), names.entry(&long).expect("short"));
    }
}
