//! X25519 key pairs: whoever has the public key seals a data key that the private one opens alone.
//!
//! It is HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, by the library that TLS has too.
//! Anybody can seal for a public key: that a wrap opens says nothing about who made it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use tokio_rustls::rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::KEY_LEN;
use crate::clock;
use crate::error::{Class, Error, Result};

/// What HPKE is told that it is for; part of the repository format.
const INFO: &[u8] = b"backupd/1 wrap";

/// What a public key is written as begins with this; base64 of its bytes follows.
const PREFIX: &str = "x25519:";

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `x-` and the first 16 hex digits of the SHA-256 of its bytes; part of object names.
    pub id: String,
    bytes: [u8; KEY_LEN],
}

/// A key pair. The private key is wiped from memory when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyPair {
    /// The key to give to others.
    #[zeroize(skip)]
    pub public: PublicKey,
    /// When it was made, RFC 3339.
    #[zeroize(skip)]
    pub created_at: String,
    secret: [u8; KEY_LEN],
}

/// A sealed data key: what HPKE calls the encapsulated key, and the ciphertext.
#[derive(Debug)]
pub struct Sealed {
    /// 32 bytes.
    pub encapsulated: Vec<u8>,
    /// The data key and a tag of 16 bytes.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public.id)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.bytes))
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok());
        let bytes = bytes.and_then(|bytes| <[u8; KEY_LEN]>::try_from(bytes).ok());
        bytes.map(Self::from_bytes).ok_or_else(|| {
            Error::new(Class::Usage, "this is no public key")
                .hint("it is x25519:… as `backupd key public FILE` prints it")
        })
    }
}

impl PublicKey {
    fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        let digest = hex::encode(Sha256::digest(bytes));
        Self { id: format!("x-{}", digest.get(..16).unwrap_or_default()), bytes }
    }

    /// Seals `plain` so that the private key alone opens it, and only with the same `aad`.
    ///
    /// # Errors
    /// `Key` when this is no point that a key can be agreed with.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Sealed> {
        let sealed = SUITE.seal(INFO, aad, plain, &HpkePublicKey(self.bytes.to_vec()));
        let (encapsulated, ciphertext) = sealed.map_err(|_| {
            Error::new(Class::Key, format!("nothing can be sealed for the public key {}", self.id))
                .hint("have it printed again where its key file is: backupd key public FILE")
        })?;
        Ok(Sealed { encapsulated: encapsulated.0, ciphertext })
    }
}

impl KeyPair {
    /// A new one.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn generate() -> Result<Self> {
        let failed = || Error::new(Class::Unforeseen, "no key pair can be made");
        let (public, private) = SUITE.generate_key_pair().map_err(|_| failed())?;
        let public = <[u8; KEY_LEN]>::try_from(public.0).map_err(|_| failed())?;
        let secret = <[u8; KEY_LEN]>::try_from(private.secret_bytes()).map_err(|_| failed())?;
        Ok(Self { public: PublicKey::from_bytes(public), created_at: clock::text(clock::now()), secret })
    }

    /// The pair of a public key as it is written, and of base64 of the private one.
    pub(super) fn read(public: &str, secret: &str, created_at: &str) -> Result<Self, String> {
        let public: PublicKey = public.parse().map_err(|_| "a public key is not x25519: and base64 of 32 bytes")?;
        let secret = BASE64.decode(secret).map(Zeroizing::new).ok();
        let secret = secret.and_then(|secret| <[u8; KEY_LEN]>::try_from(secret.as_slice()).ok());
        let secret = secret.ok_or_else(|| format!("the secret of {} is not base64 of 32 bytes", public.id))?;
        Ok(Self { public, created_at: created_at.to_owned(), secret })
    }

    /// Base64 of the private key, for the key file.
    pub(super) fn secret_text(&self) -> String {
        BASE64.encode(self.secret)
    }

    /// Opens what was sealed for the public key with this `aad`; nothing when it was not.
    #[must_use]
    pub fn open(&self, aad: &[u8], sealed: Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let private = HpkePrivateKey::from(self.secret.to_vec());
        let encapsulated = EncapsulatedSecret(sealed.encapsulated);
        SUITE.open(&encapsulated, INFO, aad, &sealed.ciphertext, &private).ok().map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_for_a_public_key_opens_with_its_private_key_alone() {
        let (pair, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let public: PublicKey = pair.public.to_string().parse().unwrap();
        assert_eq!(public, pair.public);
        let sealed = || public.seal(b"aad", b"a data key").unwrap();
        assert_eq!(pair.open(b"aad", sealed()).unwrap().as_slice(), b"a data key");
        assert!(other.open(b"aad", sealed()).is_none() && pair.open(b"other", sealed()).is_none());
        let mut bent = sealed();
        bent.encapsulated[0] ^= 1;
        assert!(pair.open(b"aad", bent).is_none());
        let again = KeyPair::read(&public.to_string(), &pair.secret_text(), "now").unwrap();
        assert_eq!(again.open(b"aad", sealed()).unwrap().as_slice(), b"a data key");
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        for wrong in ["", "x25519:", "x25519:AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
            assert_eq!(wrong.parse::<PublicKey>().unwrap_err().class(), Class::Usage, "{wrong}");
        }
        // no key can be agreed with the point zero
        let zero = PublicKey::from_bytes([0; KEY_LEN]);
        assert_eq!(zero.seal(b"", b"x").unwrap_err().class(), Class::Key);
    }
}
