//! What went wrong, and where in the value.

use crate::error::{Error, Text};
use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;
use std::fmt::Write;

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

/// A step from a value to a part of it.
enum Step {
    Index(usize),
    Key(String),
}

/// The way from the root to the place of a fault, collected from the inside out while the stack unwinds.
#[derive(Default)]
pub(super) struct Path(Vec<Step>);

/// Steps shown at each end of a long path.
const SHOWN: usize = 12;

impl Path {
    pub(super) fn index(&mut self, index: usize) {
        self.0.push(Step::Index(index));
    }

    pub(super) fn key(&mut self, key: &Bound<'_, PyAny>) {
        let text = match key.cast_exact::<pyo3::types::PyString>() {
            Ok(name) => {
                let name = name.to_string_lossy();
                let plain = !name.is_empty() && name.chars().all(|char| char.is_alphanumeric() || char == '_');
                if plain { format!(".{:.40}", name) } else { format!("[{:.40}]", format!("{name:?}")) }
            }
            Err(_) => match key.repr() {
                Ok(repr) => format!("[{:.40}]", repr.to_string_lossy()),
                Err(_) => format!("[{}]", type_name(key)),
            },
        };
        self.0.push(Step::Key(text));
    }

    /// `$.users[3].joined`
    pub(super) fn show(&self) -> String {
        let mut out = "$".to_owned();
        let count = self.0.len();
        for (depth, step) in self.0.iter().rev().enumerate() {
            if count > 2 * SHOWN && (SHOWN..count - SHOWN).contains(&depth) {
                if depth == SHOWN {
                    out.push('…');
                }
                continue;
            }
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Index(index) => write!(out, "[{index}]"),
                Step::Key(text) => write!(out, "{text}"),
            };
        }
        out
    }
}

/// The name of an object's class, with its module unless that is `builtins`.
pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    let class = object.get_type();
    let name = class.qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    match class.module() {
        Ok(module) if module != "builtins" => format!("{module}.{name}"),
        _ => name,
    }
}

/// Whether `error` says that a payload does not fit, rather than that the process is in trouble.
pub(super) fn is_about_payload(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py)
}
