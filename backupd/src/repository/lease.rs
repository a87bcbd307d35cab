//! Leases: a job that reads a snapshot says so, and whoever would remove the snapshot waits.
//!
//! `lease-<id>-<n>.json` beside the manifest holds until its expiry; a living job renews it by an object of the next
//! number, and removes all of them when it is done. A remover writes its tombstone first and looks for leases after that; a reader
//! writes its lease first and looks for tombstones after that: so at least one of the two sees the other, and steps back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::claim::{Process, RENEWED_EVERY, VALID, valid_until_ms};
use super::fact::{Fact, Kind};
use super::{Place, Repository, SMALL_BYTES_MAX, new_snapshot_id};
use crate::canonical::{self, Proof};
use crate::clock;
use crate::error::{Class, Error, Result};

/// A lease object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    snapshot_id: String,
    lease_id: String,
    /// What for: `restore`, `copy`.
    purpose: String,
    expires_unix_ms: u64,
    process: Process,
}

/// A lease that is held and renewed. Dropped without [`Lease::release`] it runs out by itself.
#[derive(Debug)]
pub struct Lease {
    repository: Repository,
    place: Place,
    /// Empty when none could be written.
    id: String,
    /// How many objects of it were begun to be written.
    written: Arc<AtomicU64>,
    renewing: Option<JoinHandle<()>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(renewing) = &self.renewing {
            renewing.abort();
        }
    }
}

impl Lease {
    /// Removes it. Best effort: what stays runs out.
    pub async fn release(mut self) {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
            // only then no renewal can follow the removal
            drop(renewing.await);
        }
        if self.id.is_empty() {
            return;
        }
        // the highest counts, so it goes last: until then the lease is alive
        for number in 1..=self.written.load(Ordering::Relaxed) {
            if let Err(error) = self.repository.store.delete(&key(&self.place, &self.id, number)).await {
                tracing::warn!(error = %error, "a lease stays until it runs out");
            }
        }
    }
}

fn key(place: &Place, id: &str, number: u64) -> String {
    place.key(&format!("lease-{id}-{number:06}.json"))
}

impl Repository {
    /// Takes a lease on a snapshot, and renews it until it is released. With credentials that only read there is
    /// none: the job goes on with a warning.
    ///
    /// # Errors
    /// `Busy` when the snapshot is being removed, `NotFound` when it was, and what the store says.
    pub async fn lease(&self, place: &Place, purpose: &str) -> Result<Lease> {
        self.take_lease(place, purpose, true).await
    }

    /// Takes a lease on the place of a snapshot that is still to be published there, so that nobody takes its objects
    /// for garbage whatever name they belong to.
    ///
    /// # Errors
    /// `Busy` while a removal or gc is at work there, and what the store says.
    pub async fn lease_for_writing(&self, place: &Place, purpose: &str) -> Result<Lease> {
        self.take_lease(place, purpose, false).await
    }

    async fn take_lease(&self, place: &Place, purpose: &str, published: bool) -> Result<Lease> {
        let (repository, place, id) = (self.clone(), place.clone(), new_snapshot_id(clock::now())?);
        let purpose = purpose.to_owned();
        let written = Arc::new(AtomicU64::new(1));
        let mut lease = Lease { repository, place, id, written: Arc::clone(&written), renewing: None };
        match self.write_lease(&lease.place, &lease.id, 1, &purpose).await {
            Ok(()) => {}
            Err(error) if error.class() == Class::StoreAuth => {
                tracing::warn!(error = %error, "no lease can be written: a delete would not wait for this job");
                lease.id.clear();
                return Ok(lease);
            }
            Err(error) => return Err(error),
        }
        let is_published = async {
            match published {
                true => self.check_published(&lease.place).await,
                false => Ok(()),
            }
        };
        let (is_published, no_removal) = tokio::join!(is_published, self.check_no_removal(&lease.place));
        if let Err(error) = is_published.and(no_removal) {
            lease.release().await;
            return Err(error);
        }
        let (repository, place, id) = (self.clone(), lease.place.clone(), lease.id.clone());
        lease.renewing = Some(tokio::spawn(async move {
            for number in 2.. {
                tokio::time::sleep(RENEWED_EVERY).await;
                written.store(number, Ordering::Relaxed);
                if let Err(error) = repository.write_lease(&place, &id, number, &purpose).await {
                    tracing::warn!(error = %error, "a lease could not be renewed");
                }
            }
        }));
        Ok(lease)
    }

    async fn write_lease(&self, place: &Place, id: &str, number: u64, purpose: &str) -> Result<()> {
        let document = Document {
            format: 1,
            snapshot_id: place.snapshot_id.clone(),
            lease_id: id.to_owned(),
            purpose: purpose.to_owned(),
            expires_unix_ms: valid_until_ms(),
            process: Process::this(),
        };
        self.create_document(&key(place, id, number), canonical::seal(&document, Proof::Digest)?).await
    }

    pub(super) async fn check_published(&self, place: &Place) -> Result<()> {
        if self.store.size(&place.manifest_key()).await?.is_none() {
            let what = format!("`{}` in {} is gone: the snapshot was removed", place.manifest_key(), self.store.url());
            return Err(Error::new(Class::NotFound, what));
        }
        Ok(())
    }

    /// Refuses a place where somebody is removing objects.
    ///
    /// # Errors
    /// `Busy`, and what the store says.
    pub(crate) async fn check_no_removal(&self, place: &Place) -> Result<()> {
        check_none_is_live(&self.facts_of(Kind::Tombstone, place, None).await?, place)
    }

    /// Removes the tombstones of removals that ended in the middle, where a snapshot is to be published again.
    ///
    /// # Errors
    /// As [`Repository::check_no_removal`]: then none is removed.
    pub(crate) async fn clear_tombstones(&self, place: &Place) -> Result<()> {
        let tombstones = self.facts_of(Kind::Tombstone, place, None).await?;
        check_none_is_live(&tombstones, place)?;
        for fact in &tombstones {
            self.store.delete(&fact.key(place)).await?;
        }
        Ok(())
    }

    /// The leases on a snapshot that are alive: their keys and purposes. One that cannot be read counts as alive until
    /// it is older than a lease can be.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn live_leases(&self, place: &Place) -> Result<Vec<(String, String)>> {
        let mut newest = BTreeMap::new();
        for key in self.keys_below(&place.key("lease-")).await? {
            // numbers have six digits, so the newest of an id is the last of the listing
            let id = key.rsplit_once('-').map_or(key.clone(), |(id, _)| id.to_owned());
            newest.insert(id, key);
        }
        let now_ms = clock::unix_ms(clock::now());
        let mut live = Vec::new();
        for key in newest.into_values() {
            match self.read_lease(&key).await {
                Ok(lease) if lease.expires_unix_ms > now_ms && !lease.process.is_gone() => {
                    live.push((key, lease.purpose));
                }
                Ok(_) => {}
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) if error.class() == Class::Verification => {
                    let written_ms = self.store.stat(&key).await?.map_or(0, |stat| stat.modified_unix_ms);
                    let valid_ms = u64::try_from(VALID.as_millis()).unwrap_or(u64::MAX);
                    if written_ms.saturating_add(valid_ms) > now_ms {
                        live.push((key, "a lease that cannot be read".to_owned()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    async fn read_lease(&self, key: &str) -> Result<Document> {
        let file = self.store.read(key, SMALL_BYTES_MAX).await?;
        canonical::open(key, canonical::parse(key, &file)?, Proof::Digest)
    }
}

/// What a tombstone says.
pub(crate) fn tombstone(reason: &str) -> serde_json::Map<String, serde_json::Value> {
    let process = Process::this();
    let process = serde_json::json!({"pid": process.pid, "started": process.started, "world": process.world});
    let mut says = serde_json::Map::new();
    says.insert("reason".to_owned(), reason.into());
    says.insert("expires_unix_ms".to_owned(), valid_until_ms().into());
    says.insert("process".to_owned(), process);
    says
}

fn check_none_is_live(tombstones: &[Fact], place: &Place) -> Result<()> {
    let now_ms = clock::unix_ms(clock::now());
    match tombstones.iter().any(|fact| is_live_tombstone(fact, now_ms)) {
        true => Err(Error::new(Class::Busy, format!("snapshot {} is being removed by another job", place.snapshot_id))
            .hint("when that job is gone its tombstone runs out in a few minutes: then try again")),
        false => Ok(()),
    }
}

/// Whether the job that wrote a tombstone may still be at work.
pub(crate) fn is_live_tombstone(fact: &Fact, now_ms: u64) -> bool {
    let expires = fact.says.get("expires_unix_ms").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let process = fact.says.get("process").cloned().and_then(|value| serde_json::from_value::<Process>(value).ok());
    fact.kind == Kind::Tombstone && expires > now_ms && !process.is_some_and(|process| process.is_gone())
}
