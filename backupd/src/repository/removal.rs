//! Removal of a snapshot, in the reverse order of its making.
//!
//! 1. a tombstone, so that a reader that comes now steps back;
//! 2. a look for leases: a job that reads the snapshot makes the removal step back;
//! 3. a note that the claim holds nothing, then the manifest: from here on the snapshot does not exist, and its name is free;
//! 4. data, wraps, facts, the tombstone last;
//! 5. the claims on the name.
//!
//! A process that dies before 3 leaves a whole snapshot, one that dies later leaves garbage, and the same command again goes on
//! where it ended.

use policies::garbage::{Kind, kind_of};
use serde::Serialize;

use super::fact;
use super::lease::tombstone;
use super::{Place, Repository};
use crate::clock;
use crate::error::{Class, Error, Result};

/// What a removal did.
#[derive(Debug, Clone, Serialize)]
pub struct Removal {
    /// The name, as it was given.
    pub name: String,
    /// The cluster.
    pub cluster: String,
    /// The id.
    pub snapshot_id: String,
    /// Objects that were removed.
    pub objects: u64,
    /// Objects in its folder that are not ours, and were left.
    pub left: Vec<String>,
}

/// What is to be removed.
struct Target {
    place: Place,
    /// The number of the claim, where it is known.
    claim: Option<u64>,
    /// Whether there is a manifest; without one an earlier removal ended in the middle.
    exists: bool,
}

/// What a removal steps back from, beside leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unless {
    /// A note that the snapshot is kept, or that others may read it.
    Kept(Despite),
    /// That, and a mark that is gone or lies in the future.
    Unmarked,
}

/// What a removal does not step back from, because that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Despite {
    /// A manifest that cannot be read, and notes about the snapshot that cannot be.
    pub broken: bool,
    /// Others were granted to read it.
    pub granted: bool,
}

impl Repository {
    /// Removes a snapshot. One whose manifest cannot be read is named by its name or by its id as a listing shows it. No key is needed.
    ///
    /// # Errors
    /// `NotFound`, `Refused` when it is kept or granted to others, `Busy` while it is being made or read, `Verification` when it is broken, and what the
    /// store says. After any of them the same call may be made again.
    pub async fn delete(&self, name: &str, despite: Despite) -> Result<Removal> {
        let target = self.target(name, despite.broken).await?;
        self.remove(name, &target, Unless::Kept(despite)).await
    }

    /// Removes a snapshot whose mark says that its time has come; see `repository::retention`.
    ///
    /// # Errors
    /// As [`Repository::delete`]; `Refused` also when it has no such mark any more.
    pub(super) async fn delete_expired(&self, place: &Place) -> Result<Removal> {
        let unproven = self.manifest(place).await?;
        let (name, claim) = (unproven.claimed().name.clone(), unproven.claimed().claim);
        let target = Target { place: place.clone(), claim: Some(claim), exists: true };
        self.remove(&name, &target, Unless::Unmarked).await
    }

    async fn remove(&self, name: &str, target: &Target, unless: Unless) -> Result<Removal> {
        let place = &target.place;
        self.check_may_go(name, place, unless).await?;
        match target.exists {
            true => self.remove_manifest(name, target, unless).await?,
            // somebody may be copying the snapshot to here again
            false => self.check_unread(name, place).await?,
        }
        let (objects, left) = self.remove_rest(place).await?;
        if let Some(number) = target.claim {
            self.remove_claims(name, number).await?;
        }
        let (cluster, snapshot_id) = (place.cluster.clone(), place.snapshot_id.clone());
        Ok(Removal { name: name.to_owned(), cluster, snapshot_id, objects: objects + u64::from(target.exists), left })
    }

    /// Refuses what is kept or granted, and what is not marked where that is asked for.
    async fn check_may_go(&self, name: &str, place: &Place, unless: Unless) -> Result<()> {
        let despite = match unless {
            Unless::Kept(despite) => despite,
            Unless::Unmarked => Despite::default(),
        };
        if self.is_kept(place, despite.broken).await? {
            return Err(Error::new(Class::Refused, format!("snapshot {name} is kept"))
                .hint(format!("`backupd snapshot keep {name} --release` lets it go")));
        }
        if !despite.granted {
            self.check_not_granted(name, place, despite.broken).await?;
        }
        let now_ms = clock::unix_ms(clock::now());
        if self.is_locked(place).await? {
            return Err(Error::new(Class::Refused, format!("snapshot {name} is locked by its store (Object Lock)"))
                .hint("it can go when the retention or legal hold of its manifest has ended"));
        }
        if unless == Unless::Unmarked && self.expires_ms(place).await?.is_none_or(|expires_ms| expires_ms > now_ms) {
            return Err(Error::new(Class::Refused, format!("snapshot {name} is not marked to go any more")));
        }
        Ok(())
    }

    /// Whether the store lets nobody delete the manifest now, by the store's own rules for it.
    pub(super) async fn is_locked(&self, place: &Place) -> Result<bool> {
        let stat = self.store.stat(&place.manifest_key()).await?;
        Ok(stat.is_some_and(|stat| stat.is_locked(clock::unix_ms(clock::now()))))
    }

    async fn check_not_granted(&self, name: &str, place: &Place, broken: bool) -> Result<()> {
        match self.granted_ids(place).await {
            Ok(ids) if ids.is_empty() => Ok(()),
            Ok(ids) => {
                let what = format!("others were granted to read snapshot {name}: {}", ids.join(", "));
                let revoke = ids.iter().map(|id| format!("`backupd grant revoke {id}`")).collect::<Vec<_>>().join(", ");
                Err(Error::new(Class::Refused, what)
                    .hint(format!("{revoke} takes that back; --force deletes it all the same")))
            }
            // a note that cannot be read may say so
            Err(error) if broken && matches!(error.class(), Class::Verification | Class::Version) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn target(&self, name: &str, broken: bool) -> Result<Target> {
        let error = match self.find(name).await {
            Ok((place, unproven)) => {
                let claim = unproven.claimed();
                return Ok(Target { place, claim: Some(claim.claim), exists: true });
            }
            Err(error) => error,
        };
        match error.class() {
            Class::NotFound => match self.begun_removal(name).await? {
                Some(target) => Ok(target),
                None if broken => self.broken_target(name).await?.ok_or(error),
                None => Err(error),
            },
            Class::Verification | Class::Version if broken => self.broken_target(name).await?.ok_or(error),
            Class::Verification => Err(error.hint("--broken removes it all the same")),
            _ => Err(error),
        }
    }

    /// A name whose snapshot has a tombstone and no manifest.
    async fn begun_removal(&self, name: &str) -> Result<Option<Target>> {
        let Some(claim) = self.highest_claim(name).await? else { return Ok(None) };
        let place = Place { cluster: claim.cluster.clone(), snapshot_id: claim.snapshot_id.clone() };
        let begun = !self.facts_of(fact::Kind::Tombstone, &place, None).await?.is_empty();
        Ok(begun.then_some(Target { place, claim: Some(claim.number), exists: false }))
    }

    /// A snapshot whose manifest cannot be read, by its name or its id.
    async fn broken_target(&self, name: &str) -> Result<Option<Target>> {
        let claim = match self.highest_claim(name).await {
            Err(error) if error.class() != Class::Verification => return Err(error),
            other => other.ok().flatten(),
        };
        let found = match claim {
            Some(claim) => {
                let place = Place { cluster: claim.cluster.clone(), snapshot_id: claim.snapshot_id.clone() };
                Some(Target { place, claim: Some(claim.number), exists: true })
            }
            None => {
                let place = self.places().await?.into_iter().find(|place| place.snapshot_id == name);
                place.map(|place| Target { place, claim: None, exists: true })
            }
        };
        let Some(target) = found else { return Ok(None) };
        match self.manifest(&target.place).await {
            Err(error) if matches!(error.class(), Class::Verification | Class::Version) => Ok(Some(target)),
            // it is whole after all, or there is none
            Ok(_) => Ok(None),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Steps 1 to 3.
    async fn remove_manifest(&self, name: &str, target: &Target, unless: Unless) -> Result<()> {
        let place = &target.place;
        self.check_unread(name, place).await?;
        let stone = self.note(place, fact::Kind::Tombstone, tombstone("delete"), None).await?;
        let checked = async {
            self.check_unread(name, place).await?;
            // whoever keeps it writes that note before the look for our tombstone
            self.check_may_go(name, place, unless).await?;
            let now_ms = clock::unix_ms(clock::now());
            if super::lease::is_live_tombstone(&stone, now_ms) {
                return Ok(());
            }
            Err(Error::new(Class::Busy, format!("snapshot {name}: this job stood still for too long"))
                .hint("try again"))
        };
        if let Err(error) = checked.await {
            self.store.delete(&stone.key(place)).await?;
            return Err(error);
        }
        // the claim may be young and its process alive: without the manifest it would hold the name
        if let Some(number) = target.claim {
            self.void(name, number).await?;
        }
        self.store.delete(&place.manifest_key()).await
    }

    async fn check_unread(&self, name: &str, place: &Place) -> Result<()> {
        match self.live_leases(place).await?.first() {
            None => Ok(()),
            Some((key, purpose)) => Err(Error::new(Class::Busy, format!("snapshot {name} is being read ({purpose})"))
                .hint(format!("wait until that job is done; `{key}` runs out some minutes after it is gone"))),
        }
    }

    /// Step 4: everything of ours in the folder of a snapshot that has no manifest. What is not ours is left and told.
    pub(super) async fn remove_rest(&self, place: &Place) -> Result<(u64, Vec<String>)> {
        let folder = place.key("");
        let (mut ours, mut left) = (Vec::new(), Vec::new());
        for key in self.keys_below(&folder).await? {
            let file = key.strip_prefix(&folder).unwrap_or_default();
            match kind_of(file).map(|kind| (kind, file.starts_with("fact-tombstone-"))) {
                // a manifest that is there again means that somebody else is at work here
                Some((Kind::Manifest, _)) => {
                    let what = format!("`{key}` in {} appeared while its snapshot was removed", self.store.url());
                    return Err(Error::new(Class::Busy, what));
                }
                Some((kind, last)) => ours.push((last, kind, key)),
                None => left.push(key),
            }
        }
        ours.sort();
        for (_, _, key) in &ours {
            self.store.delete(key).await?;
        }
        Ok((ours.len() as u64, left))
    }
}
