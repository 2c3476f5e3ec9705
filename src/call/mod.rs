//! Python calls and the values they return: what L1 holds of them.
//!
//! [`held`] decides what is shared with callers and what is decoded afresh for each; [`tier`] is the L1 of such values.

pub(crate) mod held;
pub(crate) mod immutable;
pub(crate) mod tier;
