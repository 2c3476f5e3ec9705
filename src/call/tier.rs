//! The L1 of Python values.

use super::held::{self, Filling, Held};
use crate::error::Error;
use crate::l1::{L1 as Inner, New, Options};
use pyo3::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering};

/// How many bytes of a key say which scope it is in.
pub(crate) const SCOPE: usize = 4;

/// The tier in this process's memory, of Python values. Keys are canonical bytes: the scope they are in, a number of 32
/// bits (little-endian), then what names them there.
///
/// Only holders of the GIL touch it: its lock is never waited for, and Python references are dropped where that is
/// allowed, after the lock is given back.
///
/// The cyclic collector sees `decode`, not the entries: shared values are immutable or tables, of which no cycle can be
/// made, and going past a million entries in every collection costs more than a cycle through a value that was shared
/// explicitly, which lasts until the entry goes.
#[pyclass(frozen, weakref, name = "L1", module = "framecache._framecache")]
pub(crate) struct L1 {
    inner: Inner<Held>,
    decode: Py<PyAny>,
    /// While not 0, every call goes to its function for a miss.
    slow: AtomicI64,
}

impl L1 {
    pub(crate) fn new(options: Options, decode: Py<PyAny>) -> Self {
        Self { inner: Inner::new(options), decode, slow: AtomicI64::new(0) }
    }

    pub(crate) fn inner(&self) -> &Inner<Held> {
        &self.inner
    }

    pub(crate) fn decode(&self) -> &Py<PyAny> {
        &self.decode
    }

    #[allow(dead_code, reason = "calls ask it")]
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.slow() != 0
    }

    #[inline]
    pub(crate) fn slow(&self) -> i64 {
        self.slow.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slow(&self, slow: i64) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// The value of `key`; `None` where there is none that may be served.
    #[inline]
    pub(crate) fn hit<'py>(&self, py: Python<'py>, key: &[u8], views: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.inner.get(key, |held| held.clone_ref(py)) {
            Some(held) => held::value_of(held.into_bound(py), &self.decode, views).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps a value; see [`Inner::insert`]. `new.bytes` is found out here.
    pub(crate) fn fill_with(&self, key: &[u8], filling: &Filling<'_, '_>, new: New<'_>) -> PyResult<bool> {
        if key.len() < SCOPE {
            return Err(argument("key", "4 bytes of scope and more", format!("{} bytes", key.len())));
        }
        let (held, bytes) = filling.hold()?;
        Ok(self.inner.insert(key, held, New { bytes, ..new }))
    }

    /// Shows what follows `scope` in the key of each of its entries that may be served to `visit`.
    pub(crate) fn each_key(&self, scope: u32, mut visit: impl FnMut(&[u8])) {
        let scope = scope.to_le_bytes();
        self.inner.each(|key, _| {
            if let Some(rest) = key.strip_prefix(&scope) {
                visit(rest);
            }
        });
    }
}

pub(crate) fn argument(argument: &'static str, expected: &'static str, found: String) -> PyErr {
    Error::Argument { argument, expected: expected.into(), found }.into()
}
