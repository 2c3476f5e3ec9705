//! Characters to UTF-8 with JSON's escapes, many at once.
//!
//! Every variant writes the same bytes. [`baseline`] runs anywhere; [`avx2`] and [`avx512`] make of each character a
//! group of two or four bytes and leave out those that it does not have: by a table of shuffles, or by the instruction
//! for it. Which one runs is decided when the process first writes.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod baseline;

#[cfg(target_arch = "x86_64")]
use crate::processor::{Level, level};
pub(super) use baseline::ESCAPES;
use std::ptr::NonNull;

/// The longest escape of a character.
pub(super) const LONGEST: usize = 6;
/// How far stores go beyond the last byte.
pub(super) const OVERSHOOT: usize = 64;

/// A byte of UTF-8, as opposed to a Latin-1 character.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Utf8(pub(super) u8);

/// What text consists of: [`Utf8`], or characters of one, two or four bytes.
pub(super) trait Unit: Copy {
    /// Writes all of `units`; null if one is a surrogate, which has no UTF-8.
    ///
    /// # Safety
    /// There is room for [`LONGEST`] bytes each, and [`OVERSHOOT`] more.
    unsafe fn baseline(units: &[Self], out: *mut u8) -> *mut u8;

    /// As [`Self::baseline`].
    ///
    /// # Safety
    /// The processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(units: &[Self], out: *mut u8) -> *mut u8;

    /// As [`Self::baseline`].
    ///
    /// # Safety
    /// The processor has what [`Level::Avx512`] stands for.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(units: &[Self], out: *mut u8) -> *mut u8;
}

macro_rules! unit {
    ($($unit:ty: $function:ident),*) => {$(
        impl Unit for $unit {
            #[inline(never)]
            unsafe fn baseline(units: &[Self], out: *mut u8) -> *mut u8 {
                // SAFETY: the caller's guarantee.
                unsafe { baseline::$function(units, out) }
            }
            #[cfg(target_arch = "x86_64")]
            unsafe fn avx2(units: &[Self], out: *mut u8) -> *mut u8 {
                // SAFETY: as above.
                unsafe { avx2::$function(units, out) }
            }
            #[cfg(target_arch = "x86_64")]
            unsafe fn avx512(units: &[Self], out: *mut u8) -> *mut u8 {
                // SAFETY: as above.
                unsafe { avx512::$function(units, out) }
            }
        }
    )*};
}

unit!(Utf8: utf8, u8: latin1, u16: ucs2, u32: ucs4);

/// Writes all of `units`; `None` if one is a surrogate.
///
/// # Safety
/// There is room for [`LONGEST`] bytes each, and [`OVERSHOOT`] more.
#[inline(always)]
pub(super) unsafe fn write<U: Unit>(units: &[U], out: *mut u8) -> Option<NonNull<u8>> {
    // SAFETY: the caller's guarantee; the processor was asked.
    NonNull::new(unsafe {
        #[cfg(target_arch = "x86_64")]
        match level() {
            Level::Avx512 => U::avx512(units, out),
            Level::Avx2 => U::avx2(units, out),
            Level::Baseline => U::baseline(units, out),
        }
        #[cfg(not(target_arch = "x86_64"))]
        U::baseline(units, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variant<U> = (&'static str, unsafe fn(&[U], *mut u8) -> *mut u8);

    /// Those that this processor has.
    fn variants<U: Unit>() -> Vec<Variant<U>> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut found: Vec<Variant<U>> = vec![("baseline", U::baseline)];
        #[cfg(target_arch = "x86_64")]
        {
            if level() >= Level::Avx2 {
                found.push(("AVX2", U::avx2));
            }
            if level() >= Level::Avx512 {
                found.push(("AVX-512", U::avx512));
            }
        }
        found
    }

    fn expected(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for char in text.chars() {
            match char {
                '"' | '\\' => bytes.extend([b'\\', char as u8]),
                '\u{8}' => bytes.extend(b"\\b"),
                '\u{c}' => bytes.extend(b"\\f"),
                '\n' => bytes.extend(b"\\n"),
                '\r' => bytes.extend(b"\\r"),
                '\t' => bytes.extend(b"\\t"),
                '\0'..' ' => bytes.extend(format!("\\u{:04x}", u32::from(char)).bytes()),
                _ => bytes.extend(char.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        bytes
    }

    /// What `write` makes of `units`, in memory of exactly the size that it may use, filled with something.
    fn written<U: Unit>(write: unsafe fn(&[U], *mut u8) -> *mut u8, units: &[U]) -> Option<Vec<u8>> {
        let mut room = vec![0xa5; LONGEST * units.len() + OVERSHOOT];
        // SAFETY: as much room as is asked for.
        let end = unsafe { write(units, room.as_mut_ptr()) };
        if end.is_null() {
            return None;
        }
        room.truncate(end.addr() - room.as_ptr().addr());
        Some(room)
    }

    /// Compares all variants on `text`, at the start and at the end of memory of its size.
    fn check<U: Unit>(text: &str, units: &[U]) {
        let expected = expected(text);
        for (name, write) in variants() {
            assert_eq!(written(write, units).as_deref(), Some(&expected[..]), "{name}: {text:?}");
        }
    }

    fn check_all(text: &str) {
        let chars: Vec<u32> = text.chars().map(u32::from).collect();
        check(text, &text.bytes().map(Utf8).collect::<Box<[_]>>());
        if chars.iter().all(|char| *char <= 0xff) {
            check(text, &chars.iter().map(|char| *char as u8).collect::<Box<[_]>>());
        }
        if chars.iter().all(|char| *char <= 0xffff) {
            check(text, &chars.iter().map(|char| *char as u16).collect::<Box<[_]>>());
        }
        check(text, &chars);
    }

    /// A generator that gives the same numbers each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (self.0 >> 33) as usize % limit
        }
    }

    /// What text is made of here: plain, escaped, and each length of UTF-8 with its first and last characters.
    const KINDS: [&[char]; 7] = [
        &['a', 'Z', ' ', '!', '#', '[', ']', '~', '\u{7f}', '/', '0'],
        &['"', '\\', '\n', '\r', '\t', '\u{8}', '\u{c}'],
        &['\0', '\u{1}', '\u{7}', '\u{b}', '\u{e}', '\u{f}', '\u{10}', '\u{18}', '\u{1c}', '\u{1f}'],
        &['\u{80}', '\u{a2}', '\u{bf}', '\u{c0}', '\u{dc}', '\u{e9}', '\u{ff}'],
        &['\u{100}', '\u{122}', '\u{15c}', '\u{40a}', '\u{43f}', '\u{7ff}'],
        &['\u{800}', '\u{822}', '\u{225c}', '\u{65e5}', '\u{d7ff}', '\u{e000}', '\u{feff}', '\u{ffff}'],
        &['\u{1_0000}', '\u{1_0022}', '\u{1_f600}', '\u{f_ffff}', '\u{10_ffff}'],
    ];

    #[test]
    fn every_kind_of_character_is_written_in_every_place() {
        for (kind, chars) in KINDS.iter().enumerate() {
            for len in [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130] {
                for place in 0..len {
                    let mut text = vec!['x'; len];
                    text[place] = chars[place % chars.len()];
                    check_all(&text.iter().collect::<String>());
                    text.fill(KINDS[(kind + place) % KINDS.len()][0]);
                    text[place] = chars[place % chars.len()];
                    check_all(&text.iter().collect::<String>());
                }
            }
        }
    }

    #[test]
    fn random_text_of_every_length_and_mixture_is_written_alike_by_all() {
        let mut numbers = Numbers(20_240_501);
        for turn in 0..30_000 {
            let (len, kinds) = (numbers.below(140), 1 + numbers.below(127));
            let text: String = (0..len)
                .map(|_| {
                    // Some texts have few characters that are not plain, some have no others.
                    let kind = if turn % 2 == 0 && numbers.below(20) > 0 { 0 } else { numbers.below(KINDS.len()) };
                    let kind = if kinds >> kind & 1 == 1 { kind } else { kinds.trailing_zeros() as usize };
                    KINDS[kind][numbers.below(KINDS[kind].len())]
                })
                .collect();
            check_all(&text);
        }
    }

    #[test]
    fn every_character_of_the_first_plane_is_written() {
        let chars: Vec<char> = (0..=0xffff).filter_map(char::from_u32).collect();
        for text in chars.chunks(67) {
            check_all(&text.iter().collect::<String>());
        }
    }

    #[test]
    fn a_surrogate_in_any_place_is_refused_by_all() {
        for surrogate in [0xd800u16, 0xdbff, 0xdc00, 0xdfff] {
            for len in [1, 4, 8, 9, 16, 33, 64, 70] {
                for place in 0..len {
                    for other in [u16::from(b'x'), 0x65e5, u16::from(b'"'), 0xe9] {
                        let mut units = vec![other; len];
                        units[place] = surrogate;
                        let wide: Vec<u32> = units.iter().map(|unit| u32::from(*unit)).collect();
                        for (name, write) in variants() {
                            assert_eq!(written(write, &units), None, "{name}");
                        }
                        for (name, write) in variants() {
                            assert_eq!(written(write, &wide), None, "{name}");
                        }
                    }
                }
            }
        }
    }
}
