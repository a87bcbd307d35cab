//! Which nodes of targets a restore took. A row counts while its job is open: afterwards the node tells whether it is empty.

use super::{Catalog, signed};
use crate::error::Result;

impl Catalog {
    /// Takes a node for a job, unless another job that has not ended has it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_node(&self, address: &str, job_id: &str, now_unix_ms: u64) -> Result<bool> {
        let taken = sqlx::query(
            "INSERT INTO taken_nodes (address, job_id, taken_ms) VALUES ($1, $2, $3)
             ON CONFLICT (address) DO UPDATE SET job_id = excluded.job_id, taken_ms = excluded.taken_ms
             WHERE taken_nodes.job_id = excluded.job_id OR NOT EXISTS (
                 SELECT 1 FROM jobs WHERE jobs.job_id = taken_nodes.job_id AND jobs.state IN ('queued', 'running'))",
        );
        taken
            .bind(address)
            .bind(job_id)
            .bind(signed(now_unix_ms))
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| self.error("take a node in", &e))
    }

    /// The nodes that a job took, by address.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nodes_taken(&self, job_id: &str) -> Result<Vec<String>> {
        sqlx::query_scalar("SELECT address FROM taken_nodes WHERE job_id = $1 ORDER BY address")
            .bind(job_id)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list taken nodes of", &e))
    }

    /// Gives back what a job took.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn give_nodes_back(&self, job_id: &str) -> Result<()> {
        sqlx::query("DELETE FROM taken_nodes WHERE job_id = $1")
            .bind(job_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("give nodes back in", &e))
    }
}
