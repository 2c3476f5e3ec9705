//! The locks of this module; the model test of the ring puts others in their place.

pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
