//! Writing floats: the fewest digits that give the float back, of these the nearest.
//!
//! A float `c * 2^q` of the usual size, times a power of ten, is `c * 5^m` over a power of two: both fit into 128 bits
//! without rounding, so that all comparisons are exact. `m` is chosen so that the float's neighbours are one to ten
//! units away: there is a number of whole units between the points halfway to them, and at most one that is a multiple
//! of ten. Others are left to a crate for all of them.
#![allow(unsafe_code)]

use super::digits::write_u64;
use std::hint::select_unpredictable;

/// Room for the longest float, and for stores beyond it.
pub(super) const MAX_FLOAT: usize = 48;

const MANTISSA_BITS: u32 = 52;
/// The exponent of a mantissa that is an integer, with its bias.
const BIAS: u64 = 1075;
/// The floats that are written here start here; smaller ones have an exponent.
const SMALLEST: f64 = 1e-5;
/// Floats from here on are integers.
const WHOLE: f64 = (1u64 << (MANTISSA_BITS + 1)) as f64;

/// What floats with the same exponent are multiplied with: `10^places` is `five << places`.
#[derive(Clone, Copy)]
struct Scale {
    five: u64,
    places: u8,
    /// How many bits of the product are a fraction.
    shift: u8,
}

/// By the number of bits that the mantissa is shifted down.
static SCALES: [Scale; 71] = {
    let mut scales = [Scale { five: 1, places: 0, shift: 0 }; 71];
    let (mut bits, mut places, mut five) = (0, 0, 1);
    while bits < 71 {
        // Times ten as long as a unit is below one.
        while (five as u128) << places < 1 << bits {
            five *= 5;
            places += 1;
        }
        scales[bits] = Scale { five, places, shift: bits as u8 - places };
        bits += 1;
    }
    scales
};

/// Writes a finite float; returns where it ends.
///
/// # Safety
/// There is room for [`MAX_FLOAT`] bytes at `target`.
#[inline(always)]
pub(super) unsafe fn write_f64(value: f64, target: *mut u8) -> *mut u8 {
    let size = value.abs();
    if !(SMALLEST..WHOLE).contains(&size) {
        // SAFETY: the caller's guarantee.
        return unsafe { write_any(value, target) };
    }
    // SAFETY: the caller's guarantee; below 2^53.
    unsafe {
        target.write(b'-');
        let start = target.add(usize::from(value < 0.0));
        let whole = size.to_int_unchecked::<i64>();
        if whole as f64 == size {
            let end = write_u64(whole.cast_unsigned(), start);
            end.cast::<[u8; 2]>().write(*b".0");
            return end.add(2);
        }
        let bits = size.to_bits();
        let fraction = bits & ((1 << MANTISSA_BITS) - 1);
        if fraction == 0 {
            // A power of two: the next smaller float is nearer than the next larger one.
            return write_any(value, target);
        }
        let scale = SCALES[BIAS.wrapping_sub(bits >> MANTISSA_BITS) as usize];
        let digits = shortest(fraction | 1 << MANTISSA_BITS, scale);
        write_fixed(digits, scale.places.into(), start)
    }
}

/// The digits of a mantissa in its scale, 16 or 17 of them.
#[inline(always)]
fn shortest(mantissa: u64, scale: Scale) -> u64 {
    let product = u128::from(mantissa) * u128::from(scale.five);
    let units = (product >> (scale.shift & 63)) as u64;
    let one = 1u64 << (scale.shift & 63);
    let rest = product as u64 & one.wrapping_sub(1);
    // In halves: how far the multiples of ten are, and how far the points halfway to the neighbours, which round to
    // even mantissas.
    let ones = units % 10;
    let below = ones.wrapping_mul(one).wrapping_add(rest).wrapping_mul(2);
    let above = one.wrapping_mul(20).wrapping_sub(below);
    let reach = scale.five.wrapping_sub(mantissa & 1);
    let nearest = units.wrapping_add(u64::from(rest.wrapping_mul(2).wrapping_add(units & 1) > one));
    let ten = units.wrapping_sub(ones);
    let digits = select_unpredictable(above <= reach, ten.wrapping_add(10), nearest);
    select_unpredictable(below <= reach, ten, digits)
}

/// Writes `digits * 10^-places`, which is below 10^16 and not below 10^-5.
///
/// # Safety
/// As [`write_f64`].
#[inline(always)]
unsafe fn write_fixed(digits: u64, places: usize, target: *mut u8) -> *mut u8 {
    const SIXTEEN: u64 = 10_000_000_000_000_000;
    const EIGHT: u64 = 100_000_000;
    // Seventeen digits, the last of them perhaps zeros.
    let is_short = digits < SIXTEEN;
    let digits = select_unpredictable(is_short, digits.wrapping_mul(10), digits);
    let places = places.wrapping_add(usize::from(is_short));
    let (upper, low) = (digits / EIGHT, digits % EIGHT);
    let (first, high) = (upper / EIGHT, upper % EIGHT);
    let text = Sixteen::of(high, low);
    // SAFETY: the caller's guarantee: at most 16 digits before the point, or 6 characters, and stores of 16 bytes.
    unsafe {
        if places <= 16 {
            target.write(b'0' + first as u8);
            text.store_with_gap(target.add(1), 16usize.wrapping_sub(places));
            target.add(17usize.wrapping_sub(places)).write(b'.');
            // A digit follows the point: other floats have no fraction.
            return target.add(text.significant().wrapping_add(2));
        }
        target.cast::<[u8; 8]>().write(*b"0.000000");
        let start = target.add(places.wrapping_sub(15));
        start.write(b'0' + first as u8);
        text.store(start.add(1));
        start.add(text.significant().wrapping_add(1))
    }
}

#[cfg(target_arch = "x86_64")]
use x86::Sixteen;

#[cfg(not(target_arch = "x86_64"))]
use portable::Sixteen;

/// SSE2, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// For each place the bytes before it.
    static BEFORE: [[u8; 16]; 17] = {
        let mut masks = [[0; 16]; 17];
        let mut place = 0;
        while place < 17 {
            let mut byte = 0;
            while byte < place {
                masks[place][byte] = 0xff;
                byte += 1;
            }
            place += 1;
        }
        masks
    };

    /// Sixteen digits, each in a byte, as numbers.
    #[derive(Clone, Copy)]
    pub(super) struct Sixteen(__m128i);

    impl Sixteen {
        /// The digits of two numbers below 10^8.
        #[inline(always)]
        pub(super) fn of(high: u64, low: u64) -> Self {
            // SAFETY: SSE2. Quotients by multiplication, in each lane: by 10^4, then by 100, then by 10; the remainder
            // goes to the upper half of the lane.
            unsafe {
                let eights = _mm_set_epi64x(low.cast_signed(), high.cast_signed());
                let quotients = _mm_srli_epi64::<45>(_mm_mul_epu32(eights, _mm_set1_epi64x(0xd1b7_1759)));
                let whole = _mm_mul_epu32(quotients, _mm_set1_epi64x(10_000));
                let fours = _mm_or_si128(quotients, _mm_slli_epi64::<32>(_mm_sub_epi32(eights, whole)));
                let quotients = _mm_srli_epi16::<3>(_mm_mulhi_epu16(fours, _mm_set1_epi32(5243)));
                let whole = _mm_mullo_epi16(quotients, _mm_set1_epi32(100));
                let twos = _mm_or_si128(quotients, _mm_slli_epi32::<16>(_mm_sub_epi16(fours, whole)));
                let quotients = _mm_mulhi_epu16(twos, _mm_set1_epi16(6554));
                let whole = _mm_mullo_epi16(quotients, _mm_set1_epi16(10));
                Self(_mm_or_si128(quotients, _mm_slli_epi16::<8>(_mm_sub_epi16(twos, whole))))
            }
        }

        #[inline(always)]
        fn text(self) -> __m128i {
            // SAFETY: SSE2.
            unsafe { _mm_or_si128(self.0, _mm_set1_epi8(b'0'.cast_signed())) }
        }

        /// # Safety
        /// There is room for sixteen bytes.
        #[inline(always)]
        pub(super) unsafe fn store(self, target: *mut u8) {
            // SAFETY: the caller's guarantee.
            unsafe { _mm_storeu_si128(target.cast(), self.text()) }
        }

        /// Writes `before` digits, a byte of any value, then the others.
        ///
        /// # Safety
        /// There is room for seventeen bytes; `before` is sixteen at most.
        #[inline(always)]
        pub(super) unsafe fn store_with_gap(self, target: *mut u8, before: usize) {
            // SAFETY: the caller's guarantee.
            unsafe {
                let text = self.text();
                let mask = _mm_loadu_si128(BEFORE.get_unchecked(before).as_ptr().cast());
                let mixed = _mm_or_si128(_mm_and_si128(mask, text), _mm_andnot_si128(mask, _mm_slli_si128::<1>(text)));
                // The last digit stands right already.
                _mm_storeu_si128(target.add(1).cast(), text);
                _mm_storeu_si128(target.cast(), mixed);
            }
        }

        /// How many digits are left without zeros at the end.
        #[inline(always)]
        pub(super) fn significant(self) -> usize {
            // SAFETY: SSE2.
            let zeros = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, _mm_setzero_si128())) };
            32 - (zeros.cast_unsigned() ^ 0xffff).leading_zeros() as usize
        }
    }
}

/// Without vectors.
#[cfg(any(not(target_arch = "x86_64"), test))]
mod portable {
    use super::super::digits::eight_digits;

    const ZEROS: u128 = u128::from_le_bytes([b'0'; 16]);

    /// Sixteen digits, the first in the lowest byte.
    #[derive(Clone, Copy)]
    pub(super) struct Sixteen(u128);

    impl Sixteen {
        /// The digits of two numbers below 10^8.
        #[inline(always)]
        pub(super) fn of(high: u64, low: u64) -> Self {
            Self(u128::from(eight_digits(high)) | u128::from(eight_digits(low)) << 64)
        }

        /// # Safety
        /// There is room for sixteen bytes.
        #[inline(always)]
        pub(super) unsafe fn store(self, target: *mut u8) {
            // SAFETY: the caller's guarantee.
            unsafe { target.cast::<u128>().write_unaligned(self.0.to_le()) }
        }

        /// Writes `before` digits, a byte of any value, then the others.
        ///
        /// # Safety
        /// There is room for seventeen bytes; `before` is sixteen at most.
        #[inline(always)]
        pub(super) unsafe fn store_with_gap(self, target: *mut u8, before: usize) {
            let mask = if before == 16 { u128::MAX } else { (1 << (8 * before)) - 1 };
            // SAFETY: the caller's guarantee.
            unsafe {
                self.store(target.add(1));
                Self(self.0 & mask | self.0 << 8 & !mask).store(target);
            }
        }

        /// How many digits are left without zeros at the end.
        #[inline(always)]
        pub(super) fn significant(self) -> usize {
            16 - (self.0 ^ ZEROS).leading_zeros() as usize / 8
        }
    }
}

/// Writes any finite float.
///
/// # Safety
/// As [`write_f64`].
#[inline(never)]
pub(super) unsafe fn write_any<F: zmij::Float>(value: F, target: *mut u8) -> *mut u8 {
    // The buffer of that crate is what it writes to: bytes that need not be initialized.
    const { assert!(size_of::<zmij::Buffer>() <= MAX_FLOAT && align_of::<zmij::Buffer>() == 1) };
    // SAFETY: the caller's guarantee.
    unsafe {
        let text = (*target.cast::<zmij::Buffer>()).format_finite(value);
        let (start, len) = (text.as_ptr(), text.len());
        if start != target {
            target.copy_from(start, len);
        }
        target.add(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees(value: f64) {
        let mut room = [0xa5; MAX_FLOAT];
        // SAFETY: as much room as is asked for.
        let len = unsafe { write_f64(value, room.as_mut_ptr()).addr() - room.as_ptr().addr() };
        assert_eq!(String::from_utf8_lossy(&room[..len]), zmij::Buffer::new().format_finite(value));
    }

    fn both_signs(value: f64) {
        agrees(value);
        agrees(-value);
    }

    #[test]
    fn all_exponents_and_the_edges_of_the_mantissa_agree() {
        for exponent in 0..0x7ff {
            for mantissa in [0, 1, 2, 3, 0x5_5555_5555_5555, 0x8_0000_0000_0000, 0xf_ffff_ffff_fffe, 0xf_ffff_ffff_ffff]
            {
                both_signs(f64::from_bits(exponent << MANTISSA_BITS | mantissa));
            }
        }
    }

    #[test]
    fn numbers_that_people_write_agree() {
        for whole in (0..2000u32).chain([4095, 65_535, 99_999, 123_456, 999_999, 1_000_000_007]) {
            for places in 0..8 {
                let power = 10f64.powi(places);
                both_signs(f64::from(whole) / power);
                both_signs(f64::from(whole) * power);
                both_signs(f64::from(whole) + 1.0 / power);
            }
            both_signs(f64::from(whole) / 7.0);
        }
    }

    #[test]
    fn the_neighbours_of_powers_of_ten_agree() {
        for power in -10..20 {
            let value: f64 = format!("1e{power}").parse().unwrap();
            for step in -50..50i64 {
                both_signs(f64::from_bits(value.to_bits().wrapping_add_signed(step)));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn stored(store: impl FnOnce(*mut u8)) -> [u8; 17] {
        let mut room = [b'.'; 17];
        store(room.as_mut_ptr());
        room
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300_000))]

        #[cfg(target_arch = "x86_64")]
        #[test]
        fn digits_are_the_same_with_vectors_and_without(high in 0..100_000_000u64, low in 0..100_000_000u64, before in 0..=16usize) {
            let (one, other) = (x86::Sixteen::of(high, low), portable::Sixteen::of(high, low));
            prop_assert_eq!(one.significant(), other.significant());
            // SAFETY: seventeen bytes.
            unsafe {
                prop_assert_eq!(stored(|at| one.store(at)), stored(|at| other.store(at)));
                let (mut one, mut other) =
                    (stored(|at| one.store_with_gap(at, before)), stored(|at| other.store_with_gap(at, before)));
                (one[before], other[before]) = (0, 0);
                prop_assert_eq!(one, other);
            }
        }

        #[test]
        fn any_float_agrees(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                agrees(value);
            }
        }

        #[test]
        fn any_float_of_the_usual_size_agrees(fraction in 0..1u64 << 52, exponent in 1000..1080u64) {
            both_signs(f64::from_bits(exponent << MANTISSA_BITS | fraction));
        }

        #[test]
        fn any_float_with_few_bits_agrees(fraction in 0..1u64 << 52, zeros in 0..52u32, exponent in 1000..1080u64) {
            both_signs(f64::from_bits(exponent << MANTISSA_BITS | (fraction >> zeros << zeros)));
        }

        #[test]
        fn any_decimal_agrees(digits in 0..10_000_000_000_000_000u64, power in 0..22i32) {
            both_signs(digits as f64 / 10f64.powi(power));
        }
    }
}
