//! Exceptions: one class per kind of error, under `FramecacheError` and the built-in class that callers expect.

use crate::error::Error;
use pyo3::exceptions::{
    PyBufferError, PyException, PyMemoryError, PyNotImplementedError, PyOSError, PyTimeoutError, PyTypeError,
    PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

/// The exception classes, made when the module is first imported.
struct Classes {
    base: Py<PyType>,
    frame: Py<PyType>,
    decode: Py<PyType>,
    encode: Py<PyType>,
    copy_required: Py<PyType>,
    argument: Py<PyType>,
    too_large: Py<PyType>,
    exported: Py<PyType>,
    memory: Py<PyType>,
    refused: Py<PyType>,
    store: Py<PyType>,
    busy: Py<PyType>,
    internal: Py<PyType>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

/// Makes the classes and adds them to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let exception = PyTuple::new(py, [py.get_type::<PyException>()])?;
    let base = new_class(module, "FramecacheError", "Base of all errors of framecache.", exception)?;
    let under = |name: &str, doc: &str, parent: Bound<'_, PyType>| -> PyResult<Py<PyType>> {
        new_class(module, name, doc, PyTuple::new(py, [&base, &parent])?).map(Bound::unbind)
    };
    // Policy, which is Python, raises it.
    under(
        "Unsupported",
        "An operation that a cache of this kind does not have.",
        py.get_type::<PyNotImplementedError>(),
    )?;
    let store =
        under("StoreError", "A store that cannot be used, or a failed file operation.", py.get_type::<PyOSError>())?;
    let busy = PyTuple::new(py, [store.bind(py), &py.get_type::<PyTimeoutError>()])?;
    let classes = Classes {
        frame: under("FrameError", "Bytes that are not a valid frame.", py.get_type::<PyValueError>())?,
        decode: under("DecodeError", "A payload that its codec cannot read.", py.get_type::<PyValueError>())?,
        encode: under("EncodeError", "A value that cannot be written.", py.get_type::<PyTypeError>())?,
        copy_required: under(
            "CopyRequired",
            "A read without copying was required and is not possible.",
            py.get_type::<PyValueError>(),
        )?,
        argument: under("InvalidArgument", "An argument outside its range.", py.get_type::<PyValueError>())?,
        too_large: under("ValueTooLarge", "A value that is larger than was allowed.", py.get_type::<PyValueError>())?,
        exported: under("ViewExported", "A change that an exported view prevents.", py.get_type::<PyBufferError>())?,
        memory: under("OutOfMemory", "Memory that could not be had.", py.get_type::<PyMemoryError>())?,
        refused: under(
            "EntryRefused",
            "A sealed entry that is not the one that was asked for, as it was sealed; `reason` says why.",
            py.get_type::<PyValueError>(),
        )?,
        store,
        busy: new_class(module, "StoreBusy", "A store that another process writes to for too long.", busy)?.unbind(),
        internal: new_class(module, "InternalError", "A defect of framecache.", PyTuple::new(py, [&base])?)?.unbind(),
        base: base.unbind(),
    };
    CLASSES.set(py, classes).map_err(|_| PyValueError::new_err("framecache is initialized already"))
}

fn new_class<'py>(
    module: &Bound<'py, PyModule>,
    name: &str,
    doc: &str,
    bases: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyType>> {
    let attributes = PyDict::new(module.py());
    attributes.set_item("__module__", "framecache")?;
    attributes.set_item("__doc__", doc)?;
    let class = module.py().get_type::<PyType>().call1((name, bases, attributes))?.cast_into::<PyType>()?;
    module.add(name, &class)?;
    Ok(class)
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        attached(|py| {
            let Some(classes) = CLASSES.get(py) else {
                return PyException::new_err(error.to_string());
            };
            let class = match &error {
                Error::Frame { .. } => &classes.frame,
                Error::Decode { .. } => &classes.decode,
                Error::Encode { .. } => &classes.encode,
                Error::CopyRequired { .. } => &classes.copy_required,
                Error::Argument { .. } => &classes.argument,
                Error::TooLarge { .. } => &classes.too_large,
                Error::Exported { .. } => &classes.exported,
                Error::Memory { .. } => &classes.memory,
                Error::Panicked { .. } => &classes.internal,
                Error::Store { .. } => &classes.store,
                Error::Busy { .. } => &classes.busy,
                Error::Refused { reason, .. } => {
                    let raised = Self::from_type(classes.refused.bind(py).clone(), error.to_string());
                    return match raised.value(py).setattr("reason", reason.name()) {
                        Ok(()) => raised,
                        Err(failed) => failed,
                    };
                }
                Error::Io { source, .. } => {
                    // What LMDB says of itself is no number of the system's, but for a full index.
                    let full = (source.kind() == ErrorKind::StorageFull).then_some(libc::ENOSPC);
                    let class = classes.store.bind(py).clone();
                    return match source.raw_os_error().or(full) {
                        Some(number) => Self::from_type(class, (number, error.to_string())),
                        None => Self::from_type(class, error.to_string()),
                    };
                }
            };
            Self::from_type(class.bind(py).clone(), error.to_string())
        })
    }
}

/// Runs `work` attached. Unlike `Python::attach`, it serves the thread that finalizes the interpreter, too: cached
/// functions are called and dropped there.
#[allow(unsafe_code)]
pub(crate) fn attached<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    // SAFETY: the first may be asked at any time; if it says yes, the thread has a state that needs no checking.
    unsafe { if ffi::PyGILState_Check() == 1 { Python::attach_unchecked(work) } else { Python::attach(work) } }
}

/// Runs `work`; a panic in it becomes an `InternalError`.
pub(crate) fn guard<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    // What a panic interrupts is dropped with the call's own values; frames are immutable.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(internal(&*panic)))
}

/// As [`guard`], for what CPython calls: a new reference, or null with the exception set.
#[inline(always)]
pub(crate) fn returned(py: Python<'_>, work: impl FnOnce() -> PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    // Only the pointer leaves the closure.
    let result = catch_unwind(AssertUnwindSafe(|| {
        work().unwrap_or_else(|error| {
            error.restore(py);
            null_mut()
        })
    }));
    result.unwrap_or_else(|panic| {
        internal(&*panic).restore(py);
        null_mut()
    })
}

/// Whether `error` is one of the classes here.
pub(crate) fn is_framecache_error(py: Python<'_>, error: &PyErr) -> bool {
    CLASSES.get(py).is_some_and(|classes| error.is_instance(py, classes.base.bind(py)))
}

/// Whether `error` is an `EncodeError`.
pub(crate) fn is_encode_error(py: Python<'_>, error: &PyErr) -> bool {
    CLASSES.get(py).is_some_and(|classes| error.is_instance(py, classes.encode.bind(py)))
}

fn internal(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let message = format!("defect in framecache, please report it: {text}");
    attached(|py| match CLASSES.get(py) {
        Some(classes) => PyErr::from_type(classes.internal.bind(py).clone(), message),
        None => PyException::new_err(message),
    })
}
