//! From decimal to binary floating point: the nearest one, ties to even.
//!
//! The product of the digits and a power of five with 128 bits decides nearly always (Lemire, "Number parsing at a
//! gigabyte per second", 2021); what it does not decide is left to the standard library.

const SMALLEST_POWER: i32 = -342;
const LARGEST_POWER: i32 = 308;
const POWERS: usize = (LARGEST_POWER - SMALLEST_POWER + 1) as usize;

/// The 128 highest bits of each power of five, highest half first, the highest bit set: truncated, but rounded up from
/// 5^-27 to 5^-1.
static POWERS_OF_FIVE: [(u64, u64); POWERS] = {
    const LIMBS: usize = 16;
    /// The 128 bits from the highest one on; limbs stand lowest first.
    const fn highest(limbs: &[u64; LIMBS]) -> u128 {
        let mut top = LIMBS - 1;
        while limbs[top] == 0 {
            top -= 1;
        }
        let first = limbs[top];
        let second = if top >= 1 { limbs[top - 1] } else { 0 };
        let third = if top >= 2 { limbs[top - 2] } else { 0 };
        let shift = first.leading_zeros();
        let both = (first as u128) << 64 | second as u128;
        if shift == 0 { both } else { both << shift | (third >> (64 - shift)) as u128 }
    }

    let mut powers = [(0, 0); POWERS];
    let mut limbs = [0; LIMBS];
    limbs[0] = 1;
    let mut power = 0;
    while power <= LARGEST_POWER {
        let bits = highest(&limbs);
        powers[(power - SMALLEST_POWER) as usize] = ((bits >> 64) as u64, bits as u64);
        let (mut limb, mut carry) = (0, 0);
        while limb < LIMBS {
            let product = limbs[limb] as u128 * 5 + carry;
            limbs[limb] = product as u64;
            carry = product >> 64;
            limb += 1;
        }
        power += 1;
    }
    // 2^1023 divided by five again and again: the quotients stay exact when they are truncated each time.
    limbs = [0; LIMBS];
    limbs[LIMBS - 1] = 1 << 63;
    power = -1;
    while power >= SMALLEST_POWER {
        let (mut limb, mut rest) = (LIMBS, 0);
        while limb > 0 {
            limb -= 1;
            let dividend = rest << 64 | limbs[limb] as u128;
            limbs[limb] = (dividend / 5) as u64;
            rest = dividend % 5;
        }
        let bits = highest(&limbs) + if power >= -27 { 1 } else { 0 };
        powers[(power - SMALLEST_POWER) as usize] = ((bits >> 64) as u64, bits as u64);
        power -= 1;
    }
    powers
};

/// The powers of ten that have no rounding error.
const EXACT: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

const MANTISSA_BITS: u32 = 52;

/// The float nearest to `digits * 10^power`, infinity if that is too large; `None` where it is not decided here.
#[inline]
pub(super) fn from_decimal(digits: u64, power: i32) -> Option<f64> {
    if digits <= 1 << (MANTISSA_BITS + 1) && (-22..=22).contains(&power) {
        // One operation on two exact values is rounded once.
        let exact = EXACT[power.unsigned_abs() as usize];
        let digits = digits as f64;
        return Some(if power < 0 { digits / exact } else { digits * exact });
    }
    from_product(digits, power)
}

fn from_product(digits: u64, power: i32) -> Option<f64> {
    if digits == 0 || power < SMALLEST_POWER {
        return Some(0.0);
    }
    if power > LARGEST_POWER {
        return Some(f64::INFINITY);
    }
    let shift = digits.leading_zeros();
    let (low, high) = product(digits << shift, power);
    if low == u64::MAX && !(-27..=55).contains(&power) {
        return None;
    }
    let upper = (high >> 63) as u32;
    let drop = upper + 64 - MANTISSA_BITS - 3;
    let mut mantissa = high >> drop;
    // The binary logarithm of 10^power, and the bias.
    let mut exponent = ((217_706 * power) >> 16) + 63 + upper.cast_signed() - shift.cast_signed() + 1023;
    if exponent <= 0 {
        let more = 1 - exponent;
        if more >= 64 {
            return Some(0.0);
        }
        mantissa >>= more;
        mantissa += mantissa & 1;
        mantissa >>= 1;
        // Rounded up to the smallest normal number, its bits say so themselves.
        return Some(f64::from_bits(mantissa));
    }
    // Exactly between two floats: to the even one.
    if low <= 1 && (-4..=23).contains(&power) && mantissa & 3 == 1 && mantissa << drop == high {
        mantissa &= !1;
    }
    mantissa += mantissa & 1;
    mantissa >>= 1;
    if mantissa >= 2 << MANTISSA_BITS {
        mantissa = 1 << MANTISSA_BITS;
        exponent += 1;
    }
    if exponent >= 0x7ff {
        return Some(f64::INFINITY);
    }
    mantissa &= !(1 << MANTISSA_BITS);
    Some(f64::from_bits(mantissa | u64::from(exponent.unsigned_abs()) << MANTISSA_BITS))
}

/// The product with a power of five, lower and upper half; the lower half of the power is used only where it matters.
#[inline]
fn product(digits: u64, power: i32) -> (u64, u64) {
    const UNDECIDED: u64 = u64::MAX >> (MANTISSA_BITS + 3);
    let (five_high, five_low) = POWERS_OF_FIVE[(power - SMALLEST_POWER).unsigned_abs() as usize];
    let first = u128::from(digits) * u128::from(five_high);
    let (mut low, mut high) = (first as u64, (first >> 64) as u64);
    if high & UNDECIDED == UNDECIDED {
        let second = u128::from(digits) * u128::from(five_low);
        let carried;
        (low, carried) = low.overflowing_add((second >> 64) as u64);
        high += u64::from(carried);
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees(digits: u64, power: i32) {
        let exact: f64 = format!("{digits}e{power}").parse().unwrap();
        if let Some(found) = from_decimal(digits, power) {
            assert_eq!(found.to_bits(), exact.to_bits(), "{digits}e{power}");
        }
    }

    #[test]
    fn every_power_agrees_with_the_standard_library() {
        for power in -400..400 {
            for digits in [1, 2, 3, 5, 7, 9, 17, 123_456_789, 1 << 53, (1 << 53) + 1, u64::MAX, u64::MAX - 1] {
                agrees(digits, power);
            }
        }
    }

    #[test]
    fn the_edges_of_the_range_agree() {
        for (digits, power) in [
            (17_976_931_348_623_157, 292),
            (17_976_931_348_623_158, 292),
            (17_976_931_348_623_159, 292),
            (22_250_738_585_072_014, -324),
            (22_250_738_585_072_011, -324),
            (49_406_564_584_124_654, -340),
            (24_703_282_292_062_327, -340),
            (24_703_282_292_062_328, -340),
            (9_007_199_254_740_993, 0),
            (9_007_199_254_740_995, 0),
        ] {
            agrees(digits, power);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200_000))]

        #[test]
        fn any_decimal_agrees_with_the_standard_library(digits: u64, power in -345..312i32, shift in 0..64u32) {
            agrees(digits >> shift, power);
        }

        #[test]
        fn the_shortest_digits_of_any_float_give_it_back(bits: u64) {
            let value = f64::from_bits(bits & !(1 << 63));
            if value.is_finite() {
                let text = format!("{value:e}");
                let (digits, power) = text.split_once('e').unwrap();
                let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
                let digits: u64 = digits.replace('.', "").parse().unwrap();
                let power = power.parse::<i32>().unwrap() - fraction;
                prop_assert_eq!(from_decimal(digits, power), Some(value));
            }
        }
    }
}
