//! Grants: bucket policies that let others read one snapshot, or those of one cluster, and nothing else.
//!
//! A bucket has one policy, a JSON document, in which others may have statements of their own. Ours are added behind
//! them and taken out again by their `Sid`; every byte of the rest stays as it is, so that a grant and its revocation leave the document
//! as it was. Where `Statement` was a single object it becomes a list.

pub mod acl;
mod stated;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The largest policy that S3 takes, bytes.
pub const POLICY_BYTES_MAX: usize = 20 * 1024;

/// What the `Sid` of our statements begins with. AWS allows only letters and digits in it.
const SID: &str = "backupdGrant";

/// Who may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// Everybody whom this account allows: 12 digits on AWS, letters and digits elsewhere.
    Account(String),
    /// A user or role: `arn:aws:iam::123456789012:role/restore`.
    Arn(String),
    /// An account by its canonical id.
    CanonicalId(String),
}

impl Principal {
    /// Its ARN: for an account that of all it allows; a canonical id has none.
    #[must_use]
    pub fn arn(&self) -> Option<String> {
        match self {
            Self::Account(id) => Some(format!("arn:aws:iam::{id}:root")),
            Self::Arn(arn) => Some(arn.clone()),
            Self::CanonicalId(_) => None,
        }
    }
}

/// What may be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One snapshot.
    Snapshot {
        /// Its cluster.
        cluster: String,
        /// Its id.
        snapshot_id: String,
        /// Its name, by which the grantee finds it.
        name: String,
    },
    /// All snapshots of a cluster, now and later; they are found by their ids.
    Cluster {
        /// The cluster.
        cluster: String,
    },
}

impl Scope {
    /// The name of the snapshot; `None` for a cluster.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        match self {
            Self::Snapshot { name, .. } => Some(name),
            Self::Cluster { .. } => None,
        }
    }
}

/// What in the bucket lets them in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Statements in its policy.
    #[default]
    Policy,
    /// The ACLs of the snapshot's objects.
    Acl,
}

impl Way {
    fn is_policy(&self) -> bool {
        *self == Self::Policy
    }
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id: letters and digits, unique in the bucket.
    pub id: String,
    /// Who may read.
    pub principal: Principal,
    /// The bucket.
    pub bucket: String,
    /// The folder of the repository in the bucket, without a slash at its end; empty: the bucket itself.
    pub prefix: String,
    /// What may be read.
    pub scope: Scope,
    /// What lets them in.
    #[serde(default, skip_serializing_if = "Way::is_policy")]
    pub way: Way,
}

/// A statement of ours as a policy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The id of the grant; statements that somebody changed may have any.
    pub grant_id: String,
    /// The statement, to the byte.
    pub text: String,
}

/// Why a policy cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// A part of the grant that could make it wider than it says.
    #[error("{what} `{text}` cannot be granted: {reason}")]
    Unsafe {
        /// Which part.
        what: &'static str,
        /// The part.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// The policy that stands in the bucket is not understood, so it is not touched.
    #[error("the bucket's policy is not understood and is left as it is: {0}")]
    Foreign(String),
    /// The policy would be too large.
    #[error("the bucket's policy would have {0} bytes, and S3 takes {POLICY_BYTES_MAX}")]
    TooLarge(usize),
    /// The ACL would have too many entries.
    #[error("the ACL of the object has {0} entries, and S3 takes {max}", max = acl::ENTRIES_MAX)]
    TooMany(usize),
    /// A grant of this id is there and says something else.
    #[error("the bucket's policy has another statement of grant {0}: somebody changed it")]
    Changed(String),
    /// There is no grant of this id.
    #[error("the bucket's policy has no grant {0}")]
    NotThere(String),
}

impl Grant {
    /// The two statements: objects may be read, and their names listed.
    ///
    /// # Errors
    /// [`GrantError::Unsafe`] when a part could match more than itself.
    pub fn statements(&self) -> Result<[String; 2], GrantError> {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        self.check()?;
        let folders: Vec<String> = match &self.scope {
            Scope::Snapshot { cluster, snapshot_id, name } => {
                vec![format!("{prefix}_names/{name}/*"), format!("{prefix}{cluster}/{snapshot_id}/*")]
            }
            Scope::Cluster { cluster } => vec![format!("{prefix}{cluster}/*")],
        };
        let bucket = format!("arn:aws:s3:::{}", self.bucket);
        let marker = format!("{prefix}backupd-repository.json");
        let objects: Vec<String> =
            std::iter::once(&marker).chain(&folders).map(|key| format!("{bucket}/{key}")).collect();
        let principal = match &self.principal {
            Principal::CanonicalId(id) => json!({"CanonicalUser": id}),
            known => json!({"AWS": known.arn()}),
        };
        let statement = |part: &str, action: &str, resource: Value| {
            json!({
                "Sid": format!("{SID}{}{part}", self.id), "Effect": "Allow", "Principal": principal, "Action": action,
                "Resource": resource,
            })
        };
        let read = statement("Read", "s3:GetObject", json!(objects));
        let mut list = statement("List", "s3:ListBucket", json!(bucket));
        if let Some(members) = list.as_object_mut() {
            members.insert("Condition".to_owned(), json!({"StringLike": {"s3:prefix": folders}}));
        }
        Ok([read.to_string(), list.to_string()])
    }

    /// Refuses what a policy would take for a pattern, a variable, or everybody.
    ///
    /// # Errors
    /// [`GrantError::Unsafe`].
    pub fn check(&self) -> Result<(), GrantError> {
        let word =
            |text: &str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let refuse = |what, text: &str, reason| Err(GrantError::Unsafe { what, text: text.to_owned(), reason });
        if !word(&self.id) {
            return refuse("the id", &self.id, "it must be letters and digits");
        }
        match &self.principal {
            Principal::Account(id) | Principal::CanonicalId(id) if !word(id) => {
                return refuse("the account", id, "it must be letters and digits, such as 123456789012");
            }
            Principal::Arn(arn) if !is_iam_arn(arn) => {
                return refuse(
                    "the principal",
                    arn,
                    "it must be as arn:aws:iam::123456789012:role/NAME, without patterns",
                );
            }
            _ => {}
        }
        if self.bucket.is_empty()
            || !self.bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        {
            return refuse("the bucket", &self.bucket, "it is no name of a bucket");
        }
        if self.prefix.contains(['*', '?', '$']) || self.prefix.ends_with('/') || self.prefix.starts_with('/') {
            return refuse("the folder", &self.prefix, "`*`, `?` and `$` mean something else in a policy");
        }
        let names = match &self.scope {
            Scope::Snapshot { cluster, snapshot_id, name } => vec![cluster, snapshot_id, name],
            Scope::Cluster { cluster } => vec![cluster],
        };
        match names.into_iter().find(|name| crate::names::check("cluster or snapshot", name).is_err()) {
            Some(name) => refuse("the name", name, "it is no name of a snapshot or cluster"),
            None => Ok(()),
        }
    }
}

/// `arn:PARTITION:iam::ACCOUNT:root`, `…:user/NAME` or `…:role/NAME`, also with a path, without anything that is a pattern.
fn is_iam_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("iam" | "sts"), Some(""), Some(account), Some(who)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    plain(partition, "-") && plain(account, "") && plain(who, "/+=,.@_-")
}

/// The statements of a policy: their texts and where each begins and ends.
struct Parsed<'a> {
    statements: Vec<(&'a RawValue, usize, usize)>,
    /// Where `Statement` begins and ends when it is a single object.
    single: Option<(usize, usize)>,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(rename = "Statement", borrow)]
    statement: &'a RawValue,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Sid")]
    sid: Option<String>,
}

fn parse(policy: &str) -> Result<Parsed<'_>, GrantError> {
    let foreign = |error: serde_json::Error| GrantError::Foreign(error.to_string());
    let whole: &RawValue = serde_json::from_str::<Document<'_>>(policy).map_err(foreign)?.statement;
    // every text below is a part of `policy` itself
    let place = |part: &RawValue| {
        let begin = part.get().as_ptr().addr().saturating_sub(policy.as_ptr().addr());
        (begin, begin.saturating_add(part.get().len()))
    };
    let single = (!whole.get().starts_with('[')).then(|| place(whole));
    let list = if single.is_some() { vec![whole] } else { serde_json::from_str(whole.get()).map_err(foreign)? };
    if list.is_empty() {
        return Err(GrantError::Foreign("it has no statement".to_owned()));
    }
    let statements = list.into_iter().map(|statement: &RawValue| {
        let (begin, end) = place(statement);
        (statement, begin, end)
    });
    Ok(Parsed { statements: statements.collect(), single })
}

/// The id of the grant that a statement of ours belongs to.
fn grant_of(statement: &RawValue) -> Option<String> {
    let sid = serde_json::from_str::<Named>(statement.get()).ok()?.sid?;
    let id = sid.strip_prefix(SID)?;
    id.strip_suffix("Read").or_else(|| id.strip_suffix("List")).map(str::to_owned)
}

/// The policy with a grant added; `None` as policy when the bucket has none. One that is there already is left.
///
/// # Errors
/// See [`GrantError`]; then nothing may be changed.
pub fn add(policy: Option<&str>, grant: &Grant) -> Result<String, GrantError> {
    let [read, list] = grant.statements()?;
    let added = match policy {
        None => format!(r#"{{"Version":"2012-10-17","Statement":[{read},{list}]}}"#),
        Some(policy) => {
            let parsed = parse(policy)?;
            let of_this = parsed.statements.iter().filter(|(text, ..)| grant_of(text).as_ref() == Some(&grant.id));
            let there: Vec<Option<Value>> = of_this.map(|(text, ..)| serde_json::from_str(text.get()).ok()).collect();
            if !there.is_empty() {
                let expected: Vec<Option<Value>> = [&read, &list].map(|text| serde_json::from_str(text).ok()).into();
                let same = there.len() == 2 && expected.iter().all(|statement| there.contains(statement));
                return if same { Ok(policy.to_owned()) } else { Err(GrantError::Changed(grant.id.clone())) };
            }
            let last_end = parsed.statements.last().map_or(0, |(.., end)| *end);
            let (head, tail) = policy.split_at_checked(last_end).unwrap_or((policy, ""));
            match parsed.single.and_then(|(begin, _)| head.split_at_checked(begin)) {
                Some((before, single)) => format!("{before}[{single},{read},{list}]{tail}"),
                None => format!("{head},{read},{list}{tail}"),
            }
        }
    };
    if added.len() > POLICY_BYTES_MAX { Err(GrantError::TooLarge(added.len())) } else { Ok(added) }
}

/// The policy without a grant; `None` when nothing is left of it, so that the bucket's policy is to be deleted.
///
/// # Errors
/// [`GrantError::NotThere`] and [`GrantError::Foreign`]; then nothing may be changed.
pub fn revoke(policy: &str, grant_id: &str) -> Result<Option<String>, GrantError> {
    let parsed = parse(policy)?;
    let is_of = |statement: &RawValue| grant_of(statement).as_deref() == Some(grant_id);
    if !parsed.statements.iter().any(|(text, ..)| is_of(text)) {
        return Err(GrantError::NotThere(grant_id.to_owned()));
    }
    let kept: Vec<_> = parsed.statements.iter().filter(|(text, ..)| !is_of(text)).collect();
    let (Some((_, begin, _)), Some((.., end))) = (parsed.statements.first(), parsed.statements.last()) else {
        return Ok(None);
    };
    if kept.is_empty() {
        return Ok(None);
    }
    let (mut left, mut last_end) = (policy.get(..*begin).unwrap_or_default().to_owned(), None::<usize>);
    for (text, ..) in &parsed.statements {
        let Some((_, begin, end)) = kept.iter().find(|(kept, ..)| std::ptr::eq(kept.get(), text.get())) else {
            continue;
        };
        // with a statement goes what stands between it and the one before it, so that what was added last leaves no trace
        if let Some(last_end) = last_end {
            let before = parsed.statements.iter().rfind(|(.., end)| end <= begin).map_or(last_end, |(.., end)| *end);
            left.push_str(policy.get(before..*begin).unwrap_or(","));
        }
        left.push_str(text.get());
        last_end = Some(*end);
    }
    left.push_str(policy.get(*end..).unwrap_or_default());
    Ok(Some(left))
}

/// All statements of ours, as the policy really has them.
///
/// # Errors
/// [`GrantError::Foreign`].
pub fn list(policy: &str) -> Result<Vec<Stated>, GrantError> {
    let stated = |(text, ..): &(&RawValue, usize, usize)| {
        Some(Stated { grant_id: grant_of(text)?, text: text.get().to_owned() })
    };
    Ok(parse(policy)?.statements.iter().filter_map(stated).collect())
}
