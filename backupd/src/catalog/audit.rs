//! The audit chain: who deleted, restored, granted or changed keys. Each line holds the SHA-256 of the one before it, so a line
//! that was changed, removed or put in between later is noticed.

use std::collections::VecDeque;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Catalog, signed};
use crate::error::{Class, Error, Result};

/// How often a line is tried to be added while others add theirs.
const ATTEMPTS_MAX: u32 = 20;

/// The most lines of one answer.
const LINES_MAX: u32 = 10_000;

/// What stands before the first line.
const BEGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct AuditRow {
    /// From 1, without gaps.
    #[sqlx(try_from = "i64")]
    pub number: u64,
    /// When, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub at_ms: u64,
    /// User and host, or the worker.
    pub who: String,
    /// What was done: `snapshot.delete`, `cluster.remove`, `key.rotate`, …
    pub action: String,
    /// To what.
    pub subject: String,
    /// More, in words.
    pub details: String,
    /// The hash of the line before.
    pub previous: String,
    /// The hash of this one.
    pub hash: String,
}

impl AuditRow {
    /// SHA-256 over all members before it, each with its length in front, so that no two lines have the same text.
    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.number.to_be_bytes());
        hasher.update(self.at_ms.to_be_bytes());
        for text in [&self.who, &self.action, &self.subject, &self.details, &self.previous] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hex::encode(hasher.finalize())
    }
}

impl Catalog {
    /// Adds a line.
    ///
    /// # Errors
    /// Those of the database; `Busy` when others add lines without pause.
    pub async fn audit(&self, who: &str, action: &str, subject: &str, details: &str, now_unix_ms: u64) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let last: Option<(i64, String)> =
                sqlx::query_as("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(|e| self.error("read the audit lines of", &e))?;
            let (number, previous) = last.unwrap_or((0, BEGIN.to_owned()));
            let mut row = AuditRow {
                number: super::unsigned(number).saturating_add(1),
                at_ms: now_unix_ms,
                who: who.to_owned(),
                action: action.to_owned(),
                subject: subject.to_owned(),
                details: details.to_owned(),
                previous,
                hash: String::new(),
            };
            row.hash = row.digest();
            if self.insert_audit(&row).await? {
                return Ok(());
            }
        }
        Err(Error::new(Class::Busy, "others write audit lines without pause"))
    }

    /// False when another line got the number.
    async fn insert_audit(&self, row: &AuditRow) -> Result<bool> {
        sqlx::query(
            "INSERT INTO audit (number, at_ms, who, action, subject, details, previous, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (number) DO NOTHING",
        )
        .bind(signed(row.number))
        .bind(signed(row.at_ms))
        .bind(&row.who)
        .bind(&row.action)
        .bind(&row.subject)
        .bind(&row.details)
        .bind(&row.previous)
        .bind(&row.hash)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("write an audit line to", &e))
    }

    /// The newest [`LINES_MAX`] lines, oldest first, with the number of the first of all lines that does not follow from the one before
    /// it: each is checked, however many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn audit_lines(&self) -> Result<(Vec<AuditRow>, Option<u64>)> {
        let (mut newest, mut broken) = (VecDeque::<AuditRow>::new(), None);
        loop {
            let after = newest.back().map_or(0, |row| signed(row.number));
            let page: Vec<AuditRow> = sqlx::query_as("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2")
                .bind(after)
                .bind(i64::from(LINES_MAX))
                .fetch_all(&self.pool)
                .await
                .map_err(|e| self.error("read the audit lines of", &e))?;
            if page.is_empty() {
                return Ok((newest.into(), broken));
            }
            for row in page {
                let (last, previous) = newest.back().map_or((0, BEGIN), |last| (last.number, last.hash.as_str()));
                let follows = row.number == last + 1 && row.previous == previous && row.hash == row.digest();
                broken = broken.or((!follows).then_some(last + 1));
                newest.push_back(row);
            }
            let over = newest.len().saturating_sub(LINES_MAX as usize);
            newest.drain(..over);
        }
    }
}
