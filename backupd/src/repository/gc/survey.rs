//! Looks for garbage.
//!
//! Folders are looked at before claims: a job claims before it writes, so whatever was seen has a claim that is seen too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use policies::garbage::{Holder, Item, Verdict, YOUNG, claim_of, definition_of, is_snapshot_id, judge, kind_of};

use super::{CLOCKS, Garbage, Kept, Orphans, Plan};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::repository::claim::Claim;
use crate::repository::{MARKER, Place, Repository};
use crate::store::{ObjectEntry, Unfinished};

/// How old a temporary file of a folder must at least be: it does not say whose it is.
const TEMPORARY_AGE_MIN_MS: u64 = 600_000;

/// What is known while a plan is made.
struct Survey<'a> {
    repository: &'a Repository,
    guard_ms: u64,
    now_ms: u64,
    plan: Plan,
    /// The highest claims of names without a manifest, by snapshot id, and whether they are alive.
    claims: BTreeMap<String, (Claim, bool)>,
    /// The snapshot ids of these claims, by name.
    names: BTreeMap<String, String>,
    /// Snapshots of which something is kept.
    kept: BTreeSet<String>,
}

/// Finds what is at least `guard` old and garbage.
pub(super) async fn plan(repository: &Repository, guard: Duration) -> Result<Plan> {
    let mut survey = Survey {
        repository,
        guard_ms: u64::try_from(guard.as_millis()).unwrap_or(u64::MAX),
        now_ms: clock::unix_ms(clock::now()),
        plan: Plan { older_than_s: guard.as_secs(), ..Plan::default() },
        claims: BTreeMap::new(),
        names: BTreeMap::new(),
        kept: BTreeSet::new(),
    };
    let unfinished = repository.store.unfinished().await?;
    let folders = survey.folders().await?;
    survey.read_claims().await?;
    for (place, objects) in folders {
        survey.folder(place, objects).await?;
    }
    survey.uploads(unfinished);
    survey.names().await?;
    survey.plan.bytes = survey.plan.removes.iter().map(|garbage| garbage.size_bytes).sum();
    Ok(survey.plan)
}

impl Survey<'_> {
    /// The objects of every folder that a snapshot can be in; whatever else lies around is told.
    async fn folders(&mut self) -> Result<Vec<(Place, Vec<ObjectEntry>)>> {
        let mut folders = Vec::new();
        let (objects, clusters) = self.repository.level("").await?;
        self.tell(objects.into_iter().filter(|object| object.key != MARKER));
        for cluster in clusters {
            let (objects, ids) = match cluster.as_str() {
                CLOCKS => (self.clocks().await?, Vec::new()),
                "_names/" => continue,
                other if policies::names::check("cluster", other.trim_end_matches('/')).is_ok() => {
                    let (objects, ids) = self.repository.level(other).await?;
                    (self.definitions(other, objects).await?, ids)
                }
                other => (self.repository.entries(other).await?, Vec::new()),
            };
            self.tell(objects.into_iter());
            for folder in ids {
                let objects = self.repository.entries(&folder).await?;
                let id = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                if is_snapshot_id(id) {
                    let (cluster, snapshot_id) = (cluster.trim_end_matches('/').to_owned(), id.to_owned());
                    folders.push((Place { cluster, snapshot_id }, objects));
                } else {
                    self.tell(objects.into_iter());
                }
            }
        }
        Ok(folders)
    }

    fn tell(&mut self, objects: impl Iterator<Item = ObjectEntry>) {
        self.plan.unknown.extend(objects.map(|object| object.key));
    }

    /// What runs of gc that died left. The rest of their folder is not ours.
    async fn clocks(&mut self) -> Result<Vec<ObjectEntry>> {
        let mut foreign = Vec::new();
        for object in self.repository.entries(CLOCKS).await? {
            let id = object.key.strip_prefix(CLOCKS).and_then(|file| file.strip_suffix(".json"));
            if !id.is_some_and(is_snapshot_id) {
                foreign.push(object);
                continue;
            }
            if let Some(age_ms) = self.age_ms(&object.key).await?
                && self.take(&object, "a gc or a check that ended in the middle", age_ms)
            {
                self.plan.steps.single.push(object.key);
            }
        }
        Ok(foreign)
    }

    /// What was said of a cluster before it was said otherwise. The rest of these objects is not ours.
    async fn definitions(&mut self, folder: &str, objects: Vec<ObjectEntry>) -> Result<Vec<ObjectEntry>> {
        let number = |object: &ObjectEntry| definition_of(object.key.strip_prefix(folder).unwrap_or_default());
        let (ours, foreign): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| number(object).is_some());
        let last = ours.iter().filter_map(number).max();
        for object in ours.into_iter().filter(|object| number(object) != last) {
            if let Some(age_ms) = self.age_ms(&object.key).await?
                && self.take(&object, "something else was said of the cluster since", age_ms)
            {
                self.plan.steps.single.push(object.key);
            }
        }
        Ok(foreign)
    }

    /// Takes garbage into the plan when it is old enough.
    fn take(&mut self, object: &ObjectEntry, reason: &'static str, age_ms: u64) -> bool {
        let key = object.key.clone();
        if age_ms < self.guard_ms {
            self.plan.keeps.push(Kept { key, reason: YOUNG });
            return false;
        }
        self.plan.removes.push(Garbage { key, reason, size_bytes: object.size_bytes, age_s: age_ms / 1000 });
        true
    }

    /// The age of an object by the store's clock, asked of the object itself; `None` when it is gone.
    async fn age_ms(&self, key: &str) -> Result<Option<u64>> {
        let stat = self.repository.store.stat(key).await?;
        // a store that tells no time makes everything young
        let written_ms = |ms: u64| if ms == 0 { self.now_ms } else { ms };
        Ok(stat.map(|stat| self.now_ms.saturating_sub(written_ms(stat.modified_unix_ms))))
    }

    /// The claims of all names without a manifest.
    async fn read_claims(&mut self) -> Result<()> {
        for name in self.repository.folders("_names/").await? {
            let read = async {
                let Some(claim) = self.repository.highest_claim(&name).await? else { return Ok::<_, Error>(None) };
                let place = Place { cluster: claim.cluster.clone(), snapshot_id: claim.snapshot_id.clone() };
                if self.repository.store.size(&place.manifest_key()).await?.is_some() {
                    return Ok(None);
                }
                let live = self.repository.is_live(&claim).await?;
                Ok(Some((claim, live)))
            };
            match read.await {
                Ok(Some((claim, live))) => {
                    self.names.insert(name, claim.snapshot_id.clone());
                    // copies to one place may have claimed several names for it: one that is alive counts
                    if live || !self.claims.contains_key(&claim.snapshot_id) {
                        self.claims.insert(claim.snapshot_id.clone(), (claim, live));
                    }
                }
                Ok(None) => {}
                Err(error) if error.class() == Class::Verification => self.check_old(&name, error).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A claim that cannot be read protects nothing once all of its objects are older than the guard.
    async fn check_old(&self, name: &str, error: Error) -> Result<()> {
        for key in self.repository.keys_below(&format!("_names/{name}/")).await? {
            if self.age_ms(&key).await?.is_some_and(|age_ms| age_ms < self.guard_ms) {
                return Err(error.hint("it may protect a snapshot that is being made: wait, or look into it"));
            }
        }
        Ok(())
    }

    async fn folder(&mut self, place: Place, objects: Vec<ObjectEntry>) -> Result<()> {
        let claim = self.claims.get(&place.snapshot_id).cloned();
        let (holder, needed) = self.holder(&place, claim.as_ref().is_some_and(|(_, live)| *live)).await?;
        let (folder, mut garbage) = (place.key(""), Vec::new());
        for object in objects {
            let kind = kind_of(object.key.strip_prefix(&folder).unwrap_or_default());
            let id_age_ms = self.now_ms.saturating_sub(time_of(&place.snapshot_id));
            let mut item = Item { kind, needed: needed.contains(&object.key), age_ms: id_age_ms };
            if let Verdict::Remove(_) = judge(item, holder, self.guard_ms) {
                let Some(age_ms) = self.age_ms(&object.key).await? else { continue };
                item.age_ms = item.age_ms.min(age_ms);
            }
            match (judge(item, holder, self.guard_ms), kind) {
                (Verdict::Remove(reason), Some(kind)) if self.take(&object, reason, item.age_ms) => {
                    garbage.push((kind, object.key));
                }
                (Verdict::Keep(reason), _) => {
                    self.kept.insert(place.snapshot_id.clone());
                    self.plan.keeps.push(Kept { key: object.key, reason });
                }
                (Verdict::Unknown, _) => self.plan.unknown.push(object.key),
                (Verdict::Belongs | Verdict::Remove(_), _) => {}
            }
        }
        garbage.sort();
        match holder {
            Holder::Manifest => self.plan.steps.single.extend(garbage.into_iter().map(|(_, key)| key)),
            _ if garbage.is_empty() => {}
            _ => {
                let claim = claim.map(|(claim, _)| claim);
                self.plan.steps.folders.push(Orphans { place, objects: garbage, claim });
            }
        }
        Ok(())
    }

    /// Who needs the folder, and the objects in it that are needed.
    async fn holder(&self, place: &Place, claimed: bool) -> Result<(Holder, BTreeSet<String>)> {
        let leases = self.repository.live_leases(place).await?;
        let mut needed: BTreeSet<String> = leases.iter().map(|(key, _)| key.clone()).collect();
        match self.repository.manifest(place).await {
            Ok(unproven) => {
                needed.extend(unproven.claimed().shards.iter().map(|shard| place.key(&shard.object.file)));
                Ok((Holder::Manifest, needed))
            }
            Err(error) if matches!(error.class(), Class::Verification | Class::Version) => {
                Ok((Holder::BrokenManifest, needed))
            }
            Err(error) if error.class() == Class::NotFound => {
                let holder = if claimed {
                    Holder::Claim
                } else if leases.is_empty() {
                    Holder::Nobody
                } else {
                    Holder::Lease
                };
                Ok((holder, needed))
            }
            Err(error) => Err(error),
        }
    }

    fn uploads(&mut self, unfinished: Vec<Unfinished>) {
        let any_live = self.claims.values().any(|(_, live)| *live);
        for upload in unfinished {
            let age_ms = self.now_ms.saturating_sub(upload.modified_unix_ms);
            let (key, live, guard_ms) = match &upload.key {
                None => (upload.id.clone(), any_live, self.guard_ms.max(TEMPORARY_AGE_MIN_MS)),
                Some(key) => {
                    let mut parts = key.split('/').skip(1);
                    let (id, file) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    if !is_snapshot_id(id) || kind_of(file).is_none() || parts.next().is_some() {
                        self.plan.unknown.push(key.clone());
                        continue;
                    }
                    (key.clone(), self.claims.get(id).is_some_and(|(_, live)| *live), self.guard_ms)
                }
            };
            if live {
                self.plan.keeps.push(Kept { key, reason: "a job is making a snapshot" });
            } else if age_ms < guard_ms {
                self.plan.keeps.push(Kept { key, reason: YOUNG });
            } else {
                let reason = "an upload that was never finished";
                self.plan.removes.push(Garbage { key, reason, size_bytes: 0, age_s: age_ms / 1000 });
                self.plan.steps.uploads.push(upload);
            }
        }
    }

    /// Claims that decide nothing any more: those of names whose snapshot is gone, and all but the highest of the others.
    async fn names(&mut self) -> Result<()> {
        for name in self.repository.folders("_names/").await? {
            let folder = format!("_names/{name}/");
            let objects = self.repository.entries(&folder).await?;
            let number = |object: &ObjectEntry| claim_of(object.key.strip_prefix(&folder).unwrap_or_default());
            let (ours, foreign): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| number(object).is_some());
            self.tell(foreign.into_iter());
            let Some(highest) = ours.iter().filter_map(number).max() else { continue };
            // one that was made since is alive, and is none of these
            let claim = self.names.get(&name).and_then(|id| self.claims.get(id));
            let claim = claim.filter(|(claim, _)| claim.number == highest);
            let void = claim.is_some_and(|(claim, live)| !live && !self.kept.contains(&claim.snapshot_id));
            let (claimed, live) = (claim.is_some(), claim.is_some_and(|(_, live)| *live));
            let owner = format!("{folder}{highest:06}.json");
            let (mut garbage, mut young) = (Vec::new(), false);
            for object in ours {
                let decides = number(&object) == Some(highest) && (object.key == owner || claimed);
                if live || (decides && !void) {
                    continue;
                }
                let Some(age_ms) = self.age_ms(&object.key).await? else { continue };
                match self.take(&object, "a claim that decides nothing any more", age_ms) {
                    true => garbage.push(object.key),
                    false => young = true,
                }
            }
            match void {
                true if !young => self.plan.steps.names.push((name, highest)),
                true => {}
                false => self.plan.steps.single.extend(garbage),
            }
        }
        Ok(())
    }
}

/// The time in an id, ms since 1970; an impossible one is the future, so that its age is 0.
fn time_of(id: &str) -> u64 {
    let time = id.split('-').next().and_then(|time| chrono::NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok());
    time.map_or(u64::MAX, |time| clock::unix_ms(time.and_utc()))
}
