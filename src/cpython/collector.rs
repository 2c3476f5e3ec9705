//! Pausing the cyclic garbage collector.
#![allow(unsafe_code)]

#[cfg(not(Py_3_12))]
use pyo3::ffi;
use pyo3::prelude::*;

/// No automatic collection while this lives. It pays up to CPython 3.11, where making many containers starts collections
/// that walk them again and again; from 3.12 on collections wait until the call is over, and this does nothing.
///
/// It ends before Python code is called, which may switch the collector on or off itself.
pub(crate) struct CollectorPause {
    #[cfg(not(Py_3_12))]
    was_enabled: bool,
}

impl CollectorPause {
    pub(crate) fn new(_: Python<'_>) -> Self {
        Self {
            // SAFETY: attached.
            #[cfg(not(Py_3_12))]
            was_enabled: unsafe { ffi::PyGC_Disable() } == 1,
        }
    }
}

impl Drop for CollectorPause {
    fn drop(&mut self) {
        #[cfg(not(Py_3_12))]
        if self.was_enabled {
            // SAFETY: attached: the value is made with a token and kept on the stack of its call.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
