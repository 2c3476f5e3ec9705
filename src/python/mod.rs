//! The Python extension module: one thin file per class, no logic.
//!
//! Python objects are touched only with the GIL held. What is long (copies, files, validation) runs without it, over
//! memory that nobody else can write: our own buffers and mappings, and exact `bytes` objects.

mod arrow;
mod builder;
mod bytestorage;
mod call;
mod clock;
mod counters;
mod crypto;
mod described;
mod direct;
pub(crate) mod error;
mod frame;
mod input;
mod json;
pub(crate) mod l1;
mod metadata;
mod method;
mod msgpack;
mod remote;
mod replies;
mod sealing;
mod store;
mod stored;
mod stream;
mod wrapper;

use pyo3::prelude::*;

/// Bytes from which a copy is worth releasing the GIL for.
const DETACH_ABOVE: usize = 256 * 1024;

/// Bytes from which anything slower than a copy is worth releasing the GIL for.
const WORK_DETACH_ABOVE: usize = 64 * 1024;

/// Runs `work` on so many bytes: without the GIL where they are many.
fn detached<T: Send>(py: Python<'_>, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if bytes > WORK_DETACH_ABOVE { py.detach(work) } else { work() }
}

/// The native part of framecache.
#[pymodule(gil_used = true)]
pub fn _framecache(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    error::register(module)?;
    crate::cpython::check_layouts(module.py());
    module.add_class::<frame::Frame>()?;
    module.add_class::<builder::FrameBuilder>()?;
    module.add_class::<wrapper::SerializationWrapper>()?;
    module.add_class::<bytestorage::ByteStorage>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<arrow::ArrowTable>()?;
    module.add_class::<stream::StreamWriter>()?;
    module.add_class::<stream::StreamReader>()?;
    module.add_class::<stream::TableScan>()?;
    module.add_class::<clock::Clock>()?;
    module.add_class::<counters::Counters>()?;
    module.add_class::<direct::Direct>()?;
    module.add_class::<crate::call::tier::L1>()?;
    module.add_class::<l1::Missing>()?;
    module.add("MISSING", l1::missing(module.py())?)?;
    module.add_class::<crypto::MasterKey>()?;
    module.add_class::<crypto::Keyring>()?;
    sealing::register(module.py())?;
    module.add_function(wrap_pyfunction!(crypto::derive_domain_key, module)?)?;
    module.add_function(wrap_pyfunction!(crypto::key_fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(arrow::encode_arrow, module)?)?;
    module.add_function(wrap_pyfunction!(arrow::verify_arrow, module)?)?;
    module.add_function(wrap_pyfunction!(msgpack::packb, module)?)?;
    module.add_function(wrap_pyfunction!(msgpack::unpackb, module)?)?;
    module.add_function(wrap_pyfunction!(msgpack::encode_msgpack, module)?)?;
    module.add_function(wrap_pyfunction!(msgpack::msgpack_payload, module)?)?;
    json::register(module)?;
    module.add_class::<remote::Entries>()?;
    module.add_class::<remote::Reading>()?;
    module.add_class::<replies::Replies>()?;
    module.add_function(wrap_pyfunction!(replies::pack_command, module)?)?;
    call::register(module)?;
    module.add_function(wrap_pyfunction!(builder::pool_nbytes, module)?)?;
    module.add_function(wrap_pyfunction!(builder::trim_pool, module)?)
}
