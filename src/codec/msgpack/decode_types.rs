//! Reading the extension types.
#![allow(unsafe_code)]

use super::classes::{self, Entry};
use super::code;
use super::decode::{Decoder, Found};
use super::fault::Stop;
use crate::cpython::new_str::new_str_with_surrogates;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDate, PyDateTime, PyDelta, PySlice, PyString, PyTime, PyTuple, PyType, PyTzInfo};

impl<'a, 'py> Decoder<'a, 'py> {
    /// The payload of an extension of this codec, which ends at `self.end`.
    #[inline(never)]
    pub(super) fn python_type(&mut self, start: usize, code: i8) -> Found {
        self.resume_collector();
        match code {
            code::TUPLE => {
                let base = self.payload_items(start)?;
                let tuple = self.stack.pop_tuple(base);
                tuple.ok_or_else(|| self.raised())
            }
            code::SET | code::FROZENSET => self.set(start, code),
            code::INT => self.big_int(start),
            code::SURROGATES => {
                let text_start = self.at;
                let bytes = self.rest();
                // SAFETY: attached.
                unsafe { new_str_with_surrogates(bytes) }.map_err(|invalid| self.invalid(text_start, &invalid))
            }
            code::BYTEARRAY => {
                let bytes = self.rest();
                // SAFETY: attached.
                let object = unsafe { ffi::PyByteArray_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize) };
                self.owned(object)
            }
            code::COMPLEX => {
                let (real, imag) = (f64::from_be_bytes(self.take_array()?), f64::from_be_bytes(self.take_array()?));
                // SAFETY: attached.
                let object = unsafe { ffi::PyComplex_FromDoubles(real, imag) };
                self.owned(object)
            }
            code::DECIMAL => self.decimal(start),
            code::DATETIME | code::DATE | code::TIME | code::TIMEDELTA => self.moment(start, code),
            code::UUID => self.uuid(start),
            code::RANGE | code::SLICE => self.start_stop_step(start, code),
            code::ENUM | code::NAMEDTUPLE | code::DATACLASS | code::OBJECT => self.application(start, code),
            code::FRACTION | code::PATH | code::IP | code::ARRAY | code::SCALAR => self.in_python(start, code),
            _ => Err(self.fail_at(start, "a type that this version knows", format!("the extension type {code}"))),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        self.take(self.end - self.at).unwrap_or_default()
    }

    /// The items of the array that the payload is.
    fn payload_items(&mut self, start: usize) -> Result<usize, Stop> {
        let count = self.array_count(start)?;
        self.items(start, count)
    }

    fn array_count(&mut self, start: usize) -> Result<usize, Stop> {
        let [marker] = self.take_array()?;
        match marker {
            0x90..=0x9f => Ok(usize::from(marker & 0x0f)),
            0xdc => Ok(u16::from_be_bytes(self.take_array()?).into()),
            0xdd => Ok(u32::from_be_bytes(self.take_array()?) as usize),
            _ => Err(self.fail_at(start, "an extension with an array", format!("the byte {marker:#04x}"))),
        }
    }

    fn map_count(&mut self, start: usize) -> Result<usize, Stop> {
        let [marker] = self.take_array()?;
        match marker {
            0x80..=0x8f => Ok(usize::from(marker & 0x0f)),
            0xde => Ok(u16::from_be_bytes(self.take_array()?).into()),
            0xdf => Ok(u32::from_be_bytes(self.take_array()?) as usize),
            _ => Err(self.fail_at(start, "an extension with a map", format!("the byte {marker:#04x}"))),
        }
    }

    fn set(&mut self, start: usize, code: i8) -> Found {
        let base = self.payload_items(start)?;
        self.check_keys(start, base, 1)?;
        // SAFETY: attached; the stack holds the items while they are hashed and compared.
        let set = unsafe {
            let set = if code == code::SET { ffi::PySet_New } else { ffi::PyFrozenSet_New }(std::ptr::null_mut());
            self.owned(set)?
        };
        // SAFETY: as above; a new frozenset that nobody else has seen may be added to.
        let added =
            self.stack.from(base).iter().all(|item| unsafe { ffi::PySet_Add(set.as_ptr(), item.as_ptr()) == 0 });
        if !added {
            return Err(self.unhashable(start));
        }
        self.stack.truncate(base);
        Ok(set)
    }

    fn big_int(&mut self, start: usize) -> Found {
        let max = self.max_int_bytes;
        let bytes = self.rest();
        if bytes.is_empty() || bytes.len() > max {
            let found = format!("{}", bytes.len());
            return Err(self.fail_at(start, format!("an int of 1 to {max} bytes (see limits=)"), found));
        }
        let py = self.py;
        let bytes = pyo3::types::PyBytes::new(py, bytes);
        let int = (|| {
            let signed = pyo3::types::PyDict::new(py);
            signed.set_item(intern!(py, "signed"), true)?;
            let class = py.get_type::<pyo3::types::PyInt>();
            class.call_method(intern!(py, "from_bytes"), (bytes, intern!(py, "big")), Some(&signed))
        })();
        self.made(start, "an int", int)
    }

    /// What a constructor made of the payload, or its refusal.
    fn made(&mut self, start: usize, what: impl Into<crate::error::Text>, made: PyResult<Bound<'py, PyAny>>) -> Found {
        match made {
            Ok(object) => self.owned(object.into_ptr()),
            Err(error) => Err(self.refused(start, what, error)),
        }
    }

    fn decimal(&mut self, start: usize) -> Found {
        let max = self.max_int_bytes;
        let text = self.rest();
        // What `str(Decimal)` writes; the constructor takes more, such as spaces, underscores and other digits.
        let is_canonical =
            |byte: &u8| byte.is_ascii_digit() || b"+-.E".contains(byte) || b"NaNsInfinity".contains(byte);
        if text.len() > max || !text.iter().all(is_canonical) {
            let found = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
            return Err(self.fail_at(start, format!("a Decimal of at most {max} characters (see limits=)"), found));
        }
        let text = PyString::new(self.py, &String::from_utf8_lossy(text));
        static DECIMAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let made = DECIMAL.import(self.py, "decimal", "Decimal").and_then(|class| {
            let made = class.call1((&text,))?;
            // The context may ask for a small e.
            let again = made.str()?.to_string_lossy().replace('e', "E");
            if text.to_string_lossy() == again {
                Ok(made)
            } else {
                Err(PyTypeError::new_err(format!("not {again:.40}")))
            }
        });
        self.made(start, "a Decimal", made)
    }

    fn uuid(&mut self, start: usize) -> Found {
        let py = self.py;
        let bytes = self.take_array::<16>()?;
        let safe = match self.rest() {
            [] => None,
            [0] => Some(0),
            [0xff] => Some(-1),
            _ => return Err(self.fail_at(start, "16 bytes, and 0 or -1 for how a UUID was generated", "others")),
        };
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static SAFE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let made = (|| {
            let class = CLASS.import(py, "uuid", "UUID")?;
            let fields = pyo3::types::PyDict::new(py);
            fields.set_item(intern!(py, "bytes"), pyo3::types::PyBytes::new(py, &bytes))?;
            if let Some(safe) = safe {
                fields.set_item(intern!(py, "is_safe"), SAFE.import(py, "uuid", "SafeUUID")?.call1((safe,))?)?;
            }
            class.call((), Some(&fields))
        })();
        self.made(start, "a UUID", made)
    }

    fn moment(&mut self, start: usize, code: i8) -> Found {
        let py = self.py;
        let made = match code {
            code::TIMEDELTA => {
                let mut part = || self.take_array().map(i32::from_be_bytes);
                let (days, seconds, micros) = (part()?, part()?, part()?);
                let is_normalized = (0..86_400).contains(&seconds) && (0..1_000_000).contains(&micros);
                if !is_normalized {
                    return Err(self.fail_at(start, "seconds of a day and microseconds of a second", "more or less"));
                }
                PyDelta::new(py, days, seconds, micros, false).map(Bound::into_any)
            }
            code::DATE => {
                let [high, low, month, day] = self.take_array()?;
                PyDate::new(py, u16::from_be_bytes([high, low]).into(), month, day).map(Bound::into_any)
            }
            code::TIME => {
                let (hour, minute, second, micro, fold) = self.clock()?;
                let zone = self.zone(start)?;
                PyTime::new_with_fold(py, hour, minute, second, micro, zone.as_ref(), fold).map(Bound::into_any)
            }
            _ => {
                let [high, low, month, day] = self.take_array()?;
                let (hour, minute, second, micro, fold) = self.clock()?;
                let zone = self.zone(start)?;
                let year = u16::from_be_bytes([high, low]).into();
                PyDateTime::new_with_fold(py, year, month, day, hour, minute, second, micro, zone.as_ref(), fold)
                    .map(Bound::into_any)
            }
        };
        self.made(start, "a date or time in its range", made)
    }

    fn clock(&mut self) -> Result<(u8, u8, u8, u32, bool), Stop> {
        let [hour, minute, second, a, b, c] = self.take_array()?;
        Ok((hour & 0x7f, minute, second, u32::from_be_bytes([0, a, b, c]), hour & 0x80 != 0))
    }

    fn zone(&mut self, start: usize) -> Result<Option<Bound<'py, PyTzInfo>>, Stop> {
        if self.at == self.end {
            return Ok(None);
        }
        let described = self.value()?;
        // SAFETY: attached, a new reference.
        let described = unsafe { Bound::from_owned_ptr(self.py, described.into_ptr()) };
        let zone = classes::types(self.py)
            .and_then(|types| types.call_method1(intern!(self.py, "zone"), (described,)))
            .and_then(|zone| Ok(zone.cast_into::<PyTzInfo>()?));
        zone.map(Some).map_err(|error| self.refused(start, "a time zone of this machine", error))
    }

    fn start_stop_step(&mut self, start: usize, code: i8) -> Found {
        let base = self.payload_items(start)?;
        let count = self.stack.len() - base;
        if count != 3 {
            self.stack.truncate(base);
            return Err(self.fail_at(start, "start, stop and step", format!("{count} values")));
        }
        let parts = self.stack.pop_tuple(base).ok_or_else(|| self.raised())?;
        // SAFETY: attached, a new tuple.
        let parts = unsafe { Bound::from_owned_ptr(self.py, parts.into_ptr()).cast_into_unchecked::<PyTuple>() };
        let class = if code == code::SLICE {
            self.py.get_type::<PySlice>()
        } else {
            self.py.get_type::<pyo3::types::PyRange>()
        };
        let made = class.call1(parts);
        self.made(start, "start, stop and step", made)
    }

    /// An instance of a class that was registered.
    fn application(&mut self, start: usize, code: i8) -> Found {
        let count = self.array_count(start)?;
        if count != 2 {
            return Err(self.fail_at(start, "a class and what its instance is made of", format!("{count} values")));
        }
        let name = self.value()?;
        // SAFETY: attached, a new reference.
        let name = unsafe { Bound::from_owned_ptr(self.py, name.into_ptr()) };
        let Ok(name) = name.cast_into_exact::<PyString>() else {
            return Err(self.fail_at(start, "the name of a class", "another type"));
        };
        let entry = match Entry::of_name(&name) {
            Ok(Some(entry)) if entry.code == code => entry,
            Ok(Some(_)) => {
                return Err(self.fail_at(start, format!("{name} to be of the kind it was"), "another kind of class"));
            }
            Ok(None) => {
                let expected = "a registered class: call framecache.register on it before reading";
                return Err(self.fail_at(
                    start,
                    expected,
                    format!("{:.200?}", name.to_string_lossy().chars().take(200).collect::<String>()),
                ));
            }
            Err(error) => return Err(self.raise(error)),
        };
        match code {
            code::DATACLASS => self.dataclass(start, &entry),
            code::NAMEDTUPLE => self.namedtuple(start, &entry),
            code::ENUM => self.member(start, &entry),
            _ => {
                let packed = self.value()?;
                // SAFETY: attached, a new reference.
                let packed = unsafe { Bound::from_owned_ptr(self.py, packed.into_ptr()) };
                let made = entry.unpack.call1((packed,));
                self.made(start, "what the class's unpack accepts", made)
            }
        }
    }

    fn dataclass(&mut self, start: usize, entry: &Entry<'py>) -> Found {
        let count = self.map_count(start)?;
        if count != entry.fields.len() {
            let expected = format!("the {} fields of {}", entry.fields.len(), entry.name);
            return Err(self.fail_at(start, expected, format!("{count}; the class has changed")));
        }
        let (base, _) = self.pairs(start, count)?;
        let made = self.instance(entry, base);
        self.stack.truncate(base);
        self.made(start, format!("the fields of {}", entry.name), made)
    }

    /// An instance with the fields on the stack, without `__init__` or the class's `__setattr__`.
    fn instance(&mut self, entry: &Entry<'py>, base: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let object = py.get_type::<PyAny>().call_method1(intern!(py, "__new__"), (&entry.class,))?;
        let mut seen = vec![false; entry.fields.len()];
        for pair in self.stack.from(base).chunks_exact(2) {
            // SAFETY: attached; the stack holds both.
            let name = unsafe { Bound::from_borrowed_ptr(py, pair[0].as_ptr()) };
            let Some(index) = entry.fields.iter_borrowed().position(|field| field.eq(&name).unwrap_or(false)) else {
                return Err(PyTypeError::new_err(format!("no field {:.80}", name.repr()?.to_string_lossy())));
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(PyTypeError::new_err("a field that comes twice"));
            }
            // SAFETY: attached; `object.__setattr__` on an object of a class that `object.__new__` made.
            let failed =
                unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), pair[0].as_ptr(), pair[1].as_ptr()) != 0 };
            if failed {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(object)
    }

    fn namedtuple(&mut self, start: usize, entry: &Entry<'py>) -> Found {
        let base = self.payload_items(start)?;
        let count = self.stack.len() - base;
        if count != entry.fields.len() {
            self.stack.truncate(base);
            let expected = format!("the {} fields of {}", entry.fields.len(), entry.name);
            return Err(self.fail_at(start, expected, format!("{count}; the class has changed")));
        }
        let items = self.stack.pop_tuple(base).ok_or_else(|| self.raised())?;
        // SAFETY: attached, a new tuple.
        let items = unsafe { Bound::from_owned_ptr(self.py, items.into_ptr()) };
        let class = self.py.get_type::<PyTuple>();
        let made = class.call_method1(intern!(self.py, "__new__"), (&entry.class, items));
        self.made(start, format!("the fields of {}", entry.name), made)
    }

    fn member(&mut self, start: usize, entry: &Entry<'py>) -> Found {
        let member = self.value()?;
        // SAFETY: attached, a new reference.
        let member = unsafe { Bound::from_owned_ptr(self.py, member.into_ptr()) };
        let made =
            if entry.fields.is_empty() { entry.class.as_any().get_item(member) } else { entry.class.call1((member,)) };
        self.made(start, format!("a member of {}", entry.name), made)
    }

    /// Types that `framecache._types` reads: a value, and for arrays their data.
    fn in_python(&mut self, start: usize, code: i8) -> Found {
        let value = self.value()?;
        // SAFETY: attached, a new reference.
        let value = unsafe { Bound::from_owned_ptr(self.py, value.into_ptr()) };
        let data = if code == code::ARRAY {
            let view = self.view(self.at..self.end)?;
            self.at = self.end;
            // SAFETY: attached, a new reference.
            Some(unsafe { Bound::from_owned_ptr(self.py, view.into_ptr()) })
        } else {
            None
        };
        let arguments = (code, value, data, self.views, self.max_int_bytes);
        let made = classes::types(self.py).and_then(|types| types.call_method1(intern!(self.py, "unpack"), arguments));
        self.made(start, "a payload of its type", made)
    }
}
