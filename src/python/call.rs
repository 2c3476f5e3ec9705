//! `framecache._framecache.Call`.

use pyo3::prelude::*;

/// Makes the type and adds it to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Call", crate::call::new_type(module.py())?)
}
