//! Grants: another account may read one snapshot, or those of one cluster.
//!
//! Giving one is, in this order: a wrap of the data key for a key of theirs, a fact beside the snapshot, statements in the bucket's
//! policy. Whatever ends it in between leaves something that opens nothing and that the same command, or a revocation, finds by
//! the fact. Revoking goes the other way: first nobody can read any more, then the rest goes.

use policies::grants::{self, Grant, GrantError, Principal, Scope};
use serde::Serialize;
use serde_json::{Map, Value};

use super::fact::Kind;
use super::listing::Status;
use super::{Keys, Place, Repository};
use crate::crypt::master::Master;
use crate::crypt::{random, wrap};
use crate::error::{Class, Error, Result};
use crate::store::S3Store;

/// How often a policy that others change at the same time is read again.
const POLICY_ATTEMPTS: u32 = 4;

/// What a grant is given for.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A snapshot, by its name.
    Snapshot(String),
    /// All snapshots of a cluster, now and later.
    Cluster(String),
}

/// How a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The policy says what was granted.
    InForce,
    /// The policy has other statements of this grant: somebody changed them.
    Changed,
    /// It was given, and the policy does not have it: nobody can read by it.
    NotInPolicy,
    /// Only the policy has it: it is for a cluster, or its snapshot is gone.
    PolicyOnly,
}

/// A grant as repository and policy have it.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Its id.
    pub grant_id: String,
    /// The snapshot, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Who may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Their key, for which the data key is wrapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// How it stands.
    pub state: State,
    /// The statements that the policy really has.
    pub statements: Vec<Value>,
}

/// A grant of a snapshot by its facts.
struct Noted {
    name: String,
    place: Place,
    grant: Grant,
    key_id: Option<String>,
}

impl Repository {
    /// Lets a principal read, with a wrap for `theirs`, a key of theirs, where the snapshot is encrypted and one is given.
    ///
    /// # Errors
    /// `Refused` for what cannot be granted safely and for a repository that is no bucket, `Usage` for a key where none fits, `Busy`
    /// while others change the policy, what the store says.
    pub async fn grant(
        &self,
        subject: &Subject,
        principal: Principal,
        theirs: Option<&Master>,
        keys: &Keys,
    ) -> Result<Standing> {
        let bucket = self.bucket()?;
        let id = random::<8>()?.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let grant = |scope| Grant {
            id,
            principal: principal.clone(),
            bucket: bucket.bucket().to_owned(),
            prefix: bucket.folder().to_owned(),
            scope,
        };
        let (grant, snapshot) = match subject {
            Subject::Cluster(cluster) => {
                if theirs.is_some() {
                    let what = "later snapshots of the cluster would not be wrapped for this key";
                    return Err(Error::new(Class::Usage, what).hint("grant snapshots one by one, or give the key file"));
                }
                (grant(Scope::Cluster { cluster: cluster.clone() }), None)
            }
            Subject::Snapshot(name) => {
                let (place, data_key) = self.place_of(name, keys).await?;
                let (cluster, snapshot_id) = (place.cluster.clone(), place.snapshot_id.clone());
                let grant = grant(Scope::Snapshot { cluster, snapshot_id, name: name.clone() });
                // what cannot be said safely is refused before anything is written
                grants::add(bucket.policy().await?.as_deref(), &grant).map_err(refused)?;
                match (theirs, &data_key) {
                    (Some(master), Some(data_key)) => {
                        let file = wrap::seal(self.binding(&place), data_key, master).await?;
                        self.ensure_wrap(&place, data_key, master, file).await?;
                    }
                    (Some(_), None) => {
                        return Err(Error::new(
                            Class::Usage,
                            "a key was given for them, and the snapshot was not opened",
                        )
                        .hint("give our key file too (--key-file); a snapshot that is not encrypted needs no key"));
                    }
                    (None, _) => {}
                }
                self.note_grant(&place, &grant, theirs.map(Master::id), false).await?;
                self.check_no_removal(&place).await?;
                self.check_published(&place).await?;
                (grant, Some(name.clone()))
            }
        };
        change(bucket, |policy| grants::add(policy, &grant).map(Some)).await?;
        let statements = stated(bucket, &grant.id).await?;
        let key_id = theirs.map(|key| key.id().to_owned());
        Ok(Standing {
            grant_id: grant.id,
            snapshot,
            principal: Some(principal),
            key_id,
            state: State::InForce,
            statements,
        })
    }

    /// Takes a grant back: statements, wrap, fact.
    ///
    /// # Errors
    /// `NotFound` when neither policy nor repository has it, what the store says.
    pub async fn revoke_grant(&self, grant_id: &str) -> Result<Option<String>> {
        let bucket = self.bucket()?;
        let stated = stated(bucket, grant_id).await?;
        let noted = self.noted_grants().await?;
        let this = noted.iter().find(|noted| noted.grant.id == grant_id);
        if stated.is_empty() && this.is_none() {
            let what = format!("there is no grant {grant_id} in {}", self.store.url());
            return Err(Error::new(Class::NotFound, what).hint("`backupd grant list` shows what there is"));
        }
        change(bucket, |policy| match policy {
            Some(policy) => match grants::revoke(policy, grant_id) {
                Err(GrantError::NotThere(_)) => Ok(Some(policy.to_owned())),
                other => other,
            },
            None => Ok(None),
        })
        .await?;
        let Some(this) = this else { return Ok(None) };
        if let Some(key_id) = &this.key_id {
            let needed = |other: &&Noted| {
                other.grant.id != grant_id && other.place == this.place && other.key_id.as_ref() == Some(key_id)
            };
            if !noted.iter().any(|other| needed(&other)) {
                self.store.delete(&this.place.wrap_key(key_id)).await?;
            }
        }
        self.note_grant(&this.place, &this.grant, this.key_id.as_deref(), true).await?;
        Ok(Some(this.name.clone()))
    }

    /// All grants, as the policy really has them beside what was given.
    ///
    /// # Errors
    /// What the store says; `Refused` when the policy is not understood.
    pub async fn grants(&self) -> Result<Vec<Standing>> {
        let policy = self.bucket()?.policy().await?;
        let mut stated: Vec<(String, Value)> = Vec::new();
        if let Some(policy) = &policy {
            for one in grants::list(policy).map_err(refused)? {
                stated.push((one.grant_id, serde_json::from_str(&one.text).unwrap_or_default()));
            }
        }
        let of = |id: &str| -> Vec<Value> {
            stated.iter().filter(|(grant_id, _)| grant_id == id).map(|(_, statement)| statement.clone()).collect()
        };
        let mut standing = Vec::new();
        for noted in self.noted_grants().await? {
            let statements = of(&noted.grant.id);
            let state = match grants::add(policy.as_deref(), &noted.grant) {
                _ if statements.is_empty() => State::NotInPolicy,
                Ok(_) => State::InForce,
                Err(_) => State::Changed,
            };
            standing.push(Standing {
                grant_id: noted.grant.id,
                snapshot: Some(noted.name),
                principal: Some(noted.grant.principal),
                key_id: noted.key_id,
                state,
                statements,
            });
        }
        for (grant_id, _) in &stated {
            if standing.iter().all(|one| &one.grant_id != grant_id) {
                standing.push(Standing {
                    grant_id: grant_id.clone(),
                    snapshot: None,
                    principal: None,
                    key_id: None,
                    state: State::PolicyOnly,
                    statements: of(grant_id),
                });
            }
        }
        Ok(standing)
    }

    /// Whether somebody was granted this snapshot and still is.
    ///
    /// # Errors
    /// `Verification` when a fact about it cannot be read, since it may say so; what the store says.
    pub(super) async fn is_granted(&self, place: &Place) -> Result<bool> {
        Ok(!self.grants_of(place).await?.is_empty())
    }

    fn bucket(&self) -> Result<&S3Store> {
        self.store.as_bucket().ok_or_else(|| {
            Error::new(Class::Refused, format!("{} is no bucket: nobody can be granted anything", self.store.url()))
                .hint("copy the snapshot into a bucket: backupd snapshot copy NAME --to s3://…")
        })
    }

    async fn note_grant(&self, place: &Place, grant: &Grant, key_id: Option<&str>, revoked: bool) -> Result<()> {
        let grant = serde_json::to_value(grant)
            .map_err(|error| Error::new(Class::Unforeseen, format!("a grant cannot be written: {error}")))?;
        let says = [("grant", grant), ("key_id", key_id.into()), ("revoked", revoked.into())];
        let says: Map<String, Value> = says.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.note(place, Kind::Granted, says, None).await.map(drop)
    }

    /// The grants of a snapshot that were not taken back, each with their key.
    async fn grants_of(&self, place: &Place) -> Result<Vec<(Grant, Option<String>)>> {
        let mut grants: Vec<(Grant, Option<String>)> = Vec::new();
        for fact in self.facts_below(place, "fact-granted-", None, false).await? {
            let grant = fact.says.get("grant").cloned().unwrap_or_default();
            let grant: Grant = serde_json::from_value(grant).map_err(|error| {
                Error::new(Class::Version, format!("{} is not understood: {error}", fact.key(place)))
            })?;
            grants.retain(|(other, _)| other.id != grant.id);
            if fact.says.get("revoked") != Some(&Value::Bool(true)) {
                let key_id = fact.says.get("key_id").and_then(Value::as_str).map(str::to_owned);
                grants.push((grant, key_id));
            }
        }
        Ok(grants)
    }

    async fn noted_grants(&self) -> Result<Vec<Noted>> {
        let mut noted = Vec::new();
        for entry in self.snapshots(None).await? {
            if !matches!(entry.status, Status::Available | Status::Broken) || entry.place.snapshot_id == "?" {
                continue;
            }
            let grants = self.grants_of(&entry.place).await?;
            noted.extend(grants.into_iter().map(|(grant, key_id)| Noted {
                name: entry.name.clone(),
                place: entry.place.clone(),
                grant,
                key_id,
            }));
        }
        Ok(noted)
    }
}

/// Reads the policy, plans, writes, and reads again: S3 has no condition for policies, so that another writer is found out only
/// afterwards. A plan that finds its work done changes nothing.
async fn change(bucket: &S3Store, plan: impl Fn(Option<&str>) -> Result<Option<String>, GrantError>) -> Result<()> {
    for _ in 0..POLICY_ATTEMPTS {
        let before = bucket.policy().await?;
        let after = plan(before.as_deref()).map_err(refused)?;
        if after == before {
            return Ok(());
        }
        // the nearer the look is to the write, the smaller is the gap for others
        if bucket.policy().await? != before {
            continue;
        }
        bucket.set_policy(after.as_deref()).await?;
    }
    let last = bucket.policy().await?;
    if plan(last.as_deref()).map_err(refused)? == last {
        return Ok(());
    }
    Err(Error::new(Class::Busy, "the bucket's policy changes all the time")
        .hint("stop the other writer, and try again"))
}

async fn stated(bucket: &S3Store, grant_id: &str) -> Result<Vec<Value>> {
    let Some(policy) = bucket.policy().await? else { return Ok(Vec::new()) };
    let stated = grants::list(&policy).map_err(refused)?;
    let ours = stated.into_iter().filter(|one| one.grant_id == grant_id);
    Ok(ours.map(|one| serde_json::from_str(&one.text).unwrap_or_default()).collect())
}

fn refused(error: GrantError) -> Error {
    Error::new(Class::Refused, error.to_string())
}
