//! The protocol of Redis (RESP2, RESP3): lengths of what is sent, and the answer to a command that reads several values.
//!
//! Values are received where they stay: small ones together in one buffer, each large one in an aligned buffer of its
//! own.
#![allow(unsafe_code)]

use crate::buffer::{AlignedBuf, FrameBuf, Origin};
use crate::error::{Error, Result};
use std::ops::Range;
use std::ptr::NonNull;

/// How much is received at once while no large value is expected.
const ROOM: usize = 64 * 1024;
/// The least room that is received into.
const LEAST: usize = 4 * 1024;
/// Values above this many bytes get a buffer of their own.
const LARGE: usize = 64 * 1024;
/// The largest value of Redis.
const MOST: usize = 512 << 20;
/// The longest line that tells a length.
const LINE: usize = 32;

/// Appends a type and a length or number, as `$5\r\n`.
pub fn pack_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to be received.
    More,
    /// It is complete.
    Done,
    /// It is no array: an error, or something that was not asked for. Nothing was used of it.
    Other,
}

#[derive(Debug)]
enum Value {
    Missing,
    /// In `small`.
    Small(Range<usize>),
    Large(FrameBuf),
}

#[derive(Clone, Copy, Debug)]
enum Expects {
    Array,
    Value,
    LineEnd,
}

/// Values that are being received: the answer to an `MGET` of so many names.
///
/// ```
/// # use framecache::remote::{Progress, Replies};
/// let mut replies = Replies::new(2)?;
/// assert_eq!(replies.take(b"*2\r\n$3\r\nab")?, Progress::More);
/// assert_eq!(replies.take(b"c\r\n$-1\r\n")?, Progress::Done);
/// let values = replies.into_values();
/// assert_eq!(values[0].as_deref(), Some(&b"abc"[..]));
/// assert!(values[1].is_none());
/// # Ok::<(), framecache::Error>(())
/// ```
#[derive(Debug)]
pub struct Replies {
    expected: usize,
    small: AlignedBuf,
    /// How much of `small` was understood, and what comes next.
    at: usize,
    expects: Expects,
    values: Vec<Value>,
    /// The large value that is being received, and its length.
    large: Option<(AlignedBuf, usize)>,
}

impl Replies {
    /// Nothing yet of so many values.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new(expected: usize) -> Result<Self> {
        let (small, values) = (AlignedBuf::with_capacity(ROOM)?, Vec::with_capacity(expected.min(1024)));
        Ok(Self { expected, small, at: 0, expects: Expects::Array, values, large: None })
    }

    /// Where to receive to, and how much at most.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn room(&mut self) -> Result<(NonNull<u8>, usize)> {
        if let Some((large, length)) = &mut self.large {
            let missing = *length - large.len();
            let (start, spare) = large.spare();
            return Ok((start, missing.min(spare)));
        }
        if self.small.capacity() - self.small.len() < LEAST {
            self.small.reserve(ROOM)?;
        }
        Ok(self.small.spare())
    }

    /// Goes on after the first `count` bytes of the room were written.
    ///
    /// # Safety
    /// They were, since [`Self::room`] was called last, and `count` is at most what that said.
    ///
    /// # Errors
    /// [`Error::Frame`] for what is not as the protocol has it, [`Error::Memory`].
    pub unsafe fn received(&mut self, count: usize) -> Result<Progress> {
        let buffer = self.large.as_mut().map_or(&mut self.small, |(large, _)| large);
        // SAFETY: the caller's guarantee.
        unsafe { buffer.set_len(buffer.len() + count) };
        self.go_on()
    }

    /// As [`Self::received`], of bytes that stand elsewhere.
    ///
    /// # Errors
    /// As [`Self::received`].
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<Progress> {
        loop {
            let (start, room) = self.room()?;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            // SAFETY: there is room for `now`, in a block of our own; all of it is written.
            let progress = unsafe {
                start.copy_from_nonoverlapping(NonNull::from(now).cast(), now.len());
                self.received(now.len())?
            };
            bytes = later;
            if bytes.is_empty() || progress != Progress::More {
                return Ok(progress);
            }
        }
    }

    /// What was received, where that is [`Progress::Other`].
    pub fn bytes(&self) -> &[u8] {
        self.small.as_slice()
    }

    /// What was received after the answer.
    pub fn rest(&self) -> &[u8] {
        self.small.as_slice().get(self.at..).unwrap_or_default()
    }

    /// The values, in order; `None` for those that are missing, and for all that were not received.
    pub fn into_values(self) -> Vec<Option<FrameBuf>> {
        let small = FrameBuf::from_aligned(self.small, Origin::Foreign);
        let values = self.values.into_iter().map(|value| match value {
            Value::Missing => None,
            Value::Small(range) => small.slice(range).ok(),
            Value::Large(frame) => Some(frame),
        });
        values.chain(std::iter::repeat_with(|| None)).take(self.expected).collect()
    }

    fn go_on(&mut self) -> Result<Progress> {
        loop {
            if let Some((large, length)) = self.large.take() {
                if large.len() < length {
                    self.large = Some((large, length));
                    return Ok(Progress::More);
                }
                self.values.push(Value::Large(FrameBuf::from_aligned(large, Origin::Foreign)));
            }
            let went_on = match self.expects {
                Expects::Array => match self.small.as_slice().first() {
                    None => false,
                    Some(b'*') => self.array()?,
                    Some(_) => return Ok(Progress::Other),
                },
                Expects::LineEnd => self.line_end()?,
                Expects::Value if self.values.len() == self.expected => return Ok(Progress::Done),
                Expects::Value => self.value()?,
            };
            if !went_on {
                return Ok(Progress::More);
            }
        }
    }

    fn array(&mut self) -> Result<bool> {
        let Some((end, number)) = self.length()? else { return Ok(false) };
        if number != Some(self.expected) {
            return Err(self.wrong(format!("an array of {} values", self.expected)));
        }
        (self.at, self.expects) = (end, Expects::Value);
        Ok(true)
    }

    fn value(&mut self) -> Result<bool> {
        let kind = self.small.as_slice().get(self.at);
        if !matches!(kind, None | Some(b'$' | b'_')) {
            return Err(self.wrong("a value".to_owned()));
        }
        let Some((start, length)) = self.length()? else { return Ok(false) };
        let Some(length) = length else {
            self.values.push(Value::Missing);
            self.at = start;
            return Ok(true);
        };
        if length > MOST {
            return Err(self.wrong(format!("a value of at most {MOST} bytes")));
        }
        let here = self.small.len() - start;
        if length <= here {
            self.values.push(Value::Small(start..start + length));
            (self.at, self.expects) = (start + length, Expects::LineEnd);
        } else if length > LARGE {
            let mut large = AlignedBuf::with_capacity(length)?;
            large.extend_from_slice(&self.small.as_slice()[start..])?;
            self.large = Some((large, length));
            (self.at, self.expects) = (self.small.len(), Expects::LineEnd);
        } else {
            self.small.reserve(length - here + LEAST)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn line_end(&mut self) -> Result<bool> {
        match &self.small.as_slice()[self.at..] {
            [b'\r', b'\n', ..] => {
                (self.at, self.expects) = (self.at + 2, Expects::Value);
                Ok(true)
            }
            [] | [b'\r'] => Ok(false),
            _ => Err(self.wrong("the end of a value".to_owned())),
        }
    }

    /// The number in the line at `at`, and where the line ends; `None` if it is not all there. A number below 0, or none
    /// after `_`, is no length.
    fn length(&self) -> Result<Option<(usize, Option<usize>)>> {
        let line = &self.small.as_slice()[self.at..];
        let Some(end) = line.iter().take(LINE).position(|byte| *byte == b'\n') else {
            return if line.len() < LINE { Ok(None) } else { Err(self.wrong("a length".to_owned())) };
        };
        let number = match &line[..end] {
            b"_\r" | b"$-1\r" => None,
            [b'*' | b'$', digits @ .., b'\r'] if (1..=10).contains(&digits.len()) => {
                let digit = |byte: &u8| byte.is_ascii_digit().then(|| usize::from(byte - b'0'));
                let number = digits.iter().try_fold(0, |number, byte| Some(10 * number + digit(byte)?));
                Some(number.ok_or_else(|| self.wrong("a length".to_owned()))?)
            }
            _ => return Err(self.wrong("a length".to_owned())),
        };
        Ok(Some((self.at + end + 1, number)))
    }

    fn wrong(&self, expected: String) -> Error {
        let rest = &self.small.as_slice()[self.at..];
        let found = format!("{:?}", String::from_utf8_lossy(&rest[..rest.len().min(LINE)]));
        Error::frame(self.at, expected, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(values: &[Option<Vec<u8>>], nothing: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack_length(&mut bytes, b'*', values.len());
        for value in values {
            match value {
                None => bytes.extend_from_slice(nothing),
                Some(value) => {
                    pack_length(&mut bytes, b'$', value.len());
                    bytes.extend_from_slice(value);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
        }
        bytes
    }

    fn read(answer: &[u8], expected: usize, cuts: &[usize]) -> Vec<Option<Vec<u8>>> {
        let mut replies = Replies::new(expected).expect("memory");
        let mut at = 0;
        for cut in cuts.iter().map(|cut| cut % (answer.len() + 1)).filter(|cut| *cut > 0) {
            let end = (at + cut).min(answer.len());
            if end > at && end < answer.len() {
                assert_eq!(replies.take(&answer[at..end]).expect("well-formed"), Progress::More);
                at = end;
            }
        }
        assert_eq!(replies.take(&answer[at..]).expect("well-formed"), Progress::Done);
        assert_eq!(replies.rest(), b"");
        replies.into_values().into_iter().map(|value| value.map(|frame| frame.to_vec())).collect()
    }

    #[test]
    fn large_values_stand_alone_and_aligned() {
        let large = vec![7; 300_000];
        let values = vec![Some(b"small".to_vec()), Some(large.clone()), None, Some(vec![8; LARGE + 1]), Some(vec![])];
        let bytes = answer(&values, b"$-1\r\n");
        for step in [1000, 65_536, bytes.len() - 1] {
            let cuts = vec![step; bytes.len() / step];
            assert_eq!(read(&bytes, values.len(), &cuts), values);
        }
        let mut replies = Replies::new(values.len()).expect("memory");
        // The first part ends inside the large value.
        assert_eq!(replies.take(&bytes[..1000]).expect("well-formed"), Progress::More);
        assert_eq!(replies.take(&bytes[1000..]).expect("well-formed"), Progress::Done);
        let frame = replies.into_values().swap_remove(1).expect("there");
        assert_eq!((frame.as_ptr().addr() % 64, &*frame == large.as_slice()), (0, true));
    }

    #[test]
    fn what_is_no_array_is_for_the_client() {
        for other in [&b"-OOM no\r\n"[..], b">2\r\n", b"+OK\r\n", b"_\r\n"] {
            let mut replies = Replies::new(1).expect("memory");
            assert_eq!(replies.take(other).expect("not looked at"), Progress::Other);
            assert_eq!(replies.bytes(), other);
        }
    }

    #[test]
    fn what_follows_is_for_the_client() {
        let mut replies = Replies::new(1).expect("memory");
        assert_eq!(replies.take(b"*1\r\n$1\r\na\r\n>2\r\n").expect("well-formed"), Progress::Done);
        assert_eq!(replies.rest(), b">2\r\n");
    }

    #[test]
    fn malformed_answers_are_errors() {
        for wrong in [
            "*2\r\n",
            "*-1\r\n",
            "*1\n",
            "*x\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n$x\r\n",
            "*1\r\n$-2\r\n",
            "*1\r\n$\r\n",
            "*1\r\n$1\r\nabc",
            "*1\r\n$536870913\r\n",
            "*1\r\n$99999999999\r\n",
            "*1\r\n$1111111111111111111111111111111111",
            "*1\r\n-ERR\r\n",
        ] {
            let mut replies = Replies::new(1).expect("memory");
            assert!(replies.take(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn values_come_in_however_they_are_cut(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..80)), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..8), resp3: bool,
        ) {
            let bytes = answer(&values, if resp3 { b"_\r\n" } else { b"$-1\r\n" });
            prop_assert_eq!(read(&bytes, values.len(), &cuts), values);
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(text in "[*$0-3_\\-\r\nab]{0,60}", count in 0usize..4) {
            let mut whole = Replies::new(count).expect("memory");
            let found = whole.take(text.as_bytes());
            let mut bitwise = Replies::new(count).expect("memory");
            let mut last = Ok(Progress::More);
            for byte in text.as_bytes() {
                if !matches!(last, Ok(Progress::More)) {
                    break;
                }
                last = bitwise.take(std::slice::from_ref(byte));
            }
            if let Ok(Progress::Done) = found {
                prop_assert!(matches!(last, Ok(Progress::Done)));
                prop_assert_eq!(whole.into_values().len(), count);
            } else {
                prop_assert_eq!(found.is_err(), last.is_err());
            }
        }
    }
}
