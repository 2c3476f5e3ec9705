//! A call of a cached function: from its arguments to canonical bytes, to an entry of L1, to the value.
//!
//! [`bind`] finds the argument of each parameter, [`encode`] and [`content`] write them canonically (`proto-docs/keys.md`
//! specifies the bytes), [`function`] looks them up, and [`object`] is the Python type of cached functions. [`tier`] is
//! the L1 of Python values, and [`held`] decides what of it is shared with callers and what is decoded afresh for each.
//!
//! All of it runs with the GIL held. Calls share nothing but what is fixed when the function is decorated: encoding and
//! decoding may run Python code, which may call the same function.

mod bind;
mod content;
mod encode;
mod function;
pub(crate) mod held;
pub(crate) mod immutable;
mod object;
pub(crate) mod tier;
mod wrong;

pub(crate) use object::new_type;
