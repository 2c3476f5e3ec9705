//! What a cached function does with a call: canonical bytes, the entry under them, the key that they are.
#![allow(unsafe_code)]

use super::bind::{Arguments, Parameters, Unencoded};
use super::encode::{Encoder, Fault, tag};
use super::tier::{L1, SCOPE};
use crate::cpython::{Sink, Writer};
use crate::error::Error;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::cell::Cell;

/// Hexadecimal digits of a hash.
const DIGITS: usize = 2 * blake3::OUT_LEN;

/// A cached function.
pub(super) struct Function {
    l1: Py<L1>,
    /// The function's number, which keeps its entries apart from others' in L1.
    scope: u32,
    /// The hash of what identifies the function in all processes: hashes of its arguments are keyed with it.
    identity: [u8; blake3::OUT_LEN],
    /// What keys begin with.
    pub(super) label: Py<PyString>,
    parameters: Parameters,
    /// Called where L1 has nothing to serve.
    pub(super) miss: Option<Py<PyAny>>,
    /// From an object without a form of its own to its label and state.
    describe: Py<PyAny>,
    /// Makes what is encoded instead of the arguments.
    key: Option<Py<PyAny>>,
    views: bool,
    pub(super) hits: Cell<u64>,
}

/// What [`Function::new`] is given.
pub(super) struct Options<'py> {
    pub(super) l1: Py<L1>,
    pub(super) scope: u32,
    pub(super) identity: Vec<u8>,
    pub(super) label: Bound<'py, PyString>,
    pub(super) parameters: Parameters,
    pub(super) miss: Option<Py<PyAny>>,
    pub(super) describe: Py<PyAny>,
    pub(super) key: Option<Py<PyAny>>,
    pub(super) views: bool,
}

impl Function {
    pub(super) fn new(options: Options<'_>) -> Self {
        let Options { l1, scope, identity, label, parameters, miss, describe, key, views } = options;
        let (identity, label) = (blake3::hash(&identity).into(), label.unbind());
        Self { l1, scope, identity, label, parameters, miss, describe, key, views, hits: Cell::new(0) }
    }

    /// The value of a call in L1, or what `missed` makes of its canonical bytes.
    ///
    /// # Errors
    /// `TypeError` for a wrong call, `EncodeError` for an argument without a form, what Python code raised.
    #[inline(always)]
    pub(super) fn look_up<'py>(
        &self,
        py: Python<'py>,
        arguments: &Arguments<'_>,
        name: impl FnOnce() -> String,
        missed: impl FnOnce(&Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Writer::with(Sink::Bytes, |out| {
            self.encode(py, out, arguments, name)?;
            let l1 = self.l1.get();
            if !l1.is_slow()
                && let Some(value) = l1.hit(py, out.written_from(0), self.views)?
            {
                self.hits.set(self.hits.get() + 1);
                return Ok(value);
            }
            missed(&out.finish_bytes(py)?)
        })
    }

    /// Scope and encoding of a call.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(super) fn canonical<'py>(
        &self,
        py: Python<'py>,
        arguments: &Arguments<'_>,
        name: impl FnOnce() -> String,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Writer::with(Sink::Bytes, |out| {
            self.encode(py, out, arguments, name)?;
            Ok(out.finish_bytes(py)?)
        })
    }

    /// The key of a call.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(super) fn key<'py>(
        &self,
        py: Python<'py>,
        arguments: &Arguments<'_>,
        name: impl FnOnce() -> String,
    ) -> PyResult<Bound<'py, PyString>> {
        Writer::with(Sink::Bytes, |out| {
            self.encode(py, out, arguments, name)?;
            self.key_from(py, out.written_from(SCOPE))
        })
    }

    /// The key that canonical bytes of this function are.
    ///
    /// # Errors
    /// [`Error::Argument`] for bytes that are not this function's.
    pub(super) fn key_of<'py>(&self, py: Python<'py>, canonical: &[u8]) -> PyResult<Bound<'py, PyString>> {
        match canonical.split_first_chunk::<SCOPE>() {
            Some((scope, encoding)) if u32::from_le_bytes(*scope) == self.scope => self.key_from(py, encoding),
            _ => {
                let expected = "canonical bytes of this function".into();
                Err(Error::Argument { argument: "canonical", expected, found: "others".into() }.into())
            }
        }
    }

    /// Canonical bytes of the entry in L1 whose key is `key`.
    pub(super) fn find<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let label = self.label.bind(py).to_string_lossy();
        let digits = key.strip_prefix(&*label).and_then(|rest| rest.strip_prefix('#'));
        let Some(wanted) = digits.and_then(|digits| blake3::Hash::from_hex(digits).ok()) else {
            return Ok(None);
        };
        let mut found = None;
        self.l1.get().each_key(self.scope, |encoding| {
            if found.is_none() && blake3::keyed_hash(&self.identity, encoding) == wanted {
                found = Some([&self.scope.to_le_bytes(), encoding].concat());
            }
        });
        Ok(found.map(|canonical| PyBytes::new(py, &canonical)))
    }

    /// Writes scope and bound arguments, or scope and what `key=` made.
    #[inline(always)]
    fn encode(
        &self,
        py: Python<'_>,
        out: &mut Writer,
        arguments: &Arguments<'_>,
        name: impl FnOnce() -> String,
    ) -> PyResult<()> {
        let mut slots = None;
        self.parameters.bind(py, arguments, &mut slots, name)?;
        out.reserve(SCOPE).map_err(Error::from)?;
        // SAFETY: reserved.
        unsafe { out.put(self.scope.to_le_bytes()) };
        let mut encoder = Encoder::new(py, out, &self.describe);
        if let Some(key) = &self.key {
            return self.encode_key(key.bind(py), &mut encoder, arguments);
        }
        // SAFETY: attached; bound above.
        match unsafe { self.parameters.encode(&mut encoder, arguments, slots.as_ref()) } {
            Ok(()) => Ok(()),
            Err(unencoded) => Err(self.unencoded(py, &mut encoder, &unencoded)),
        }
    }

    #[inline(never)]
    fn encode_key(
        &self,
        key: &Bound<'_, PyAny>,
        encoder: &mut Encoder<'_, '_>,
        arguments: &Arguments<'_>,
    ) -> PyResult<()> {
        let py = key.py();
        let made = arguments.pass_to(key)?;
        let done = encoder.byte(tag::KEY).and_then(|()| {
            // SAFETY: attached; `made` is held.
            unsafe { encoder.value(made.as_ptr()) }
        });
        done.map_err(|_| match encoder.take_fault() {
            (Fault::Raised(error), _) => error,
            (Fault::Unfit { expected, found }, path) => {
                let at = if path.is_empty() { "" } else { ", at " };
                let place = format!("what key= of {} returned{at}{path}", self.label.bind(py).to_string_lossy());
                Error::Encode { place, expected, found }.into()
            }
        })
    }

    #[cold]
    fn unencoded(&self, py: Python<'_>, encoder: &mut Encoder<'_, '_>, Unencoded(parameter): &Unencoded<'_>) -> PyErr {
        let (expected, found, path) = match encoder.take_fault() {
            (Fault::Raised(error), _) => return error,
            (Fault::Unfit { expected, found }, path) => (expected, found, path),
        };
        let name = parameter.name.bind(py).to_string_lossy();
        Error::Encode {
            place: format!("argument {name}{path} of {}", self.label.bind(py).to_string_lossy()),
            expected: format!("{expected}; or a function key= that makes the key, or ignore=(\"{name}\",)").into(),
            found,
        }
        .into()
    }

    /// Label, `#` and the hash of an encoding.
    #[inline]
    fn key_from<'py>(&self, py: Python<'py>, encoding: &[u8]) -> PyResult<Bound<'py, PyString>> {
        let hash = blake3::keyed_hash(&self.identity, encoding);
        let label = self.label.as_ptr();
        // SAFETY: attached; the label is an exact str.
        let Some(ascii) = (unsafe { crate::cpython::text::ascii_of(label) }) else {
            return Ok(PyString::new(py, &format!("{}#{}", self.label.bind(py).to_string_lossy(), hash.to_hex())));
        };
        // SAFETY: attached; a new str of so many ASCII characters, all of which are written before it is seen.
        unsafe {
            let size = ascii.len() + 1 + DIGITS;
            let key = Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(size.cast_signed(), 127))?;
            let start = ffi::PyUnicode_DATA(key.as_ptr()).cast::<u8>();
            start.copy_from_nonoverlapping(ascii.as_ptr(), ascii.len());
            start.add(ascii.len()).write(b'#');
            let digits = std::slice::from_raw_parts_mut(start.add(ascii.len() + 1), DIGITS);
            write_hex(hash.as_bytes(), digits);
            Ok(key.cast_into_unchecked())
        }
    }

    /// The objects that it refers to, for the cyclic collector.
    pub(super) fn references(&self) -> impl Iterator<Item = *mut ffi::PyObject> {
        let own = [Some(self.l1.as_ptr()), Some(self.describe.as_ptr()), self.miss.as_ref().map(Py::as_ptr)];
        let key = self.key.as_ref().map(Py::as_ptr);
        own.into_iter().chain([key]).flatten().chain(self.parameters.references())
    }
}

/// Lower-case hexadecimal digits, two a byte.
#[inline]
fn write_hex(bytes: &[u8; blake3::OUT_LEN], digits: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
}

#[inline]
fn digit(value: u8) -> u8 {
    value + if value < 10 { b'0' } else { b'a' - 10 }
}
