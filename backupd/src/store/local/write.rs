//! Writing a file aside and publishing it under its name.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{LocalStore, key};
use crate::error::{Class, Error, Result};
use crate::store::{Stat, Store, Unfinished};

/// How files that are being written begin; no key can.
const ASIDE_PREFIX: &str = ".tmp-";

/// How often the folders of an object are made again when a deletion removes them between making and linking.
const LINK_ATTEMPTS_MAX: u32 = 16;

/// A file being written aside. Dropping it removes it.
pub(super) struct Aside {
    store: LocalStore,
    key: String,
    path: PathBuf,
    file: File,
}

impl Aside {
    /// Creates the file, and the folder of the store when it is missing.
    pub(super) fn begin(store: &LocalStore, key: &str) -> Result<Self> {
        debug_assert!(key::is_valid(key), "keys are checked before");
        make_folder(&store.base).map_err(|e| store.error("make the folder", "", &e))?;
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|e| Error::new(Class::Unforeseen, format!("no random numbers: {e}")))?;
        let path = store.base.join(format!("{ASIDE_PREFIX}{}", hex::encode(random)));
        let file = File::create_new(&path).map_err(|e| store.error("create", key, &e))?;
        Ok(Self { store: store.clone(), key: key.to_owned(), path, file })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| self.store.error("write", &self.key, &e))
    }

    /// A second handle of the file, for syncing it while it is written.
    pub(super) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| self.store.error("write", &self.key, &e))
    }

    /// Gives an IO error of the file its words.
    pub(super) fn error(&self, error: &io::Error) -> Error {
        self.store.error("write", &self.key, error)
    }

    /// Makes the bytes durable, then visible under the key, then the name durable.
    pub(super) fn publish(self) -> Result<()> {
        let failed = |e: &io::Error| self.store.error("create", &self.key, e);
        self.file.sync_all().map_err(|e| failed(&e))?;
        let target = self.store.path(&self.key);
        let parent = target.parent().unwrap_or(&self.store.base);
        for attempt in 1.. {
            make_folder(parent).map_err(|e| failed(&e))?;
            match std::fs::hard_link(&self.path, &target) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(self.store.exists_already(&self.key)),
                Err(e) if e.kind() == ErrorKind::NotFound && attempt < LINK_ATTEMPTS_MAX => {}
                // A file system without hard links answers EPERM, as a missing permission often does.
                Err(e) => {
                    return Err(failed(&e).hint(
                        "the file system must support hard links, and the user that runs this may create files there",
                    ));
                }
            }
        }
        // All folders up to that of the store: one that another process made may not be durable yet.
        for folder in parent.ancestors().take_while(|folder| folder.starts_with(&self.store.base)) {
            sync_folder(folder).map_err(|e| failed(&e))?;
        }
        Ok(())
    }
}

impl Drop for Aside {
    /// A file that cannot be removed stays as garbage that no listing shows; nothing can be told to anybody here.
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, store = %self.store.url(), "temporary file stays");
        }
    }
}

/// Size and time of a file.
pub(super) fn stat(metadata: &Metadata) -> Stat {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_unix_ms = modified.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Stat { size_bytes: metadata.len(), modified_unix_ms, locked_until_unix_ms: None }
}

/// Whether a file is one that [`Aside`] makes: `.tmp-` and 32 hex digits.
fn is_aside(name: &str) -> bool {
    let digits = name.strip_prefix(ASIDE_PREFIX).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The files that are being written, or were by a process that died.
pub(super) fn unfinished(base: &Path) -> io::Result<Vec<Unfinished>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let entry = entry?;
        let Some(id) = entry.file_name().into_string().ok().filter(|name| is_aside(name)) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => {
                found.push(Unfinished { key: None, id, modified_unix_ms: stat(&metadata).modified_unix_ms });
            }
            Ok(_) => {}
            // published or given up in between
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Removes such a file.
pub(super) fn discard(base: &Path, name: &str) -> io::Result<()> {
    if !is_aside(name) {
        return Err(ErrorKind::InvalidInput.into());
    }
    match std::fs::remove_file(base.join(name)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => sync_folder(base),
    }
}

/// Makes a folder and those above it, and makes their names durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().ok_or(ErrorKind::NotFound)?;
    // The parent may be removed by a deletion between the two calls: the one who links tries again.
    make_folder(parent)?;
    match std::fs::create_dir(folder) {
        Ok(()) => sync_folder(parent),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
