//! The keys of a process: which master key an entry is under, and what was derived from it so far.

use super::aead::{Aead, Cipher};
use super::digits::hex;
use super::header::{BEFORE_SALT, Sealed, Template, check_tenant};
use super::keys::{KeyId, MasterKey, TenantKeys, decode_hex};
use super::open::refused;
use crate::error::{Error, Refusal, Result};
use crate::fork::PerProcess;
use crate::key::Name;
use crate::random;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// How many entries are sealed under one salt. Nonces are random: with 2^31 of them, two are equal with a probability
/// of 2^-35.
const ENTRIES_PER_SALT: u32 = 1 << 31;
/// Places for sealing keys, expanded: one for each salt and tenant that was met.
const SEALING_KEYS: usize = 256;
/// Places for what is derived from a master key and a tenant.
const TENANTS: usize = 64;

/// The variable of the current master key, in hexadecimal digits.
const VARIABLE: &str = "FRAMECACHE_MASTER_KEY";
/// The variable of the previous ones, with commas between them.
const PREVIOUS_VARIABLE: &str = "FRAMECACHE_PREVIOUS_MASTER_KEYS";

/// Master keys: the current one, which seals, and previous ones, which still open.
///
/// Rotating is making a keyring with a new current key and the old one among the previous; when
/// [`Statistics::opened`] shows no more reads by it, the old one can go. Entries under a key that is in no keyring any
/// more cannot be read by anybody.
///
/// Derived keys are kept, expanded, in places of a fixed number. A forked child derives its own, and draws its own salt.
pub struct Keyring {
    /// The current one first.
    masters: Vec<Held>,
    state: PerProcess<State>,
    sealed: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

struct Held {
    key: MasterKey,
    id: String,
    opened: AtomicU64,
}

/// What [`Keyring::statistics`] counted since the keyring was made, in this process and those it was forked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Entries sealed.
    pub sealed: u64,
    /// Entries opened under each master key, the current one first.
    pub opened: Vec<(KeyId, u64)>,
    /// Entries refused, by reason.
    pub refused: Vec<(Refusal, u64)>,
}

/// Under these locks nothing is allocated or dropped.
struct State {
    salt: Mutex<Salt>,
    sealing: Mutex<SealingKeys>,
    tenants: Mutex<Box<[Option<Arc<Tenant>>]>>,
}

struct Salt {
    bytes: [u8; 16],
    /// How many more entries may be sealed under it.
    left: u32,
    /// The key under which the last one was sealed.
    last: Option<Arc<SealingKey>>,
}

struct SealingKeys {
    places: Box<[Option<Arc<SealingKey>>]>,
    /// The place of the one that was found last.
    last: usize,
}

/// The key of a master key, a salt and a tenant.
pub(super) struct SealingKey {
    pub(super) template: Template,
    pub(super) tenant: Box<str>,
    master: usize,
    pub(super) cipher: Cipher,
    pub(super) check: [u8; 16],
}

struct Tenant {
    master: usize,
    tenant: Box<str>,
    keys: TenantKeys,
}

impl State {
    fn new() -> Self {
        Self {
            salt: Mutex::new(Salt { bytes: [0; 16], left: 0, last: None }),
            sealing: Mutex::new(SealingKeys { places: (0..SEALING_KEYS).map(|_| None).collect(), last: 0 }),
            tenants: Mutex::new((0..TENANTS).map(|_| None).collect()),
        }
    }
}

impl Keyring {
    /// A keyring that seals under `current` and opens what is under any of the keys.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key that is there twice.
    pub fn new(current: MasterKey, previous: Vec<MasterKey>) -> Result<Self> {
        let mut masters: Vec<Held> = Vec::with_capacity(1 + previous.len());
        for key in std::iter::once(current).chain(previous) {
            if masters.iter().any(|held| held.key.id() == key.id()) {
                let found = format!("key {} twice", key.id());
                return Err(Error::Argument {
                    argument: "previous",
                    expected: "other keys than the current one".into(),
                    found,
                });
            }
            masters.push(Held { id: key.id().to_hex(), key, opened: AtomicU64::new(0) });
        }
        let refused = [const { AtomicU64::new(0) }; Refusal::ALL.len()];
        Ok(Self { masters, state: PerProcess::new(), sealed: AtomicU64::new(0), refused })
    }

    /// The keyring that the environment describes: `FRAMECACHE_MASTER_KEY` has the current key in hexadecimal digits,
    /// `FRAMECACHE_PREVIOUS_MASTER_KEYS` any number of previous ones with commas between them.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no current key, and for anything that is no key.
    pub fn from_env() -> Result<Self> {
        let current = MasterKey::from_variable(VARIABLE)?.ok_or_else(|| Error::Argument {
            argument: "master key",
            expected: format!("64 or more hexadecimal digits in the variable {VARIABLE}").into(),
            found: "none".to_owned(),
        })?;
        Self::new(current, MasterKey::all_from_variable(PREVIOUS_VARIABLE)?)
    }

    /// The ids of its master keys, the current one first.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.masters.iter().map(|held| held.key.id())
    }

    /// The name of a key for the tenant, under the current master key: keyed BLAKE3, which nobody without the keyring can
    /// compute.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key or tenant that is too long, [`Error::Memory`].
    pub fn name(&self, tenant: &str, key: &str) -> Result<Name> {
        check_tenant(tenant)?;
        Name::keyed(self.tenant(0, tenant)?.keys.names(), key)
    }

    /// The names that a key's entry may have, the one under the current master key first: a reader looks under all of
    /// them, and what deletes or touches does it to all.
    ///
    /// # Errors
    /// As [`Self::name`].
    pub fn names(&self, tenant: &str, key: &str) -> Result<Vec<Name>> {
        check_tenant(tenant)?;
        let masters = 0..self.masters.len();
        masters.map(|master| Name::keyed(self.tenant(master, tenant)?.keys.names(), key)).collect()
    }

    /// As [`Self::names`], of a tag: no key has the name of a tag.
    ///
    /// # Errors
    /// As [`Self::name`].
    pub fn tag_names(&self, tenant: &str, tag: &str) -> Result<Vec<Name>> {
        check_tenant(tenant)?;
        let masters = 0..self.masters.len();
        masters.map(|master| Name::keyed_tag(self.tenant(master, tenant)?.keys.names(), tag)).collect()
    }

    /// What was sealed, opened and refused.
    pub fn statistics(&self) -> Statistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            sealed: count(&self.sealed),
            opened: self.masters.iter().map(|held| (held.key.id(), count(&held.opened))).collect(),
            refused: Refusal::ALL
                .into_iter()
                .zip(&self.refused)
                .map(|(reason, counter)| (reason, count(counter)))
                .collect(),
        }
    }

    /// Counts one entry more under this process's salt; returns its key.
    #[inline]
    pub(super) fn begin_entry(&self, tenant: &str) -> Result<Arc<SealingKey>> {
        let mut salt = lock(&self.state.get(State::new).salt);
        match &salt.last {
            Some(last) if *last.tenant == *tenant && salt.left > 0 => {
                let last = last.clone();
                salt.left -= 1;
                self.count_sealed_locked();
                Ok(last)
            }
            _ => {
                drop(salt);
                self.begin_other_entry(tenant)
            }
        }
    }

    /// As [`Self::begin_entry`], under another tenant's key than the last one, or another salt.
    fn begin_other_entry(&self, tenant: &str) -> Result<Arc<SealingKey>> {
        check_tenant(tenant)?;
        let salt = self.next_salt()?;
        let template = Template::new(self.masters[0].id.as_bytes(), &hex::<16, 32>(&salt), tenant);
        let key = match self.find_sealing_key(template.start()) {
            Some(found) => found,
            None => self.make_sealing_key(0, tenant, &salt, template)?,
        };
        // Not dropped under the lock.
        drop(self.remember(&salt, &key));
        Ok(key)
    }

    /// Makes the key the last one, if that salt is still this process's; returns the one that it replaces.
    fn remember(&self, salt: &[u8; 16], key: &Arc<SealingKey>) -> Option<Arc<SealingKey>> {
        let mut current = lock(&self.state.get(State::new).salt);
        if current.bytes == *salt { current.last.replace(key.clone()) } else { None }
    }

    /// The key under which an entry was sealed.
    pub(super) fn key_of(&self, sealed: &Sealed<'_>) -> Result<Arc<SealingKey>> {
        if let Some(found) = self.find_sealing_key(sealed.start) {
            return Ok(found);
        }
        let master = self.master_of(sealed.key_id())?;
        let mut salt = [0; 16];
        // Digits in capitals are not those that were written.
        if !decode_hex(sealed.salt(), &mut salt) || sealed.salt().iter().any(u8::is_ascii_uppercase) {
            return Err(refused(Refusal::ChangedHeader, "32 hexadecimal digits as salt", "others"));
        }
        // It was found to be UTF-8.
        let tenant = String::from_utf8_lossy(sealed.tenant());
        let template = Template::new(sealed.key_id(), sealed.salt(), &tenant);
        self.make_sealing_key(master, &tenant, &salt, template)
    }

    /// The name that the entry of `key` has if it is under the master key of this id.
    pub(super) fn name_under(&self, key_id: &[u8], tenant: &str, key: &str) -> Result<Name> {
        check_tenant(tenant)?;
        Name::keyed(self.tenant(self.master_of(key_id)?, tenant)?.keys.names(), key)
    }

    pub(super) fn count_opened(&self, key: &SealingKey) {
        self.count_opened_under(key.master);
    }

    pub(super) fn count_opened_under(&self, master: usize) {
        self.masters[master].opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what is sealed under a key of its own.
    pub(super) fn count_sealed(&self) {
        let _salt = lock(&self.state.get(State::new).salt);
        self.count_sealed_locked();
    }

    /// A plain addition: all of a process's are made under the lock of its salt.
    fn count_sealed_locked(&self) {
        self.sealed.store(self.sealed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The id of the current master key, in hexadecimal digits.
    pub(super) fn current_id(&self) -> &str {
        &self.masters[0].id
    }

    /// The key of the stream that these 32 bytes name, and its check.
    pub(super) fn stream_cipher(
        &self,
        master: usize,
        tenant: &str,
        salt: &[u8; 16],
        stream: &[u8; 32],
    ) -> Result<(Cipher, [u8; 16])> {
        let keys = self.tenant(master, tenant)?;
        let (cipher, check) = keys.keys.stream(salt, stream, |key, check| (Cipher::new(key), check));
        // It fails where there is no memory for the expanded key.
        Ok((cipher.map_err(|_| Error::Memory { bytes: 1024 })?, check))
    }

    pub(super) fn count_refused(&self, error: &Error) {
        if let Error::Refused { reason, .. } = error {
            self.refused[*reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn master_of(&self, key_id: &[u8]) -> Result<usize> {
        self.masters.iter().position(|held| held.id.as_bytes() == key_id).ok_or_else(|| {
            let ids = self.masters.iter().map(|held| held.id.as_str()).collect::<Vec<_>>().join(", ");
            refused(
                Refusal::NoKey,
                format!("one of the master keys {ids}"),
                String::from_utf8_lossy(key_id).into_owned(),
            )
        })
    }

    /// This process's salt, for one entry more.
    fn next_salt(&self) -> Result<[u8; 16]> {
        let mut salt = lock(&self.state.get(State::new).salt);
        let mut outdated = None;
        if salt.left == 0 {
            (salt.bytes, salt.left) = (random::bytes()?, ENTRIES_PER_SALT);
            outdated = salt.last.take();
        }
        salt.left -= 1;
        self.count_sealed_locked();
        let next = salt.bytes;
        drop(salt);
        drop(outdated);
        Ok(next)
    }

    fn make_sealing_key(
        &self,
        master: usize,
        tenant: &str,
        salt: &[u8; 16],
        template: Template,
    ) -> Result<Arc<SealingKey>> {
        let keys = self.tenant(master, tenant)?;
        let (cipher, check) = keys.keys.sealing(salt, |key, check| (Cipher::new(key), check));
        // It fails where there is no memory for the expanded key.
        let cipher = cipher.map_err(|_| Error::Memory { bytes: 1024 })?;
        let at = place_of_start(template.start());
        let made = Arc::new(SealingKey { template, tenant: tenant.into(), master, cipher, check });
        let replaced = {
            let mut keys = lock(&self.state.get(State::new).sealing);
            keys.last = at;
            keys.places[at].replace(made.clone())
        };
        drop(replaced);
        Ok(made)
    }

    fn find_sealing_key(&self, start: &[u8]) -> Option<Arc<SealingKey>> {
        let at = place_of_start(start);
        let mut keys = lock(&self.state.get(State::new).sealing);
        let found = keys.places[at].as_ref().filter(|key| *key.template.start() == *start).cloned();
        if found.is_some() {
            keys.last = at;
        }
        found
    }

    /// The sealing key that was found last, if `json` starts as the headers of its entries do.
    #[inline]
    pub(super) fn last_sealing_key(&self, json: &[u8]) -> Option<Arc<SealingKey>> {
        let keys = lock(&self.state.get(State::new).sealing);
        keys.places[keys.last].as_ref().filter(|key| json.starts_with(key.template.start())).cloned()
    }

    fn tenant(&self, master: usize, tenant: &str) -> Result<Arc<Tenant>> {
        let at = place(tenant.as_bytes(), TENANTS) ^ (master % TENANTS);
        let found = lock(&self.state.get(State::new).tenants)[at].clone();
        if let Some(found) = found.filter(|found| found.master == master && *found.tenant == *tenant) {
            return Ok(found);
        }
        let keys = self.masters[master].key.tenant(tenant)?;
        let made = Arc::new(Tenant { master, tenant: tenant.into(), keys });
        let replaced = lock(&self.state.get(State::new).tenants)[at].replace(made.clone());
        drop(replaced);
        Ok(made)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.key_ids()).finish()
    }
}

/// The place of a sealing key: what differs in the starts of headers is at their end.
fn place_of_start(start: &[u8]) -> usize {
    place(&start[start.len().min(BEFORE_SALT)..], SEALING_KEYS)
}

fn place(bytes: &[u8], places: usize) -> usize {
    // Both numbers of places are powers of two.
    xxh3_64(bytes) as usize % places
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change under a lock is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Namespace;

    fn keyring(current: u8, previous: &[u8]) -> Keyring {
        let key = |byte: &u8| MasterKey::from_bytes(&[*byte; 32]).expect("32 bytes");
        Keyring::new(key(&current), previous.iter().map(key).collect()).expect("different keys")
    }

    fn salt_of(keyring: &Keyring) -> [u8; 16] {
        keyring.next_salt().expect("random")
    }

    #[test]
    fn a_salt_serves_2_to_the_31_entries() {
        let keyring = keyring(1, &[]);
        let first = salt_of(&keyring);
        assert_eq!(salt_of(&keyring), first);
        lock(&keyring.state.get(State::new).salt).left = 1;
        assert_eq!(salt_of(&keyring), first);
        let second = salt_of(&keyring);
        assert_ne!(second, first);
        assert_eq!(lock(&keyring.state.get(State::new).salt).left, ENTRIES_PER_SALT - 1);
    }

    #[test]
    fn names_differ_by_master_tenant_and_kind() {
        let keyring = keyring(1, &[2]);
        let names = keyring.names("a", "k").expect("short");
        assert_eq!((names.len(), names[0]), (2, keyring.name("a", "k").expect("short")));
        let mut all = names;
        all.extend(keyring.names("b", "k").expect("short"));
        all.extend(keyring.names("a", "l").expect("short"));
        all.extend(keyring.tag_names("a", "k").expect("short"));
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (8, 8));
        assert!(!all.contains(&Namespace::new("").expect("short").name_of("k").expect("short")));
    }

    #[test]
    fn many_tenants_and_salts_share_few_places() {
        let keyring = keyring(1, &[]);
        let names: Vec<_> = (0..1000).map(|index| keyring.name(&format!("t{index}"), "k").expect("short")).collect();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(keyring.name(&format!("t{index}"), "k").ok(), Some(*name));
        }
    }

    #[test]
    fn a_tenant_must_fit_a_header() {
        let keyring = keyring(1, &[]);
        for tenant in ["", "a\"b", "a\\b", "a\nb", &"x".repeat(257)] {
            assert!(matches!(keyring.name(tenant, "k"), Err(Error::Argument { argument: "tenant", .. })), "{tenant}");
        }
        assert!(keyring.name(&"x".repeat(256), "k").is_ok() && keyring.name("Ünï 🗝", "k").is_ok());
    }

    #[test]
    fn a_key_stands_in_a_keyring_once() {
        let key = || MasterKey::from_bytes(&[1; 32]).expect("32 bytes");
        assert!(matches!(Keyring::new(key(), vec![key()]), Err(Error::Argument { argument: "previous", .. })));
    }
}
