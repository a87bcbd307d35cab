//! How grants stand: what snapshots say was given, beside what the bucket's policy and KMS really have.

use std::collections::BTreeSet;

use policies::grants::{self, Grant, Principal, Scope, Way};
use serde::Serialize;
use serde_json::Value;

use super::super::{Keys, Place, Repository};
use super::noted::{Noted, Within};
use super::{acl, refused};
use crate::crypt::kms::{Kms, KmsGrant, KmsKey};
use crate::error::Result;

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
    /// What may be read, as far as it is known.
    #[serde(skip)]
    pub scope: Option<Scope>,
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
            scope: None,
            principal: None,
            key_id: None,
            kms_key: None,
            state,
            way: Way::Policy,
            statements: Vec::new(),
        }
    }
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

/// A grant that the bucket's policy has a statement of.
#[derive(Debug, Clone)]
pub struct Stated {
    /// Its id.
    pub grant_id: String,
    /// What it lets be read here; `None` where others changed it beyond recognition, and where it is of another repository of the bucket.
    pub scope: Option<Scope>,
    /// Whom it lets in, as far as it is understood.
    pub principal: Option<Principal>,
    /// The statement.
    statement: Value,
}

impl Repository {
    /// The grants that are looked for, as policy and KMS really have them beside what was given. Of a cluster neither is asked when nothing
    /// was noted.
    ///
    /// # Errors
    /// What the store and KMS say; `Refused` when the policy is not understood.
    pub async fn grants(&self, keys: &Keys, within: Within<'_>) -> Result<Vec<Standing>> {
        let noted = self.noted(within).await?;
        let is_cluster = matches!(within, Within::Cluster(_));
        if is_cluster && noted.is_empty() {
            return Ok(Vec::new());
        }
        // after the facts, since it is written after them
        let policy = self.bucket()?.policy().await?;
        let stated = self.statements(policy.as_deref())?;
        let arns = noted.iter().filter_map(|noted| noted.given.kms_key.clone()).collect();
        let kms = KmsGrants::look(keys, arns).await?;
        let mut standing: Vec<Standing> = Vec::new();
        for noted in noted {
            standing.push(self.standing(noted, policy.as_deref(), &stated, &kms).await?);
        }
        if !is_cluster {
            add_unnoted(&mut standing, &stated, &kms);
        }
        Ok(standing)
    }

    /// How a grant stands that facts tell of.
    async fn standing(
        &self,
        noted: Noted,
        policy: Option<&str>,
        stated: &[Stated],
        kms: &KmsGrants,
    ) -> Result<Standing> {
        let Noted { place, given } = noted;
        let (mut state, statements) = match acl::account(&given.grant) {
            Some(account) => self.acls(self.bucket()?, &place, account).await?,
            None => {
                let statements = statements_of(stated, &given.grant.id);
                (in_policy(policy, &given.grant, &statements), statements)
            }
        };
        if state == State::InForce && given.kms_key.as_ref().is_some_and(|arn| !kms.has(arn, &given.grant.id)) {
            state = State::NotInKms;
        }
        Ok(Standing {
            snapshot: given.grant.scope.snapshot().map(str::to_owned),
            scope: Some(given.grant.scope),
            principal: Some(given.grant.principal),
            key_id: given.key_id,
            kms_key: given.kms_key,
            way: given.grant.way,
            statements,
            ..Standing::new(given.grant.id, state)
        })
    }

    /// What the facts say that are looked at.
    async fn noted(&self, within: Within<'_>) -> Result<Vec<Noted>> {
        let places = match within {
            Within::Everything => self.granted_places(None).await?,
            Within::Cluster(cluster) => self.granted_places(Some(cluster)).await?,
            Within::Known(places) => {
                let stated = self.stated().await?;
                let named = stated.iter().filter_map(|one| Place::of(one.scope.as_ref()?));
                places.iter().cloned().chain(named).collect()
            }
        };
        self.noted_at(places).await
    }

    /// The statements of grants that the bucket's policy has.
    ///
    /// # Errors
    /// What the store says; `Refused` for a repository that is no bucket, and when the policy is not understood.
    pub async fn stated(&self) -> Result<Vec<Stated>> {
        let policy = self.bucket()?.policy().await?;
        self.statements(policy.as_deref())
    }

    fn statements(&self, policy: Option<&str>) -> Result<Vec<Stated>> {
        let (bucket, Some(policy)) = (self.bucket()?, policy) else { return Ok(Vec::new()) };
        let stated = grants::list(policy).map_err(refused)?.into_iter().map(|one| Stated {
            scope: one.scope(bucket.bucket(), bucket.folder()),
            principal: one.principal(),
            statement: serde_json::from_str(&one.text).unwrap_or_default(),
            grant_id: one.grant_id,
        });
        Ok(stated.collect())
    }

    /// What facts tell that a revocation needs to know, and what the grant is for, which the policy's statements of it, `stated`, say as well. Where the places that are known do not have it, or where it is
    /// by ACLs, of which only facts tell what others need, all of the repository is looked at.
    pub(super) async fn noted_for(
        &self,
        id: &str,
        known: Option<&BTreeSet<Place>>,
        stated: &[Stated],
    ) -> Result<(Vec<Noted>, Option<Scope>)> {
        let stated = stated.iter().find_map(|one| one.scope.clone());
        let of_this = |noted: &[Noted]| {
            noted.iter().find(|noted| noted.given.grant.id == id).map(|this| this.given.grant.clone())
        };
        if let Some(known) = known {
            let noted = self.noted(Within::Known(known)).await?;
            match of_this(&noted) {
                Some(Grant { scope, way: Way::Policy, .. }) => return Ok((noted, Some(scope))),
                // it has no fact anywhere
                None if matches!(stated, Some(Scope::Cluster { .. })) => return Ok((noted, stated)),
                _ => {}
            }
        }
        let noted = self.noted(Within::Everything).await?;
        let scope = of_this(&noted).map(|grant| grant.scope);
        Ok((noted, scope.or(stated)))
    }
}

/// What policy and KMS have and no fact tells of.
fn add_unnoted(standing: &mut Vec<Standing>, stated: &[Stated], kms: &KmsGrants) {
    let of_kms = |id: &str| kms.0.iter().find(|(key, _)| kms.has(key.arn(), id)).map(|(key, _)| key.arn().to_owned());
    for Stated { grant_id, .. } in stated {
        if standing.iter().all(|one| &one.grant_id != grant_id) {
            let scope = stated.iter().filter(|one| one.grant_id == *grant_id).find_map(|one| one.scope.clone());
            let (kms_key, statements) = (of_kms(grant_id), statements_of(stated, grant_id));
            let found = Standing::new(grant_id.clone(), State::PolicyOnly);
            standing.push(Standing { kms_key, statements, scope, ..found });
        }
    }
    for grant in kms.0.iter().flat_map(|(_, grants)| grants) {
        if standing.iter().all(|one| one.grant_id != grant.id) {
            let found = Standing::new(grant.id.clone(), State::KmsOnly);
            standing.push(Standing { kms_key: of_kms(&grant.id), ..found });
        }
    }
}

/// The statements of a grant.
pub(super) fn statements_of(stated: &[Stated], grant_id: &str) -> Vec<Value> {
    stated.iter().filter(|one| one.grant_id == grant_id).map(|one| one.statement.clone()).collect()
}

/// How a grant by the policy stands there.
fn in_policy(policy: Option<&str>, grant: &Grant, statements: &[Value]) -> State {
    match grants::add(policy, grant) {
        _ if statements.is_empty() => State::NotInPolicy,
        Err(_) => State::Changed,
        Ok(_) => State::InForce,
    }
}
