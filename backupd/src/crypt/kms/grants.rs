//! Grants of KMS: somebody else may open what a key sealed for one snapshot, or for those of one cluster.
//!
//! A grant bears the id of ours in its name, so that it is found by it whoever made it, and made once however often it is asked for.

use aws_sdk_kms::types::{GrantConstraints, GrantOperation};

use super::failure::failed;
use super::{Context, KmsKey, pairs};
use crate::error::{Class, Result};

/// What the names of our grants begin with; the id of the grant follows.
const NAME: &str = "backupd-";

/// How many pages of grants are read: a key has at most 50,000.
const PAGES_MAX: usize = 1000;

/// How many grants a page has at most.
const PAGE_GRANTS: i32 = 100;

/// A grant of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsGrant {
    /// Its id, as in the repository.
    pub id: String,
    /// Its id in KMS.
    pub kms_id: String,
}

impl KmsKey {
    /// Lets `grantee`, an ARN, open what was sealed with a context that has at least these pairs, under the id of a grant.
    ///
    /// # Errors
    /// `Key` when the key cannot be used or the grantee does not exist, `StoreAuth` when the key may not be granted,
    /// `StoreUnavailable` when KMS does not answer.
    pub async fn grant(&self, id: &str, grantee: &str, context: &Context) -> Result<()> {
        let constraints = GrantConstraints::builder().set_encryption_context_subset(Some(pairs(context))).build();
        let request = self.client.create_grant().key_id(&self.arn).grantee_principal(grantee);
        let request = request.name(format!("{NAME}{id}")).operations(GrantOperation::Decrypt).constraints(constraints);
        request.send().await.map(drop).map_err(|error| failed("grant", &self.arn, &error))
    }

    /// All grants of ours.
    ///
    /// # Errors
    /// As [`KmsKey::grant`].
    pub async fn grants(&self) -> Result<Vec<KmsGrant>> {
        let (mut found, mut marker) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let request = self.client.list_grants().key_id(&self.arn).limit(PAGE_GRANTS).set_marker(marker);
            let page = request.send().await.map_err(|error| failed("list the grants of", &self.arn, &error))?;
            found.extend(page.grants().iter().filter_map(|grant| {
                let (id, kms_id) = (grant.name()?.strip_prefix(NAME)?, grant.grant_id()?);
                Some(KmsGrant { id: id.to_owned(), kms_id: kms_id.to_owned() })
            }));
            marker = page.next_marker.filter(|_| page.truncated);
            if marker.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Takes a grant back. One that somebody else took back meanwhile is as good.
    ///
    /// # Errors
    /// As [`KmsKey::grant`].
    pub async fn revoke(&self, grant: &KmsGrant) -> Result<()> {
        let request = self.client.revoke_grant().key_id(&self.arn).grant_id(&grant.kms_id);
        match request.send().await.map_err(|error| failed("take back a grant of", &self.arn, &error)) {
            Err(error) if error.class() == Class::Key && error.message().contains("NotFoundException") => Ok(()),
            done => done.map(drop),
        }
    }
}
