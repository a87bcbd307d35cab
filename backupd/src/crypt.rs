//! Keys: the random data key of a snapshot, what is derived from it, and the master keys that wrap it.
//!
//! Derivation is HKDF-SHA256 (RFC 5869) with the data key as input key material; the labels are part of the
//! repository format and stand in `docs/format.md`.

pub mod keyring;
pub mod kms;
pub mod master;
pub mod pair;
pub mod wrap;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Class, Error, Result};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// The random key of one snapshot. Wiped from memory when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; KEY_LEN]);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self> {
        Ok(Self(random()?))
    }

    /// The key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be sealed by a master key.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key of the manifest's MAC.
    ///
    /// # Errors
    /// Never in practice: only if the length asked of HKDF were impossible.
    pub fn manifest_key(&self) -> Result<Zeroizing<[u8; KEY_LEN]>> {
        derive(&self.0, b"", &[b"backupd/1 manifest"])
    }

    /// The key of the MAC of facts.
    ///
    /// # Errors
    /// Never in practice: only if the length asked of HKDF were impossible.
    pub fn fact_key(&self) -> Result<Zeroizing<[u8; KEY_LEN]>> {
        derive(&self.0, b"", &[b"backupd/1 fact"])
    }
}

/// HKDF-SHA256 of `key` with `salt`; the info is the concatenation of `info`.
///
/// # Errors
/// Never in practice: only if the length asked of HKDF were impossible.
pub fn derive<const N: usize>(key: &[u8], salt: &[u8], info: &[&[u8]]) -> Result<Zeroizing<[u8; N]>> {
    let mut derived = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand_multi_info(info, derived.as_mut())
        .map_err(|_| Error::new(Class::Unforeseen, "a key of this length cannot be derived"))?;
    Ok(derived)
}

/// Random bytes from the operating system.
///
/// # Errors
/// When the operating system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Class::Unforeseen, format!("the operating system gave no random bytes: {error}"))
    })?;
    Ok(bytes)
}
