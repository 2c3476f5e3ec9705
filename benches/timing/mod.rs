//! Interleaved timing of contenders: each round times all of them, so that noise hits all alike.

use std::time::Instant;

/// One thing to time: its name, and a closure that does it once.
pub(crate) type Contender<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Prints, for each contender, nanoseconds a call (median, p90, p99 over `rounds`) and its ratio to the first.
pub(crate) fn compare(title: &str, rounds: usize, calls: usize, mut contenders: Vec<Contender<'_>>) {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for ((_, call), times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            let elapsed = start.elapsed().as_nanos() as f64 / calls as f64;
            // The first round warms up.
            if round > 0 {
                times.push(elapsed);
            }
        }
    }
    let mut base = None;
    eprintln!("{title}");
    for ((name, _), mut times) in contenders.into_iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let base = *base.get_or_insert(at(0.5));
        let (median, p90, p99) = (at(0.5), at(0.9), at(0.99));
        eprintln!("  {name:34} {median:14.1} ns  p90 {p90:14.1}  p99 {p99:14.1}  {:6.2}x", median / base);
    }
}
