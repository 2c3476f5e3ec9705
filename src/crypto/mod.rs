//! Sealed frames: AES-256-GCM under keys that rotate, bound to what an entry is and where it belongs.
//!
//! A [`Keyring`] holds master keys. From the current one, a tenant and a random salt it derives the key that
//! [seals](Keyring::seal) a frame: the whole frame becomes the payload of a sealed one, whose header shows only what a
//! reader needs to find the key and a tier to serve the entry. [Opening](Keyring::open) selects the master key by the key
//! id in that header, exactly, and refuses with a [reason](crate::error::Refusal) whatever is not the entry that was asked for, as it
//! was sealed. `proto-docs/encryption.md` specifies all of it, byte by byte, and says what a hostile store can do.
//!
//! ```
//! use framecache::crypto::{Keyring, MasterKey, Times};
//! use framecache::frame::{self, Header};
//! let keyring = Keyring::new(MasterKey::from_bytes(&[7; 32])?, Vec::new())?;
//! let inner = frame::build(Header::new("raw"), b"personal".as_slice())?;
//! let name = keyring.name("default", "users:42")?;
//! let sealed = keyring.seal("default", &name, &inner, Times::default())?;
//! assert_eq!(keyring.open("default", &name, &sealed)?[..], inner[..]);
//! let elsewhere = keyring.name("default", "users:43")?;
//! assert!(keyring.open("default", &elsewhere, &sealed).is_err());
//! # Ok::<(), framecache::Error>(())
//! ```

mod aead;
pub mod cachekit;
mod digits;
mod header;
mod keyring;
mod keys;
mod open;
mod seal;
mod secret;
mod stream;

pub use header::{CODEC, OVERHEAD, Times};
pub use keyring::{Keyring, Statistics};
pub use keys::{KeyId, MasterKey};
pub use open::Opened;
pub use seal::{MAX_PLAINTEXT, Packing};
pub use stream::{Part, STREAM_CODEC, STREAM_TAG, StreamKey};
