//! Opening a store's directory: who is alone makes, adopts or empties it, the others join.

use super::directory::{Directory, refused};
use super::lmdb::{Environment, Fault, Flags};
use super::marks::{MARKS, Marks};
use super::options::Options;
use super::process::{boot_id, pid_namespace};
use super::spare::Spare;
use super::stamp::{Durability, IndexMode, MOST_STARTS, Stamp, StampFile, Use};
use super::writer_lock::WriterLock;
use crate::error::{Error, Result};
use std::ffi::CString;
use std::fs::File;

/// Slots of LMDB's table of readers: 64 bytes each.
const MAX_READERS: u32 = 4096;

/// LMDB's files in a store's directory.
pub(super) const INDEX: &str = "index";
const INDEX_LOCK: &str = "index-lock";

/// What an index is made of.
pub(super) struct Parts {
    pub(super) env: Environment,
    pub(super) marks: Marks,
    /// `None`, as the next one, for who may only read.
    pub(super) writer: Option<WriterLock>,
    pub(super) spare: Option<Spare>,
    pub(super) stamp: Stamp,
    /// With the shared lock.
    pub(super) stamp_file: StampFile,
}

type Opened = (Environment, Marks, Option<WriterLock>, Option<Spare>, Stamp);

pub(super) fn open(directory: &Directory, options: &Options) -> Result<Parts> {
    let path = directory.path();
    let stamp_file = stamp_file(directory, options)?;
    let (env, marks, writer, spare, stamp) = loop {
        let usage = if options.read_only { stamp_file.lock_shared(path)? } else { stamp_file.lock(path)? };
        let found = stamp_file.read(path)?;
        match usage {
            Use::Shared => break join(directory, &stamp_file, found, options)?,
            Use::Alone => {
                let opened = begin(directory, &stamp_file, found.clone(), options).inspect_err(|_| {
                    // An error is no crash: the next start finds the stamp as this one did. The first error is the one to
                    // report.
                    let _ = stamp_file.restore(found.as_ref(), path);
                })?;
                stamp_file.lock_shared(path)?;
                // Between the two locks there was none: whoever was alone then may have changed what the store is.
                if stamp_file.read(path)?.as_ref() == Some(&opened.4) {
                    break opened;
                }
            }
        }
    };
    Ok(Parts { env, marks, writer, spare, stamp, stamp_file })
}

fn stamp_file(directory: &Directory, options: &Options) -> Result<StampFile> {
    if !options.read_only {
        check_ours(directory)?;
        return Ok(StampFile::new(directory.open_or_create("stamp")?));
    }
    match directory.read("stamp")? {
        Some((file, _)) => Ok(StampFile::new(file.into())),
        None => {
            let found = "a directory without a stamp".to_owned();
            Err(refused(directory.path(), "a store, to be read only", found))
        }
    }
}

/// Opens a store that others have open.
fn join(directory: &Directory, stamp_file: &StampFile, found: Option<Stamp>, options: &Options) -> Result<Opened> {
    let path = directory.path();
    let Some(stamp) = found else {
        return Err(refused(path, "a store", "an empty stamp: it was never opened".to_owned()));
    };
    if stamp.namespace != pid_namespace() || !is_whole(&stamp) {
        return Err(not_shared(&stamp, path, stamp_file.is_alone()));
    }
    options.check_stamp(&stamp, path)?;
    open_parts(directory, stamp, options)
}

/// Opens, makes or empties a store that nobody has open. The stamp counts the start until the index was read.
fn begin(directory: &Directory, stamp_file: &StampFile, found: Option<Stamp>, options: &Options) -> Result<Opened> {
    let path = directory.path();
    let stamp = prepare(directory, found, options)?;
    options.check_stamp(&stamp, path)?;
    stamp_file.write(&Stamp { starts: stamp.starts + 1, ..stamp.clone() }, path)?;
    let parts = open_parts(directory, Stamp { starts: 0, ..stamp }, options)?;
    try_out(&parts.0).map_err(|fault| directory.io("open", INDEX, fault))?;
    stamp_file.write(&parts.4, path)?;
    Ok(parts)
}

fn open_parts(directory: &Directory, stamp: Stamp, options: &Options) -> Result<Opened> {
    let env = open_environment(directory, &stamp, options.read_only)?;
    if options.read_only {
        return Ok((env, Marks::private()?, None, None, stamp));
    }
    let marks = Marks::open(directory)?;
    let spare = Spare::open(directory, &marks)?;
    let writer = WriterLock::new(directory.open_or_create("writer.lock")?, directory.path())?;
    Ok((env, marks, Some(writer), Some(spare), stamp))
}

/// Reads what every use will read: an index that kills its reader does so here, where starts are counted.
fn try_out(env: &Environment) -> Result<(), Fault> {
    let mut rows = 0;
    env.read()?.walk(&[0], |_, row| {
        rows += usize::from(!row.is_empty());
        rows < 16
    })
}

/// A directory is ours if it is empty, or has a stamp, or has only what older formats made.
fn check_ours(directory: &Directory) -> Result<()> {
    let Some(other) = directory.names()?.find(|name| !is_old(name)) else { return Ok(()) };
    // A store has its stamp before any other file.
    match directory.read("stamp")? {
        Some(_) => Ok(()),
        None => Err(refused(
            directory.path(),
            "an empty directory or a store",
            format!("a directory with other files, such as {other:.60?}; choose another one"),
        )),
    }
}

/// Whether a file is a blob of format 1: 64 hexadecimal digits, or a temporary name.
fn is_old(name: &str) -> bool {
    name.starts_with(".tmp-") || name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Why a store cannot be used together with others, or as it is by who may only read.
fn not_shared(stamp: &Stamp, path: &str, alone: bool) -> Error {
    let (expected, found) = if !alone {
        (
            "a store in use only by processes of this PID namespace",
            "one in use from another; give each container a directory of its own, or let them share the namespace",
        )
    } else if is_whole(stamp) {
        (
            "a store of this PID namespace, to be read only",
            "one of another; open it for writing first, which takes it over",
        )
    } else {
        (
            "a store that was opened for writing since the machine started, or with durability=power, to be read only",
            "one of before, of which nobody knows what reached the disk; open it for writing, which empties it",
        )
    };
    refused(path, expected, found.to_owned())
}

/// After another start of the machine, only what was written through to the disk is whole.
fn is_whole(stamp: &Stamp) -> bool {
    stamp.boot == boot_id() || stamp.durability == Durability::Power
}

/// The stamp to work with, by who is alone: what cannot be believed any more is removed first.
fn prepare(directory: &Directory, found: Option<Stamp>, options: &Options) -> Result<Stamp> {
    let (index, durability) = (options.index.unwrap_or_default(), options.durability.unwrap_or_default());
    let Some(stamp) = found else {
        empty(directory)?;
        return Ok(Stamp::new(options.map_size(index, None), index, durability));
    };
    // Nobody has it mapped, so it may grow.
    let map_size = options.map_size(stamp.index, Some(stamp.map_size));
    if stamp.starts < MOST_STARTS && is_whole(&stamp) {
        return Ok(Stamp { boot: boot_id(), namespace: pid_namespace(), map_size, ..stamp });
    }
    empty(directory)?;
    Ok(Stamp::new(map_size, stamp.index, stamp.durability))
}

/// Removes what a store consists of, and what format 1 left.
fn empty(directory: &Directory) -> Result<()> {
    let blobs = directory.inside("blobs")?;
    for name in blobs.names()? {
        blobs.unlink(&name)?;
    }
    for name in directory.names()? {
        if is_old(&name) || matches!(name.as_str(), INDEX | INDEX_LOCK | MARKS) {
            directory.unlink(&name)?;
        }
    }
    Ok(())
}

fn open_environment(directory: &Directory, stamp: &Stamp, read_only: bool) -> Result<Environment> {
    let failed = |error: std::io::Error| directory.io("open", INDEX, error);
    let path = CString::new(directory.path_to(INDEX)).map_err(|error| failed(error.into()))?;
    let map_size = usize::try_from(stamp.map_size).map_err(|_| Error::Memory { bytes: usize::MAX })?;
    let write_map = stamp.index == IndexMode::WriteMap;
    if !read_only {
        // A reader whose slot the disk has no room for would be killed.
        let file = File::from(directory.open_or_create(INDEX_LOCK)?);
        directory.allocate(&file, INDEX_LOCK, u64::from(MAX_READERS) * 64 + 4096)?;
    }
    if write_map && !read_only {
        // A page that the disk has no room for would kill its writer. LMDB extends the file: what is not empty it takes for
        // an index.
        let file = File::from(directory.open_or_create(INDEX)?);
        directory.allocate(&file, INDEX, stamp.map_size)?;
    }
    let flags = Flags { read_only, synchronous: stamp.durability == Durability::Power, write_map };
    Environment::open(path, map_size, MAX_READERS, flags).map_err(|fault| failed(fault.into()))
}
