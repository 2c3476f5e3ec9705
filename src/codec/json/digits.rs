//! Writing integers.
#![allow(unsafe_code)]

/// The most characters an integer of 64 bits has, and room for a store beyond them.
pub(super) const MAX_INT: usize = 32;

/// The two digits of each number below 100.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The digits of each number below 1000, the first in the lowest byte, and in the highest byte how many they are.
static SMALL: [u32; 1000] = {
    let mut small = [0; 1000];
    let mut number = 0;
    while number < 1000 {
        let (hundreds, tens, ones) =
            (b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8);
        small[number] = u32::from_le_bytes(match number {
            0..10 => [ones, 0, 0, 1],
            10..100 => [tens, ones, 0, 2],
            _ => [hundreds, tens, ones, 3],
        });
        number += 1;
    }
    small
};

/// The three digits of each number below 1000, the first in the lowest byte.
static THREE: [u32; 1000] = {
    let mut three = [0; 1000];
    let mut number = 0;
    while number < 1000 {
        let (hundreds, tens, ones) = ((number / 100) as u8, (number / 10 % 10) as u8, (number % 10) as u8);
        three[number] = u32::from_le_bytes([b'0' + hundreds, b'0' + tens, b'0' + ones, 0]);
        number += 1;
    }
    three
};

/// Writes `value`; returns where it ends.
///
/// # Safety
/// There is room for [`MAX_INT`] bytes at `target`.
#[inline(always)]
pub(super) unsafe fn write_i64(value: i64, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        if (0..1000).contains(&value) {
            return write_small(value.cast_unsigned(), target);
        }
        target.write(b'-');
        write_u64(value.unsigned_abs(), target.add(usize::from(value < 0)))
    }
}

/// Writes `value`; returns where it ends.
///
/// # Safety
/// As [`write_i64`].
#[inline(always)]
pub(super) unsafe fn write_u64(value: u64, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee; at most 20 digits, and stores of eight bytes.
    unsafe { if value < 1000 { write_small(value, target) } else { write_long(value, target) } }
}

/// Up to three digits, in one store.
#[inline(always)]
unsafe fn write_small(value: u64, target: *mut u8) -> *mut u8 {
    let digits = SMALL[value as usize];
    // SAFETY: the caller's guarantee.
    unsafe {
        target.cast::<u32>().write_unaligned(digits.to_le());
        target.add((digits >> 24) as usize)
    }
}

/// Four digits and more.
#[inline]
unsafe fn write_long(value: u64, target: *mut u8) -> *mut u8 {
    const EIGHT: u64 = 100_000_000;
    // SAFETY: the caller's guarantee.
    unsafe {
        if value < 1_000_000 {
            let target = write_small(value / 1000, target);
            return write_three(value % 1000, target);
        }
        if value < 1_000_000_000 {
            let target = write_small(value / 1_000_000, target);
            let target = write_three(value / 1000 % 1000, target);
            return write_three(value % 1000, target);
        }
        let (high, low) = (value / EIGHT, value % EIGHT);
        let target = if high < EIGHT {
            write_trimmed(high, target)
        } else {
            let target = write_trimmed(high / EIGHT, target);
            target.cast::<u64>().write_unaligned(eight_digits(high % EIGHT));
            target.add(8)
        };
        target.cast::<u64>().write_unaligned(eight_digits(low));
        target.add(8)
    }
}

/// Three digits, in a store of four bytes.
#[inline(always)]
unsafe fn write_three(value: u64, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        target.cast::<u32>().write_unaligned(THREE[value as usize].to_le());
        target.add(3)
    }
}

/// The digits of a number below 10^8, in a store of eight bytes.
#[inline(always)]
unsafe fn write_trimmed(value: u64, target: *mut u8) -> *mut u8 {
    let digits = eight_digits(value);
    // The zeros in front; the last digit stays even of 0.
    let zeros = ((digits & 0x0f0f_0f0f_0f0f_0f0f) | 1 << 56).trailing_zeros() / 8;
    // SAFETY: the caller's guarantee.
    unsafe {
        target.cast::<u64>().write_unaligned(digits >> (8 * zeros));
        target.add(8 - zeros as usize)
    }
}

/// The eight digits of a number below 10^8, the first in the lowest byte.
#[inline(always)]
pub(super) const fn eight_digits(value: u64) -> u64 {
    // Halves, then quarters, then digits: quotients by multiplication, several at once.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = (fours.wrapping_mul(10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (fours.wrapping_sub(hundreds.wrapping_mul(100)) << 16);
    let tens = (pairs.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (pairs.wrapping_sub(tens.wrapping_mul(10)) << 8);
    digits | 0x3030_3030_3030_3030
}

/// Writes the two digits of a number below 100.
///
/// # Safety
/// There is room for two bytes.
#[inline]
pub(super) unsafe fn write_pair(value: u32, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        target.cast::<[u8; 2]>().write(PAIRS[value as usize % 100]);
        target.add(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: i64) -> String {
        let mut room = [0; MAX_INT];
        // SAFETY: as much room as is asked for.
        let len = unsafe { write_i64(value, room.as_mut_ptr()).addr() - room.as_ptr().addr() };
        String::from_utf8_lossy(&room[..len]).into_owned()
    }

    #[test]
    fn integers_of_every_length_are_written_as_the_standard_library_does() {
        let mut power = 1i128;
        while power < 1 << 64 {
            for value in [power - 1, power, power + 1, power * 5, power * 9 + 7] {
                for value in [value, -value] {
                    if let Ok(value) = i64::try_from(value) {
                        assert_eq!(shown(value), value.to_string());
                    }
                }
            }
            power *= 10;
        }
        for value in [i64::MAX, i64::MIN, 0] {
            assert_eq!(shown(value), value.to_string());
        }
        for value in 0..100_000 {
            assert_eq!(shown(value), value.to_string());
        }
    }

    #[test]
    fn the_largest_integer_is_written() {
        let mut room = [0; MAX_INT];
        // SAFETY: as much room as is asked for.
        let len = unsafe { write_u64(u64::MAX, room.as_mut_ptr()).addr() - room.as_ptr().addr() };
        assert_eq!(&room[..len], u64::MAX.to_string().as_bytes());
    }
}
