//! Requests that are done at once and so are no jobs: which caller asked for what under which key, and whether it was done.

use super::jobs::Asked;
use super::{Catalog, signed};
use crate::error::{Class, Error, Result};

/// A request that was asked for under a key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RequestRow {
    /// The digest of what was asked.
    pub request_sha256: String,
    /// The id of what it makes.
    pub made_id: String,
    /// When it was done or taken back, ms since 1970.
    pub done_ms: Option<i64>,
}

impl Catalog {
    /// Notes a request that is to make `made_id`, unless its caller asked under the same key before. Gives what is noted then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_request(&self, asked: &Asked, made_id: &str, now_unix_ms: u64) -> Result<RequestRow> {
        sqlx::query(
            "INSERT INTO requests (requested_by, idempotency_key, request_sha256, made_id, asked_ms)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (requested_by, idempotency_key) DO NOTHING",
        )
        .bind(&asked.by)
        .bind(&asked.key)
        .bind(&asked.sha256)
        .bind(made_id)
        .bind(signed(now_unix_ms))
        .execute(&self.pool)
        .await
        .map_err(|e| self.error("note a request in", &e))?;
        let noted = self.request_asked(&asked.by, &asked.key).await?;
        // it was forgotten in between
        noted.ok_or_else(|| Error::new(Class::Busy, format!("the key `{}` was just given free", asked.key)))
    }

    /// The request that somebody made under a key.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn request_asked(&self, by: &str, key: &str) -> Result<Option<RequestRow>> {
        sqlx::query_as(
            "SELECT request_sha256, made_id, done_ms FROM requests WHERE requested_by = $1 AND idempotency_key = $2",
        )
        .bind(by)
        .bind(key)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.error("read a request of", &e))
    }

    /// Notes that what has this id was made, or taken back: no request makes it again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settle_request(&self, made_id: &str, now_unix_ms: u64) -> Result<()> {
        sqlx::query("UPDATE requests SET done_ms = $1 WHERE made_id = $2 AND done_ms IS NULL")
            .bind(signed(now_unix_ms))
            .bind(made_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("note a request in", &e))
    }

    /// Forgets requests that were made before `before_unix_ms`. Tells how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_requests(&self, before_unix_ms: u64) -> Result<u64> {
        sqlx::query("DELETE FROM requests WHERE asked_ms < $1")
            .bind(signed(before_unix_ms))
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(|e| self.error("forget requests of", &e))
    }
}
