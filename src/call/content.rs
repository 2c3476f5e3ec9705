//! The leaves of the encoding that may be long: text, bytes, buffers and large ints. Up to [`MAX_INLINE`] bytes they are
//! written out, above as their length and BLAKE3-256, so that keys stay small.
//!
//! Memory that another thread may change is copied in small parts, and the parts are hashed: no Rust slice ever stands on
//! it. Where somebody changes it meanwhile, the key is that of a mix of old and new, as what the function would read.
#![allow(unsafe_code)]

use super::encode::{Done, Encoder, Fault, MAX_INLINE, Stop, tag};
use crate::cpython::text::Text;
use crate::error::Error;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes};
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Bytes copied and hashed at a time: enough for BLAKE3 to hash many chunks at once, and few enough to stay in the cache.
const PART: usize = 64 * 1024;
/// Bytes from which hashing what cannot change releases the GIL.
const DETACH_ABOVE: usize = 256 * 1024;
/// Other threads may run after so many bytes of memory that may change.
const YIELD_EVERY: usize = 16 << 20;

impl<'py> Encoder<'_, 'py> {
    /// A tag, the length in two bytes, and at most [`MAX_INLINE`] bytes.
    #[inline(always)]
    pub(super) fn inline(&mut self, tag: u8, bytes: &[u8]) -> Done {
        self.reserve(bytes.len() + 3)?;
        let [low, high] = (bytes.len() as u16).to_le_bytes();
        // SAFETY: reserved.
        unsafe {
            self.out.put([tag, low, high]);
            self.out.put_slice(bytes);
        }
        Ok(())
    }

    fn hashed(&mut self, tag: u8, len: usize, hash: blake3::Hash) -> Done {
        self.count(tag + 1, len)?;
        self.put(*hash.as_bytes())
    }

    /// Bytes that nobody can change.
    fn leaf(&mut self, tag: u8, bytes: &[u8]) -> Done {
        if bytes.len() <= MAX_INLINE {
            return self.inline(tag, bytes);
        }
        let hash =
            if bytes.len() > DETACH_ABOVE { self.py.detach(|| blake3::hash(bytes)) } else { blake3::hash(bytes) };
        self.hashed(tag, bytes.len(), hash)
    }

    /// Any `str`.
    ///
    /// # Safety
    /// Attached; a `str` that is alive.
    pub(super) unsafe fn text(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; no Python code runs here, and a str does not change.
        match unsafe { Text::of(object) } {
            Text::Utf8(bytes) if bytes.len() <= MAX_INLINE => self.inline(tag::STR, bytes),
            // SAFETY: as above.
            _ => unsafe { self.long_text(object) },
        }
    }

    /// # Safety
    /// As [`Self::text`].
    #[inline(never)]
    pub(super) unsafe fn long_text(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; the caller's reference outlives the call, and so `detach` in `leaf`, unless
        // it is that of a container that another thread changes then.
        let held = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        // SAFETY: held.
        let text = unsafe { Text::of(held.as_ptr()) };
        let len = text.length().bytes;
        match text {
            Text::Utf8(bytes) => self.leaf(tag::STR, bytes),
            _ if len <= MAX_INLINE => {
                let mut utf8 = [0; MAX_INLINE];
                // SAFETY: there is room for `len` bytes, which is what the text has.
                unsafe { text.write_utf8(utf8.as_mut_ptr()) };
                self.inline(tag::STR, &utf8[..len])
            }
            Text::Latin1(chars) => self.wide_text(len, chars.chunks(PART / 4).map(Text::Latin1)),
            Text::Ucs2(chars) => self.wide_text(len, chars.chunks(PART / 4).map(Text::Ucs2)),
            Text::Ucs4(chars) => self.wide_text(len, chars.chunks(PART / 4).map(Text::Ucs4)),
        }
    }

    /// Text of so many bytes in UTF-8, in parts of at most `PART / 4` characters.
    fn wide_text<'a>(&mut self, len: usize, parts: impl Iterator<Item = Text<'a>>) -> Done {
        let mut hasher = blake3::Hasher::new();
        let mut utf8 = vec![0; PART];
        for part in parts {
            // SAFETY: a character has at most four bytes.
            unsafe { part.write_utf8(utf8.as_mut_ptr()) };
            hasher.update(&utf8[..part.length().bytes]);
        }
        self.hashed(tag::STR, len, hasher.finalize())
    }

    /// # Safety
    /// Attached; an exact `bytes` that is alive.
    pub(super) unsafe fn bytes(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee; held while the GIL may be released.
        let held = unsafe { Bound::from_borrowed_ptr(self.py, object).cast_into_unchecked::<PyBytes>() };
        self.leaf(tag::BYTES, held.as_bytes())
    }

    /// # Safety
    /// Attached; an exact `bytearray` that is alive.
    pub(super) unsafe fn bytearray(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        let view = match unsafe { View::of(self.py, object) } {
            Ok(view) => view,
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        self.content(tag::BYTEARRAY, &view)
    }

    /// Format, shape and content.
    ///
    /// # Safety
    /// Attached; an exact `memoryview` that is alive.
    pub(super) unsafe fn memoryview(&mut self, object: *mut ffi::PyObject) -> Done {
        // SAFETY: the caller's guarantee.
        let view = match unsafe { View::of(self.py, object) } {
            Ok(view) => view,
            Err(error) => return Err(self.fail(Fault::Raised(error))),
        };
        self.byte(tag::MEMORYVIEW)?;
        self.leaf(tag::STR, view.format().to_bytes())?;
        self.count(tag::TUPLE, view.shape().len())?;
        for size in view.shape() {
            self.count(tag::INT, size.unsigned_abs())?;
        }
        self.content(tag::BUFFER, &view)
    }

    /// The bytes of a buffer, in the order of C.
    fn content(&mut self, tag: u8, view: &View) -> Done {
        let len = view.0.len.unsigned_abs();
        if len == 0 {
            return self.inline(tag, &[]);
        }
        let mut packed = Vec::new();
        let mut start = view.0.buf.cast_const().cast::<u8>();
        if !view.is_contiguous() {
            if packed.try_reserve_exact(len).is_err() {
                return Err(self.fail(Error::Memory { bytes: len }));
            }
            start = packed.as_ptr();
            // SAFETY: attached; there is room for all of it.
            let copied = unsafe {
                ffi::PyBuffer_ToContiguous(
                    packed.as_mut_ptr().cast(),
                    (&raw const *view.0).cast_mut(),
                    view.0.len,
                    b'C'.cast_signed(),
                )
            };
            if copied != 0 {
                return Err(Stop);
            }
        }
        if len <= MAX_INLINE {
            let mut copy = [0; MAX_INLINE];
            // SAFETY: the exporter keeps `len` bytes in place while `view` is there; copied, since they may change.
            unsafe { copy.as_mut_ptr().copy_from_nonoverlapping(start, len) };
            return self.inline(tag, &copy[..len]);
        }
        // SAFETY: as above.
        let hash = unsafe { self.hash_parts(start, len) };
        self.hashed(tag, len, hash)
    }

    /// # Safety
    /// `len` bytes from `start` on can be read while this runs, though they may change.
    unsafe fn hash_parts(&self, start: *const u8, len: usize) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut part = vec![0u8; PART.min(len)];
        let mut done = 0;
        while done < len {
            let count = PART.min(len - done);
            // SAFETY: inside of the memory; the part has room.
            unsafe { part.as_mut_ptr().copy_from_nonoverlapping(start.add(done), count) };
            hasher.update(&part[..count]);
            done += count;
            if done.is_multiple_of(YIELD_EVERY) && done < len {
                self.py.detach(|| ());
            }
        }
        hasher.finalize()
    }

    /// An int beyond 64 bits: two's complement, little-endian, in `bit_length // 8 + 1` bytes.
    ///
    /// # Safety
    /// Attached; an exact `int` that is alive.
    #[cold]
    pub(super) unsafe fn big_int(&mut self, object: *mut ffi::PyObject) -> Done {
        let py = self.py;
        // SAFETY: the caller's guarantee.
        let object = unsafe { Bound::from_borrowed_ptr(py, object) };
        let bytes = (|| {
            let bits: usize = object.call_method0(intern!(py, "bit_length"))?.extract()?;
            let signed = [(intern!(py, "signed"), true)].into_py_dict(py)?;
            let bytes =
                object.call_method(intern!(py, "to_bytes"), (bits / 8 + 1, intern!(py, "little")), Some(&signed))?;
            Ok::<_, PyErr>(bytes.cast_into::<PyBytes>()?)
        })();
        match bytes {
            Ok(bytes) => self.leaf(tag::BIG_INT, bytes.as_bytes()),
            Err(error) => Err(self.fail(Fault::Raised(error))),
        }
    }
}

/// An exported buffer. It stays where it was made, as its shape may stand inside of it.
struct View(Box<ffi::Py_buffer>);

impl View {
    /// # Safety
    /// Attached; `object` is alive.
    unsafe fn of(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Self> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: the caller's guarantee; on success the view is initialized.
        unsafe {
            if ffi::PyObject_GetBuffer(object, view.as_mut_ptr(), ffi::PyBUF_FULL_RO) != 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(Self(view.assume_init()))
        }
    }

    fn is_contiguous(&self) -> bool {
        // SAFETY: attached; an exported buffer.
        unsafe { ffi::PyBuffer_IsContiguous(&raw const *self.0, b'C'.cast_signed()) != 0 }
    }

    fn format(&self) -> &CStr {
        // SAFETY: null, or a string that lives as long as the buffer; null stands for unsigned bytes.
        if self.0.format.is_null() { c"B" } else { unsafe { CStr::from_ptr(self.0.format) } }
    }

    fn shape(&self) -> &[isize] {
        if self.0.shape.is_null() {
            return &[];
        }
        // SAFETY: PyBUF_FULL_RO asks for a shape of so many sizes; an item alone has none.
        unsafe { std::slice::from_raw_parts(self.0.shape, self.0.ndim.unsigned_abs() as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: attached (a view lives on the stack of an encoder); exported once and released once.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
    }
}
