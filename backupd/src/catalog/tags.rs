//! Tags of snapshots as they are now: those of the manifest, with what changed since.

use std::collections::BTreeMap;

use super::Catalog;
use crate::error::{Class, Error, Result};

/// How often a change is tried again that others change meanwhile.
const ATTEMPTS_MAX: u32 = 8;

impl Catalog {
    /// Changes tags of a snapshot: gives those that have a value, takes those that have none. Nothing when it is not known.
    ///
    /// # Errors
    /// `Busy` when others change them all the time; those of the database.
    pub async fn change_snapshot_tags(
        &self,
        repository_id: &str,
        snapshot_id: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let query = "SELECT tags FROM snapshots WHERE repository_id = $1 AND snapshot_id = $2";
        for _ in 0..ATTEMPTS_MAX {
            let before: Option<String> = sqlx::query_scalar(query)
                .bind(repository_id)
                .bind(snapshot_id)
                .fetch_optional(&self.pool)
                .await
                .map_err(|e| self.error("read the tags of a snapshot in", &e))?;
            let Some(before) = before else { return Ok(()) };
            let mut tags: BTreeMap<String, String> = serde_json::from_str(&before).unwrap_or_default();
            changed(&mut tags, changes);
            let after = serde_json::json!(tags).to_string();
            let changed = sqlx::query(
                "UPDATE snapshots SET tags = $1 WHERE repository_id = $2 AND snapshot_id = $3 AND tags = $4",
            )
            .bind(after)
            .bind(repository_id)
            .bind(snapshot_id)
            .bind(&before)
            .execute(&self.pool)
            .await
            .map_err(|e| self.error("change the tags of a snapshot in", &e))?;
            if changed.rows_affected() > 0 {
                return Ok(());
            }
        }
        Err(Error::new(Class::Busy, format!("others change the tags of {snapshot_id} all the time")))
    }

    /// Writes the tags of a snapshot as they are now: a JSON object.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_snapshot_tags(&self, repository_id: &str, snapshot_id: &str, tags: &str) -> Result<()> {
        sqlx::query("UPDATE snapshots SET tags = $1 WHERE repository_id = $2 AND snapshot_id = $3")
            .bind(tags)
            .bind(repository_id)
            .bind(snapshot_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("write the tags of a snapshot to", &e))
    }
}

/// Gives the tags that have a value, and takes those that have none.
pub fn changed(tags: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) {
    for (key, value) in changes {
        match value {
            Some(value) => tags.insert(key.clone(), value.clone()),
            None => tags.remove(key),
        };
    }
}
