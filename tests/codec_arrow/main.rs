//! The `arrow` codec from outside: what is written is read back in place, and what is hostile is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod hostile;
mod mutated;
mod round_trip;
mod support;
mod writer;
