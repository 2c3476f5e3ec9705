//! Reading `int` objects.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

/// The value of an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    Signed(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    /// Beyond 64 bits.
    Big,
}

/// Whether [`Long`] is what an `int` looks like.
static LAYOUT_HOLDS: AtomicBool = AtomicBool::new(false);

/// An `int` of CPython 3.10 to 3.13: up to 3.11 the number of digits with the value's sign, from 3.12 on that number
/// times 8 and the sign in the lowest two bits; then digits of 30 bits, least significant first.
#[repr(C)]
struct Long {
    base: ffi::PyObject,
    #[cfg(not(Py_3_12))]
    size: isize,
    #[cfg(Py_3_12)]
    tag: usize,
    digits: [u32; 2],
}

const DIGIT_BITS: u32 = 30;

/// The value of one or no digit, which most have.
///
/// # Safety
/// Attached; `object` is an exact `int` (or `bool`).
#[inline(always)]
pub(crate) unsafe fn compact(object: *mut ffi::PyObject) -> Option<i64> {
    if !cfg!(not(Py_3_14)) || !LAYOUT_HOLDS.load(Ordering::Relaxed) {
        return None;
    }
    let long = object.cast::<Long>();
    // SAFETY: the layout was checked at import; there is always memory for one digit.
    unsafe {
        let digit = i64::from((&raw const (*long).digits).cast::<u32>().read());
        #[cfg(not(Py_3_12))]
        return match (*long).size {
            1 => Some(digit),
            0 => Some(0),
            -1 => Some(-digit),
            _ => None,
        };
        #[cfg(Py_3_12)]
        return match (*long).tag {
            tag if tag >= 16 => None,
            tag if tag & 3 == 1 => Some(0),
            tag => Some((1 - (tag & 3).cast_signed() as i64) * digit),
        };
    }
}

/// The value of two digits, which times in milliseconds have.
///
/// # Safety
/// Attached; `object` is an exact `int`.
#[inline(always)]
unsafe fn pair(object: *mut ffi::PyObject) -> Option<i64> {
    #[cfg(not(Py_3_12))]
    const PAIR: isize = 2;
    #[cfg(Py_3_12)]
    const PAIR: usize = 2 << 3;
    if !cfg!(not(Py_3_14)) || !LAYOUT_HOLDS.load(Ordering::Relaxed) {
        return None;
    }
    let long = object.cast::<Long>();
    // SAFETY: the layout was checked at import; the digits are read only if there are two.
    unsafe {
        #[cfg(not(Py_3_12))]
        let found = (*long).size;
        #[cfg(Py_3_12)]
        let found = (*long).tag;
        (found == PAIR).then(|| i64::from((*long).digits[0]) | (i64::from((*long).digits[1]) << DIGIT_BITS))
    }
}

/// The value of `object`.
///
/// # Safety
/// Attached; `object` is an exact `int`.
#[inline]
pub(crate) unsafe fn read(object: *mut ffi::PyObject) -> Int {
    // SAFETY: the caller's guarantee.
    match unsafe { compact(object).or_else(|| pair(object)) } {
        Some(value) => Int::Signed(value),
        // SAFETY: as above.
        None => unsafe { read_public(object) },
    }
}

unsafe fn read_public(object: *mut ffi::PyObject) -> Int {
    let mut overflow: c_int = 0;
    // SAFETY: an exact int, for which neither function runs Python code; the second is asked only for positive ones,
    // and its OverflowError is cleared.
    unsafe {
        let value = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
        if overflow == 0 {
            return Int::Signed(value);
        }
        if overflow > 0 {
            let value = ffi::PyLong_AsUnsignedLongLong(object);
            if value != u64::MAX || ffi::PyErr_Occurred().is_null() {
                return Int::Unsigned(value);
            }
            ffi::PyErr_Clear();
        }
    }
    Int::Big
}

/// Compares [`compact`] and [`pair`] with the public functions.
pub(super) fn check_layout(py: Python<'_>) {
    LAYOUT_HOLDS.store(true, Ordering::Relaxed);
    let edge = 1i64 << DIGIT_BITS;
    let holds = [
        0,
        1,
        -1,
        255,
        -300,
        edge - 1,
        1 - edge,
        edge,
        -edge,
        edge + 1,
        edge * edge - 1,
        -edge * edge + 1,
        edge * edge,
        i64::MAX,
        i64::MIN,
    ]
    .iter()
    .all(|value| {
        let Ok(object) = value.into_pyobject(py);
        let expected = (value.unsigned_abs() < edge.unsigned_abs()).then_some(*value);
        let expected_pair = (edge..edge * edge).contains(value).then_some(*value);
        // SAFETY: attached, an exact int; every int has memory for one digit after its size.
        unsafe { compact(object.as_ptr()) == expected && pair(object.as_ptr()) == expected_pair }
    });
    LAYOUT_HOLDS.store(holds, Ordering::Relaxed);
}
