//! Any bytes as MessagePack, in an interpreter of this process.
#![no_main]

use framecache::_framecache;
use libfuzzer_sys::fuzz_target;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::CStr;
use std::sync::LazyLock;

/// Makes the package in `../../python` use the extension that is linked into this process.
const SETUP: &CStr = c"
import sys, _framecache
sys.modules['framecache._framecache'] = _framecache
sys.path.insert(0, source)
";

/// The function of `msgpack.py` that raises where something is wrong.
static CHECK: LazyLock<Py<PyAny>> = LazyLock::new(|| {
    pyo3::append_to_inittab!(_framecache);
    Python::initialize();
    Python::attach(|py| load(py).unwrap_or_else(|error| stop(py, &error)))
});

fn load(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let globals = pyo3::types::PyDict::new(py);
    globals.set_item("source", concat!(env!("CARGO_MANIFEST_DIR"), "/../python"))?;
    py.run(SETUP, Some(&globals), None)?;
    let code = std::ffi::CString::new(include_str!("msgpack.py"))?;
    Ok(PyModule::from_code(py, &code, c"msgpack.py", c"checks")?.getattr("check")?.unbind())
}

fn stop(py: Python<'_>, error: &PyErr) -> ! {
    error.print(py);
    std::process::abort()
}

fuzz_target!(|input: &[u8]| {
    let check = &*CHECK;
    Python::attach(|py| {
        if let Err(error) = check.call1(py, (PyBytes::new(py, input),)) {
            stop(py, &error);
        }
    });
});
