//! An entry in one allocation: times and value, then the bytes of its guards and of its key.
#![allow(unsafe_code)]

use crate::epoch::Guard;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The bytes of a guard.
const GUARD: usize = 6;
/// What memory is handed out in, and what weights are counted in.
pub(super) const UNIT: usize = 16;
/// The time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// What an entry consists of; times are monotonic milliseconds but for `created`.
pub(super) struct Parts<'a, V> {
    pub(super) key: &'a [u8],
    pub(super) guards: &'a [u8],
    pub(super) value: V,
    /// Bytes behind `value`.
    pub(super) bytes: usize,
    /// Milliseconds since 1970.
    pub(super) created: u64,
    pub(super) deadline: u64,
    pub(super) until: u64,
}

/// A counted reference to an entry, of the size of a pointer. Equal and hashed by its key.
pub(super) struct Record<V>(NonNull<Head<V>>, PhantomData<Head<V>>);

/// What the bytes of guards and key follow, from [`Record::TAIL`] on: right after the last field, in its padding too.
#[repr(C)]
struct Head<V> {
    owners: AtomicU32,
    /// In [`UNIT`]s, all in all.
    weight: u32,
    deadline: AtomicU64,
    until: u64,
    created: u64,
    value: V,
    key: u32,
    guards: u16,
}

// SAFETY: nothing but the count and the deadline changes while there are references, and both are atomic.
unsafe impl<V: Send + Sync> Send for Record<V> {}
// SAFETY: as above.
unsafe impl<V: Send + Sync> Sync for Record<V> {}

impl<V> Record<V> {
    const TAIL: usize = offset_of!(Head<V>, guards) + size_of::<u16>();

    /// `None` where a part is larger than an entry's can be: a key of 4 GiB, 10,922 guards, 64 GiB in all.
    pub(super) fn new(parts: Parts<'_, V>) -> Option<Self> {
        let (key, guards) = (u32::try_from(parts.key.len()).ok()?, u16::try_from(parts.guards.len()).ok()?);
        let layout = Self::layout(parts.key.len(), parts.guards.len())?;
        // The allocator keeps a word of its own with each allocation.
        let bytes = layout.size().checked_add(size_of::<usize>())?.div_ceil(UNIT) + parts.bytes.div_ceil(UNIT);
        let weight = u32::try_from(bytes).ok()?;
        let Parts { value, created, deadline, until, .. } = parts;
        let deadline = AtomicU64::new(deadline);
        let head = Head { owners: AtomicU32::new(1), weight, deadline, until, created, value, key, guards };
        // SAFETY: the layout is not empty; it has room for the head, and for guards and key after `TAIL`. The head is
        // written whole before them and never again.
        unsafe {
            let Some(memory) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            memory.cast::<Head<V>>().write(head);
            let tail = memory.add(Self::TAIL);
            tail.copy_from_nonoverlapping(NonNull::from(parts.guards).cast(), parts.guards.len());
            tail.add(parts.guards.len()).copy_from_nonoverlapping(NonNull::from(parts.key).cast(), parts.key.len());
            Some(Self(memory.cast(), PhantomData))
        }
    }

    fn layout(key: usize, guards: usize) -> Option<Layout> {
        let size = Self::TAIL.checked_add(key)?.checked_add(guards)?.max(size_of::<Head<V>>());
        Layout::from_size_align(size, align_of::<Head<V>>()).ok()
    }

    #[inline]
    fn head(&self) -> &Head<V> {
        // SAFETY: alive and initialized as long as there is a reference.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn tail(&self, start: usize, len: usize) -> &[u8] {
        // SAFETY: `new` wrote guards and key there, `start + len` of them at the least.
        unsafe { std::slice::from_raw_parts(self.0.cast::<u8>().as_ptr().add(Self::TAIL + start), len) }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        let head = self.head();
        self.tail(usize::from(head.guards), head.key as usize)
    }

    #[inline]
    pub(super) fn guards(&self) -> impl Iterator<Item = Guard> {
        let bytes = self.tail(0, usize::from(self.head().guards));
        bytes.as_chunks::<GUARD>().0.iter().map(|guard| Guard::from_bytes(*guard))
    }

    #[inline]
    pub(super) fn value(&self) -> &V {
        &self.head().value
    }

    #[inline]
    pub(super) fn deadline(&self) -> u64 {
        self.head().deadline.load(Ordering::Relaxed)
    }

    pub(super) fn set_deadline(&self, deadline: u64) {
        self.head().deadline.store(deadline, Ordering::Relaxed);
    }

    pub(super) fn until(&self) -> u64 {
        self.head().until
    }

    pub(super) fn created(&self) -> u64 {
        self.head().created
    }

    /// In [`UNIT`]s, all in all.
    #[inline]
    pub(super) fn weight(&self) -> u32 {
        self.head().weight
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<V> Clone for Record<V> {
    fn clone(&self) -> Self {
        // Clones live on the stacks of this module: there are never 2^32 of them.
        self.head().owners.fetch_add(1, Ordering::Relaxed);
        Self(self.0, PhantomData)
    }
}

impl<V> Drop for Record<V> {
    fn drop(&mut self) {
        if self.head().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let (key, guards) = (self.head().key as usize, usize::from(self.head().guards));
        // SAFETY: the last reference; the value is dropped once, the memory freed with the layout it was made with.
        unsafe {
            ptr::drop_in_place(&raw mut (*self.0.as_ptr()).value);
            if let Some(layout) = Self::layout(key, guards) {
                dealloc(self.0.cast().as_ptr(), layout);
            }
        }
    }
}

impl<V> PartialEq for Record<V> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<V> Eq for Record<V> {}

impl<V> Hash for Record<V> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key());
    }
}
