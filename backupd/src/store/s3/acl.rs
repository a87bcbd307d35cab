//! The ACL of one object, which says who else may do what with it.

use aws_sdk_s3::types::{AccessControlPolicy, Grant, Grantee as Named, Owner, Permission, Type};
use policies::grants::acl::{Entry, Grantee};

use super::{S3Store, error};
use crate::error::{Class, Error, Result};

/// An ACL as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Acl {
    owner: Option<Owner>,
    /// Who may do what.
    pub entries: Vec<Entry>,
}

impl S3Store {
    /// The ACL of an object.
    ///
    /// # Errors
    /// `NotFound` when there is no object, `Refused` when an entry is not understood, what the store says, such as `StoreAuth` without
    /// `s3:GetObjectAcl`.
    pub async fn acl(&self, key: &str) -> Result<Acl> {
        let read = self.client.get_object_acl().bucket(&self.url.bucket).key(self.full(key)).send().await;
        let answer = read.map_err(|e| match error::status(&e) {
            Some(404) => self.missing(key),
            _ => error::of("read the ACL of", &self.place(key), &e),
        })?;
        let entries = answer.grants.unwrap_or_default().into_iter().map(entry);
        let entries = entries.collect::<Option<Vec<Entry>>>().ok_or_else(|| {
            let what = format!("the ACL of {} is not understood and is left as it is", self.place(key));
            Error::new(Class::Refused, what).hint("grant without --acl: then it is said in the bucket's policy")
        })?;
        Ok(Acl { owner: answer.owner, entries })
    }

    /// Puts an ACL in place of the one that an object has. S3 has no condition for that.
    ///
    /// # Errors
    /// What the store says, such as `StoreAuth` without `s3:PutObjectAcl`, and `Refused` where the bucket has no ACLs.
    pub async fn set_acl(&self, key: &str, acl: Acl) -> Result<()> {
        let grants = acl.entries.into_iter().map(grant).collect::<Result<Vec<Grant>>>()?;
        let policy = AccessControlPolicy::builder().set_owner(acl.owner).set_grants(Some(grants)).build();
        let request = self.client.put_object_acl().bucket(&self.url.bucket).key(self.full(key));
        request.access_control_policy(policy).send().await.map(drop).map_err(|e| match error::code(&e) {
            Some("AccessControlListNotSupported") => {
                Error::new(Class::Refused, format!("{}: the bucket has ACLs switched off", self.place(key)))
                    .hint("grant without --acl: then it is said in the bucket's policy")
            }
            _ => error::of("write the ACL of", &self.place(key), &e),
        })
    }
}

fn entry(grant: Grant) -> Option<Entry> {
    let permission = grant.permission?.as_str().to_owned();
    let named = grant.grantee?;
    let grantee = match named.r#type {
        Type::CanonicalUser => Grantee::CanonicalId { id: named.id?, name: named.display_name },
        Type::Group => Grantee::Group(named.uri?),
        Type::AmazonCustomerByEmail => Grantee::Email(named.email_address?),
        _ => return None,
    };
    Some(Entry { grantee, permission })
}

fn grant(entry: Entry) -> Result<Grant> {
    let named = match entry.grantee {
        Grantee::CanonicalId { id, name } => Named::builder().r#type(Type::CanonicalUser).id(id).set_display_name(name),
        Grantee::Group(uri) => Named::builder().r#type(Type::Group).uri(uri),
        Grantee::Email(address) => Named::builder().r#type(Type::AmazonCustomerByEmail).email_address(address),
    };
    let named = named.build().map_err(|e| Error::new(Class::Unforeseen, format!("an ACL cannot be written: {e}")))?;
    Ok(Grant::builder().grantee(named).permission(Permission::from(entry.permission.as_str())).build())
}
