//! Forks: how many lie between this process and the one that first asked, and what a child does without.
//!
//! A child inherits memory, not threads: locks may be held for ever, and what other processes know of us (reader slots,
//! process ids) is the parent's. So nothing inherited is used, dropped or locked: a [`ForkLocal`] abandons the parent's
//! value and makes the child its own. Processes made by raw `clone` are not seen.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Descriptors that a child closes at once; -1 where there is none.
static CLOSED: [AtomicI32; 256] = [const { AtomicI32::new(-1) }; 256];

/// How many forks lie between this process and the one that called [`watch`] first.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Starts counting forks.
pub(crate) fn watch() {
    if !WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler only uses atomics and `close`. It fails only for lack of memory; forks are then not seen,
        // as in a process that never asked.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for slot in &CLOSED {
        let descriptor = slot.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: the child's copy of a descriptor whose owner is abandoned in the child.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// A descriptor that a forked child closes before anything else: a lock on it ends with its owner.
#[derive(Debug)]
pub(crate) struct ClosedInChild {
    descriptor: Option<OwnedFd>,
    slot: &'static AtomicI32,
}

impl ClosedInChild {
    /// `None` where 256 of them exist.
    pub(crate) fn new(descriptor: OwnedFd) -> Option<Self> {
        watch();
        let raw = descriptor.as_raw_fd();
        let free = |slot: &&AtomicI32| slot.compare_exchange(-1, raw, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        CLOSED.iter().find(free).map(|slot| Self { descriptor: Some(descriptor), slot })
    }

    /// The descriptor; in a child that inherited it there is none any more.
    pub(crate) fn get(&self) -> Option<&OwnedFd> {
        self.descriptor.as_ref()
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            let ours = self.slot.compare_exchange(descriptor.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
            if ours.is_err() {
                // Closed by the fork.
                std::mem::forget(descriptor);
            }
        }
    }
}

/// A value that each process makes for itself when it first needs it.
#[derive(Debug)]
pub(crate) struct ForkLocal<T>(AtomicPtr<Made<T>>);

#[derive(Debug)]
struct Made<T> {
    generation: u64,
    value: T,
}

impl<T: Send + Sync> ForkLocal<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// This process's value, if it made one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: null or made below; freed by `drop` alone. An inherited one is not read beyond its generation.
        let made = unsafe { self.0.load(Ordering::Acquire).as_ref() }?;
        (made.generation == generation()).then_some(&made.value)
    }

    /// This process's value; `make` makes it. Of several threads that make one at a time, one wins.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get_or_try_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        watch();
        let stale = self.0.load(Ordering::Acquire);
        let made = Box::into_raw(Box::new(Made { generation: generation(), value: make()? }));
        // SAFETY: both pointers come from boxes, and whoever is in the cell stays until `drop`. An inherited value is
        // leaked: nothing of it may be touched.
        unsafe {
            match self.0.compare_exchange(stale, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => Ok(&(*made).value),
                Err(winner) => {
                    drop(Box::from_raw(made));
                    Ok(&(*winner).value)
                }
            }
        }
    }
}

impl<T> Drop for ForkLocal<T> {
    fn drop(&mut self) {
        let made = *self.0.get_mut();
        // SAFETY: null or from a box, not used any more; an inherited value is left alone.
        unsafe {
            if made.as_ref().is_some_and(|made| made.generation == generation()) {
                drop(Box::from_raw(made));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn a_value_is_made_once() {
        let cell = ForkLocal::new();
        assert_eq!(cell.get(), None);
        let first = *cell.get_or_try_make(|| Ok::<_, Infallible>(1)).unwrap();
        let second = *cell.get_or_try_make(|| Err("it is made")).unwrap();
        assert_eq!((first, second, cell.get()), (1, 1, Some(&1)));
    }

    #[test]
    fn a_value_that_cannot_be_made_is_made_later() {
        let cell = ForkLocal::new();
        assert_eq!(cell.get_or_try_make(|| Err::<i32, _>("no")), Err("no"));
        assert_eq!(cell.get_or_try_make(|| Ok::<_, &str>(2)), Ok(&2));
    }
}
