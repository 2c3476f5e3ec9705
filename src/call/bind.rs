//! Binding a call to its signature: positional, keyword and default forms of one call are one.
//!
//! A call comes as CPython's vectorcall has it: positional arguments, then the values of the keywords, and a tuple of
//! their names. Names are interned as a rule, hence compared by address first.
#![allow(unsafe_code)]

use super::encode::{Encoder, Entries, Stop, tag};
use super::wrong;
use crate::error::Error;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::ptr::null_mut;

/// How many parameters have room on the stack.
const FEW: usize = 16;

/// `inspect.Parameter.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PositionalOnly,
    PositionalOrKeyword,
    VarPositional,
    KeywordOnly,
    VarKeyword,
}

pub(super) struct Parameter {
    pub(super) name: Py<PyString>,
    pub(super) kind: Kind,
    pub(super) default: Option<Py<PyAny>>,
    /// Whether it is no part of the key.
    is_ignored: bool,
    /// Whether it is the instance of a method: the first parameter, and called `self`.
    is_owner: bool,
}

/// The parameters of a function, in the order of its signature.
pub(super) struct Parameters {
    pub(super) all: Box<[Parameter]>,
    /// How many may be given by position; they come first.
    pub(super) positional: usize,
    /// How many arguments by position make a call right that has no keywords; none if there are required keywords.
    required: Option<usize>,
    pub(super) var_positional: bool,
    pub(super) var_keyword: bool,
}

/// The arguments of a call, all of them borrowed from the caller, who keeps them until the call is over.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a> {
    /// By position, then those of keywords.
    pub(super) values: &'a [*mut ffi::PyObject],
    pub(super) positional: usize,
    /// A tuple of exact or derived `str`, or null.
    names: *mut ffi::PyObject,
}

impl<'a> Arguments<'a> {
    /// # Safety
    /// Attached; what the vectorcall protocol says of the three, for as long as the result lives.
    #[inline(always)]
    pub(super) unsafe fn new(
        values: *const *mut ffi::PyObject,
        positional: usize,
        names: *mut ffi::PyObject,
    ) -> Arguments<'a> {
        // SAFETY: the caller's guarantee. The pointer may be null where there are no arguments.
        let values = unsafe {
            let keywords = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names).unsigned_abs() };
            let count = positional + keywords;
            if count == 0 { &[] } else { std::slice::from_raw_parts(values, count) }
        };
        Arguments { values, positional, names }
    }

    /// The keywords: names and values.
    #[inline]
    pub(super) fn keywords(&self) -> impl Iterator<Item = (*mut ffi::PyObject, *mut ffi::PyObject)> {
        let names = self.names;
        self.values[self.positional..].iter().enumerate().map(move |(index, value)| {
            // SAFETY: there are as many names as values.
            (unsafe { ffi::PyTuple_GET_ITEM(names, index.cast_signed()) }, *value)
        })
    }

    /// Those by position as a tuple.
    pub(super) fn to_tuple<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        // SAFETY: alive, by `new`.
        PyTuple::new(
            py,
            self.values[..self.positional].iter().map(|value| unsafe { Bound::from_borrowed_ptr(py, *value) }),
        )
    }

    /// Calls `callable` with the same arguments.
    pub(super) fn pass_to<'py>(self, callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the protocol's guarantees are passed on.
        unsafe {
            let result = ffi::PyObject_Vectorcall(callable.as_ptr(), self.values.as_ptr(), self.positional, self.names);
            Bound::from_owned_ptr_or_err(callable.py(), result)
        }
    }
}

/// The argument of each parameter, by its place in the signature, of a call that has keywords; null for `*args` and
/// `**kwargs`.
pub(super) struct Slots {
    few: [*mut ffi::PyObject; FEW],
    many: Vec<*mut ffi::PyObject>,
}

impl Slots {
    fn new(count: usize) -> Self {
        let many = if count > FEW { vec![null_mut(); count] } else { Vec::new() };
        Self { few: [null_mut(); FEW], many }
    }

    fn all(&mut self) -> &mut [*mut ffi::PyObject] {
        if self.many.is_empty() { &mut self.few } else { &mut self.many }
    }

    fn get(&self, index: usize) -> *mut ffi::PyObject {
        if self.many.is_empty() { self.few[index] } else { self.many[index] }
    }
}

/// An argument without a form: its parameter.
pub(super) struct Unencoded<'a>(pub(super) &'a Parameter);

impl Parameters {
    /// From name, kind, default (`missing` for none) and whether it is ignored.
    ///
    /// # Errors
    /// [`Error::Argument`]: an order or kinds that no signature has.
    pub(super) fn new(
        py: Python<'_>,
        described: Vec<(Bound<'_, PyString>, u8, Bound<'_, PyAny>, bool)>,
        missing: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let mut all = Vec::with_capacity(described.len());
        for (index, (name, kind, default, is_ignored)) in described.into_iter().enumerate() {
            let kind = match kind {
                0 => Kind::PositionalOnly,
                1 => Kind::PositionalOrKeyword,
                2 => Kind::VarPositional,
                3 => Kind::KeywordOnly,
                4 => Kind::VarKeyword,
                other => return Err(unlike_a_signature("kinds from 0 to 4", other.to_string())),
            };
            let is_owner = index == 0 && kind <= Kind::PositionalOrKeyword && name.to_string_lossy() == "self";
            // SAFETY: attached; replaces the reference by one to the interned str of that value.
            let name = unsafe {
                let mut pointer = name.into_ptr();
                ffi::PyUnicode_InternInPlace(&raw mut pointer);
                Bound::from_owned_ptr(py, pointer).cast_into_unchecked::<PyString>().unbind()
            };
            let default = (!default.is(missing)).then(|| default.unbind());
            all.push(Parameter { name, kind, default, is_ignored, is_owner });
        }
        let variadic = |kind| all.iter().filter(|parameter| parameter.kind == kind).count();
        let (var_positional, var_keyword) = (variadic(Kind::VarPositional), variadic(Kind::VarKeyword));
        if !all.is_sorted_by_key(|parameter| parameter.kind) || var_positional > 1 || var_keyword > 1 {
            return Err(unlike_a_signature("parameters in the order of a signature", "another order".to_owned()));
        }
        let by_keyword = all.iter().any(|parameter| parameter.kind == Kind::KeywordOnly && parameter.default.is_none());
        let positional = all.iter().take_while(|parameter| parameter.kind <= Kind::PositionalOrKeyword).count();
        let required = all[..positional].iter().rposition(|parameter| parameter.default.is_none());
        Ok(Self {
            all: all.into(),
            positional,
            required: (!by_keyword).then(|| required.map_or(0, |last| last + 1)),
            var_positional: var_positional > 0,
            var_keyword: var_keyword > 0,
        })
    }

    /// Finds the argument of each parameter. `slots` stays empty for a call without keywords, whose arguments are found
    /// by their place.
    ///
    /// # Errors
    /// `TypeError`, as the function called `name` raises it, for a call that it does not accept.
    #[inline(always)]
    pub(super) fn bind(
        &self,
        py: Python<'_>,
        arguments: &Arguments<'_>,
        slots: &mut Option<Slots>,
        name: impl FnOnce() -> String,
    ) -> PyResult<()> {
        let given = arguments.positional;
        if arguments.names.is_null()
            && self.required.is_some_and(|required| required <= given)
            && (given <= self.positional || self.var_positional)
        {
            return Ok(());
        }
        let slots = slots.insert(Slots::new(self.all.len()));
        if self.bind_keywords(arguments, slots.all()) { Ok(()) } else { Err(wrong::call(py, self, arguments, &name())) }
    }

    /// Whether the function accepts the call.
    fn bind_keywords(&self, arguments: &Arguments<'_>, slots: &mut [*mut ffi::PyObject]) -> bool {
        let by_position = arguments.positional.min(self.positional);
        slots[..by_position].copy_from_slice(&arguments.values[..by_position]);
        for (name, value) in arguments.keywords() {
            match self.keyword(name) {
                Some(index) if slots[index].is_null() => slots[index] = value,
                None if self.var_keyword => {}
                _ => return false,
            }
        }
        for (slot, parameter) in slots.iter_mut().zip(&self.all) {
            if slot.is_null() {
                match &parameter.default {
                    Some(default) => *slot = default.as_ptr(),
                    None if matches!(parameter.kind, Kind::VarPositional | Kind::VarKeyword) => {}
                    None => return false,
                }
            }
        }
        arguments.positional <= self.positional || self.var_positional
    }

    /// The parameter that a keyword stands for.
    #[inline]
    pub(super) fn keyword(&self, name: *mut ffi::PyObject) -> Option<usize> {
        let accepts = |parameter: &Parameter| matches!(parameter.kind, Kind::PositionalOrKeyword | Kind::KeywordOnly);
        let found = self.all.iter().position(|parameter| parameter.name.as_ptr() == name);
        match found {
            Some(index) => accepts(&self.all[index]).then_some(index),
            // SAFETY: attached, two `str`; runs no Python code.
            None => self.all.iter().position(|parameter| unsafe {
                accepts(parameter) && ffi::PyUnicode_Compare(parameter.name.as_ptr(), name) == 0
            }),
        }
    }

    /// Writes the bound arguments.
    ///
    /// # Errors
    /// The parameter whose argument has no form; the encoder knows why.
    ///
    /// # Safety
    /// Attached; `slots` were bound to `arguments`.
    #[inline(always)]
    pub(super) unsafe fn encode(
        &self,
        encoder: &mut Encoder<'_, '_>,
        arguments: &Arguments<'_>,
        slots: Option<&Slots>,
    ) -> Result<(), Unencoded<'_>> {
        let by_position = &arguments.values[..arguments.positional.min(self.positional)];
        for (index, parameter) in self.all.iter().enumerate() {
            if parameter.is_ignored {
                continue;
            }
            let argument = match (slots, by_position.get(index)) {
                (Some(slots), _) => slots.get(index),
                (None, Some(argument)) => *argument,
                (None, None) => parameter.default.as_ref().map_or(null_mut(), Py::as_ptr),
            };
            // SAFETY: the caller of the function keeps its arguments, and `self` its defaults.
            let done = unsafe {
                if argument.is_null() {
                    self.encode_variadic(encoder, arguments, parameter.kind)
                } else if parameter.is_owner {
                    encoder.owner(argument)
                } else {
                    encoder.value(argument)
                }
            };
            if done.is_err() {
                return Err(Unencoded(parameter));
            }
        }
        Ok(())
    }

    /// `*args` as a tuple, `**kwargs` as a dict.
    #[inline(never)]
    unsafe fn encode_variadic(
        &self,
        encoder: &mut Encoder<'_, '_>,
        arguments: &Arguments<'_>,
        kind: Kind,
    ) -> Result<(), Stop> {
        if kind == Kind::VarPositional {
            let extra = &arguments.values[self.positional.min(arguments.positional)..arguments.positional];
            encoder.count(tag::TUPLE, extra.len())?;
            for (index, value) in extra.iter().enumerate() {
                // SAFETY: the caller of the function keeps its arguments.
                unsafe { encoder.item(index, *value)? };
            }
            return Ok(());
        }
        let extra: Vec<_> = arguments.keywords().filter(|(name, _)| self.keyword(*name).is_none()).collect();
        encoder.count(tag::DICT, extra.len())?;
        let mut entries = Entries::new(encoder.out.len());
        for (name, value) in extra {
            // SAFETY: as above.
            unsafe { encoder.keyword(name, value)? };
            entries.ends.push(encoder.out.len());
        }
        encoder.sort(&entries)
    }

    /// The defaults, for the cyclic collector.
    pub(super) fn references(&self) -> impl Iterator<Item = *mut ffi::PyObject> {
        self.all.iter().filter_map(|parameter| parameter.default.as_ref().map(Py::as_ptr))
    }
}

fn unlike_a_signature(expected: &'static str, found: String) -> PyErr {
    Error::Argument { argument: "parameters", expected: expected.into(), found }.into()
}
