//! How much of the thread's stack is left.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;

/// Bytes of stack that a codec leaves to whatever it calls.
const RESERVE: usize = 64 * 1024;

thread_local! {
    /// The lowest address of this thread's stack; 0 until it was asked for.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Whether the thread's stack has room for some more levels of recursion. Threads may have small ones
/// (`threading.stack_size`).
pub(crate) fn has_headroom() -> bool {
    let lowest = LOWEST.get();
    let lowest = if lowest == 0 { lowest_address() } else { lowest };
    let here = 0u8;
    (&raw const here).addr() >= lowest.saturating_add(RESERVE)
}

#[cold]
fn lowest_address() -> usize {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: asks for the calling thread's own attributes; they are initialized if that succeeds, and destroyed once.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    // Where the system does not tell, the limit on depth alone holds.
    let lowest = start.addr().max(1);
    LOWEST.set(lowest);
    lowest
}
