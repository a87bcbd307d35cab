//! What nobody needs any more: objects that no manifest names, claims and leases that ran out, uploads that were never
//! finished. `policies::garbage` decides; this looks and carries out.

mod survey;

use std::time::Duration;

use bytes::Bytes;
use policies::garbage::Kind;
use serde::Serialize;

use super::claim::Claim;
use super::lease::tombstone;
use super::{Place, Repository, fact, new_snapshot_id};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::store::Unfinished;

/// How old garbage must be unless another age is asked for.
pub const GUARD: Duration = Duration::from_secs(24 * 3600);

/// Where a run of gc reads the store's clock.
pub(super) const CLOCKS: &str = "_gc/";

/// What there is to remove, and what looks like it and is kept.
#[derive(Debug, Default, Serialize)]
pub struct Plan {
    /// The guard, seconds.
    pub older_than_s: u64,
    /// Garbage.
    pub removes: Vec<Garbage>,
    /// What no manifest names and is kept.
    pub keeps: Vec<Kept>,
    /// What is not named as we name things. It is never touched.
    pub unknown: Vec<String>,
    /// Bytes of the objects to remove; those of unfinished uploads are not known.
    pub bytes: u64,
    /// Whether it was carried out.
    pub applied: bool,
    #[serde(skip)]
    steps: Steps,
}

/// One thing to remove.
#[derive(Debug, Clone, Serialize)]
pub struct Garbage {
    /// The object, or the key that an upload would have got.
    pub key: String,
    /// Why.
    pub reason: &'static str,
    /// Its size.
    pub size_bytes: u64,
    /// Its age.
    pub age_s: u64,
}

/// One thing that is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// The object, or the key that an upload would get.
    pub key: String,
    /// Why.
    pub reason: &'static str,
}

/// The garbage in a folder without a manifest.
#[derive(Debug)]
struct Orphans {
    place: Place,
    objects: Vec<(Kind, String)>,
    /// The claim that they were made under.
    claim: Option<Claim>,
}

/// The order in which garbage goes.
#[derive(Debug, Default)]
struct Steps {
    uploads: Vec<Unfinished>,
    /// Objects beside a living manifest, notes of its claims, and clock objects.
    single: Vec<String>,
    folders: Vec<Orphans>,
    /// Names whose snapshot is gone, with the number of their highest claim.
    names: Vec<(String, u64)>,
}

impl Repository {
    /// Finds garbage that is at least `guard` old. Nothing is written.
    ///
    /// # Errors
    /// What the store says; `Verification` when a young claim cannot be read, since it may protect anything.
    pub async fn plan_gc(&self, guard: Duration) -> Result<Plan> {
        survey::plan(self, guard).await
    }

    /// Finds garbage and removes it.
    ///
    /// # Errors
    /// As [`Repository::plan_gc`]; `Config` when this machine's clock and the store's disagree. What was removed until
    /// then is gone, and the next run goes on.
    pub async fn apply_gc(&self, guard: Duration) -> Result<Plan> {
        let mut plan = self.plan_gc(guard).await?;
        if plan.removes.is_empty() {
            plan.applied = true;
            return Ok(plan);
        }
        let (now_ms, store_ms) = self.clocks().await?;
        policies::retention::check_clocks(now_ms, store_ms).map_err(|refusal| {
            Error::new(Class::Config, format!("{}: {refusal}", self.store.url()))
                .hint("ages cannot be trusted, so nothing was removed: set the clock")
        })?;
        let steps = std::mem::take(&mut plan.steps);
        for upload in &steps.uploads {
            self.store.discard(upload).await?;
        }
        for key in &steps.single {
            self.store.delete(key).await?;
        }
        for orphans in &steps.folders {
            self.remove_folder(orphans).await?;
        }
        for (name, number) in &steps.names {
            self.remove_claims(name, *number).await?;
        }
        plan.applied = true;
        Ok(plan)
    }

    /// The time by this machine's clock and by the store's, in ms since 1970: ages are differences between the two. An object
    /// written now tells.
    pub(super) async fn clocks(&self) -> Result<(u64, u64)> {
        let now = clock::now();
        let key = format!("{CLOCKS}{}.json", new_snapshot_id(now)?);
        self.store.create(&key, Bytes::from_static(b"{}")).await?;
        let stored_ms = self.store.stat(&key).await?.map_or(0, |stat| stat.modified_unix_ms);
        self.store.delete(&key).await?;
        Ok((clock::unix_ms(now), stored_ms))
    }

    /// Removes a folder without a manifest: first whatever could still publish it is stopped, then the data goes, and
    /// the tombstone last.
    async fn remove_folder(&self, Orphans { place, objects, claim }: &Orphans) -> Result<()> {
        if let Some(claim) = claim {
            self.void(&claim.name, claim.number).await?;
        }
        let stone = self.note(place, fact::Kind::Tombstone, tombstone("gc"), None).await?;
        let live = match claim {
            Some(claim) => self.is_live(claim).await?,
            None => false,
        };
        if live || self.store.size(&place.manifest_key()).await?.is_some() || !self.live_leases(place).await?.is_empty()
        {
            tracing::warn!(snapshot = place.snapshot_id, "somebody took it up again: it is left");
            return self.store.delete(&stone.key(place)).await;
        }
        for (_, key) in objects {
            self.store.delete(key).await?;
        }
        self.store.delete(&stone.key(place)).await
    }
}
