//! The end of a frame's header as this crate writes it, read without JSON: `"key": …, "length": …, "created": …`, then
//! `"until": …` if it has one.

use crate::frame::write_string;

/// What differs from entry to entry of one kind and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// `m.length`.
    pub length: u64,
    /// `m.created`.
    pub created: u64,
    /// `m.until`.
    pub until: Option<u64>,
}

/// Reads what a header has from `"key": ` to its end, padding included, if it is that of `key` and just as written.
///
/// `None` where the full parser has to look: what is accepted here, that one finds the same of.
pub fn read_rest(rest: &[u8], key: &str) -> Option<Rest> {
    let rest = after_key(rest.strip_prefix(b"\"key\": ")?, key)?;
    let (length, rest) = number(rest.strip_prefix(b", \"length\": ")?)?;
    let (created, rest) = number(rest.strip_prefix(b", \"created\": ")?)?;
    let (until, rest) = match rest.strip_prefix(b", \"until\": ") {
        Some(rest) => number(rest).map(|(until, rest)| (Some(until), rest))?,
        None => (None, rest),
    };
    rest.strip_prefix(b"}}")?.iter().all(|byte| *byte == b' ').then_some(Rest { length, created, until })
}

fn after_key<'j>(json: &'j [u8], key: &str) -> Option<&'j [u8]> {
    if !key.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        return json.strip_prefix(b"\"")?.strip_prefix(key.as_bytes())?.strip_prefix(b"\"");
    }
    let mut written = Vec::with_capacity(key.len() + 16);
    write_string(&mut written, key);
    json.strip_prefix(&*written)
}

/// A number of at most 18 digits, as JSON has it, and what follows.
fn number(json: &[u8]) -> Option<(u64, &[u8])> {
    let digits = json.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 18 || (json[0] == b'0' && digits > 1) {
        return None;
    }
    let value = json[..digits].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, &json[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Header;
    use proptest::prelude::*;

    fn written(key: &str, rest: Rest) -> String {
        let header = Header {
            key: Some(key.to_owned()),
            length: Some(rest.length),
            created: Some(rest.created),
            until: rest.until,
            ..Header::new("raw")
        };
        String::from_utf8(header.to_json()).expect("JSON")
    }

    fn start() -> usize {
        br#"{"s": "raw", "v": "2.0", "m": {"#.len()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key: String, length in 0..10u64.pow(18), created in 0..10u64.pow(18),
                                   until in prop::option::of(0..10u64.pow(18)), padding in 0usize..70) {
            let rest = Rest { length, created, until };
            let mut json = written(&key, rest);
            json.push_str(&" ".repeat(padding));
            prop_assert_eq!(read_rest(&json.as_bytes()[start()..], &key), Some(rest));
            prop_assert_eq!(read_rest(&json.as_bytes()[start()..], &format!("{key}x")), None);
        }

        #[test]
        fn whatever_is_accepted_the_full_parser_finds_too(key in "[a-c\"]{0,3}", at in 0usize..100, byte: u8, cut: bool) {
            let mut json = written(&key, Rest { length: 12, created: 1_700_000_000_000, until: Some(5) }).into_bytes();
            json.push(b' ');
            let at = start() + at % (json.len() - start());
            if cut {
                json.remove(at);
            } else {
                json[at] = byte;
            }
            if let Some(rest) = read_rest(&json[start()..], &key) {
                let header = Header::parse(&json).expect("what the fast way accepts is a header");
                prop_assert_eq!(header.key, Some(key));
                prop_assert_eq!((header.length, header.created), (Some(rest.length), Some(rest.created)));
                prop_assert_eq!((header.until, header.compression), (rest.until, None));
            }
        }
    }
}
