//! What L1 holds of a value: one Python reference, to the value itself where callers may share it, else to its encoded
//! form, from which each caller gets an object of its own.
//!
//! The value is always the one that was decoded from the frame, never the caller's.
#![allow(unsafe_code)]

use super::immutable::{is_arrow, shallow_size, size_of_immutable};
use crate::buffer::FrameBuf;
use crate::codec::RAW;
use crate::codec::json::{self, JSON};
use crate::codec::msgpack::{self, MSGPACK, Types};
use crate::error::Error;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView, PySlice, PyString};

/// A payload up to so many bytes is copied into a `bytes`, which takes less than a frame around it.
const COPIED_UP_TO: usize = 4096;
/// What a frame takes besides its bytes: the Python object, the shared buffer, their allocations.
const FRAME_BYTES: usize = 224;
/// What an object takes that is shared with its payload, apart from that: a guess.
const OBJECT_BYTES: usize = 256;
/// What a memoryview takes.
const VIEW_BYTES: usize = 208;

/// The value of an entry of L1.
pub(crate) type Held = Py<PyAny>;

/// A value as it is decoded for each caller.
#[pyclass(frozen, module = "framecache._framecache")]
pub(crate) struct Encoded {
    form: Form,
    codec: Py<PyString>,
    python: Option<Py<PyDict>>,
}

enum Form {
    /// MessagePack of a few bytes.
    ShortMsgpack(Py<PyBytes>),
    /// MessagePack, and the frame that it is.
    Msgpack(FrameBuf, Py<PyAny>),
    /// JSON that is valid UTF-8; a NUL follows in every `bytes`.
    Json(Py<PyBytes>),
    /// A memoryview that no caller has: each gets one of the same memory, or, if that says so, a `bytes` without `views`.
    View { view: Py<PyMemoryView>, is_bytes: bool },
    /// What the client decodes, from this frame.
    Other(Py<PyAny>),
}

/// What `L1.fill` is given of a value.
pub(crate) struct Filling<'a, 'py> {
    pub(crate) value: &'a Bound<'py, PyAny>,
    /// The frame of its payload, and the Python object that this is.
    pub(crate) payload: Option<(&'a FrameBuf, &'a Bound<'py, PyAny>)>,
    pub(crate) codec: &'a Bound<'py, PyString>,
    pub(crate) python: Option<&'a Bound<'py, PyDict>>,
    /// Whether every caller may have the value itself, whatever it is.
    pub(crate) share: bool,
}

impl<'py> Filling<'_, 'py> {
    /// What is held of it, and how many bytes that takes.
    pub(crate) fn hold(&self) -> PyResult<(Held, usize)> {
        let shared = |bytes| Ok((self.value.clone().unbind(), bytes));
        if let Some(bytes) = size_of_immutable(self.value)? {
            return shared(bytes);
        }
        if self.share || is_arrow(self.value)? {
            // A table says that it has the size of its buffers, which are the payload's.
            let own = if self.payload.is_some() { OBJECT_BYTES } else { shallow_size(self.value)? };
            return shared(own + self.heap_bytes());
        }
        let Some((frame, object)) = self.payload else {
            return Err(Error::Argument {
                argument: "payload",
                expected: "a Frame, for a value that callers may not share".into(),
                found: "None".to_owned(),
            }
            .into());
        };
        let py = self.value.py();
        let (form, bytes) = match self.codec.to_str()? {
            MSGPACK if frame.len() <= COPIED_UP_TO => short(Form::ShortMsgpack, PyBytes::new(py, frame)),
            MSGPACK => (Form::Msgpack(frame.clone(), object.clone().unbind()), self.heap_bytes()),
            JSON if simdutf8::basic::from_utf8(frame).is_ok() => short(Form::Json, PyBytes::new(py, frame)),
            RAW if let Some(is_bytes) = self.is_view_of(object)? => {
                let view = PyMemoryView::from(self.value)?.unbind();
                (Form::View { view, is_bytes }, self.heap_bytes() + VIEW_BYTES)
            }
            _ => (Form::Other(object.clone().unbind()), self.heap_bytes()),
        };
        let encoded = Encoded {
            form,
            codec: self.codec.clone().unbind(),
            python: self.python.map(|python| python.clone().unbind()),
        };
        Ok((Py::new(py, encoded)?.into_any(), bytes + size_of::<Encoded>() + 2 * size_of::<usize>()))
    }

    /// What the payload takes of this process's memory, whoever holds it: nothing of its own where it is mapped.
    fn heap_bytes(&self) -> usize {
        match self.payload {
            Some((frame, _)) if !frame.is_mapped() => frame.len() + FRAME_BYTES,
            Some(_) => FRAME_BYTES,
            None => 0,
        }
    }

    /// Whether the value is a read-only memoryview over `frame` that stands for itself (`false`) or for exact bytes
    /// (`true`); `None` for anything else.
    fn is_view_of(&self, frame: &Bound<'py, PyAny>) -> PyResult<Option<bool>> {
        let py = frame.py();
        let Ok(view) = self.value.cast_exact::<PyMemoryView>() else { return Ok(None) };
        let over = view.getattr(intern!(py, "obj"))?.get_type().is(frame.get_type());
        if !over || !view.getattr(intern!(py, "readonly"))?.extract::<bool>()? {
            return Ok(None);
        }
        let kind = match self.python {
            Some(python) => python.get_item(intern!(py, "type"))?,
            None => None,
        };
        Ok(match kind {
            None => Some(false),
            Some(kind) if kind.eq(intern!(py, "memoryview"))? => Some(false),
            Some(kind) if kind.eq(intern!(py, "bytes"))? => Some(true),
            Some(_) => None,
        })
    }
}

fn short(form: fn(Py<PyBytes>) -> Form, bytes: Bound<'_, PyBytes>) -> (Form, usize) {
    let size = bytes.as_bytes().len() + 48;
    (form(bytes.unbind()), size)
}

/// The caller's value: what is held where that is shared, else an object of its own. `decode` is called for what only
/// the client decodes, as `decode(payload, codec, python, views)`.
#[inline]
pub(crate) fn value_of<'py>(held: Bound<'py, PyAny>, decode: &Py<PyAny>, views: bool) -> PyResult<Bound<'py, PyAny>> {
    match held.cast_exact::<Encoded>() {
        Ok(encoded) => encoded.get().decode(held.py(), decode, views),
        Err(_) if views && held.is_exact_instance_of::<PyBytes>() => Ok(PyMemoryView::from(&held)?.into_any()),
        Err(_) => Ok(held),
    }
}

/// What is said of an entry that is decoded afresh: its payload, where that is kept as a frame, or its bytes.
pub(crate) struct Described<'py> {
    pub(crate) payload: Bound<'py, PyAny>,
    pub(crate) codec: Bound<'py, PyString>,
    pub(crate) python: Option<Bound<'py, PyDict>>,
}

/// `None` for a value that is shared.
pub(crate) fn describe<'py>(held: &Bound<'py, PyAny>) -> PyResult<Option<Described<'py>>> {
    let Ok(encoded) = held.cast_exact::<Encoded>() else { return Ok(None) };
    let (py, encoded) = (held.py(), encoded.get());
    let payload = match &encoded.form {
        Form::ShortMsgpack(bytes) | Form::Json(bytes) => bytes.bind(py).clone().into_any(),
        Form::Msgpack(_, frame) | Form::Other(frame) => frame.bind(py).clone(),
        Form::View { view, .. } => view.bind(py).getattr(intern!(py, "obj"))?,
    };
    let python = encoded.python.as_ref().map(|python| python.bind(py).clone());
    Ok(Some(Described { payload, codec: encoded.codec.bind(py).clone(), python }))
}

impl Encoded {
    fn decode<'py>(&self, py: Python<'py>, decode: &Py<PyAny>, views: bool) -> PyResult<Bound<'py, PyAny>> {
        match &self.form {
            Form::ShortMsgpack(bytes) => read_msgpack(bytes.bind(py), bytes.bind(py).as_bytes(), false),
            Form::Msgpack(payload, frame) => read_msgpack(frame.bind(py), payload, views),
            Form::Json(text) => read_json(text.bind(py)),
            Form::View { view, is_bytes: true } if !views => Ok(view.bind(py).call_method0(intern!(py, "tobytes"))?),
            Form::View { view, .. } => Ok(PyMemoryView::from(view.bind(py))?.into_any()),
            Form::Other(frame) => {
                let python = self.python.as_ref().map_or_else(|| PyDict::new(py), |python| python.bind(py).clone());
                decode.bind(py).call1((frame, &self.codec, python, views))
            }
        }
    }
}

/// The value that `payload`, which is the memory of `owner`, is.
fn read_msgpack<'py>(owner: &Bound<'py, PyAny>, payload: &[u8], views: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let view_of = |range: std::ops::Range<usize>| {
        let part = PySlice::new(py, range.start.cast_signed(), range.end.cast_signed(), 1);
        PyMemoryView::from(owner)?.get_item(part)
    };
    msgpack::Decoder::new(py, payload, Types::Python, &view_of).views(views).decode()
}

fn read_json<'py>(text: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let py = text.py();
    // SAFETY: `hold` found valid UTF-8; a NUL follows the contents of every `bytes`, which does not change.
    unsafe { json::Decoder::decode(py, text.as_bytes()) }.map_err(|(invalid, at)| match invalid {
        json::Invalid::Raised => PyErr::fetch(py),
        _ => Error::Decode {
            codec: JSON,
            place: format!("offset {at}"),
            expected: "JSON".into(),
            found: invalid.message().to_string(),
        }
        .into(),
    })
}
