//! `Call`, the Python type whose instances stand for cached functions.
//!
//! It is made with `PyType_FromSpec`, as vectorcall needs: a call reaches [`vectorcall`] without a tuple or dict being
//! made. Instances behave as functions do: they bind to instances, have a `__dict__` and weak references, are pickled by
//! name, and say that their class is `types.FunctionType`.
#![allow(unsafe_code)]

use super::bind::{Arguments, Parameters};
use super::function::{Function, Options};
use super::tier::L1;
use crate::cpython::Owned;
use crate::error::Error;
use crate::python::error::{attached, guard, returned};
use crate::python::l1::missing;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

/// An instance.
#[repr(C)]
struct Object {
    base: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    dict: *mut ffi::PyObject,
    weak_references: *mut ffi::PyObject,
    /// None once the cyclic collector has cleared it.
    function: Option<Function>,
}

// The allocator of Python's objects aligns to 16.
const _: () = assert!(align_of::<Object>() <= 16);

const DOC: &CStr = c"Call(l1, scope, identity, label, parameters, miss, *, describe, key=None, views=False)\n--\n\n\
    A cached function: binds a call, encodes its arguments, and looks them up in `l1`, in one step.";

unsafe extern "C" {
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Makes the type.
pub(crate) fn new_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let members = leaked([
        member(c"__vectorcalloffset__", offset_of!(Object, vectorcall)),
        member(c"__dictoffset__", offset_of!(Object, dict)),
        member(c"__weaklistoffset__", offset_of!(Object, weak_references)),
        ffi::PyMemberDef::default(),
    ]);
    let methods = leaked([
        method(c"canonical", canonical, c"canonical($self, /, *args, **kwargs)\n--\n\nScope and encoding of a call."),
        method(c"key", key, c"key($self, /, *args, **kwargs)\n--\n\nThe key of a call."),
        method(c"key_of", key_of, c"key_of($self, canonical, /)\n--\n\nThe key that canonical bytes are."),
        method(c"find", find, c"find($self, key, /)\n--\n\nThe canonical bytes of the entry in L1 with this key."),
        method(c"__reduce__", reduce, c"Its qualified name: it is pickled as functions are."),
        ffi::PyMethodDef::zeroed(),
    ]);
    let attributes = leaked([
        attribute(c"__class__", class, null_mut()),
        attribute(c"__dict__", ffi::PyObject_GenericGetDict, null_mut()),
        attribute(c"hits", hits, null_mut()),
        attribute(c"__code__", of_wrapped, c"__code__".as_ptr().cast_mut().cast()),
        attribute(c"__defaults__", of_wrapped, c"__defaults__".as_ptr().cast_mut().cast()),
        attribute(c"__kwdefaults__", of_wrapped, c"__kwdefaults__".as_ptr().cast_mut().cast()),
        attribute(c"__globals__", of_wrapped, c"__globals__".as_ptr().cast_mut().cast()),
        attribute(c"__closure__", of_wrapped, c"__closure__".as_ptr().cast_mut().cast()),
        ffi::PyGetSetDef::default(),
    ]);
    let mut slots = [
        slot(ffi::Py_tp_new, new as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_descr_get, descr_get as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_members, members.cast()),
        slot(ffi::Py_tp_methods, methods.cast()),
        slot(ffi::Py_tp_getset, attributes.cast()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast()),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let mut spec = ffi::PyType_Spec {
        name: c"framecache._framecache.Call".as_ptr(),
        basicsize: size_of::<Object>() as c_int,
        itemsize: 0,
        flags: flags as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; names, members, methods and attributes live for ever, slots and spec are copied.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))? };
    Ok(made.cast_into::<PyType>()?)
}

/// Definitions that the type refers to as long as it lives, which is as long as the process.
fn leaked<T, const N: usize>(definitions: [T; N]) -> *mut T {
    Box::leak(Box::new(definitions)).as_mut_ptr()
}

fn member(name: &'static CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset.cast_signed(),
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    }
}

type Method = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

fn method(name: &'static CStr, function: Method, doc: &'static CStr) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }
}

fn attribute(name: &'static CStr, getter: ffi::getter, closure: *mut c_void) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef { name: name.as_ptr(), get: Some(getter), set: None, doc: std::ptr::null(), closure }
}

fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// Runs `work` for a slot or method of the type.
///
/// # Safety
/// Attached; `object` is an instance, which the caller holds.
#[inline(always)]
unsafe fn entered(
    object: *mut ffi::PyObject,
    work: impl FnOnce(Python<'_>, &Function) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's guarantee. The collector clears only what nobody holds.
    let (py, function) = unsafe { (Python::assume_attached(), (*object.cast::<Object>()).function.as_ref()) };
    returned(py, || match function {
        Some(function) => work(py, function),
        None => Err(PyTypeError::new_err("a cached function that was collected already")),
    })
}

/// What the function is called in errors.
#[cold]
fn name_of(py: Python<'_>, object: *mut ffi::PyObject, function: &Function) -> String {
    // SAFETY: attached; the instance is held by its caller.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    let name = object.getattr(intern!(py, "__qualname__")).and_then(|name| name.extract::<String>());
    name.unwrap_or_else(|_| function.label.bind(py).to_string_lossy().into_owned())
}

unsafe extern "C" fn vectorcall(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the vectorcall protocol.
    unsafe {
        entered(object, |py, function| {
            let positional = ffi::PyVectorcall_NARGS(count).unsigned_abs();
            let arguments = Arguments::new(values, positional, names);
            let name = || name_of(py, object, function);
            let value = function.look_up(py, &arguments, name, |canonical| missed(function, canonical, arguments))?;
            Ok(value.into_ptr())
        })
    }
}

/// Hands a call on that L1 does not answer.
#[inline(never)]
fn missed<'py>(
    function: &Function,
    canonical: &Bound<'py, PyBytes>,
    arguments: Arguments<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    // Attached anew, so that references which were dropped meanwhile are given back now.
    let result = attached(|py| {
        let Some(miss) = &function.miss else {
            return Ok(missing(py)?.clone().into_any().unbind());
        };
        let kwargs = PyDict::new(py);
        for (name, value) in arguments.keywords() {
            // SAFETY: both are kept by the caller of the function.
            unsafe {
                kwargs.set_item(Bound::from_borrowed_ptr(py, name), Bound::from_borrowed_ptr(py, value))?;
            }
        }
        Ok::<_, PyErr>(miss.bind(py).call1((canonical, arguments.to_tuple(py)?, kwargs))?.unbind())
    })?;
    Ok(result.into_bound(canonical.py()))
}

unsafe extern "C" fn canonical(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the protocol of METH_FASTCALL.
    unsafe {
        entered(object, |py, function| {
            let arguments = Arguments::new(values, positional.unsigned_abs(), names);
            Ok(function.canonical(py, &arguments, || name_of(py, object, function))?.into_ptr())
        })
    }
}

unsafe extern "C" fn key(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        entered(object, |py, function| {
            let arguments = Arguments::new(values, positional.unsigned_abs(), names);
            Ok(function.key(py, &arguments, || name_of(py, object, function))?.into_ptr())
        })
    }
}

/// The one argument of a method.
///
/// # Safety
/// The protocol of METH_FASTCALL.
unsafe fn only<'py>(
    py: Python<'py>,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    if positional != 1 || !names.is_null() {
        return Err(PyTypeError::new_err("expected one positional argument"));
    }
    // SAFETY: there is one.
    Ok(unsafe { Bound::from_borrowed_ptr(py, *values) })
}

unsafe extern "C" fn key_of(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        entered(object, |py, function| {
            let canonical = only(py, values, positional, names)?.cast_into::<PyBytes>()?;
            Ok(function.key_of(py, canonical.as_bytes())?.into_ptr())
        })
    }
}

unsafe extern "C" fn find(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        entered(object, |py, function| {
            let key = only(py, values, positional, names)?.cast_into::<PyString>()?;
            let found = function.find(py, &key.to_string_lossy())?;
            Ok(found.map_or_else(|| py.None().into_ptr(), Bound::into_ptr))
        })
    }
}

unsafe extern "C" fn reduce(
    object: *mut ffi::PyObject,
    _: *const *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        entered(object, |py, _| {
            Ok(Bound::from_borrowed_ptr(py, object).getattr(intern!(py, "__qualname__"))?.into_ptr())
        })
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the protocol of tp_repr.
    unsafe {
        entered(object, |py, function| {
            let label = function.label.bind(py).to_string_lossy();
            Ok(PyString::new(py, &format!("<cached function {label}>")).into_any().into_ptr())
        })
    }
}

unsafe extern "C" fn hits(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the protocol of getters.
    unsafe { entered(object, |py, function| Ok(function.hits.get().into_pyobject(py)?.into_any().into_ptr())) }
}

unsafe extern "C" fn class(_: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: attached; a type that always lives.
    unsafe { Owned::constant((&raw mut ffi::PyFunction_Type).cast()).into_ptr() }
}

/// An attribute of the function in `__wrapped__`; `closure` is its name.
unsafe extern "C" fn of_wrapped(object: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the protocol of getters; the closures are names that always live.
    unsafe {
        entered(object, |py, _| {
            let name = CStr::from_ptr(closure.cast::<c_char>()).to_string_lossy();
            match Bound::from_borrowed_ptr(py, object).getattr_opt(intern!(py, "__wrapped__"))? {
                Some(function) => Ok(function.getattr(&*name)?.into_ptr()),
                None => Err(PyAttributeError::new_err(format!("a Call has no {name} before it has __wrapped__"))),
            }
        })
    }
}

/// Binds to an instance as functions do.
unsafe extern "C" fn descr_get(
    object: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; both are held by the caller.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            return Owned::constant(object).into_ptr();
        }
        PyMethod_New(object, instance)
    }
}

unsafe extern "C" fn new(
    class: *mut ffi::PyTypeObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let made = guard(|| {
        attached(|py| {
            // SAFETY: attached; the protocol of tp_new.
            let function = Function::new(unsafe { options(py, args, kwargs)? });
            // SAFETY: attached. The collector cannot see the object before all of it is written: nothing is allocated
            // in between.
            unsafe {
                let alloc = (*class).tp_alloc.unwrap_or(ffi::PyType_GenericAlloc);
                let object = alloc(class, 0).cast::<Object>();
                if object.is_null() {
                    return Err(PyErr::fetch(py));
                }
                (&raw mut (*object).vectorcall).write(vectorcall);
                (&raw mut (*object).function).write(Some(function));
                Ok(object.cast())
            }
        })
    });
    made.unwrap_or_else(|error| {
        // SAFETY: attached.
        error.restore(unsafe { Python::assume_attached() });
        null_mut()
    })
}

/// # Safety
/// Attached; the protocol of tp_new.
unsafe fn options<'py>(
    py: Python<'py>,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> PyResult<Options<'py>> {
    const NAMES: [*const c_char; 10] = [
        c"l1".as_ptr(),
        c"scope".as_ptr(),
        c"identity".as_ptr(),
        c"label".as_ptr(),
        c"parameters".as_ptr(),
        c"miss".as_ptr(),
        c"describe".as_ptr(),
        c"key".as_ptr(),
        c"views".as_ptr(),
        std::ptr::null(),
    ];
    let mut given = [null_mut::<ffi::PyObject>(); 9];
    let [l1, scope, identity, label, parameters, miss, describe, key, views] =
        given.each_mut().map(|place| &raw mut *place);
    // SAFETY: the caller's guarantee; nine objects, as the format says, which the caller of tp_new holds.
    let given = unsafe {
        let is_right = ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"OOOOOO|$OOO:Call".as_ptr(),
            NAMES.as_ptr().cast_mut().cast(),
            l1,
            scope,
            identity,
            label,
            parameters,
            miss,
            describe,
            key,
            views,
        );
        if is_right == 0 {
            return Err(PyErr::fetch(py));
        }
        given.map(|object| Bound::from_borrowed_ptr_or_opt(py, object))
    };
    let [Some(l1), Some(scope), Some(identity), Some(label), Some(parameters), Some(miss), Some(describe), key, views] =
        given
    else {
        return Err(PyTypeError::new_err("Call() missing required keyword-only argument: 'describe'"));
    };
    if !describe.is_callable() {
        let expected = "a callable".into();
        return Err(Error::Argument { argument: "describe", expected, found: describe.to_string() }.into());
    }
    let given = |object: Option<Bound<'_, PyAny>>| object.filter(|object| !object.is_none()).map(Bound::unbind);
    Ok(Options {
        l1: l1.cast_into::<L1>()?.unbind(),
        scope: scope.extract()?,
        identity: identity.cast_into::<PyBytes>()?.as_bytes().to_vec(),
        label: label.cast_into_exact::<PyString>()?,
        parameters: Parameters::new(py, parameters.extract()?, missing(py)?)?,
        miss: given(Some(miss)),
        describe: describe.unbind(),
        key: given(key),
        views: views.is_some_and(|views| views.is_truthy().unwrap_or(false)),
    })
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the protocol of tp_traverse: an instance that does not change meanwhile.
    unsafe {
        let this = &*object.cast::<Object>();
        let own = [ffi::Py_TYPE(object).cast(), this.dict].into_iter();
        for reference in own.chain(this.function.iter().flat_map(Function::references)) {
            if !reference.is_null() {
                let stop = visit(reference, arg);
                if stop != 0 {
                    return stop;
                }
            }
        }
    }
    0
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    attached(|_| {
        // SAFETY: attached, the protocol of tp_clear. What is dropped is out of the object before that runs any code.
        unsafe {
            let this = object.cast::<Object>();
            let dict = Owned::new((&raw mut (*this).dict).replace(null_mut()));
            let function = (&raw mut (*this).function).replace(None);
            drop((dict, function));
        }
    });
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the protocol of tp_dealloc: the last reference is gone. A heap type is held by its instances.
    unsafe {
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*object.cast::<Object>()).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        clear(object);
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}
