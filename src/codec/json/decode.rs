//! Reading: one loop over the text, straight to Python objects.
//!
//! The text is valid UTF-8 and a NUL follows it, so that no byte needs a check of its own that there is one. Items of
//! open containers wait on the object stack; a container is made when it closes, at its exact size. Nothing recurses.
#![allow(unsafe_code)]

use super::MAX_READ_DEPTH;
use super::block::{Block, WIDTH};
use crate::cpython::{CollectorPause, KeyCache, ObjectStack, Owned, dict};
use pyo3::ffi;
use pyo3::prelude::*;
use std::mem::MaybeUninit;

/// What is wrong with a text. The messages are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Blank,
    End,
    Mark,
    Value,
    Key,
    Colon,
    CommaOrBracket,
    CommaOrBrace,
    TrailingComma,
    Content,
    Literal(&'static str),
    Depth,
    Escape,
    NoLowSurrogate,
    LowSurrogate,
    HighSurrogate,
    Control,
    LeadingZero,
    NoDigitAfterSign,
    NoDigitAfterPoint,
    NoDigitAfterExponent,
    Infinite,
    /// A Python exception is set.
    Raised,
}

impl Invalid {
    /// The message of the `JSONDecodeError`.
    pub(crate) fn message(self) -> String {
        let message = match self {
            Self::Blank => "input data is empty",
            Self::End => "unexpected end of data",
            Self::Mark => "UTF-8 byte order mark (BOM) is not supported",
            Self::Value => "unexpected character, expected a JSON value",
            Self::Key => "unexpected character, expected a string key",
            Self::Colon => "unexpected character, expected ':' after key",
            Self::CommaOrBracket => "unexpected character, expected ',' or ']'",
            Self::CommaOrBrace => "unexpected character, expected ',' or '}'",
            Self::TrailingComma => "trailing comma is not allowed",
            Self::Content => "unexpected content after document",
            Self::Literal(expected) => return format!("invalid literal, expected '{expected}'"),
            Self::Depth => "depth limit exceeded",
            Self::Escape => "invalid escaped sequence in string",
            Self::NoLowSurrogate => "no low surrogate in string",
            Self::LowSurrogate => "invalid low surrogate in string",
            Self::HighSurrogate => "invalid high surrogate in string",
            Self::Control => "unexpected control character in string",
            Self::LeadingZero => "number with leading zero is not allowed",
            Self::NoDigitAfterSign => "no digit after sign",
            Self::NoDigitAfterPoint => "no digit after decimal point",
            Self::NoDigitAfterExponent => "no digit after exponent sign",
            Self::Infinite => "number is infinity when parsed as double",
            Self::Raised => "",
        };
        message.to_owned()
    }
}

/// The cause is kept aside, so that results fit into registers.
#[derive(Debug)]
pub(super) struct Stop;

/// An object, and where its text ends.
pub(super) type Found = Result<(Owned, *const u8), Stop>;

/// Reads one text.
pub(crate) struct Decoder<'a> {
    pub(super) start: *const u8,
    /// Where the NUL is.
    pub(super) end: *const u8,
    pub(super) cache: &'a mut KeyCache,
    stack: ObjectStack,
    /// The bytes of a string with escapes, while it is read.
    pub(super) unescaped: Vec<u8>,
    fault: Option<(Invalid, *const u8)>,
}

/// An open container: where its items start on the stack, and whether it is a dict.
#[derive(Clone, Copy)]
struct Open {
    base: usize,
    is_dict: bool,
}

impl<'a> Decoder<'a> {
    /// Reads the value that `text` is.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    ///
    /// # Safety
    /// `text` is valid UTF-8, a NUL follows it, and nobody changes either meanwhile.
    pub(crate) unsafe fn decode<'py>(py: Python<'py>, text: &'a [u8]) -> Result<Bound<'py, PyAny>, (Invalid, usize)> {
        let range = text.as_ptr_range();
        let pause = CollectorPause::new(py);
        // SAFETY: attached; making strings, numbers, lists and dicts of these runs no Python code.
        let found = unsafe {
            KeyCache::with(|cache| {
                let mut decoder = Decoder {
                    start: range.start,
                    end: range.end,
                    cache,
                    stack: ObjectStack::default(),
                    unescaped: Vec::new(),
                    fault: None,
                };
                decoder.document().map_err(|Stop| decoder.fault.take())
            })
        };
        drop(pause);
        match found {
            // SAFETY: attached, a new reference.
            Ok(value) => unsafe { Ok(Bound::from_owned_ptr(py, value.into_ptr())) },
            Err(fault) => {
                let (invalid, at) = fault.unwrap_or((Invalid::Raised, range.start));
                Err((invalid, at.addr() - range.start.addr()))
            }
        }
    }

    /// Ends with what is wrong at `at`; where the text ends, that is what is wrong.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&mut self, invalid: Invalid, at: *const u8) -> Stop {
        let invalid = if at == self.end && invalid != Invalid::Raised { Invalid::End } else { invalid };
        self.fault = Some((invalid, at));
        Stop
    }

    #[inline(always)]
    pub(super) fn owned(&mut self, object: *mut ffi::PyObject, end: *const u8) -> Found {
        // SAFETY: attached; the callers pass a new reference or null.
        match unsafe { Owned::new(object) } {
            Some(object) => Ok((object, end)),
            None => Err(self.fail(Invalid::Raised, end)),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_memory(&mut self, at: *const u8) -> Stop {
        // SAFETY: attached.
        unsafe { ffi::PyErr_NoMemory() };
        self.fail(Invalid::Raised, at)
    }

    #[inline(always)]
    fn push(&mut self, object: Owned, at: *const u8) -> Result<(), Stop> {
        if !self.stack.reserve(1) {
            return Err(self.no_memory(at));
        }
        self.stack.push(object);
        Ok(())
    }

    /// # Safety
    /// As [`Self::decode`].
    unsafe fn document(&mut self) -> Result<Owned, Stop> {
        // SAFETY: `at` moves forward over bytes that were looked at, to the NUL at the end at most.
        unsafe {
            let first = self.skip_blanks(self.start);
            if first == self.end {
                self.fault = Some((Invalid::Blank, self.start));
                return Err(Stop);
            }
            if *first == 0xef && first == self.start && self.starts_with(first, b"\xef\xbb\xbf") {
                return Err(self.fail(Invalid::Mark, first));
            }
            let (value, at) = self.value(first)?;
            let at = self.skip_blanks(at);
            if at == self.end { Ok(value) } else { Err(self.fail(Invalid::Content, at)) }
        }
    }

    /// The value that starts at `at`, with all that is in it.
    ///
    /// # Safety
    /// As [`Self::decode`]; `at` is inside the text.
    unsafe fn value(&mut self, mut at: *const u8) -> Found {
        let mut outer = [const { MaybeUninit::<Open>::uninit() }; MAX_READ_DEPTH];
        let mut depth = 0;
        let mut open = Open { base: 0, is_dict: false };
        // SAFETY: as for `document`; `outer` is written up to `depth`.
        unsafe {
            loop {
                at = self.skip_blanks(at);
                let mut object;
                match *at {
                    b'"' => (object, at) = self.string(at.add(1))?,
                    b'0'..=b'9' | b'-' => (object, at) = self.number(at)?,
                    bracket @ (b'[' | b'{') => {
                        let is_dict = bracket == b'{';
                        if depth >= MAX_READ_DEPTH {
                            return Err(self.too_deep(at.add(1)));
                        }
                        let inside = self.skip_blanks(at.add(1));
                        if *inside == bracket + 2 {
                            let empty = if is_dict { ffi::PyDict_New() } else { ffi::PyList_New(0) };
                            (object, at) = self.owned(empty, inside.add(1))?;
                        } else {
                            outer[depth].write(open);
                            depth += 1;
                            open = Open { base: self.stack.len(), is_dict };
                            at = if is_dict { self.key(inside)? } else { inside };
                            continue;
                        }
                    }
                    b't' => (object, at) = self.literal(at, "true", ffi::Py_True())?,
                    b'f' => (object, at) = self.literal(at, "false", ffi::Py_False())?,
                    b'n' => (object, at) = self.literal(at, "null", ffi::Py_None())?,
                    _ => return Err(self.no_value(at, depth > 0)),
                }
                // A whole value: an item, and perhaps the last one of containers.
                loop {
                    if depth == 0 {
                        return Ok((object, at));
                    }
                    self.push(object, at)?;
                    at = self.skip_blanks(at);
                    if *at == b',' {
                        at = at.add(1);
                        if open.is_dict {
                            at = self.skip_blanks(at);
                            at = self.key(at)?;
                        }
                        break;
                    }
                    object = self.close(open, at)?;
                    at = at.add(1);
                    depth -= 1;
                    open = outer[depth].assume_init();
                }
            }
        }
    }

    /// The container that ends at `at`.
    #[inline(always)]
    unsafe fn close(&mut self, open: Open, at: *const u8) -> Result<Owned, Stop> {
        // SAFETY: as for `value`; of a dict keys and values stand on the stack.
        unsafe {
            let made = if open.is_dict {
                if *at != b'}' {
                    return Err(self.fail(Invalid::CommaOrBrace, at));
                }
                dict::pop_dict(&mut self.stack, open.base, true)
            } else {
                if *at != b']' {
                    return Err(self.fail(Invalid::CommaOrBracket, at));
                }
                self.stack.pop_list(open.base)
            };
            made.ok_or_else(|| self.fail(Invalid::Raised, at))
        }
    }

    /// Reads a key that starts at `at` onto the stack, and the colon; returns where the value may start.
    #[inline(always)]
    unsafe fn key(&mut self, at: *const u8) -> Result<*const u8, Stop> {
        // SAFETY: as for `value`.
        unsafe {
            if *at != b'"' {
                return Err(self.no_key(at));
            }
            let (key, mut at) = self.key_string(at.add(1))?;
            self.push(key, at)?;
            if *at != b':' {
                at = self.skip_blanks(at);
                if *at != b':' {
                    return Err(self.fail(Invalid::Colon, at));
                }
            }
            Ok(at.add(1))
        }
    }

    #[inline(always)]
    unsafe fn literal(&mut self, at: *const u8, text: &'static str, object: *mut ffi::PyObject) -> Found {
        // SAFETY: a constant; the text has as many bytes, or is found to end before.
        unsafe {
            if self.starts_with(at, text.as_bytes()) {
                return Ok((Owned::constant(object), at.add(text.len())));
            }
            Err(self.no_literal(at, text))
        }
    }

    #[inline(always)]
    unsafe fn starts_with(&self, at: *const u8, text: &[u8]) -> bool {
        // SAFETY: only bytes before the end are read.
        self.end.addr() - at.addr() >= text.len() && unsafe { std::slice::from_raw_parts(at, text.len()) } == text
    }

    /// The first byte from `at` on that is not blank.
    #[inline(always)]
    pub(super) unsafe fn skip_blanks(&self, at: *const u8) -> *const u8 {
        // SAFETY: the NUL at the end is not blank.
        unsafe {
            if *at > b' ' {
                return at;
            }
            // Often one.
            if *at == b' ' && *at.add(1) > b' ' {
                return at.add(1);
            }
            self.skip_many_blanks(at)
        }
    }

    #[inline(never)]
    unsafe fn skip_many_blanks(&self, mut at: *const u8) -> *const u8 {
        // SAFETY: as above; blocks are read where there are that many bytes.
        unsafe {
            loop {
                // A control character ends the run where it is looked at alone.
                match *at {
                    b' ' | b'\n' | b'\r' | b'\t' => at = at.add(1),
                    _ => return at,
                }
                while self.end.addr() - at.addr() >= WIDTH {
                    let block = Block::load(at);
                    let other = block.not_space();
                    if other != 0 {
                        at = at.add(other.trailing_zeros() as usize);
                        break;
                    }
                    at = at.add(WIDTH);
                }
            }
        }
    }

    #[cold]
    unsafe fn no_literal(&mut self, at: *const u8, text: &'static str) -> Stop {
        // SAFETY: the bytes up to the end.
        let left = unsafe { std::slice::from_raw_parts(at, self.end.addr() - at.addr()) };
        if text.as_bytes().starts_with(left) {
            return self.fail(Invalid::End, self.end);
        }
        self.fail(Invalid::Literal(text), at)
    }

    /// What stands at `at` starts no value.
    #[cold]
    unsafe fn no_value(&mut self, at: *const u8, inside: bool) -> Stop {
        // SAFETY: as for `value`.
        unsafe {
            match *at {
                b']' if inside => self.after_comma(at, Invalid::Value),
                b'.' | b'+' => self.fail(Invalid::NoDigitAfterSign, at),
                _ => self.fail(Invalid::Value, at),
            }
        }
    }

    #[cold]
    unsafe fn no_key(&mut self, at: *const u8) -> Stop {
        // SAFETY: as for `value`.
        unsafe { if *at == b'}' { self.after_comma(at, Invalid::Key) } else { self.fail(Invalid::Key, at) } }
    }

    /// A closing bracket that should be an item: too much is the comma before it, if there is one.
    unsafe fn after_comma(&mut self, at: *const u8, otherwise: Invalid) -> Stop {
        // SAFETY: going back no further than to the start.
        unsafe {
            let mut before = at;
            while before > self.start {
                before = before.sub(1);
                match *before {
                    b' ' | b'\n' | b'\r' | b'\t' => {}
                    b',' => return self.fail(Invalid::TrailingComma, before),
                    _ => break,
                }
            }
        }
        self.fail(otherwise, at)
    }

    #[cold]
    fn too_deep(&mut self, at: *const u8) -> Stop {
        self.fault = Some((Invalid::Depth, at));
        Stop
    }
}
