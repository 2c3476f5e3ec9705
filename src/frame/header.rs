//! The header's fields that this crate reads and writes (`proto-docs/frame-v3.md` registers them).

use super::PREFIX;
use super::json::{Skipped, Text, parse_json, write_string};
use crate::error::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;

/// A parsed header: `{"s": codec, "v": version, "m": {…}}`.
///
/// Unknown fields are ignored; a known field of the wrong type is an error.
///
/// ```
/// # use framecache::frame::Header;
/// let header = Header { key: Some("k".into()), until: Some(1_700_000_000_000), ..Header::new("raw") };
/// let json = header.to_json();
/// assert_eq!(json, br#"{"s": "raw", "v": "2.0", "m": {"key": "k", "until": 1700000000000}}"#);
/// assert_eq!(Header::parse(&json)?, header);
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// `s`: the codec of the payload; never empty.
    pub codec: String,
    /// `v`: the envelope version.
    pub version: String,
    /// `m.key`: the key the entry was stored under.
    pub key: Option<String>,
    /// `m.length`: bytes of payload, as they stand in the frame.
    pub length: Option<u64>,
    /// `m.compression`: the algorithm that the payload is compressed with; none if absent.
    pub compression: Option<String>,
    /// `m.size`: bytes of payload before compression.
    pub size: Option<u64>,
    /// `m.py`: what the Python client needs to rebuild the value.
    pub python: Option<Map<String, Value>>,
    /// `m.created`: when the entry was written, in milliseconds since 1970-01-01 UTC.
    pub created: Option<u64>,
    /// `m.until`: the last moment at which any tier may serve the entry, in the same unit.
    pub until: Option<u64>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            codec: String::new(),
            version: "2.0".to_owned(),
            key: None,
            length: None,
            compression: None,
            size: None,
            python: None,
            created: None,
            until: None,
        }
    }
}

impl Header {
    /// The header of a frame whose payload `codec` writes; `..Header::new(codec)` fills in the rest.
    pub fn new(codec: &str) -> Self {
        Self { codec: codec.to_owned(), ..Self::default() }
    }

    /// The same header for a payload of `length` bytes.
    pub fn with_length(self, length: usize) -> Self {
        Self { length: Some(length as u64), ..self }
    }

    /// Reads the header's JSON, padding included.
    ///
    /// # Errors
    /// [`Error::Frame`], offsets counted from the start of the frame.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let header: Self = parse_json(json, PREFIX, PhantomData)?;
        if header.codec.is_empty() {
            return Err(Error::frame(PREFIX, "a serializer name in field \"s\"", "none"));
        }
        Ok(header)
    }

    /// The header's JSON without padding. What differs in every entry stands last.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        out.extend_from_slice(b"{\"s\": ");
        write_string(&mut out, &self.codec);
        out.extend_from_slice(b", \"v\": ");
        write_string(&mut out, &self.version);
        out.extend_from_slice(b", \"m\": {");
        let mut separator = "";
        let mut field = |out: &mut Vec<u8>, name: &str, value: &dyn Fn(&mut Vec<u8>)| {
            out.extend_from_slice(std::mem::replace(&mut separator, ", ").as_bytes());
            write_string(out, name);
            out.extend_from_slice(b": ");
            value(out);
        };
        if let Some(python) = &self.python {
            // Writing to a Vec cannot fail, and every Value has a JSON form.
            field(&mut out, "py", &|out| drop(serde_json::to_writer(out, python)));
        }
        for (name, text) in [("compression", &self.compression), ("key", &self.key)] {
            if let Some(text) = text {
                field(&mut out, name, &|out| write_string(out, text));
            }
        }
        let numbers = [("length", self.length), ("size", self.size), ("created", self.created), ("until", self.until)];
        for (name, number) in numbers {
            if let Some(number) = number {
                field(&mut out, name, &|out| out.extend_from_slice(number.to_string().as_bytes()));
            }
        }
        out.extend_from_slice(b"}}");
        out
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(Text(name)) = entries.next_key()? {
            match &*name {
                "s" => header.codec = entries.next_value()?,
                "v" => header.version = entries.next_value()?,
                "m" => {
                    // The last one counts, as a whole.
                    let (codec, version) = (std::mem::take(&mut header.codec), std::mem::take(&mut header.version));
                    header = Header { codec, version, ..Header::default() };
                    entries.next_value_seed(Fields(&mut header))?;
                }
                _ => {
                    let Skipped = entries.next_value()?;
                }
            }
        }
        Ok(header)
    }
}

/// Reads the object `m` into a header.
struct Fields<'h>(&'h mut Header);

impl<'de> serde::de::DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metadata object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = entries.next_key()? {
            let named = |error: A::Error| A::Error::custom(format_args!("field {name:?}: {error}"));
            match &*name {
                "key" => self.0.key = Some(entries.next_value().map_err(named)?),
                "length" => self.0.length = Some(entries.next_value().map_err(named)?),
                "compression" => self.0.compression = Some(entries.next_value().map_err(named)?),
                "size" => self.0.size = Some(entries.next_value().map_err(named)?),
                "py" => self.0.python = Some(entries.next_value().map_err(named)?),
                "created" => self.0.created = Some(entries.next_value().map_err(named)?),
                "until" => self.0.until = Some(entries.next_value().map_err(named)?),
                _ => {
                    let Skipped = entries.next_value()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(json: &[u8]) -> (usize, String) {
        match Header::parse(json) {
            Err(Error::Frame { offset, expected, found }) => (offset, format!("{expected}; {found}")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn malformed_headers_say_where_and_what() {
        assert!(error(b"").1.contains("EOF"));
        assert!(error(b"[]").1.contains("expected a header object"));
        assert!(error(b"{}").1.contains("serializer name"));
        assert!(error(br#"{"s": ""}"#).1.contains("serializer name"));
        assert!(error(br#"{"s": 1}"#).1.contains("integer `1`"));
        assert!(error(br#"{"s": "raw", "m": []}"#).1.contains("metadata object"));
        assert!(error(br#"{"s": "raw", "m": {"until": "x"}}"#).1.contains("field \"until\""));
        assert!(error(br#"{"s": "raw", "m": {"compression": null}}"#).1.contains("field \"compression\""));
        assert!(error(br#"{"s": "raw", "m": {"size": 1.0}}"#).1.contains("field \"size\""));
        assert!(error(br#"{"s": "raw", "m": {"length": -1}}"#).1.contains("field \"length\""));
        assert_eq!(error(b"{\"s\": \"raw\"} x").0, 7 + 13);
        assert_eq!(error(b"{\n\"s\": x}").0, 7 + 7);
        assert!(error(b"{\"s\": \"\xff\"}").1.contains("UTF-8"));
    }

    #[test]
    fn absurd_nesting_is_an_error_wherever_it_stands() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(5000), close.repeat(5000));
            for json in [
                deep.clone(),
                format!("{{\"s\": \"raw\", \"x\": {deep}}}"),
                format!("{{\"s\": \"raw\", \"m\": {{\"x\": {deep}}}}}"),
                format!("{{\"s\": \"raw\", \"m\": {{\"py\": {{\"a\": {deep}}}}}}}"),
            ] {
                let found = error(json.as_bytes()).1;
                assert!(found.contains("nesting deeper") || found.contains("header object"), "{found}");
            }
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_last_of_equal_ones_counts() {
        let json = br#"{"x": [1, {"y": null}], "s": "a", "m": {"z": 1.5, "key": "1", "key": "2"}, "s": "raw"}"#;
        let header = Header::parse(json).expect("valid");
        assert_eq!(header, Header { key: Some("2".into()), ..Header::new("raw") });
        let twice = br#"{"s": "raw", "m": {"key": "k", "length": 1}, "m": {}}"#;
        assert_eq!(Header::parse(twice).expect("valid"), Header::new("raw"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            codec in "\\PC{1,20}", key in prop::option::of(any::<String>()),
            compression in prop::option::of(any::<String>()), size: Option<u64>,
            length: Option<u64>, created: Option<u64>, until: Option<u64>, padding in "[ \n\t\r]{0,20}",
        ) {
            let header = Header { key, length, compression, size, created, until, ..Header::new(&codec) };
            let mut json = header.to_json();
            json.extend_from_slice(padding.as_bytes());
            prop_assert_eq!(Header::parse(&json).expect("valid"), header);
        }
    }
}
