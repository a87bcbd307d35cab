//! What the facts beside snapshots say was granted.

use std::collections::BTreeSet;

use chrono::DateTime;
use policies::grants::Grant;
use serde_json::Value;

use super::super::fact::Fact;
use super::super::{Place, Repository, side_by_side};
use crate::canonical::damaged;
use crate::clock;
use crate::error::{Class, Error, Result};

/// What the names of these facts begin with.
const FACT: &str = "fact-granted-";

/// Where grants are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Within<'a> {
    /// Beside all snapshots: the names of all objects are listed.
    Everything,
    /// Beside those of one cluster. What only the policy or KMS has is left out.
    Cluster(&'a str),
    /// Beside those that an index names, and those that the policy names and the index does not. Nothing is listed but their folders.
    Known(&'a BTreeSet<Place>),
}

/// A grant of a snapshot by its facts, which was not taken back.
pub(super) struct Noted {
    pub(super) place: Place,
    pub(super) given: Given,
}

/// What facts say of a grant.
#[derive(Debug, Clone)]
pub struct Given {
    /// The grant.
    pub grant: Grant,
    /// The key of theirs that has a wrap.
    pub key_id: Option<String>,
    /// The ARN of the key of ours that has a grant of KMS.
    pub kms_key: Option<String>,
    /// When it was given, ms since 1970.
    pub given_ms: u64,
    /// When it was taken back, ms since 1970.
    pub revoked_ms: Option<u64>,
}

impl Given {
    /// What is to be noted of it.
    pub(super) fn new(grant: Grant, key_id: Option<String>, kms_key: Option<String>) -> Self {
        Self { grant, key_id, kms_key, given_ms: 0, revoked_ms: None }
    }
}

impl Repository {
    /// The ids of the grants by which somebody may read this snapshot.
    ///
    /// # Errors
    /// `Verification` or `Version` when a fact about it cannot be read, since it may say so; what the store says.
    pub(in crate::repository) async fn granted_ids(&self, place: &Place) -> Result<Vec<String>> {
        Ok(self.given_now(place).await?.into_iter().map(|given| given.grant.id).collect())
    }

    /// What facts say that was given, and not taken back since.
    pub(super) async fn given_now(&self, place: &Place) -> Result<Vec<Given>> {
        let given = self.given(place).await?.into_iter();
        Ok(given.filter(|given| given.revoked_ms.is_none()).collect())
    }

    /// What facts say that was given, and taken back since.
    async fn given(&self, place: &Place) -> Result<Vec<Given>> {
        let mut grants: Vec<Given> = Vec::new();
        for fact in self.facts_below(place, FACT, None, false).await? {
            let (given, revoked) = read(place, &fact)?;
            match grants.iter_mut().find(|other| other.grant.id == given.grant.id) {
                Some(known) if revoked => {
                    known.revoked_ms.get_or_insert(given.given_ms);
                }
                // given once more, so that what was missing of it is done
                Some(known) if known.revoked_ms.is_none() => *known = Given { given_ms: known.given_ms, ..given },
                Some(known) => *known = given,
                None => grants.push(Given { revoked_ms: revoked.then_some(given.given_ms), ..given }),
            }
        }
        Ok(grants)
    }

    /// Where facts say that something was granted, of one cluster or of all: in one pass over the names of all objects, of which nothing
    /// else is kept.
    ///
    /// # Errors
    /// What the store says.
    pub async fn granted_places(&self, cluster: Option<&str>) -> Result<BTreeSet<Place>> {
        let prefix = cluster.map(|cluster| format!("{cluster}/")).unwrap_or_default();
        let (mut places, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.store.list(&prefix, false, after.as_deref()).await?;
            places.extend(page.objects.iter().filter_map(|object| granted(&object.key)));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(places),
            }
        }
    }

    /// The grants beside these snapshots, as far as there are such snapshots.
    pub(super) async fn noted_at(&self, places: BTreeSet<Place>) -> Result<Vec<Noted>> {
        let noted = side_by_side(places, |place| {
            let repository = self.clone();
            async move { repository.noted_beside(place).await }
        });
        Ok(noted.await?.into_iter().flatten().collect())
    }

    async fn noted_beside(&self, place: Place) -> Result<Vec<Noted>> {
        let given = self.given_at(&place).await?.into_iter().filter(|given| given.revoked_ms.is_none());
        Ok(given.map(|given| Noted { place: place.clone(), given }).collect())
    }

    /// The grants of a snapshot, also those that were taken back; none of what is no snapshot, or not any more.
    ///
    /// # Errors
    /// `Verification` or `Version` when a fact about it cannot be read; what the store says.
    pub async fn given_at(&self, place: &Place) -> Result<Vec<Given>> {
        // only a manifest makes a snapshot
        match self.store.size(&place.manifest_key()).await? {
            Some(_) => self.given(place).await,
            None => Ok(Vec::new()),
        }
    }
}

/// The place of a note of a grant, by its key.
fn granted(key: &str) -> Option<Place> {
    let mut parts = key.splitn(3, '/');
    let (cluster, snapshot_id, file) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = file.starts_with(FACT) && policies::names::check("cluster", cluster).is_ok();
    is_ours.then(|| Place { cluster: cluster.to_owned(), snapshot_id: snapshot_id.to_owned() })
}

/// The grant that a fact tells of, given at its time, and whether it was taken back then.
fn read(place: &Place, fact: &Fact) -> Result<(Given, bool)> {
    let not_understood =
        |why: String| Error::new(Class::Version, format!("{} is not understood: {why}", fact.key(place)));
    let grant = fact.says.get("grant").cloned().unwrap_or_default();
    let grant: Grant = serde_json::from_value(grant).map_err(|error| not_understood(error.to_string()))?;
    if Place::of(&grant.scope).as_ref() != Some(place) {
        return Err(damaged(&fact.key(place), "it is a grant of something else"));
    }
    let at = DateTime::parse_from_rfc3339(&fact.at).map_err(|error| not_understood(error.to_string()))?;
    let text = |member: &str| fact.says.get(member).and_then(Value::as_str).map(str::to_owned);
    let given = Given { given_ms: clock::unix_ms(at.to_utc()), ..Given::new(grant, text("key_id"), text("kms_key")) };
    Ok((given, fact.says.get("revoked") == Some(&Value::Bool(true))))
}
