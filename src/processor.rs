//! What the processor has, asked once.

use std::sync::atomic::{AtomicU8, Ordering};

/// The sets of instructions that code here is written for; each has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// SSE2.
    Baseline,
    /// And AVX2, POPCNT.
    Avx2,
    /// And AVX-512 F, BW, VL, VBMI and VBMI2, BMI2.
    Avx512,
}

/// What this processor has.
#[inline(always)]
pub(crate) fn level() -> Level {
    const BASELINE: u8 = Level::Baseline as u8;
    const AVX2: u8 = Level::Avx2 as u8;
    const AVX512: u8 = Level::Avx512 as u8;
    /// A level; another number until the processor was asked.
    static FOUND: AtomicU8 = AtomicU8::new(u8::MAX);
    #[cold]
    fn ask() -> Level {
        use std::arch::is_x86_feature_detected as has;
        let found = if !(has!("avx2") && has!("popcnt")) {
            Level::Baseline
        } else if has!("avx512f")
            && has!("avx512bw")
            && has!("avx512vl")
            && has!("avx512vbmi")
            && has!("avx512vbmi2")
            && has!("bmi2")
        {
            Level::Avx512
        } else {
            Level::Avx2
        };
        FOUND.store(found as u8, Ordering::Relaxed);
        found
    }
    match FOUND.load(Ordering::Relaxed) {
        AVX512 => Level::Avx512,
        AVX2 => Level::Avx2,
        BASELINE => Level::Baseline,
        _ => ask(),
    }
}
