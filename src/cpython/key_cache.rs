//! One `str` for all equal keys of maps.
#![allow(unsafe_code)]

use super::Owned;
use super::new_str::{Invalid, new_str};
use super::text::{Text, same_short};
use pyo3::ffi;
use std::ptr::NonNull;

/// The longest key that is shared, in bytes of UTF-8.
pub(crate) const MAX_KEY: usize = 64;
/// Slots, each for one key: at most this many strings are kept alive.
const SLOTS: usize = 2048;

/// Keys seen before, as `str` objects with their hash: direct mapped, a new key replaces the one in its slot.
///
/// Equal hashes are never enough: a hit has compared all bytes. Who chooses the keys can make them evict each other, and
/// nothing else; what stays is at most 2048 strings of at most 64 bytes, for as long as the interpreter lives.
pub(crate) struct KeyCache(Box<[Slot; SLOTS]>);

#[derive(Clone, Copy)]
struct Slot {
    /// A reference of the cache's own.
    key: Option<NonNull<ffi::PyObject>>,
    /// Where the UTF-8 of `key` stands inside it, if it is ASCII; null if it is not.
    ascii: *const u8,
    len: usize,
}

impl KeyCache {
    /// Calls `work` with the cache of this interpreter, made on first use.
    ///
    /// # Safety
    /// Attached; `work` runs no Python code and does not call this again.
    #[inline]
    pub(crate) unsafe fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        static mut CACHE: Option<KeyCache> = None;
        let cache = &raw mut CACHE;
        // SAFETY: only holders of the GIL come here, one at a time since nothing lets go of it; never again inside.
        work(unsafe { (*cache).get_or_insert_with(Self::new) })
    }

    #[cold]
    fn new() -> Self {
        let empty = Slot { key: None, ascii: std::ptr::null(), len: 0 };
        Self(Box::new([empty; SLOTS]))
    }

    /// The `str` of `bytes`, which are at most [`MAX_KEY`] long: a shared one, or a new one that is shared from now on.
    ///
    /// # Errors
    /// As [`new_str`].
    ///
    /// # Safety
    /// Attached.
    #[inline]
    pub(crate) unsafe fn get(&mut self, bytes: &[u8]) -> Result<Owned, Invalid> {
        let slot = &mut self.0[hash(bytes) as usize % SLOTS];
        if slot.len == bytes.len()
            && let Some(key) = slot.key
        {
            // SAFETY: the slot's reference keeps the str, whose data does not move or change.
            let equal = unsafe {
                if slot.ascii.is_null() { Text::of(key.as_ptr()).is_utf8(bytes) } else { same_short(slot.ascii, bytes) }
            };
            if equal {
                // SAFETY: alive, see above.
                return Ok(unsafe { Owned::borrowed(key) });
            }
        }
        // SAFETY: attached.
        unsafe { slot.replace(bytes) }
    }
}

impl Slot {
    /// # Safety
    /// Attached.
    #[cold]
    unsafe fn replace(&mut self, bytes: &[u8]) -> Result<Owned, Invalid> {
        // SAFETY: attached; a str's hash runs no Python code and stays in it; dropping an exact str runs none either.
        unsafe {
            let key = new_str(bytes)?;
            if ffi::PyObject_Hash(key.as_ptr()) == -1 {
                return Err(Invalid::Memory);
            }
            let ascii = match Text::of(key.as_ptr()) {
                Text::Utf8(data) => data.as_ptr(),
                _ => std::ptr::null(),
            };
            let kept = NonNull::new(Owned::borrowed(NonNull::new_unchecked(key.as_ptr())).into_ptr());
            let old = std::mem::replace(self, Self { key: kept, ascii, len: bytes.len() });
            drop(old.key.and_then(|old| Owned::new(old.as_ptr())));
            Ok(key)
        }
    }
}

/// Of the first and the last eight bytes and the length: one multiplication.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            _ => match bytes {
                [] => (0, 0),
                [first, .., last] => (u64::from(*first) | u64::from(bytes[len / 2]) << 8, (*last).into()),
                [only] => ((*only).into(), 0),
            },
        },
    };
    let mixed =
        u128::from(first ^ 0x9e37_79b9_7f4a_7c15) * u128::from(last ^ (len as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
    (mixed as u64) ^ (mixed >> 64) as u64
}
