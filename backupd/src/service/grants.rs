//! Grants of others to read what is in the buckets of the configuration.

use policies::access::{Action, Principal as Caller, Resource};
use policies::grants::{Principal, Way};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use crate::error::{Class, Error, Result};
use crate::jobs::reach;
pub use crate::repository::grant::Subject;
use crate::repository::grant::{Standing, State};

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
        let config = self.config();
        if let Some(name) = only {
            config.repository(name)?;
        }
        let mut found = Vec::new();
        for section in config.repositories().filter(|section| only.is_none_or(|only| only == section.name)) {
            let (repository, keys) = match reach::repository(&config, &section.name).await {
                Ok(reached) => reached,
                // nothing was ever written to it
                Err(error) if error.class() == Class::NotFound => continue,
                Err(error) => return Err(error),
            };
            if only.is_none() && repository.store().as_bucket().is_none() {
                continue;
            }
            for standing in Box::pin(repository.grants(&keys, None)).await? {
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
    /// may do that.
    ///
    /// # Errors
    /// `Refused` for what cannot be granted safely and for a repository that is no bucket; `Busy` while others change the bucket's policy; what
    /// the store and KMS say.
    pub async fn grant(&self, repository: &str, subject: &Subject, to: Principal) -> Result<GrantView> {
        let (reached, keys) = reach::repository(&self.config(), repository).await?;
        let standing = Box::pin(reached.grant(subject, (to, Way::Policy), None, &keys)).await?;
        Ok(GrantView { repository: repository.to_owned(), standing })
    }

    /// Takes a grant back that the caller sees.
    ///
    /// # Errors
    /// `NotFound`, `Busy`; what the store says.
    pub async fn revoke_grant(&self, caller: &Caller, id: &str, only: Option<&str>) -> Result<GrantView> {
        let grants = self.grants(caller, only).await?;
        let mut view = grants.into_iter().find(|view| view.standing.grant_id == id).ok_or_else(|| absent(id))?;
        // what is seen may be taken back by this role, which was asked
        self.decide(caller, Action::RevokeGrant, Resource::Service, id).await?;
        let (repository, keys) = reach::repository(&self.config(), &view.repository).await?;
        Box::pin(repository.revoke_grant(id, &keys)).await?;
        view.standing.state = State::NotInPolicy;
        view.standing.statements.clear();
        Ok(view)
    }
}

fn absent(id: &str) -> Error {
    Error::new(Class::NotFound, format!("there is no grant {id}")).hint("GET /v1/grants shows what there is")
}
