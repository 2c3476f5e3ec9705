//! Memory that is shared, and memory that work in progress may take.
//!
//! A [`WeakMap`] finds what is in use anyway, such as the one mapping of a file that several readers share: it keeps
//! no value alive, and forgets those that are gone as it is used. A [`SyncWeakMap`] is the same for several threads.
//! Of a value that is gone, `std`'s weak pointers keep the allocation: store handles (`Arc<Mapping>`), not large values
//! themselves (`Arc<[u8; 1 << 20]>`).
//!
//! A [`WorkerPool`] does ordered work in parallel, within the bytes that a [`StreamingProcessor`] allows: its results come
//! through a [`SequenceRing`], and each of its workers has [`ScratchBuffers`].

mod budget;
mod pool;
mod reference;
mod ring;
mod scratch;
mod sync;
mod sync_weak_map;
mod weak_map;
mod worker;

pub use budget::{DEFAULT_LIMIT, Permit, StreamingProcessor, StreamingProcessorStats};
pub use pool::{ON_CALLER_BELOW, SubmitError, WINDOW, Work, WorkerPool, WorkerPoolStats};
pub use reference::{StrongRef, WeakRef};
pub use ring::{Abandoned, Reserved, SequenceRing, SequenceRingStats};
pub use scratch::{SCRATCH_KEPT, ScratchBuffers};
pub use sync_weak_map::SyncWeakMap;
pub use weak_map::{Iter, StrongMap, WeakMap};
