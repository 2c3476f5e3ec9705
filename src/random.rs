//! Random bytes for nonces, salts, stamps and ids, drawn ahead: 32 bytes of the system's are the key of BLAKE3, whose output
//! are the next 4 KiB. The system itself would take ten times as long for them.

use crate::error::{Error, Result};
use crate::fork;
use std::cell::RefCell;
use zeroize::Zeroizing;

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
            draw(&mut ahead.bytes)?;
            (ahead.next, ahead.generation) = (0, fork::generation());
        }
        let mut drawn = [0; N];
        drawn.copy_from_slice(&ahead.bytes[ahead.next..ahead.next + N]);
        ahead.next += N;
        Ok(drawn)
    })
}

#[cold]
fn draw(bytes: &mut [u8]) -> Result<()> {
    let mut key = Zeroizing::new([0; blake3::KEY_LEN]);
    getrandom::fill(&mut *key)
        .map_err(|error| Error::io("read", "random bytes", std::io::Error::other(error.to_string())))?;
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(bytes);
    Ok(())
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
