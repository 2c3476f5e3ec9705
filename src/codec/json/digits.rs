//! Writing integers.
#![allow(unsafe_code)]

/// The most characters an integer of 64 bits has, and room for a store beyond them.
pub(super) const MAX_INT: usize = 24;

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

/// Writes `value`; returns where it ends.
///
/// # Safety
/// There is room for [`MAX_INT`] bytes at `target`.
#[inline(always)]
pub(super) unsafe fn write_i64(value: i64, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
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
    // SAFETY: the caller's guarantee; at most 20 digits.
    unsafe {
        if value < 10_000 {
            return write_short(value as u32, target);
        }
        write_long(value, target)
    }
}

/// One to four digits.
#[inline(always)]
unsafe fn write_short(value: u32, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        let (high, low) = (value / 100, value % 100);
        if high == 0 {
            let [tens, ones] = PAIRS[low as usize];
            let two = usize::from(low >= 10);
            target.write(tens);
            target.add(two).write(ones);
            return target.add(1 + two);
        }
        let [tens, ones] = PAIRS[high as usize];
        let two = usize::from(high >= 10);
        target.write(tens);
        target.add(two).write(ones);
        let target = target.add(1 + two);
        target.cast::<[u8; 2]>().write(PAIRS[low as usize]);
        target.add(2)
    }
}

/// Four digits.
#[inline(always)]
unsafe fn write_four(value: u32, target: *mut u8) {
    // SAFETY: the caller's guarantee; `value` is below 10000.
    unsafe {
        target.cast::<[[u8; 2]; 2]>().write([PAIRS[(value / 100) as usize], PAIRS[(value % 100) as usize]]);
    }
}

/// Five digits and more.
#[inline(never)]
unsafe fn write_long(value: u64, target: *mut u8) -> *mut u8 {
    // SAFETY: the caller's guarantee.
    unsafe {
        if value < 100_000_000 {
            let (high, low) = ((value / 10_000) as u32, (value % 10_000) as u32);
            let target = write_short(high, target);
            write_four(low, target);
            return target.add(4);
        }
        let (high, low) = (value / 100_000_000, (value % 100_000_000) as u32);
        let target = if high < 10_000 { write_short(high as u32, target) } else { write_long(high, target) };
        write_four(low / 10_000, target);
        write_four(low % 10_000, target.add(4));
        target.add(8)
    }
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
