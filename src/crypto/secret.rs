//! Memory for keys: pages of its own, left out of core dumps, wiped before they go.
#![allow(unsafe_code)]

use crate::buffer::pool::wipe;
use crate::error::{Error, Result};
use std::fmt;
use std::ptr::{self, NonNull};

/// So many bytes that no log, dump or debug form shows.
pub(super) struct Secret {
    start: NonNull<u8>,
    len: usize,
    /// Bytes that were mapped.
    room: usize,
}

// SAFETY: the pages are owned by this value alone.
unsafe impl Send for Secret {}
// SAFETY: shared references only read.
unsafe impl Sync for Secret {}

impl Secret {
    /// `len` bytes, at least one, that `fill` writes; zeros before.
    pub(super) fn new(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let mut secret = Self { start: map(len)?, len, room: len };
        fill(secret.bytes_mut());
        Ok(secret)
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Result<Self> {
        Self::new(bytes.len(), |secret| secret.copy_from_slice(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: a mapping of `len` bytes, initialized, and freed by `drop` alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Keeps bytes `start..end` and wipes the others.
    pub(super) fn keep(&mut self, start: usize, end: usize) {
        self.bytes_mut().copy_within(start..end, 0);
        let len = end - start;
        // SAFETY: a part of the mapping.
        unsafe { wipe(self.start.add(len), self.len - len) };
        self.len = len;
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and not used afterwards.
        unsafe {
            wipe(self.start, self.room);
            unmap(self.start, self.room);
        }
    }
}

/// Overwrites what functions that have returned left on this thread's stack: expanded keys, hash states.
#[inline(never)]
pub(super) fn wipe_stack() {
    let mut dead = [0_u8; 8192];
    zeroize::Zeroize::zeroize(&mut dead[..]);
    std::hint::black_box(&mut dead);
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len)
    }
}

#[cfg(target_os = "linux")]
fn map(len: usize) -> Result<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    let failed = |_| Error::Memory { bytes: len };
    // SAFETY: a new mapping, at an address that the system chooses.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    let start = start.map_err(failed)?;
    // SAFETY: the mapping is this function's own. Where it cannot be left out of dumps, it is a secret all the same.
    let _ = unsafe { madvise(start, len, Advice::LinuxDontDump) };
    NonNull::new(start.cast()).ok_or(Error::Memory { bytes: len })
}

/// # Safety
/// `start` is what `map` gave for `len`, and is not used afterwards.
#[cfg(target_os = "linux")]
unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's guarantee. It fails only for what is no mapping.
    let _ = unsafe { rustix::mm::munmap(start.as_ptr().cast(), len) };
}

#[cfg(not(target_os = "linux"))]
compile_error!("framecache keeps keys in pages that Linux leaves out of core dumps");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_kept_and_the_rest_wiped() {
        let mut secret = Secret::copy_of(b"  key  ").expect("memory");
        secret.keep(2, 5);
        assert_eq!(secret.bytes(), b"key");
        // SAFETY: the first 7 bytes of the mapping are initialized.
        let all = unsafe { std::slice::from_raw_parts(secret.start.as_ptr(), 7) };
        assert_eq!(all, b"key\0\0\0\0");
        assert_eq!(format!("{secret:?}"), "Secret(3 bytes)");
    }
}
