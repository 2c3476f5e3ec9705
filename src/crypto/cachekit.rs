//! Keys as cachekit derives them, to read what it wrote. Nothing is sealed with them.

use super::keys::hkdf;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};

/// cachekit's key of a domain (`encryption` for entries) and a tenant: 32 bytes.
///
/// # Errors
/// [`Error::Argument`] for a master key of less than 16 bytes, a tenant of 0 or more than 1024 bytes, a domain of more
/// than 255.
pub fn derive_domain_key(master: &[u8], domain: &str, tenant: &[u8]) -> Result<[u8; 32]> {
    let outside = |argument, expected: &'static str, found: usize| {
        Err(Error::Argument { argument, expected: expected.into(), found: format!("{found} bytes") })
    };
    if master.len() < 16 {
        return outside("master", "at least 16 bytes", master.len());
    }
    let Ok(domain_length) = u8::try_from(domain.len()) else {
        return outside("domain", "at most 255 bytes", domain.len());
    };
    let Some(tenant_length) = u16::try_from(tenant.len()).ok().filter(|length| (1..=1024).contains(length)) else {
        return outside("tenant", "1 to 1024 bytes", tenant.len());
    };
    let mut salt = Vec::with_capacity(15 + domain.len() + tenant.len());
    salt.extend_from_slice(b"cachekit_v1_");
    salt.push(domain_length);
    salt.extend_from_slice(domain.as_bytes());
    salt.extend_from_slice(&tenant_length.to_be_bytes());
    salt.extend_from_slice(tenant);
    let mut key = [0; 32];
    hkdf(master, &salt, domain.as_bytes(), &mut key);
    Ok(key)
}

/// What cachekit's headers call a derived key: 16 bytes, of which the header has the hexadecimal digits.
pub fn key_fingerprint(derived_key: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"key_fingerprint_v1").chain_update(derived_key).finalize();
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&digest[..16]);
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn they_are_cachekits() {
        let mut master = [0; 32];
        master[31] = 1;
        let key = derive_domain_key(&master, "encryption", b"default").expect("valid");
        assert_eq!(hex(&key), "222dd8cf7c63750f49fd6fc541552f8cdbe0f2d204cd10b082a9d0806a3ddc90");
        assert_eq!(hex(&key_fingerprint(&key)), "7b57d59ef3334761ab2174cddc46dfe4");
    }

    #[test]
    fn what_cachekit_refuses_is_an_error() {
        let refused = |master: &[u8], domain: &str, tenant: &[u8]| {
            matches!(derive_domain_key(master, domain, tenant), Err(Error::Argument { .. }))
        };
        assert!(refused(&[0; 15], "encryption", b"default"));
        assert!(refused(&[0; 32], &"d".repeat(256), b"default"));
        assert!(refused(&[0; 32], "encryption", b"") && refused(&[0; 32], "encryption", &[b't'; 1025]));
    }
}
