//! Reading strings.
#![allow(unsafe_code)]

use super::block::{Block, WIDTH};
use super::decode::{Decoder, Found, Invalid, Stop};
#[cfg(target_arch = "x86_64")]
use super::unescape;
use crate::cpython::MAX_KEY;
use crate::cpython::new_str::{new_ascii, new_valid};
#[cfg(target_arch = "x86_64")]
use crate::processor::{Level, level};

/// Room for what is stored together, and for a character after it.
const ROOM: usize = 64 + WIDTH;

/// What the letter after a backslash stands for; 0 for `u`, and for what is none.
pub(super) static UNESCAPED: [u8; 256] = {
    let mut bytes = [0; 256];
    bytes[b'"' as usize] = b'"';
    bytes[b'\\' as usize] = b'\\';
    bytes[b'/' as usize] = b'/';
    bytes[b'b' as usize] = 0x08;
    bytes[b'f' as usize] = 0x0c;
    bytes[b'n' as usize] = b'\n';
    bytes[b'r' as usize] = b'\r';
    bytes[b't' as usize] = b'\t';
    bytes
};

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
    unsafe fn escaped(&mut self, start: *const u8, run: Run, is_key: bool) -> Found {
        let first = run.end.addr() - start.addr();
        self.unescaped.clear();
        if self.unescaped.try_reserve(first + ROOM).is_err() {
            return Err(self.no_memory(start));
        }
        let (mut at, mut high) = (run.end, !run.ascii);
        // SAFETY: as for `run`; each turn has room for a block and a character.
        unsafe {
            self.unescaped.extend_from_slice(std::slice::from_raw_parts(start, first));
            let (mut out, mut limit) = self.room();
            loop {
                if out >= limit {
                    self.wrote_to(out);
                    if self.unescaped.try_reserve(ROOM).is_err() {
                        return Err(self.no_memory(at));
                    }
                    (out, limit) = self.room();
                }
                (at, out) = self.simple(at, out, limit, &mut high);
                if out >= limit {
                    continue;
                }
                match *at {
                    b'\\' => {
                        let byte = UNESCAPED[usize::from(*at.add(1))];
                        if byte == 0 {
                            let char;
                            (char, at) = self.code_unit(at)?;
                            high |= char as u32 >= 0x80;
                            out = out.add(char.encode_utf8(&mut *out.cast::<[u8; 4]>()).len());
                        } else {
                            out.write(byte);
                            (at, out) = (at.add(2), out.add(1));
                        }
                    }
                    b'"' => break,
                    0..0x20 => return Err(self.fail(Invalid::Control, at)),
                    byte => {
                        high |= byte >= 0x80;
                        out.write(byte);
                        (at, out) = (at.add(1), out.add(1));
                    }
                }
            }
            self.wrote_to(out);
            let end = at.add(1);
            let bytes = std::mem::take(&mut self.unescaped);
            let found = if is_key {
                self.shared(&bytes, end)
            } else {
                let made = if high { new_valid(&bytes) } else { new_ascii(&bytes) };
                made.map(|object| (object, end)).ok_or_else(|| self.fail(Invalid::Raised, end))
            };
            self.unescaped = bytes;
            found
        }
    }

    /// Reads text and simple escapes as long as many bytes are looked at together and `out` is before `limit`; returns
    /// where both are then.
    ///
    /// # Safety
    /// `at` is inside the text and no backslash escapes it; there is [`ROOM`] from everywhere before `limit`.
    #[inline(always)]
    unsafe fn simple(&self, at: *const u8, out: *mut u8, limit: *mut u8, high: &mut bool) -> (*const u8, *mut u8) {
        #[cfg(target_arch = "x86_64")]
        if level() == Level::Avx512 {
            // SAFETY: the caller's guarantee; the processor has it.
            let found = unsafe { unescape::unescape(at, self.end, out, limit) };
            *high |= found.high;
            return (found.at, found.out);
        }
        // SAFETY: the caller's guarantee.
        unsafe { self.simple_blocks(at, out, limit, high) }
    }

    /// As [`Self::simple`], block by block.
    unsafe fn simple_blocks(
        &self,
        at: *const u8,
        out: *mut u8,
        limit: *mut u8,
        high: &mut bool,
    ) -> (*const u8, *mut u8) {
        let (mut at, mut out) = (at, out);
        // SAFETY: as for `run`; a block is looked at where three more bytes are, and is not all that is stored.
        unsafe {
            while out < limit && self.end.addr() - at.addr() > 3 * WIDTH {
                // All that ends before the end of the block, from one mask.
                let block = Block::load(at);
                block.store(out);
                let (mut special, mut from) = (block.special(), 0);
                let stop = loop {
                    if special == 0 {
                        out = out.add(WIDTH.saturating_sub(from));
                        break from.max(WIDTH);
                    }
                    let place = special.trailing_zeros() as usize;
                    out = out.add(place.wrapping_sub(from));
                    let byte = UNESCAPED[usize::from(*at.add(place + 1))];
                    if *at.add(place) != b'\\' || byte == 0 {
                        break place;
                    }
                    out.write(byte);
                    out = out.add(1);
                    from = place + 2;
                    special &= u32::MAX << from;
                    Block::load(at.add(from)).store(out);
                };
                *high |= block.high() & ((1 << stop.min(WIDTH)) - 1) != 0;
                at = at.add(stop);
                if stop < WIDTH {
                    break;
                }
            }
        }
        (at, out)
    }

    /// Where the next unescaped byte goes, and the last place from which on there is room for a turn.
    fn room(&mut self) -> (*mut u8, *mut u8) {
        let spare = self.unescaped.spare_capacity_mut().as_mut_ptr_range();
        (spare.start.cast(), spare.end.cast::<u8>().wrapping_sub(ROOM).wrapping_add(1))
    }

    /// # Safety
    /// All bytes before `out` are written.
    unsafe fn wrote_to(&mut self, out: *mut u8) {
        let len = out.addr() - self.unescaped.as_ptr().addr();
        // SAFETY: the caller's guarantee.
        unsafe { self.unescaped.set_len(len) };
    }

    /// `\uXXXX`, or two of them that are one character; and where they end.
    #[inline(never)]
    unsafe fn code_unit(&mut self, at: *const u8) -> Result<(char, *const u8), Stop> {
        // SAFETY: a byte follows, the NUL at the end at the latest; `hex` reads no further than to the first byte that is
        // no digit.
        unsafe {
            match *at.add(1) {
                b'u' => {}
                _ if at.add(1) == self.end => return Err(self.fail(Invalid::End, self.end)),
                _ => return Err(self.fail(Invalid::Escape, at)),
            }
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
            Ok((char::from_u32(char).unwrap_or(char::REPLACEMENT_CHARACTER), end))
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
