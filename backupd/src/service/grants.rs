//! Grants of others to read what is in the buckets of the configuration.

use policies::access::{Action, Principal as Caller, Resource};
use policies::grants::{Principal, Way};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::jobs::used;
use crate::catalog::Asked;
use crate::crypt::kms::Kms;
use crate::crypt::master::Master;
use crate::error::{Class, Error, Result};
use crate::jobs::reach;
pub use crate::repository::grant::Subject;
use crate::repository::grant::{Standing, State, Within, new_id};
use crate::snapshot::grants;

/// What is to be granted.
#[derive(Debug)]
pub struct Wanted {
    /// The repository of the configuration.
    pub repository: String,
    /// What may be read.
    pub subject: Subject,
    /// Who may read it.
    pub to: Principal,
    /// What lets them in.
    pub way: Way,
    /// A key of theirs that opens the snapshot as well.
    pub theirs: Option<Master>,
}

/// A grant, and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantView {
    /// The repository of the configuration.
    pub repository: String,
    /// How it stands: `grant_id`, `snapshot`, `principal`, `key_id`, `kms_key`, `state`, `way`, `statements`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub standing: Standing,
}

impl Services {
    /// The grants that the caller sees, of one repository of the configuration or of all that are buckets. What is for a cluster, or whose
    /// snapshot is gone, is seen by who sees everything.
    ///
    /// # Errors
    /// `Refused` when the one that is named is no bucket; what the stores say.
    pub async fn grants(&self, caller: &Caller, only: Option<&str>) -> Result<Vec<GrantView>> {
        self.grants_within(caller, only, false).await
    }

    /// Where the catalog names what is granted, and the bucket's policy; with `everything` all snapshots are looked at.
    async fn grants_within(&self, caller: &Caller, only: Option<&str>, everything: bool) -> Result<Vec<GrantView>> {
        let config = self.config();
        if let Some(name) = only {
            config.repository(name)?;
        }
        let mut found = Vec::new();
        for section in config.repositories().filter(|section| only.is_none_or(|only| only == section.name)) {
            let Some((repository, keys)) = reach::begun(&config, &section.name).await? else { continue };
            if only.is_none() && repository.store().as_bucket().is_none() {
                continue;
            }
            let known = grants::known(&self.catalog, &repository).await?;
            let within = if everything { Within::Everything } else { Within::Known(&known) };
            for standing in Box::pin(repository.grants(&keys, within)).await? {
                if self.sees_grant(caller, &section.name, &standing).await? {
                    found.push(GrantView { repository: section.name.clone(), standing });
                }
            }
        }
        Ok(found)
    }

    async fn sees_grant(&self, caller: &Caller, repository: &str, standing: &Standing) -> Result<bool> {
        if caller.scope.is_everything() {
            return Ok(true);
        }
        let Some(name) = &standing.snapshot else { return Ok(false) };
        match self.snapshot(name, Some(repository)).await {
            Ok(found) => {
                let (cluster, tags) = (&found.snapshot.cluster, found.tags());
                Ok(self.sees(caller, Resource::Of { cluster, tags: &tags }))
            }
            Err(error) if error.class() == Class::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets somebody read a snapshot, or all snapshots of a cluster, of a repository of the configuration. Nobody is asked whether the caller
    /// may do that. Who asks again under the same key is told how the grant stands that was given then; one that was not done is gone on
    /// with, under the same id, and one that was taken back is not given again.
    ///
    /// # Errors
    /// `Refused` for what cannot be granted safely, for a repository that is no bucket and for a key that was used for another request; `Busy`
    /// while others change the bucket's policy; what the store and KMS say.
    pub async fn grant(&self, wanted: &Wanted, asked: &Asked) -> Result<GrantView> {
        if asked.key.is_empty() {
            return self.give(new_id()?, wanted).await;
        }
        if let Some(job) = self.catalog.job_asked(&asked.by, &asked.key).await? {
            return Err(used(&asked.key, &format!("job {}", job.job_id)));
        }
        let noted = self.catalog.note_request(asked, &new_id()?, self.catalog.now_unix_ms().await?).await?;
        if noted.request_sha256 != asked.sha256 {
            return Err(used(&asked.key, &format!("grant {}", noted.made_id)));
        }
        if noted.done_ms.is_some() {
            return self.standing(noted.made_id, wanted).await;
        }
        let view = self.give(noted.made_id, wanted).await?;
        self.catalog.settle_request(&view.standing.grant_id, self.catalog.now_unix_ms().await?).await?;
        Ok(view)
    }

    async fn give(&self, id: String, wanted: &Wanted) -> Result<GrantView> {
        let (reached, keys) = reach::repository(&self.config(), &wanted.repository).await?;
        let given = reached.grant(id, &wanted.subject, (wanted.to.clone(), wanted.way), wanted.theirs.as_ref(), &keys);
        let done = Box::pin(given).await;
        grants::given(&self.catalog, &reached, &wanted.subject, &done).await;
        Ok(GrantView { repository: wanted.repository.clone(), standing: done? })
    }

    /// How a grant stands that was given before.
    async fn standing(&self, id: String, wanted: &Wanted) -> Result<GrantView> {
        let (reached, keys) = reach::repository(&self.config(), &wanted.repository).await?;
        let known = grants::known(&self.catalog, &reached).await?;
        let found =
            Box::pin(reached.grants(&keys, Within::Known(&known))).await?.into_iter().find(|one| one.grant_id == id);
        let standing = found.unwrap_or_else(|| {
            let (snapshot, principal) = (wanted.subject.snapshot().map(str::to_owned), Some(wanted.to.clone()));
            Standing { snapshot, principal, way: wanted.way, ..Standing::new(id, State::absent(wanted.way)) }
        });
        Ok(GrantView { repository: wanted.repository.clone(), standing })
    }

    /// Takes a grant back that the caller sees.
    ///
    /// # Errors
    /// `NotFound`, `Busy`; what the store says.
    pub async fn revoke_grant(&self, caller: &Caller, id: &str, only: Option<&str>) -> Result<GrantView> {
        let this = |grants: Vec<GrantView>| grants.into_iter().find(|view| view.standing.grant_id == id);
        let known = this(self.grants(caller, only).await?);
        let mut view = match known {
            Some(view) => view,
            // given by ACLs, and not with this catalog
            None => this(self.grants_within(caller, only, true).await?).ok_or_else(|| absent(id))?,
        };
        // what is seen may be taken back by this role, which was asked
        self.decide(caller, Action::RevokeGrant, Resource::Service, id).await?;
        let (repository, keys) = reach::repository(&self.config(), &view.repository).await?;
        // first, so that whoever repeats the request that gave it does not give it again
        self.catalog.settle_request(id, self.catalog.now_unix_ms().await?).await?;
        let known = grants::known(&self.catalog, &repository).await?;
        let scope = Box::pin(repository.revoke_grant(id, Some(&known), &keys)).await?;
        grants::revoked(&self.catalog, &repository, id, scope.as_ref()).await;
        view.standing.state = State::absent(view.standing.way);
        view.standing.statements.clear();
        Ok(view)
    }
}

/// A key of theirs: a public key (`x25519:…`) or the ARN of their key of KMS.
///
/// # Errors
/// `Usage` when both are given, or what is given is none; what KMS says of one that is not named by its ARN.
pub async fn their_key(public: Option<&str>, kms: Option<&str>) -> Result<Option<Master>> {
    match (public, kms) {
        (None, None) => Ok(None),
        (Some(key), None) => Ok(Some(Master::Public(key.parse()?))),
        (None, Some(name)) => Ok(Some(Master::Kms(Kms::new(name, None)?.key().await?.clone()))),
        (Some(_), Some(_)) => Err(Error::new(Class::Usage, "give one key of theirs: key or grantee_kms_key")),
    }
}

fn absent(id: &str) -> Error {
    Error::new(Class::NotFound, format!("there is no grant {id}")).hint("GET /v1/grants shows what there is")
}
