//! Tags that were added to resources, or taken from them, after they were made.

use std::collections::BTreeMap;

use super::Catalog;
use crate::error::Result;

impl Catalog {
    /// What changed of the tags of a resource: the values that were given, and `None` for those that were taken away.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tag_changes(&self, kind: &str, resource: &str) -> Result<BTreeMap<String, Option<String>>> {
        let rows: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT tag_key, tag_value FROM tags WHERE kind = $1 AND resource = $2 ORDER BY tag_key")
                .bind(kind)
                .bind(resource)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| self.error("list the tags of", &e))?;
        Ok(rows.into_iter().collect())
    }

    /// Changes tags of a resource, all or none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn change_tags(
        &self,
        kind: &str,
        resource: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            for (key, value) in changes {
                sqlx::query(
                    "INSERT INTO tags (kind, resource, tag_key, tag_value) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (kind, resource, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
                )
                .bind(kind)
                .bind(resource)
                .bind(key)
                .bind(value)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await
        };
        done.await.map_err(|e: sqlx::Error| self.error("change tags in", &e))
    }
}
