//! Reading numbers: integers of 64 bits exactly, everything else as the nearest float.
#![allow(unsafe_code)]

use super::decode::{Decoder, Found, Invalid};
use super::float::from_decimal;
use pyo3::ffi;

/// The most digits that 64 bits always have room for.
const MAX_DIGITS: usize = 19;

#[inline(always)]
unsafe fn digit(at: *const u8) -> u8 {
    // SAFETY: the caller's guarantee: there is a byte, the NUL at the end at the latest.
    unsafe { (*at).wrapping_sub(b'0') }
}

/// The value of eight digits; `None` if they are not eight digits.
#[inline(always)]
fn eight_digits(chunk: u64) -> Option<u64> {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let all = chunk & HIGH | (chunk.wrapping_add(0x0606_0606_0606_0606) & HIGH) >> 4;
    if all != 0x3333_3333_3333_3333 {
        return None;
    }
    // Pairs of digits, then of pairs, then of fours: the first digit stands lowest, and each product adds its neighbour.
    let ones = chunk & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = ones.wrapping_mul((10 << 8) + 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul((100 << 16) + 1) >> 16 & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul((10_000 << 32) + 1) >> 32)
}

impl Decoder<'_> {
    /// The number that starts at `start`, and where it ends.
    ///
    /// # Safety
    /// `start` is inside the text and followed by a NUL.
    #[inline(always)]
    pub(super) unsafe fn number(&mut self, start: *const u8) -> Found {
        // SAFETY: whatever is not a digit ends each loop, the NUL after the text at the latest.
        unsafe {
            let negative = *start == b'-';
            let first = start.add(usize::from(negative));
            let mut value = u64::from(digit(first));
            let mut at = first.add(1);
            if value > 9 {
                return Err(self.fail(Invalid::NoDigitAfterSign, first));
            }
            let mut next = digit(at);
            if value == 0 && next <= 9 {
                return Err(self.fail(Invalid::LeadingZero, first));
            }
            while next <= 9 {
                value = value.wrapping_mul(10).wrapping_add(next.into());
                at = at.add(1);
                next = digit(at);
            }
            let digits = at.addr() - first.addr();
            if matches!(*at, b'.' | b'e' | b'E') {
                return self.float(start, first, at, value);
            }
            if digits < MAX_DIGITS {
                let value = value.cast_signed();
                let object = ffi::PyLong_FromLongLong(if negative { -value } else { value });
                return self.owned(object, at);
            }
            self.long_int(start, first, at, negative)
        }
    }

    /// An integer of 19 digits and more; a float if 64 bits have no room for it.
    #[inline(never)]
    unsafe fn long_int(&mut self, start: *const u8, first: *const u8, end: *const u8, negative: bool) -> Found {
        // SAFETY: the digits from `first` to `end`.
        unsafe {
            let digits = std::slice::from_raw_parts(first, end.addr() - first.addr());
            let value =
                digits.iter().try_fold(0u64, |value, byte| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')));
            match value {
                Some(value) if !negative => self.owned(ffi::PyLong_FromUnsignedLongLong(value), end),
                Some(value) if value <= 1 << 63 => {
                    self.owned(ffi::PyLong_FromLongLong(value.wrapping_neg().cast_signed()), end)
                }
                _ => self.exact_float(start, end),
            }
        }
    }

    /// A number with a fraction or an exponent, whose first digits were read.
    #[inline]
    unsafe fn float(&mut self, start: *const u8, first: *const u8, point: *const u8, mut value: u64) -> Found {
        // SAFETY: as for `number`.
        unsafe {
            let mut at = point;
            let mut power = 0i64;
            let mut count = point.addr() - first.addr();
            if *at == b'.' {
                at = at.add(1);
                let fraction = at;
                if digit(at) > 9 {
                    return Err(self.fail(Invalid::NoDigitAfterPoint, at));
                }
                while self.end.addr() - at.addr() >= 8 {
                    let Some(eight) = eight_digits(u64::from_le(at.cast::<u64>().read_unaligned())) else { break };
                    value = value.wrapping_mul(100_000_000).wrapping_add(eight);
                    at = at.add(8);
                }
                let mut next = digit(at);
                while next <= 9 {
                    value = value.wrapping_mul(10).wrapping_add(next.into());
                    at = at.add(1);
                    next = digit(at);
                }
                let places = at.addr() - fraction.addr();
                power = -(places as i64);
                count += places;
                if *first == b'0' && count > MAX_DIGITS {
                    // Zeros before the first digit that counts take no room.
                    let mut zero = fraction;
                    while *zero == b'0' {
                        zero = zero.add(1);
                    }
                    count = at.addr() - zero.addr();
                }
            }
            if matches!(*at, b'e' | b'E') {
                at = at.add(1);
                let down = *at == b'-';
                at = at.add(usize::from(down || *at == b'+'));
                if digit(at) > 9 {
                    return Err(self.fail(Invalid::NoDigitAfterExponent, at));
                }
                let mut exponent = 0i64;
                while digit(at) <= 9 {
                    exponent = (exponent * 10 + i64::from(digit(at))).min(1 << 40);
                    at = at.add(1);
                }
                power += if down { -exponent } else { exponent };
            }
            if count > MAX_DIGITS {
                return self.exact_float(start, at);
            }
            let power = power.clamp(-10_000, 10_000) as i32;
            let Some(value) = from_decimal(value, power) else { return self.exact_float(start, at) };
            if value.is_infinite() {
                return Err(self.fail(Invalid::Infinite, start));
            }
            self.owned(ffi::PyFloat_FromDouble(if *start == b'-' { -value } else { value }), at)
        }
    }

    /// A number of any length.
    #[cold]
    unsafe fn exact_float(&mut self, start: *const u8, end: *const u8) -> Found {
        // SAFETY: the text of a number, which is ASCII.
        unsafe {
            let text = std::slice::from_raw_parts(start, end.addr() - start.addr());
            match std::str::from_utf8_unchecked(text).parse::<f64>() {
                Ok(value) if value.is_finite() => self.owned(ffi::PyFloat_FromDouble(value), end),
                _ => Err(self.fail(Invalid::Infinite, start)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eight_digits;

    #[test]
    fn eight_digits_are_told_from_other_bytes() {
        for value in [0, 1, 9, 12_345_678, 87_654_321, 99_999_999, 10_000_000] {
            let text = format!("{value:08}");
            let chunk = u64::from_le_bytes(text.as_bytes().try_into().unwrap());
            assert_eq!(eight_digits(chunk), Some(value));
        }
        for place in 0..8 {
            for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                let mut text = *b"12345678";
                text[place] = byte;
                assert_eq!(eight_digits(u64::from_le_bytes(text)), None);
            }
        }
    }
}
