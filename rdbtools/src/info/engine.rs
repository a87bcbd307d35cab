//! Which server wrote an RDB, as far as it shows.

use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::version::Magic;

/// A guess with its reason. Services and forks name themselves as the server that they come from, so it is never
/// more than that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Engine and version, as `Valkey 9.0.1` or `Redis 5.0 to 6.2`.
    pub guess: String,
    /// What it is taken from.
    pub reason: String,
}

impl Engine {
    /// Guesses from aux fields, value types, magic and version number, in this order.
    #[must_use]
    pub fn guess(report: &Report) -> Self {
        let fact = |name: &str| report.aux.get(name);
        let engine = |guess: String, reason: &str| Self { guess, reason: reason.to_owned() };
        if let Some(version) = fact("valkey-ver") {
            return engine(format!("Valkey {version}"), "the aux field valkey-ver");
        }
        if let Some(version) = fact("redis-ver") {
            // KeyDB writes it for every key
            return if report.aux.contains_key("mvcc-tstamp") {
                engine(format!("KeyDB {version}"), "the aux fields mvcc-tstamp and redis-ver")
            } else {
                engine(format!("Redis {version}"), "the aux field redis-ver")
            };
        }
        if report.types.keys().any(|name| name.starts_with("hash_") && name.ends_with("_pre_ga")) {
            return engine("a release candidate of Redis 7.4".to_owned(), "a type of value that only it writes");
        }
        let guess = writers(report.magic, report.rdb_version).to_owned();
        let padded = match report.magic {
            Magic::Redis => format!("REDIS{:04}", report.rdb_version),
            Magic::Valkey => format!("VALKEY{:03}", report.rdb_version),
        };
        Self { guess, reason: format!("no aux field names it; its header is {padded}") }
    }
}

/// Who writes a version (`RDB_VERSION` in the `rdb.h` of each release).
const fn writers(magic: Magic, number: u16) -> &'static str {
    match (magic, number) {
        (Magic::Valkey, _) => "Valkey 9 or newer",
        (Magic::Redis, 0 | 1) => "Redis 2.2 or older",
        (Magic::Redis, 2) => "Redis 2.4",
        (Magic::Redis, 3..=5) => "a development version of Redis 2.6",
        (Magic::Redis, 6) => "Redis 2.6 to 3.0",
        (Magic::Redis, 7) => "Redis 3.2",
        (Magic::Redis, 8) => "Redis 4.0",
        (Magic::Redis, 9) => "Redis 5.0 to 6.2",
        (Magic::Redis, 10) => "Redis 7.0",
        (Magic::Redis, 11) => "Redis 7.2, or Valkey up to 8",
        (Magic::Redis, 12) => "Redis 7.4 to 8.4",
        (Magic::Redis, _) => "Redis 8.6 or newer",
    }
}
