//! What RDBs hold, in a form that can be compared: keys, types, expiries and values, whatever their order and encoding.
//!
//! A [`ContentSink`] sums up digests of everything that passes, one sum for each shard, database, kind of value and
//! span of time in which the parts end. Sums do not depend on order, so an RDB that a server wrote of what it loaded
//! has the sums of the RDBs it was made from, and one changed byte of any value changes one of them. Only what was
//! digested with the same [`ContentRules`] can be compared: digests are keyed anew each time.
//!
//! Keys and fields that expire are in the sum of the span in which they end; a comparison leaves out the spans that
//! have begun, because servers remove such parts when they like. What no engine promises to keep is not in the sums:
//! idle times and frequencies, when a consumer was seen, the first id of a stream, deleted entries.
//!
//! ```
//! use rdbtools::Scanner;
//! use rdbtools::content::{Content, ContentRules, ContentSink};
//! use rdbtools::decode::Decoder;
//!
//! let rules = ContentRules::new(0);
//! let content = |rdb: &[u8]| -> Result<Vec<Content>, rdbtools::ScanError> {
//!     let mut scanner = Scanner::new(Decoder::new(ContentSink::new(rules.clone())));
//!     scanner.feed(rdb)?;
//!     Ok(scanner.finish()?.1.into_values().into_contents())
//! };
//! let one = content(b"REDIS0003\xfe\x00\x00\x01a\x01b\x00\x01c\x01d\xff")?;
//! let same = content(b"REDIS0003\xfe\x00\x00\x01c\x01d\x00\x01a\x01b\xff")?;
//! let other = content(b"REDIS0003\xfe\x00\x00\x01c\x01d\x00\x01a\x01x\xff")?;
//! assert!(one[0].differences(&same[0], 0).is_empty());
//! assert_eq!(one[0].differences(&other[0], 0)[0].to_string(), "database 0: other contents of string keys");
//! # Ok::<(), rdbtools::ScanError>(())
//! ```

mod kind;
mod sink;
mod spans;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use policies::slot::SlotSet;

use crate::digest::Digester;
use crate::select::{Family, Selection};
use crate::split::Ttl;

pub use sink::ContentSink;
use spans::Spans;

/// How much time must be left of a span for its parts to be compared, in ms: servers' clocks may differ from ours.
pub const SLACK_MS: u64 = 5_000;

/// The keys of digests, and the spans of time: what must be the same on both sides of a comparison.
#[derive(Debug, Clone)]
pub struct Keys {
    digester: Digester,
    spans: Spans,
}

/// What is digested, and how.
#[derive(Debug, Clone)]
pub struct ContentRules {
    /// What makes digests comparable.
    pub keys: Keys,
    /// What became of expiries on the way to what is compared.
    pub ttl: Ttl,
    /// Only keys of this database.
    pub db: Option<u64>,
    /// Only these keys.
    pub select: Selection,
    /// Every database is taken as database 0.
    pub one_database: bool,
    /// Facts of streams that RDBs before version 10 do not hold: entries ever added, the greatest id that was deleted,
    /// entries that a group has read.
    pub stream_facts: bool,
    /// The slots of each shard; none: there is one, with all keys.
    pub shards: Vec<SlotSet>,
}

impl ContentRules {
    /// Everything of one shard as it is; `now_unix_ms` is where the spans of time begin.
    #[must_use]
    pub fn new(now_unix_ms: u64) -> Self {
        Self {
            keys: Keys { digester: Digester::new(), spans: Spans::new(now_unix_ms) },
            ttl: Ttl::Keep,
            db: None,
            select: Selection::default(),
            one_database: false,
            stream_facts: true,
            shards: Vec::new(),
        }
    }

    /// The rules for reading back what was made by these: everything is taken as it is, and belongs to one shard.
    #[must_use]
    pub fn read_back(&self) -> Self {
        Self {
            ttl: Ttl::Keep,
            db: None,
            select: Selection::default(),
            one_database: false,
            shards: Vec::new(),
            keys: self.keys.clone(),
            stream_facts: self.stream_facts,
        }
    }
}

/// A sum of digests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    keys: u64,
    /// Fields that expire by themselves.
    fields: u64,
    sum: u128,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.fields += other.fields;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// What one shard holds.
#[derive(Debug, Clone, Default)]
pub struct Content {
    spans: Spans,
    /// By database, kind of value, and span.
    tallies: BTreeMap<(u64, &'static str, u64), Tally>,
    functions: BTreeSet<u128>,
}

/// Something in which two contents differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Keys of one database and kind.
    Keys {
        /// The database.
        db: u64,
        /// The kind of value.
        family: &'static str,
        /// How many keys there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// Libraries of functions.
    Functions {
        /// How many of those that should be there are not.
        missing: usize,
        /// How many others there are.
        more: usize,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { db, family, expected, found } if expected == found => {
                write!(f, "database {db}: other contents of {family} keys")
            }
            Self::Keys { db, family, expected, found } => {
                write!(f, "database {db}: {found} {family} keys, and {expected} were sent")
            }
            Self::Functions { missing, more } => {
                write!(f, "{missing} function libraries are missing, {more} others are there")
            }
        }
    }
}

impl Content {
    /// Adds what another part of the same shard holds.
    pub fn merge(&mut self, other: Self) {
        for (place, tally) in other.tallies {
            self.tallies.entry(place).or_default().add(tally);
        }
        self.functions.extend(other.functions);
    }

    /// Keys per database, expired ones among them.
    #[must_use]
    pub fn keys(&self) -> BTreeMap<u64, u64> {
        let mut keys = BTreeMap::new();
        for ((db, ..), tally) in &self.tallies {
            *keys.entry(*db).or_default() += tally.keys;
        }
        keys
    }

    /// In what `found` differs from this. Parts that end before `now_unix_ms`, or in the span of time that is
    /// running then, are not compared.
    #[must_use]
    pub fn differences(&self, found: &Self, now_unix_ms: u64) -> Vec<Difference> {
        let first = self.spans.first_after(now_unix_ms.saturating_add(SLACK_MS));
        let sums = |content: &Self| {
            let mut sums: BTreeMap<(u64, &'static str), Tally> = BTreeMap::new();
            for ((db, family, span), tally) in &content.tallies {
                if *span >= first {
                    sums.entry((*db, *family)).or_default().add(*tally);
                }
            }
            sums
        };
        let (expected, other) = (sums(self), sums(found));
        let places: BTreeSet<_> = expected.keys().chain(other.keys()).copied().collect();
        let mut differences = Vec::new();
        for (db, family) in places {
            let of = |sums: &BTreeMap<_, Tally>| sums.get(&(db, family)).copied().unwrap_or_default();
            let (expected, found) = (of(&expected), of(&other));
            if expected != found {
                differences.push(Difference::Keys { db, family, expected: expected.keys, found: found.keys });
            }
        }
        let missing = self.functions.difference(&found.functions).count();
        let more = found.functions.difference(&self.functions).count();
        if missing + more > 0 {
            differences.push(Difference::Functions { missing, more });
        }
        differences
    }

    fn add(&mut self, db: u64, family: Family, until_ms: Option<u64>, tally: Tally) {
        let span = self.spans.of(until_ms);
        self.tallies.entry((db, family.name(), span)).or_default().add(tally);
    }
}

#[cfg(test)]
mod tests;
