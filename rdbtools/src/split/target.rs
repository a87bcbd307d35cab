//! One output of a split while it is written.

use std::collections::BTreeMap;

use crate::report::DbCounts;
use crate::sink::Key;
use crate::write;

/// What an output got.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) databases: BTreeMap<u64, DbCounts>,
    pub(super) expired: u64,
}

/// An output: what waits to be written, and what it got.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) buffer: Vec<u8>,
    db: Option<u64>,
    in_db: DbCounts,
    pub(super) counts: Counts,
}

impl Target {
    /// An output that begins with these bytes.
    pub(super) fn new(buffer: Vec<u8>) -> Self {
        Self { buffer, db: None, in_db: DbCounts::default(), counts: Counts::default() }
    }

    pub(super) fn close_db(&mut self) {
        let counts = std::mem::take(&mut self.in_db);
        if let Some(db) = self.db
            && counts.keys > 0
        {
            let sum = self.counts.databases.entry(db).or_default();
            sum.keys += counts.keys;
            sum.expires += counts.expires;
        }
    }

    #[inline]
    pub(super) fn put_key(&mut self, key: &Key<'_>, db: u64, expiry: Option<i64>, now: i64) {
        if self.db != Some(db) {
            self.close_db();
            self.db = Some(db);
            write::put_select_db(&mut self.buffer, db);
        }
        self.in_db.keys += 1;
        if let Some(at) = expiry {
            self.in_db.expires += 1;
            self.counts.expired += u64::from(at <= now);
        }
        write::put_key(&mut self.buffer, key, expiry);
    }
}
