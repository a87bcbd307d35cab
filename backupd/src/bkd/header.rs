//! The first 128 bytes of a `.bkd` file, and the key derived for it.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::canonical::damaged;
use crate::crypt::{DataKey, derive, random};
use crate::error::{Class, Error, Result};

/// Bytes of a header.
pub const HEADER_LEN: usize = 128;

const MAGIC: &[u8; 8] = b"BACKUPD\x01";
const VERSION: u16 = 1;
/// The part of the header that the keys are derived for.
const IDENTITY_LEN: usize = 72;
/// The part of the header that its digest covers.
const DIGESTED_LEN: usize = 96;

/// How frames are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// Not encrypted; tags are truncated SHA-256 and notice accidents only.
    None,
    /// AES-256-GCM.
    Aes256Gcm,
}

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// Each frame that shrinks is one zstd frame.
    Zstd,
}

/// The header of one shard's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How frames are sealed.
    pub cipher: Cipher,
    /// How frames are compressed.
    pub compression: Compression,
    /// The most plain bytes in one data frame.
    pub frame_bytes: u32,
    /// The snapshot's id, at most 32 ASCII bytes.
    pub snapshot_id: String,
    /// Index of the shard in its snapshot.
    pub shard: u32,
    /// Which attempt at this shard wrote the file, from 1.
    pub attempt: u32,
    /// Salt of the key derivation.
    pub salt: [u8; 16],
}

/// The key of one `.bkd` file and the value that tells whether it is the right one.
pub struct ObjectKey {
    /// The AES-256 key; `None` for `Cipher::None`.
    pub secret: Option<Zeroizing<[u8; 32]>>,
    check: [u8; 16],
}

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectKey(…)")
    }
}

impl Header {
    /// A header with a fresh salt.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn new(cipher: Cipher, compression: Compression, snapshot_id: &str, shard: u32, attempt: u32) -> Result<Self> {
        let (snapshot_id, salt) = (snapshot_id.to_owned(), random()?);
        Ok(Self { cipher, compression, frame_bytes: super::FRAME_BYTES, snapshot_id, shard, attempt, salt })
    }

    /// Derives the file's key from the snapshot's data key.
    ///
    /// # Errors
    /// `Key` when the file is encrypted and there is no data key.
    pub fn object_key(&self, data_key: Option<&DataKey>) -> Result<ObjectKey> {
        match (self.cipher, data_key) {
            (Cipher::None, _) => Ok(ObjectKey { secret: None, check: [0; 16] }),
            (Cipher::Aes256Gcm, None) => Err(Error::new(Class::Key, "the shard is encrypted and no key was given")
                .hint("give the key file that made the snapshot with --key-file")),
            (Cipher::Aes256Gcm, Some(data_key)) => {
                let identity = self.identity();
                let secret = derive(data_key.expose(), &self.salt, &[b"backupd/1 object", &identity])?;
                let check = *derive(data_key.expose(), &self.salt, &[b"backupd/1 check", &identity])?;
                Ok(ObjectKey { secret: Some(secret), check })
            }
        }
    }

    fn identity(&self) -> [u8; IDENTITY_LEN] {
        let cipher = u8::from(self.cipher == Cipher::Aes256Gcm);
        let compression = u8::from(self.compression == Compression::Zstd);
        let mut id = self.snapshot_id.clone().into_bytes();
        id.resize(32, 0);
        let parts: [&[u8]; 8] = [
            MAGIC,
            &VERSION.to_le_bytes(),
            &[cipher, compression],
            &self.frame_bytes.to_le_bytes(),
            &id,
            &self.shard.to_le_bytes(),
            &self.attempt.to_le_bytes(),
            &self.salt,
        ];
        let mut identity = [0; IDENTITY_LEN];
        identity.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
        identity
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self, key: &ObjectKey) -> [u8; HEADER_LEN] {
        let digested = [self.identity().as_slice(), &key.check, &[0; 8]].concat();
        let digest = Sha256::digest(&digested);
        let mut bytes = [0; HEADER_LEN];
        bytes.iter_mut().zip(digested.iter().chain(digest.iter())).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a header; `name` is the object, for messages.
    ///
    /// # Errors
    /// `Verification` when it is damaged or not a header, `Version` when it is newer than this program.
    pub fn decode(name: &str, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let (digested, digest) = bytes.split_at(DIGESTED_LEN);
        if Sha256::digest(digested).as_slice() != digest {
            return Err(damaged(name, "its header does not match the header's digest"));
        }
        let mut rest = digested;
        let magic = take::<8>(name, &mut rest)?;
        let version = u16::from_le_bytes(take(name, &mut rest)?);
        if &magic != MAGIC || version != VERSION {
            return Err(Error::new(Class::Version, format!("{name}: file format {version} is not known"))
                .hint("a newer backupd wrote it: use that version"));
        }
        let [cipher, compression] = take(name, &mut rest)?;
        let frame_bytes = u32::from_le_bytes(take(name, &mut rest)?);
        let id: [u8; 32] = take(name, &mut rest)?;
        let header = Self {
            cipher: match cipher {
                0 => Cipher::None,
                1 => Cipher::Aes256Gcm,
                _ => return Err(damaged(name, "its cipher is not known")),
            },
            compression: match compression {
                0 => Compression::None,
                1 => Compression::Zstd,
                _ => return Err(damaged(name, "its compression is not known")),
            },
            frame_bytes,
            snapshot_id: String::from_utf8_lossy(&id).trim_end_matches('\0').to_owned(),
            shard: u32::from_le_bytes(take(name, &mut rest)?),
            attempt: u32::from_le_bytes(take(name, &mut rest)?),
            salt: take(name, &mut rest)?,
        };
        if !(1..=super::FRAME_BYTES_MAX).contains(&frame_bytes) {
            return Err(damaged(name, &format!("its frame size of {frame_bytes} bytes is not possible")));
        }
        Ok(header)
    }

    /// Checks that `key` is the one that the header was written with.
    ///
    /// # Errors
    /// `Key` when it is not.
    pub fn check_key(&self, name: &str, bytes: &[u8; HEADER_LEN], key: &ObjectKey) -> Result<()> {
        if self.encode(key) == *bytes {
            return Ok(());
        }
        Err(Error::new(Class::Key, format!("{name}: the data key is not the one that sealed it"))
            .hint("the object was exchanged, or the wrap belongs to another snapshot"))
    }
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(name: &str, rest: &mut &[u8]) -> Result<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>().ok_or_else(|| damaged(name, "it ends too early"))?;
    *rest = after;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_round_trips_and_knows_its_key() {
        let data = DataKey::random().unwrap();
        let id = "20261123T081500Z-0123456789abcde";
        let header = Header::new(Cipher::Aes256Gcm, Compression::Zstd, id, 3, 1).unwrap();
        let key = header.object_key(Some(&data)).unwrap();
        let bytes = header.encode(&key);
        let read = Header::decode("x", &bytes).unwrap();
        assert_eq!(read, header);
        read.check_key("x", &bytes, &key).unwrap();
        let other = read.object_key(Some(&DataKey::random().unwrap())).unwrap();
        assert_eq!(read.check_key("x", &bytes, &other).unwrap_err().class(), Class::Key);
        assert_eq!(read.object_key(None).unwrap_err().class(), Class::Key);
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode("x", &changed).unwrap_err().class(), Class::Verification, "bit {bit}");
        }
    }
}
