//! `Keyring.seal` and `Keyring.open`: for a short value the call itself takes as long as AES, and so arguments are read here.
#![allow(unsafe_code)]

use super::crypto::{DETACH_ABOVE, Keyring, detached, with_sealed};
use super::frame::Frame;
use super::input::{Input, in_place};
use super::method::{Argument, Signature, add_method};
use crate::buffer::{AlignedBuf, FrameBuf};
use crate::cpython::int::{self, Int};
use crate::crypto::Times;
use crate::error::{Error, Result};
use crate::key::Name;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};
use std::ffi::CStr;

static SEAL: Signature<2, 2> = Signature::new("seal", ["frame", "name"], ["created", "until"]);

const SEAL_DOC: &CStr = c"seal($self, /, frame, name, *, created=None, until=None)\n--\n\n\
    A sealed frame of `frame`'s bytes, for the entry under `name`. They are read once.\n\n\
    Times are in milliseconds since 1970, and every tier sees them. Bytes that may change (anything but `bytes`, a\n\
    `Frame` and views of these) are copied first.";

static OPEN: Signature<2, 0> = Signature::new("open", ["sealed", "name"], []);

const OPEN_DOC: &CStr = c"open($self, /, sealed, name)\n--\n\n\
    The frame inside `sealed`, if that is the entry under `name`, as it was sealed. It stands in aligned memory of its\n\
    own, which is wiped when the last view of it goes.\n\n\
    Raises `EntryRefused`, whose `reason` says why.";

/// Adds both to the class.
pub(super) fn register(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Keyring>();
    add_method(&class, c"seal", seal, SEAL_DOC)?;
    add_method(&class, c"open", open, OPEN_DOC)
}

unsafe extern "C" fn seal(
    keyring: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the protocol of METH_FASTCALL.
    unsafe {
        SEAL.call(keyring, values, count, names, |py, keyring: &Keyring, [frame, name], [created, until]| {
            let asked;
            let tenant = match keyring.fixed_tenant() {
                Some(tenant) => tenant,
                None => {
                    asked = keyring.tenant(py)?;
                    &asked
                }
            };
            let name = Name::from(*name_of(&name).ok_or_else(|| wrong_name(&name))?);
            let times = Times { created: moment(created)?, until: moment(until)? };
            match in_place(&frame) {
                Some(bytes) if bytes.len() <= DETACH_ABOVE => {
                    Bound::new(py, Frame::from(keyring.ring().seal(tenant, &name, bytes, times)?))
                }
                // By value: what is not borrowed need not stand in memory.
                _ => seal_any(&frame, move |bytes| Ok(keyring.ring().seal(tenant, &name, bytes, times)?)),
            }
        })
    }
}

/// Passes the bytes of `frame` to `seal`: those themselves where they cannot change, else a copy.
#[inline(never)]
fn seal_any<'py>(
    frame: &Bound<'py, PyAny>,
    seal: impl FnOnce(&[u8]) -> PyResult<FrameBuf> + Send,
) -> PyResult<Bound<'py, Frame>> {
    let input = Input::from(frame)?;
    let copy;
    let bytes = match input.fixed(frame) {
        Some(bytes) => bytes,
        None => {
            copy = plaintext_of(&input)?;
            copy.as_slice()
        }
    };
    Bound::new(frame.py(), Frame::from(detached(frame.py(), bytes.len(), || seal(bytes))?))
}

unsafe extern "C" fn open(
    keyring: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the protocol of METH_FASTCALL.
    unsafe {
        OPEN.call(keyring, values, count, names, |py, keyring: &Keyring, [sealed, name], []| {
            let asked;
            let tenant = match keyring.fixed_tenant() {
                Some(tenant) => tenant,
                None => {
                    asked = keyring.tenant(py)?;
                    &asked
                }
            };
            let name = Name::from(*name_of(&name).ok_or_else(|| wrong_name(&name))?);
            match in_place(&sealed) {
                Some(bytes) if bytes.len() <= DETACH_ABOVE => {
                    Bound::new(py, Frame::from(keyring.ring().open(tenant, &name, bytes)?))
                }
                _ => open_any(&sealed, move |bytes| Ok(keyring.ring().open(tenant, &name, bytes)?)),
            }
        })
    }
}

#[inline(never)]
fn open_any<'py>(
    sealed: &Bound<'py, PyAny>,
    open: impl FnOnce(&[u8]) -> PyResult<FrameBuf> + Send,
) -> PyResult<Bound<'py, Frame>> {
    Bound::new(sealed.py(), Frame::from(with_sealed(sealed.py(), sealed, open)?))
}

/// An `int` is read here: a result that holds an error has to go through memory.
#[inline(always)]
fn moment(given: Option<Argument<'_, '_>>) -> PyResult<Option<u64>> {
    let Some(object) = given.filter(|object| !object.is_none()) else { return Ok(None) };
    if object.is_exact_instance_of::<PyInt>() {
        // SAFETY: attached, an exact int.
        if let Int::Signed(moment @ 0..) = unsafe { int::read(object.as_ptr()) } {
            return Ok(Some(moment.unsigned_abs()));
        }
    }
    any_moment(object).map(Some)
}

#[cold]
fn any_moment(object: Argument<'_, '_>) -> PyResult<u64> {
    object.extract()
}

fn name_of<'a>(name: &'a Bound<'_, PyAny>) -> Option<&'a [u8; 32]> {
    name.cast::<PyBytes>().ok()?.as_bytes().try_into().ok()
}

#[cold]
fn wrong_name(name: &Bound<'_, PyAny>) -> PyErr {
    let Ok(bytes) = name.cast::<PyBytes>() else {
        return match name.get_type().name() {
            Ok(found) => PyTypeError::new_err(format!("name: expected bytes, got {found}")),
            Err(failed) => failed,
        };
    };
    let expected = "32 bytes, as `names` gives them".into();
    Error::Argument { argument: "name", expected, found: format!("{} bytes", bytes.as_bytes().len()) }.into()
}

/// A copy that is wiped when it goes.
fn plaintext_of(input: &Input<'_, '_>) -> Result<AlignedBuf> {
    let mut buffer = AlignedBuf::plaintext(input.len())?;
    if let Input::Foreign(exported) = input {
        exported.append_to(&mut buffer, 0, input.len())?;
    }
    Ok(buffer)
}
