//! Telling a process from the one it was forked from.
//!
//! A fork copies everything: random numbers drawn ahead, salts, locks that another thread held at that moment. What must
//! not be used on both sides is kept with the [`generation`] it was made in, and made anew in another one.
//!
//! The generation stands in a page that the kernel gives to a child as zeros (`MADV_WIPEONFORK`), which holds for every
//! kind of fork; where there is no such page, `pthread_atfork` clears it.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// The current process's generation; null before the first question, then never changed.
static MARK: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The last generation given out, here or in an ancestor.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Stands in for the page where there is none.
static FALLBACK: AtomicU64 = AtomicU64::new(0);

/// Descriptors that a child closes at once; -1 where there is none.
static CLOSED: [AtomicI32; 256] = [const { AtomicI32::new(-1) }; 256];

/// A number that no ancestor of this process had; never 0. Costs two loads.
///
/// ```
/// assert_eq!(framecache::fork::generation(), framecache::fork::generation());
/// ```
pub fn generation() -> u64 {
    if let Some(mark) = NonNull::new(MARK.load(Ordering::Acquire)) {
        // SAFETY: what `MARK` points to is never freed.
        let generation = unsafe { mark.as_ref() }.load(Ordering::Relaxed);
        if generation != 0 {
            return generation;
        }
    }
    renewed()
}

#[cold]
fn renewed() -> u64 {
    let mark = mark();
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match mark.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(other_threads) => other_threads,
    }
}

fn mark() -> &'static AtomicU64 {
    let mark = NonNull::new(MARK.load(Ordering::Acquire)).unwrap_or_else(|| {
        let made = wiped_page().unwrap_or(NonNull::from(&FALLBACK));
        match MARK.compare_exchange(ptr::null_mut(), made.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: the handler only uses atomics and `close`. Without it (no memory), the page alone tells.
                unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
                made
            }
            // Another thread was first; the page of this one stays unused.
            Err(other) => NonNull::new(other).unwrap_or(made),
        }
    });
    // SAFETY: a page that is never unmapped, or a static.
    unsafe { mark.as_ref() }
}

extern "C" fn in_child() {
    if let Some(mark) = NonNull::new(MARK.load(Ordering::Acquire)) {
        // SAFETY: as in `generation`.
        unsafe { mark.as_ref() }.store(0, Ordering::Relaxed);
    }
    for slot in &CLOSED {
        let descriptor = slot.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: the child's copy of a descriptor whose owner is abandoned in the child.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// A page of zeros that is one of zeros again in a forked child.
fn wiped_page() -> Option<NonNull<AtomicU64>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        const PAGE: usize = 4096;
        // SAFETY: a new mapping, at an address that the system chooses.
        let page =
            unsafe { mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let page = page.ok()?;
        // SAFETY: the page is this function's own. Kernels before 4.14 refuse; `in_child` then does it.
        let _ = unsafe { madvise(page, PAGE, Advice::LinuxWipeOnFork) };
        NonNull::new(page.cast())
    }
    #[cfg(not(target_os = "linux"))]
    None
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
        generation();
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

/// A value of which every process has its own: a child abandons its parent's, with the locks that stand in it as they
/// stood, and makes another.
pub struct PerProcess<T> {
    current: AtomicPtr<Own<T>>,
    owns: PhantomData<Box<T>>,
}

struct Own<T> {
    generation: u64,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// One that makes its value when it is first asked for.
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    /// This process's value, if it made one.
    #[inline]
    pub fn current(&self) -> Option<&T> {
        // SAFETY: null, or a box that was leaked below; it is freed by `drop` alone.
        let own = unsafe { self.current.load(Ordering::Acquire).as_ref() }?;
        (own.generation == generation()).then_some(&own.value)
    }

    /// This process's value; `make` may be called in several threads at a time, of which one wins.
    pub fn get(&self, make: impl FnOnce() -> T) -> &T {
        match self.get_or_try_make(|| Ok::<_, std::convert::Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`Self::get`], where making the value can fail.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_try_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.current() {
            return Ok(value);
        }
        let found = self.current.load(Ordering::Acquire);
        let own = Own { generation: generation(), value: make()? };
        Ok(self.install(found, Box::new(own)))
    }

    fn install(&self, found: *mut Own<T>, made: Box<Own<T>>) -> &T {
        let made = Box::into_raw(made);
        match self.current.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire) {
            // What was found is an ancestor's, which is not touched again.
            // SAFETY: leaked above, and freed by `drop` alone.
            Ok(_) => unsafe { &(*made).value },
            Err(other) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: another thread of this process installed it, as above.
                unsafe { &(*other).value }
            }
        }
    }
}

impl<T: Send + Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if let Some(own) = NonNull::new(*self.current.get_mut()) {
            // SAFETY: leaked by `install`; `self` is borrowed mutably, so no reference to it is left.
            if unsafe { own.as_ref() }.generation == generation() {
                // SAFETY: as above.
                drop(unsafe { Box::from_raw(own.as_ptr()) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Runs `child` in a forked child; whether it returned true.
    fn forked(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing that another thread may have locked: `child` below allocates at most a little,
        // which glibc makes safe after a fork.
        run_in(unsafe { libc::fork() }, child)
    }

    fn run_in(pid: libc::pid_t, child: impl FnOnce() -> bool) -> bool {
        match pid {
            0 => {
                let status = i32::from(!std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(status) }
            }
            pid => {
                let mut status = -1;
                // SAFETY: waits for the child of this test.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                status == 0
            }
        }
    }

    #[test]
    fn a_child_and_its_child_have_other_generations() {
        let ours = generation();
        assert!(forked(|| {
            let theirs = generation();
            theirs != ours && forked(|| generation() != theirs && generation() != ours)
        }));
        assert_eq!(generation(), ours);
    }

    #[test]
    fn a_child_of_which_libc_knows_nothing_has_another_one_too() {
        let ours = generation();
        // SAFETY: a fork as the kernel does it, without the handlers of `pthread_atfork`; the child only loads and stores.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        assert!(run_in(pid as libc::pid_t, || generation() != ours));
        assert_eq!(generation(), ours);
    }

    #[test]
    fn a_child_abandons_a_lock_that_was_held() {
        let own = PerProcess::new();
        let held = own.get(|| Mutex::new(1)).lock();
        assert!(forked(|| own.get(|| Mutex::new(2)).try_lock().is_ok_and(|value| *value == 2)));
        assert_eq!(held.map(|value| *value).ok(), Some(1));
        assert!(own.get(|| Mutex::new(3)).lock().is_ok_and(|value| *value == 1));
    }

    #[test]
    fn a_value_is_dropped_with_its_owner() {
        let value = std::sync::Arc::new(());
        let own = PerProcess::new();
        assert!(std::sync::Arc::ptr_eq(own.get(|| value.clone()), &value));
        assert_eq!(std::sync::Arc::strong_count(&value), 2);
        drop(own);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
