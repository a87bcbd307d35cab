//! Where bytes live: the contract between the repository and a folder or a bucket.
//!
//! A store holds immutable objects under keys like `c/20261123T080000Z-1f2e3d4c/manifest.json` (parts of
//! letters, digits, `.`, `_`, `-`, joined by `/`; never absolute, never `..`). No object is ever
//! overwritten: every write is a creation that fails when the object is there.

pub mod key;
mod local;
mod s3;
mod url;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::local::LocalStore;
pub use self::s3::{COPY_BYTES_MAX, ObjectSettings, Patience, S3Store, ServerCopy};
pub use self::url::{BucketUrl, RepositoryUrl, Style};
use crate::error::{Class, Error, Result};

/// The most entries (objects and folders together) of one page of a listing.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// Opens the store of a repository URL. Nothing is read or written yet, so a folder or bucket that does not
/// exist is found out by the first call.
///
/// # Errors
/// `Config` when no region is known for a bucket.
pub async fn open(url: &RepositoryUrl) -> Result<Arc<dyn Store>> {
    match url {
        RepositoryUrl::Folder(path) => Ok(Arc::new(LocalStore::new(path))),
        RepositoryUrl::Bucket(url) => Ok(Arc::new(S3Store::open(url, None).await?)),
    }
}

/// A small object that is larger than it can be.
fn too_large(key: &str, url: &str, size_bytes: u64, size_bytes_max: u64) -> Error {
    Error::new(
        Class::Verification,
        format!("`{key}` in {url} has {size_bytes} bytes, more than the {size_bytes_max} that it can have"),
    )
}

/// A range that the object does not have.
fn beyond_end(key: &str, url: &str, size_bytes: u64, offset: u64, length: u64) -> Error {
    Error::new(
        Class::Verification,
        format!("`{key}` in {url} has {size_bytes} bytes, so {length} bytes at offset {offset} cannot be read"),
    )
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// The whole key, relative to the root of the store.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was written, by the store's own clock, in ms since 1970.
    pub modified_unix_ms: u64,
    /// Until when the store lets nobody delete it (Object Lock), in ms since 1970; for ever under a legal hold. In a bucket that
    /// locks objects a deletion only hides the object behind a marker, so it is to be looked at before.
    pub locked_until_unix_ms: Option<u64>,
}

impl Stat {
    /// Whether it is locked at this time, ms since 1970.
    #[must_use]
    pub fn is_locked(&self, now_unix_ms: u64) -> bool {
        self.locked_until_unix_ms.is_some_and(|until| until > now_unix_ms)
    }
}

/// An object whose writing was begun and not ended; nobody sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The key that it would get, where that is known.
    pub key: Option<String>,
    /// What the store calls the attempt.
    pub id: String,
    /// When it was begun or last written to, by the store's own clock, in ms since 1970.
    pub modified_unix_ms: u64,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, ascending by key.
    pub objects: Vec<ObjectEntry>,
    /// Common prefixes, each ending in `/`, when a listing by folder was asked for.
    pub folders: Vec<String>,
    /// Give this as `after` to get the next page; `None` on the last one.
    pub next: Option<String>,
}

/// A store of immutable objects. Errors carry the class: `NotFound`, `Busy` for a creation that lost
/// (the object exists already), `StoreAuth`, `StoreUnavailable`; the message names the object.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// The URL for messages, without secrets.
    fn url(&self) -> String;

    /// Creates a small object atomically: after `Ok` it is durable and whole, before it nobody sees it.
    /// When the object exists already: `Class::Busy`, not retryable, and nothing is changed.
    /// Dropping the future leaves either no object or the whole object.
    async fn create(&self, key: &str, body: Bytes) -> Result<()>;

    /// Reads a small object. An object larger than `size_bytes_max` is an error (`Verification`), not an
    /// allocation. A missing object is `NotFound`.
    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes>;

    /// Reads exactly `length` bytes from `offset`; fewer bytes in the object is an error (`Verification`).
    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes>;

    /// Size and time of an object, asked of the object itself; `None` when there is none.
    async fn stat(&self, key: &str) -> Result<Option<Stat>>;

    /// The size of an object, or `None` when there is none.
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.stat(key).await?.map(|stat| stat.size_bytes))
    }

    /// One page of at most [`PAGE_ENTRIES_MAX`] entries whose key begins with `prefix`, after the key or folder
    /// `after`, ascending bytewise. `by_folder` groups keys at the next `/` after the prefix into `folders`.
    /// What is there under a name that [`key::check`] refuses is not shown. `NotFound` when the folder or bucket of
    /// the store is missing.
    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page>;

    /// Deletes an object; one that is not there is not an error.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Begins the creation of a large object. Nothing is visible under `key` before
    /// [`Upload::complete`] returns, which fails with `Busy` when the object exists already.
    /// `size_hint_bytes` is a guess of the size (0: unknown); it only chooses the part size.
    async fn upload(&self, key: &str, size_hint_bytes: u64) -> Result<Box<dyn Upload>>;

    /// What writers that are gone, or are still at work, have not finished: uploads in parts, temporary files.
    async fn unfinished(&self) -> Result<Vec<Unfinished>>;

    /// Removes what an unfinished writer left; one that is not there any more is not an error.
    async fn discard(&self, unfinished: &Unfinished) -> Result<()>;

    /// Whether its server was seen to answer writes with a digest of what it stored, and each was compared with ours: then
    /// what was written through this handle need not be read again to know that it arrived.
    fn proves_writes(&self) -> bool {
        false
    }

    /// Whether the store does not keep two writers of one name apart, so that every write looks first.
    fn looks_before_writes(&self) -> bool {
        false
    }

    /// Begins the upload of an object and gives it up, to see whether that is allowed.
    async fn probe_upload(&self, key: &str) -> Result<()> {
        let mut upload = self.upload(key, 0).await?;
        upload.write(Bytes::from_static(b"probe")).await?;
        upload.abort().await
    }

    /// The bucket, when it is one: servers can copy between buckets by themselves.
    fn as_bucket(&self) -> Option<&S3Store> {
        None
    }
}

/// A large object being written, front to back.
///
/// A store may accept [`Upload::write`] before the bytes are durable; it holds at most a fixed number of
/// parts in memory and waits when they are full (that is the back pressure). A failed write makes every later
/// call fail. Dropping an upload without `complete` or `abort` may leave unfinished parts behind in a
/// bucket (never a visible object): call `abort`.
#[async_trait]
pub trait Upload: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Waits for all parts and makes the object visible, whole and durable.
    async fn complete(self: Box<Self>) -> Result<()>;

    /// Removes what was written. Best effort: an error says what may be left.
    async fn abort(self: Box<Self>) -> Result<()>;
}
