//! What went wrong, and where in the value.

use crate::error::{Error, Text};
use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;

/// The cause is kept aside: the functions that recurse return one bit.
#[derive(Debug)]
pub(super) struct Stop;

/// Why encoding or decoding ended early.
pub(super) enum Fault {
    /// The value or the bytes are not what can be written or read.
    Unfit { expected: Text, found: String },
    /// An exception of Python, or of this crate.
    Raised(PyErr),
}

impl Fault {
    pub(super) fn unfit(expected: impl Into<Text>, found: impl Into<String>) -> Self {
        Self::Unfit { expected: expected.into(), found: found.into() }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Raised(error.into())
    }
}

/// Whether `error` says that a payload does not fit, rather than that the process is in trouble.
pub(super) fn is_about_payload(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py)
}
