//! Making and walking `dict` objects.
//!
//! A dict of CPython 3.11 to 3.13 has a table of *keys*: a header, indices (one, two or four bytes each, by the size of
//! the table), then entries in the order of insertion. If all keys are exact `str` objects, an entry is key and value.
//! Filled in directly, a dict has the size that inserting one by one gives it, without growing on the way.
#![allow(unsafe_code)]

use super::{ObjectStack, Owned};
use pyo3::ffi;
use pyo3::prelude::*;
#[cfg(all(Py_3_11, not(Py_3_14)))]
use std::sync::atomic::{AtomicBool, Ordering};

/// A dict of the keys and values that stand on `stack` from `start` on, alternately, which it takes over. Of equal keys
/// the first stays and the last value counts.
///
/// `None` with a Python exception set: there is no memory, or a key that is not a str cannot be hashed or compared.
///
/// # Safety
/// Attached; the number of references is even. `all_str` only if all keys are exact `str` objects.
#[inline]
pub(crate) unsafe fn pop_dict(stack: &mut ObjectStack, start: usize, all_str: bool) -> Option<Owned> {
    // SAFETY: attached.
    let dict = unsafe { Owned::new(ffi::PyDict_New())? };
    #[cfg(all(Py_3_11, not(Py_3_14)))]
    if all_str && LAYOUT_HOLDS.load(Ordering::Relaxed) && stack.len() > start {
        // SAFETY: the dict is new; the caller's guarantees.
        if unsafe { table::fill(dict.as_ptr(), stack.from(start)) } {
            // SAFETY: the dict has taken them over.
            unsafe { stack.forget_from(start) };
            return Some(dict);
        }
    }
    let _ = all_str;
    // SAFETY: attached; the stack keeps the references while Python code (of keys that are not str) runs.
    let inserted = stack
        .from(start)
        .chunks_exact(2)
        .all(|pair| unsafe { ffi::PyDict_SetItem(dict.as_ptr(), pair[0].as_ptr(), pair[1].as_ptr()) == 0 });
    stack.truncate(start);
    inserted.then_some(dict)
}

/// How many entries a dict has.
///
/// # Safety
/// Attached; `dict` is an exact dict.
#[inline]
pub(crate) unsafe fn len(dict: *mut ffi::PyObject) -> isize {
    // SAFETY: the caller's guarantee.
    unsafe { (*dict.cast::<ffi::PyDictObject>()).ma_used }
}

/// A walk over the entries of a dict. Python code may change the dict in between; after [`Self::refresh`] the walk stays
/// safe, though it may leave out entries.
pub(crate) struct Walk {
    dict: *mut ffi::PyObject,
    /// Of `PyDict_Next`.
    position: isize,
    /// The entries, where they can be read directly: the first, the next, and the end.
    #[cfg(all(Py_3_11, not(Py_3_14)))]
    entries: [*const table::Entry; 3],
}

impl Walk {
    /// # Safety
    /// Attached; `dict` is an exact dict, or an instance of a subclass, that outlives the walk.
    #[inline(always)]
    pub(crate) unsafe fn of(dict: *mut ffi::PyObject) -> Self {
        let mut walk = Self {
            dict,
            position: 0,
            #[cfg(all(Py_3_11, not(Py_3_14)))]
            entries: [std::ptr::null(); 3],
        };
        // SAFETY: the caller's guarantee.
        unsafe { walk.look() };
        walk
    }

    /// Finds the entries from `position` on.
    #[inline(always)]
    unsafe fn look(&mut self) {
        #[cfg(all(Py_3_11, not(Py_3_14)))]
        if LAYOUT_HOLDS.load(Ordering::Relaxed) {
            // SAFETY: the caller's guarantee; no further than to the end.
            self.entries = unsafe {
                table::entries(self.dict).map_or([std::ptr::null(); 3], |(first, count)| {
                    [first, first.offset(self.position.min(count)), first.offset(count)]
                })
            };
        }
    }

    /// Looks at the dict anew.
    ///
    /// # Safety
    /// Attached; the dict is alive.
    #[inline]
    pub(crate) unsafe fn refresh(&mut self) {
        self.position = self.position();
        // SAFETY: the caller's guarantee.
        unsafe { self.look() };
    }

    /// Where the walk is: the next entry has this position or a higher one.
    pub(crate) fn position(&self) -> isize {
        #[cfg(all(Py_3_11, not(Py_3_14)))]
        if !self.entries[0].is_null() {
            let [first, next, _] = self.entries.map(<*const table::Entry>::addr);
            return ((next - first) / size_of::<table::Entry>()).cast_signed();
        }
        self.position
    }

    /// Key and value of the next entry, borrowed; `None` at the end.
    ///
    /// # Safety
    /// Attached; if Python code ran since the last call, the walk was refreshed.
    #[inline(always)]
    pub(crate) unsafe fn next(&mut self) -> Option<(*mut ffi::PyObject, *mut ffi::PyObject)> {
        #[cfg(all(Py_3_11, not(Py_3_14)))]
        {
            // SAFETY: between the first entry and the end; those that were removed are null.
            unsafe {
                while self.entries[1] < self.entries[2] {
                    let entry = self.entries[1];
                    self.entries[1] = entry.add(1);
                    if !(*entry).value.is_null() {
                        return Some(((*entry).key, (*entry).value));
                    }
                }
            }
            if !self.entries[0].is_null() {
                return None;
            }
        }
        // SAFETY: the caller's guarantee.
        unsafe { self.next_public() }
    }

    #[inline(never)]
    unsafe fn next_public(&mut self) -> Option<(*mut ffi::PyObject, *mut ffi::PyObject)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the caller's guarantee.
        let found = unsafe { ffi::PyDict_Next(self.dict, &raw mut self.position, &raw mut key, &raw mut value) != 0 };
        found.then_some((key, value))
    }
}

#[cfg(all(Py_3_11, not(Py_3_14)))]
static LAYOUT_HOLDS: AtomicBool = AtomicBool::new(false);

#[cfg(not(all(Py_3_11, not(Py_3_14))))]
pub(super) fn check_layout(_: Python<'_>) {}

/// Compares the layout with dicts that CPython made, then dicts that this module made with theirs.
#[cfg(all(Py_3_11, not(Py_3_14)))]
pub(super) fn check_layout(py: Python<'_>) {
    let holds =
        [1, 2, 5, 6, 10, 11, 21, 22, 85, 86, 170, 171].iter().all(|count| table::agrees(py, *count).unwrap_or(false));
    LAYOUT_HOLDS.store(holds, Ordering::Relaxed);
}

#[cfg(all(Py_3_11, not(Py_3_14)))]
mod table {
    use super::super::text::Text;
    use super::{ObjectStack, Owned, ffi};
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    /// The header of a dict's keys (`struct _dictkeysobject`).
    #[repr(C)]
    struct Keys {
        refcount: isize,
        log2_size: u8,
        log2_index_bytes: u8,
        kind: u8,
        version: u32,
        usable: isize,
        entries: isize,
    }

    /// An entry of a table whose keys are all `str` (`PyDictUnicodeEntry`).
    #[repr(C)]
    pub(super) struct Entry {
        pub(super) key: *mut ffi::PyObject,
        pub(super) value: *mut ffi::PyObject,
    }

    /// The entries of a dict whose keys are all `str` and which has its values beside them, and their number; valid until
    /// the dict changes.
    ///
    /// # Safety
    /// Attached; the layout holds; `dict` is an exact dict.
    #[inline]
    pub(super) unsafe fn entries(dict: *mut ffi::PyObject) -> Option<(*const Entry, isize)> {
        // SAFETY: the caller's guarantee; so many entries are initialized.
        unsafe {
            let dict = dict.cast::<ffi::PyDictObject>();
            let keys = (*dict).ma_keys.cast::<Keys>();
            if (*keys).kind != ALL_STR || !(*dict).ma_values.is_null() {
                return None;
            }
            let start = keys.add(1).cast::<u8>().add(1 << (*keys).log2_index_bytes).cast::<Entry>();
            Some((start, (*keys).entries))
        }
    }

    /// The kind of a table whose keys are all `str`.
    const ALL_STR: u8 = 1;
    const SMALLEST_LOG2: u8 = 3;
    const EMPTY: isize = -1;
    /// Tables up to this size are made here: their indices have two bytes at most.
    const LARGEST_LOG2: u8 = 15;

    fn usable(log2_size: u8) -> usize {
        (2usize << log2_size) / 3
    }

    /// The size that a dict has grown to when it has `count` entries.
    fn log2_size_for(count: usize) -> u8 {
        let mut log2 = SMALLEST_LOG2;
        while usable(log2) < count {
            log2 += 1;
        }
        log2
    }

    /// Gives the new, empty `dict` the entries in `pairs`; false where it is left to the public functions: very large
    /// dicts, equal keys, no memory.
    ///
    /// # Safety
    /// Attached; the layout holds; `dict` came from `PyDict_New` and is unseen; `pairs` is an even, positive number of
    /// references, keys being exact `str` objects. On true they belong to the dict.
    #[inline]
    pub(super) unsafe fn fill(dict: *mut ffi::PyObject, pairs: &[Owned]) -> bool {
        let count = pairs.len() / 2;
        let log2_size = if count <= 5 { SMALLEST_LOG2 } else { log2_size_for(count) };
        if log2_size > LARGEST_LOG2 {
            return false;
        }
        // SAFETY: the caller's guarantee; the two sizes of index are those that CPython uses.
        unsafe {
            if log2_size < 8 {
                fill_with::<i8>(dict, pairs, log2_size, log2_size)
            } else {
                fill_with::<i16>(dict, pairs, log2_size, log2_size + 1)
            }
        }
    }

    /// An index into the entries, as tables of some sizes have it.
    trait Index: Copy {
        fn get(self) -> isize;
        fn of(index: usize) -> Self;
    }

    impl Index for i8 {
        #[inline]
        fn get(self) -> isize {
            self.into()
        }
        #[inline]
        fn of(index: usize) -> Self {
            index as Self
        }
    }

    impl Index for i16 {
        #[inline]
        fn get(self) -> isize {
            self.into()
        }
        #[inline]
        fn of(index: usize) -> Self {
            index as Self
        }
    }

    /// # Safety
    /// As [`fill`]; the table has `1 << log2_index_bytes` bytes of indices of type `I`.
    #[inline]
    unsafe fn fill_with<I: Index>(
        dict: *mut ffi::PyObject,
        pairs: &[Owned],
        log2_size: u8,
        log2_index_bytes: u8,
    ) -> bool {
        let (count, room) = (pairs.len() / 2, usable(log2_size));
        let index_bytes = 1usize << log2_index_bytes;
        // SAFETY: the block has room for the header, the indices and `room` entries, `count` of which are written, and
        // no index is outside. References move into it only when all keys are known to differ.
        unsafe {
            let Some(keys) = allocate(size_of::<Keys>() + index_bytes + room * size_of::<Entry>()) else {
                return false;
            };
            keys.write(Keys {
                refcount: 1,
                log2_size,
                log2_index_bytes,
                kind: ALL_STR,
                version: 0,
                usable: (room - count) as isize,
                entries: count as isize,
            });
            let indices = keys.add(1).cast::<I>();
            indices.cast::<u8>().write_bytes(0xff, index_bytes);
            let entries = indices.cast::<u8>().add(index_bytes).cast::<Entry>();
            let mut has_containers = false;
            for index in 0..count {
                let (key, value) = (pairs[2 * index].as_ptr(), pairs[2 * index + 1].as_ptr());
                let Some(slot) = free_slot(indices, entries, key, (1usize << log2_size) - 1) else {
                    free(keys);
                    return false;
                };
                slot.write(I::of(index));
                entries.add(index).write(Entry { key, value });
                has_containers |= ffi::PyType_HasFeature(ffi::Py_TYPE(value), ffi::Py_TPFLAGS_HAVE_GC) != 0;
            }
            entries.add(count).write_bytes(0, room - count);
            adopt(dict, keys, count);
            // A dict of values that refer to nothing is not the collector's business; it would say so itself.
            if has_containers {
                ffi::PyObject_GC_Track(dict.cast());
            }
        }
        true
    }

    /// The slot for a new key; `None` for one that is there already, and for one whose hash cannot be had.
    ///
    /// # Safety
    /// As [`fill`]; what the indices refer to is written.
    #[inline]
    unsafe fn free_slot<I: Index>(
        indices: *mut I,
        entries: *const Entry,
        key: *mut ffi::PyObject,
        mask: usize,
    ) -> Option<*mut I> {
        // SAFETY: the caller's guarantee; `at` is masked.
        unsafe {
            let hash = hash_of(key)?;
            let (mut at, mut perturb) = (hash.cast_unsigned() & mask, hash.cast_unsigned());
            loop {
                let slot = indices.add(at);
                let index = (*slot).get();
                if index == EMPTY {
                    return Some(slot);
                }
                let other = (*entries.offset(index)).key;
                if other == key || (hash_of(other)? == hash && equal(other, key)) {
                    return None;
                }
                perturb >>= 5;
                at = at.wrapping_mul(5).wrapping_add(perturb).wrapping_add(1) & mask;
            }
        }
    }

    /// # Safety
    /// Attached, an exact `str`.
    #[inline]
    unsafe fn hash_of(key: *mut ffi::PyObject) -> Option<isize> {
        // SAFETY: the caller's guarantee. A str keeps its hash, -1 until it was asked for; asking runs no Python code.
        unsafe {
            let known = (*key.cast::<ffi::PyASCIIObject>()).hash;
            if known != -1 {
                return Some(known);
            }
            let hash = ffi::PyObject_Hash(key);
            if hash == -1 {
                ffi::PyErr_Clear();
                return None;
            }
            Some(hash)
        }
    }

    /// # Safety
    /// Attached, exact `str`s.
    unsafe fn equal(one: *mut ffi::PyObject, other: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller's guarantee.
        unsafe {
            match (Text::of(one), Text::of(other)) {
                (Text::Utf8(one), Text::Utf8(other)) => one == other,
                // Left to the public functions.
                _ => true,
            }
        }
    }

    /// # Safety
    /// As [`fill`]; `keys` are whole.
    #[inline]
    unsafe fn adopt(dict: *mut ffi::PyObject, keys: *mut Keys, count: usize) {
        let dict = dict.cast::<ffi::PyDictObject>();
        // SAFETY: the caller's guarantee. The table of all empty dicts counts its users up to 3.11.
        unsafe {
            #[cfg(not(Py_3_12))]
            {
                let empty = (*dict).ma_keys.cast::<Keys>();
                (*empty).refcount -= 1;
            }
            (*dict).ma_keys = keys.cast();
            (*dict).ma_used = count as isize;
        }
    }

    /// Memory from where CPython takes its tables, since it will give it back.
    #[inline]
    unsafe fn allocate(size: usize) -> Option<*mut Keys> {
        // SAFETY: attached.
        #[cfg(Py_3_13)]
        let block = unsafe { ffi::PyMem_Malloc(size) };
        // SAFETY: attached.
        #[cfg(not(Py_3_13))]
        let block = unsafe { ffi::PyObject_Malloc(size) };
        (!block.is_null()).then_some(block.cast())
    }

    unsafe fn free(keys: *mut Keys) {
        // SAFETY: from `allocate`.
        #[cfg(Py_3_13)]
        unsafe {
            ffi::PyMem_Free(keys.cast());
        }
        // SAFETY: from `allocate`.
        #[cfg(not(Py_3_13))]
        unsafe {
            ffi::PyObject_Free(keys.cast());
        }
    }

    /// Whether a dict of `count` keys looks as described, and one made here is like it.
    pub(super) fn agrees(py: Python<'_>, count: usize) -> PyResult<bool> {
        let model = PyDict::new(py);
        let mut stack = ObjectStack::default();
        for index in 0..count {
            let (key, value) = (format!("key {index}").into_pyobject(py)?, index.into_pyobject(py)?);
            model.set_item(&key, &value)?;
            // SAFETY: attached, new references.
            unsafe {
                let pair = (Owned::new(key.into_ptr()), Owned::new(value.into_ptr()));
                let (Some(key), Some(value)) = pair else { return Ok(false) };
                stack.push(key);
                stack.push(value);
            }
        }
        // SAFETY: the header is read first, and entries only if it is what is expected.
        unsafe {
            let object = model.as_ptr().cast::<ffi::PyDictObject>();
            let keys = (*object).ma_keys.cast::<Keys>();
            let log2_size = log2_size_for(count);
            let log2_index_bytes = if log2_size < 8 { log2_size } else { log2_size + 1 };
            let expected =
                (1, log2_size, log2_index_bytes, ALL_STR, (usable(log2_size) - count) as isize, count as isize);
            let found = (
                (*keys).refcount,
                (*keys).log2_size,
                (*keys).log2_index_bytes,
                (*keys).kind,
                (*keys).usable,
                (*keys).entries,
            );
            if expected != found || (*object).ma_used != count as isize || !(*object).ma_values.is_null() {
                return Ok(false);
            }
            let Some((entries, found)) = entries(model.as_ptr()) else { return Ok(false) };
            if found != count as isize {
                return Ok(false);
            }
            for (index, pair) in (0..).zip(stack.from(0).chunks_exact(2)) {
                let entry = &*entries.offset(index);
                if entry.key != pair[0].as_ptr() || entry.value != pair[1].as_ptr() {
                    return Ok(false);
                }
            }
            let made = PyDict::new(py);
            if !fill(made.as_ptr(), stack.from(0)) {
                return Ok(false);
            }
            stack.forget_from(0);
            let size = |dict: &Bound<'_, PyDict>| dict.call_method0("__sizeof__")?.extract::<usize>();
            let alike = made.eq(&model)? && size(&made)? == size(&model)?;
            // The table grows and shrinks as any other.
            for dict in [&made, &model] {
                dict.set_item("another", 1)?;
                dict.del_item("key 0")?;
                dict.set_item(2, 3)?;
            }
            Ok(alike && made.eq(&model)? && made.len() == count + 1)
        }
    }
}
