//! What went wrong while writing, and where in the value.

use crate::error::Error;
use pyo3::prelude::*;

/// Why a value was not written.
pub(super) enum Fault {
    /// The value has no form; becomes a `JSONEncodeError` with this message.
    Unfit(String),
    /// As above, because Python code raised something.
    Refused(String, PyErr),
    /// An exception of Python, or of this crate, that is passed on.
    Raised(PyErr),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Raised(error.into())
    }
}

/// The name of an object's class as messages give it: `module.name` for classes written in C, for others the name alone.
#[allow(unsafe_code)]
pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    // SAFETY: a type's name is a NUL-terminated string that lives as long as the type.
    unsafe { std::ffi::CStr::from_ptr((*(*object.as_ptr()).ob_type).tp_name) }.to_string_lossy().into_owned()
}
