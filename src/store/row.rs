//! Rows of the index: their keys and their bytes (`proto-docs/store.md` specifies both).

use super::process::Owner;
use crate::checksum::xxh3_64;

/// A moment that never comes, in milliseconds since 1970.
pub(super) const NEVER: u64 = u64::MAX;

/// Bytes of an entry's row before its tags.
const FIXED: usize = 104;
/// Bytes of one tag.
const TAG: usize = 24;
/// Bytes of a blob's row.
pub(super) const BLOB_ROW: usize = 40;
const VERSION: u8 = 1;

/// A blob's random id, which no other blob ever has.
pub(super) type BlobId = [u8; 16];

/// The hash of a tag, and the stamp it had when the entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagStamp {
    pub(super) tag: [u8; 16],
    pub(super) stamp: u64,
}

/// What the index knows of an entry, without the tags, names and bytes that follow it in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was written, in milliseconds since 1970.
    pub(super) created: u64,
    /// Until when this tier serves it; [`NEVER`] without a time to live.
    pub(super) deadline: u64,
    /// Until when any tier may serve it.
    pub(super) until: u64,
    /// Bytes of the frame.
    pub(super) size: u64,
    /// A random number of this write.
    pub(super) fence: u64,
    /// The stamp of its namespace when it was written.
    pub(super) namespace_stamp: u64,
    /// The blob that holds the frame; none where the row does.
    pub(super) blob: Option<BlobId>,
    /// XXH3-64 of the first `checked` bytes of the blob.
    pub(super) checksum: u64,
    pub(super) checked: u64,
    /// Whether this module wrote the frame's header; else it was given one that may be anything.
    pub(super) own_header: bool,
}

impl Entry {
    /// The last moment at which it can be of use: `until`, as it may be served stale up to then; without one its deadline.
    pub(super) fn end(&self) -> u64 {
        if self.until == NEVER { self.deadline } else { self.until }
    }
}

/// Bits of a row's tenth byte.
const IN_BLOB: u8 = 1;
const OWN_HEADER: u8 = 2;

/// An entry's row, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'r> {
    fixed: &'r [u8; FIXED],
    tags: &'r [u8],
    pub(super) namespace: &'r [u8],
    pub(super) key: &'r [u8],
    /// The frame, of an entry without a blob.
    pub(super) inline: &'r [u8],
}

impl<'r> Row<'r> {
    /// `None` for bytes that are no row or were changed since they were written.
    #[inline]
    pub(super) fn parse(bytes: &'r [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let row = Self { fixed, tags: &[], namespace: &[], key: &[], inline: &[] };
        if fixed[8] != VERSION || xxh3_64(&bytes[8..]) != row.number(0) {
            return None;
        }
        let short = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
        let (tags, namespace) = (short(10) * TAG, short(12));
        let key = u32::from_le_bytes([fixed[96], fixed[97], fixed[98], fixed[99]]) as usize;
        let (tags, rest) = rest.split_at_checked(tags)?;
        let (namespace, rest) = rest.split_at_checked(namespace)?;
        let (key, inline) = rest.split_at_checked(key)?;
        Some(Self { tags, namespace, key, inline, ..row })
    }

    #[inline]
    fn number(&self, at: usize) -> u64 {
        self.fixed[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
    }

    #[inline]
    pub(super) fn created(&self) -> u64 {
        self.number(16)
    }

    #[inline]
    pub(super) fn deadline(&self) -> u64 {
        self.number(24)
    }

    #[inline]
    pub(super) fn until(&self) -> u64 {
        self.number(32)
    }

    #[inline]
    pub(super) fn size(&self) -> u64 {
        self.number(40)
    }

    #[inline]
    pub(super) fn fence(&self) -> u64 {
        self.number(48)
    }

    #[inline]
    pub(super) fn namespace_stamp(&self) -> u64 {
        self.number(56)
    }

    #[inline]
    pub(super) fn blob(&self) -> Option<BlobId> {
        (self.fixed[9] & IN_BLOB != 0).then(|| self.fixed[64..].first_chunk().copied()).flatten()
    }

    #[inline]
    pub(super) fn own_header(&self) -> bool {
        self.fixed[9] & OWN_HEADER != 0
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            created: self.created(),
            deadline: self.deadline(),
            until: self.until(),
            size: self.size(),
            fence: self.fence(),
            namespace_stamp: self.namespace_stamp(),
            blob: self.blob(),
            checksum: self.number(80),
            checked: self.number(88),
            own_header: self.own_header(),
        }
    }

    pub(super) fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = TagStamp> + use<'r> {
        self.tags.chunks_exact(TAG).filter_map(|bytes| {
            let (tag, stamp) = bytes.split_first_chunk()?;
            Some(TagStamp { tag: *tag, stamp: u64::from_le_bytes(*stamp.first_chunk()?) })
        })
    }
}

/// An entry's row to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRow<'r> {
    pub(super) entry: Entry,
    pub(super) tags: &'r [TagStamp],
    pub(super) namespace: &'r [u8],
    pub(super) key: &'r [u8],
    pub(super) inline: &'r [u8],
}

impl NewRow<'_> {
    pub(super) fn length(&self) -> usize {
        FIXED + self.tags.len() * TAG + self.namespace.len() + self.key.len() + self.inline.len()
    }

    /// Fills all of `room`, which has [`Self::length`] bytes. There are at most 65,535 tags and bytes of namespace.
    pub(super) fn write(&self, room: &mut [u8]) {
        let entry = &self.entry;
        room[..FIXED].fill(0);
        room[8] = VERSION;
        room[9] = if entry.blob.is_some() { IN_BLOB } else { 0 } | if entry.own_header { OWN_HEADER } else { 0 };
        room[10..12].copy_from_slice(&(self.tags.len() as u16).to_le_bytes());
        room[12..14].copy_from_slice(&(self.namespace.len() as u16).to_le_bytes());
        let numbers = [
            (16, entry.created),
            (24, entry.deadline),
            (32, entry.until),
            (40, entry.size),
            (48, entry.fence),
            (56, entry.namespace_stamp),
            (80, entry.checksum),
            (88, entry.checked),
        ];
        for (at, number) in numbers {
            room[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        room[64..80].copy_from_slice(&entry.blob.unwrap_or_default());
        room[96..100].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        let mut at = FIXED;
        for tag in self.tags {
            room[at..at + 16].copy_from_slice(&tag.tag);
            room[at + 16..at + TAG].copy_from_slice(&tag.stamp.to_le_bytes());
            at += TAG;
        }
        for part in [self.namespace, self.key, self.inline] {
            room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let checksum = xxh3_64(&room[8..]);
        room[..8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// What kind of row a key is of: its first byte.
pub(super) mod kind {
    pub(in super::super) const BLOB: u8 = b'b';
    pub(in super::super) const ENTRY: u8 = b'e';
    pub(in super::super) const LEASE: u8 = b'l';
    pub(in super::super) const TOTALS: u8 = b'm';
    pub(in super::super) const NAMESPACE: u8 = b'n';
    pub(in super::super) const RESERVATION: u8 = b'r';
    pub(in super::super) const TAG: u8 = b't';
    pub(in super::super) const END: u8 = b'x';
}

/// A kind, then up to 40 bytes.
#[derive(Clone, Copy)]
pub(super) struct RowKey {
    bytes: [u8; 41],
    length: usize,
}

impl std::ops::Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl RowKey {
    fn of(kind: u8, parts: &[&[u8]]) -> Self {
        let mut key = Self { bytes: [0; 41], length: 1 };
        key.bytes[0] = kind;
        for part in parts {
            key.bytes[key.length..key.length + part.len()].copy_from_slice(part);
            key.length += part.len();
        }
        key
    }

    pub(super) fn entry(name: &[u8; 32]) -> Self {
        Self::of(kind::ENTRY, &[name])
    }

    pub(super) fn lease(name: &[u8; 32]) -> Self {
        Self::of(kind::LEASE, &[name])
    }

    /// Rows of this kind are in order of the moments after which their entries can go.
    pub(super) fn end(end: u64, name: &[u8; 32]) -> Self {
        Self::of(kind::END, &[&end.to_be_bytes(), name])
    }

    pub(super) fn blob(id: &BlobId) -> Self {
        Self::of(kind::BLOB, &[id])
    }

    pub(super) fn tag(tag: &[u8; 16]) -> Self {
        Self::of(kind::TAG, &[tag])
    }

    /// Of a namespace's hash.
    pub(super) fn namespace(hash: &[u8; 16]) -> Self {
        Self::of(kind::NAMESPACE, &[hash])
    }

    pub(super) fn reservation(owner: Owner, count: u64) -> Self {
        Self::of(kind::RESERVATION, &[&owner.to_bytes(), &count.to_be_bytes()])
    }

    /// What the keys of all reservations of a process begin with.
    pub(super) fn reservations(owner: Owner) -> Self {
        Self::of(kind::RESERVATION, &[&owner.to_bytes()])
    }

    pub(super) fn totals() -> Self {
        Self::of(kind::TOTALS, &[])
    }
}

/// The name in the key of an entry's row.
pub(super) fn name_in(key: &[u8]) -> Option<&[u8; 32]> {
    let (first, name) = key.split_first()?;
    if *first == kind::ENTRY { name.try_into().ok() } else { None }
}

/// The moment and the name in the key of an end's row.
pub(super) fn end_in(key: &[u8]) -> Option<(u64, &[u8; 32])> {
    let (end, name) = key.strip_prefix(&[kind::END])?.split_first_chunk()?;
    Some((u64::from_be_bytes(*end), name.try_into().ok()?))
}

/// The tag in the key of a tag's row.
pub(super) fn tag_in(key: &[u8]) -> Option<[u8; 16]> {
    key.strip_prefix(&[kind::TAG])?.try_into().ok()
}

/// What a tag's reads are counted under.
pub(super) fn tag_name(tag: &[u8; 16]) -> [u8; 32] {
    let mut name = [0; 32];
    name[16..].copy_from_slice(tag);
    name
}

/// The number in a row of eight bytes.
pub(super) fn number_of(row: &[u8]) -> Option<u64> {
    row.try_into().ok().map(u64::from_le_bytes)
}

/// Sums that no scan has to find: bytes of linked blobs, bytes that are reserved, how many blobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) linked: u64,
    pub(super) reserved: u64,
    pub(super) blobs: u64,
}

impl Totals {
    pub(super) fn parse(row: &[u8]) -> Option<Self> {
        let [linked, reserved, blobs] = row.as_chunks::<8>().0.try_into().ok()?;
        let [linked, reserved, blobs] = [linked, reserved, blobs].map(u64::from_le_bytes);
        Some(Self { linked, reserved, blobs })
    }

    pub(super) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (chunk, number) in bytes.chunks_exact_mut(8).zip([self.linked, self.reserved, self.blobs]) {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// A lease: who computes a value, until when, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseRow {
    pub(super) owner: Owner,
    pub(super) expires: u64,
    pub(super) token: u64,
}

impl LeaseRow {
    pub(super) fn parse(row: &[u8]) -> Option<Self> {
        let (owner, rest) = row.split_first_chunk()?;
        let (expires, token) = rest.split_first_chunk()?;
        Some(Self { owner: Owner::from_bytes(owner), expires: u64::from_le_bytes(*expires), token: number_of(token)? })
    }

    pub(super) fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..12].copy_from_slice(&self.owner.to_bytes());
        bytes[12..20].copy_from_slice(&self.expires.to_le_bytes());
        bytes[20..].copy_from_slice(&self.token.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(blob: Option<BlobId>) -> Entry {
        Entry {
            created: 1,
            deadline: 2,
            until: NEVER,
            size: 4,
            fence: 5,
            namespace_stamp: 6,
            blob,
            checksum: 8,
            checked: 9,
            own_header: blob.is_none(),
        }
    }

    fn written(row: NewRow<'_>) -> Vec<u8> {
        let mut bytes = vec![0xff; row.length()];
        row.write(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written(
            tags in proptest::collection::vec((any::<[u8; 16]>(), any::<u64>()), 0..4),
            (namespace, key, inline) in any::<(Vec<u8>, Vec<u8>, Vec<u8>)>(),
            blob in any::<Option<BlobId>>(),
        ) {
            let tags: Vec<_> = tags.into_iter().map(|(tag, stamp)| TagStamp { tag, stamp }).collect();
            let bytes =
                written(NewRow { entry: entry(blob), tags: &tags, namespace: &namespace, key: &key, inline: &inline });
            let row = Row::parse(&bytes).expect("a row");
            prop_assert_eq!(row.entry(), entry(blob));
            prop_assert_eq!(row.tags().collect::<Vec<_>>(), tags);
            prop_assert_eq!((row.namespace, row.key, row.inline), (&namespace[..], &key[..], &inline[..]));
        }

        #[test]
        fn any_bytes_are_a_row_or_not(bytes in any::<Vec<u8>>()) {
            prop_assert!(Row::parse(&bytes).is_none());
        }
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let tags = [TagStamp { tag: [1; 16], stamp: 2 }];
        let mut bytes =
            written(NewRow { entry: entry(None), tags: &tags, namespace: b"n", key: b"k", inline: b"frame" });
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(Row::parse(&bytes).is_none(), "byte {at}, bit {bit}");
                bytes[at] ^= 1 << bit;
            }
            assert!(Row::parse(&bytes[..at]).is_none(), "the first {at} bytes");
        }
    }

    #[test]
    fn keys_are_taken_apart() {
        assert_eq!(name_in(&RowKey::entry(&[7; 32])), Some(&[7; 32]));
        assert_eq!(end_in(&RowKey::end(300, &[7; 32])), Some((300, &[7; 32])));
        assert!(*RowKey::end(255, &[9; 32]) < *RowKey::end(256, &[0; 32]));
    }
}
