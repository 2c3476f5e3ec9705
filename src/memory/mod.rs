//! Maps whose values live only as long as somebody else holds them.
//!
//! A [`WeakMap`] finds what is in use anyway, such as the one mapping of a file that several readers share: it keeps
//! no value alive, and forgets those that are gone as it is used. A [`SyncWeakMap`] is the same for several threads.
//!
//! Of a value that is gone, `std`'s weak pointers keep the allocation: store handles (`Arc<Mapping>`), not large values
//! themselves (`Arc<[u8; 1 << 20]>`).

mod reference;
mod sync_weak_map;
mod weak_map;

pub use reference::{StrongRef, WeakRef};
pub use sync_weak_map::SyncWeakMap;
pub use weak_map::{Iter, StrongMap, WeakMap};
