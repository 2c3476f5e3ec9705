//! `framecache._framecache.Clock`.

use crate::call::tier::argument;
use crate::l1::Clock as Inner;
use pyo3::prelude::*;
use std::time::Duration;

/// A clock that tests move.
#[pyclass(frozen, module = "framecache._framecache")]
pub(super) struct Clock(Inner);

impl Clock {
    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

#[pymethods]
impl Clock {
    #[new]
    #[pyo3(signature = (time=1_000_000_000.0))]
    fn new(time: f64) -> PyResult<Self> {
        Ok(Self(Inner::manual(microseconds("time", time)?)))
    }

    /// Moves the wall clock and the monotonic one on, by seconds.
    fn advance(&self, seconds: f64) -> PyResult<()> {
        self.0.advance(Duration::from_micros(microseconds("seconds", seconds)?));
        Ok(())
    }

    /// Sets the wall clock alone.
    fn set_time(&self, time: f64) -> PyResult<()> {
        self.0.set_wall(microseconds("time", time)?);
        Ok(())
    }

    /// The wall clock: seconds since 1970.
    fn time(&self) -> f64 {
        self.0.wall_micros() as f64 / 1e6
    }

    /// The monotonic clock, in seconds.
    fn monotonic(&self) -> f64 {
        self.0.monotonic_micros() as f64 / 1e6
    }
}

fn microseconds(name: &'static str, seconds: f64) -> PyResult<u64> {
    if (0.0..1e12).contains(&seconds) {
        return Ok((seconds * 1e6).round() as u64);
    }
    Err(argument(name, "0 to 1e12 seconds", seconds.to_string()))
}
