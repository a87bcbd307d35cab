//! Claims: who may make the snapshot of a name.
//!
//! `_names/<name>/<number>.json` is created with a conditional write, so each number has one owner, and the
//! highest number owns the name (`policies::claim` decides whether the next may be taken). A living job
//! renews its claim by further objects `<number>-renewed-<n>.json`; one that gives up says so by
//! `<number>-released.json`. Nothing is overwritten, so append-only credentials suffice.

use std::time::Duration;

use bytes::Bytes;
use policies::claim::{Claim as State, Verdict, decide};
use serde::{Deserialize, Serialize};

use super::{Place, Repository, SMALL_BYTES_MAX};
use crate::canonical::{self, Proof, damaged};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::manifest::Unproven;

/// How long a claim is valid without being renewed.
pub const VALID: Duration = Duration::from_secs(600);
/// How often a living job renews its claim.
pub const RENEWED_EVERY: Duration = Duration::from_secs(180);
/// What is noted of a claim that holds nothing any more.
const RELEASED: &str = "released";
/// The most objects below one name that are looked at.
const OBJECTS_MAX: usize = 100_000;
/// The highest number of a claim that is looked for where nothing can be listed.
const UNLISTED_MAX: u64 = 16;

/// A claim object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// 1.
    pub format: u32,
    /// The name claimed.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// The cluster the snapshot is of.
    pub cluster: String,
    /// The snapshot that is being made.
    pub snapshot_id: String,
    /// When it was made, RFC 3339.
    pub claimed_at: String,
    /// Until when it is valid, ms since 1970.
    pub expires_unix_ms: u64,
    /// The process that made it.
    pub process: Process,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renewal {
    format: u32,
    expires_unix_ms: u64,
}

/// Identifies a process well enough to know that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Boot id and process-id name space: two processes can see each other only where these agree.
    pub world: String,
    /// Process id.
    pub pid: u32,
    /// Start time in ticks since boot, so that a reused process id is not mistaken for the old process.
    pub started: u64,
}

impl Process {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let world = format!("{} {}", boot.trim(), namespace.display());
        let pid = std::process::id();
        Self { world, pid, started: started(pid).unwrap_or(0) }
    }

    /// Whether it ran where we would see it, and does not run any more.
    pub(super) fn is_gone(&self) -> bool {
        let this = Self::this();
        !this.world.trim().is_empty() && self.world == this.world && started(self.pid) != Some(self.started)
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); the command name before it may hold spaces and brackets.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What the objects below a name say.
#[derive(Debug, Default)]
struct Found {
    highest: Option<u64>,
    renewals: u64,
    released: bool,
}

/// A name that this job holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The claim.
    pub claim: Claim,
    /// Where the snapshot's objects go.
    pub place: Place,
}

fn folder(name: &str) -> String {
    format!("_names/{name}/")
}

fn claim_key(name: &str, number: u64) -> String {
    format!("{}{number:06}.json", folder(name))
}

fn note_key(name: &str, number: u64, note: &str) -> String {
    format!("{}{number:06}-{note}.json", folder(name))
}

pub(super) fn valid_until_ms() -> u64 {
    clock::unix_ms(clock::now()).saturating_add(u64::try_from(VALID.as_millis()).unwrap_or(u64::MAX))
}

impl Repository {
    /// Claims a name for a new snapshot.
    ///
    /// # Errors
    /// `Refused` when a snapshot of this name exists, `Busy` while another job makes one.
    pub async fn claim(&self, name: &str, cluster: &str, snapshot_id: &str) -> Result<Held> {
        let state = self.state(name).await?;
        self.claim_after(state.as_ref(), name, cluster, snapshot_id).await
    }

    /// Claims a name by what [`Repository::state`] told of it. Whoever claims it meanwhile is met by the condition of the write.
    ///
    /// # Errors
    /// As [`Repository::claim`].
    pub(crate) async fn claim_after(
        &self,
        state: Option<&State>,
        name: &str,
        cluster: &str,
        snapshot_id: &str,
    ) -> Result<Held> {
        let number = match decide(state, clock::unix_ms(clock::now())) {
            Verdict::Take { number, reason } => {
                tracing::debug!(name, number, reason, "the name is free");
                number
            }
            Verdict::Exists => {
                return Err(Error::new(
                    Class::Refused,
                    format!("a snapshot named {name} exists in {}", self.store.url()),
                )
                .hint("names are unique in a repository: choose another name, or delete that snapshot"));
            }
            Verdict::Busy { expires_unix_ms } => return Err(self.busy(name, expires_unix_ms)),
        };
        let claim = Claim {
            format: 1,
            name: name.to_owned(),
            number,
            cluster: cluster.to_owned(),
            snapshot_id: snapshot_id.to_owned(),
            claimed_at: clock::text(clock::now()),
            expires_unix_ms: valid_until_ms(),
            process: Process::this(),
        };
        let file = canonical::seal(&claim, Proof::Digest)?;
        match self.create_document(&claim_key(name, number), file).await {
            Err(error) if error.class() == Class::Busy => Err(self.busy(name, claim.expires_unix_ms)),
            Err(error) => Err(error),
            Ok(()) => {
                let place = Place { cluster: cluster.to_owned(), snapshot_id: snapshot_id.to_owned() };
                Ok(Held { claim, place })
            }
        }
    }

    fn busy(&self, name: &str, expires_unix_ms: u64) -> Error {
        let left_s = expires_unix_ms.saturating_sub(clock::unix_ms(clock::now())) / 1000;
        Error::new(Class::Busy, format!("another job is making a snapshot named {name} in {}", self.store.url()))
            .hint(format!("wait for it, or choose another name; if that job is dead its claim runs out in {left_s} s"))
    }

    /// Says that the job lives. `renewal` counts from 1.
    ///
    /// # Errors
    /// What the store says.
    pub async fn renew(&self, held: &Held, renewal: u64) -> Result<()> {
        let file = canonical::seal(&Renewal { format: 1, expires_unix_ms: valid_until_ms() }, Proof::Digest)?;
        let key = note_key(&held.claim.name, held.claim.number, &format!("renewed-{renewal:06}"));
        self.store.create(&key, Bytes::from(file)).await
    }

    /// Says that the job gave up, so that the name is free at once. Nothing is said of a claim that is gone, or another job's by now: where the
    /// server ignores conditions two jobs may have written one number, and the note of who lost must not end the claim of who won.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release(&self, held: &Held) -> Result<()> {
        match self.read_claim(&held.claim.name, held.claim.number).await {
            Ok(claim) if claim == held.claim => {}
            Ok(_) => return Ok(()),
            Err(error) if error.class() == Class::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let file = canonical::seal(&Renewal { format: 1, expires_unix_ms: 0 }, Proof::Digest)?;
        self.store.create(&note_key(&held.claim.name, held.claim.number, RELEASED), Bytes::from(file)).await
    }

    /// Says that a claim holds nothing any more, so that a job that stood still cannot publish under it.
    pub(super) async fn void(&self, name: &str, number: u64) -> Result<()> {
        let file = canonical::seal(&Renewal { format: 1, expires_unix_ms: 0 }, Proof::Digest)?;
        match self.create_document(&note_key(name, number, RELEASED), file).await {
            Err(error) if error.class() == Class::Busy => Ok(()),
            other => other,
        }
    }

    /// Removes the claims on a name up to this number: a snapshot that they were for is gone. The highest goes last, but for
    /// the note that it holds nothing: the name is free at every moment of it.
    pub(super) async fn remove_claims(&self, name: &str, number: u64) -> Result<()> {
        let prefix = folder(name);
        let mut keys: Vec<(u8, String)> = Vec::new();
        let last = [claim_key(name, number), note_key(name, number, RELEASED)];
        for key in self.keys_below(&prefix).await? {
            if policies::garbage::claim_of(key.strip_prefix(&prefix).unwrap_or_default()).is_some_and(|n| n <= number) {
                let order = u8::from(key == last[0]) + 2 * u8::from(key == last[1]);
                keys.push((order, key));
            }
        }
        keys.sort();
        for (_, key) in keys {
            self.store.delete(&key).await?;
        }
        Ok(())
    }

    /// Checks that no other job took the name since, as a paused process must before it publishes.
    ///
    /// # Errors
    /// `Busy` when the name was lost.
    pub async fn check_held(&self, held: &Held) -> Result<()> {
        let (name, number) = (&held.claim.name, held.claim.number);
        let (found, claim) = tokio::join!(self.found(name), self.read_claim(name, number));
        let found = found?;
        // numbers begin again when the claims of a deleted snapshot were removed, so the claim itself is compared
        if found.highest == Some(number) && !found.released && claim? == held.claim {
            return Ok(());
        }
        Err(Error::new(Class::Busy, format!("the claim on the name {} was lost to another job", held.claim.name))
            .hint("this job did not renew its claim in time; its objects are garbage and were not published"))
    }

    /// The snapshot that owns a name.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Busy` while it is being made, `Verification` when it is damaged.
    pub async fn find(&self, name: &str) -> Result<(Place, Unproven)> {
        let missing = || {
            Error::new(Class::NotFound, format!("there is no snapshot named {name} in {}", self.store.url()))
                .hint("`backupd snapshot list` shows what there is")
        };
        policies::names::check("snapshot", name).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
        let found = match self.found(name).await {
            Err(error) if error.class() == Class::StoreAuth => self.found_unlisted(name, error).await?,
            other => other?,
        };
        let Some(claim) = self.claim_found(name, &found).await? else {
            // the claims may have been lost, and a manifest alone makes a snapshot exist
            let place = self.places().await?.into_iter();
            return self.find_by_manifest(name, place).await?.ok_or_else(missing);
        };
        let place = Place { cluster: claim.cluster.clone(), snapshot_id: claim.snapshot_id.clone() };
        match self.manifest(&place).await {
            Ok(unproven) if unproven.claimed().name != name || unproven.claimed().claim != claim.number => {
                Err(damaged(&place.manifest_key(), "its name is not the one that was claimed for it"))
            }
            Ok(unproven) => Ok((place, unproven)),
            Err(error) if error.class() == Class::NotFound => {
                let state = self.claim_state(&claim, &found, false).await?;
                match decide(Some(&state), clock::unix_ms(clock::now())) {
                    Verdict::Busy { expires_unix_ms } => Err(self.busy(name, expires_unix_ms)),
                    _ => Err(missing().at("it was begun and never finished, or was deleted")),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The claim of this number.
    ///
    /// # Errors
    /// `Verification` when it is damaged or another's.
    pub(super) async fn read_claim(&self, name: &str, number: u64) -> Result<Claim> {
        let key = claim_key(name, number);
        let file = self.store.read(&key, SMALL_BYTES_MAX).await?;
        let claim: Claim = canonical::open(&key, canonical::parse(&key, &file)?, Proof::Digest)?;
        let path_is_safe = policies::names::check("cluster", &claim.cluster).is_ok()
            && policies::names::check("snapshot", &claim.snapshot_id).is_ok();
        if claim.name != name || claim.number != number || !path_is_safe {
            return Err(damaged(&key, "it is the claim of another name"));
        }
        Ok(claim)
    }

    /// The highest claim on a name.
    pub(super) async fn highest_claim(&self, name: &str) -> Result<Option<Claim>> {
        let found = self.found(name).await?;
        self.claim_found(name, &found).await
    }

    /// The claim of the highest number; `None` also when a removal that ended in the middle left only notes of it.
    async fn claim_found(&self, name: &str, found: &Found) -> Result<Option<Claim>> {
        let Some(number) = found.highest else { return Ok(None) };
        match self.read_claim(name, number).await {
            Err(error) if error.class() == Class::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// What is known of the highest claim on a name.
    ///
    /// # Errors
    /// `Verification` when it is damaged, what the store says.
    pub(crate) async fn state(&self, name: &str) -> Result<Option<State>> {
        let found = self.found(name).await?;
        let Some(number) = found.highest else { return Ok(None) };
        let Some(claim) = self.claim_found(name, &found).await? else {
            // notes without their claim: its number is used up, and it holds nothing
            let void = State { number, published: false, released: true, expires_unix_ms: 0, process_gone: true };
            return Ok(Some(void));
        };
        let place = Place { cluster: claim.cluster.clone(), snapshot_id: claim.snapshot_id.clone() };
        // a snapshot that was copied to here may have been published under another name
        let published = match self.manifest(&place).await {
            Ok(unproven) => unproven.claimed().name == name,
            Err(error) if error.class() == Class::NotFound => false,
            Err(error) if matches!(error.class(), Class::Verification | Class::Version) => true,
            Err(error) => return Err(error),
        };
        self.claim_state(&claim, &found, published).await.map(Some)
    }

    /// Whether a claim without a manifest is still alive at `now`.
    pub(super) async fn is_live(&self, claim: &Claim) -> Result<bool> {
        let found = self.found(&claim.name).await?;
        let state = self.claim_state(claim, &found, false).await?;
        Ok(matches!(decide(Some(&state), clock::unix_ms(clock::now())), Verdict::Busy { .. }))
    }

    async fn claim_state(&self, claim: &Claim, found: &Found, published: bool) -> Result<State> {
        let mut expires_unix_ms = claim.expires_unix_ms;
        if found.renewals > 0 {
            let key = note_key(&claim.name, claim.number, &format!("renewed-{:06}", found.renewals));
            let file = self.store.read(&key, SMALL_BYTES_MAX).await?;
            let renewal: Renewal = canonical::open(&key, canonical::parse(&key, &file)?, Proof::Digest)?;
            expires_unix_ms = expires_unix_ms.max(renewal.expires_unix_ms);
        }
        let process_gone = claim.process.is_gone();
        Ok(State { number: claim.number, published, released: found.released, expires_unix_ms, process_gone })
    }

    /// The highest claim that can be read by somebody who may not list, such as the reader by a grant of ACLs.
    async fn found_unlisted(&self, name: &str, refusal: Error) -> Result<Found> {
        for number in (1..=UNLISTED_MAX).rev() {
            match self.read_claim(name, number).await {
                Ok(_) => return Ok(Found { highest: Some(number), ..Found::default() }),
                // that it is not there is not told to who may not list
                Err(error) if matches!(error.class(), Class::StoreAuth | Class::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    async fn found(&self, name: &str) -> Result<Found> {
        let prefix = folder(name);
        let mut found = Found::default();
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = self.store.list(&prefix, false, after.as_deref()).await?;
            seen += page.objects.len();
            page.objects.iter().for_each(|object| found.add(object.key.strip_prefix(&prefix).unwrap_or_default()));
            match page.next {
                Some(next) if seen < OBJECTS_MAX => after = Some(next),
                Some(_) => return Err(damaged(&prefix, "it holds more objects than jobs can have made")),
                None => return Ok(found),
            }
        }
    }
}

impl Found {
    /// Takes in one object name: `000001.json`, `000001-renewed-000002.json`, `000001-released.json`.
    fn add(&mut self, file: &str) {
        let Some(stem) = file.strip_suffix(".json") else { return };
        let (number, note) = stem.split_once('-').unwrap_or((stem, ""));
        let Ok(number) = number.parse::<u64>() else { return };
        // notes sort before their claim in a listing, and are only ever written after it
        if self.highest.is_none_or(|highest| highest < number) {
            *self = Self { highest: Some(number), renewals: 0, released: false };
        }
        if self.highest == Some(number) {
            self.released |= note == RELEASED;
            let renewal = note.strip_prefix("renewed-").and_then(|count| count.parse().ok()).unwrap_or(0);
            self.renewals = self.renewals.max(renewal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_claim_counts_in_whatever_order_files_are_listed() {
        let mut found = Found::default();
        for file in [
            "000001-released.json",
            "000001.json",
            "000002-renewed-000001.json",
            "000002-renewed-000007.json",
            "000002.json",
            "junk",
            "x.json",
        ] {
            found.add(file);
        }
        assert_eq!((found.highest, found.renewals, found.released), (Some(2), 7, false));
    }

    #[test]
    fn a_process_that_ended_is_gone_and_this_one_is_not() {
        let this = Process::this();
        assert!(this.started > 0 && !this.is_gone());
        assert!(Process { started: this.started + 1, ..this.clone() }.is_gone());
        assert!(!Process { world: "another host".into(), started: 1, ..this }.is_gone());
    }
}
