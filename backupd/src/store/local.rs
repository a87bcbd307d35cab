//! A folder as a store.
//!
//! An object is one file. It is written aside, to a `.tmp-…` file in the folder of the store, made durable, and
//! then linked to its name: linking is atomic and fails when the name is taken, so nothing is ever overwritten and
//! nobody sees half an object. What a process that died leaves behind are `.tmp-…` files, which no listing shows
//! and no key can name. Unlike in a bucket, the key of an object cannot be the folder of another.

mod upload;
mod walk;
mod write;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Page, Stat, Store, Unfinished, Upload, key, url};
use crate::error::{Class, Error, Result};

/// For more than this, in bytes, no room is made before it is known that the object has it.
const ROOM_BYTES_MAX: u64 = 8 << 20;

/// A store in a folder. The folder is made by the first write.
#[derive(Debug, Clone)]
pub struct LocalStore {
    base: Arc<Path>,
}

impl LocalStore {
    /// A store in the folder `base`, which need not exist.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        Self { base: base.into() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.base.join(key)
    }

    /// Puts the operation, the object and the place in front of an IO error, with its class and advice.
    fn error(&self, operation: &str, key: &str, error: &io::Error) -> Error {
        let place = if key.is_empty() { self.url() } else { format!("`{key}` in {}", self.url()) };
        let (class, hint) = classify(error);
        let made = Error::new(class, format!("cannot {operation} {place}: {error}"));
        let made = if error.kind() == ErrorKind::StorageFull { made.retryable(false) } else { made };
        if hint.is_empty() { made } else { made.hint(hint) }
    }

    fn exists_already(&self, key: &str) -> Error {
        Error::new(Class::Busy, format!("`{key}` exists already in {}", self.url())).retryable(false)
    }

    /// Runs file operations on a thread that may block. When the caller goes away they still run to their end.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|e| Err(crate::task_failed(e).at(self.url())))
    }

    /// Opens an object and tells its size and time; `None` when there is no such object.
    fn open(&self, operation: &str, key: &str) -> Result<Option<(File, Stat)>> {
        let opened = File::open(self.path(key)).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Ok((file, metadata)) if metadata.is_file() => Ok(Some((file, write::stat(&metadata)))),
            Ok(_) => Ok(None),
            Err(e) if is_absence(&e) => Ok(None),
            Err(e) => Err(self.error(operation, key, &e)),
        }
    }

    fn open_present(&self, key: &str) -> Result<(File, u64)> {
        let opened = self.open("read", key)?.map(|(file, stat)| (file, stat.size_bytes));
        opened.ok_or_else(|| Error::new(Class::NotFound, format!("`{key}` does not exist in {}", self.url())))
    }

    fn read_whole(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        let (file, size_bytes) = self.open_present(key)?;
        if size_bytes > size_bytes_max {
            return Err(super::too_large(key, &self.url(), size_bytes, size_bytes_max));
        }
        let mut body = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
        file.take(size_bytes_max).read_to_end(&mut body).map_err(|e| self.error("read", key, &e))?;
        Ok(body.into())
    }

    fn read_part(&self, key: &str, offset: u64, length: u64, mut body: Vec<u8>) -> Result<Bytes> {
        let (file, size_bytes) = self.open_present(key)?;
        let beyond = || super::beyond_end(key, &self.url(), size_bytes, offset, length);
        if offset.checked_add(length).is_none_or(|end| end > size_bytes) {
            return Err(beyond());
        }
        body.resize(usize::try_from(length).map_err(|_| beyond())?, 0);
        file.read_exact_at(&mut body, offset).map_err(|e| self.error("read", key, &e))?;
        Ok(body.into())
    }

    fn delete_now(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Ok(()) => self.tidy(&path),
            Err(e) if is_absence(&e) => Ok(()),
            // A folder is not an object.
            Err(e) if e.kind() == ErrorKind::IsADirectory => Ok(()),
            Err(e) => Err(self.error("delete", key, &e)),
        }
    }

    /// Makes a deletion durable and removes the folders that it left empty, up to the folder of the store.
    fn tidy(&self, path: &Path) -> Result<()> {
        for folder in path.ancestors().skip(1) {
            if folder != &*self.base && std::fs::remove_dir(folder).is_ok() {
                continue;
            }
            return match write::sync_folder(folder) {
                Err(e) if !is_absence(&e) => Err(self.error("make a deletion durable in", "", &e)),
                _ => Ok(()),
            };
        }
        Ok(())
    }
}

#[async_trait]
impl Store for LocalStore {
    fn url(&self) -> String {
        url::folder_text(&self.base)
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |store| {
            let mut aside = write::Aside::begin(store, &key)?;
            aside.write(&body)?;
            aside.publish()
        })
        .await
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |store| store.read_whole(&key, size_bytes_max)).await
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        key::check(key)?;
        let key = key.to_owned();
        // by the thread that asks: of those that read there are many, and each would keep memory of its own for it
        let room = vec![0; usize::try_from(length.min(ROOM_BYTES_MAX)).unwrap_or(0)];
        self.blocking(move |store| store.read_part(&key, offset, length, room)).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |store| Ok(store.open("look at", &key)?.map(|(_, stat)| stat))).await
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        key::check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.unwrap_or_default().to_owned());
        self.blocking(move |store| walk::page(store, &prefix, by_folder, &after)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |store| store.delete_now(&key)).await
    }

    async fn upload(&self, key: &str, _size_hint_bytes: u64) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        Ok(Box::new(upload::LocalUpload::begin(self.clone(), key)))
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.blocking(|store| write::unfinished(&store.base).map_err(|e| store.error("list", "", &e))).await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        let name = unfinished.id.clone();
        self.blocking(move |store| write::discard(&store.base, &name).map_err(|e| store.error("delete", &name, &e)))
            .await
    }
}

/// Nothing of that name: also when a part of the way to it is a file.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The class of an IO error, and what to do about it (empty: nothing is known).
fn classify(error: &io::Error) -> (Class, &'static str) {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => (
            Class::StoreUnavailable,
            "the disk is full or a quota is used up: make room, or delete snapshots that are not needed",
        ),
        ErrorKind::PermissionDenied => {
            (Class::StoreAuth, "the user that runs this needs read, write and search permission on the folder")
        }
        ErrorKind::ReadOnlyFilesystem => (Class::StoreAuth, "the file system is mounted read-only"),
        ErrorKind::NotFound => (Class::NotFound, "the folder does not exist: look at the repository URL"),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            (Class::Config, "a file is where a folder must be: look at the repository URL")
        }
        ErrorKind::Unsupported | ErrorKind::CrossesDevices | ErrorKind::TooManyLinks => {
            (Class::Config, "the file system must support hard links within the folder of the repository")
        }
        _ => (Class::StoreUnavailable, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn nothing_is_made_before_the_first_write() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("a/b");
        let store = LocalStore::new(&base);
        assert_eq!(store.read("x", 1).await.unwrap_err().class(), Class::NotFound);
        assert_eq!(store.list("", false, None).await.unwrap_err().class(), Class::NotFound);
        assert_eq!(store.size("x").await.unwrap(), None);
        store.delete("x/y").await.unwrap();
        assert!(names(root.path()).is_empty());
        store.create("x/y", Bytes::from_static(b"1")).await.unwrap();
        assert_eq!(names(&base), ["x"]);
    }

    #[tokio::test]
    async fn deleting_the_last_object_removes_its_folders_and_no_foreign_file() {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::new(root.path());
        for key in ["a/b/c", "d/e"] {
            store.create(key, Bytes::new()).await.unwrap();
        }
        std::fs::write(root.path().join("d/.note"), "kept").unwrap();
        store.delete("a/b/c").await.unwrap();
        store.delete("d/e").await.unwrap();
        store.delete("d").await.unwrap();
        assert_eq!(names(root.path()), ["d"]);
        assert_eq!(names(&root.path().join("d")), [".note"]);
    }

    #[tokio::test]
    async fn what_no_key_can_name_is_not_listed() {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::new(root.path());
        store.create("a/b", Bytes::new()).await.unwrap();
        for foreign in [".tmp-0123", "a/.tmp-4567", "a/with space"] {
            std::fs::write(root.path().join(foreign), "x").unwrap();
        }
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let page = store.list("", false, None).await.unwrap();
        assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
        assert_eq!(store.list("", true, None).await.unwrap().folders, ["a/"]);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_a_configuration_error() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let store = LocalStore::new(&file);
        assert_eq!(store.create("a", Bytes::new()).await.unwrap_err().class(), Class::Config);
        assert_eq!(store.list("", false, None).await.unwrap_err().class(), Class::Config);
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_have_their_own_words() {
        let store = LocalStore::new(Path::new("/base"));
        let full = store.error("write", "k", &io::Error::from(ErrorKind::StorageFull));
        assert_eq!((full.class(), full.is_retryable()), (Class::StoreUnavailable, false));
        assert!(full.message().contains("`k` in file:///base") && full.advice().unwrap().contains("disk is full"));
        let denied = store.error("write", "k", &io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(denied.class(), Class::StoreAuth);
    }
}
