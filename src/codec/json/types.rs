//! Writing what is not one of JSON's own types.
#![allow(unsafe_code)]

use super::encode::{Cursor, Done, Encoder, ROOM};
use super::fault::{Fault, type_name};
use super::{MAX_WRITE_DEPTH, option};
use crate::cpython::dict::{self, Walk};
use crate::cpython::text::Text;
use crate::cpython::{Owned, has_headroom};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};

/// JSON that is written already.
///
/// `dumps` copies it into its result unchecked.
#[pyclass(frozen, module = "framecache.json")]
pub(crate) struct Fragment {
    contents: Py<PyAny>,
}

#[pymethods]
impl Fragment {
    #[new]
    #[pyo3(signature = (contents, /))]
    fn new(contents: Py<PyAny>) -> Self {
        Self { contents }
    }
}

impl<'py> Encoder<'_, 'py> {
    /// Writes an object of a rarer type.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline(never)]
    pub(super) unsafe fn other<const INDENT: bool>(&mut self, at: Cursor, object: *mut ffi::PyObject) -> Done {
        self.expect_python();
        // SAFETY: the caller's guarantee; held from here on.
        let object = &unsafe { Bound::from_borrowed_ptr(self.py, object) };
        if self.options & option::PASSTHROUGH_DATETIME == 0
            && let Some(stamp) = self.stamp(object)
        {
            return self.quoted(at, stamp.ok()?.as_bytes());
        }
        if self.is_uuid(object) {
            let text = self.uuid_text(object)?;
            return self.quoted(at, &text);
        }
        if let Ok(fragment) = object.cast_exact::<Fragment>() {
            return self.fragment(at, fragment.get());
        }
        if self.is_enum(object) {
            return self.enum_value::<INDENT>(at, object);
        }
        let class = object.get_type_ptr();
        // SAFETY: held; the flags say what the object is.
        unsafe {
            let flags = ffi::PyType_GetFlags(class);
            if self.options & option::PASSTHROUGH_SUBCLASS == 0 {
                let object = object.as_ptr();
                if flags & ffi::Py_TPFLAGS_UNICODE_SUBCLASS != 0 {
                    return self.text(at, object);
                }
                if flags & ffi::Py_TPFLAGS_LONG_SUBCLASS != 0 {
                    return self.int(at, object);
                }
                if flags & ffi::Py_TPFLAGS_LIST_SUBCLASS != 0 {
                    return self.list::<INDENT>(at, object);
                }
                if flags & ffi::Py_TPFLAGS_DICT_SUBCLASS != 0 {
                    return self.dict::<INDENT>(at, object);
                }
            }
            if self.options & option::PASSTHROUGH_DATACLASS == 0
                && flags & ffi::Py_TPFLAGS_HEAPTYPE != 0
                && self.own(class, intern!(self.py, "__dataclass_fields__"))
            {
                return self.nested(object.as_ptr(), |this| this.dataclass::<INDENT>(at, object));
            }
        }
        if self.options & option::SERIALIZE_NUMPY != 0
            && let Some(done) = self.numpy::<INDENT>(at, object)
        {
            return done;
        }
        self.by_default::<INDENT>(at, object)
    }

    /// Whether a class written in Python has the attribute itself.
    unsafe fn own(&self, class: *mut ffi::PyTypeObject, name: &Bound<'py, PyString>) -> bool {
        // SAFETY: a heap type's attributes are in a dict, and a str's hash and comparison run no Python code.
        unsafe {
            let attributes = (*class).tp_dict;
            !attributes.is_null() && ffi::PyDict_Contains(attributes, name.as_ptr()) == 1
        }
    }

    /// Writes ASCII that needs no escapes.
    pub(super) fn quoted(&mut self, at: Cursor, text: &[u8]) -> Done {
        let at = self.reserve(at, text.len() + 2 + ROOM)?;
        // SAFETY: reserved.
        unsafe {
            at.write(b'"');
            at.add(1).as_ptr().copy_from_nonoverlapping(text.as_ptr(), text.len());
            at.add(1 + text.len()).write(b'"');
            Some(at.add(2 + text.len()))
        }
    }

    pub(super) fn is_uuid(&self, object: &Bound<'py, PyAny>) -> bool {
        static UUID: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = loaded(self.py, &UUID, intern!(self.py, "uuid"), intern!(self.py, "UUID"));
        class.is_some_and(|class| class.as_type_ptr() == object.get_type_ptr())
    }

    /// The canonical form of a UUID.
    pub(super) fn uuid_text(&mut self, uuid: &Bound<'py, PyAny>) -> Option<[u8; 36]> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let value = match uuid.getattr(intern!(self.py, "int")).and_then(|value| value.extract::<u128>()) {
            Ok(value) => value,
            Err(error) => {
                self.refused("Type is not JSON serializable: UUID".to_owned(), error);
                return None;
            }
        };
        let mut text = [b'-'; 36];
        let mut place = 0;
        for byte in value.to_be_bytes() {
            if matches!(place, 8 | 13 | 18 | 23) {
                place += 1;
            }
            text[place] = HEX[usize::from(byte >> 4)];
            text[place + 1] = HEX[usize::from(byte & 15)];
            place += 2;
        }
        Some(text)
    }

    pub(super) fn is_enum(&self, object: &Bound<'py, PyAny>) -> bool {
        static ENUM_META: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = object.get_type_ptr().cast::<ffi::PyObject>();
        // SAFETY: an object's class is alive, and has a class itself.
        unsafe {
            let meta = ffi::Py_TYPE(class);
            meta != &raw mut ffi::PyType_Type
                && loaded(self.py, &ENUM_META, intern!(self.py, "enum"), intern!(self.py, "EnumMeta"))
                    .is_some_and(|enum_meta| ffi::PyType_IsSubtype(meta, enum_meta.as_type_ptr()) != 0)
        }
    }

    fn enum_value<const INDENT: bool>(&mut self, at: Cursor, object: &Bound<'py, PyAny>) -> Done {
        match object.getattr(intern!(self.py, "value")) {
            Ok(value) => self.instead::<INDENT>(at, &value, "Recursion limit reached"),
            Err(error) => self.refused(no_form(object), error),
        }
    }

    /// Writes what stands for another object; `message` is the fault if that goes on too long.
    fn instead<const INDENT: bool>(&mut self, at: Cursor, value: &Bound<'py, PyAny>, message: &str) -> Done {
        if self.defaults > MAX_WRITE_DEPTH || !has_headroom() {
            return self.unfit(message);
        }
        self.defaults += 1;
        // SAFETY: attached, held by `value`.
        let done = unsafe { self.value::<INDENT>(at, value.as_ptr()) };
        self.defaults -= 1;
        done
    }

    fn by_default<const INDENT: bool>(&mut self, at: Cursor, object: &Bound<'py, PyAny>) -> Done {
        const TOO_OFTEN: &str = "default serializer exceeds recursion limit";
        let Some(default) = self.default else {
            return self.fail(Fault::Unfit(no_form(object)));
        };
        if self.defaults > MAX_WRITE_DEPTH {
            return self.unfit(TOO_OFTEN);
        }
        match default.call1((object,)) {
            Ok(value) => self.instead::<INDENT>(at, &value, TOO_OFTEN),
            Err(error) => self.refused(no_form(object), error),
        }
    }

    fn fragment(&mut self, at: Cursor, fragment: &Fragment) -> Done {
        let contents = fragment.contents.bind(self.py);
        if let Ok(bytes) = contents.cast_exact::<PyBytes>() {
            return self.put(at, bytes.as_bytes());
        }
        if contents.cast_exact::<PyString>().is_err() {
            return self.unfit("framecache.json.Fragment's content is not of type bytes or str");
        }
        // SAFETY: a str, held by the fragment; reserved.
        unsafe {
            let text = Text::of(contents.as_ptr());
            let length = text.length();
            if length.surrogates {
                return self.surrogate();
            }
            let at = self.reserve(at, length.bytes + ROOM)?;
            text.write_utf8(at.as_ptr());
            Some(at.add(length.bytes))
        }
    }

    /// Writes the fields of a dataclass instance: what its `__dict__` has, or else what its class declares.
    ///
    /// # Safety
    /// Attached; held.
    unsafe fn dataclass<const INDENT: bool>(&mut self, at: Cursor, object: &Bound<'py, PyAny>) -> Done {
        // SAFETY: a heap type.
        let slots = unsafe { self.own(object.get_type_ptr(), intern!(self.py, "__slots__")) };
        if !slots && let Ok(Some(attributes)) = object.getattr_opt(intern!(self.py, "__dict__")) {
            return match attributes.cast_exact::<PyDict>() {
                // SAFETY: held by `attributes`.
                Ok(attributes) => unsafe { self.attributes::<INDENT>(at, attributes.as_ptr()) },
                Err(error) => self.refused(no_form(object), error.into()),
            };
        }
        match declared(object) {
            // SAFETY: attached.
            Ok(names) => unsafe { self.fields::<INDENT>(at, object, &names) },
            Err(error) => self.refused(no_form(object), error),
        }
    }

    /// # Safety
    /// Attached; an exact dict that is held.
    unsafe fn attributes<const INDENT: bool>(&mut self, at: Cursor, attributes: *mut ffi::PyObject) -> Done {
        // SAFETY: as for `dict`.
        unsafe {
            at.write(b'{');
            let start = self.reserve(at.add(1), ROOM)?;
            let mut at = start;
            let count = dict::len(attributes);
            let mut walk = Walk::of(attributes);
            let (mut epoch, mut any) = (self.epoch, false);
            while let Some((key, value)) = walk.next() {
                if ffi::Py_TYPE(key) != &raw mut ffi::PyUnicode_Type {
                    return self.unfit("Dict key must be str");
                }
                if is_private(key) {
                    continue;
                }
                any = true;
                if INDENT {
                    at = self.line(at)?;
                }
                at = Self::colon::<INDENT>(self.text(at, key)?);
                let after = self.value::<INDENT>(at, value)?;
                after.write(b',');
                at = after.add(1);
                if self.epoch != epoch {
                    if dict::len(attributes) != count {
                        return self.unfit("dict changed size while it was written");
                    }
                    epoch = self.epoch;
                    walk.refresh();
                }
            }
            if any { self.close::<INDENT>(at, b'}') } else { self.put(start, b"}") }
        }
    }

    unsafe fn fields<const INDENT: bool>(
        &mut self,
        at: Cursor,
        object: &Bound<'py, PyAny>,
        names: &[Bound<'py, PyString>],
    ) -> Done {
        // SAFETY: names and values are held.
        unsafe {
            at.write(b'{');
            let start = self.reserve(at.add(1), ROOM)?;
            let mut at = start;
            for name in names {
                let value = match object.getattr(name) {
                    Ok(value) => value,
                    Err(error) => return self.refused(no_form(object), error),
                };
                if INDENT {
                    at = self.line(at)?;
                }
                at = Self::colon::<INDENT>(self.text(at, name.as_ptr())?);
                let Some(after) = self.value::<INDENT>(at, value.as_ptr()) else {
                    self.at_name(name);
                    return None;
                };
                after.write(b',');
                at = after.add(1);
            }
            if names.is_empty() { self.put(start, b"}") } else { self.close::<INDENT>(at, b'}') }
        }
    }
}

fn no_form(object: &Bound<'_, PyAny>) -> String {
    format!("Type is not JSON serializable: {}", type_name(object))
}

/// Whether a name starts with an underscore.
///
/// # Safety
/// Attached; an exact `str` that is alive.
unsafe fn is_private(name: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's guarantee.
    match unsafe { Text::of(name) } {
        Text::Utf8(text) | Text::Latin1(text) => text.first() == Some(&b'_'),
        Text::Ucs2(text) => text.first() == Some(&u16::from(b'_')),
        Text::Ucs4(text) => text.first() == Some(&u32::from(b'_')),
    }
}

/// The names of the fields that a dataclass declares, without private ones, `ClassVar`s and `InitVar`s.
fn declared<'py>(object: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = object.py();
    let field_kind = py.import(intern!(py, "dataclasses"))?.getattr(intern!(py, "_FIELD"))?;
    let fields = object.get_type().getattr(intern!(py, "__dataclass_fields__"))?.cast_into::<PyDict>()?;
    let mut names = Vec::new();
    for pair in fields.items() {
        let (name, field) = pair.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
        let name = name.cast_into_exact::<PyString>().map_err(|_| PyTypeError::new_err("Dict key must be str"))?;
        // SAFETY: held by `name`.
        if !unsafe { is_private(name.as_ptr()) } && field.getattr(intern!(py, "_field_type"))?.is(&field_kind) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A class of a module, if that is imported: else nothing is an instance of it.
pub(super) fn loaded<'a, 'py>(
    py: Python<'py>,
    once: &'a PyOnceLock<Py<PyType>>,
    module: &Bound<'py, PyString>,
    name: &Bound<'py, PyString>,
) -> Option<&'a Bound<'py, PyType>> {
    if let Some(class) = once.get(py) {
        return Some(class.bind(py));
    }
    // SAFETY: attached; a new reference or null. What is raised, if anything is, belongs to the module.
    let class = unsafe {
        let Some(module) = Owned::new(ffi::PyImport_GetModule(module.as_ptr())) else {
            ffi::PyErr_Clear();
            return None;
        };
        Bound::from_owned_ptr(py, module.into_ptr()).getattr(name).ok()?.cast_into::<PyType>().ok()?
    };
    Some(once.get_or_init(py, || class.unbind()).bind(py))
}
