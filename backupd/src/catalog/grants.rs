//! Grants, as facts beside snapshots and the policies of buckets say them: which places are to be looked at. How a grant stands, only its bucket
//! and KMS can say.

use super::{Catalog, signed};
use crate::error::Result;

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct GrantRow {
    /// The id of the repository.
    pub repository_id: String,
    /// The id of the grant.
    pub grant_id: String,
    /// The cluster.
    pub cluster: String,
    /// The snapshot; empty when it is for all of the cluster's.
    pub snapshot_id: String,
    /// Its name; empty when it is for all of the cluster's.
    pub snapshot_name: String,
    /// Who may read: JSON, `null` when the policy does not say it as we would.
    pub principal: String,
    /// `policy` or `acl`.
    pub way: String,
    /// The key of theirs that has a wrap.
    pub key_id: Option<String>,
    /// The ARN of the key of ours that has a grant of KMS.
    pub kms_key: Option<String>,
    /// When it was given, ms since 1970; of a cluster's when it was first seen.
    #[sqlx(try_from = "i64")]
    pub given_ms: u64,
    /// When it was taken back, or was seen to be gone with its snapshot, ms since 1970.
    pub revoked_ms: Option<i64>,
}

/// The columns of a [`GrantRow`].
const COLUMNS: &str = "repository_id, grant_id, cluster, snapshot_id, snapshot_name, principal, way, key_id, kms_key, given_ms, revoked_ms";

impl Catalog {
    /// Notes a grant in place of what was noted of it before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_grant(&self, row: &GrantRow) -> Result<()> {
        let query = format!(
            "INSERT INTO grants ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (repository_id, grant_id) DO UPDATE SET cluster = excluded.cluster,
                 snapshot_id = excluded.snapshot_id, snapshot_name = excluded.snapshot_name,
                 principal = excluded.principal, way = excluded.way, key_id = excluded.key_id,
                 kms_key = excluded.kms_key, given_ms = excluded.given_ms, revoked_ms = excluded.revoked_ms"
        );
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(&row.repository_id)
            .bind(&row.grant_id)
            .bind(&row.cluster)
            .bind(&row.snapshot_id)
            .bind(&row.snapshot_name)
            .bind(&row.principal)
            .bind(&row.way)
            .bind(&row.key_id)
            .bind(&row.kms_key)
            .bind(signed(row.given_ms))
            .bind(row.revoked_ms)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("note a grant in", &e))
    }

    /// Notes that a grant is gone. Tells whether it was known and not gone yet.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_grant_revoked(&self, repository_id: &str, grant_id: &str, now_unix_ms: u64) -> Result<bool> {
        sqlx::query(
            "UPDATE grants SET revoked_ms = $1 WHERE repository_id = $2 AND grant_id = $3 AND revoked_ms IS NULL",
        )
        .bind(signed(now_unix_ms))
        .bind(repository_id)
        .bind(grant_id)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("mark a grant in", &e))
    }

    /// The grants of a repository, by their ids; with `revoked` also those that are gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn grants(&self, repository_id: &str, revoked: bool) -> Result<Vec<GrantRow>> {
        let which = if revoked { "" } else { "AND revoked_ms IS NULL " };
        let query = format!("SELECT {COLUMNS} FROM grants WHERE repository_id = $1 {which}ORDER BY grant_id");
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(repository_id)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list the grants of", &e))
    }
}
