//! What a store lets us do, found out by doing it: a canary is written, read, listed, and deleted, and an upload is begun and given up.
//!
//! The canary lies where runs of gc read the store's clock (`_gc/`), so that gc removes one that could not be deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::gc::CLOCKS;
use super::{Repository, new_snapshot_id};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::store::Store;

/// What the canary holds.
const CANARY: &[u8] = b"written by backupd check; it may be removed\n";

/// Whether one thing is allowed, and why not.
#[derive(Debug, Clone, Serialize)]
pub struct Permission {
    /// It worked.
    pub allowed: bool,
    /// What the store said.
    pub message: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The class of the error.
    #[serde(skip)]
    pub class: Option<Class>,
}

/// What can be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything.
    ReadWrite,
    /// Snapshots are made and restored, and nothing is ever deleted by us.
    AppendOnly,
    /// Snapshots are restored.
    ReadOnly,
    /// Nothing.
    None,
}

/// What a store can do, where it could be found out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Features {
    /// A write to a name that is taken is refused. Where it is not, every write looks first.
    pub conditional_writes: Option<bool>,
    /// It answers writes with a digest of what it stored, which is compared.
    pub digests: bool,
    /// It compares the parts of uploads, and the whole, by CRC-32C.
    pub checksums: Option<bool>,
    /// Old versions of objects are kept.
    pub versioning: Option<bool>,
    /// Objects can be locked against deletion.
    pub object_lock: Option<bool>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// Where.
    pub url: String,
    /// Whether snapshots can be made and restored.
    pub ok: bool,
    /// What can be done.
    pub mode: Mode,
    /// The id of the repository; `None` where none was made yet.
    pub repository_id: Option<String>,
    /// `list`, `write`, `head`, `read`, `range`, `upload`, `delete`, in this order.
    pub permissions: BTreeMap<&'static str, Permission>,
    /// What the store can do.
    pub features: Features,
}

/// Probes a store. What fails is in the result; a marker that cannot be understood is an error.
///
/// # Errors
/// `Verification` or `Version` for the marker; `StoreUnavailable` when nothing answers.
pub async fn probe(store: Arc<dyn Store>) -> Result<Probe> {
    let repository_id = match Repository::open(Arc::clone(&store)).await {
        Ok(repository) => Some(repository.id().to_owned()),
        Err(error) if matches!(error.class(), Class::NotFound | Class::StoreAuth) => None,
        Err(error) => return Err(error),
    };
    let key = format!("{CLOCKS}{}.json", new_snapshot_id(clock::now())?);
    let (mut permissions, mut features) = (BTreeMap::new(), Features::default());
    let body = Bytes::from_static(CANARY);
    let written = store.create(&key, body.clone()).await;
    let is_written = written.is_ok();
    permissions.insert("write", allowed(written));
    // a folder that nobody wrote to cannot be listed, and need not be there
    permissions.insert("list", allowed(store.list(CLOCKS, false, None).await.map(drop)));
    if is_written {
        features.conditional_writes = match store.create(&key, body.clone()).await {
            Err(error) if error.class() == Class::Busy => Some(!store.looks_before_writes()),
            Ok(()) => Some(false),
            Err(_) => None,
        };
        let same = |read: Bytes, wanted: &[u8]| match *read == *wanted {
            true => Ok(()),
            false => Err(Error::new(Class::Verification, format!("`{key}` reads as something else than was written"))),
        };
        permissions.insert("head", allowed(head(&store, &key).await));
        let read = store.read(&key, 1 << 10).await.and_then(|read| same(read, CANARY));
        permissions.insert("read", allowed(read));
        let part = CANARY.get(1..5).unwrap_or_default();
        permissions.insert("range", allowed(store.read_range(&key, 1, 4).await.and_then(|read| same(read, part))));
        permissions.insert("upload", allowed(store.probe_upload(&format!("{key}-upload")).await));
        permissions.insert("delete", allowed(store.delete(&key).await));
    }
    features.digests = store.proves_writes();
    if let Some(bucket) = store.as_bucket() {
        features.checksums = bucket.knows_checksums();
        (features.versioning, features.object_lock) = bucket.protections().await;
    }
    let can = |what: &str| permissions.get(what).is_some_and(|it: &Permission| it.allowed);
    let reads = can("list") && (!is_written || (can("read") && can("range") && can("head")));
    let mode = match (reads, can("write") && can("upload"), can("delete")) {
        (true, true, true) => Mode::ReadWrite,
        (true, true, false) => Mode::AppendOnly,
        (true, false, _) => Mode::ReadOnly,
        (false, ..) => Mode::None,
    };
    let ok = matches!(mode, Mode::ReadWrite | Mode::AppendOnly);
    Ok(Probe { url: store.url(), ok, mode, repository_id, permissions, features })
}

async fn head(store: &Arc<dyn Store>, key: &str) -> Result<()> {
    match store.size(key).await? {
        Some(size) if size == CANARY.len() as u64 => Ok(()),
        other => Err(Error::new(Class::Verification, format!("`{key}` was just written, and its size is {other:?}"))),
    }
}

fn allowed(done: Result<()>) -> Permission {
    match done {
        Ok(()) => Permission { allowed: true, message: None, hint: None, class: None },
        Err(error) => Permission {
            allowed: false,
            message: Some(error.message().to_owned()),
            hint: error.advice().map(ToOwned::to_owned),
            class: Some(error.class()),
        },
    }
}

impl Probe {
    /// What is not as it should be, as errors with their severity: `true` when a backup would fail.
    #[must_use]
    pub fn findings(&self) -> Vec<(bool, Error)> {
        let mut findings = Vec::new();
        for (what, permission) in self.permissions.iter().filter(|(_, permission)| !permission.allowed) {
            let message = permission.message.clone().unwrap_or_default();
            let error = Error::new(permission.class.unwrap_or(Class::StoreAuth), message);
            let grave = *what != "delete";
            let hint = match (grave, &permission.hint) {
                (false, _) => {
                    "append-only credentials do for snapshots; `snapshot delete`, retention and `gc` need others"
                }
                (true, Some(hint)) => hint,
                (true, None) => "a backup needs permission to list the bucket and to read and write its objects",
            };
            findings.push((grave, error.at(format!("{what} does not work")).hint(hint)));
        }
        if self.features.conditional_writes == Some(false) {
            let message = format!("{} writes over objects although it is told not to (If-None-Match)", self.url);
            findings.push((
                false,
                Error::new(Class::Refused, message)
                    .hint("every write looks first; two jobs that want one name in the same moment find out when they publish"),
            ));
        }
        findings
    }
}
