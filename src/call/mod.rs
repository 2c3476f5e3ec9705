//! A call of a cached function: from its arguments to canonical bytes, to an entry of L1, to the value.
//!
//! [`bind`] finds the argument of each parameter, [`encode`] writes them canonically (`proto-docs/keys.md` specifies the
//! bytes), [`call`] looks them up, and [`object`] is the Python type whose instances stand for the functions. [`held`]
//! decides which values are shared with callers and which are decoded afresh for each; [`tier`] is the L1 of such values.
//!
//! All of it runs with the GIL held. Nothing is shared between calls but what is fixed when the function is decorated:
//! encoding and decoding may run Python code, which may call the same function.

mod bind;
#[expect(clippy::module_inception, reason = "what a cached function does, beside the Python type that it is")]
mod call;
mod content;
mod encode;
pub(crate) mod held;
pub(crate) mod immutable;
mod object;
pub(crate) mod tier;
mod wrong;

pub(crate) use object::new_type;
