//! Grants by the ACLs of single objects: one account more may read, and everybody else's entries stay as they are.
//!
//! An ACL says nothing of names, so whoever reads by it cannot list. An entry has no id: an entry of the same account that says the
//! same is the grant's, whoever wrote it.

use super::GrantError;

/// The most entries that S3 takes in one ACL.
pub const ENTRIES_MAX: usize = 100;

/// What a grant of ours says.
pub const READ: &str = "READ";

/// Who an entry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    /// An account by its canonical id, with the name that some servers tell.
    CanonicalId {
        /// The id.
        id: String,
        /// The name.
        name: Option<String>,
    },
    /// A group by its URI, such as everybody.
    Group(String),
    /// An account by its address.
    Email(String),
}

/// One entry of an ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub grantee: Grantee,
    /// `READ`, `WRITE`, `READ_ACP`, `WRITE_ACP` or `FULL_CONTROL`.
    pub permission: String,
}

impl Entry {
    fn is_of(&self, canonical_id: &str) -> bool {
        matches!(&self.grantee, Grantee::CanonicalId { id, .. } if id == canonical_id)
    }
}

/// What an ACL lets an account do, by entries for itself.
#[must_use]
pub fn permissions<'a>(acl: &'a [Entry], canonical_id: &str) -> Vec<&'a str> {
    acl.iter().filter(|entry| entry.is_of(canonical_id)).map(|entry| entry.permission.as_str()).collect()
}

/// Whether an ACL lets an account read, and nothing else.
#[must_use]
pub fn is_given(acl: &[Entry], canonical_id: &str) -> bool {
    let permissions = permissions(acl, canonical_id);
    !permissions.is_empty() && permissions.iter().all(|permission| *permission == READ)
}

/// The ACL with an account more that may read. Where it may already, nothing changes.
///
/// # Errors
/// [`GrantError::Unsafe`] where the account may do more already, since a revocation could not take that back;
/// [`GrantError::TooMany`].
pub fn add(acl: &[Entry], canonical_id: &str) -> Result<Vec<Entry>, GrantError> {
    let mut added = acl.to_vec();
    if is_given(acl, canonical_id) {
        return Ok(added);
    }
    if !permissions(acl, canonical_id).is_empty() {
        let reason = "the object's ACL lets it do more than read already";
        return Err(GrantError::Unsafe { what: "the account", text: canonical_id.to_owned(), reason });
    }
    if acl.len() >= ENTRIES_MAX {
        return Err(GrantError::TooMany(acl.len()));
    }
    let grantee = Grantee::CanonicalId { id: canonical_id.to_owned(), name: None };
    added.push(Entry { grantee, permission: READ.to_owned() });
    Ok(added)
}

/// The ACL in which an account may not read any more. What else it may was not granted here, and stays.
#[must_use]
pub fn revoke(acl: &[Entry], canonical_id: &str) -> Vec<Entry> {
    let is_ours = |entry: &&Entry| entry.is_of(canonical_id) && entry.permission == READ;
    acl.iter().filter(|entry| !is_ours(entry)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: &str, permission: &str) -> Entry {
        let grantee = Grantee::CanonicalId { id: id.to_owned(), name: Some("a name".to_owned()) };
        Entry { grantee, permission: permission.to_owned() }
    }

    fn foreign() -> Vec<Entry> {
        let group = Grantee::Group("http://acs.amazonaws.com/groups/s3/LogDelivery".to_owned());
        let email = Grantee::Email("a@b.example".to_owned());
        let more = [group, email].map(|grantee| Entry { grantee, permission: READ.to_owned() });
        [vec![entry("owner", "FULL_CONTROL"), entry("friend", READ)], more.to_vec()].concat()
    }

    #[test]
    fn an_account_may_read_and_nothing_else_and_not_for_ever() {
        let added = add(&foreign(), "them").unwrap();
        assert_eq!(added[..4], foreign());
        assert_eq!(permissions(&added, "them"), [READ]);
        assert_eq!(add(&added, "them").unwrap(), added, "a second time changes nothing");
        assert_eq!(revoke(&added, "them"), foreign());
        assert_eq!(revoke(&foreign(), "them"), foreign());
        assert!(is_given(&added, "them") && !is_given(&foreign(), "them"));
    }

    #[test]
    fn what_could_not_be_taken_back_is_not_given() {
        assert!(matches!(add(&foreign(), "owner"), Err(GrantError::Unsafe { .. })));
        let wider = [add(&foreign(), "them").unwrap(), vec![entry("them", "WRITE_ACP")]].concat();
        assert!(!is_given(&wider, "them"));
        assert_eq!(permissions(&revoke(&wider, "them"), "them"), ["WRITE_ACP"]);
        let full: Vec<Entry> = (0..ENTRIES_MAX).map(|number| entry(&number.to_string(), READ)).collect();
        assert_eq!(add(&full, "them"), Err(GrantError::TooMany(ENTRIES_MAX)));
        assert_eq!(add(&full, "7").unwrap(), full);
    }

    proptest! {
        /// Accounts are let in and out in any order; what others wrote stays as it is, and in the end nothing else is there.
        #[test]
        fn accounts_in_any_order_end_where_they_began(order in prop::collection::vec((0_u8..5, any::<bool>()), 0..30)) {
            let mut acl = foreign();
            let mut inside = std::collections::BTreeSet::new();
            for (number, give) in order {
                let id = format!("them{number}");
                acl = if give { add(&acl, &id).unwrap() } else { revoke(&acl, &id) };
                if give { inside.insert(id) } else { inside.remove(&id) };
                prop_assert_eq!(&acl[..4], foreign());
                let read: std::collections::BTreeSet<String> =
                    (0..5).map(|n| format!("them{n}")).filter(|id| is_given(&acl, id)).collect();
                prop_assert_eq!(&read, &inside);
                prop_assert!(acl[4..].iter().all(|entry| entry.permission == READ));
            }
            for number in 0..5 {
                acl = revoke(&acl, &format!("them{number}"));
            }
            prop_assert_eq!(acl, foreign());
        }
    }
}
