//! Shards that the worker of a job offers to the other workers, and who those are.
//!
//! ```text
//! offered ──► taken ──► ready ──► asked ──► done
//!     │          └────────┴─────────┴─────► failed
//!     └──► withdrawn: the row is gone, and whoever took it stops
//! ```

use std::time::Duration;

use sqlx::AnyConnection;

use super::{Catalog, later, signed};
use crate::error::Result;

/// The most offers that a worker looks at.
const OFFERS_MAX: i64 = 64;

/// How long a worker that says nothing is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Which shard of which attempt at which job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferKey {
    /// The job.
    pub job_id: String,
    /// The fencing number of its worker.
    pub fencing: u64,
    /// The shard.
    pub shard: u32,
}

/// An offer as it is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OfferRow {
    /// The job.
    pub job_id: String,
    /// The fencing number of its worker.
    #[sqlx(try_from = "i64")]
    pub fencing: u64,
    /// The shard.
    #[sqlx(try_from = "i64")]
    pub shard_index: u32,
    /// Of which cluster.
    pub cluster: String,
    /// The name of the repository in the configuration.
    pub repository: String,
    /// JSON: what is asked for.
    pub offer: String,
    /// Where it is: `offered`, `taken`, `ready`, `asked`, `done`, `failed`.
    pub state: String,
    /// Who took it; empty before.
    pub worker: String,
    /// Until when it holds it.
    #[sqlx(try_from = "i64")]
    pub lease_ms: u64,
    /// Bytes of RDB so far.
    #[sqlx(try_from = "i64")]
    pub done_bytes: u64,
    /// Keys so far.
    #[sqlx(try_from = "i64")]
    pub done_keys: u64,
    /// JSON: what was stored, or why not.
    pub outcome: String,
}

impl OfferRow {
    /// Which it is.
    #[must_use]
    pub fn key(&self) -> OfferKey {
        OfferKey { job_id: self.job_id.clone(), fencing: self.fencing, shard: self.shard_index }
    }
}

impl Catalog {
    /// Says that a worker lives, and forgets those that said nothing for a minute.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn worker_seen(&self, name: &str, now_unix_ms: u64) -> Result<()> {
        let done = async {
            sqlx::query(
                "INSERT INTO workers (name, seen_ms) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET seen_ms = excluded.seen_ms",
            )
            .bind(name)
            .bind(signed(now_unix_ms))
            .execute(&self.pool)
            .await?;
            let long_ago = now_unix_ms.saturating_sub(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX));
            sqlx::query("DELETE FROM workers WHERE seen_ms < $1").bind(signed(long_ago)).execute(&self.pool).await
        };
        done.await.map(drop).map_err(|e| self.error("note a worker in", &e))
    }

    /// Says that a worker has ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn worker_left(&self, name: &str) -> Result<()> {
        sqlx::query("DELETE FROM workers WHERE name = $1")
            .bind(name)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("forget a worker in", &e))
    }

    /// How many workers but `name` were heard of since `since_unix_ms`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn other_workers(&self, name: &str, since_unix_ms: u64) -> Result<usize> {
        sqlx::query_scalar("SELECT COUNT(*) FROM workers WHERE name <> $1 AND seen_ms >= $2")
            .bind(name)
            .bind(signed(since_unix_ms))
            .fetch_one(&self.pool)
            .await
            .map(|count: i64| usize::try_from(count).unwrap_or(0))
            .map_err(|e| self.error("count the workers of", &e))
    }

    /// Offers a shard.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn offer_shard(&self, key: &OfferKey, cluster: &str, repository: &str, offer: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO shard_offers (job_id, fencing, shard_index, cluster, repository, offer, state, worker, lease_ms,
                 done_bytes, done_keys, outcome) VALUES ($1, $2, $3, $4, $5, $6, 'offered', '', 0, 0, 0, '')",
        )
        .bind(&key.job_id)
        .bind(signed(key.fencing))
        .bind(i64::from(key.shard))
        .bind(cluster)
        .bind(repository)
        .bind(offer)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| self.error("offer a shard in", &e))
    }

    /// Offers that nobody took yet and whose job is still wanted, and those that `worker` has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn shard_offers(&self, worker: &str) -> Result<Vec<OfferRow>> {
        sqlx::query_as(
            "SELECT o.* FROM shard_offers o JOIN jobs j ON j.job_id = o.job_id AND j.fencing = o.fencing
             WHERE j.state = 'running' AND j.worker <> $1 AND (o.state = 'offered' OR o.worker = $1) ORDER BY o.job_id, o.shard_index LIMIT $2",
        )
        .bind(worker)
        .bind(OFFERS_MAX)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("list the offers of", &e))
    }

    /// An offer; `None` when it was withdrawn.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn shard_offer(&self, key: &OfferKey) -> Result<Option<OfferRow>> {
        sqlx::query_as("SELECT * FROM shard_offers WHERE job_id = $1 AND fencing = $2 AND shard_index = $3")
            .bind(&key.job_id)
            .bind(signed(key.fencing))
            .bind(i64::from(key.shard))
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read an offer of", &e))
    }

    /// Takes an offer, unless somebody else was faster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_offer(&self, key: &OfferKey, worker: &str, lease: Duration, now_unix_ms: u64) -> Result<bool> {
        sqlx::query(
            "UPDATE shard_offers SET state = 'taken', worker = $1, lease_ms = $2
             WHERE job_id = $3 AND fencing = $4 AND shard_index = $5 AND state = 'offered'",
        )
        .bind(worker)
        .bind(signed(later(now_unix_ms, lease)))
        .bind(&key.job_id)
        .bind(signed(key.fencing))
        .bind(i64::from(key.shard))
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("take an offer in", &e))
    }

    /// Moves an offer from one state to another, and notes what came of it. Tells whether it was in that state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn move_offer(&self, key: &OfferKey, from: &str, to: &str, outcome: &str) -> Result<bool> {
        sqlx::query(
            "UPDATE shard_offers SET state = $1, outcome = $2
             WHERE job_id = $3 AND fencing = $4 AND shard_index = $5 AND state = $6",
        )
        .bind(to)
        .bind(outcome)
        .bind(&key.job_id)
        .bind(signed(key.fencing))
        .bind(i64::from(key.shard))
        .bind(from)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("change an offer in", &e))
    }

    /// Says that the worker of an offer lives and how far it is. Gives the state of the offer; `None` when nobody wants it any more: it
    /// was withdrawn, or its job is another worker's by now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn beat_offer(
        &self,
        key: &OfferKey,
        (done_bytes, done_keys): (u64, u64),
        lease: Duration,
        now_unix_ms: u64,
    ) -> Result<Option<String>> {
        sqlx::query_scalar(
            "UPDATE shard_offers SET lease_ms = $1, done_bytes = $2, done_keys = $3
             WHERE job_id = $4 AND fencing = $5 AND shard_index = $6 AND EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = $4
                 AND jobs.fencing = $5 AND jobs.state = 'running' AND jobs.lease_ms > $7) RETURNING state",
        )
        .bind(signed(later(now_unix_ms, lease)))
        .bind(signed(done_bytes))
        .bind(signed(done_keys))
        .bind(&key.job_id)
        .bind(signed(key.fencing))
        .bind(i64::from(key.shard))
        .bind(signed(now_unix_ms))
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.error("renew an offer in", &e))
    }

    /// Takes an offer back, from whatever state or only from `from`. Tells whether it was there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn withdraw_offer(&self, key: &OfferKey, from: Option<&str>) -> Result<bool> {
        sqlx::query(
            "DELETE FROM shard_offers WHERE job_id = $1 AND fencing = $2 AND shard_index = $3 AND ($4 = '' OR state = $4)",
        )
        .bind(&key.job_id)
        .bind(signed(key.fencing))
        .bind(i64::from(key.shard))
        .bind(from.unwrap_or_default())
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("withdraw an offer in", &e))
    }
}

/// Takes back all that was offered for a job: when it has ended, nobody wants it.
pub(super) async fn withdraw_offers(connection: &mut AnyConnection, job_id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM shard_offers WHERE job_id = $1").bind(job_id).execute(connection).await.map(drop)
}
