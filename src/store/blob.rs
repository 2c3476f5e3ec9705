//! Entries as blob files: one frame each, named by the hash of its key.

use super::Directory;
use crate::buffer::{ALIGN, AlignedBuf, FrameBuf, Mapping, Origin};
use crate::compress::Compression;
use crate::error::{Error, Result};
use crate::frame::{self, Header, Payload};
use crate::key::Name;
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Blobs of more than this are mapped, smaller ones read into memory: 64 KiB.
pub const MAPPED_ABOVE: usize = 64 * 1024;

/// Blob files in one directory.
#[derive(Debug)]
pub struct BlobStore {
    directory: Directory,
    compression: Compression,
    max_value: usize,
}

/// What a [`BlobStore::get`] found.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one is returned at a time, and taken apart at once")]
pub enum Lookup {
    /// The entry.
    Hit {
        /// All of it.
        frame: FrameBuf,
        /// Its header.
        header: Header,
        /// Where the payload starts in it; [`BlobStore::payload`] returns it.
        payload: usize,
    },
    /// No entry to serve.
    Miss(Miss),
}

/// Why there is no entry to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No file has the key's name.
    Absent,
    /// The entry's last moment has passed.
    Expired,
    /// The file under the key's name holds an entry of another key.
    OtherKey,
}

impl BlobStore {
    /// Opens the store in `path`, as [`Directory::open`] does. It compresses nothing, and limits values to
    /// [`frame::MAX_VALUE`].
    ///
    /// # Errors
    /// Those of [`Directory::open`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { directory: Directory::open(path)?, compression: Compression::None, max_value: frame::MAX_VALUE })
    }

    /// The same store, whose new entries are compressed.
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// The same store, with another limit to the payloads that are stored and to those that are decompressed.
    pub fn with_max_value(self, max_value: usize) -> Self {
        Self { max_value, ..self }
    }

    /// The directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Stores an entry, replacing the one that `key` had; returns the size of its frame in bytes.
    ///
    /// The payload's large parts go to the file from where they lie, unless it is compressed first. Readers see the old
    /// entry or the new one.
    ///
    /// # Errors
    /// [`Error::Io`] (a full disk is one), [`Error::Argument`] for a key or header that is too long,
    /// [`Error::TooLarge`] for a payload above the store's limit, those of the payload. What was stored before then
    /// stays.
    pub fn put(&self, key: &str, header: Header, payload: &(impl Payload + ?Sized)) -> Result<usize> {
        let name = Name::of(key)?.to_hex();
        let (header, payload) = frame::pack(header, payload, self.compression, self.max_value)?;
        let length = payload.length();
        let header = Header { key: Some(key.to_owned()), ..header.with_length(length) };
        let prefix = frame::prefix(&header.to_json(), ALIGN, 0)?;
        let size = prefix.len().saturating_add(length);
        self.directory.publish(&name, size, |file| {
            let failed = |error| self.directory.io("write", &name, error);
            let mut out = BufWriter::with_capacity(MAPPED_ABOVE, Counted { file, written: 0 });
            out.write_all(&prefix).map_err(failed)?;
            payload.write_to(&mut out)?;
            let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
            if out.written == size {
                return Ok(());
            }
            Err(failed(std::io::Error::other(format!("{} bytes were written instead of {size}", out.written))))
        })?;
        Ok(size)
    }

    /// Looks `key` up; `now` is in milliseconds since 1970-01-01 UTC.
    ///
    /// Blobs of more than [`MAPPED_ABOVE`] bytes are mapped, smaller ones read. The frame is
    /// [trusted](Origin::Trusted): its directory is closed to others.
    ///
    /// # Errors
    /// [`Error::Frame`] for a file that is not a whole frame, [`Error::Io`], [`Error::Store`] for one that is not a
    /// regular file of this user, [`Error::Argument`] for a key that is too long.
    pub fn get(&self, key: &str, now: u64) -> Result<Lookup> {
        let name = Name::of(key)?.to_hex();
        let Some((file, size)) = self.directory.read(&name)? else {
            return Ok(Lookup::Miss(Miss::Absent));
        };
        let frame = self.load(&file, &name, size)?;
        let json = frame::locate_header(&frame)?;
        let header = Header::parse(&frame[json.clone()])?;
        if header.key.as_deref() != Some(key) {
            return Ok(Lookup::Miss(Miss::OtherKey));
        }
        let length = (frame.len() - json.end) as u64;
        if header.length != Some(length) {
            let expected: crate::error::Text = match header.length {
                Some(stated) => format!("the {stated} bytes of payload that the header states").into(),
                None => "a header that states the payload's length".into(),
            };
            return Err(Error::frame(json.end, expected, format!("{length} bytes")));
        }
        if header.until.is_some_and(|until| until < now) {
            return Ok(Lookup::Miss(Miss::Expired));
        }
        Ok(Lookup::Hit { frame, header, payload: json.end })
    }

    /// The payload of a [`Lookup::Hit`]: the frame's own bytes, or those that it holds compressed, which is a copy.
    ///
    /// # Errors
    /// Those of [`frame::unpack`].
    pub fn payload(&self, frame: &FrameBuf, header: &Header, start: usize, may_copy: bool) -> Result<FrameBuf> {
        frame::unpack(frame, header, start, self.max_value, may_copy)
    }

    /// Removes the entry of `key`; whether there was a file. Views of it stay valid.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Argument`] for a key that is too long.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.directory.unlink(&Name::of(key)?.to_hex())
    }

    fn load(&self, file: &File, name: &str, size: usize) -> Result<FrameBuf> {
        if size > MAPPED_ABOVE {
            // SAFETY: files of this directory are published whole and never changed or truncated afterwards, and the
            // directory is writable by this user alone (`Directory::open`).
            #[allow(unsafe_code)]
            let mapping = unsafe { Mapping::new(file) }.map_err(|error| self.directory.io("map", name, error))?;
            return Ok(FrameBuf::from_mapping(mapping, Origin::Trusted));
        }
        let mut buffer = AlignedBuf::with_capacity(size)?;
        buffer.extend_zeroed(size)?;
        let mut filled = 0;
        while filled < size {
            match rustix::io::pread(file, &mut buffer.as_mut_slice()[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.directory.io("read", name, error)),
            }
        }
        buffer.truncate(filled);
        Ok(FrameBuf::from_aligned(buffer, Origin::Trusted).copied())
    }
}

/// Counts what reaches the file.
struct Counted<'f> {
    file: &'f File,
    written: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
