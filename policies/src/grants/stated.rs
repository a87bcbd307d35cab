//! What a statement of ours says, read back from the policy that has it: whom it lets read, and what.

use serde_json::Value;

use super::{Principal, Scope, Stated};
use crate::names;

impl Stated {
    /// What of the repository in this folder of the bucket it lets be read. `None` for the statement that allows names to be listed, for
    /// one of another repository, and for one that was changed beyond recognition.
    #[must_use]
    pub fn scope(&self, bucket: &str, prefix: &str) -> Option<Scope> {
        let statement: Value = serde_json::from_str(&self.text).ok()?;
        let resources = match statement.get("Resource")? {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            single => vec![single.as_str()?],
        };
        let slash = if prefix.is_empty() { "" } else { "/" };
        let folder = format!("arn:aws:s3:::{bucket}/{prefix}{slash}");
        let keys: Vec<&str> = resources.into_iter().filter_map(|resource| resource.strip_prefix(&folder)).collect();
        // what tells repositories of one bucket apart
        if !keys.contains(&"backupd-repository.json") {
            return None;
        }
        let folders = || keys.iter().filter_map(|key| key.strip_suffix("/*"));
        let valid = |name: &str| names::check("cluster or snapshot", name).is_ok().then(|| name.to_owned());
        match folders().find_map(|folder| folder.strip_prefix("_names/")) {
            Some(name) => {
                let (cluster, snapshot_id) = folders()
                    .filter(|folder| !folder.starts_with("_names/"))
                    .find_map(|folder| folder.split_once('/'))?;
                let (cluster, snapshot_id) = (valid(cluster)?, valid(snapshot_id)?);
                Some(Scope::Snapshot { cluster, snapshot_id, name: valid(name)? })
            }
            None => folders().find_map(valid).map(|cluster| Scope::Cluster { cluster }),
        }
    }

    /// Whom it lets in; `None` when that is not one that a grant of ours names.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        let statement: Value = serde_json::from_str(&self.text).ok()?;
        let named = statement.get("Principal")?;
        if let Some(id) = named.get("CanonicalUser") {
            return id.as_str().map(|id| Principal::CanonicalId(id.to_owned()));
        }
        let arn = named.get("AWS")?.as_str()?;
        let account = arn.strip_prefix("arn:aws:iam::").and_then(|rest| rest.strip_suffix(":root"));
        Some(account.map_or_else(|| Principal::Arn(arn.to_owned()), |id| Principal::Account(id.to_owned())))
    }
}
