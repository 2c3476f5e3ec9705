//! `framecache._framecache.Counters`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::sync::{Mutex, PoisonError};

/// Numbers by name, for all threads.
#[pyclass(frozen, module = "framecache._framecache")]
#[derive(Default)]
pub(super) struct Counters(Mutex<Vec<(Py<PyString>, u64)>>);

#[pymethods]
impl Counters {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Adds `times` to the number of `what`.
    #[pyo3(signature = (what, times=1))]
    pub(super) fn add(&self, what: &Bound<'_, PyString>, times: u64) -> PyResult<()> {
        // Held with the GIL, and nothing in here runs Python code.
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Names in a program are the same object each time.
        let known = numbers.iter().position(|(name, _)| name.is(what));
        let known = match known {
            Some(known) => Some(known),
            None => {
                let text = what.to_str()?;
                numbers.iter().position(|(name, _)| name.to_str(what.py()).is_ok_and(|name| name == text))
            }
        };
        match known {
            Some(known) => numbers[known].1 = numbers[known].1.wrapping_add(times),
            None => numbers.push((what.clone().unbind(), times)),
        }
        Ok(())
    }

    /// The numbers, by name.
    fn numbers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let numbers: Vec<_> = {
            let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.iter().map(|(name, number)| (name.clone_ref(py), *number)).collect()
        };
        let dict = PyDict::new(py);
        for (name, number) in numbers {
            dict.set_item(name, number)?;
        }
        Ok(dict)
    }
}
