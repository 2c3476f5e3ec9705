//! Methods that read their arguments themselves: for those that are over before PyO3 has read its.
#![allow(unsafe_code)]

use super::error::returned;
use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use std::ffi::CStr;
use std::ptr::null_mut;

/// What CPython calls (`METH_FASTCALL | METH_KEYWORDS`).
pub(super) type Method = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// An argument, borrowed from the caller, who keeps it until the call is over.
pub(super) type Argument<'a, 'py> = Borrowed<'a, 'py, PyAny>;

/// The parameters of a method: those that are required may be given by position too, the others by keyword only.
pub(super) struct Signature<const R: usize, const O: usize> {
    name: &'static str,
    required: [&'static str; R],
    optional: [&'static str; O],
    interned: PyOnceLock<Names<R, O>>,
}

type Names<const R: usize, const O: usize> = ([Py<PyString>; R], [Py<PyString>; O]);

/// What is given for the parameters; null where nothing is.
type Given<const R: usize, const O: usize> = ([*mut ffi::PyObject; R], [*mut ffi::PyObject; O]);

impl<const R: usize, const O: usize> Signature<R, O> {
    pub(super) const fn new(name: &'static str, required: [&'static str; R], optional: [&'static str; O]) -> Self {
        Self { name, required, optional, interned: PyOnceLock::new() }
    }

    /// Runs `work` with the instance and the arguments of a call.
    ///
    /// # Safety
    /// The protocol of METH_FASTCALL with keywords, for a method of the class `T`.
    #[inline(always)]
    pub(super) unsafe fn call<'a, 'py, T: PyClass<Frozen = True> + Sync, V>(
        &self,
        instance: *mut ffi::PyObject,
        values: *const *mut ffi::PyObject,
        count: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
        work: impl FnOnce(
            Python<'py>,
            &T,
            [Argument<'a, 'py>; R],
            [Option<Argument<'a, 'py>>; O],
        ) -> PyResult<Bound<'py, V>>,
    ) -> *mut ffi::PyObject {
        // SAFETY: the caller's guarantee: attached, and CPython checked the class of the instance. What is required is there.
        unsafe {
            let py = Python::assume_attached();
            returned(py, || {
                let (required, optional) = self.read(py, values, count.unsigned_abs(), names)?;
                let required = required.map(|object| Borrowed::from_ptr(py, object));
                let optional = optional.map(|object| Borrowed::from_ptr_or_opt(py, object));
                let instance = Borrowed::from_ptr(py, instance).cast_unchecked::<T>();
                Ok(work(py, instance.get(), required, optional)?.into_ptr())
            })
        }
    }

    /// # Safety
    /// As [`Self::call`].
    #[inline(always)]
    unsafe fn read(
        &self,
        py: Python<'_>,
        values: *const *mut ffi::PyObject,
        count: usize,
        names: *mut ffi::PyObject,
    ) -> PyResult<Given<R, O>> {
        let mut given = ([null_mut(); R], [null_mut(); O]);
        if count > R {
            return Err(self.wrong(format!("takes {R} positional arguments, {count} were given")));
        }
        for (index, place) in given.0.iter_mut().enumerate().take(count) {
            // SAFETY: `count` values are given by position.
            *place = unsafe { *values.add(index) };
        }
        // SAFETY: a tuple of strings, if it is there.
        let keywords = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) } };
        for index in 0..keywords {
            // SAFETY: as many values come after those by position.
            let (name, value) = unsafe {
                let name = Borrowed::from_ptr(py, ffi::PyTuple_GET_ITEM(names, index));
                (name, *values.add(count + index.unsigned_abs()))
            };
            let place = self.find(name, &mut given)?;
            if !place.is_null() {
                return Err(self.wrong(format!("got multiple values for argument '{}'", &*name)));
            }
            *place = value;
        }
        match given.0.iter().position(|object| object.is_null()) {
            None => Ok(given),
            Some(missing) => Err(self.wrong(format!("missing required argument '{}'", self.required[missing]))),
        }
    }

    /// The place of the parameter of this name.
    #[inline(always)]
    fn find<'g>(
        &self,
        name: Borrowed<'_, '_, PyAny>,
        given: &'g mut Given<R, O>,
    ) -> PyResult<&'g mut *mut ffi::PyObject> {
        let intern = |text: &str| PyString::intern(name.py(), text).unbind();
        let (required, optional) =
            self.interned.get_or_init(name.py(), || (self.required.map(intern), self.optional.map(intern)));
        // Names in calls are interned as a rule.
        let is = |known: &Py<PyString>| known.as_ptr() == name.as_ptr();
        if let Some(place) = optional.iter().position(is) {
            return Ok(&mut given.1[place]);
        }
        if let Some(place) = required.iter().position(is) {
            return Ok(&mut given.0[place]);
        }
        let found = name.extract::<String>()?;
        let places = self.required.iter().zip(&mut given.0).chain(self.optional.iter().zip(&mut given.1));
        let place = { places }.find(|(known, _)| **known == found).map(|(_, place)| place);
        place.ok_or_else(|| self.wrong(format!("got an unexpected keyword argument '{found}'")))
    }

    #[cold]
    fn wrong(&self, what: String) -> PyErr {
        PyTypeError::new_err(format!("{}() {what}", self.name))
    }
}

/// Adds a method to a class; `doc` starts with the signature, as CPython has it.
pub(super) fn add_method(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    function: Method,
    doc: &'static CStr,
) -> PyResult<()> {
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: attached; the definition lives for ever, as the class does.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), method)?
    };
    class.setattr(PyString::new(class.py(), &name.to_string_lossy()), method)
}
