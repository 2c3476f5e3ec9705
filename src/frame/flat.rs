//! The fast way through a header as this crate and cachekit write it: no escapes, nothing nested in the metadata.
//!
//! It reads a subset of JSON and gives up on anything else; the caller then takes the full parser, so that what is
//! accepted, and every error, is decided there alone.

/// A metadata value of a flat header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'j> {
    /// A string without escapes.
    Text(&'j str),
    /// An integer of at most 18 digits.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
    /// `null`.
    Null,
}

/// Passes each metadata field of a flat header to `field` and returns the serializer's name.
///
/// `None` where the header is not flat, lacks a name, or `field` returns false; `field` may then have seen some of it.
pub fn read_flat<'j>(json: &'j [u8], mut field: impl FnMut(&'j str, Scalar<'j>) -> bool) -> Option<&'j str> {
    let mut scan = Scan { text: std::str::from_utf8(json).ok()?, at: 0 };
    let mut serializer = None;
    let mut metadata = false;
    scan.object(|scan, name| {
        match name {
            "s" => serializer = Some(scan.string()?),
            // A second object would replace the first one's fields.
            "m" if !std::mem::replace(&mut metadata, true) => {
                scan.object(|scan, name| {
                    let value = scan.scalar()?;
                    field(name, value).then_some(())
                })?;
            }
            "v" => drop(scan.string()?),
            _ => return None,
        }
        Some(())
    })?;
    scan.space();
    serializer.filter(|name| !name.is_empty() && scan.at == json.len())
}

struct Scan<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Scan<'j> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn object(&mut self, mut entry: impl FnMut(&mut Self, &'j str) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.eat(b':')?;
            entry(self, name)?;
            self.space();
            let separator = self.peek()?;
            self.at += 1;
            match separator {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<&'j str> {
        self.eat(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = plain_length(rest);
        if *rest.get(length)? != b'"' {
            return None;
        }
        let start = self.at;
        self.at += length + 1;
        self.text.get(start..start + length)
    }

    fn scalar(&mut self) -> Option<Scalar<'j>> {
        self.space();
        let rest = &self.text.as_bytes()[self.at..];
        let (scalar, length) = match rest.first()? {
            b'"' => return self.string().map(Scalar::Text),
            b't' if rest.starts_with(b"true") => (Scalar::Flag(true), 4),
            b'f' if rest.starts_with(b"false") => (Scalar::Flag(false), 5),
            b'n' if rest.starts_with(b"null") => (Scalar::Null, 4),
            _ => integer(rest)?,
        };
        self.at += length;
        Some(scalar)
    }
}

/// Bytes before the first quote, backslash or control character; eight at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & (ONES * 0x80);
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A borrow marks bytes above the one that caused it, so that the lowest mark is always right.
        let marks = is(word, b'"') | is(word, b'\\') | below(word, 0x20);
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    bytes.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

/// An integer at the start of `rest` and its length; floats and longer ones are left to the full parser.
fn integer<'j>(rest: &[u8]) -> Option<(Scalar<'j>, usize)> {
    const DIGITS: usize = 18;
    let sign = usize::from(rest.first() == Some(&b'-'));
    let digits = rest[sign..].iter().take(DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let number = &rest[sign..sign + digits];
    let next = rest.get(sign + digits);
    if digits == 0 || digits > DIGITS || number[0] == b'0' || matches!(next, Some(b'.' | b'e' | b'E')) {
        return (number == b"0" && sign == 0 && !matches!(next, Some(b'.' | b'e' | b'E' | b'0'..=b'9')))
            .then_some((Scalar::Integer(0), 1));
    }
    let value = number.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some((Scalar::Integer(if sign == 1 { -value } else { value }), sign + digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    /// What `read_flat` finds, as serde_json would have it.
    fn flat(json: &[u8]) -> Option<(String, Map<String, Value>)> {
        let mut fields = Map::new();
        let name = read_flat(json, |name, value| {
            let value = match value {
                Scalar::Text(text) => Value::from(text),
                Scalar::Integer(number) => Value::from(number),
                Scalar::Flag(flag) => Value::from(flag),
                Scalar::Null => Value::Null,
            };
            fields.insert(name.to_owned(), value);
            true
        })?;
        Some((name.to_owned(), fields))
    }

    /// What it finds must be what serde_json finds.
    fn agrees(json: &[u8]) -> bool {
        let Some((name, fields)) = flat(json) else { return true };
        let full: Value = serde_json::from_slice(json).expect("what the fast way accepts is JSON");
        full["s"] == name
            && full.get("m").cloned().unwrap_or_else(|| Value::Object(Map::new())) == Value::Object(fields)
    }

    #[test]
    fn a_written_header_takes_the_fast_way() {
        let json = br#"{"s": "default", "m": {"a": "x", "b": true, "c": null, "d": -12, "e": 0}, "v": "2.0"}  "#;
        let (name, fields) = flat(json).expect("flat");
        assert_eq!((name.as_str(), fields.len()), ("default", 5));
        assert!(agrees(json));
    }

    #[test]
    fn what_is_not_flat_or_not_json_is_left_to_the_full_parser() {
        for json in [
            r#"{"s": "a", "m": {"x": []}}"#,
            r#"{"s": "a", "m": {"x": 1.5}}"#,
            r#"{"s": "a", "m": {"x": 1e3}}"#,
            r#"{"s": "a", "m": {"x": 01}}"#,
            r#"{"s": "a", "m": {"x": -0}}"#,
            r#"{"s": "a", "m": {"x": -}}"#,
            r#"{"s": "a", "m": {"x": 1234567890123456789}}"#,
            r#"{"s": "a\n"}"#,
            r#"{"s": "a\u0041"}"#,
            r#"{"s": ""}"#,
            r#"{"m": {}}"#,
            r#"{"s": "a",}"#,
            r#"{"s": "a"} x"#,
            r#"{"s": "a"}}"#,
            r#"{"s" "a"}"#,
            r#"{"s": "a"#,
            r#"{"s": "a", "x": 1}"#,
            r#"{"s": "a", "m": {}, "m": {}}"#,
            r#"{"s": "a", "m": {"x": tru}}"#,
            "[]",
            "",
            "{}",
        ] {
            assert_eq!(flat(json.as_bytes()), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn a_strings_end_is_found_as_byte_by_byte(bytes in prop::collection::vec(any::<u8>(), 0..40), plain in 0usize..40) {
            let mut bytes = bytes;
            bytes.iter_mut().take(plain).for_each(|byte| *byte |= 0x60);
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_length(&bytes), slow);
        }

        #[test]
        fn it_agrees_with_the_full_parser(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "\"s\"", "\"m\"", "\"v\"", ":", ",", "\"a\"", "\"\"", "1", "-", "0", "23", "true", "null", " ", "\\",
            ]), 0..24),
        ) {
            prop_assert!(agrees(parts.concat().as_bytes()));
        }

        #[test]
        fn it_agrees_on_damaged_headers(at in 0usize..80, byte: u8) {
            let mut json = br#"{"s": "default", "m": {"a": "x", "b": true, "c": null, "d": -12}, "v": "2.0"}   "#.to_vec();
            json[at] = byte;
            prop_assert!(agrees(&json));
        }
    }
}
