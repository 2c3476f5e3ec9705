//! Which Python classes have a form, and how the application's own are rebuilt.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

/// What `framecache._registry` knows of a class.
pub(super) struct Entry<'py> {
    /// The extension type: one of ENUM, NAMEDTUPLE, DATACLASS, OBJECT.
    pub(super) code: i8,
    /// What the class is called in entries.
    pub(super) name: Bound<'py, PyString>,
    pub(super) class: Bound<'py, PyType>,
    /// The fields of a dataclass or namedtuple; for an Enum whether it is a Flag.
    pub(super) fields: Bound<'py, PyTuple>,
    /// For OBJECT: from an instance to a value, and back.
    pub(super) pack: Bound<'py, PyAny>,
    pub(super) unpack: Bound<'py, PyAny>,
}

type Fields<'py> =
    (i8, Bound<'py, PyString>, Bound<'py, PyType>, Bound<'py, PyTuple>, Bound<'py, PyAny>, Bound<'py, PyAny>);

impl<'py> Entry<'py> {
    fn from(described: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (code, name, class, fields, pack, unpack) = described.extract::<Fields<'py>>()?;
        Ok(Self { code, name, class, fields, pack, unpack })
    }

    /// How instances of `class` are written; `None` for a class without a form.
    pub(super) fn of_class(class: &Bound<'py, PyType>) -> PyResult<Option<Self>> {
        let described = registry(class.py())?.call_method1(intern!(class.py(), "describe"), (class,))?;
        if described.is_none() { Ok(None) } else { Self::from(&described).map(Some) }
    }

    /// The class that was registered under `name`.
    pub(super) fn of_name(name: &Bound<'py, PyString>) -> PyResult<Option<Self>> {
        let py = name.py();
        static BY_NAME: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
        let by_name = BY_NAME.get_or_try_init(py, || {
            Ok::<_, PyErr>(registry(py)?.getattr(intern!(py, "BY_NAME"))?.cast_into::<PyDict>()?.unbind())
        })?;
        by_name.bind(py).get_item(name)?.map(|described| Self::from(&described)).transpose()
    }
}

fn registry(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    module(py, &REGISTRY, "framecache._registry")
}

static REGISTRY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static TYPES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// `framecache._types`: the rarer types, whose payload is made and read in Python.
pub(super) fn types(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    module(py, &TYPES, "framecache._types")
}

fn module<'py>(py: Python<'py>, once: &PyOnceLock<Py<PyAny>>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = once.get_or_try_init(py, || Ok::<_, PyErr>(py.import(name)?.into_any().unbind()))?;
    Ok(module.bind(py).clone())
}
