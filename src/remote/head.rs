//! What stands before a frame in an engine.

use crate::error::{Error, Result};

/// The first bytes of every entry.
const MAGIC: &[u8; 4] = b"fcr1";
/// Where the deadline stands.
pub const DEADLINE_AT: usize = 8;
/// Where the id stands.
pub const ID_AT: usize = 40;
/// Bytes before the tags.
const FIXED: usize = 52;
/// Heads are multiples of this, and so are frames' places.
const ALIGN: usize = 64;
/// Stands for no end.
const NEVER: u64 = u64::MAX;
/// The most tags of an entry, as in a store: 1000, and those that framecache adds.
pub const MAX_TAGS: usize = 1002;

/// A tag's hash, then the stamp that it had.
pub type Tag = [u8; 24];

/// The head of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'b> {
    /// Until when the entry is fresh, in milliseconds since 1970-01-01 UTC; `None`: for ever.
    pub deadline: Option<u64>,
    /// Until when it may be served at all.
    pub until: Option<u64>,
    /// When it was written.
    pub created: u64,
    /// The stamp of its namespace when it was written.
    pub stamp: [u8; 8],
    /// Random: two entries with the same id are the same.
    pub id: [u8; 8],
    /// Its tags and the stamps that they had.
    pub tags: &'b [Tag],
    /// Its length: where the frame begins.
    pub length: usize,
}

impl<'b> Head<'b> {
    /// The head that `entry` begins with.
    ///
    /// # Errors
    /// [`Error::Frame`], with offsets from the start of the entry, where it begins with something else.
    pub fn parse(entry: &'b [u8]) -> Result<Self> {
        let Some(fixed) = entry.first_chunk::<FIXED>().filter(|fixed| fixed.starts_with(MAGIC)) else {
            let found = format!("{:?}", String::from_utf8_lossy(&entry[..entry.len().min(MAGIC.len())]));
            return Err(Error::frame(0, "an entry: b\"fcr1\" and 48 bytes more", found));
        };
        let length = u32::from_be_bytes(part(fixed, 4)) as usize;
        let count = u32::from_be_bytes(part(fixed, 48)) as usize;
        if count > MAX_TAGS || length != length_with(count) {
            return Err(Error::frame(4, format!("the length of a head with {count} tags"), length.to_string()));
        }
        if entry.len() < length {
            return Err(Error::frame(4, format!("{length} bytes of head"), format!("{} bytes", entry.len())));
        }
        let end = |at| Some(u64::from_be_bytes(part(fixed, at))).filter(|end| *end != NEVER);
        Ok(Self {
            deadline: end(DEADLINE_AT),
            until: end(16),
            created: u64::from_be_bytes(part(fixed, 24)),
            stamp: part(fixed, 32),
            id: part(fixed, ID_AT),
            tags: entry[FIXED..FIXED + count * size_of::<Tag>()].as_chunks().0,
            length,
        })
    }

    /// How long the head is that begins with these bytes, if they are those of one.
    pub fn stated_length(entry: &[u8]) -> Option<usize> {
        let stated = entry.strip_prefix(MAGIC)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize)?;
        (stated <= length_with(MAX_TAGS)).then_some(stated)
    }
}

/// A head to write; its fields are those of [`Head`].
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "see `Head`")]
pub struct NewHead {
    pub deadline: Option<u64>,
    pub until: Option<u64>,
    pub created: u64,
    pub stamp: [u8; 8],
    pub id: [u8; 8],
    pub tags: Vec<Tag>,
}

impl NewHead {
    /// Its bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] for more than [`MAX_TAGS`] tags.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let count = self.tags.len();
        if count > MAX_TAGS {
            let expected = format!("at most {MAX_TAGS}").into();
            return Err(Error::Argument { argument: "tags", expected, found: count.to_string() });
        }
        let length = length_with(count);
        let mut out = Vec::with_capacity(length + 256);
        out.extend_from_slice(MAGIC);
        // At most MAX_TAGS tags: both have 32 bits.
        out.extend_from_slice(&(length as u32).to_be_bytes());
        for time in [self.deadline.unwrap_or(NEVER), self.until.unwrap_or(NEVER), self.created] {
            out.extend_from_slice(&time.to_be_bytes());
        }
        out.extend_from_slice(&self.stamp);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&(count as u32).to_be_bytes());
        out.extend_from_slice(self.tags.as_flattened());
        out.resize(length, 0);
        Ok(out)
    }
}

fn length_with(tags: usize) -> usize {
    (FIXED + tags * size_of::<Tag>()).next_multiple_of(ALIGN)
}

fn part<const N: usize>(fixed: &[u8; FIXED], at: usize) -> [u8; N] {
    fixed[at..].first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_without_tags_has_64_bytes() {
        let head = NewHead { deadline: None, until: Some(2), created: 1, stamp: [3; 8], id: [4; 8], tags: Vec::new() };
        let bytes = head.to_bytes().expect("few tags");
        assert_eq!(bytes.len(), 64);
        assert_eq!(&bytes[..16], b"fcr1\0\0\0\x40\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!((&bytes[32..40], &bytes[ID_AT..48], &bytes[48..]), (&[3; 8][..], &[4; 8][..], &[0; 16][..]));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let head =
            NewHead { deadline: None, until: None, created: 1, stamp: [3; 8], id: [4; 8], tags: vec![[7; 24]; 3] };
        let bytes = head.to_bytes().expect("few tags");
        assert_eq!(bytes.len(), 128);
        for cut in 0..bytes.len() {
            assert!(Head::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        for (at, wrong) in [(0, b'x'), (4, 1), (7, 0), (48, 1), (51, 4)] {
            let mut other = bytes.clone();
            other[at] = wrong;
            assert!(Head::parse(&other).is_err(), "{at}");
        }
        let many = NewHead { tags: vec![[0; 24]; MAX_TAGS + 1], ..head };
        assert!(many.to_bytes().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            deadline in prop::option::of(0..u64::MAX), until in prop::option::of(0..u64::MAX), created: u64,
            stamp: [u8; 8], id: [u8; 8], tags in prop::collection::vec(any::<Tag>(), 0..20), rest: Vec<u8>,
        ) {
            let head = NewHead { deadline, until, created, stamp, id, tags };
            let mut bytes = head.to_bytes().expect("few tags");
            let length = bytes.len();
            prop_assert_eq!(Head::stated_length(&bytes), Some(length));
            bytes.extend_from_slice(&rest);
            let read = Head::parse(&bytes).expect("valid");
            let expected = Head { deadline, until, created, stamp, id, tags: &head.tags, length };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_a_head_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            let mut bytes = bytes;
            if magic && bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"fcr1\0\0\0\x40");
            }
            if let Ok(head) = Head::parse(&bytes) {
                prop_assert!(head.length <= bytes.len() && head.length % ALIGN == 0);
            }
        }
    }
}
