//! Header metadata between JSON and Python dicts, and a memo of headers seen before.
//!
//! A service sees the same few headers again and again. Reading one again is a lookup of its bytes, compared in full,
//! and a copy of the dict made the first time.

use crate::error::Error;
use crate::frame::{PREFIX, Scalar, Text, parse_json, read_flat, write_string};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::sync::Mutex;

/// What a header says, in Python.
pub(super) struct Parsed<'py> {
    pub(super) metadata: Bound<'py, PyDict>,
    pub(super) serializer: Bound<'py, PyString>,
}

const SLOTS: usize = 256;
/// Longer headers are parsed each time: the memo holds 128 KiB of header bytes at most.
const LONGEST: usize = 512;

struct Entry {
    json: Box<[u8]>,
    metadata: Py<PyDict>,
    serializer: Py<PyString>,
}

struct Slot {
    /// Hash of the header that was here last: one is remembered when it comes twice in a row, so that headers which
    /// differ in every entry cost the memo nothing.
    last: u64,
    entry: Option<Entry>,
}

/// Direct-mapped: a header has one place. Only threads that hold the GIL lock it, never across anything that could
/// release the GIL, so that it is free whenever it is asked for.
static MEMO: Mutex<[Slot; SLOTS]> = Mutex::new([const { Slot { last: 0, entry: None } }; SLOTS]);

/// Parses a header's JSON, or finds it in the memo. The dict is the caller's own.
///
/// # Errors
/// `FrameError`.
pub(super) fn parse<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Parsed<'py>> {
    let (parsed, ownership) = lookup_or_parse(py, json)?;
    match ownership {
        Ownership::Own => Ok(parsed),
        Ownership::Memo => Ok(Parsed { metadata: parsed.metadata.copy()?, ..parsed }),
    }
}

/// As [`parse`], but the dict may be the memo's own and must not be changed.
///
/// # Errors
/// `FrameError`.
pub(super) fn parse_shared<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Parsed<'py>> {
    lookup_or_parse(py, json).map(|(parsed, _)| parsed)
}

/// Whether a dict is in nobody else's hands.
enum Ownership {
    Own,
    Memo,
}

fn lookup_or_parse<'py>(py: Python<'py>, json: &[u8]) -> PyResult<(Parsed<'py>, Ownership)> {
    let hash = hash_of(json);
    let mut seen_before = false;
    if json.len() <= LONGEST
        && let Ok(mut memo) = MEMO.try_lock()
    {
        let slot = &mut memo[hash as usize % SLOTS];
        if let Some(entry) = slot.entry.as_ref().filter(|entry| *entry.json == *json) {
            let (metadata, serializer) = (entry.metadata.bind(py).clone(), entry.serializer.bind(py).clone());
            return Ok((Parsed { metadata, serializer }, Ownership::Memo));
        }
        seen_before = std::mem::replace(&mut slot.last, hash) == hash;
    }
    let (parsed, flat) = match parse_flat(py, json) {
        Some(parsed) => (parsed, true),
        None => parse_fresh(py, json)?,
    };
    if flat && seen_before {
        remember(hash, json, &parsed);
        return Ok((parsed, Ownership::Memo));
    }
    Ok((parsed, Ownership::Own))
}

fn remember(hash: u64, json: &[u8], parsed: &Parsed<'_>) {
    let entry = Entry {
        json: json.into(),
        metadata: parsed.metadata.clone().unbind(),
        serializer: parsed.serializer.clone().unbind(),
    };
    let replaced = MEMO.try_lock().ok().map(|mut memo| memo[hash as usize % SLOTS].entry.replace(entry));
    // Dropped here, after the lock is released.
    drop(replaced);
}

/// Cheap, and good enough to spread headers over the slots; equality is decided on the bytes.
fn hash_of(json: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let words = |pair: &[u8; 16]| {
        let pair = u128::from_le_bytes(*pair);
        (pair as u64, (pair >> 64) as u64)
    };
    let mix = |lane: u64, word: u64| (lane ^ word).wrapping_mul(ODD).rotate_left(31);
    let (pairs, rest) = json.as_chunks::<16>();
    let mut lanes = (json.len() as u64, ODD);
    // The last 16 bytes, which may overlap those before; a header shorter than that has no better hash than its rest.
    let last = json.last_chunk().filter(|_| !rest.is_empty());
    for (low, high) in pairs.iter().chain(last).map(words) {
        lanes = (mix(lanes.0, low), mix(lanes.1, high));
    }
    if pairs.is_empty() {
        lanes.0 = rest.iter().fold(lanes.0, |lane, byte| mix(lane, u64::from(*byte)));
    }
    mix(lanes.0, lanes.1.rotate_left(32)) >> 20
}

/// Parses a header as writers write them; `None` where the full parser must see it.
fn parse_flat<'py>(py: Python<'py>, json: &[u8]) -> Option<Parsed<'py>> {
    let metadata = PyDict::new(py);
    let serializer = read_flat(json, |name, value| {
        let name = text(py, name);
        let set = match value {
            Scalar::Text(value) => metadata.set_item(name, text(py, value)),
            Scalar::Integer(value) => metadata.set_item(name, value),
            Scalar::Flag(value) => metadata.set_item(name, value),
            Scalar::Null => metadata.set_item(name, py.None()),
        };
        set.is_ok()
    })?;
    Some(Parsed { metadata, serializer: text(py, serializer) })
}

/// Parses a header; whether its metadata holds only strings, numbers, booleans and null.
fn parse_fresh<'py>(py: Python<'py>, json: &[u8]) -> PyResult<(Parsed<'py>, bool)> {
    let mut state = State { py, flat: true, exact: true };
    let mut header = HeaderParts { metadata: None, serializer: None };
    parse_json(json, PREFIX, HeaderSeed { state: &mut state, header: &mut header })?;
    let serializer = header.serializer.filter(|name| !name.is_empty().unwrap_or(true));
    let Some(serializer) = serializer else {
        return Err(Error::frame(PREFIX, "a serializer name in field \"s\"", "none").into());
    };
    let metadata = match header.metadata {
        Some(metadata) if state.exact => metadata,
        Some(_) => inexact(py, json)?,
        None => PyDict::new(py),
    };
    Ok((Parsed { metadata, serializer }, state.flat))
}

/// The metadata object of a legacy envelope, whose JSON text it is.
///
/// # Errors
/// `FrameError`.
pub(super) fn parse_object<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyDict>> {
    let mut state = State { py, flat: true, exact: true };
    let object = parse_json(json.as_bytes(), 0, ValueSeed { state: &mut state, is_metadata: true })?;
    let object = if state.exact { object } else { json_module(py)?.call_method1("loads", (json,))? };
    object.cast_into::<PyDict>().map_err(|_| Error::frame(0, "an object in field \"metadata\"", json.to_owned()).into())
}

/// An integer outside 64 bits cannot be told from a float here: such a header, valid by now, is read by `json.loads`.
fn inexact<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let header = json_module(py)?.call_method1("loads", (json,))?;
    Ok(header.get_item("m")?.cast_into::<PyDict>()?)
}

fn json_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    PyModule::import(py, intern!(py, "json"))
}

/// What parsing learns besides the values.
struct State<'py> {
    py: Python<'py>,
    /// No list or object below the metadata, so that a shallow copy is a full one.
    flat: bool,
    /// No number that may have been an integer of more than 64 bits.
    exact: bool,
}

struct HeaderParts<'py> {
    metadata: Option<Bound<'py, PyDict>>,
    serializer: Option<Bound<'py, PyString>>,
}

struct HeaderSeed<'s, 'py> {
    state: &'s mut State<'py>,
    header: &'s mut HeaderParts<'py>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = entries.next_key()? {
            match &*name {
                "m" => {
                    let value = entries.next_value_seed(ValueSeed { state: self.state, is_metadata: true })?;
                    let object = value.cast_into::<PyDict>();
                    self.header.metadata = Some(object.map_err(|_| A::Error::custom("expected a metadata object"))?);
                }
                "s" => {
                    let Text(name) = entries.next_value()?;
                    self.header.serializer = Some(text(self.state.py, &name));
                }
                // Read, so that its nesting is bounded, and dropped.
                _ => drop(entries.next_value_seed(ValueSeed { state: self.state, is_metadata: false })?),
            }
        }
        Ok(())
    }
}

fn read_object<'de, 'py, A: MapAccess<'de>>(
    state: &mut State<'py>,
    mut entries: A,
) -> Result<Bound<'py, PyDict>, A::Error> {
    let object = PyDict::new(state.py);
    while let Some(Text(name)) = entries.next_key()? {
        let value = entries.next_value_seed(ValueSeed { state, is_metadata: false })?;
        object.set_item(text(state.py, &name), value).map_err(A::Error::custom)?;
    }
    Ok(object)
}

struct ValueSeed<'s, 'py> {
    state: &'s mut State<'py>,
    /// Whether this is the metadata object itself, the one container that does not end flatness.
    is_metadata: bool,
}

impl<'de, 'py> DeserializeSeed<'de> for ValueSeed<'_, 'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.is_metadata { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de, 'py> Visitor<'de> for ValueSeed<'_, 'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_metadata { "a metadata object" } else { "a JSON value" })
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.state.py, value).to_owned().into_any())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        value.into_pyobject(self.state.py).map(Bound::into_any).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        value.into_pyobject(self.state.py).map(Bound::into_any).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        // So may a negative zero have been an integer.
        self.state.exact &= value.abs() < 9_223_372_036_854_775_808.0 && (value != 0.0 || value.is_sign_positive());
        value.into_pyobject(self.state.py).map(Bound::into_any).map_err(E::custom)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(text(self.state.py, value).into_any())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.state.py.None().into_bound(self.state.py))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        self.state.flat = false;
        let list = PyList::empty(self.state.py);
        while let Some(item) = items.next_element_seed(ValueSeed { state: self.state, is_metadata: false })? {
            list.append(item).map_err(A::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        self.state.flat &= self.is_metadata;
        Ok(read_object(self.state, entries)?.into_any())
    }
}

/// The text that headers use is made once; other text anew.
fn text<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyString> {
    let known = match text {
        "format" => intern!(py, "format"),
        "encoding" => intern!(py, "encoding"),
        "compressed" => intern!(py, "compressed"),
        "original_type" => intern!(py, "original_type"),
        "encrypted" => intern!(py, "encrypted"),
        "tenant_id" => intern!(py, "tenant_id"),
        "encryption_algorithm" => intern!(py, "encryption_algorithm"),
        "key_fingerprint" => intern!(py, "key_fingerprint"),
        "py" => intern!(py, "py"),
        "type" => intern!(py, "type"),
        "key" => intern!(py, "key"),
        "length" => intern!(py, "length"),
        "created" => intern!(py, "created"),
        "until" => intern!(py, "until"),
        "default" => intern!(py, "default"),
        "auto" => intern!(py, "auto"),
        "arrow" => intern!(py, "arrow"),
        "raw" => intern!(py, "raw"),
        "msgpack" => intern!(py, "msgpack"),
        "orjson" => intern!(py, "orjson"),
        "utf-8" => intern!(py, "utf-8"),
        other => return PyString::new(py, other),
    };
    known.clone()
}

/// Appends `metadata` as JSON, exactly as `json.dumps(metadata, ensure_ascii=False)` writes it; returns whether it is
/// flat. What is not flat may be nested too deep for readers, or have numbers they cannot hold: the caller checks.
///
/// # Errors
/// `EncodeError` for what JSON cannot hold.
pub(super) fn write_object(out: &mut Vec<u8>, metadata: &Bound<'_, PyDict>) -> PyResult<bool> {
    let start = out.len();
    out.push(b'{');
    let mut separator: &[u8] = b"";
    for (name, value) in metadata {
        let Ok(name) = name.cast_exact::<PyString>() else {
            return write_by_json(out, start, metadata);
        };
        out.extend_from_slice(std::mem::replace(&mut separator, b", "));
        write_string(out, name.to_str()?);
        out.extend_from_slice(b": ");
        if !write_scalar(out, &value)? {
            return write_by_json(out, start, metadata);
        }
    }
    out.push(b'}');
    Ok(true)
}

/// `metadata` as the object that [`write_object`] would write.
///
/// # Errors
/// `EncodeError` for what JSON cannot hold.
pub(super) fn to_json_object(metadata: &Bound<'_, PyDict>) -> PyResult<serde_json::Map<String, serde_json::Value>> {
    let mut json = Vec::new();
    write_object(&mut json, metadata)?;
    serde_json::from_slice(&json).map_err(|error| unwritable(error.to_string()).into())
}

pub(super) fn unwritable(found: String) -> Error {
    Error::Encode { place: "metadata".into(), expected: "a dict that JSON can hold".into(), found }
}

/// Writes a str, bool, None or int of 64 bits; false for anything else.
fn write_scalar(out: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        write_string(out, text.to_str()?);
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if flag.is_true() { b"true" } else { b"false" });
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Some(number) = value.cast_exact::<PyInt>().ok().and_then(|int| int.extract::<i64>().ok()) {
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, &number);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn write_by_json(out: &mut Vec<u8>, start: usize, metadata: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = metadata.py();
    let options = PyDict::new(py);
    options.set_item("ensure_ascii", false)?;
    options.set_item("allow_nan", false)?;
    let text = json_module(py)?.call_method("dumps", (metadata,), Some(&options)).map_err(|error| {
        let refused: PyErr = unwritable(error.value(py).to_string()).into();
        refused.set_cause(py, Some(error));
        refused
    })?;
    out.truncate(start);
    out.extend_from_slice(text.cast::<PyString>()?.to_str()?.as_bytes());
    Ok(false)
}
