//! What each engine reads: the one table that every conversion goes by.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::value::ValueType;
use crate::version::{Magic, RdbVersion};

/// The newest value type that means the same under both magics; above it each has its own.
const COMMON_TYPE_MAX: u8 = 21;

/// An engine to convert for. All patch releases of a series read the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Redis 6.2.
    Redis62,
    /// Redis 7.0.
    Redis70,
    /// Redis 7.2.
    Redis72,
    /// Redis 7.4.
    Redis74,
    /// Redis 8.0 and 8.2.
    Redis80,
    /// Valkey 8.0 and 8.1.
    Valkey8,
    /// Valkey 9.0 and 9.1.
    Valkey9,
}

/// What is known of an engine.
#[derive(Debug, Clone, Copy)]
struct Facts {
    target: Target,
    name: &'static str,
    /// What it writes itself; it reads no higher number and no other magic than this and a lower `REDIS`.
    version: RdbVersion,
    /// The version by which the file says who wrote it.
    release: &'static str,
    /// The newest value type that it reads.
    newest_type: u8,
    /// Whether it refuses a stream whose length is not the number of its entries.
    counts_entries: bool,
}

/// Versions and types: `RDB_VERSION` and `rdbIsObjectType` in the `rdb.h` of each release; and seen from servers
/// that load what was converted for them.
#[rustfmt::skip]
const FACTS: [Facts; 7] = [
    Facts { target: Target::Redis62, name: "redis-6.2", version: RdbVersion::redis(9),   release: "6.2.0", newest_type: 15, counts_entries: false },
    Facts { target: Target::Redis70, name: "redis-7.0", version: RdbVersion::redis(10),  release: "7.0.0", newest_type: 19, counts_entries: false },
    Facts { target: Target::Redis72, name: "redis-7.2", version: RdbVersion::redis(11),  release: "7.2.0", newest_type: 21, counts_entries: false },
    Facts { target: Target::Redis74, name: "redis-7.4", version: RdbVersion::redis(12),  release: "7.4.0", newest_type: 25, counts_entries: false },
    Facts { target: Target::Redis80, name: "redis-8.0", version: RdbVersion::redis(12),  release: "8.0.0", newest_type: 25, counts_entries: false },
    Facts { target: Target::Valkey8, name: "valkey-8",  version: RdbVersion::redis(11),  release: "8.0.0", newest_type: 21, counts_entries: false },
    Facts { target: Target::Valkey9, name: "valkey-9",  version: RdbVersion::valkey(80), release: "9.0.0", newest_type: 22, counts_entries: true },
];

/// The first version with functions (`RDB_OPCODE_FUNCTION2`): Redis 7.0.
const FUNCTIONS_VERSION_MIN: u16 = 10;

impl Target {
    /// All of them, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        FACTS.iter().map(|facts| facts.target)
    }

    fn facts(self) -> &'static Facts {
        let [first, ..] = &FACTS;
        FACTS.iter().find(|facts| facts.target == self).unwrap_or(first)
    }

    /// What files for an engine of this name (`redis` or `valkey`) and major and minor version are converted to.
    #[must_use]
    pub fn of_engine(name: &str, version: (u32, u32)) -> Option<Self> {
        match (name, version) {
            ("redis", (..6, _)) => None,
            ("redis", (6, _)) => Some(Self::Redis62),
            ("redis", (7, ..2)) => Some(Self::Redis70),
            ("redis", (7, ..4)) => Some(Self::Redis72),
            ("redis", (7, _)) => Some(Self::Redis74),
            ("redis", _) => Some(Self::Redis80),
            ("valkey", (..9, _)) => Some(Self::Valkey8),
            ("valkey", _) => Some(Self::Valkey9),
            _ => None,
        }
    }

    /// As it is named on the command line: `redis-6.2`, `valkey-9`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Magic and version of the files that it writes, and that are written for it.
    #[must_use]
    pub fn version(self) -> RdbVersion {
        self.facts().version
    }

    /// Whether it reads values of this type as they are.
    #[must_use]
    pub fn reads(self, value_type: ValueType) -> bool {
        let code = value_type.code();
        let known = code <= self.facts().newest_type;
        known && (code <= COMMON_TYPE_MAX || value_type.magic() == self.version().magic)
    }

    /// Whether it has functions.
    #[must_use]
    pub fn has_functions(self) -> bool {
        self.version().number >= FUNCTIONS_VERSION_MIN
    }

    /// Whether fields of hashes can expire.
    #[must_use]
    pub fn has_field_expiries(self) -> bool {
        self.expiring_hash().is_some()
    }

    /// How it keeps hashes whose fields expire; `None` where fields cannot expire.
    pub(super) fn expiring_hash(self) -> Option<ValueType> {
        let magic = self.version().magic;
        let code = if magic == Magic::Valkey { 22 } else { 24 };
        ValueType::new(code, magic).filter(|value_type| self.reads(*value_type))
    }

    /// The newest type of streams that it reads.
    pub(super) fn stream_code(self) -> u8 {
        match self.facts().newest_type {
            ..19 => 15,
            19 | 20 => 19,
            21.. => 21,
        }
    }

    /// Whether it refuses a stream whose length is not the number of its entries. Release candidates of Redis 5.0 left
    /// such streams behind when they trimmed them, and every later server kept them so.
    pub(super) fn counts_entries(self) -> bool {
        self.facts().counts_entries
    }

    /// The aux field that says who wrote a file, and its value.
    pub(super) fn writer(self) -> (&'static str, &'static str) {
        let field = if self.name().starts_with("valkey") { "valkey-ver" } else { "redis-ver" };
        (field, self.facts().release)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no target's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no engine to convert for")]
pub struct UnknownTarget(String);

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, UnknownTarget> {
        Self::all().find(|target| target.name() == name).ok_or_else(|| UnknownTarget(name.to_owned()))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use policies::engine::{Engine, RdbFormat};

    use super::*;

    #[test]
    fn the_table_agrees_with_what_engines_load() {
        for target in Target::all() {
            assert_eq!(target.name().parse(), Ok(target));
            let (engine, _) = target.name().split_once('-').unwrap();
            let engine = Engine::new(engine, target.facts().release).unwrap();
            assert_eq!(Target::of_engine(&engine.name, engine.version), Some(target));
            let version = target.version();
            let format = |number: u16| match version.magic {
                Magic::Redis => RdbFormat::Redis(number.into()),
                Magic::Valkey => RdbFormat::Valkey(number.into()),
            };
            assert!(engine.loads(format(version.number)), "{target}");
            assert!(!engine.loads(format(version.number + 1)), "{target}");
        }
        assert!("redis-5.0".parse::<Target>().is_err());
    }

    #[test]
    fn types_that_differ_by_magic_are_told_apart() {
        let redis = ValueType::new(22, Magic::Redis).unwrap();
        let valkey = ValueType::new(22, Magic::Valkey).unwrap();
        assert!(Target::Redis80.reads(redis) && !Target::Redis80.reads(valkey));
        assert!(!Target::Valkey9.reads(redis) && Target::Valkey9.reads(valkey));
        let expiring: Vec<_> = Target::all().filter_map(Target::expiring_hash).map(ValueType::code).collect();
        assert_eq!(expiring, [24, 24, 22]);
    }
}
