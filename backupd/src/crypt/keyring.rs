//! Master keys in a file: several keys, one of them active.
//!
//! The file is JSON: `{"format":1,"active":"k-…","keys":[{"id":"k-…","created_at":"…","secret":"base64 of 32 bytes"}]}`, and `pairs` where
//! others seal for a public key of it.
//! New snapshots are wrapped for the active key; any key of the file opens what was wrapped for it.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::pair::KeyPair;
use super::{KEY_LEN, random};
use crate::clock;
use crate::error::{Class, Error, Result};

/// The largest keyring file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One master key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    /// Its id, `k-` and 16 hex digits; part of object names.
    #[zeroize(skip)]
    pub id: String,
    /// When it was made, RFC 3339.
    #[zeroize(skip)]
    pub created_at: String,
    secret: [u8; KEY_LEN],
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// The secret bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.secret
    }

    fn generate() -> Result<Self> {
        let id = format!("k-{}", hex::encode(random::<8>()?));
        Ok(Self { id, created_at: clock::text(clock::now()), secret: random()? })
    }
}

/// The keys of a keyring file.
#[derive(Debug, Clone)]
pub struct Keyring {
    active: String,
    keys: Vec<MasterKey>,
    pairs: Vec<KeyPair>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    active: String,
    keys: Vec<FileKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<FilePair>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct FileKey {
    id: String,
    created_at: String,
    secret: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct FilePair {
    public: String,
    created_at: String,
    secret: String,
}

impl Keyring {
    /// Makes a keyring file with one new active key; the file must not exist. Only its owner can read it.
    ///
    /// # Errors
    /// `Refused` when the file exists; `Config` when it cannot be written.
    pub fn generate(path: &Path) -> Result<Self> {
        let key = MasterKey::generate()?;
        let keyring = Self { active: key.id.clone(), keys: vec![key], pairs: Vec::new() };
        keyring.write_new(path)?;
        Ok(keyring)
    }

    /// Adds a new key to a keyring file and makes it the active one. Returns the keyring as it is now.
    ///
    /// # Errors
    /// `Key` when the file cannot be used, `Config` when it cannot be written; it is then as it was.
    pub fn add_active(path: &Path) -> Result<Self> {
        let key = MasterKey::generate()?;
        Self::update(path, |keyring| {
            keyring.active.clone_from(&key.id);
            keyring.keys.push(key);
            Ok(())
        })
    }

    /// Adds a new key pair to a keyring file. Returns the keyring as it is now.
    ///
    /// # Errors
    /// As [`Keyring::add_active`].
    pub fn add_pair(path: &Path) -> Result<Self> {
        let pair = KeyPair::generate()?;
        Self::update(path, |keyring| {
            keyring.pairs.push(pair);
            Ok(())
        })
    }

    /// Removes a key or key pair from a keyring file. Whether a snapshot still needs it must be known before.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Refused` when it is the active one, and as [`Keyring::add_active`].
    pub fn remove(path: &Path, id: &str) -> Result<Self> {
        Self::update(path, |keyring| {
            keyring.check_removable(id)?;
            keyring.keys.retain(|key| key.id != id);
            keyring.pairs.retain(|pair| pair.public.id != id);
            Ok(())
        })
    }

    /// Whether a key may be removed as far as the file is concerned.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Refused` when it is the active one.
    pub fn check_removable(&self, id: &str) -> Result<()> {
        if self.find(id).is_none() && self.pairs.iter().all(|pair| pair.public.id != id) {
            return Err(Error::new(Class::NotFound, format!("the key file holds no key {id}")));
        }
        if id == self.active {
            return Err(Error::new(Class::Refused, format!("{id} is the active key"))
                .hint("`backupd key rotate` makes another one active"));
        }
        Ok(())
    }

    /// Changes a keyring file: the new one is durable aside before it takes the place of the old one, and of several
    /// processes one goes after the other.
    fn update(path: &Path, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self> {
        let fail = |error: std::io::Error| {
            Error::new(Class::Config, format!("{}: the key file cannot be changed: {error}", path.display()))
        };
        // a link is followed, so that the file behind it changes and not the link
        let path = std::fs::canonicalize(path).map_err(|error| {
            Error::new(Class::Key, format!("{}: the key file cannot be used: {error}", path.display()))
        })?;
        let _locked = loop {
            let file = std::fs::File::open(&path).map_err(fail)?;
            file.lock().map_err(fail)?;
            // the one before us may have put another file in its place
            if file.metadata().map_err(fail)?.ino() == std::fs::metadata(&path).map_err(fail)?.ino() {
                break file;
            }
        };
        let mut keyring = Self::read(&path)?;
        change(&mut keyring)?;
        let aside = path.with_extension(format!("new-{}", hex::encode(random::<8>()?)));
        let written = keyring.write_new(&aside).and_then(|()| {
            let folder = path.parent().unwrap_or(Path::new("/"));
            std::fs::rename(&aside, &path).and_then(|()| std::fs::File::open(folder)?.sync_all()).map_err(fail)
        });
        if written.is_err() {
            // what was not renamed must not stay: it holds keys
            let _gone_already_is_fine = std::fs::remove_file(&aside);
        }
        written.map(|()| keyring)
    }

    fn write_new(&self, path: &Path) -> Result<()> {
        let fail = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(Class::Refused, format!("{}: the key file exists already", path.display()))
                    .hint("a key file is never overwritten, since snapshots may depend on it; give another path")
            }
            _ => Error::new(Class::Config, format!("{}: the key file cannot be written: {error}", path.display())),
        };
        let file = File {
            format: 1,
            active: self.active.clone(),
            keys: self.keys.iter().map(FileKey::from).collect(),
            pairs: self.pairs.iter().map(FilePair::from).collect(),
        };
        let json = serde_json::to_string_pretty(&file)
            .map_err(|error| Error::new(Class::Unforeseen, format!("the keyring cannot be written: {error}")))?;
        let json = Zeroizing::new(json);
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
        out.write_all(json.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.sync_all())
            .map_err(fail)?;
        // the name itself must survive a power loss before anything is encrypted with the key
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
    }

    /// Reads a keyring file.
    ///
    /// # Errors
    /// `Key` when the file is missing, unreadable or not a keyring.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display();
        let fail = |why: String| {
            Error::new(Class::Key, format!("{place}: the key file cannot be used: {why}"))
                .hint("`backupd key generate FILE` makes a key file")
        };
        let metadata = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(fail(format!("it has {} bytes, more than a keyring can have", metadata.len())));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %place, "others than its owner can read the key file: `chmod 600` it");
        }
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| fail(error.to_string()))?);
        // the parser's own message could quote the secret, so only the place of the mistake is told
        let file: File = serde_json::from_slice(&text)
            .map_err(|error| fail(format!("it is not a keyring (line {}, column {})", error.line(), error.column())))?;
        if file.format != 1 {
            return Err(fail(format!("its format is {}, and only 1 is known", file.format)));
        }
        let keys = file.keys.iter().map(MasterKey::try_from).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let pairs = file.pairs.iter().map(|pair| KeyPair::read(&pair.public, &pair.secret, &pair.created_at));
        let pairs = pairs.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let keyring = Self { active: file.active, keys, pairs };
        if keyring.find(&keyring.active).is_none() {
            return Err(fail(format!("its active key {} is not among its keys", keyring.active)));
        }
        Ok(keyring)
    }

    /// The key of this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&MasterKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// All keys, in the file's order.
    #[must_use]
    pub fn keys(&self) -> &[MasterKey] {
        &self.keys
    }

    /// All key pairs, in the file's order.
    #[must_use]
    pub fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// The id of the active key.
    #[must_use]
    pub fn active_id(&self) -> &str {
        &self.active
    }

    /// The key that new snapshots are wrapped for.
    ///
    /// # Errors
    /// `Key` if the keyring had no active key, which reading it rules out.
    pub fn active(&self) -> Result<&MasterKey> {
        self.find(&self.active).ok_or_else(|| Error::new(Class::Key, "the keyring has no active key"))
    }
}

impl From<&MasterKey> for FileKey {
    fn from(key: &MasterKey) -> Self {
        Self { id: key.id.clone(), created_at: key.created_at.clone(), secret: BASE64.encode(key.secret) }
    }
}

impl From<&KeyPair> for FilePair {
    fn from(pair: &KeyPair) -> Self {
        Self { public: pair.public.to_string(), created_at: pair.created_at.clone(), secret: pair.secret_text() }
    }
}

impl TryFrom<&FileKey> for MasterKey {
    type Error = String;

    fn try_from(key: &FileKey) -> Result<Self, String> {
        let well_named = key.id.len() <= 64
            && key.id.starts_with("k-")
            && key.id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !well_named {
            return Err("a key id is not `k-` followed by letters, digits and `-`".to_owned());
        }
        let secret = BASE64.decode(&key.secret).map(Zeroizing::new).ok();
        let secret = secret.and_then(|secret| <[u8; KEY_LEN]>::try_from(secret.as_slice()).ok());
        let secret = secret.ok_or_else(|| format!("the secret of key {} is not base64 of 32 bytes", key.id))?;
        Ok(Self { id: key.id.clone(), created_at: key.created_at.clone(), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_file_is_private_readable_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let made = Keyring::generate(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Keyring::read(&path).unwrap();
        assert_eq!(read.active().unwrap().expose(), made.active().unwrap().expose());
        assert_eq!(Keyring::generate(&path).unwrap_err().class(), Class::Refused);
    }

    #[test]
    fn a_key_pair_is_in_the_file_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        Keyring::generate(&path).unwrap();
        let made = Keyring::add_pair(&path).unwrap();
        let public = &made.pairs()[0].public;
        let read = Keyring::read(&path).unwrap();
        assert_eq!(&read.pairs()[0].public, public);
        let sealed = public.seal(b"", b"x").unwrap();
        assert_eq!(read.pairs()[0].open(b"", sealed).unwrap().as_slice(), b"x");
        assert!(!format!("{read:?}").contains(&read.pairs()[0].secret_text()));
        assert!(Keyring::remove(&path, &public.id).unwrap().pairs().is_empty());
        assert_eq!(Keyring::remove(&path, &public.id).unwrap_err().class(), Class::NotFound);
    }

    #[test]
    fn keys_are_added_and_removed_by_many_at_once_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let first = Keyring::generate(&path).unwrap();
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::thread::scope(|scope| {
            for index in 0..8 {
                let path = if index % 2 == 0 { &path } else { &link };
                scope.spawn(move || Keyring::add_active(path).unwrap());
            }
        });
        let now = Keyring::read(&link).unwrap();
        assert_eq!(now.keys().len(), 9);
        assert!(now.active_id() != first.active_id() && link.is_symlink());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::remove(&path, now.active_id()).unwrap_err().class(), Class::Refused);
        assert_eq!(Keyring::remove(&path, "k-none").unwrap_err().class(), Class::NotFound);
        let left = Keyring::remove(&path, first.active_id()).unwrap();
        assert!(left.keys().len() == 8 && left.find(first.active_id()).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no copy of the keys is left behind");
    }

    #[test]
    fn what_is_not_a_keyring_is_a_key_error_that_quotes_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        for text in [
            "",
            "c2VjcmV0",
            r#"{"format":1,"active":"k-1","keys":[]}"#,
            r#"{"format":2,"active":"k","keys":[]}"#,
            r#"{"format":1,"active":"k-1","keys":[{"id":"k-1","created_at":"","secret":"c2VjcmV0"}]}"#,
            r#"{"format":1,"active":"k-1","keys":[{"id":"k-1/..","created_at":"","secret":"c2VjcmV0"}]}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Keyring::read(&path).unwrap_err();
            assert_eq!(error.class(), Class::Key, "{text}");
            assert!(!error.message().contains("c2VjcmV0"), "{error}");
        }
        assert_eq!(Keyring::read(&dir.path().join("none")).unwrap_err().class(), Class::Key);
    }
}
