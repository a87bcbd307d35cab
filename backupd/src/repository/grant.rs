//! Grants: another account may read one snapshot, or those of one cluster.
//!
//! Giving one is, in this order: a wrap of the data key for a key of theirs, a fact beside the snapshot, a grant of KMS where the master key is of
//! KMS and they have no key of their own, statements in the bucket's policy, or the ACLs of the objects where asked. Whatever ends it in between leaves something that
//! opens nothing and that a revocation finds. Revoking goes the other way: first nobody can read any more, then the rest goes.

mod acl;
mod noted;
mod standing;

use std::collections::BTreeSet;

use policies::grants::{self, Grant, GrantError, Principal, Scope, Way};
use serde_json::{Map, Value};

use self::noted::Noted;
pub use self::noted::{Given, Within};
use self::standing::KmsGrants;
pub use self::standing::{Standing, State, Stated};
use super::fact::Kind;
use super::{Keys, Place, Repository};
use crate::crypt::kms::{Context, KmsKey};
use crate::crypt::master::Master;
use crate::crypt::{DataKey, random, wrap};
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

impl Subject {
    /// The name of the snapshot; `None` for a cluster.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        match self {
            Self::Snapshot(name) => Some(name),
            Self::Cluster(_) => None,
        }
    }
}

/// The id of a new grant.
///
/// # Errors
/// When no randomness is to be had.
pub fn new_id() -> Result<String> {
    Ok(hex::encode(random::<8>()?))
}

/// A grant that KMS is to have.
struct OfKms {
    key: KmsKey,
    grantee: String,
    context: Context,
}

impl Repository {
    /// Lets a principal read, in this way, with a wrap for `theirs`, a key of theirs, where the snapshot is encrypted and one is given. Without one
    /// and with a master key of KMS they may open it with that. The grant has the id `id`, of [`new_id`]; given once more with
    /// the same one, what is there of it is left and the rest is done.
    ///
    /// # Errors
    /// `Refused` for what cannot be granted safely and for a repository that is no bucket, `Usage` for a key where none fits, `Busy`
    /// while others change the policy, what the store and KMS say.
    pub async fn grant(
        &self,
        id: String,
        subject: &Subject,
        (principal, way): (Principal, Way),
        theirs: Option<&Master>,
        keys: &Keys,
    ) -> Result<Standing> {
        let bucket = self.bucket()?;
        let grant = |scope| Grant {
            id,
            principal: principal.clone(),
            bucket: bucket.bucket().to_owned(),
            prefix: bucket.folder().to_owned(),
            scope,
            way,
        };
        let (grant, place, snapshot, of_kms) = match subject {
            Subject::Cluster(cluster) => {
                if theirs.is_some() {
                    let what = "later snapshots of the cluster would not be wrapped for this key";
                    return Err(Error::new(Class::Usage, what).hint("grant snapshots one by one, or give the key file"));
                }
                let grant = grant(Scope::Cluster { cluster: cluster.clone() });
                self.check_grant(bucket, &grant).await?;
                let mut context =
                    self.binding(&Place { cluster: cluster.clone(), snapshot_id: String::new() }).context();
                // whatever the snapshot
                context.retain(|name, _| name != "backupd:snapshot");
                let of_kms = OfKms::new(keys.of(cluster), &principal, context).await?;
                (grant, None, None, of_kms)
            }
            Subject::Snapshot(name) => {
                let (place, data_key) = self.place_of(name, keys).await?;
                let (cluster, snapshot_id) = (place.cluster.clone(), place.snapshot_id.clone());
                let grant = grant(Scope::Snapshot { cluster, snapshot_id, name: name.clone() });
                // what cannot be said safely is refused before anything is written
                self.check_grant(bucket, &grant).await?;
                let of_kms = match (theirs, &data_key) {
                    (None, Some(_)) => {
                        OfKms::new(keys.of(&place.cluster), &principal, self.binding(&place).context()).await?
                    }
                    _ => None,
                };
                self.wrap_for_them(&place, theirs, data_key.as_ref(), keys).await?;
                if let Some(key) = theirs
                    && let Err(error) = self.give_wrap(&place, key.id()).await
                {
                    tracing::warn!(error = %error, "an earlier grant by ACLs has no part in the new wrap");
                }
                let kms_key = of_kms.as_ref().map(|of_kms| of_kms.key.arn().to_owned());
                let given = Given::new(grant.clone(), theirs.map(|key| key.id().to_owned()), kms_key);
                self.note_grant(&place, &given, false).await?;
                self.check_no_removal(&place).await?;
                self.check_published(&place).await?;
                (grant, Some(place), Some(name.clone()), of_kms)
            }
        };
        if let Some(OfKms { key, grantee, context }) = &of_kms {
            Box::pin(key.grant(&grant.id, grantee, context)).await?;
        }
        let statements = self.let_in(bucket, &grant, place.as_ref()).await?;
        Ok(Standing {
            snapshot,
            scope: Some(grant.scope),
            principal: Some(principal),
            key_id: theirs.map(|key| key.id().to_owned()),
            kms_key: of_kms.map(|of_kms| of_kms.key.arn().to_owned()),
            statements,
            way,
            ..Standing::new(grant.id, State::InForce)
        })
    }

    /// Refuses what cannot be granted.
    async fn check_grant(&self, bucket: &S3Store, grant: &Grant) -> Result<()> {
        match grant.way {
            Way::Acl => self.check_acls(bucket, grant).await,
            Way::Policy => grants::add(bucket.policy().await?.as_deref(), grant).map(drop).map_err(refused),
        }
    }

    /// Says it, in the policy or in the ACLs of the objects at `place`. Gives what is said there then.
    async fn let_in(&self, bucket: &S3Store, grant: &Grant, place: Option<&Place>) -> Result<Vec<Value>> {
        if let (Some(account), Some(place)) = (acl::account(grant), place) {
            self.give_acls(bucket, place, account).await?;
            return self.acls(bucket, place, account).await.map(|(_, told)| told);
        }
        change(bucket, |policy| grants::add(policy, grant).map(Some)).await?;
        Ok(standing::statements_of(&self.stated().await?, &grant.id))
    }

    async fn wrap_for_them(
        &self,
        place: &Place,
        theirs: Option<&Master>,
        data_key: Option<&DataKey>,
        keys: &Keys,
    ) -> Result<()> {
        match (theirs, data_key) {
            (Some(master), Some(_))
                if keys.of(&place.cluster).all().await?.iter().any(|ours| ours.id() == master.id()) =>
            {
                let what = format!("{} is a key of ours: who has it reads everything", master.id());
                Err(Error::new(Class::Refused, what).hint("name a key of theirs"))
            }
            (Some(master), Some(data_key)) => {
                let file = wrap::seal(self.binding(place), data_key, master).await?;
                match master {
                    Master::File(_) => self.ensure_wrap(place, data_key, master, file).await,
                    // what they alone can open is left as it is when it is whole
                    _ => match self.check_wrap(place, master.id()).await {
                        Err(error) if error.class() == Class::NotFound => {
                            self.create_document(&place.wrap_key(master.id()), file).await
                        }
                        other => other,
                    },
                }
            }
            (Some(_), None) => {
                let what = "a key was given for them, and the snapshot was not opened";
                Err(Error::new(Class::Usage, what)
                    .hint("give our key too (--key-file, --kms-key); a snapshot that is not encrypted needs no key"))
            }
            (None, _) => Ok(()),
        }
    }

    /// Takes a grant back: statements or ACLs, grant of KMS, wrap, fact. With `known`, places that an index names, only those and what the policy
    /// names are looked at, as long as that is enough. Gives what could be read, as far as it is known.
    ///
    /// # Errors
    /// `NotFound` when neither policy nor repository nor KMS has it, what store and KMS say. It can be called again.
    pub async fn revoke_grant(
        &self,
        grant_id: &str,
        known: Option<&BTreeSet<Place>>,
        keys: &Keys,
    ) -> Result<Option<Scope>> {
        let bucket = self.bucket()?;
        let mut stated = self.stated().await?;
        stated.retain(|one| one.grant_id == grant_id);
        let (noted, scope) = self.noted_for(grant_id, known, &stated).await?;
        let this = noted.iter().find(|noted| noted.given.grant.id == grant_id);
        let arns = this.and_then(|this| this.given.kms_key.clone()).into_iter().collect();
        let kms = KmsGrants::look(keys, arns).await?;
        let is_in_kms = kms.0.iter().flat_map(|(_, grants)| grants).any(|grant| grant.id == grant_id);
        if stated.is_empty() && this.is_none() && !is_in_kms {
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
        if let Some((this, account)) = this.and_then(|this| Some((this, acl::account(&this.given.grant)?))) {
            self.take_acls(bucket, this, &noted, account).await?;
        }
        for (key, grants) in &kms.0 {
            for grant in grants {
                if grant.id == grant_id {
                    Box::pin(key.revoke(grant)).await?;
                }
            }
        }
        let Some(this) = this else { return Ok(scope) };
        if let Some(key_id) = &this.given.key_id {
            let needed = |other: &&Noted| {
                let given = &other.given;
                given.grant.id != grant_id && other.place == this.place && given.key_id.as_ref() == Some(key_id)
            };
            if !noted.iter().any(|other| needed(&other)) {
                self.store.delete(&this.place.wrap_key(key_id)).await?;
            }
        }
        self.note_grant(&this.place, &this.given, true).await?;
        Ok(scope)
    }

    fn bucket(&self) -> Result<&S3Store> {
        self.store.as_bucket().ok_or_else(|| {
            Error::new(Class::Refused, format!("{} is no bucket: nobody can be granted anything", self.store.url()))
                .hint("copy the snapshot into a bucket: backupd snapshot copy NAME --to s3://…")
        })
    }

    async fn note_grant(&self, place: &Place, given: &Given, revoked: bool) -> Result<()> {
        let grant = serde_json::to_value(&given.grant)
            .map_err(|error| Error::new(Class::Unforeseen, format!("a grant cannot be written: {error}")))?;
        let (key_id, kms_key) = (given.key_id.as_deref().into(), given.kms_key.as_deref().into());
        let says = [("grant", grant), ("key_id", key_id), ("kms_key", kms_key), ("revoked", revoked.into())];
        let says: Map<String, Value> = says.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.note(place, Kind::Granted, says, None).await.map(drop)
    }
}

impl OfKms {
    /// What KMS is to have where the master key is one of it.
    async fn new(keys: &Keys, principal: &Principal, context: Context) -> Result<Option<Self>> {
        let Keys::Kms(kms) = keys else { return Ok(None) };
        let grantee = principal.arn().ok_or_else(|| {
            Error::new(Class::Refused, "KMS grants nothing to a canonical id")
                .hint("name the account or an ARN of it, or a key of theirs")
        })?;
        Ok(Some(Self { key: kms.key().await?.clone(), grantee, context }))
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

fn refused(error: GrantError) -> Error {
    Error::new(Class::Refused, error.to_string())
}
