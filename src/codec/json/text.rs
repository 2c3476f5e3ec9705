//! Reading strings.
#![allow(unsafe_code)]

use super::block::{Block, WIDTH};
use super::decode::{Decoder, Found, Invalid, Stop};
use crate::cpython::MAX_KEY;
use crate::cpython::new_str::{new_ascii, new_valid};

/// A part of the text without escapes, up to the quote, backslash or control character at its end.
struct Run {
    end: *const u8,
    ascii: bool,
}

impl Decoder<'_> {
    /// The string whose first character is at `start`.
    ///
    /// # Safety
    /// `start` is inside the text and follows a quote.
    #[inline(always)]
    pub(super) unsafe fn string(&mut self, start: *const u8) -> Found {
        // SAFETY: as for `run`; the bytes between are valid UTF-8.
        unsafe {
            let run = self.run(start);
            if *run.end != b'"' {
                return self.escaped(start, run, false);
            }
            let bytes = std::slice::from_raw_parts(start, run.end.addr() - start.addr());
            let made = if run.ascii { new_ascii(bytes) } else { new_valid(bytes) };
            match made {
                Some(object) => Ok((object, run.end.add(1))),
                None => Err(self.fail(Invalid::Raised, start)),
            }
        }
    }

    /// As [`Self::string`], shared with equal keys if it is short.
    ///
    /// # Safety
    /// As [`Self::string`].
    #[inline(always)]
    pub(super) unsafe fn key_string(&mut self, start: *const u8) -> Found {
        // SAFETY: as above.
        unsafe {
            let run = self.run(start);
            if *run.end != b'"' {
                return self.escaped(start, run, true);
            }
            let bytes = std::slice::from_raw_parts(start, run.end.addr() - start.addr());
            self.shared(bytes, run.end.add(1))
        }
    }

    #[inline(always)]
    unsafe fn shared(&mut self, bytes: &[u8], end: *const u8) -> Found {
        // SAFETY: attached; valid UTF-8.
        let made = unsafe { if bytes.len() <= MAX_KEY { self.cache.get(bytes).ok() } else { new_valid(bytes) } };
        match made {
            Some(object) => Ok((object, end)),
            None => Err(self.fail(Invalid::Raised, end)),
        }
    }

    /// # Safety
    /// `start` is inside the text: the NUL after it ends the run at the latest.
    #[inline(always)]
    unsafe fn run(&self, start: *const u8) -> Run {
        let mut at = start;
        let mut high = 0;
        // SAFETY: blocks are read where there are that many bytes.
        unsafe {
            while self.end.addr() - at.addr() >= WIDTH {
                let block = Block::load(at);
                let special = block.special();
                if special != 0 {
                    // The bytes before the first special one.
                    high |= block.high() & (special ^ (special - 1));
                    return Run { end: at.add(special.trailing_zeros() as usize), ascii: high == 0 };
                }
                high |= block.high();
                at = at.add(WIDTH);
            }
            let mut bits = 0;
            while *at >= 0x20 && *at != b'"' && *at != b'\\' {
                bits |= *at;
                at = at.add(1);
            }
            Run { end: at, ascii: high == 0 && bits < 0x80 }
        }
    }

    /// A string with escapes, or one that does not end: `run` is its first part.
    #[inline(never)]
    unsafe fn escaped(&mut self, start: *const u8, mut run: Run, is_key: bool) -> Found {
        self.unescaped.clear();
        let (mut from, mut ascii) = (start, true);
        // SAFETY: as for `run`; `from` to `run.end` is a part without escapes.
        unsafe {
            loop {
                let part = std::slice::from_raw_parts(from, run.end.addr() - from.addr());
                ascii &= run.ascii;
                // No escape becomes longer than four bytes.
                if self.unescaped.try_reserve(part.len() + 4).is_err() {
                    return Err(self.no_memory(run.end));
                }
                self.unescaped.extend_from_slice(part);
                match *run.end {
                    b'"' => break,
                    b'\\' => from = self.escape(run.end, &mut ascii)?,
                    _ => return Err(self.fail(Invalid::Control, run.end)),
                }
                // Escapes often follow one another.
                while *from == b'\\' {
                    if self.unescaped.try_reserve(4).is_err() {
                        return Err(self.no_memory(from));
                    }
                    from = self.escape(from, &mut ascii)?;
                }
                run = self.run(from);
            }
            let end = run.end.add(1);
            let bytes = std::mem::take(&mut self.unescaped);
            let found = if is_key {
                self.shared(&bytes, end)
            } else {
                let made = if ascii { new_ascii(&bytes) } else { new_valid(&bytes) };
                made.map(|object| (object, end)).ok_or_else(|| self.fail(Invalid::Raised, end))
            };
            self.unescaped = bytes;
            found
        }
    }

    /// Reads the escape whose backslash is at `at`; returns where it ends.
    #[inline]
    unsafe fn escape(&mut self, at: *const u8, ascii: &mut bool) -> Result<*const u8, Stop> {
        // SAFETY: a byte follows, the NUL at the end at the latest.
        unsafe {
            let byte = match *at.add(1) {
                b'"' => b'"',
                b'\\' => b'\\',
                b'/' => b'/',
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => return self.code_unit(at, ascii),
                _ if at.add(1) == self.end => return Err(self.fail(Invalid::End, self.end)),
                _ => return Err(self.fail(Invalid::Escape, at)),
            };
            self.unescaped.push(byte);
            Ok(at.add(2))
        }
    }

    /// `\uXXXX`, or two of them that are one character.
    unsafe fn code_unit(&mut self, at: *const u8, ascii: &mut bool) -> Result<*const u8, Stop> {
        // SAFETY: as for `escape`; `hex` reads no further than to the first byte that is no digit.
        unsafe {
            let first = self.hex(at)?;
            let mut end = at.add(6);
            let char = match first {
                0xdc00..=0xdfff => return Err(self.fail(Invalid::HighSurrogate, at)),
                0xd800..=0xdbff => {
                    if *end != b'\\' || *end.add(1) != b'u' {
                        let cut = end == self.end || (*end == b'\\' && end.add(1) == self.end);
                        return Err(if cut {
                            self.fail(Invalid::End, self.end)
                        } else {
                            self.fail(Invalid::NoLowSurrogate, at)
                        });
                    }
                    let second = self.hex(end)?;
                    if !(0xdc00..=0xdfff).contains(&second) {
                        return Err(self.fail(Invalid::LowSurrogate, at));
                    }
                    end = end.add(6);
                    0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                }
                _ => first,
            };
            *ascii &= char < 0x80;
            let char = char::from_u32(char).unwrap_or(char::REPLACEMENT_CHARACTER);
            self.unescaped.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            Ok(end)
        }
    }

    /// The four digits of the escape at `at`.
    unsafe fn hex(&mut self, at: *const u8) -> Result<u32, Stop> {
        let mut value = 0;
        // SAFETY: the NUL at the end is no digit.
        unsafe {
            for place in 2..6 {
                let byte = at.add(place);
                let Some(digit) = char::from(*byte).to_digit(16) else {
                    return Err(if byte == self.end {
                        self.fail(Invalid::End, self.end)
                    } else {
                        self.fail(Invalid::Escape, at)
                    });
                };
                value = value << 4 | digit;
            }
        }
        Ok(value)
    }
}
