//! `framecache.crypto`: keyrings, and values sealed under them.

use super::arrow::table_from;
use super::error::guard;
use super::frame::Frame;
use super::input::Input;
use super::{json, metadata, msgpack};
use crate::buffer::FrameBuf;
use crate::codec::ARROW;
use crate::codec::json::JSON;
use crate::codec::msgpack::MSGPACK;
use crate::compress::Compression;
use crate::crypto::{self, Keyring as Ring, MasterKey as Key, Packing, Times, cachekit};
use crate::error::Error;
use crate::frame::{Header, MAX_VALUE};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::borrow::Cow;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

/// Bytes from which sealing and opening are worth releasing the GIL for.
pub(super) const DETACH_ABOVE: usize = 16 * 1024;

/// A moment in milliseconds, from 0.
#[derive(Clone, Copy)]
struct Moment(u64);

impl<'a, 'py> FromPyObject<'a, 'py> for Moment {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        // CPython reads signed numbers faster.
        match object.extract::<i64>().map(u64::try_from) {
            Ok(Ok(moment)) => Ok(Self(moment)),
            _ => object.extract().map(Self),
        }
    }
}

fn times(created: Option<Moment>, until: Option<Moment>) -> Times {
    Times { created: created.map(|moment| moment.0), until: until.map(|moment| moment.0) }
}

pub(super) fn detached<T: Send>(
    py: Python<'_>,
    bytes: usize,
    work: impl FnOnce() -> PyResult<T> + Send,
) -> PyResult<T> {
    if bytes > DETACH_ABOVE { py.detach(|| guard(work)) } else { guard(work) }
}

/// A master key: 32 to 1024 bytes, of which 32 random ones are enough. Only its id can be seen.
///
/// The key is copied to memory that is left out of core dumps and wiped at the end; `bytes` and `str` that it was made
/// from stay in Python's memory. A file or a descriptor leaves no such copy.
///
/// Args:
///     key: `bytes`, or a `str` of hexadecimal digits.
#[pyclass(frozen, module = "framecache.crypto")]
pub(super) struct MasterKey(Key);

#[pymethods]
impl MasterKey {
    #[new]
    #[pyo3(signature = (key, /))]
    fn new(key: &Bound<'_, PyAny>) -> PyResult<Self> {
        key_of(key).map(Self)
    }

    /// The key in a file: hexadecimal digits with white space around them, or else the file's bytes.
    ///
    /// Raises `InvalidArgument` for a file that is not the effective user's and closed to others (or root's, and readable
    /// by a group at most), `StoreError` for one that cannot be read.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| guard(|| Ok(Self(Key::from_file(&path)?))))
    }

    /// The key that an open file descriptor gives until its end, such as a pipe's, in the forms of `from_file`. It stays
    /// open.
    #[staticmethod]
    fn from_descriptor(py: Python<'_>, descriptor: RawFd) -> PyResult<Self> {
        if descriptor < 0 {
            let found = descriptor.to_string();
            return Err(Error::Argument { argument: "descriptor", expected: "an open one".into(), found }.into());
        }
        // SAFETY: a descriptor that is not open gives an error, and nothing else, to what reads from it.
        #[allow(unsafe_code)]
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        py.detach(|| guard(|| Ok(Self(Key::from_descriptor(borrowed)?))))
    }

    /// The key that an environment variable has, in hexadecimal digits; `None` if it is not set or empty.
    #[staticmethod]
    fn from_env(variable: &str) -> PyResult<Option<Self>> {
        Ok(Key::from_variable(variable)?.map(Self))
    }

    /// Its id: 32 hexadecimal digits, which say nothing about the key.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_hex()
    }

    fn __repr__(&self) -> String {
        format!("<framecache.crypto.MasterKey {}>", self.0.id())
    }
}

fn key_of(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    if let Ok(key) = key.cast::<MasterKey>() {
        Ok(key.get().0.try_clone()?)
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        Ok(Key::from_bytes(bytes.as_bytes())?)
    } else if let Ok(digits) = key.cast::<PyString>() {
        Ok(Key::from_hex(digits.to_str()?)?)
    } else {
        let found = key.get_type().name()?;
        Err(PyTypeError::new_err(format!("master key: expected MasterKey, bytes or a str of hex digits, got {found}")))
    }
}

/// Who a value belongs to.
enum Tenant {
    Fixed(String),
    /// Called each time.
    Asked(Py<PyAny>),
}

/// Master keys: the current one, which seals, and previous ones, which still open.
///
/// Args:
///     master: the current key: a `MasterKey`, `bytes`, or a `str` of hexadecimal digits.
///     previous: keys that are not used for new entries any more.
///     tenant: who the entries belong to: a `str`, or a `ContextVar` or callable that gives one each time.
#[pyclass(frozen, module = "framecache.crypto")]
pub(super) struct Keyring {
    ring: Ring,
    tenant: Tenant,
}

impl Keyring {
    fn over(ring: Ring, tenant: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let tenant = match tenant {
            None => Tenant::Fixed("default".to_owned()),
            Some(tenant) => match tenant.cast::<PyString>() {
                Ok(text) => {
                    let text = text.to_str()?.to_owned();
                    // A tenant that cannot be is found out now.
                    ring.name(&text, "")?;
                    Tenant::Fixed(text)
                }
                Err(_) => Tenant::Asked(asked(tenant)?),
            },
        };
        Ok(Self { ring, tenant })
    }

    #[inline]
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Who all entries belong to; `None` where that is asked for each time.
    #[inline]
    pub(super) fn fixed_tenant(&self) -> Option<&str> {
        match &self.tenant {
            Tenant::Fixed(tenant) => Some(tenant),
            Tenant::Asked(_) => None,
        }
    }

    pub(super) fn tenant(&self, py: Python<'_>) -> PyResult<Cow<'_, str>> {
        match &self.tenant {
            Tenant::Fixed(tenant) => Ok(Cow::Borrowed(tenant)),
            Tenant::Asked(source) => Ok(Cow::Owned(source.call0(py)?.extract(py)?)),
        }
    }
}

/// What to call for the tenant: `get` of a `ContextVar`, or the callable itself.
fn asked(tenant: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let context_var = tenant.py().import("contextvars")?.getattr("ContextVar")?;
    if tenant.is_instance(&context_var)? {
        return Ok(tenant.getattr("get")?.unbind());
    }
    if tenant.is_callable() {
        return Ok(tenant.clone().unbind());
    }
    let found = tenant.get_type().name()?;
    Err(PyTypeError::new_err(format!("tenant: expected str, ContextVar or callable, got {found}")))
}

#[pymethods]
impl Keyring {
    // `seal` and `open` are in `sealing`.

    #[new]
    #[pyo3(signature = (master, previous=None, tenant=None))]
    fn new(
        master: &Bound<'_, PyAny>,
        previous: Option<&Bound<'_, PyAny>>,
        tenant: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut keys = Vec::new();
        if let Some(previous) = previous {
            for key in previous.try_iter()? {
                keys.push(key_of(&key?)?);
            }
        }
        Self::over(Ring::new(key_of(master)?, keys)?, tenant)
    }

    /// The keyring of the environment: `FRAMECACHE_MASTER_KEY` has the current key in hexadecimal digits,
    /// `FRAMECACHE_PREVIOUS_MASTER_KEYS` any number of previous ones with commas between them.
    #[staticmethod]
    #[pyo3(signature = (tenant=None))]
    fn from_env(tenant: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::over(Ring::from_env()?, tenant)
    }

    /// The ids of its master keys, the current one first.
    #[getter]
    fn key_ids(&self) -> Vec<String> {
        self.ring.key_ids().map(crypto::KeyId::to_hex).collect()
    }

    /// Whether all entries have one tenant; else it is asked for each time.
    #[getter]
    fn has_one_tenant(&self) -> bool {
        matches!(self.tenant, Tenant::Fixed(_))
    }

    /// Who entries belong to now.
    #[getter(tenant)]
    fn py_tenant(&self, py: Python<'_>) -> PyResult<Cow<'_, str>> {
        self.tenant(py)
    }

    /// The names that the entry of `key` may have, 32 bytes each, the one under the current master key first.
    fn names<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let names = self.ring.names(&self.tenant(py)?, key)?;
        Ok(names.iter().map(|name| PyBytes::new(py, name.as_bytes())).collect())
    }

    /// As `names`, of a tag: no key has the name of a tag.
    fn tag_names<'py>(&self, py: Python<'py>, tag: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let names = self.ring.tag_names(&self.tenant(py)?, tag)?;
        Ok(names.iter().map(|name| PyBytes::new(py, name.as_bytes())).collect())
    }

    /// Encodes `value` into a frame, as `Store.put_many` does, and seals it in place for `key`. Returns the entry's name and
    /// its sealed frame.
    ///
    /// With `compression` (as of a `Cache`) it is compressed before, and the size tells how well that went. Raises
    /// `ValueTooLarge` for a payload of more than `max_value_bytes`, 1 GiB if not given.
    #[pyo3(signature = (key, codec, value, python, *, created=None, until=None, compression=None, max_value_bytes=None))]
    #[expect(clippy::too_many_arguments, reason = "one call per entry, each argument a field of it")]
    fn seal_value<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        codec: &str,
        value: &Bound<'py, PyAny>,
        python: &Bound<'py, PyDict>,
        created: Option<Moment>,
        until: Option<Moment>,
        compression: Option<&str>,
        max_value_bytes: Option<usize>,
    ) -> PyResult<(Bound<'py, PyBytes>, Frame)> {
        let (tenant, times) = (self.tenant(py)?, times(created, until));
        let packing = Packing {
            compression: compression.map_or(Ok(Compression::None), str::parse)?,
            max_value: max_value_bytes.unwrap_or(MAX_VALUE),
        };
        let python = Some(metadata::to_json_object(python)?);
        let header = Header { python, ..Header::new(codec) };
        let sealed = if codec == ARROW {
            let source = table_from(value)?;
            py.detach(|| {
                guard(|| {
                    let payload = source.into_table()?.into_payload()?;
                    Ok(self.ring.seal_packed(&tenant, key, header, &payload, packing, times)?)
                })
            })?
        } else if codec == MSGPACK || codec == JSON {
            let write_to = if codec == JSON { json::write_to } else { msgpack::write_to };
            let name = self.ring.name(&tenant, key)?;
            let header = Header { key: Some(key.to_owned()), ..header };
            let draft = write_to(self.ring.draft(&tenant, header)?, value)?;
            let size = draft.buffer.len();
            (name, detached(py, size, || Ok(self.ring.seal_packed_draft(&tenant, &name, draft, packing, times)?))?)
        } else {
            let frame = Input::from(value)?.to_frame()?;
            detached(py, frame.len(), || Ok(self.ring.seal_packed(&tenant, key, header, &*frame, packing, times)?))?
        };
        Ok((PyBytes::new(py, sealed.0.as_bytes()), sealed.1.into()))
    }

    /// The value of `key` in `sealed`: its payload, its codec, what `seal_value` got as `python`, and when it was created
    /// and may be served last.
    ///
    /// Raises `EntryRefused`, whose `reason` says why, and `DecodeError` for a payload that decompressed would be larger than
    /// `max_value_bytes`, 1 GiB if not given.
    #[pyo3(signature = (key, sealed, *, max_value_bytes=None))]
    #[expect(clippy::type_complexity, reason = "one tuple, taken apart at once")]
    fn open_value<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        sealed: &Bound<'py, PyAny>,
        max_value_bytes: Option<usize>,
    ) -> PyResult<(Frame, String, Bound<'py, PyDict>, Option<u64>, Option<u64>)> {
        let tenant = self.tenant(py)?;
        let opened = with_sealed(py, sealed, |bytes| Ok(self.ring.open_entry(&tenant, key, bytes)?))?;
        let size = opened.header.size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        let payload = detached(py, size, || Ok(opened.unpacked(max_value_bytes.unwrap_or(MAX_VALUE))?))?;
        let crypto::Opened { header, times, .. } = opened;
        let python = match &header.python {
            None => PyDict::new(py),
            Some(python) => metadata::parse_object(py, &serde_json::to_string(python).unwrap_or_default())?,
        };
        Ok((payload.into(), header.codec, python, times.created, times.until))
    }

    /// How many entries it sealed (``sealed``), opened under each key id (``opened``) and refused by reason (``refused``).
    ///
    /// When the count of a previous key stays where it is, that key can go.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let statistics = self.ring.statistics();
        let (stats, opened, refused) = (PyDict::new(py), PyDict::new(py), PyDict::new(py));
        for (id, count) in statistics.opened {
            opened.set_item(id.to_hex(), count)?;
        }
        for (reason, count) in statistics.refused {
            refused.set_item(reason.name(), count)?;
        }
        stats.set_item("sealed", statistics.sealed)?;
        stats.set_item("opened", opened)?;
        stats.set_item("refused", refused)?;
        Ok(stats)
    }

    fn __repr__(&self) -> String {
        format!("<framecache.crypto.Keyring {}>", self.key_ids().join(" "))
    }
}

/// Passes the bytes of `sealed` to `open`: those themselves where they cannot change, else a copy.
pub(super) fn with_sealed<T: Send>(
    py: Python<'_>,
    sealed: &Bound<'_, PyAny>,
    open: impl FnOnce(&[u8]) -> PyResult<T> + Send,
) -> PyResult<T> {
    let input = Input::from(sealed)?;
    let copy: FrameBuf;
    let bytes = match input.fixed(sealed) {
        Some(bytes) => bytes,
        None => {
            copy = input.to_frame()?;
            &copy
        }
    };
    detached(py, bytes.len(), || open(bytes))
}

/// cachekit's key of a domain (``"encryption"`` for entries) and a tenant, to read what it wrote: 32 bytes.
///
/// Raises `InvalidArgument` for a master key of less than 16 bytes and a tenant of 0 or more than 1024.
#[pyfunction]
pub(super) fn derive_domain_key<'py>(
    py: Python<'py>,
    master_key: &[u8],
    domain: &str,
    tenant_salt: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &cachekit::derive_domain_key(master_key, domain, tenant_salt)?))
}

/// What cachekit's headers call a derived key, of which they have the hexadecimal digits: 16 bytes.
#[pyfunction]
pub(super) fn key_fingerprint<'py>(py: Python<'py>, key: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &cachekit::key_fingerprint(key))
}
