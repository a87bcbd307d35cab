//! Which RDB formats an engine can load.

use std::fmt;

/// The format of an RDB file, from its first nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RdbFormat {
    /// `REDIS` and four digits: written by Redis, and by Valkey up to 8.
    Redis(u32),
    /// `VALKEY` and three digits: written by Valkey 9 and later.
    Valkey(u32),
}

impl RdbFormat {
    /// Reads the first nine bytes of a file; `None` when they are not those of an RDB.
    #[must_use]
    pub fn from_header(header: [u8; 9]) -> Option<Self> {
        let text = std::str::from_utf8(&header).ok()?;
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        match (text.strip_prefix("REDIS"), text.strip_prefix("VALKEY")) {
            (Some(digits), _) => Some(Self::Redis(number(digits)?)),
            (None, Some(digits)) => Some(Self::Valkey(number(digits)?)),
            (None, None) => None,
        }
    }
}

impl fmt::Display for RdbFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(version) => write!(f, "REDIS RDB version {version}"),
            Self::Valkey(version) => write!(f, "VALKEY RDB version {version}"),
        }
    }
}

/// An engine and its version, such as `redis 7.0.15`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// `redis`, `valkey`, `redict`, …
    pub name: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// The version as the engine writes it.
    pub text: String,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.text)
    }
}

/// The newest formats that an engine loads; `None` when we do not know the engine that well.
struct Reach {
    redis: u32,
    valkey: u32,
}

impl Engine {
    /// An engine named `name` (any case) with a version text that begins with `major.minor`.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Option<Self> {
        let mut parts = version.split(['.', '-']).map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return None };
        Some(Self { name: name.to_ascii_lowercase(), version: (major, minor), text: version.to_owned() })
    }

    /// Whether the engine loads files (and `RESTORE` payloads) of `format`. An engine that we do not know,
    /// or that is newer than we know, is trusted: it will say no by itself.
    #[must_use]
    pub fn loads(&self, format: RdbFormat) -> bool {
        match (self.reach(), format) {
            (None, _) => true,
            (Some(reach), RdbFormat::Redis(version)) => version <= reach.redis,
            (Some(reach), RdbFormat::Valkey(version)) => version <= reach.valkey,
        }
    }

    /// What the files of each version begin with was read from running servers: Redis 6.2 to 8.2, Valkey 8.0,
    /// 8.1 and 9.1, Redict 7.3. Valkey takes `REDIS` versions of 12 and above for foreign.
    fn reach(&self) -> Option<Reach> {
        let (redis, valkey) = match (self.name.as_str(), self.version) {
            ("redis", version) if version < (7, 0) => (9, 0),
            ("redis", version) if version < (7, 2) => (10, 0),
            ("redis", version) if version < (7, 4) => (11, 0),
            ("redis", version) if version <= (8, 2) => (12, 0),
            ("valkey", version) if version < (9, 0) => (11, 0),
            ("valkey", (9, _)) => (11, 80),
            ("redict", version) if version <= (7, 3) => (12, 0),
            _ => return None,
        };
        Some(Reach { redis, valkey })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_told_apart() {
        assert_eq!(RdbFormat::from_header(*b"REDIS0011"), Some(RdbFormat::Redis(11)));
        assert_eq!(RdbFormat::from_header(*b"VALKEY080"), Some(RdbFormat::Valkey(80)));
        for header in [b"REDIS+011", b"REDIS 11\n", b"VALKEY08x", b"redis0011", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(RdbFormat::from_header(*header), None, "{header:?}");
        }
    }

    #[test]
    fn an_engine_loads_what_it_writes_and_older() {
        for (name, version, newest, refused) in [
            ("Redis", "6.0.16", RdbFormat::Redis(9), Some(RdbFormat::Redis(10))),
            ("Redis", "6.2.14", RdbFormat::Redis(9), Some(RdbFormat::Redis(10))),
            ("Redis", "7.0.15", RdbFormat::Redis(10), Some(RdbFormat::Redis(11))),
            ("Redis", "7.2.4", RdbFormat::Redis(11), Some(RdbFormat::Redis(12))),
            ("Redis", "7.4.1", RdbFormat::Redis(12), Some(RdbFormat::Redis(13))),
            ("Redis", "8.2.3", RdbFormat::Redis(12), Some(RdbFormat::Valkey(80))),
            ("Valkey", "8.1.1", RdbFormat::Redis(11), Some(RdbFormat::Redis(12))),
            ("Valkey", "9.1.2", RdbFormat::Valkey(80), Some(RdbFormat::Redis(12))),
            ("Redis", "8.10.0", RdbFormat::Redis(15), None),
            ("Valkey", "10.0-rc1", RdbFormat::Valkey(81), None),
        ] {
            let engine = Engine::new(name, version).unwrap();
            assert!(engine.loads(newest) && engine.loads(RdbFormat::Redis(6)), "{engine}");
            assert!(refused.is_none_or(|format| !engine.loads(format)), "{engine}");
        }
        assert_eq!(Engine::new("redis", "unstable"), None);
    }
}
