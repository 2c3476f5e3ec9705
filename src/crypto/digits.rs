//! The digits of headers: of numbers, eight at a time, and of bytes, in hexadecimal.

/// The most digits that 64 bits have.
pub(super) const MOST: usize = 20;
/// Digits of one word.
const WORD: usize = 8;
/// What eight digits are below.
const LIMIT: u64 = 100_000_000;
/// The digit 0 in each byte of a word.
const ZEROS: u64 = u64::from_ne_bytes([b'0'; WORD]);
const SPACES: u64 = u64::from_ne_bytes([b' '; WORD]);

/// Puts the digits of `number` at the start of `room`, which has room for [`MOST`] and 8 more, and up to 7 spaces after them.
/// Returns how many digits there are.
#[inline(always)]
pub(super) fn decimal(number: u64, room: &mut [u8]) -> usize {
    // From the number itself, so that what comes next need not wait for the digits.
    let count = number.checked_ilog10().map_or(1, |power| power as usize + 1);
    let (before, last) = (number / LIMIT, word_of(number % LIMIT));
    match count {
        0..=8 => put_first(room, last, count),
        9..=16 => {
            put_first(room, word_of(before), count - WORD);
            put(room, count - WORD, last | ZEROS);
        }
        _ => {
            put_first(room, word_of(before / LIMIT), count - 2 * WORD);
            put(room, count - 2 * WORD, word_of(before % LIMIT) | ZEROS);
            put(room, count - WORD, last | ZEROS);
        }
    }
    count
}

/// Puts the last `count` digits of a word first, and spaces after them.
#[inline(always)]
fn put_first(room: &mut [u8], word: u64, count: usize) {
    let bits = 8 * count as u32;
    let spaces = SPACES.checked_shl(bits).unwrap_or(0);
    put(room, 0, (word | ZEROS).wrapping_shr(64 - bits) | spaces);
}

/// Puts eight digits at `at`.
#[inline(always)]
fn put(room: &mut [u8], at: usize, digits: u64) {
    room[at..at + WORD].copy_from_slice(&digits.to_le_bytes());
}

/// The eight digits of a number below 10^8, a byte each, the first one lowest.
#[inline(always)]
fn word_of(number: u64) -> u64 {
    // Halves of four digits, then quarters of two, then digits, each step in all parts of the word at once.
    let halves = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = (halves.wrapping_mul(10_486) >> 20) & 0x7f_0000_007f;
    let quarters = hundreds | (halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16);
    let tens = (quarters.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    tens | (quarters.wrapping_sub(tens.wrapping_mul(10)) << 8)
}

/// The number at the start of `bytes`, below 2^64 and without leading zeros, and how many digits it has.
#[inline(always)]
pub(super) fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    const POWERS: [u64; WORD] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];
    let (first, mut count) = number_of(word_at(bytes));
    let mut number = first;
    if count == WORD {
        let (second, more) = number_of(word_at(&bytes[WORD..]));
        if more == WORD {
            return long_number(bytes);
        }
        // At most fifteen digits.
        number = first.wrapping_mul(POWERS[more]).wrapping_add(second);
        count += more;
    }
    (count == 1 || count > 1 && bytes[0] != b'0').then_some((number, count))
}

/// As [`number`], of more than fifteen digits, one at a time.
#[cold]
fn long_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let add = |number: u64, digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit & 15));
    let number = bytes[..count].iter().try_fold(0, add)?;
    (bytes[0] != b'0').then_some((number, count))
}

/// The first eight bytes, the first one lowest; zeros where there are fewer.
#[inline(always)]
fn word_at(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => bytes.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    }
}

/// The number that the digits at the start of a word are, and how many they are.
#[inline(always)]
fn number_of(word: u64) -> (u64, usize) {
    let word = word ^ ZEROS;
    // The highest bit of each byte that is no digit; above the first such byte, of others too.
    let others = (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080;
    let digits = others.trailing_zeros() as usize / 8;
    // Zeros come in before the first digit.
    let word = word.checked_shl(64_u32.wrapping_sub(8 * digits as u32)).unwrap_or(0);
    // Pairs, then quarters of two pairs, then all: in all parts of the word at once.
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let high = (pairs & 0x00ff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & 0x00ff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    (high.wrapping_add(low) >> 32, digits)
}

/// The hexadecimal digits of `bytes`, in lower case; `M` is twice `N`.
pub(super) fn hex<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const { assert!(M == 2 * N) };
    // Nothing overflows; with checks for it, this would not be vectorized.
    let digit = |nibble: u8| nibble.wrapping_add(if nibble < 10 { b'0' } else { b'a' - 10 });
    let mut digits = [0; M];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}

/// Whether `digits` are those that [`hex`] gives.
#[inline(always)]
pub(super) fn is_hex_of(digits: &[u8], bytes: &[u8; 32]) -> bool {
    // In the pieces in which they were made: wider ones could not be read before those were written to memory.
    let made = hex::<32, 64>(bytes);
    let (found, rest) = digits.as_chunks::<16>();
    let same = |(found, made): (&[u8; 16], &[u8; 16])| u128::from_ne_bytes(*found) == u128::from_ne_bytes(*made);
    rest.is_empty() && found.len() == 4 && found.iter().zip(made.as_chunks().0).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As [`number`], one digit at a time.
    fn slowly(bytes: &[u8]) -> Option<(u64, usize)> {
        let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value: u64 = std::str::from_utf8(&bytes[..count]).ok()?.parse().ok()?;
        (count == 1 || bytes[0] != b'0').then_some((value, count))
    }

    fn written(number: u64) -> String {
        let mut room = [b' '; MOST + WORD];
        let count = decimal(number, &mut room);
        assert!(room[count..].iter().all(|byte| *byte == b' '));
        String::from_utf8(room[..count].to_vec()).expect("digits")
    }

    #[test]
    fn every_number_of_digits_is_written_and_read() {
        let tens = (0..20).map(|power| 10_u64.pow(power));
        for value in tens.flat_map(|ten| [ten - 1, ten, ten + 1, ten.wrapping_mul(9)]).chain([0, u64::MAX]) {
            assert_eq!(written(value), value.to_string());
            assert_eq!(number(written(value).as_bytes()), Some((value, value.to_string().len())));
        }
        for (text, expected) in [
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("184467440737095516150", None),
            ("0000000000000000000000000", None),
            ("00", None),
            ("0,", Some((0, 1))),
            ("", None),
            ("-1", None),
            ("12345678}", Some((12_345_678, 8))),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_and_read(value: u64, bits in 0..64, after in prop::collection::vec(any::<u8>(), 0..12)) {
            let value = value >> bits;
            prop_assert_eq!(written(value), value.to_string());
            let bytes = [value.to_string().as_bytes(), &after].concat();
            prop_assert_eq!(number(&bytes), slowly(&bytes));
        }

        #[test]
        fn bytes_are_read_as_digit_by_digit(bytes in "[0-9]{0,24}[ -~\u{80}-\u{ff}]{0,9}") {
            prop_assert_eq!(number(bytes.as_bytes()), slowly(bytes.as_bytes()));
        }

        #[test]
        fn bytes_are_shown_as_formatting_does(bytes: [u8; 16]) {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(&hex::<16, 32>(&bytes)[..], digits.as_bytes());
        }

        #[test]
        fn digits_are_of_their_own_bytes_only(bytes: [u8; 32], at in 0_usize..64, bit in 0_u32..8) {
            let mut digits = hex::<32, 64>(&bytes);
            prop_assert!(is_hex_of(&digits, &bytes));
            prop_assert!(!is_hex_of(&digits[..63], &bytes) && !is_hex_of(&[&digits[..], b"0"].concat(), &bytes));
            digits[at] ^= 1_u8 << bit;
            prop_assert!(!is_hex_of(&digits, &bytes));
        }
    }
}
