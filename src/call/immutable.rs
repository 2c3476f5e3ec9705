//! Which Python objects may be handed to every caller, and what they take.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple, PyType};

/// How deep tuples and frozensets are looked into; deeper ones are not shared.
const MAX_DEPTH: u32 = 64;
/// What the allocator rounds up to.
const UNIT: usize = 16;

/// A class of the standard library whose instances never change, seen once its module is imported.
struct Class {
    module: &'static str,
    name: &'static str,
    found: PyOnceLock<Py<PyType>>,
}

impl Class {
    const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, found: PyOnceLock::new() }
    }

    /// Whether `class` is this one. Imports nothing: who has an instance has imported the module.
    fn is(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let py = class.py();
        if let Some(found) = self.found.get(py) {
            return Ok(class.is(found));
        }
        if class.name()? != self.name {
            return Ok(false);
        }
        let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
        let Ok(module) = modules.get_item(self.module) else { return Ok(false) };
        let Ok(found) = module.getattr(self.name) else { return Ok(false) };
        let Ok(found) = found.cast_into::<PyType>() else { return Ok(false) };
        let same = class.is(&found);
        // Another thread may have been first, with the same class.
        let _ = self.found.set(py, found.unbind());
        Ok(same)
    }
}

static DECIMAL: Class = Class::new("decimal", "Decimal");
static UUID: Class = Class::new("uuid", "UUID");
static DATE: Class = Class::new("datetime", "date");
static TIMEDELTA: Class = Class::new("datetime", "timedelta");
static TIMEZONE: Class = Class::new("datetime", "timezone");
static ZONE: Class = Class::new("zoneinfo", "ZoneInfo");
static TIMED: [Class; 2] = [Class::new("datetime", "datetime"), Class::new("datetime", "time")];
static ARROW: [Class; 2] = [Class::new("pyarrow", "Table"), Class::new("pyarrow", "RecordBatch")];

/// What `object` takes in bytes, if it and all it refers to are of exact built-in types whose instances never change:
/// None, bool, int, float, complex, str, bytes, Decimal, UUID, date, timedelta, time and datetime without `tzinfo` or with
/// a `timezone` or `ZoneInfo`, tuples and frozensets of these.
pub(crate) fn size_of_immutable(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    size_within(object, MAX_DEPTH)
}

fn size_within(object: &Bound<'_, PyAny>, depth: u32) -> PyResult<Option<usize>> {
    if object.is_none() || object.is_exact_instance_of::<PyBool>() {
        return Ok(Some(0));
    }
    if object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyBytes>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyComplex>()
    {
        return shallow_size(object).map(Some);
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        return size_of_items(object, tuple.iter(), depth);
    }
    if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
        return size_of_items(object, set.iter(), depth);
    }
    let class = object.get_type();
    for simple in [&UUID, &DECIMAL, &DATE, &TIMEDELTA] {
        if simple.is(&class)? {
            return shallow_size(object).map(Some);
        }
    }
    for timed in &TIMED {
        if timed.is(&class)? {
            let zone = object.getattr(intern!(object.py(), "tzinfo"))?;
            let class = zone.get_type();
            let plain = zone.is_none() || TIMEZONE.is(&class)? || ZONE.is(&class)?;
            // The zone is one of few, which many values share.
            return if plain { shallow_size(object).map(Some) } else { Ok(None) };
        }
    }
    Ok(None)
}

fn size_of_items<'py>(
    container: &Bound<'py, PyAny>,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: u32,
) -> PyResult<Option<usize>> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(None) };
    let mut size = shallow_size(container)?;
    for item in items {
        match size_within(&item, depth)? {
            Some(bytes) => size += bytes,
            None => return Ok(None),
        }
    }
    Ok(Some(size))
}

/// Whether `object` is of an Arrow type of pyarrow, none of which can be changed.
pub(crate) fn is_arrow(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = object.get_type();
    for arrow in &ARROW {
        if arrow.is(&class)? {
            return Ok(true);
        }
    }
    // Each type of array is a class of its own.
    let module = class.module()?;
    if module != "pyarrow.lib" {
        return Ok(false);
    }
    let py = object.py();
    let library = py.import("pyarrow.lib")?;
    Ok(object.is_instance(&library.getattr("Array")?)? || class.is(&library.getattr("ChunkedArray")?))
}

/// What an object takes by itself, rounded as the allocator does, the collector's header included.
pub(crate) fn shallow_size(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    let size: usize = object.call_method0(intern!(object.py(), "__sizeof__"))?.extract()?;
    // SAFETY: attached, alive.
    let header = if unsafe { ffi::PyObject_IS_GC(object.as_ptr()) } == 1 { UNIT } else { 0 };
    Ok((size + header).next_multiple_of(UNIT))
}
