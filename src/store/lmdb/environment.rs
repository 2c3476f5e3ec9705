//! An index file that is open in this process, and opened anew where LMDB cannot go on.

use super::tree::Map;
use super::{Fault, Reading, Result, View, Writing, bytes_of, check};
use lmdb_master_sys as lmdb;
use std::cell::Cell;
use std::ffi::{CString, c_int, c_uint};
use std::ptr::{NonNull, null_mut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many idle read transactions are kept; each holds a slot of the reader table.
const IDLE: usize = 64;

/// LMDB's handle of the database of free pages, and of the unnamed one.
pub(super) const FREE: lmdb::MDB_dbi = 0;
pub(super) const UNNAMED: lmdb::MDB_dbi = 1;

/// How an environment is opened.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Flags {
    pub(in super::super) read_only: bool,
    /// Every commit reaches the disk before it returns.
    pub(in super::super) synchronous: bool,
    /// Pages are changed in the mapping; the file must be allocated whole.
    pub(in super::super) write_map: bool,
}

/// What an environment is opened with.
#[derive(Debug)]
struct Opening {
    path: CString,
    map_size: usize,
    max_readers: u32,
    flags: Flags,
}

/// An open index file and its lock file.
#[derive(Debug)]
pub(in super::super) struct Environment {
    opening: Opening,
    state: Mutex<State>,
    /// Told when the last transaction ends, if somebody waits for that.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None` where opening it again failed.
    env: Option<NonNull<lmdb::MDB_env>>,
    /// Where it is mapped, once a row was found.
    map: Option<Map>,
    /// Read transactions that were reset; never more than [`IDLE`], so that keeping one allocates nothing.
    idle: Vec<NonNull<lmdb::MDB_txn>>,
    /// Transactions that are in use.
    open: usize,
    /// Whether somebody waits for them to end, so that none may begin.
    closing: bool,
}

// SAFETY: LMDB's environments are for all threads of a process; with MDB_NOTLS, so are its read transactions.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

impl Opening {
    fn open(&self) -> Result<NonNull<lmdb::MDB_env>> {
        let mut bits = lmdb::MDB_NOSUBDIR | lmdb::MDB_NOTLS | lmdb::MDB_NORDAHEAD;
        for (wanted, bit) in [
            (self.flags.read_only, lmdb::MDB_RDONLY),
            (!self.flags.synchronous, lmdb::MDB_NOSYNC),
            (self.flags.write_map, lmdb::MDB_WRITEMAP),
        ] {
            bits |= if wanted { bit } else { 0 };
        }
        let mut env = null_mut();
        // SAFETY: an environment is made, set up and opened once, by this thread; a failed one must be closed.
        unsafe {
            check(lmdb::mdb_env_create(&raw mut env))?;
            let opened = (|| {
                check(lmdb::mdb_env_set_mapsize(env, self.map_size))?;
                check(lmdb::mdb_env_set_maxreaders(env, self.max_readers))?;
                check(lmdb::mdb_env_open(env, self.path.as_ptr(), bits, 0o600))?;
                let (mut txn, mut dbi) = (null_mut(), 0);
                check(lmdb::mdb_txn_begin(env, null_mut(), lmdb::MDB_RDONLY, &raw mut txn))?;
                let found = check(lmdb::mdb_dbi_open(txn, std::ptr::null(), 0, &raw mut dbi))
                    .and_then(|()| check(lmdb::mdb_set_compare(txn, dbi, Some(compare))));
                lmdb::mdb_txn_abort(txn);
                debug_assert_eq!(dbi, UNNAMED);
                found
            })();
            match (opened, NonNull::new(env)) {
                (Ok(()), Some(env)) => Ok(env),
                (opened, _) => {
                    lmdb::mdb_env_close(env);
                    Err(opened.err().unwrap_or(Fault(libc::ENOMEM)))
                }
            }
        }
    }
}

/// The order that LMDB has by itself, of bytes; most keys differ in their first eight.
unsafe extern "C" fn compare(one: *const lmdb::MDB_val, other: *const lmdb::MDB_val) -> c_int {
    // SAFETY: LMDB hands over keys that live for as long as this call.
    let (one, other) = unsafe { (&*one, &*other) };
    if one.mv_size >= 8 && other.mv_size >= 8 {
        // SAFETY: as long as that; keys stand anywhere.
        let [first, second] =
            unsafe { [one, other].map(|key| u64::from_be(key.mv_data.cast::<u64>().read_unaligned())) };
        if first != second {
            return if first < second { -1 } else { 1 };
        }
    }
    // SAFETY: as above.
    unsafe { bytes_of(one).cmp(bytes_of(other)) as c_int }
}

impl State {
    /// Ends the environment; no transaction is in use.
    fn close(&mut self) {
        let Some(env) = self.env.take() else { return };
        self.map = None;
        // SAFETY: only idle transactions are left, and nobody can get at the environment any more.
        unsafe {
            for txn in self.idle.drain(..) {
                lmdb::mdb_txn_abort(txn.as_ptr());
            }
            lmdb::mdb_env_close(env.as_ptr());
        }
    }
}

impl Environment {
    /// Opens `path`, a file, and `path` with `-lock` beside it, creating them.
    pub(in super::super) fn open(path: CString, map_size: usize, max_readers: u32, flags: Flags) -> Result<Self> {
        let opening = Opening { path, map_size, max_readers, flags };
        let state =
            State { env: Some(opening.open()?), map: None, idle: Vec::with_capacity(IDLE), open: 0, closing: false };
        Ok(Self { opening, state: Mutex::new(state), ended: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The environment, which stays open until what is returned is dropped.
    fn enter(&self) -> Result<Entered<'_>> {
        let mut state = self.state();
        let env = state.env.filter(|_| !state.closing).ok_or(Fault(lmdb::MDB_PANIC))?;
        state.open += 1;
        let (idle, map) = (state.idle.pop(), Cell::new(state.map));
        drop(state);
        Ok(Entered { owner: self, env, idle, map })
    }

    /// A snapshot to read from.
    pub(in super::super) fn read(&self) -> Result<Reading<'_>> {
        let mut env = self.enter()?;
        if let Some(txn) = env.idle.take() {
            // SAFETY: reset, and nobody else's since it was taken from the list.
            match check(unsafe { lmdb::mdb_txn_renew(txn.as_ptr()) }) {
                Ok(()) => return Ok(Reading::new(View::new(txn), env)),
                // SAFETY: as above; it is not used again.
                Err(_) => unsafe { lmdb::mdb_txn_abort(txn.as_ptr()) },
            }
        }
        let txn = env.begin(lmdb::MDB_RDONLY).or_else(|fault| {
            if fault.0 != lmdb::MDB_READERS_FULL {
                return Err(fault);
            }
            env.clear_dead_readers()?;
            env.begin(lmdb::MDB_RDONLY)
        })?;
        Ok(Reading::new(View::new(txn), env))
    }

    /// The one transaction that writes. Waits for LMDB's own mutex, without a limit: the caller holds a lock that every
    /// writer takes first.
    pub(in super::super) fn write(&self) -> Result<Writing<'_>> {
        let env = self.enter()?;
        Ok(Writing { view: View::new(env.begin(0)?), _env: env, open: true })
    }

    /// Frees the slots of readers that died; returns how many.
    pub(in super::super) fn clear_dead_readers(&self) -> Result<usize> {
        self.enter()?.clear_dead_readers()
    }

    /// Bytes of the file that a committed transaction may have used; what is behind them is room.
    pub(in super::super) fn end(&self) -> Result<u64> {
        let entered = self.enter()?;
        let mut stat = std::mem::MaybeUninit::<lmdb::MDB_stat>::uninit();
        let mut info = std::mem::MaybeUninit::<lmdb::MDB_envinfo>::uninit();
        // SAFETY: the environment is open; each call fills in what it is given if it succeeds.
        unsafe {
            check(lmdb::mdb_env_stat(entered.env.as_ptr(), stat.as_mut_ptr()))?;
            check(lmdb::mdb_env_info(entered.env.as_ptr(), info.as_mut_ptr()))?;
            Ok((info.assume_init().me_last_pgno as u64 + 1) * u64::from(stat.assume_init().ms_psize))
        }
    }

    /// Opens the file anew where LMDB cannot go on, since it could not write where the newest state is ([`Fault::is_broken`]
    /// is its answer to everything then). Waits up to `timeout` for other threads' transactions to end.
    pub(in super::super) fn revive(&self, timeout: Duration) -> Result<()> {
        let broken = self.read().err().filter(|fault| fault.is_broken());
        if broken.is_none() {
            return Ok(());
        }
        let mut state = self.state();
        if state.closing {
            // Another thread is at it.
            let waited = self.ended.wait_timeout_while(state, timeout, |state| state.closing);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            return if state.closing { Err(Fault(lmdb::MDB_PANIC)) } else { Ok(()) };
        }
        state.closing = true;
        let waited = self.ended.wait_timeout_while(state, timeout, |state| state.open > 0);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let opened = if state.open > 0 {
            Err(Fault(lmdb::MDB_PANIC))
        } else {
            state.close();
            self.opening.open().map(|env| state.env = Some(env))
        };
        state.closing = false;
        drop(state);
        self.ended.notify_all();
        opened
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Transactions borrow the environment, so that none is in use.
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).close();
    }
}

/// An environment that is not closed meanwhile.
pub(super) struct Entered<'e> {
    owner: &'e Environment,
    env: NonNull<lmdb::MDB_env>,
    /// A reset transaction to be kept for the next reader.
    pub(super) idle: Option<NonNull<lmdb::MDB_txn>>,
    /// Where it is mapped, if that is known.
    pub(super) map: Cell<Option<Map>>,
}

impl Entered<'_> {
    fn begin(&self, flags: c_uint) -> Result<NonNull<lmdb::MDB_txn>> {
        let mut txn = null_mut();
        // SAFETY: the environment is open.
        check(unsafe { lmdb::mdb_txn_begin(self.env.as_ptr(), null_mut(), flags, &raw mut txn) })?;
        NonNull::new(txn).ok_or(Fault(libc::ENOMEM))
    }

    fn clear_dead_readers(&self) -> Result<usize> {
        let mut dead = 0;
        // SAFETY: the environment is open.
        check(unsafe { lmdb::mdb_reader_check(self.env.as_ptr(), &raw mut dead) })?;
        Ok(dead.unsigned_abs() as usize)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.owner.state();
        match self.idle {
            Some(txn) if state.idle.len() < IDLE => state.idle.push(txn),
            // SAFETY: nobody else has it, and its environment is open.
            Some(txn) => unsafe { lmdb::mdb_txn_abort(txn.as_ptr()) },
            None => {}
        }
        state.map = self.map.get().or(state.map);
        state.open -= 1;
        let last = state.closing && state.open == 0;
        drop(state);
        if last {
            self.owner.ended.notify_all();
        }
    }
}
