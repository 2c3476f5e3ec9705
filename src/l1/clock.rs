//! The clocks that deadlines are kept in, and one that tests move.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Clock::coarse`] reads: the time of the last tick, where there is such a clock.
#[cfg(target_os = "linux")]
const COARSE: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const COARSE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Where the clock of a test starts to count what it calls monotonic, in microseconds.
const MANUAL_START: u64 = 1_000_000_000;

/// Two clocks: the wall clock, in which deadlines are given, and a monotonic one, in which they are kept, so that no
/// change of the wall clock makes an entry live longer or shorter.
///
/// ```
/// # use framecache::l1::Clock;
/// # use std::time::Duration;
/// let clock = Clock::manual(5_000_000);
/// clock.advance(Duration::from_millis(3));
/// assert_eq!(clock.wall(), 5_003);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

#[derive(Debug)]
struct Manual {
    /// Microseconds since 1970.
    wall: AtomicU64,
    /// Microseconds.
    monotonic: AtomicU64,
}

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self(None)
    }

    /// One that stands still at `wall`, in microseconds since 1970, until it is moved. Clones are the same clock.
    pub fn manual(wall: u64) -> Self {
        Self(Some(Arc::new(Manual { wall: AtomicU64::new(wall), monotonic: AtomicU64::new(MANUAL_START) })))
    }

    /// Moves both clocks on. The system's are not moved.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(manual) = &self.0 {
            let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            manual.wall.fetch_add(by, Ordering::Relaxed);
            manual.monotonic.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Sets the wall clock alone, to microseconds since 1970. The system's is not set.
    pub fn set_wall(&self, wall: u64) {
        if let Some(manual) = &self.0 {
            manual.wall.store(wall, Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970.
    pub fn wall(&self) -> u64 {
        self.wall_micros() / 1000
    }

    /// Microseconds since 1970.
    pub fn wall_micros(&self) -> u64 {
        match &self.0 {
            None => micros(libc::CLOCK_REALTIME),
            Some(manual) => manual.wall.load(Ordering::Relaxed),
        }
    }

    /// Monotonic milliseconds.
    pub fn monotonic(&self) -> u64 {
        self.monotonic_micros() / 1000
    }

    /// Monotonic microseconds.
    pub fn monotonic_micros(&self) -> u64 {
        match &self.0 {
            None => micros(libc::CLOCK_MONOTONIC),
            Some(manual) => manual.monotonic.load(Ordering::Relaxed),
        }
    }

    /// How far the wall clock is ahead of the monotonic one, in milliseconds.
    pub(super) fn offset(&self) -> i64 {
        // To the nearest one: what two clocks show at one time differs by less than a microsecond from look to look.
        (self.wall_micros().cast_signed().wrapping_sub(self.monotonic_micros().cast_signed()) + 500).div_euclid(1000)
    }

    /// As [`Self::monotonic`], of the last tick: up to 10 ms late, and a third of the price.
    #[inline]
    pub(super) fn coarse(&self) -> u64 {
        match &self.0 {
            None => micros(COARSE) / 1000,
            Some(_) => self.monotonic(),
        }
    }
}

#[inline]
fn micros(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time` alone. It cannot fail: the system has these clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    // Neither is negative: the clocks count from 1970 and from the start of the machine.
    (time.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(time.tv_nsec as u64 / 1000)
}
