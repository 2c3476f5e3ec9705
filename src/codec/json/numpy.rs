//! Writing NumPy's arrays and scalars, from the memory that `__array_struct__` describes.
#![allow(unsafe_code)]

use super::MAX_WRITE_DEPTH;
use super::dates::{Stamp, civil, first_of_month};
use super::encode::{Cursor, Done, Encoder, ROOM};
use super::fault::Fault;
use super::types::loaded;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::{c_char, c_int, c_void};

/// What `__array_struct__` holds (`PyArrayInterface`, version 2).
#[repr(C)]
struct Interface {
    two: c_int,
    dimensions: c_int,
    kind: c_char,
    item_size: c_int,
    flags: c_int,
    shape: *const isize,
    strides: *const isize,
    data: *const c_void,
    descr: *mut ffi::PyObject,
}

const C_CONTIGUOUS: c_int = 0x1;
const NATIVE: c_int = 0x200;

/// The types of items that have a form.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
    Moment(Unit),
}

impl Kind {
    fn of(interface: &Interface) -> Option<Self> {
        Some(match (interface.kind as u8, interface.item_size) {
            (b'b', 1) => Self::Bool,
            (b'i', 1) => Self::I8,
            (b'i', 2) => Self::I16,
            (b'i', 4) => Self::I32,
            (b'i', 8) => Self::I64,
            (b'u', 1) => Self::U8,
            (b'u', 2) => Self::U16,
            (b'u', 4) => Self::U32,
            (b'u', 8) => Self::U64,
            (b'f', 2) => Self::F16,
            (b'f', 4) => Self::F32,
            (b'f', 8) => Self::F64,
            (b'M', 8) => Self::Moment(Unit { name: "NaT", factor: 1 }),
            _ => return None,
        })
    }
}

/// What a datetime64 counts.
#[derive(Clone, Copy)]
struct Unit {
    name: &'static str,
    factor: i64,
}

impl Unit {
    /// From the name of a dtype, as in `<M8[25s]`.
    fn of(dtype: &str) -> Self {
        let inside = dtype.split_once('[').map_or("", |(_, rest)| rest.trim_end_matches(']'));
        let letters = inside.trim_start_matches(|char: char| char.is_ascii_digit());
        let factor = inside[..inside.len() - letters.len()].parse().unwrap_or(1);
        let name = match letters {
            "Y" => "years",
            "M" => "months",
            "W" => "weeks",
            "D" => "days",
            "h" => "hours",
            "m" => "minutes",
            "s" => "seconds",
            "ms" => "milliseconds",
            "us" => "microseconds",
            "ns" => "nanoseconds",
            "ps" => "picoseconds",
            "fs" => "femtoseconds",
            "as" => "attoseconds",
            _ => "NaT",
        };
        Self { name, factor }
    }

    /// Microseconds since 1970.
    ///
    /// # Errors
    /// Whether the unit, rather than the value, is at fault.
    fn micros(self, value: i64) -> Result<i128, bool> {
        const DAY: i128 = 86_400_000_000;
        if value == i64::MIN && self.name != "NaT" {
            return Err(false);
        }
        let counted = i128::from(value) * i128::from(self.factor);
        let months = |months: i128| {
            // Far beyond what can be shown, and far below what overflows.
            let months = months.clamp(-1_000_000, 1_000_000) as i64;
            i128::from(first_of_month(months)) * DAY
        };
        Ok(match self.name {
            "years" => months(counted.saturating_mul(12)),
            "months" => months(counted),
            "weeks" => counted * 7 * DAY,
            "days" => counted * DAY,
            "hours" => counted * 3_600_000_000,
            "minutes" => counted * 60_000_000,
            "seconds" => counted * 1_000_000,
            "milliseconds" => counted * 1000,
            "microseconds" => counted,
            "nanoseconds" => counted.div_euclid(1000),
            _ => return Err(true),
        })
    }
}

impl<'py> Encoder<'_, 'py> {
    /// Writes an array or a scalar; `None` if it is neither, or has no form.
    pub(super) fn numpy<const INDENT: bool>(&mut self, at: Cursor, object: &Bound<'py, PyAny>) -> Option<Done> {
        static ARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static SCALAR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = self.py;
        let class = object.get_type_ptr();
        let is_array = loaded(py, &ARRAY, intern!(py, "numpy"), intern!(py, "ndarray"))?.as_type_ptr() == class;
        let scalar = loaded(py, &SCALAR, intern!(py, "numpy"), intern!(py, "generic"))?.as_type_ptr();
        // SAFETY: classes are alive.
        if !is_array && unsafe { ffi::PyType_IsSubtype(class, scalar) } == 0 {
            return None;
        }
        let capsule = object.getattr(intern!(py, "__array_struct__")).ok()?;
        // SAFETY: the capsule that NumPy makes holds such a struct, which lives as long as the capsule, and keeps the
        // array. Its data may be changed by other code, but not while this runs with the GIL.
        unsafe {
            let interface = ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()).cast::<Interface>();
            if interface.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            let interface = &*interface;
            let kind = Kind::of(interface).filter(|_| interface.two == 2);
            if is_array && interface.flags & C_CONTIGUOUS == 0 {
                return self.no_array("numpy array is not C contiguous; use ndarray.tolist() in default");
            }
            if is_array && (interface.dimensions < 1 || kind.is_none()) {
                return self.no_array("unsupported datatype in numpy array");
            }
            let mut kind = kind?;
            if interface.flags & NATIVE == 0 {
                return Some(self.unfit("numpy array is not native-endianness"));
            }
            if let Kind::Moment(unit) = &mut kind {
                let name = object.getattr(intern!(py, "dtype")).and_then(|dtype| dtype.getattr(intern!(py, "str")));
                *unit = Unit::of(&name.and_then(|name| name.extract::<String>()).unwrap_or_default());
            }
            let data = interface.data.cast::<u8>();
            if !is_array {
                return Some(self.item(at, kind, data));
            }
            let shape = std::slice::from_raw_parts(interface.shape, interface.dimensions.unsigned_abs() as usize);
            let size = interface.item_size.unsigned_abs() as usize;
            let mut data = data;
            Some(self.axis::<INDENT>(at, shape, kind, size, &mut data))
        }
    }

    /// An array without a form: `default` is asked, if there is one.
    fn no_array(&mut self, message: &str) -> Option<Done> {
        if self.default.is_some() { None } else { Some(self.unfit(message)) }
    }

    /// Writes the items of the first of the axes that are left.
    ///
    /// # Safety
    /// Attached; `data` is followed by as many items as the shape says.
    unsafe fn axis<const INDENT: bool>(
        &mut self,
        at: Cursor,
        shape: &[isize],
        kind: Kind,
        size: usize,
        data: &mut *const u8,
    ) -> Done {
        let [count, inner @ ..] = shape else { return Some(at) };
        if *count == 0 {
            return self.put(at, b"[]");
        }
        if self.depth >= MAX_WRITE_DEPTH {
            return self.unfit("Recursion limit reached");
        }
        // SAFETY: the caller's guarantee; `ROOM`.
        unsafe {
            at.write(b'[');
            let mut at = self.reserve(at.add(1), ROOM)?;
            self.open_level();
            for _ in 0..*count {
                if INDENT {
                    at = self.line(at)?;
                }
                let after = if inner.is_empty() {
                    let item = *data;
                    *data = item.add(size);
                    self.item(at, kind, item)?
                } else {
                    self.axis::<INDENT>(at, inner, kind, size, data)?
                };
                after.write(b',');
                at = after.add(1);
            }
            let closed = self.close::<INDENT>(at, b']');
            self.close_level();
            closed
        }
    }

    /// # Safety
    /// Attached; an item of that kind is at `data`.
    #[inline]
    unsafe fn item(&mut self, at: Cursor, kind: Kind, data: *const u8) -> Done {
        // SAFETY: the caller's guarantee; items need not be aligned.
        unsafe {
            match kind {
                Kind::Bool if *data == 0 => self.put(at, b"false"),
                Kind::Bool => self.put(at, b"true"),
                Kind::I8 => self.signed(at, data.cast::<i8>().read().into()),
                Kind::I16 => self.signed(at, data.cast::<i16>().read_unaligned().into()),
                Kind::I32 => self.signed(at, data.cast::<i32>().read_unaligned().into()),
                Kind::I64 => self.signed(at, data.cast::<i64>().read_unaligned()),
                Kind::U8 => self.unsigned(at, data.read().into()),
                Kind::U16 => self.unsigned(at, data.cast::<u16>().read_unaligned().into()),
                Kind::U32 => self.unsigned(at, data.cast::<u32>().read_unaligned().into()),
                Kind::U64 => self.unsigned(at, data.cast::<u64>().read_unaligned()),
                Kind::F16 => self.single(at, half(data.cast::<u16>().read_unaligned())),
                Kind::F32 => self.single(at, data.cast::<f32>().read_unaligned()),
                Kind::F64 => self.float(at, data.cast::<f64>().read_unaligned()),
                Kind::Moment(unit) => self.moment(at, unit, data.cast::<i64>().read_unaligned()),
            }
        }
    }

    fn moment(&mut self, at: Cursor, unit: Unit, value: i64) -> Done {
        let name = unit.name;
        let micros = match unit.micros(value) {
            Ok(micros) => micros,
            Err(true) => return self.fail(Fault::Unfit(format!("unsupported numpy.datetime64 unit: {name}"))),
            Err(false) => i128::MAX,
        };
        let (seconds, micro) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as u32);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
        let year = i64::try_from(days).ok().filter(|days| days.abs() < 10_000_000).map(civil);
        let Some((year @ 0..=9999, month, day)) = year else {
            let message = format!("unrepresentable numpy.datetime64: {value} {name}");
            return self.fail(Fault::Unfit(message));
        };
        let mut stamp = Stamp::new();
        stamp.date(year as u32, month, day);
        stamp.separator();
        stamp.time(self.options, second / 3600, second / 60 % 60, second % 60, micro);
        stamp.zone(self.options, None);
        self.quoted(at, stamp.as_bytes())
    }
}

/// A float of two bytes.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}
