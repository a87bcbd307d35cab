//! Grants by the ACLs of a snapshot's objects: those that a reader needs, and no others.

use policies::grants::acl;
use policies::grants::{Grant, Principal, Scope, Way};
use serde_json::{Value, json};

use super::super::{MARKER, Place, Repository};
use super::noted::{Given, Noted};
use super::refused;
use super::standing::State;
use crate::error::{Class, Error, Result};
use crate::store::S3Store;

/// How often an ACL that others change at the same time is read again.
const ACL_ATTEMPTS: u32 = 4;

/// The account of a grant by ACLs.
pub(super) fn account(grant: &Grant) -> Option<&str> {
    match (&grant.way, &grant.principal) {
        (Way::Acl, Principal::CanonicalId(id)) => Some(id),
        _ => None,
    }
}

/// The place and the account of a grant that ACLs can say.
fn sayable(grant: &Grant) -> Result<(Place, &str)> {
    let usage = |what: &str, hint: &str| Err(Error::new(Class::Usage, what).hint(hint));
    match (&grant.principal, &grant.scope) {
        (Principal::CanonicalId(id), Scope::Snapshot { cluster, snapshot_id, .. }) => {
            grant.check().map_err(refused)?;
            Ok((Place { cluster: cluster.clone(), snapshot_id: snapshot_id.clone() }, id))
        }
        (Principal::CanonicalId(_), Scope::Cluster { .. }) => usage(
            "later snapshots of a cluster have no objects yet that could have an ACL",
            "grant snapshots one by one",
        ),
        _ => usage("an ACL knows accounts by their canonical ids alone", "give --canonical-id"),
    }
}

impl Repository {
    /// Refuses what cannot be said by the ACLs as they are, before anything is written.
    pub(super) async fn check_acls(&self, bucket: &S3Store, grant: &Grant) -> Result<()> {
        let (place, account) = sayable(grant)?;
        for key in self.readable(&place).await? {
            acl::add(&bucket.acl(&key).await?.entries, account).map_err(|e| refused(e).at(&key))?;
        }
        Ok(())
    }

    /// What of a snapshot is needed to read it: marker, claim, manifest, wraps, shards.
    async fn readable(&self, place: &Place) -> Result<Vec<String>> {
        let manifest = self.manifest(place).await?;
        let manifest = manifest.claimed();
        let mut keys = vec![MARKER.to_owned(), format!("_names/{}/{:06}.json", manifest.name, manifest.claim)];
        keys.extend(self.keys_below(&place.key("wrap-")).await?);
        keys.extend(manifest.shards.iter().map(|shard| place.key(&shard.object.file)));
        keys.push(place.manifest_key());
        Ok(keys)
    }

    /// Lets an account read each object of a snapshot, the manifest last.
    pub(super) async fn give_acls(&self, bucket: &S3Store, place: &Place, account: &str) -> Result<()> {
        for key in self.readable(place).await? {
            change(bucket, &key, |entries| acl::add(entries, account).map_err(refused)).await?;
        }
        Ok(())
    }

    /// Lets those read the wrap for a key who were granted the snapshot by ACLs: a wrap that came after the grant has none. Nothing else is
    /// given, and one whom it cannot be given does not keep it from the others.
    ///
    /// # Errors
    /// The first, which names the grant.
    pub(in crate::repository) async fn give_wrap(&self, place: &Place, key_id: &str) -> Result<()> {
        let Some(bucket) = self.store.as_bucket() else { return Ok(()) };
        let (key, mut failed) = (place.wrap_key(key_id), Ok(()));
        for Given { grant, .. } in self.given_now(place).await? {
            let Some(account) = account(&grant) else { continue };
            let given = change(bucket, &key, |entries| acl::add(entries, account).map_err(refused)).await;
            failed = failed.and(given.map_err(|error| error.at(format!("grant {}", grant.id))));
        }
        failed
    }

    /// Takes that back, of all objects of the snapshot, the manifest first. The marker stays readable as long as another grant to the account needs it.
    pub(super) async fn take_acls(&self, bucket: &S3Store, this: &Noted, noted: &[Noted], account: &str) -> Result<()> {
        let (place, needs) = (&this.place, |other: &Noted| {
            other.given.grant.id != this.given.grant.id && self::account(&other.given.grant) == Some(account)
        });
        let mut keys = vec![place.manifest_key()];
        keys.extend(self.keys_below(&place.key("")).await?);
        if let Some(name) = this.given.grant.scope.snapshot() {
            keys.extend(self.keys_below(&format!("_names/{name}/")).await?);
        }
        // another grant to them of the same snapshot needs all of it
        if noted.iter().any(|other| needs(other) && other.place == *place) {
            return Ok(());
        }
        if !noted.iter().any(needs) {
            keys.push(MARKER.to_owned());
        }
        for key in keys {
            let taken = change(bucket, &key, |entries| Ok(acl::revoke(entries, account))).await;
            match taken {
                // a lease, or a broken snapshot's manifest
                Err(error) if error.class() == Class::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// What the ACLs of a snapshot's objects let an account do, and how that stands.
    pub(super) async fn acls(&self, bucket: &S3Store, place: &Place, account: &str) -> Result<(State, Vec<Value>)> {
        let (mut told, mut given, mut other) = (Vec::new(), 0, 0);
        let keys = self.readable(place).await?;
        for key in &keys {
            let entries = match bucket.acl(key).await {
                Ok(acl) => acl.entries,
                Err(error) if error.class() == Class::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let permissions = acl::permissions(&entries, account);
            match (acl::is_given(&entries, account), permissions.is_empty()) {
                (true, _) => given += 1,
                (false, true) => continue,
                (false, false) => other += 1,
            }
            told.push(json!({"object": key, "permissions": permissions}));
        }
        let state = match (given, other) {
            (0, 0) => State::NotInAcl,
            (given, 0) if given == keys.len() => State::InForce,
            _ => State::Changed,
        };
        Ok((state, told))
    }
}

/// Reads an ACL, plans, writes, and reads again, as with policies: another writer is found out only afterwards.
async fn change(bucket: &S3Store, key: &str, plan: impl Fn(&[acl::Entry]) -> Result<Vec<acl::Entry>>) -> Result<()> {
    for _ in 0..ACL_ATTEMPTS {
        let mut there = bucket.acl(key).await?;
        let entries = plan(&there.entries)?;
        if entries == there.entries {
            return Ok(());
        }
        there.entries = entries;
        bucket.set_acl(key, there).await?;
    }
    let last = bucket.acl(key).await?.entries;
    if plan(&last)? == last {
        return Ok(());
    }
    Err(Error::new(Class::Busy, format!("the ACL of `{key}` changes all the time"))
        .hint("stop the other writer, and try again"))
}
