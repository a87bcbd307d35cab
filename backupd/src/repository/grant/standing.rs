//! How grants stand: what snapshots say was given, beside what the bucket's policy and KMS really have.

use std::collections::BTreeSet;

use policies::grants::{self, Grant, Principal, Way};
use serde::Serialize;
use serde_json::Value;

use super::super::listing::Status;
use super::super::{Keys, Place, Repository};
use super::{acl, refused};
use crate::crypt::kms::{Kms, KmsGrant, KmsKey};
use crate::error::{Class, Error, Result};

/// How a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The policy, or each object's ACL, says what was granted.
    InForce,
    /// The policy has other statements of this grant, or not all ACLs say the same: somebody changed them.
    Changed,
    /// It was given, and the policy does not have it: nobody can read by it.
    NotInPolicy,
    /// It was given, and no object's ACL has it: nobody can read by it.
    NotInAcl,
    /// Only the policy has it: it is for a cluster, or its snapshot is gone.
    PolicyOnly,
    /// The policy has it, and KMS does not: what can be read cannot be opened.
    NotInKms,
    /// Only KMS has it: nobody can read by it.
    KmsOnly,
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
    /// The key of ours that they may open it with, by a grant of KMS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// How it stands.
    pub state: State,
    /// What lets them in.
    pub way: Way,
    /// The statements that the policy really has; where it is by ACLs what those of the objects really say.
    pub statements: Vec<Value>,
}

impl State {
    /// How one stands that nothing says any more.
    #[must_use]
    pub fn absent(way: Way) -> Self {
        match way {
            Way::Policy => Self::NotInPolicy,
            Way::Acl => Self::NotInAcl,
        }
    }
}

impl Standing {
    /// In words what is not as it was given, if anything is.
    #[must_use]
    pub fn drift(&self) -> Option<String> {
        let what = match self.state {
            State::InForce | State::PolicyOnly => return None,
            State::Changed if self.way == Way::Acl => "is not what all ACLs of its objects say: others changed them",
            State::Changed => "was changed by others in the bucket's policy",
            State::NotInAcl => "is in no ACL of its objects",
            State::NotInPolicy => "is not in the bucket's policy",
            State::NotInKms => "is not in KMS",
            State::KmsOnly => "is in KMS only",
        };
        let of = self.snapshot.as_ref().map(|name| format!(" of snapshot {name}")).unwrap_or_default();
        Some(format!("grant {}{of} {what}", self.grant_id))
    }

    /// A grant of which no more is known.
    #[must_use]
    pub fn new(grant_id: String, state: State) -> Self {
        Self {
            grant_id,
            snapshot: None,
            principal: None,
            key_id: None,
            kms_key: None,
            state,
            way: Way::Policy,
            statements: Vec::new(),
        }
    }
}

/// A grant of a snapshot by its facts.
pub(super) struct Noted {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) given: Given,
}

/// What a fact says of a grant.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) grant: Grant,
    /// The key of theirs that has a wrap.
    pub(super) key_id: Option<String>,
    /// The ARN of the key of ours that has a grant of KMS.
    pub(super) kms_key: Option<String>,
}

/// The keys of KMS that may have grants of ours, with those that they have.
pub(super) struct KmsGrants(pub(super) Vec<(KmsKey, Vec<KmsGrant>)>);

impl KmsGrants {
    /// Looks at the keys that were named, and at those of these ARNs.
    pub(super) async fn look(keys: &Keys, arns: BTreeSet<String>) -> Result<Self> {
        let mut found = Self(Vec::new());
        for kms in keys.kms() {
            found.add(kms.key().await?.clone()).await?;
        }
        for arn in arns {
            if found.0.iter().all(|(key, _)| key.arn() != arn) {
                found.add(Kms::new(&arn, None)?.key().await?.clone()).await?;
            }
        }
        Ok(found)
    }

    async fn add(&mut self, key: KmsKey) -> Result<()> {
        let grants = Box::pin(key.grants()).await?;
        self.0.push((key, grants));
        Ok(())
    }

    /// Whether a key has a grant.
    fn has(&self, arn: &str, id: &str) -> bool {
        self.0.iter().any(|(key, grants)| key.arn() == arn && grants.iter().any(|grant| grant.id == id))
    }
}

impl Repository {
    /// All grants, or those of one cluster's snapshots, as policy and KMS really have them beside what was given. Neither is asked when
    /// nothing of that cluster was.
    ///
    /// # Errors
    /// What the store and KMS say; `Refused` when the policy is not understood.
    pub async fn grants(&self, keys: &Keys, cluster: Option<&str>) -> Result<Vec<Standing>> {
        let noted = self.noted_grants(cluster).await?;
        if cluster.is_some() && noted.is_empty() {
            return Ok(Vec::new());
        }
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
        let arns = noted.iter().filter_map(|noted| noted.given.kms_key.clone()).collect();
        let kms = KmsGrants::look(keys, arns).await?;
        let mut standing: Vec<Standing> = Vec::new();
        for Noted { name, place, given } in noted {
            let (mut state, statements) = match acl::account(&given.grant) {
                Some(account) => self.acls(self.bucket()?, &place, account).await?,
                None => {
                    let statements = of(&given.grant.id);
                    (in_policy(policy.as_deref(), &given.grant, &statements), statements)
                }
            };
            if state == State::InForce && given.kms_key.as_ref().is_some_and(|arn| !kms.has(arn, &given.grant.id)) {
                state = State::NotInKms;
            }
            standing.push(Standing {
                snapshot: Some(name),
                principal: Some(given.grant.principal),
                key_id: given.key_id,
                kms_key: given.kms_key,
                way: given.grant.way,
                statements,
                ..Standing::new(given.grant.id, state)
            });
        }
        let of_kms =
            |id: &str| kms.0.iter().find(|(key, _)| kms.has(key.arn(), id)).map(|(key, _)| key.arn().to_owned());
        if cluster.is_some() {
            return Ok(standing);
        }
        for (id, _) in &stated {
            if standing.iter().all(|one| &one.grant_id != id) {
                let found = Standing::new(id.clone(), State::PolicyOnly);
                standing.push(Standing { kms_key: of_kms(id), statements: of(id), ..found });
            }
        }
        for grant in kms.0.iter().flat_map(|(_, grants)| grants) {
            if standing.iter().all(|one| one.grant_id != grant.id) {
                let found = Standing::new(grant.id.clone(), State::KmsOnly);
                standing.push(Standing { kms_key: of_kms(&grant.id), ..found });
            }
        }
        Ok(standing)
    }

    /// The ids of the grants by which somebody may read this snapshot.
    ///
    /// # Errors
    /// `Verification` or `Version` when a fact about it cannot be read, since it may say so; what the store says.
    pub(in crate::repository) async fn granted_ids(&self, place: &Place) -> Result<Vec<String>> {
        Ok(self.grants_of(place).await?.into_iter().map(|given| given.grant.id).collect())
    }

    /// The grants of a snapshot that were not taken back.
    pub(super) async fn grants_of(&self, place: &Place) -> Result<Vec<Given>> {
        let mut grants: Vec<Given> = Vec::new();
        for fact in self.facts_below(place, "fact-granted-", None, false).await? {
            let grant = fact.says.get("grant").cloned().unwrap_or_default();
            let grant: Grant = serde_json::from_value(grant).map_err(|error| {
                Error::new(Class::Version, format!("{} is not understood: {error}", fact.key(place)))
            })?;
            grants.retain(|other| other.grant.id != grant.id);
            if fact.says.get("revoked") != Some(&Value::Bool(true)) {
                let text = |member: &str| fact.says.get(member).and_then(Value::as_str).map(str::to_owned);
                grants.push(Given { grant, key_id: text("key_id"), kms_key: text("kms_key") });
            }
        }
        Ok(grants)
    }

    pub(super) async fn noted_grants(&self, cluster: Option<&str>) -> Result<Vec<Noted>> {
        let mut noted = Vec::new();
        for entry in self.snapshots(cluster).await? {
            if !matches!(entry.status, Status::Available | Status::Broken) || entry.place.snapshot_id == "?" {
                continue;
            }
            let grants = self.grants_of(&entry.place).await?;
            let (name, place) = (entry.name, entry.place);
            noted.extend(grants.into_iter().map(|given| Noted { name: name.clone(), place: place.clone(), given }));
        }
        Ok(noted)
    }
}

/// How a grant by the policy stands there.
fn in_policy(policy: Option<&str>, grant: &Grant, statements: &[Value]) -> State {
    match grants::add(policy, grant) {
        _ if statements.is_empty() => State::NotInPolicy,
        Err(_) => State::Changed,
        Ok(_) => State::InForce,
    }
}
