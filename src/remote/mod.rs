//! Entries in an engine beyond this machine: names, heads, reads, and the protocol of Redis (`proto-docs/redis.md`).
//!
//! Nothing here waits or talks to anybody. What an engine answers is anybody's bytes: lengths are checked before memory
//! is allocated, and whatever is not as specified is an error or a miss.

mod head;
mod header;
mod names;
mod reading;
mod resp;

pub use head::{DEADLINE_AT, Head, ID_AT, MAX_TAGS, NewHead, Tag};
pub use header::{Rest, read_rest};
pub use names::Names;
pub use reading::{Entry, Missed, Reading, Tagged};
pub use resp::{Progress, Replies, pack_length};
