//! Owned references on the stack of a parser.
#![allow(unsafe_code)]

use pyo3::ffi;
use std::cell::Cell;
use std::ptr::NonNull;

/// A new reference, given back when dropped. The size of a pointer, never null.
#[repr(transparent)]
pub(crate) struct Owned(NonNull<ffi::PyObject>);

impl Owned {
    /// Takes over a new reference; `None` for null, after which a Python exception is set.
    ///
    /// # Safety
    /// Attached; `object` is null or a new reference.
    #[inline]
    pub(crate) unsafe fn new(object: *mut ffi::PyObject) -> Option<Self> {
        NonNull::new(object).map(Self)
    }

    /// Another reference to a borrowed object.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline]
    pub(crate) unsafe fn borrowed(object: NonNull<ffi::PyObject>) -> Self {
        // SAFETY: the caller's guarantee.
        unsafe { ffi::Py_INCREF(object.as_ptr()) };
        Self(object)
    }

    /// Another reference to one of the interpreter's constants.
    ///
    /// # Safety
    /// Attached; `object` always lives.
    #[inline]
    pub(crate) unsafe fn constant(object: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller's guarantee; it is not null.
        unsafe { Self::borrowed(NonNull::new_unchecked(object)) }
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference away.
    #[inline]
    pub(crate) fn into_ptr(self) -> *mut ffi::PyObject {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: attached (values of this type live on the stack of attached threads); the reference is ours.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

/// References of the containers under construction, innermost last: a container is made when all of its items are
/// there, at its exact size, so that nobody ever sees a half filled one.
pub(crate) struct ObjectStack(Vec<Owned>);

/// How many references the memory kept for this thread's next stack has room for at most.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// The memory of this thread's last stack.
    static SPARE: Cell<Vec<Owned>> = const { Cell::new(Vec::new()) };
}

impl Default for ObjectStack {
    fn default() -> Self {
        Self(SPARE.take())
    }
}

impl Drop for ObjectStack {
    fn drop(&mut self) {
        self.0.clear();
        if self.0.capacity() <= KEPT {
            SPARE.set(std::mem::take(&mut self.0));
        }
    }
}

impl ObjectStack {
    #[inline]
    pub(crate) fn push(&mut self, object: Owned) {
        self.0.push(object);
    }

    #[inline]
    pub(crate) fn reserve(&mut self, additional: usize) -> bool {
        additional <= self.0.capacity() - self.0.len() || self.0.try_reserve(additional).is_ok()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The references from `start` on.
    #[inline]
    pub(crate) fn from(&self, start: usize) -> &[Owned] {
        &self.0[start..]
    }

    /// Forgets the references from `start` on, which somebody else owns now.
    ///
    /// # Safety
    /// Each of them was taken over.
    #[inline]
    pub(crate) unsafe fn forget_from(&mut self, start: usize) {
        debug_assert!(start <= self.0.len());
        // SAFETY: shortens; what is cut off is not dropped, as its new owner will do that.
        unsafe { self.0.set_len(start) };
    }

    /// Drops the references from `start` on.
    pub(crate) fn truncate(&mut self, start: usize) {
        self.0.truncate(start);
    }

    /// A list of the references from `start` on, which it takes over; `None` where there is no memory.
    #[inline]
    pub(crate) fn pop_list(&mut self, start: usize) -> Option<Owned> {
        let items = &self.0[start..];
        // SAFETY: attached; a new list of that size has an array of as many null items.
        unsafe {
            let list = Owned::new(ffi::PyList_New(items.len() as ffi::Py_ssize_t))?;
            if !items.is_empty() {
                let target = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
                target.copy_from_nonoverlapping(items.as_ptr().cast(), items.len());
            }
            self.forget_from(start);
            Some(list)
        }
    }

    /// A tuple of the references from `start` on, which it takes over; `None` where there is no memory.
    pub(crate) fn pop_tuple(&mut self, start: usize) -> Option<Owned> {
        let items = &self.0[start..];
        // SAFETY: attached; a new tuple of that size has as many null items, written before it is seen.
        unsafe {
            let tuple = Owned::new(ffi::PyTuple_New(items.len() as ffi::Py_ssize_t))?;
            for (index, item) in items.iter().enumerate() {
                ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as ffi::Py_ssize_t, item.as_ptr());
            }
            self.forget_from(start);
            Some(tuple)
        }
    }
}
