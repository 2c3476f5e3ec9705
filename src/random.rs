//! Random bytes for nonces, salts, stamps and ids, drawn ahead: the system is asked once for 4 KiB.

use crate::error::{Error, Result};
use crate::fork;
use std::cell::RefCell;

const AHEAD: usize = 4096;

struct Ahead {
    bytes: [u8; AHEAD],
    /// Where those begin that were not used yet.
    next: usize,
    /// The process they were drawn in; another one does not use them.
    generation: u64,
}

thread_local! {
    static RANDOM: RefCell<Ahead> = const { RefCell::new(Ahead { bytes: [0; AHEAD], next: AHEAD, generation: 0 }) };
}

/// `N` random bytes (at most 4096) that no other call, thread or process is given.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    const { assert!(N <= AHEAD) };
    RANDOM.with_borrow_mut(|ahead| {
        if ahead.generation != fork::generation() || ahead.next + N > AHEAD {
            getrandom::fill(&mut ahead.bytes)
                .map_err(|error| Error::io("read", "random bytes", std::io::Error::other(error.to_string())))?;
            (ahead.next, ahead.generation) = (0, fork::generation());
        }
        let mut drawn = [0; N];
        drawn.copy_from_slice(&ahead.bytes[ahead.next..ahead.next + N]);
        ahead.next += N;
        Ok(drawn)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_draws_are_alike_in_any_thread() {
        let draw = || (0..10_000).map(|_| bytes::<12>().expect("random")).collect::<Vec<_>>();
        let mut seen: HashSet<[u8; 12]> = draw().into_iter().collect();
        for other in [std::thread::spawn(draw), std::thread::spawn(draw)] {
            seen.extend(other.join().expect("drawn"));
        }
        assert_eq!(seen.len(), 30_000);
    }
}
