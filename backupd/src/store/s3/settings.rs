//! What objects are given when they are made, besides their bytes.

use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption};

/// Permissions and encryption of new objects; the bucket's own where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSettings {
    /// A canned ACL, such as `bucket-owner-full-control`.
    pub acl: Option<String>,
    /// Who may read them, as in the header `x-amz-grant-read`: `id=CANONICAL-ID`, `uri="…"`.
    pub grant_read: Option<String>,
    /// `AES256` or `aws:kms`.
    pub sse: Option<String>,
    /// The key of `aws:kms`, when not the default one.
    pub sse_kms_key_id: Option<String>,
}

impl ObjectSettings {
    pub(super) fn acl(&self) -> Option<ObjectCannedAcl> {
        self.acl.as_deref().map(ObjectCannedAcl::from)
    }

    pub(super) fn sse(&self) -> Option<ServerSideEncryption> {
        self.sse.as_deref().map(ServerSideEncryption::from)
    }
}
