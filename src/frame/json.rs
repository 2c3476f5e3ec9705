//! JSON of headers: what serde_json lacks.

use super::MAX_DEPTH;
use crate::error::Error;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Appends `text` as a JSON string: non-ASCII as it is, as Python's `json.dumps(ensure_ascii=False)` writes it.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to a Vec cannot fail, and every str has a JSON form.
        let _ = serde_json::to_writer(out, text);
    }
}

/// serde_json's message without the line and column, which the offset replaces.
pub(super) fn message_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].replace("recursion limit exceeded", &format!("nesting deeper than {MAX_DEPTH}"))
}

/// The offset of serde_json's line and column.
pub(super) fn offset_of(json: &[u8], error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => json.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(line - 2).map_or(0, |(at, _)| at + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// Parses `json`, all of it, with `seed`; it starts at offset `base` of the frame.
///
/// # Errors
/// [`Error::Frame`].
pub fn parse_json<'j, S: DeserializeSeed<'j>>(json: &'j [u8], base: usize, seed: S) -> Result<S::Value, Error> {
    // Checked once here, text is not checked again string by string.
    let text = std::str::from_utf8(json)
        .map_err(|error| Error::frame(base + error.valid_up_to(), "UTF-8", "a byte that is not"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| Error::frame(base + offset_of(json, &error), "a JSON object", message_of(&error)))
}

/// Checks that readers will take `json`, which starts at offset `base` of the frame: that it is JSON, nested at most
/// [`MAX_DEPTH`] deep, with numbers in the range of a double.
///
/// # Errors
/// [`Error::Frame`].
pub fn check_json(json: &[u8], base: usize) -> Result<(), Error> {
    parse_json(json, base, PhantomData::<Skipped>).map(|Skipped| ())
}

/// A JSON string, borrowed from the text where it has no escapes. (`Cow` itself is always copied.)
pub struct Text<'j>(pub Cow<'j, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Any JSON value, read and dropped; unlike [`IgnoredAny`] under serde_json, nested at most [`MAX_DEPTH`] deep.
pub(super) struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<IgnoredAny, Self>()?.is_some() {}
        Ok(self)
    }
}
