//! A bucket as a store.
//!
//! Every write is conditional (`If-None-Match: *`) and carries a token of its own in the metadata
//! `backupd-write`. When a write is refused because the object exists, or its answer was lost, the token of the object that is there tells
//! whether it is ours: a retry of a write that had succeeded is a success, not a conflict.
//!
//! Bytes are protected on their way by the signature, which covers the SHA-256 of every body (buckets may refuse what is signed without it:
//! `s3:x-amz-content-sha256` in AWS' list of conditions). Checksum
//! headers are sent only where the operation demands them or the server said that it knows them. What it stored is compared by its
//! CRC-32C (parts of uploads, see `checksum`) or its ETag, where that is an MD5 (see `etag`).

mod acl;
mod checksum;
mod connect;
mod copy;
mod error;
mod etag;
mod patience;
mod policy;
mod remote;
mod settings;
mod upload;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockLegalHoldStatus};
use bytes::{Bytes, BytesMut};

use self::checksum::Checksums;
pub use self::copy::{COPY_BYTES_MAX, ServerCopy};
use self::etag::Etags;
pub use self::patience::Patience;
pub use self::settings::ObjectSettings;
use self::write::Conditions;
use super::{BucketUrl, ObjectEntry, PAGE_ENTRIES_MAX, Page, RepositoryUrl, Stat, Store, Unfinished, Upload, key};
use crate::error::{Class, Error, Result};

/// How often a read is begun when its body breaks off; the client retries everything before the body itself.
const READ_ATTEMPTS_MAX: u32 = 3;

/// The wait before the second attempt of a read or of a write in conflict; doubled for each further one.
const ATTEMPT_WAIT: Duration = Duration::from_millis(100);

/// How many requests one page of a listing may take when the bucket holds names that are no keys.
const LIST_REQUESTS_MAX: u32 = 1000;

/// Greater than every character of a key: a listing after `folder/` and this skips the whole folder.
const AFTER_KEYS: char = '~';

/// A store in a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    url: BucketUrl,
    etags: Etags,
    checksums: Checksums,
    patience: Patience,
    settings: ObjectSettings,
    /// Whether the server was seen to keep to conditions, or not to.
    conditions: Conditions,
}

/// What a HEAD tells.
struct Found {
    stat: Stat,
    token: Option<String>,
    etag: Option<String>,
}

impl S3Store {
    /// A client for the bucket, from the URL and the usual AWS variables and files. No request is sent to the
    /// bucket. `credentials` come before those that the URL and the environment name.
    ///
    /// # Errors
    /// `Config` when no region is known, or a variable for the patience is no length of time.
    pub async fn open(url: &BucketUrl, credentials: Option<Credentials>) -> Result<Self> {
        Self::open_with(url, credentials, Patience::of_environment()?).await
    }

    /// The same, waited for as `patience` says, whatever the environment does.
    ///
    /// # Errors
    /// `Config` when no region is known.
    pub async fn open_with(url: &BucketUrl, credentials: Option<Credentials>, patience: Patience) -> Result<Self> {
        Ok(Self {
            client: connect::client(url, credentials, patience).await?,
            url: url.clone(),
            etags: Etags::default(),
            checksums: Checksums::default(),
            patience,
            settings: ObjectSettings::default(),
            conditions: Conditions::default(),
        })
    }

    /// The same store, whose new objects get these permissions and this encryption.
    #[must_use]
    pub fn with_settings(self, settings: ObjectSettings) -> Self {
        Self { settings, ..self }
    }

    /// The key in the bucket.
    fn full(&self, key: &str) -> String {
        if self.url.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.url.prefix) }
    }

    /// The key in the store, of a key in the bucket.
    fn relative<'k>(&self, full: &'k str) -> Option<&'k str> {
        if self.url.prefix.is_empty() {
            return Some(full);
        }
        full.strip_prefix(&self.url.prefix)?.strip_prefix('/')
    }

    /// Whether the bucket keeps old versions, and whether objects in it can be locked; `None` where that is not told.
    pub async fn protections(&self) -> (Option<bool>, Option<bool>) {
        let versioning = self.client.get_bucket_versioning().bucket(&self.url.bucket).send().await.ok();
        let enabled = |status: &BucketVersioningStatus| *status == BucketVersioningStatus::Enabled;
        let versioning = versioning.map(|answer| answer.status().is_some_and(enabled));
        let lock = match self.client.get_object_lock_configuration().bucket(&self.url.bucket).send().await {
            Ok(answer) => Some(answer.object_lock_configuration().is_some()),
            Err(e) if error::code(&e) == Some("ObjectLockConfigurationNotFoundError") => Some(false),
            Err(_) => None,
        };
        (versioning, lock)
    }

    /// Whether the server compares the parts of uploads by CRC-32C; `None` before it was asked.
    pub fn knows_checksums(&self) -> Option<bool> {
        self.checksums.are_known()
    }

    /// Which object it is, for messages.
    fn place(&self, key: &str) -> String {
        if key.is_empty() { self.url() } else { format!("`{key}` in {}", self.url()) }
    }

    fn missing(&self, key: &str) -> Error {
        Error::new(Class::NotFound, format!("{} does not exist", self.place(key)))
    }

    fn exists_already(&self, key: &str) -> Error {
        Error::new(Class::Busy, format!("{} exists already", self.place(key))).retryable(false)
    }

    async fn head(&self, key: &str) -> Result<Option<Found>> {
        match self.client.head_object().bucket(&self.url.bucket).key(self.full(key)).send().await {
            Ok(head) => Ok(Some(Found {
                stat: Stat {
                    size_bytes: length_of(head.content_length),
                    modified_unix_ms: unix_ms(head.last_modified),
                    locked_until_unix_ms: match head.object_lock_legal_hold_status {
                        Some(ObjectLockLegalHoldStatus::On) => Some(u64::MAX),
                        _ => head.object_lock_retain_until_date.map(|date| unix_ms(Some(date))),
                    },
                },
                token: head.metadata.and_then(|mut metadata| metadata.remove(write::TOKEN_NAME)),
                etag: head.e_tag,
            })),
            Err(e) if error::status(&e) == Some(404) => Ok(None),
            Err(e) => Err(error::of("look at", &self.place(key), &e)),
        }
    }

    /// Reads the body of an answer, which must have `length` bytes.
    async fn body(&self, key: &str, mut answer: GetObjectOutput, length: u64) -> Result<Bytes> {
        let mut body = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        let broken = |reason: &str| {
            Error::new(Class::StoreUnavailable, format!("cannot read {}: the answer {reason}", self.place(key)))
        };
        while let Some(chunk) = answer.body.next().await {
            let chunk = chunk.map_err(|e| broken(&format!("broke off: {}", error::chain(&e))))?;
            if length_of_body(&body).saturating_add(length_of_body(&chunk)) > length {
                return Err(broken("is longer than it said"));
            }
            body.extend_from_slice(&chunk);
        }
        if length_of_body(&body) == length { Ok(body.freeze()) } else { Err(broken("is shorter than it said")) }
    }

    async fn read_once(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        let request = self.client.get_object().bucket(&self.url.bucket).key(self.full(key));
        let answer = request.send().await.map_err(|e| error::of("read", &self.place(key), &e))?;
        let size_bytes = length_of(answer.content_length);
        if size_bytes > size_bytes_max {
            return Err(super::too_large(key, &self.url(), size_bytes, size_bytes_max));
        }
        self.body(key, answer, size_bytes).await
    }

    async fn range_once(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        let beyond = |size_bytes| super::beyond_end(key, &self.url(), size_bytes, offset, length);
        let last = offset.checked_add(length).and_then(|end| end.checked_sub(1));
        let (Some(last), true) = (last, length > 0) else {
            // Nothing that a range can ask for: only the size decides.
            let size_bytes = self.head(key).await?.ok_or_else(|| self.missing(key))?.stat.size_bytes;
            return if length == 0 && offset <= size_bytes { Ok(Bytes::new()) } else { Err(beyond(size_bytes)) };
        };
        let request = self.client.get_object().bucket(&self.url.bucket).key(self.full(key));
        let answer = match request.range(format!("bytes={offset}-{last}")).send().await {
            Err(e) if error::status(&e) == Some(416) => {
                return Err(beyond(self.head(key).await?.map_or(0, |found| found.stat.size_bytes)));
            }
            other => other.map_err(|e| error::of("read", &self.place(key), &e))?,
        };
        match ContentRange::read(answer.content_range.as_deref()) {
            Some(range) if range.first == offset && range.last == last => self.body(key, answer, length).await,
            Some(range) if range.first == offset && range.last < last => Err(beyond(range.size_bytes)),
            _ => Err(Error::new(
                Class::StoreUnavailable,
                format!("cannot read {}: the server did not answer the range that was asked", self.place(key)),
            )
            .retryable(false)),
        }
    }

    /// The first page that holds an entry, or the last page.
    async fn page(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        // The whole folder `after` is passed, not only its name.
        let start = after.map(|after| match after.ends_with('/') {
            true => format!("{}{AFTER_KEYS}", self.full(after)),
            false => self.full(after),
        });
        let mut continuation: Option<String> = None;
        for _ in 0..LIST_REQUESTS_MAX {
            let request = self.client.list_objects_v2().bucket(&self.url.bucket).prefix(self.full(prefix));
            let request = request.max_keys(i32::try_from(PAGE_ENTRIES_MAX).unwrap_or(i32::MAX));
            let request = request.set_delimiter(by_folder.then(|| "/".to_owned()));
            let request = match continuation.take() {
                Some(token) => request.continuation_token(token),
                None => request.set_start_after(start.clone()),
            };
            let answer = request.send().await.map_err(|e| error::of("list", &self.place(prefix), &e))?;
            let (more, token) = (answer.is_truncated.unwrap_or(false), answer.next_continuation_token.clone());
            let mut page = self.entries(answer, after.unwrap_or_default());
            page.next = page.last().filter(|_| more);
            if page.next.is_some() || !more || token.is_none() {
                return Ok(page);
            }
            continuation = token;
        }
        let message = format!("cannot list {}: {LIST_REQUESTS_MAX} pages hold no key of ours", self.place(prefix));
        Err(Error::new(Class::StoreUnavailable, message).hint("give the repository a prefix of its own"))
    }

    fn entries(&self, answer: ListObjectsV2Output, after: &str) -> Page {
        let mut page = Page::default();
        for object in answer.contents.unwrap_or_default() {
            let key = object.key.as_deref().and_then(|full| self.relative(full));
            if let Some(key) = key.filter(|key| key::is_valid(key) && *key > after) {
                page.objects.push(ObjectEntry { key: key.to_owned(), size_bytes: length_of(object.size) });
            }
        }
        for group in answer.common_prefixes.unwrap_or_default() {
            let folder = group.prefix.as_deref().and_then(|full| self.relative(full));
            let valid = |folder: &&str| folder.strip_suffix('/').is_some_and(key::is_valid) && *folder > after;
            if let Some(folder) = folder.filter(valid) {
                page.folders.push(folder.to_owned());
            }
        }
        page
    }
}

impl Page {
    /// The last entry, key or folder.
    fn last(&self) -> Option<String> {
        self.objects.last().map(|object| &object.key).max(self.folders.last()).cloned()
    }
}

/// Repeats a read whose body broke off.
async fn again<F: Future<Output = Result<Bytes>>>(mut read: impl FnMut() -> F) -> Result<Bytes> {
    let mut wait = ATTEMPT_WAIT;
    for _ in 1..READ_ATTEMPTS_MAX {
        match read().await {
            Err(e) if e.is_retryable() => tokio::time::sleep(wait).await,
            other => return other,
        }
        wait = wait.saturating_mul(2);
    }
    read().await
}

/// `bytes 0-9/100`.
struct ContentRange {
    first: u64,
    last: u64,
    size_bytes: u64,
}

impl ContentRange {
    fn read(header: Option<&str>) -> Option<Self> {
        let (range, size) = header?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()?, size_bytes: size.parse().ok()? })
    }
}

/// A length as the client has it; never negative on the wire.
fn length_of(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

/// A time as the client has it; 0 when the server did not tell.
fn unix_ms(time: Option<DateTime>) -> u64 {
    time.and_then(|time| time.to_millis().ok()).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
}

fn length_of_body(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        RepositoryUrl::Bucket(self.url.clone()).to_string()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        key::check(key)?;
        self.put(key, body).await
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        key::check(key)?;
        again(|| self.read_once(key, size_bytes_max)).await
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        key::check(key)?;
        again(|| self.range_once(key, offset, length)).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        key::check(key)?;
        Ok(self.head(key).await?.map(|found| found.stat))
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        key::check_prefix(prefix)?;
        self.page(prefix, by_folder, after).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        key::check(key)?;
        match self.client.delete_object().bucket(&self.url.bucket).key(self.full(key)).send().await {
            Err(e) if error::code(&e) == Some("NoSuchKey") => Ok(()),
            other => other.map(drop).map_err(|e| error::of("delete", &self.place(key), &e)),
        }
    }

    async fn upload(&self, key: &str, size_hint_bytes: u64) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        Ok(Box::new(upload::S3Upload::new(self.clone(), key, size_hint_bytes)?))
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        remote::unfinished(self).await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        remote::discard(self, unfinished).await
    }

    fn proves_writes(&self) -> bool {
        self.etags.are_digests()
    }

    fn looks_before_writes(&self) -> bool {
        self.conditions.are_ignored()
    }

    async fn probe_upload(&self, key: &str) -> Result<()> {
        let mut remote = remote::Remote::new(self.clone(), key)?;
        remote.begin(true).await?;
        remote.abort().await
    }

    fn as_bucket(&self) -> Option<&S3Store> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        let range = ContentRange::read(Some("bytes 5-9/100")).unwrap();
        assert_eq!((range.first, range.last, range.size_bytes), (5, 9, 100));
        for bad in [None, Some(""), Some("bytes */100"), Some("bytes 5-/9"), Some("bytes 5-9/*"), Some("5-9/10")] {
            assert!(ContentRange::read(bad).is_none(), "{bad:?}");
        }
    }
}
