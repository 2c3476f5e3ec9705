//! CPython objects read and made directly: what the codecs of Python values share.
//!
//! [`Writer`] collects a result, [`text`] reads and [`new_str`] makes strings, [`KeyCache`] shares the keys of maps,
//! [`dict`] and [`int`] know CPython's own layouts. Those layouts are private: each is used only in the versions it was
//! read in, and only after [`check_layouts`] compared it at import with what the public functions say. Where it does
//! not hold, the public functions are used.
//!
//! Everything here needs the GIL. References are the C API's: *new* ones are owned by who gets them, *borrowed* ones
//! are valid while their owner keeps them, which ends at the latest when Python code runs.
#![allow(unsafe_code)]

mod collector;
pub(crate) mod dict;
pub(crate) mod int;
mod key_cache;
pub(crate) mod new_str;
mod owned;
mod stack;
pub(crate) mod text;
mod utf8;
mod writer;

pub(crate) use collector::CollectorPause;
pub(crate) use key_cache::{KeyCache, MAX_KEY};
pub(crate) use owned::{ObjectStack, Owned};
pub(crate) use stack::has_headroom;
pub(crate) use writer::{Sink, Writer};

use pyo3::prelude::*;

/// Compares the layouts that [`dict`] and [`int`] rely on with what the public functions say, and remembers the answer.
pub(crate) fn check_layouts(py: Python<'_>) {
    int::check_layout(py);
    dict::check_layout(py);
    // SAFETY: attached; made here, where running out of memory ends an import and nothing else.
    unsafe { KeyCache::with(|_| ()) };
}
