//! Writing Python's own types: extension types, one for each.
#![allow(unsafe_code)]

use super::classes::{self, Entry};
use super::encode::{Done, Encoder};
use super::fault::Fault;
use super::{ALIGNED_FROM, Types, code};
use crate::buffer::ALIGN;
use crate::codec::path::type_name;
use crate::error::Error;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyByteArray, PyBytes, PyComplex, PyDate, PyDateTime, PyDelta, PyDict, PyFrozenSet, PyModule, PyRange, PySet,
    PySlice, PyString, PyTime, PyTuple, PyType,
};
use std::rc::Rc;

/// How the instances of a class are written.
enum Form<'py> {
    Builtin(Builtin),
    /// A class that the application registered, or whose kind has a form.
    Application(Entry<'py>),
    /// By `framecache._types`.
    InPython,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Builtin {
    Decimal,
    Uuid,
    DateTime,
    Date,
    Time,
    Delta,
    Ext,
}

/// The forms of the classes met in this value.
#[derive(Default)]
pub(super) struct Classes<'py>(Vec<(Bound<'py, PyType>, Rc<Form<'py>>)>);

const PLAIN: &str = "a type of MessagePack (None, bool, int of 64 bits, float, str, bytes, list, dict)";
const PYTHON: &str =
    "a type that framecache keeps (see proto-docs/msgpack.md) or a class with framecache.register(cls, pack=, unpack=)";

impl<'py> Encoder<'_, 'py> {
    /// Writes an object of a type that MessagePack does not have.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn other(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; held from here on.
        let object = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        if let Some(done) = self.builtin_class(&object) {
            return done;
        }
        let form = match self.form_of(&object) {
            Ok(form) => form,
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        match &*form {
            Form::Builtin(builtin) => self.builtin(*builtin, &object),
            Form::Application(entry) => {
                // SAFETY: held.
                unsafe { self.nested(object.as_ptr(), |this| this.application(entry, &object)) }
            }
            Form::InPython => {
                // SAFETY: held.
                unsafe { self.nested(object.as_ptr(), |this| this.in_python(&object)) }
            }
            Form::None if self.types == Types::Plain => self.by_default(&object, PLAIN),
            Form::None => self.by_default(&object, PYTHON),
        }
    }

    /// Types whose address is known.
    fn builtin_class(&mut self, object: &Bound<'py, PyAny>) -> Option<Done> {
        if self.types == Types::Plain {
            return None;
        }
        if object.cast_exact::<PySet>().is_ok() {
            Some(self.set(code::SET, object))
        } else if object.cast_exact::<PyFrozenSet>().is_ok() {
            Some(self.set(code::FROZENSET, object))
        } else if let Ok(bytes) = object.cast_exact::<PyByteArray>() {
            // SAFETY: no Python code runs while the slice lives.
            Some(self.ext(code::BYTEARRAY, unsafe { bytes.as_bytes() }))
        } else if let Ok(complex) = object.cast_exact::<PyComplex>() {
            let mut payload = [0; 16];
            // SAFETY: an exact complex.
            let (real, imag) = unsafe {
                (ffi::PyComplex_RealAsDouble(complex.as_ptr()), ffi::PyComplex_ImagAsDouble(complex.as_ptr()))
            };
            payload[..8].copy_from_slice(&real.to_be_bytes());
            payload[8..].copy_from_slice(&imag.to_be_bytes());
            Some(self.ext(code::COMPLEX, &payload))
        } else if object.cast_exact::<PyRange>().is_ok() {
            Some(self.start_stop_step(code::RANGE, object))
        } else if object.cast_exact::<PySlice>().is_ok() {
            Some(self.start_stop_step(code::SLICE, object))
        } else {
            None
        }
    }

    fn form_of(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Rc<Form<'py>>> {
        let class = object.get_type();
        if let Some((_, form)) = self.classes.0.iter().rev().find(|(known, _)| known.is(&class)) {
            return Ok(Rc::clone(form));
        }
        let form = Rc::new(self.classify(&class)?);
        self.classes.0.push((class, Rc::clone(&form)));
        Ok(form)
    }

    fn classify(&self, class: &Bound<'py, PyType>) -> PyResult<Form<'py>> {
        // A class may be without module.
        let module = class.getattr(intern!(self.py, "__module__")).ok().and_then(|module| module.cast_into().ok());
        let module: Bound<'py, PyString> = module.unwrap_or_else(|| PyString::new(self.py, ""));
        let name = class.qualname()?;
        let builtin = match (module.to_str()?, name.to_str()?) {
            ("framecache.msgpack", "Ext") => Some(Builtin::Ext),
            _ if self.types == Types::Plain => return Ok(Form::None),
            ("decimal", "Decimal") => Some(Builtin::Decimal),
            ("uuid", "UUID") => Some(Builtin::Uuid),
            ("datetime", "datetime") => Some(Builtin::DateTime),
            ("datetime", "date") => Some(Builtin::Date),
            ("datetime", "time") => Some(Builtin::Time),
            ("datetime", "timedelta") => Some(Builtin::Delta),
            _ => None,
        };
        // A class is what its name says only if the module has it there.
        if let Some(builtin) = builtin
            && is_class_of(class, &module, &name)?
        {
            return Ok(Form::Builtin(builtin));
        }
        if classes::types(self.py)?.call_method1(intern!(self.py, "is_known"), (class,))?.is_truthy()? {
            return Ok(Form::InPython);
        }
        Ok(Entry::of_class(class)?.map_or(Form::None, Form::Application))
    }

    fn set(&mut self, code: i8, set: &Bound<'py, PyAny>) -> Done {
        // SAFETY: held; the items are those that the set has now.
        unsafe {
            self.nested(set.as_ptr(), |this| {
                let items = set.try_iter().and_then(|items| items.collect::<PyResult<Vec<_>>>());
                let items = items.and_then(|items| PyTuple::new(this.py, items));
                let items = items.map_err(|error| this.fail(Fault::Raised(error)))?;
                this.container(code, |this| this.tuple_items(items.as_ptr()))
            })
        }
    }

    fn start_stop_step(&mut self, code: i8, object: &Bound<'py, PyAny>) -> Done {
        let py = self.py;
        // SAFETY: held.
        unsafe {
            self.nested(object.as_ptr(), |this| {
                this.container(code, |this| {
                    this.array_head(3)?;
                    for name in [intern!(py, "start"), intern!(py, "stop"), intern!(py, "step")] {
                        let part = this.attribute(object, name)?;
                        this.value(part.as_ptr())?;
                    }
                    Ok(())
                })
            })
        }
    }

    fn attribute(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> Result<Bound<'py, PyAny>, super::fault::Stop> {
        object.getattr(name).map_err(|error| self.fail(Fault::Raised(error)))
    }

    /// An int beyond 64 bits.
    ///
    /// # Safety
    /// Attached; an exact int.
    #[cold]
    pub(super) unsafe fn big_int(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        let object = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        if self.types == Types::Plain {
            return Err(self.fail(Fault::unfit("an int from -2**63 to 2**64 - 1", "one beyond")));
        }
        let bytes = bits_of(&object).and_then(|bits| {
            let size = bits / 8 + 1;
            if size > self.max_int_bytes {
                return Ok(None);
            }
            let signed = PyDict::new(self.py);
            signed.set_item(intern!(self.py, "signed"), true)?;
            let arguments = (size, intern!(self.py, "big"));
            let bytes = object.call_method(intern!(self.py, "to_bytes"), arguments, Some(&signed))?;
            Ok(Some(bytes.cast_into::<PyBytes>()?))
        });
        match bytes {
            Ok(Some(bytes)) => self.ext(code::INT, bytes.as_bytes()),
            Ok(None) => {
                let expected = format!("an int of at most {} bytes (see limits=)", self.max_int_bytes);
                Err(self.fail(Fault::unfit(expected, "a larger one")))
            }
            Err(error) => Err(self.fail(Fault::Raised(error))),
        }
    }

    fn builtin(&mut self, builtin: Builtin, object: &Bound<'py, PyAny>) -> Done {
        match builtin {
            Builtin::Decimal => match object.str() {
                Ok(text) => {
                    // The context may ask for a small e.
                    let text = text.to_string_lossy().replace('e', "E");
                    if text.len() > self.max_int_bytes {
                        let expected = format!("a Decimal of at most {} characters (see limits=)", self.max_int_bytes);
                        return Err(self.fail(Fault::unfit(expected, format!("{}", text.len()))));
                    }
                    self.ext(code::DECIMAL, text.as_bytes())
                }
                Err(error) => Err(self.fail(Fault::Raised(error))),
            },
            Builtin::Uuid => self.uuid(object),
            Builtin::DateTime => self.with_zone(code::DATETIME, object),
            Builtin::Time => self.with_zone(code::TIME, object),
            Builtin::Date => match object.cast_exact::<PyDate>() {
                Ok(date) => self.ext(code::DATE, &date_bytes(date)),
                Err(error) => Err(self.fail(Fault::Raised(error.into()))),
            },
            Builtin::Delta => match object.cast_exact::<PyDelta>() {
                Ok(delta) => {
                    use pyo3::types::PyDeltaAccess;
                    let mut payload = [0; 12];
                    let parts = [delta.get_days(), delta.get_seconds(), delta.get_microseconds()];
                    for (target, part) in payload.chunks_exact_mut(4).zip(parts) {
                        target.copy_from_slice(&part.to_be_bytes());
                    }
                    self.ext(code::TIMEDELTA, &payload)
                }
                Err(error) => Err(self.fail(Fault::Raised(error.into()))),
            },
            Builtin::Ext => self.application_ext(object),
        }
    }

    fn application_ext(&mut self, object: &Bound<'py, PyAny>) -> Done {
        let parts = (|| {
            let code = object.getattr(intern!(self.py, "code"))?.extract::<i8>()?;
            let data = object.getattr(intern!(self.py, "data"))?.cast_into_exact::<PyBytes>()?;
            Ok::<_, PyErr>((code, data))
        })();
        match parts {
            Ok((code, _)) if self.types == Types::Python && (0..=code::LAST).contains(&code) => {
                let found = format!("{code}, which types=\"python\" uses itself");
                Err(self.fail(Fault::unfit("an extension code below 0 or above 63", found)))
            }
            Ok((code, data)) => self.ext(code, data.as_bytes()),
            Err(error) => {
                let found = format!("{}: {}", type_name(object), error.value(self.py));
                Err(self.fail(Fault::unfit("an Ext with a code from -128 to 127 and bytes", found)))
            }
        }
    }

    fn uuid(&mut self, object: &Bound<'py, PyAny>) -> Done {
        let py = self.py;
        let parts = (|| {
            let bytes = object.getattr(intern!(py, "bytes"))?.cast_into::<PyBytes>()?;
            let mut payload = bytes.as_bytes().to_vec();
            // How it was generated: safe 0, unsafe -1, and nothing for unknown.
            let safe = object.getattr(intern!(py, "is_safe"))?.getattr(intern!(py, "value"))?;
            if !safe.is_none() {
                payload.push(safe.extract::<i8>()? as u8);
            }
            Ok::<_, PyErr>(payload)
        })();
        match parts {
            Ok(payload) => self.ext(code::UUID, &payload),
            Err(error) => Err(self.fail(Fault::Raised(error))),
        }
    }

    /// A datetime or time: its fields, then its zone.
    fn with_zone(&mut self, code: i8, object: &Bound<'py, PyAny>) -> Done {
        use pyo3::types::{PyTimeAccess, PyTzInfoAccess};
        let mut payload = Vec::with_capacity(10);
        let zone = if let Ok(moment) = object.cast_exact::<PyDateTime>() {
            payload.extend_from_slice(&date_bytes(moment));
            push_time(
                &mut payload,
                moment.get_hour(),
                moment.get_minute(),
                moment.get_second(),
                moment.get_microsecond(),
                moment.get_fold(),
            );
            moment.get_tzinfo()
        } else if let Ok(time) = object.cast_exact::<PyTime>() {
            push_time(
                &mut payload,
                time.get_hour(),
                time.get_minute(),
                time.get_second(),
                time.get_microsecond(),
                time.get_fold(),
            );
            time.get_tzinfo()
        } else {
            return self.by_default(object, PYTHON);
        };
        let Some(zone) = zone else {
            return self.ext(code, &payload);
        };
        let described =
            classes::types(self.py).and_then(|types| types.call_method1(intern!(self.py, "describe_zone"), (&zone,)));
        match described {
            Ok(zone) => self.container(code, |this| {
                this.out.extend(&payload).map_err(|_| this.fail(Error::Memory { bytes: payload.len() }))?;
                // SAFETY: held.
                unsafe { this.value(zone.as_ptr()) }
            }),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyTypeError>(self.py) => {
                let expected = "a datetime without zone, or with datetime.timezone or zoneinfo.ZoneInfo(key)";
                Err(self.fail(Fault::unfit(expected, format!("the zone {}", type_name(&zone)))))
            }
            Err(error) => Err(self.fail(Fault::Raised(error))),
        }
    }

    /// An instance of a class of the application: an array of the class's name and what it is made of.
    fn application(&mut self, entry: &Entry<'py>, object: &Bound<'py, PyAny>) -> Done {
        self.container(entry.code, |this| {
            this.array_head(2)?;
            // SAFETY: held by `entry`; registered names are exact str.
            unsafe { this.value(entry.name.as_ptr())? };
            match entry.code {
                code::DATACLASS => this.fields(entry, object),
                code::NAMEDTUPLE if object.len().ok() != Some(entry.fields.len()) => {
                    let expected = format!("a namedtuple with its {} fields", entry.fields.len());
                    Err(this.fail(Fault::unfit(expected, "another number of items")))
                }
                code::NAMEDTUPLE => {
                    // SAFETY: a tuple, held.
                    unsafe { this.tuple_items(object.as_ptr()) }
                }
                code::ENUM => {
                    let is_flag = !entry.fields.is_empty();
                    let name = if is_flag { intern!(this.py, "_value_") } else { intern!(this.py, "_name_") };
                    let member = this.attribute(object, name)?;
                    // SAFETY: held.
                    unsafe { this.value(member.as_ptr()) }
                }
                _ => {
                    let packed = entry.pack.call1((object,)).map_err(|error| this.fail(Fault::Raised(error)))?;
                    // SAFETY: held.
                    unsafe { this.value(packed.as_ptr()) }
                }
            }
        })
    }

    fn fields(&mut self, entry: &Entry<'py>, object: &Bound<'py, PyAny>) -> Done {
        self.map_head(entry.fields.len())?;
        for name in entry.fields.iter_borrowed() {
            // SAFETY: an exact str, held by `entry`.
            unsafe { self.value(name.as_ptr())? };
            let value = match object
                .getattr(name.cast::<PyString>().map_err(|error| self.fail(Fault::Raised(error.into())))?)
            {
                Ok(value) => value,
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyAttributeError>(self.py) => {
                    let found = format!(
                        "{} without {}",
                        type_name(object),
                        name.str().map_or_else(|_| String::new(), |name| name.to_string())
                    );
                    return Err(self.fail(Fault::unfit("a dataclass instance with all its fields", found)));
                }
                Err(error) => return Err(self.fail(Fault::Raised(error))),
            };
            // SAFETY: held.
            if unsafe { self.value(value.as_ptr()) }.is_err() {
                return Err(self.at_field(&name.to_owned()));
            }
        }
        Ok(())
    }

    /// Types whose payload `framecache._types` makes: a code, a value, and for arrays their data.
    fn in_python(&mut self, object: &Bound<'py, PyAny>) -> Done {
        let packed = classes::types(self.py).and_then(|types| types.call_method1(intern!(self.py, "pack"), (object,)));
        let packed = packed.and_then(|packed| packed.extract::<(i8, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)>());
        let (code, value, data) = match packed {
            Ok(parts) => parts,
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyTypeError>(self.py) => {
                return Err(self.fail(Fault::unfit(error.value(self.py).to_string(), type_name(object))));
            }
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        self.container(code, |this| {
            // SAFETY: held.
            unsafe { this.value(value.as_ptr())? };
            data.map_or(Ok(()), |data| this.data(&data))
        })
    }

    /// The bytes that `exporter` exports, at a multiple of 64 if they are many.
    fn data(&mut self, exporter: &Bound<'py, PyAny>) -> Done {
        let buffer = match pyo3::buffer::PyBuffer::<u8>::get(exporter) {
            Ok(buffer) => buffer,
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        let count = buffer.len_bytes();
        let padding = if count >= ALIGNED_FROM { self.out.len().next_multiple_of(ALIGN) - self.out.len() } else { 0 };
        self.reserve(count.saturating_add(padding))?;
        // SAFETY: reserved; the exporter keeps `count` contiguous bytes in place, read with the GIL held.
        unsafe {
            self.out.put_slice(&[0; ALIGN][..padding]);
            let source = buffer.buf_ptr().cast::<u8>();
            self.out.cursor().copy_from_nonoverlapping(source, count);
            self.out.advance(count);
        }
        Ok(())
    }
}

/// Whether `module` has `class` under `name`.
fn is_class_of(class: &Bound<'_, PyType>, module: &Bound<'_, PyString>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    let found = PyModule::import(class.py(), module)?.getattr_opt(name)?;
    Ok(found.is_some_and(|found| found.is(class)))
}

fn bits_of(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    object.call_method0(intern!(object.py(), "bit_length"))?.extract()
}

fn date_bytes(date: &impl pyo3::types::PyDateAccess) -> [u8; 4] {
    let [high, low] = (date.get_year() as u16).to_be_bytes();
    [high, low, date.get_month(), date.get_day()]
}

/// Hour (with the fold in its highest bit), minute, second, and three bytes of microseconds.
fn push_time(out: &mut Vec<u8>, hour: u8, minute: u8, second: u8, micro: u32, fold: bool) {
    let [_, a, b, c] = micro.to_be_bytes();
    out.extend_from_slice(&[hour | u8::from(fold) << 7, minute, second, a, b, c]);
}
