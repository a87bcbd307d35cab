//! A repository: a store with a marker, names, and snapshots. It is the truth; everything else is an index of it.
//!
//! ```text
//! backupd-repository.json                          marker, made once
//! _names/<name>/<number>.json                      claims on the name, see `repository::claim`
//! <cluster>/<snapshot-id>/shard-<nnnn>-<attempt>.bkd
//! <cluster>/<snapshot-id>/wrap-<key-id>.json
//! <cluster>/<snapshot-id>/manifest.json            written last, removed first
//! <cluster>/<snapshot-id>/fact-<kind>-<id>.json    what became known later, see `repository::fact`
//! <cluster>/<snapshot-id>/lease-<id>-<n>.json      a job reads it, see `repository::lease`
//! <cluster>/definition-<number>.json               what was said of the cluster, see `repository::definition`
//! ```
//!
//! Nothing is ever overwritten.

pub mod abandon;
pub mod claim;
pub mod definition;
pub mod fact;
pub mod gc;
pub mod grant;
pub mod keys;
pub mod lease;
pub mod listing;
pub mod probe;
pub mod removal;
pub mod retention;
pub mod rewrap;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use policies::grants::Scope;
use serde::{Deserialize, Serialize};

pub use self::keys::Keys;
use crate::canonical::{self, DOCUMENT_BYTES_MAX, Proof, damaged};
use crate::clock;
use crate::crypt::master::{Binding, Master};
use crate::crypt::{DataKey, random, wrap};
use crate::error::{Class, Error, Result};
use crate::manifest::{Manifest, Unproven};
use crate::store::Store;

const MARKER: &str = "backupd-repository.json";
/// The largest small document (marker, claim, wrap), bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Of how many snapshots something is asked at the same time.
const IN_FLIGHT: usize = 16;

/// An opened repository.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format: u32,
    repository_id: String,
    created_at: String,
}

/// Where a snapshot's objects are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The cluster's name.
    pub cluster: String,
    /// The snapshot's id.
    pub snapshot_id: String,
}

impl Place {
    /// Where the snapshot is that a grant is for; `None` when it is for a cluster.
    #[must_use]
    pub fn of(scope: &Scope) -> Option<Self> {
        match scope {
            Scope::Snapshot { cluster, snapshot_id, .. } => {
                Some(Self { cluster: cluster.clone(), snapshot_id: snapshot_id.clone() })
            }
            Scope::Cluster { .. } => None,
        }
    }

    /// The key of one of its objects.
    #[must_use]
    pub fn key(&self, file: &str) -> String {
        format!("{}/{}/{file}", self.cluster, self.snapshot_id)
    }

    /// The key of its manifest.
    #[must_use]
    pub fn manifest_key(&self) -> String {
        self.key("manifest.json")
    }

    /// The key of its wrap for a master key.
    #[must_use]
    pub fn wrap_key(&self, key_id: &str) -> String {
        self.key(&format!("wrap-{}.json", wrap::file_part(key_id)))
    }
}

/// A new snapshot id: `20261123T081500Z-` and eight random hex digits, so that ids sort by time.
///
/// # Errors
/// When no randomness is to be had.
pub fn new_snapshot_id(now: DateTime<Utc>) -> Result<String> {
    Ok(format!("{}-{}", now.format("%Y%m%dT%H%M%SZ"), hex::encode(random::<4>()?)))
}

/// A snapshot whose manifest is proven, with the key to its data.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Where it is.
    pub place: Place,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its data key; `None` when it is not encrypted.
    pub data_key: Option<DataKey>,
}

impl Repository {
    /// Opens a repository that exists.
    ///
    /// # Errors
    /// `NotFound` when there is no repository here, `Verification` when its marker is damaged.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self> {
        match store.read(MARKER, SMALL_BYTES_MAX).await {
            Ok(file) => {
                let marker: Marker = canonical::open(MARKER, canonical::parse(MARKER, &file)?, Proof::Digest)?;
                if marker.format != 1 {
                    let what = format!("{}: repository format {} is not known", store.url(), marker.format);
                    return Err(Error::new(Class::Version, what).hint("use a newer backupd"));
                }
                Ok(Self { store, id: marker.repository_id })
            }
            Err(error) if error.class() == Class::NotFound => {
                Err(Error::new(Class::NotFound, format!("{}: there is no repository here", store.url()))
                    .hint("`snapshot create` makes one; check the URL, its prefix and its endpoint"))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a repository, and makes it first when there is none.
    ///
    /// # Errors
    /// As [`Repository::open`], and what the store says.
    pub async fn open_or_create(store: Arc<dyn Store>) -> Result<Self> {
        match Self::open(Arc::clone(&store)).await {
            Err(error) if error.class() == Class::NotFound => Self::create(store).await,
            other => other,
        }
    }

    /// Makes a repository where there was none.
    ///
    /// # Errors
    /// As [`Repository::open`], and what the store says.
    pub async fn create(store: Arc<dyn Store>) -> Result<Self> {
        let id = hex::encode(random::<16>()?);
        let marker = Marker { format: 1, repository_id: id.clone(), created_at: clock::text(clock::now()) };
        let file = canonical::seal(&marker, Proof::Digest)?;
        match store.create(MARKER, Bytes::from(file)).await {
            // where two can write one object it is read again, which of both it is
            Ok(()) if !store.looks_before_writes() => Ok(Self { store, id }),
            // somebody else made it between our look and our write: theirs counts
            Err(error) if error.class() != Class::Busy => Err(error),
            _ => Self::open(store).await,
        }
    }

    /// The random id of the repository.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Creates a small object, and counts it as created when it is there with just these bytes: a store may
    /// have written it and lost the answer, and its client may have tried again and met its own object.
    ///
    /// # Errors
    /// `Busy` when another object is there, and what the store says.
    pub async fn create_document(&self, key: &str, file: Vec<u8>) -> Result<()> {
        let file = Bytes::from(file);
        let Err(error) = self.store.create(key, file.clone()).await else { return Ok(()) };
        match self.store.read(key, DOCUMENT_BYTES_MAX).await {
            Ok(stored) if stored == file => Ok(()),
            _ => Err(error),
        }
    }

    /// The manifest at a place, its proof unchecked when it is encrypted.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Verification` when it is damaged or belongs elsewhere.
    pub async fn manifest(&self, place: &Place) -> Result<Unproven> {
        let key = place.manifest_key();
        let file = self.store.read(&key, DOCUMENT_BYTES_MAX).await?;
        let unproven = Unproven::parse(&key, &file)?;
        let claimed = unproven.claimed();
        if claimed.snapshot_id != place.snapshot_id || claimed.cluster != place.cluster {
            return Err(damaged(&key, "it is the manifest of another snapshot"));
        }
        Ok(unproven)
    }

    /// Finds a snapshot by name, unwraps its data key and proves its manifest.
    ///
    /// # Errors
    /// `NotFound`, `Busy` while it is being made, `Key`, `Verification`.
    pub async fn open_snapshot(&self, name: &str, keys: &Keys) -> Result<Opened> {
        let (place, unproven) = self.find(name).await?;
        let data_key = self.data_key(&place, unproven.claimed(), keys).await?;
        let manifest = unproven.prove(data_key.as_ref())?;
        Ok(Opened { place, manifest, data_key })
    }

    async fn data_key(&self, place: &Place, manifest: &Manifest, keys: &Keys) -> Result<Option<DataKey>> {
        match self.opener(place, manifest, keys).await? {
            Some(master) => self.unwrap(place, &master).await.map(Some),
            None => Ok(None),
        }
    }

    /// The one of `keys` that a snapshot is wrapped for; none when it is not encrypted.
    async fn opener(&self, place: &Place, manifest: &Manifest, keys: &Keys) -> Result<Option<Master>> {
        let keys = keys.of(&place.cluster);
        match (manifest.encryption.is_on(), keys.are_given()) {
            (false, true) => {
                return Err(Error::new(
                    Class::Refused,
                    format!("snapshot {} is not encrypted, though a key was given", manifest.name),
                )
                .hint(
                    "whoever can write to the repository could have put it there; give --no-encryption to accept it",
                ));
            }
            (false, false) => return Ok(None),
            (true, true) => {}
            (true, false) => {
                return Err(Error::new(
                    Class::Key,
                    format!("snapshot {} is encrypted and no key was given", manifest.name),
                )
                .hint(format!(
                    "give the key file that holds one of {} with --key-file, or a key of KMS with --kms-key",
                    self.wraps(place).await?.join(", ")
                )));
            }
        }
        let what = format!("snapshot {}", manifest.name);
        let hint = "give the key file or the key of KMS that made the snapshot";
        self.opener_of(place, keys, &what, hint).await.map(Some)
    }

    /// The one of `keys` that the data key at a place is wrapped for; `what` it opens, and `hint` what to do when there is none, are told.
    async fn opener_of(&self, place: &Place, keys: &Keys, what: &str, hint: &str) -> Result<Master> {
        let all = keys.all().await?;
        let wrapped_for = match self.wraps(place).await {
            // who may read and not list asks for each of its own
            Err(error) if error.class() == Class::StoreAuth => self.wraps_of(place, &all).await,
            other => other?,
        };
        all.into_iter().find(|key| wrapped_for.iter().any(|id| id == key.id())).ok_or_else(|| {
            let wrapped_for = match wrapped_for.as_slice() {
                [] => "no key at all (its objects `wrap-…` are missing)".to_owned(),
                ids => ids.join(", "),
            };
            Error::new(Class::Key, format!("{what} is wrapped for {wrapped_for}, and {}", keys.told())).hint(hint)
        })
    }

    /// The ids of the master keys that a snapshot's data key is wrapped for.
    ///
    /// # Errors
    /// What the store says.
    pub async fn wraps(&self, place: &Place) -> Result<Vec<String>> {
        let prefix = place.key("wrap-");
        let page = self.store.list(&prefix, false, None).await?;
        let id = |key: &str| Some(wrap::key_id_of(key.strip_prefix(&prefix)?.strip_suffix(".json")?));
        Ok(page.objects.iter().filter_map(|object| id(&object.key)).collect())
    }

    /// Those of `keys` whose wraps can be read.
    async fn wraps_of(&self, place: &Place, keys: &[Master]) -> Vec<String> {
        let mut found = Vec::new();
        for key in keys {
            if self.check_wrap(place, key.id()).await.is_ok() {
                found.push(key.id().to_owned());
            }
        }
        found
    }

    /// What the data key of a snapshot at a place is bound to.
    pub(crate) fn binding<'a>(&'a self, place: &'a Place) -> Binding<'a> {
        Binding { repository: &self.id, cluster: &place.cluster, snapshot_id: &place.snapshot_id }
    }

    /// Reads a wrap object and checks its digest and what it belongs to, without opening it.
    ///
    /// # Errors
    /// `Verification` when it is damaged.
    pub async fn check_wrap(&self, place: &Place, key_id: &str) -> Result<()> {
        let key = place.wrap_key(key_id);
        let file = self.store.read(&key, SMALL_BYTES_MAX).await?;
        wrap::parse(&key, &file, &place.snapshot_id, key_id).map(drop)
    }
}

/// Asks `ask` of each of `items`, [`IN_FLIGHT`] at the same time; the answers are in their order.
///
/// # Errors
/// The first in that order.
pub(crate) async fn side_by_side<I, T, F>(items: impl IntoIterator<Item = I>, ask: impl Fn(I) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (mut items, mut answers) = (items.into_iter().peekable(), Vec::new());
    while items.peek().is_some() {
        let asked: Vec<_> = items.by_ref().take(IN_FLIGHT).map(|item| tokio::spawn(ask(item))).collect();
        for answer in asked {
            answers.push(answer.await.map_err(crate::task_failed)??);
        }
    }
    Ok(answers)
}
