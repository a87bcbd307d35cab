//! A data key sealed for one master key: `wrap-<key-id>.json` beside the manifest.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keyring::MasterKey;
use super::{DataKey, random};
use crate::canonical::{self, Proof, damaged};
use crate::error::{Class, Error, Result};

/// What a wrap object says. Its proof is a digest, since it is read before any key is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// 1.
    pub format: u32,
    /// The snapshot whose data key it holds.
    pub snapshot_id: String,
    /// The master key that opens it.
    pub key_id: String,
    /// `aes-256-gcm`.
    pub algorithm: String,
    /// 12 bytes, base64.
    pub nonce: String,
    /// The sealed data key and its tag, 48 bytes, base64.
    pub ciphertext: String,
}

const ALGORITHM: &str = "aes-256-gcm";

/// The associated data: binds the wrap to its snapshot and its key.
fn associated(snapshot_id: &str, key_id: &str) -> Vec<u8> {
    ["backupd/1 wrap", snapshot_id, key_id].join("\0").into_bytes()
}

/// Seals `data_key` for `master`; the bytes of the wrap object.
///
/// # Errors
/// When no randomness is to be had.
pub fn seal(snapshot_id: &str, data_key: &DataKey, master: &MasterKey) -> Result<Vec<u8>> {
    let nonce: [u8; 12] = random()?;
    let aad = associated(snapshot_id, &master.id);
    let ciphertext = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*master.expose()))
        .encrypt(&Nonce::from(nonce), Payload { msg: data_key.expose(), aad: &aad })
        .map_err(|_| Error::new(Class::Unforeseen, "the data key cannot be sealed"))?;
    let wrap = Wrap {
        format: 1,
        snapshot_id: snapshot_id.to_owned(),
        key_id: master.id.clone(),
        algorithm: ALGORITHM.to_owned(),
        nonce: BASE64.encode(nonce),
        ciphertext: BASE64.encode(ciphertext),
    };
    canonical::seal(&wrap, Proof::Digest)
}

/// Reads a wrap object (`name` is for messages) and checks that it belongs to this snapshot and key.
///
/// # Errors
/// `Verification` when it is damaged or another's.
pub fn parse(name: &str, file: &[u8], snapshot_id: &str, key_id: &str) -> Result<Wrap> {
    let wrap: Wrap = canonical::open(name, canonical::parse(name, file)?, Proof::Digest)?;
    if wrap.format != 1 || wrap.algorithm != ALGORITHM {
        let what = format!("{name}: wrap format {} with {} is not known", wrap.format, wrap.algorithm);
        return Err(Error::new(Class::Version, what).hint("a newer backupd wrote it: use that version"));
    }
    if wrap.snapshot_id != snapshot_id || wrap.key_id != key_id {
        return Err(damaged(name, "it belongs to another snapshot or another key"));
    }
    Ok(wrap)
}

/// Opens a wrap with the master key that it names.
///
/// # Errors
/// `Key` when this is not the key that sealed it; `Verification` when its fields have impossible lengths.
pub fn open(name: &str, wrap: &Wrap, master: &MasterKey) -> Result<DataKey> {
    let field = |text: &str| BASE64.decode(text).map_err(|_| damaged(name, "a field is not base64"));
    let nonce = <[u8; 12]>::try_from(field(&wrap.nonce)?).map_err(|_| damaged(name, "its nonce is not 12 bytes"))?;
    let ciphertext = field(&wrap.ciphertext)?;
    let aad = associated(&wrap.snapshot_id, &wrap.key_id);
    let plain = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*master.expose()))
        .decrypt(&Nonce::from(nonce), Payload { msg: &ciphertext, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| {
            Error::new(Class::Key, format!("{name}: key {} of the key file does not open it", master.id))
                .hint("the key file holds another secret under this id: use the key file that made the snapshot")
        })?;
    let plain = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| damaged(name, "the data key is not 32 bytes"))?;
    Ok(DataKey::from_bytes(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::keyring::Keyring;

    #[test]
    fn a_wrap_opens_with_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::generate(&dir.path().join("a")).unwrap();
        let other = Keyring::generate(&dir.path().join("b")).unwrap();
        let (key, data) = (ring.active().unwrap(), DataKey::random().unwrap());
        let file = seal("s1", &data, key).unwrap();
        let wrap = parse("wrap", &file, "s1", &key.id).unwrap();
        assert_eq!(open("wrap", &wrap, key).unwrap().expose(), data.expose());
        assert_eq!(open("wrap", &wrap, other.active().unwrap()).unwrap_err().class(), Class::Key);
        assert_eq!(parse("wrap", &file, "s2", &key.id).unwrap_err().class(), Class::Verification);
    }
}
