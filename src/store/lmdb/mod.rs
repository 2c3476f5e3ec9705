//! LMDB behind a safe interface: one environment, its unnamed database, transactions that end with their scope.
//!
//! What the caller keeps: one [`Environment`] per file and process (LMDB's locks do not work with two), and none is used
//! in a forked child that inherited it.
#![allow(unsafe_code)]

mod environment;
mod tree;

pub(super) use environment::{Environment, Flags};
pub(super) use tree::fetch;

use environment::{Entered, FREE, UNNAMED};
use lmdb_master_sys as lmdb;
use std::ffi::{CStr, c_int};
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{NonNull, null_mut};
use tree::{Map, Tree};

/// LMDB's answer to a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(c_int);

impl Fault {
    pub(super) const NO_SPACE: Self = Self(libc::ENOSPC);

    /// The map has no page left.
    pub(super) fn is_full(self) -> bool {
        matches!(self.0, lmdb::MDB_MAP_FULL | lmdb::MDB_TXN_FULL)
    }

    /// The file cannot grow.
    pub(super) fn is_out_of_disk(self) -> bool {
        matches!(self.0, libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
    }

    /// A write was cut short, or the device failed.
    pub(super) fn is_input_output(self) -> bool {
        self.0 == libc::EIO
    }

    /// The environment has to be [opened anew](Environment::revive).
    pub(super) fn is_broken(self) -> bool {
        self.0 == lmdb::MDB_PANIC
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        if fault.0 > 0 {
            return Self::from_raw_os_error(fault.0);
        }
        // SAFETY: a constant string for every code below zero.
        let text = unsafe { CStr::from_ptr(lmdb::mdb_strerror(fault.0)) };
        let kind = if fault.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Self::new(kind, text.to_string_lossy())
    }
}

type Result<T> = std::result::Result<T, Fault>;

fn check(code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Fault(code)) }
}

/// What a transaction sees. What it returns is valid until the transaction ends or writes.
pub(super) struct View {
    txn: NonNull<lmdb::MDB_txn>,
    /// A write transaction belongs to its thread.
    owner: PhantomData<*mut ()>,
}

impl View {
    fn new(txn: NonNull<lmdb::MDB_txn>) -> Self {
        Self { txn, owner: PhantomData }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        let (mut key, mut found) = (value_of(key), value_of(&[]));
        // SAFETY: an open transaction; the bytes found live as long as it, or until it writes, which needs `&mut`.
        unsafe {
            match lmdb::mdb_get(self.txn.as_ptr(), UNNAMED, &raw mut key, &raw mut found) {
                lmdb::MDB_NOTFOUND => Ok(None),
                code => check(code).map(|()| Some(bytes_of(&found))),
            }
        }
    }

    /// Walks the rows from `key` on, in order of their keys, while `visit` says so.
    pub(super) fn walk<'v>(&'v self, key: &[u8], visit: impl FnMut(&'v [u8], &'v [u8]) -> bool) -> Result<()> {
        self.walk_in(UNNAMED, key, visit)
    }

    /// An empty key is before all others.
    fn walk_in<'v>(
        &'v self,
        database: lmdb::MDB_dbi,
        key: &[u8],
        mut visit: impl FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<()> {
        let mut cursor = null_mut();
        // SAFETY: the cursor lives in this function; the transaction does not write meanwhile, as it is borrowed.
        unsafe {
            check(lmdb::mdb_cursor_open(self.txn.as_ptr(), database, &raw mut cursor))?;
            let (mut key, mut row) = (value_of(key), value_of(&[]));
            let mut step = if key.mv_size == 0 { lmdb::MDB_FIRST } else { lmdb::MDB_SET_RANGE };
            let ended = loop {
                match lmdb::mdb_cursor_get(cursor, &raw mut key, &raw mut row, step) {
                    0 if visit(bytes_of(&key), bytes_of(&row)) => step = lmdb::MDB_NEXT,
                    0 | lmdb::MDB_NOTFOUND => break Ok(()),
                    code => break Err(Fault(code)),
                }
            };
            lmdb::mdb_cursor_close(cursor);
            ended
        }
    }

    /// How many pages of the file the next writer may use, as long as no other snapshot is older. Not of a [`Writing`].
    pub(super) fn free_pages(&self) -> Result<usize> {
        let newest = self.transaction() as usize;
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |number| usize::from_ne_bytes(*number));
        let mut pages = 0;
        // A row for each transaction that freed pages: their number, then theirs.
        self.walk_in(FREE, &[], |freed_by, row| {
            let usable = number(freed_by) < newest;
            pages += if usable { number(row) } else { 0 };
            usable
        })?;
        Ok(pages)
    }

    /// The number of the transaction that is read, or written.
    fn transaction(&self) -> u64 {
        // SAFETY: an open transaction.
        (unsafe { lmdb::mdb_txn_id(self.txn.as_ptr()) }) as u64
    }

    fn page_size(&self) -> Result<usize> {
        Ok(self.stat()?.ms_psize as usize)
    }

    /// Bytes of the pages that hold rows, and how many rows there are.
    pub(super) fn usage(&self) -> Result<(u64, u64)> {
        let stat = self.stat()?;
        let pages = stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        Ok((pages as u64 * u64::from(stat.ms_psize), stat.ms_entries as u64))
    }

    fn stat(&self) -> Result<lmdb::MDB_stat> {
        let mut stat = lmdb::MDB_stat {
            ms_psize: 0,
            ms_depth: 0,
            ms_branch_pages: 0,
            ms_leaf_pages: 0,
            ms_overflow_pages: 0,
            ms_entries: 0,
        };
        // SAFETY: an open transaction, room for the answer.
        check(unsafe { lmdb::mdb_stat(self.txn.as_ptr(), UNNAMED, &raw mut stat) })?;
        Ok(stat)
    }
}

fn value_of(bytes: &[u8]) -> lmdb::MDB_val {
    lmdb::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr().cast_mut().cast() }
}

/// # Safety
/// As LMDB filled it in, and for as long as LMDB keeps it.
unsafe fn bytes_of<'v>(value: &lmdb::MDB_val) -> &'v [u8] {
    if value.mv_size == 0 {
        return &[];
    }
    // SAFETY: the caller's guarantee.
    unsafe { std::slice::from_raw_parts(value.mv_data.cast(), value.mv_size) }
}

/// A snapshot. It is short: pages that it sees cannot be used again while it lives.
pub(super) struct Reading<'e> {
    view: View,
    env: Entered<'e>,
    /// Its rows, where they can be found without LMDB.
    tree: Option<Tree<'e>>,
}

impl<'e> Reading<'e> {
    fn new(view: View, env: Entered<'e>) -> Self {
        let tree = env.map.get().and_then(|map| map.tree(view.transaction()));
        Self { view, env, tree }
    }

    /// As [`View::get`].
    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        let [row] = self.get_each([key])?;
        Ok(row)
    }

    /// As [`Self::get`] for several keys, in less time than one after the other.
    #[inline]
    pub(super) fn get_each<const N: usize>(&self, keys: [&[u8]; N]) -> Result<[Option<&[u8]>; N]> {
        if let Some(rows) = self.tree.as_ref().and_then(|tree| tree.find(keys)) {
            return Ok(rows);
        }
        let mut rows = [None; N];
        for (row, key) in rows.iter_mut().zip(keys) {
            *row = self.get_by_lmdb(key)?;
        }
        Ok(rows)
    }

    fn get_by_lmdb(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        let found = self.view.get(key)?;
        if let Some(row) = found
            && self.env.map.get().is_none()
        {
            // SAFETY: a row that was just returned by this transaction, which only reads.
            self.env.map.set(unsafe { Map::around(row, self.view.page_size()?) });
        }
        Ok(found)
    }
}

impl Deref for Reading<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // SAFETY: its last use here; a reset transaction holds no snapshot.
        unsafe { lmdb::mdb_txn_reset(self.view.txn.as_ptr()) };
        self.env.idle = Some(self.view.txn);
    }
}

/// The transaction that writes; it is undone where it is dropped.
pub(super) struct Writing<'e> {
    view: View,
    _env: Entered<'e>,
    open: bool,
}

impl Deref for Writing<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Writing<'_> {
    pub(super) fn put(&mut self, key: &[u8], row: &[u8]) -> Result<()> {
        self.put_with(key, row.len(), |room| room.copy_from_slice(row))
    }

    /// Writes a row of `len` bytes where it stays: `fill` is given the room, whose content is undefined.
    pub(super) fn put_with(&mut self, key: &[u8], len: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut key = value_of(key);
        let mut room = lmdb::MDB_val { mv_size: len, mv_data: null_mut() };
        // SAFETY: a reserved row is memory of a dirty page that is ours until the next call. LMDB's pages are
        // initialized memory (read from the file, or zeroed by its allocator without MDB_NOMEMINIT).
        unsafe {
            let txn = self.view.txn.as_ptr();
            check(lmdb::mdb_put(txn, UNNAMED, &raw mut key, &raw mut room, lmdb::MDB_RESERVE))?;
            if len > 0 {
                fill(std::slice::from_raw_parts_mut(room.mv_data.cast(), len));
            }
        }
        Ok(())
    }

    /// Removes a row; whether there was one.
    pub(super) fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let mut key = value_of(key);
        // SAFETY: an open transaction.
        match unsafe { lmdb::mdb_del(self.view.txn.as_ptr(), UNNAMED, &raw mut key, null_mut()) } {
            lmdb::MDB_NOTFOUND => Ok(false),
            code => check(code).map(|()| true),
        }
    }

    /// Makes what was written visible to readers, all of it at once.
    pub(super) fn commit(mut self) -> Result<()> {
        self.open = false;
        // SAFETY: open until now; LMDB ends it whatever the answer.
        check(unsafe { lmdb::mdb_txn_commit(self.view.txn.as_ptr()) })
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.open {
            // SAFETY: not committed.
            unsafe { lmdb::mdb_txn_abort(self.view.txn.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    pub(super) fn open(directory: &tempfile::TempDir, map_size: usize, max_readers: u32) -> Environment {
        let path = CString::new(directory.path().join("index").to_str().unwrap()).unwrap();
        let flags = Flags { read_only: false, synchronous: false, write_map: false };
        Environment::open(path, map_size, max_readers, flags).unwrap()
    }

    #[test]
    fn a_snapshot_does_not_see_what_is_written_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let env = open(&directory, 1 << 20, 16);
        let before = env.read().unwrap();
        let mut writing = env.write().unwrap();
        writing.put(b"a", b"1").unwrap();
        assert_eq!(writing.get(b"a"), Ok(Some(b"1".as_slice())));
        writing.commit().unwrap();
        assert_eq!(before.get(b"a"), Ok(None));
        assert_eq!(env.read().unwrap().get(b"a"), Ok(Some(b"1".as_slice())));
    }

    #[test]
    fn a_dropped_transaction_wrote_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let env = open(&directory, 1 << 20, 16);
        env.write().unwrap().put(b"a", b"1").unwrap();
        assert_eq!(env.read().unwrap().get(b"a"), Ok(None));
    }

    #[test]
    fn rows_are_walked_in_order_from_a_key_on() {
        let directory = tempfile::tempdir().unwrap();
        let env = open(&directory, 1 << 20, 16);
        let mut writing = env.write().unwrap();
        for key in [b"c", b"a", b"d", b"b"] {
            writing.put(key, key).unwrap();
        }
        assert_eq!((writing.delete(b"c"), writing.delete(b"c")), (Ok(true), Ok(false)));
        let mut seen = Vec::new();
        writing
            .walk(b"b", |key, _| {
                seen.push(key[0]);
                seen.len() < 2
            })
            .unwrap();
        assert_eq!(seen, b"bd");
    }

    #[test]
    fn a_full_map_is_an_error_that_leaves_it_usable() {
        let directory = tempfile::tempdir().unwrap();
        let env = open(&directory, 1 << 16, 16);
        let mut writing = env.write().unwrap();
        let fault = (0u32..1000).find_map(|n| writing.put(&n.to_be_bytes(), &[7; 1000]).err()).unwrap();
        assert!(fault.is_full());
        drop(writing);
        let mut writing = env.write().unwrap();
        writing.put(b"a", b"1").unwrap();
        writing.commit().unwrap();
        assert_eq!(env.read().unwrap().get(b"a"), Ok(Some(b"1".as_slice())));
    }

    #[test]
    fn readers_reuse_their_slots() {
        let directory = tempfile::tempdir().unwrap();
        let env = open(&directory, 1 << 20, 2);
        for _ in 0..100 {
            let (_first, _second) = (env.read().unwrap(), env.read().unwrap());
            assert_eq!(env.read().err().map(|fault| fault.0), Some(lmdb::MDB_READERS_FULL));
        }
    }
}
