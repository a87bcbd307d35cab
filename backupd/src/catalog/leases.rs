//! Leases: who may do a thing now, until when, and which number tells a late holder from the present one.

use std::time::Duration;

use super::{Catalog, later, signed};
use crate::error::{Class, Error, Result};

/// A lease that was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who holds it; must be different for every process and job.
    pub holder: String,
    /// Higher than that of every holder before.
    pub fencing: u64,
    /// When it ends unless it is renewed, ms since 1970.
    pub expires_unix_ms: u64,
}

impl Catalog {
    /// Takes the lease `name` for `ttl`, when nobody has it or its time is over.
    ///
    /// # Errors
    /// `Busy`, naming the holder, while it is held.
    pub async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now_unix_ms: u64) -> Result<Lease> {
        let expires_unix_ms = later(now_unix_ms, ttl);
        // One statement decides, so two can never both get it.
        let taken: Option<i64> = sqlx::query_scalar(
            "INSERT INTO leases (name, holder, fencing, acquired_ms, expires_ms) VALUES ($1, $2, 1, $3, $4)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fencing = leases.fencing + 1,
                 acquired_ms = excluded.acquired_ms, expires_ms = excluded.expires_ms
             WHERE leases.expires_ms <= excluded.acquired_ms
             RETURNING fencing",
        )
        .bind(name)
        .bind(holder)
        .bind(signed(now_unix_ms))
        .bind(signed(expires_unix_ms))
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.error("take a lease in", &e))?;
        match taken.and_then(|fencing| u64::try_from(fencing).ok()) {
            Some(fencing) => Ok(Lease { name: name.to_owned(), holder: holder.to_owned(), fencing, expires_unix_ms }),
            None => Err(self.held(name, now_unix_ms).await?),
        }
    }

    async fn held(&self, name: &str, now_unix_ms: u64) -> Result<Error> {
        let row: Option<(String, i64)> = sqlx::query_as("SELECT holder, expires_ms FROM leases WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a lease in", &e))?;
        let (holder, expires_ms) = row.unwrap_or_default();
        let left_ms = u64::try_from(expires_ms).unwrap_or(0).saturating_sub(now_unix_ms);
        Ok(Error::new(Class::Busy, format!("`{name}` is held by {holder} for {left_ms} ms unless it is renewed")))
    }

    /// Extends a lease to `ttl` from now. This works as long as nobody else took it, also when its time is over.
    ///
    /// # Errors
    /// `Busy`, not retryable, when it was lost or released: its holder must stop.
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration, now_unix_ms: u64) -> Result<Lease> {
        let expires_unix_ms = later(now_unix_ms, ttl);
        let renewed = sqlx::query("UPDATE leases SET expires_ms = $1 WHERE name = $2 AND holder = $3 AND fencing = $4")
            .bind(signed(expires_unix_ms))
            .bind(&lease.name)
            .bind(&lease.holder)
            .bind(signed(lease.fencing))
            .execute(&self.pool)
            .await
            .map_err(|e| self.error("renew a lease in", &e))?;
        if renewed.rows_affected() == 0 {
            let message = format!("the lease `{}` with number {} was lost", lease.name, lease.fencing);
            return Err(Error::new(Class::Busy, message).retryable(false));
        }
        Ok(Lease { expires_unix_ms, ..lease.clone() })
    }

    /// How many leases are held.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn leases_held(&self, now_unix_ms: u64) -> Result<i64> {
        sqlx::query_scalar("SELECT COUNT(*) FROM leases WHERE expires_ms > $1 AND holder <> ''")
            .bind(signed(now_unix_ms))
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.error("count the leases of", &e))
    }

    /// Gives a lease back. One that was lost meanwhile stays with its new holder, which is no error.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_lease(&self, lease: &Lease) -> Result<()> {
        sqlx::query("UPDATE leases SET holder = '', expires_ms = 0 WHERE name = $1 AND holder = $2 AND fencing = $3")
            .bind(&lease.name)
            .bind(&lease.holder)
            .bind(signed(lease.fencing))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("release a lease in", &e))
    }
}
