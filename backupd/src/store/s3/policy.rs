//! The policy of the bucket, which says who else may do what with it.

use super::{S3Store, error};
use crate::error::Result;
use crate::store::Store as _;

impl S3Store {
    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.url.bucket
    }

    /// The folder of the repository in the bucket, without a slash at its end; empty: the bucket itself.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.url.prefix
    }

    /// The policy as it stands; `None` when the bucket has none.
    ///
    /// # Errors
    /// What the store says, such as `StoreAuth` without `s3:GetBucketPolicy`.
    pub async fn policy(&self) -> Result<Option<String>> {
        match self.client.get_bucket_policy().bucket(&self.url.bucket).send().await {
            Ok(answer) => Ok(answer.policy().map(str::to_owned)),
            Err(e) if error::code(&e) == Some("NoSuchBucketPolicy") => Ok(None),
            Err(e) => Err(error::of("read the policy of", &self.url(), &e)),
        }
    }

    /// Puts a policy in place of the one that stands there, or takes it away. S3 has no condition for that.
    ///
    /// # Errors
    /// What the store says, such as `StoreAuth` without `s3:PutBucketPolicy`.
    pub async fn set_policy(&self, policy: Option<&str>) -> Result<()> {
        match policy {
            Some(policy) => {
                let sent = self.client.put_bucket_policy().bucket(&self.url.bucket).policy(policy).send().await;
                sent.map(drop).map_err(|e| error::of("write the policy of", &self.url(), &e))
            }
            None => {
                let sent = self.client.delete_bucket_policy().bucket(&self.url.bucket).send().await;
                sent.map(drop).map_err(|e| error::of("delete the policy of", &self.url(), &e))
            }
        }
    }
}
