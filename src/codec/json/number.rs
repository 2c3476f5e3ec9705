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

/// How many digits the bytes of `chunk` start with, and their value.
#[inline(always)]
fn leading_digits(chunk: u64) -> (u32, u64) {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let numbers = chunk ^ 0x3030_3030_3030_3030;
    // A carry changes bytes after the first that is no digit.
    let others = (numbers.wrapping_add(0x7676_7676_7676_7676) | numbers) & HIGH;
    let count = others.trailing_zeros() / 8;
    if count == 0 {
        return (0, 0);
    }
    // Zeros in front. Pairs of digits, then of pairs, then of fours: the first digit stands lowest, and each product
    // adds its neighbour.
    let ones = numbers << ((64 - 8 * count) & 63);
    let pairs = ones.wrapping_mul((10 << 8) + 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul((100 << 16) + 1) >> 16 & 0x0000_ffff_0000_ffff;
    (count, fours.wrapping_mul((10_000 << 32) + 1) >> 32)
}

/// 10 to the power of each number of digits that are read together.
static POWERS: [u64; 17] = {
    let mut powers = [1; 17];
    let mut index = 1;
    while index < 17 {
        powers[index] = 10 * powers[index - 1];
        index += 1;
    }
    powers
};

/// SSE2, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod sixteen {
    use std::arch::x86_64::*;

    pub(super) const WIDTH: usize = 16;

    /// For each count as many of the last bytes.
    static LAST: [[u8; WIDTH]; WIDTH + 1] = {
        let mut masks = [[0; WIDTH]; WIDTH + 1];
        let mut count = 0;
        while count <= WIDTH {
            let mut byte = WIDTH - count;
            while byte < WIDTH {
                masks[count][byte] = 0xff;
                byte += 1;
            }
            count += 1;
        }
        masks
    };

    /// How many digits the sixteen bytes from `at` on start with, and their value.
    ///
    /// # Safety
    /// Sixteen bytes can be read before `at`, and as many from it on.
    #[inline(always)]
    pub(super) unsafe fn leading_digits(at: *const u8) -> (usize, u64) {
        // SAFETY: the caller's guarantee; `count` is sixteen at most.
        unsafe {
            let zeros = _mm_set1_epi8(b'0'.cast_signed());
            let numbers = _mm_sub_epi8(_mm_loadu_si128(at.cast()), zeros);
            let digits = _mm_cmpeq_epi8(_mm_min_epu8(numbers, _mm_set1_epi8(9)), numbers);
            let count = (!_mm_movemask_epi8(digits)).trailing_zeros() as usize;
            // Read again, so that they come last; what stands before them counts as zeros.
            let numbers = _mm_sub_epi8(_mm_loadu_si128(at.add(count).sub(WIDTH).cast()), zeros);
            let numbers = _mm_and_si128(numbers, _mm_loadu_si128(LAST.get_unchecked(count).as_ptr().cast()));
            // Pairs of digits, then of pairs, of fours and of eights.
            let tens = _mm_mullo_epi16(_mm_and_si128(numbers, _mm_set1_epi16(0xff)), _mm_set1_epi16(10));
            let twos = _mm_add_epi16(tens, _mm_srli_epi16::<8>(numbers));
            let fours = _mm_madd_epi16(twos, _mm_set1_epi32(1 << 16 | 100));
            let eights = _mm_madd_epi16(_mm_packs_epi32(fours, fours), _mm_set1_epi32(1 << 16 | 10_000));
            let both = _mm_cvtsi128_si64(eights).cast_unsigned();
            (count, (both & 0xffff_ffff).wrapping_mul(100_000_000).wrapping_add(both >> 32))
        }
    }
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
                let mut found = 8;
                #[cfg(target_arch = "x86_64")]
                if at.addr() - self.start.addr() >= sixteen::WIDTH && self.end.addr() - at.addr() >= sixteen::WIDTH {
                    let (count, digits) = sixteen::leading_digits(at);
                    value = value.wrapping_mul(POWERS[count]).wrapping_add(digits);
                    at = at.add(count);
                    found = if count == sixteen::WIDTH { 8 } else { 0 };
                }
                while found == 8 && self.end.addr() - at.addr() >= 8 {
                    let digits;
                    (found, digits) = leading_digits(u64::from_le(at.cast::<u64>().read_unaligned()));
                    value = value.wrapping_mul(POWERS[found as usize]).wrapping_add(digits);
                    at = at.add(found as usize);
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
    use super::leading_digits;

    #[test]
    fn digits_are_told_from_other_bytes_in_any_place() {
        for value in [0, 1, 9, 12_345_678, 87_654_321, 99_999_999, 10_000_000] {
            let text = format!("{value:08}");
            for count in 0..=8usize {
                for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                    let mut chunk = *text.as_bytes().first_chunk::<8>().unwrap();
                    if let Some(other) = chunk.get_mut(count) {
                        *other = byte;
                    }
                    let expected = text[..count].parse().unwrap_or(0);
                    assert_eq!(leading_digits(u64::from_le_bytes(chunk)), (count as u32, expected));
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn sixteen_digits_are_told_from_other_bytes_in_any_place() {
        for text in ["0000000000000000", "9999999999999999", "1234567890123456", "9080706050403020", "0000000000000001"]
        {
            for count in 0..=16usize {
                for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                    let mut bytes = [b'7'; 32];
                    bytes[16..].copy_from_slice(text.as_bytes());
                    if let Some(other) = bytes.get_mut(16 + count) {
                        *other = byte;
                    }
                    let expected = text[..count].parse().unwrap_or(0);
                    // SAFETY: sixteen bytes before and after.
                    let found = unsafe { super::sixteen::leading_digits(bytes.as_ptr().add(16)) };
                    assert_eq!(found, (count, expected));
                }
            }
        }
    }
}
