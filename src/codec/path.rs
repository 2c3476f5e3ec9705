//! Where in a value something is.

use pyo3::prelude::*;
use std::fmt::Write;

/// A step from a value to a part of it.
enum Step {
    Index(usize),
    Key(String),
}

/// The way from the root to the place of a fault, collected from the inside out while the stack unwinds.
#[derive(Default)]
pub(crate) struct Path(Vec<Step>);

/// Steps shown at each end of a long path.
const SHOWN: usize = 12;

impl Path {
    pub(crate) fn index(&mut self, index: usize) {
        self.0.push(Step::Index(index));
    }

    pub(crate) fn key(&mut self, key: &Bound<'_, PyAny>) {
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
    pub(crate) fn show(&self) -> String {
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
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    let class = object.get_type();
    let name = class.qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    match class.module() {
        Ok(module) if module != "builtins" => format!("{module}.{name}"),
        _ => name,
    }
}
