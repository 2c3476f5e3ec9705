//! The lock that every writer takes before LMDB's own, which has no deadline: a stopped process would hold up all others
//! for as long as it is stopped.
//!
//! Two locks in one: among the threads of a process a flag, since one open file description does not exclude threads;
//! among processes `flock` on `writer.lock`, which belongs to the open file description and ends with its last
//! descriptor. A forked child closes its copy at once ([`ClosedInChild`]), so that the lock never outlives its owner.

use crate::error::{Error, Result};
use crate::fork::ClosedInChild;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a writer sleeps between two attempts, at first; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
/// How often who waits looks for a reason to stop waiting.
const ASKED_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct WriterLock {
    file: ClosedInChild,
    threads: Mutex<Threads>,
    freed: Condvar,
}

/// The threads of this process.
#[derive(Debug, Default)]
struct Threads {
    /// Whether one of them has the right to write, or tries to get the file's lock.
    taken: bool,
    /// How many wait for that one.
    waiting: u32,
}

/// The right to write, given back when dropped.
#[derive(Debug)]
pub(super) struct Held<'l>(&'l WriterLock);

impl WriterLock {
    /// # Errors
    /// [`Error::Store`] where this process has 256 stores open.
    pub(super) fn new(file: OwnedFd, path: &str) -> Result<Self> {
        let file = ClosedInChild::new(file).ok_or_else(|| Error::Store {
            path: path.to_owned(),
            expected: "at most 256 open stores in one process".into(),
            found: "one more".to_owned(),
        })?;
        Ok(Self { file, threads: Mutex::default(), freed: Condvar::new() })
    }

    /// Takes the lock, by attempts until `timeout` is over, or `interrupted`, which is asked every 50 ms, says so; `None`
    /// then.
    ///
    /// # Errors
    /// The system's, other than that somebody else has it.
    pub(super) fn acquire(
        &self,
        timeout: Duration,
        interrupted: Option<fn() -> bool>,
    ) -> std::io::Result<Option<Held<'_>>> {
        let deadline = Instant::now() + timeout;
        let mut asked = Instant::now();
        let mut give_up = || {
            let now = Instant::now();
            if now.duration_since(asked) < ASKED_EVERY {
                return now >= deadline;
            }
            asked = now;
            now >= deadline || interrupted.is_some_and(|interrupted| interrupted())
        };
        let Some(held) = self.take_flag(deadline, &mut give_up) else { return Ok(None) };
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(file) = self.file.get() else {
                return Ok(None);
            };
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(held)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if give_up() {
                // `held` gives the flag back; the file's lock is somebody else's.
                return Ok(None);
            }
            std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the other threads of this process.
    fn take_flag(&self, deadline: Instant, give_up: &mut impl FnMut() -> bool) -> Option<Held<'_>> {
        loop {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            if threads.taken {
                threads.waiting += 1;
                let part = deadline.saturating_duration_since(Instant::now()).min(ASKED_EVERY);
                let waited = self.freed.wait_timeout_while(threads, part, |threads| threads.taken);
                (threads, _) = waited.unwrap_or_else(PoisonError::into_inner);
                threads.waiting -= 1;
            }
            if !threads.taken {
                threads.taken = true;
                return Some(Held(self));
            }
            drop(threads);
            if give_up() {
                return None;
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0.file.get() {
            // Where it is not ours, this does nothing.
            let _ = flock(file, FlockOperation::Unlock);
        }
        let mut threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.taken = false;
        // Waking nobody is a system call too.
        if threads.waiting > 0 {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    fn lock_at(path: &Path) -> WriterLock {
        let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
        WriterLock::new(file.into(), "test").unwrap()
    }

    #[test]
    fn threads_and_other_descriptions_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("writer.lock");
        let (one, other) = (lock_at(&path), lock_at(&path));
        let held = one.acquire(Duration::ZERO, None).unwrap().unwrap();
        assert!(one.acquire(Duration::ZERO, None).unwrap().is_none());
        assert!(other.acquire(Duration::from_millis(1), None).unwrap().is_none());
        drop(held);
        assert!(other.acquire(Duration::ZERO, None).unwrap().is_some());
        assert!(one.acquire(Duration::ZERO, None).unwrap().is_some());
    }

    #[test]
    fn a_waiting_thread_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = lock_at(&directory.path().join("writer.lock"));
        let held = lock.acquire(Duration::ZERO, None).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock.acquire(Duration::from_secs(60), None).unwrap().is_some());
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }
}
