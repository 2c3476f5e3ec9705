//! The envelope before v3: a JSON object whose payload is base64 text. Read, never written.

use super::json::{message_of, offset_of};
use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A legacy envelope: `{"data": base64, "metadata": {…}, "serializer": name, "version": text}`.
#[derive(Debug, Deserialize)]
pub struct Legacy<'j> {
    #[serde(borrow)]
    data: Cow<'j, str>,
    #[serde(borrow, default)]
    metadata: Option<&'j RawValue>,
    serializer: String,
}

impl Legacy<'_> {
    /// The serializer's name; never empty.
    pub fn serializer(&self) -> &str {
        &self.serializer
    }

    /// The JSON text of the metadata, which need not be an object.
    pub fn metadata(&self) -> &str {
        self.metadata.map_or("{}", RawValue::get)
    }

    /// How many bytes [`Self::decode`] gives.
    ///
    /// # Errors
    /// [`Error::Frame`] for a length that base64 text cannot have.
    pub fn decoded_len(&self) -> Result<usize> {
        let text = self.data.as_bytes();
        let pads = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
        match text.len() % 4 {
            0 => Ok(text.len() / 4 * 3 - pads),
            _ => Err(Error::frame(0, "base64 text in field \"data\"", format!("{} characters", text.len()))),
        }
    }

    /// Decodes the payload into `out`, which has [`Self::decoded_len`] bytes.
    ///
    /// # Errors
    /// [`Error::Frame`] for text that is not standard base64 with padding.
    pub fn decode(&self, out: &mut [u8]) -> Result<()> {
        let bad = |found: String| Error::frame(0, "base64 text in field \"data\"", found);
        match STANDARD.decode_slice(self.data.as_bytes(), out) {
            Ok(written) if written == out.len() => Ok(()),
            Ok(written) => Err(bad(format!("{written} bytes instead of {}", out.len()))),
            Err(error) => Err(bad(error.to_string())),
        }
    }
}

/// Reads a legacy envelope.
///
/// # Errors
/// [`Error::Frame`], offsets counted from the start of `json`.
///
/// ```
/// let legacy = framecache::frame::parse_legacy(br#"{"data": "YWJj", "serializer": "default"}"#)?;
/// let mut payload = vec![0; legacy.decoded_len()?];
/// legacy.decode(&mut payload)?;
/// assert_eq!((payload.as_slice(), legacy.serializer()), (b"abc".as_slice(), "default"));
/// # Ok::<(), framecache::Error>(())
/// ```
pub fn parse_legacy(json: &[u8]) -> Result<Legacy<'_>> {
    let expected = "a frame (b\"CK\") or a legacy JSON envelope";
    // serde would take an array of the fields as well.
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::frame(0, expected, "a JSON array"));
    }
    let legacy: Legacy<'_> = serde_json::from_slice(json)
        .map_err(|error| Error::frame(offset_of(json, &error), expected, message_of(&error)))?;
    if legacy.serializer.is_empty() {
        return Err(Error::frame(0, "a serializer name in field \"serializer\"", "none"));
    }
    Ok(legacy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &[u8]) -> Result<Vec<u8>> {
        let legacy = parse_legacy(json)?;
        let mut out = vec![0; legacy.decoded_len()?];
        legacy.decode(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_length_of_base64_is_read() {
        for (text, bytes) in [("", "".as_bytes()), ("YQ==", b"a"), ("YWI=", b"ab"), ("YWJj", b"abc")] {
            let json = format!("{{\"data\": \"{text}\", \"metadata\": {{}}, \"serializer\": \"default\"}}");
            assert_eq!(payload(json.as_bytes()).unwrap(), bytes);
        }
    }

    #[test]
    fn malformed_envelopes_are_frame_errors() {
        for json in [
            b"".as_slice(),
            b"[]",
            br#" ["YWJj", {}, "default"]"#,
            b"not json",
            b"{}",
            br#"{"data": "YQ=="}"#,
            br#"{"data": "YQ==", "serializer": ""}"#,
            br#"{"data": 1, "serializer": "x"}"#,
            br#"{"data": "YQ=", "serializer": "x"}"#,
            br#"{"data": "Y===", "serializer": "x"}"#,
            br#"{"data": "****", "serializer": "x"}"#,
            br#"{"data": "====", "serializer": "x"}"#,
        ] {
            assert!(matches!(payload(json), Err(Error::Frame { .. })), "{}", String::from_utf8_lossy(json));
        }
    }
}
