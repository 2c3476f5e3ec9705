//! Lookups in the pages of a snapshot: what `mdb_get` does in half of its instructions, and for several keys side by side,
//! so that one waits for memory while another goes on.
//!
//! LMDB says what the snapshot is and keeps its pages as they are; here they are only read, as version 1 of its file format
//! has them. Whatever is not as expected is left to LMDB.

use std::hint::select_unpredictable;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page: what LMDB makes of them where the system's have as many.
const PAGE: usize = 4096;
/// Bytes of a page before its array of places, and of a node before its key.
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
/// What the first two pages begin with, behind their header: a magic number and the version, each of 32 bits.
const MAGIC: u64 = 0xBEEF_C0DE | 1 << 32;
/// Kinds of pages.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// The one flag of a node that is known here: its value has pages of its own.
const BIG: u16 = 1;
/// The root of an empty tree.
const NO_PAGE: u64 = u64::MAX;
/// No tree is deeper, in LMDB.
const DEEPEST: usize = 32;

/// Has the processor begin to read the first KiB of a row, which is more than it does unasked.
#[inline]
pub(in super::super) fn fetch(row: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..row.len().min(1024).div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(64 * line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Where an environment's file is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map(NonNull<[u8; PAGE]>);

/// Words of the page that describes a snapshot.
#[derive(Clone, Copy)]
enum Meta {
    Magic = PAGE_HEADER as isize,
    PageSize = PAGE_HEADER as isize + 24,
    /// Of the unnamed database: padding of 32 bits, flags, depth.
    Flags = PAGE_HEADER as isize + 72,
    Root = PAGE_HEADER as isize + 112,
    LastPage = PAGE_HEADER as isize + 120,
    Transaction = PAGE_HEADER as isize + 128,
}

impl Map {
    /// The mapping that LMDB, whose pages have `page_size` bytes, returned `row` from; `None` where it is not one that is
    /// understood here.
    ///
    /// # Safety
    /// `row` was returned by a transaction that only reads and is still open.
    pub(super) unsafe fn around(row: &[u8], page_size: usize) -> Option<Self> {
        if !cfg!(all(target_pointer_width = "64", target_endian = "little")) || page_size != PAGE {
            return None;
        }
        // Mappings are aligned to 4096 bytes at least. This is the page that the row, or its first part, is in.
        let page = row.as_ptr().map_addr(|address| address & !(PAGE - 1));
        // SAFETY: it begins with its number, which says how far it is from the start of the mapping. LMDB relies on the
        // numbers in its pages too.
        let base = page.wrapping_sub(unsafe { page.cast::<u64>().read() }.wrapping_mul(PAGE as u64) as usize);
        let map = Self(NonNull::new(base.cast_mut().cast())?);
        let is_known = map.word(0, Meta::Magic) == MAGIC && map.word(0, Meta::PageSize) as u32 == PAGE as u32;
        is_known.then_some(map)
    }

    /// A word of the page that a transaction was described in.
    fn word(&self, transaction: u64, word: Meta) -> u64 {
        // SAFETY: in the first two pages, which are mapped for as long as the environment is open; others write to them.
        unsafe {
            let page = self.0.as_ptr().add((transaction & 1) as usize).cast::<u8>();
            AtomicU64::from_ptr(page.add(word as usize).cast()).load(Ordering::Acquire)
        }
    }

    /// The tree of the snapshot that a transaction made, for as long as somebody reads that; `None` where its description
    /// may have been written over.
    pub(super) fn tree<'t>(&self, transaction: u64) -> Option<Tree<'t>> {
        let word = |word| self.word(transaction, word);
        let (root, pages) = (word(Meta::Root), word(Meta::LastPage).checked_add(1)?);
        let is_plain = word(Meta::Flags) >> 32 & 0xffff == 0;
        // The next transaction but one writes over it, and only when the next one is described in the other page.
        let is_newest = word(Meta::Transaction) == transaction
            && self.word(transaction.wrapping_add(1), Meta::Transaction) <= transaction;
        (is_plain && is_newest).then_some(Tree { map: *self, root, pages, snapshot: PhantomData })
    }
}

/// The rows of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree<'t> {
    map: Map,
    root: u64,
    /// How many pages there are.
    pages: u64,
    snapshot: PhantomData<&'t [u8]>,
}

/// A key that is looked for, and its first eight bytes as a number.
#[derive(Clone, Copy)]
struct Key<'k> {
    bytes: &'k [u8],
    head: u64,
}

/// A page of a tree.
#[derive(Clone, Copy)]
struct Page<'t>(&'t [u8; PAGE]);

/// A row, or its place among pages.
struct Node<'t> {
    /// 32 bits of size or page, flags (or 16 bits more), the length of the key.
    header: [u8; NODE_HEADER],
    /// The key, and what follows it.
    rest: &'t [u8],
}

impl<'t> Tree<'t> {
    /// The rows of `keys`, which go down from the root together; `None` where LMDB has to be asked.
    #[inline]
    pub(super) fn find<const N: usize>(&self, keys: [&[u8]; N]) -> Option<[Option<&'t [u8]>; N]> {
        let mut rows = [None; N];
        if self.root == NO_PAGE {
            return Some(rows);
        }
        let keys = keys.map(Key::of);
        let mut pages = [self.page(self.root)?; N];
        for _ in 0..DEEPEST {
            let kind = pages.first()?.kind();
            if kind != BRANCH && kind != LEAF || pages.iter().any(|page| page.kind() != kind) {
                return None;
            }
            let nodes = last_at_most(&pages, &keys)?;
            if kind == LEAF {
                for ((row, node), key) in rows.iter_mut().zip(nodes).zip(&keys) {
                    *row = node.map_or(Some(None), |node| self.row(&node, key))?;
                }
                return Some(rows);
            }
            for (page, node) in pages.iter_mut().zip(nodes) {
                *page = self.page(node?.child())?;
            }
        }
        None
    }

    #[inline]
    fn page(&self, number: u64) -> Option<Page<'t>> {
        // SAFETY: LMDB maps the file to its last page, and more; nobody writes to pages of a snapshot that is read.
        (number < self.pages).then(|| Page(unsafe { &*self.map.0.as_ptr().add(number as usize) }))
    }

    /// `size` bytes behind the header of a page, and in those that follow it.
    fn big(&self, number: u64, size: usize) -> Option<&'t [u8]> {
        let pages = (PAGE_HEADER + size).div_ceil(PAGE) as u64;
        if number.checked_add(pages)? > self.pages {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe {
            std::slice::from_raw_parts(self.map.0.as_ptr().add(number as usize).cast::<u8>().add(PAGE_HEADER), size)
        })
    }

    /// What follows a node's key, if that is `key`.
    #[inline]
    fn row(&self, node: &Node<'t>, key: &Key<'_>) -> Option<Option<&'t [u8]>> {
        if node.key()? != key.bytes {
            return Some(None);
        }
        let value = &node.rest[key.bytes.len()..];
        match node.short(4) {
            0 => value.get(..node.size()).map(Some),
            BIG => self.big(u64::from_le_bytes(*value.first_chunk()?), node.size()).map(Some),
            _ => None,
        }
    }
}

/// Of each page the last node whose key is not after the one of `keys`; the first node is not looked at, as that of a branch
/// has no key. `None` where a page is damaged.
#[inline]
fn last_at_most<'t, const N: usize>(pages: &[Page<'t>; N], keys: &[Key<'_>; N]) -> Option<[Option<Node<'t>>; N]> {
    let mut searches = [Search { nodes: &[], last: 0, left: 0 }; N];
    for (search, page) in searches.iter_mut().zip(pages) {
        search.nodes = page.nodes()?;
        search.left = search.nodes.len();
    }
    // A step of each in turn: none of them waits for what another one reads.
    while searches.iter().any(|search| search.left > 1) {
        for ((search, page), key) in searches.iter_mut().zip(pages).zip(keys) {
            let half = search.left / 2;
            let middle = search.last + half;
            let before = page.head(*search.nodes.get(middle)?) <= key.head;
            if N > 1 {
                // As a branch, half of these would be mispredicted.
                search.last = select_unpredictable(before, middle, search.last);
            } else if before {
                // Alone, what is guessed right is read ahead.
                search.last = middle;
            }
            search.left -= half;
        }
    }
    let mut found = [const { None }; N];
    for (((found, search), page), key) in found.iter_mut().zip(&searches).zip(pages).zip(keys) {
        let Search { nodes, mut last, .. } = *search;
        // Other keys may begin with the same eight bytes.
        while last > 0 && page.head(nodes[last]) == key.head && page.node(nodes[last])?.key()? > key.bytes {
            last -= 1;
        }
        *found = nodes.get(last).map_or(Some(None), |node| page.node(*node).map(Some))?;
    }
    Some(found)
}

/// A binary search that is under way.
#[derive(Clone, Copy)]
struct Search<'t> {
    nodes: &'t [[u8; 2]],
    /// The last one that is known not to be after the key.
    last: usize,
    /// How many may be the one, from that one on.
    left: usize,
}

impl<'k> Key<'k> {
    #[inline]
    fn of(bytes: &'k [u8]) -> Self {
        Self { bytes, head: head_of(bytes) }
    }
}

/// The first eight bytes as a number, with zeros behind what is shorter: where two differ, their keys are in their order.
#[inline]
fn head_of(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => key.iter().rev().fold(0, |head, byte| head >> 8 | u64::from(*byte) << 56),
    }
}

impl<'t> Page<'t> {
    fn short(self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn kind(self) -> u16 {
        self.short(10)
    }

    /// The places of its nodes, in the order of their keys.
    fn nodes(self) -> Option<&'t [[u8; 2]]> {
        self.0.get(PAGE_HEADER..usize::from(self.short(12))).map(|places| places.as_chunks().0)
    }

    fn node(self, place: [u8; 2]) -> Option<Node<'t>> {
        let (header, rest) = self.0.get(usize::from(u16::from_le_bytes(place))..)?.split_first_chunk()?;
        Some(Node { header: *header, rest })
    }

    /// The [head](head_of) of a node's key.
    #[inline]
    fn head(self, place: [u8; 2]) -> u64 {
        let at = usize::from(u16::from_le_bytes(place));
        if let Some([.., low, high, a, b, c, d, e, f, g, h]) =
            self.0.get(at..).and_then(|node| node.first_chunk::<{ NODE_HEADER + 8 }>())
            && u16::from_le_bytes([*low, *high]) >= 8
        {
            return u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        }
        self.short_head(place)
    }

    #[cold]
    fn short_head(self, place: [u8; 2]) -> u64 {
        self.node(place).and_then(|node| node.key()).map_or(0, head_of)
    }
}

impl<'t> Node<'t> {
    fn key(&self) -> Option<&'t [u8]> {
        self.rest.get(..self.key_length())
    }

    fn short(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.header[at], self.header[at + 1]])
    }

    fn key_length(&self) -> usize {
        usize::from(self.short(6))
    }

    fn size(&self) -> usize {
        usize::from(self.short(0)) | usize::from(self.short(2)) << 16
    }

    fn child(&self) -> u64 {
        self.size() as u64 | u64::from(self.short(4)) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rows_are_those_that_lmdb_finds(
            rows in btree_map(vec(0..4u8, 1..20), (any::<u8>(), 0..9000usize), 1..200),
            others in vec(vec(0..5u8, 1..20), 100),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let env = open(&directory, 1 << 24, 16);
            let mut writing = env.write().unwrap();
            for (key, (byte, length)) in &rows {
                writing.put(key, &vec![*byte; *length]).unwrap();
            }
            writing.commit().unwrap();
            let reading = env.read().unwrap();
            let any = reading.view.get(rows.keys().next().unwrap()).unwrap().unwrap();
            // SAFETY: a row of a transaction that is open.
            let map = unsafe { Map::around(any, reading.view.page_size().unwrap()) }.unwrap();
            let tree = map.tree(reading.transaction()).unwrap();
            for key in rows.keys().chain(&others) {
                prop_assert_eq!(tree.find([key]), Some([reading.view.get(key).unwrap()]));
            }
            // A description that may be written over is not looked at.
            env.write().unwrap().commit().unwrap();
            prop_assert!(map.tree(reading.transaction()).is_some());
            for expected in [false, false] {
                let mut writing = env.write().unwrap();
                writing.put(b"new", b"").unwrap();
                writing.commit().unwrap();
                prop_assert_eq!(map.tree(reading.transaction()).is_some(), expected);
            }
            drop(reading);
            prop_assert_eq!(map.tree(env.read().unwrap().transaction()).unwrap().find([b"new"]), Some([Some(&[][..])]));
        }
    }
}
