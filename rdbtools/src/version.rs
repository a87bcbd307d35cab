//! The nine bytes at the start of an RDB: whose format, and which version of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Defect, ErrorKind};

/// Length of the header: `REDIS` and four digits, or `VALKEY` and three.
pub const HEADER_LEN: usize = 9;
/// The newest version under the magic `REDIS` that is understood (Redis 8.10).
pub const REDIS_VERSION_MAX: u16 = 15;
/// The version that Valkey 9 writes; below it, Valkey writes `REDIS0011`.
pub const VALKEY_VERSION_MIN: u16 = 80;
/// The newest version under the magic `VALKEY` that is understood (Valkey 9).
pub const VALKEY_VERSION_MAX: u16 = 80;
/// The newest version that Redis and Valkey have in common: what it holds, both write and read the same way.
pub const COMMON_VERSION_MAX: u16 = 11;
/// From this version on a checksum follows the end opcode (Redis 2.6, `rdb.c`).
pub const CHECKSUM_VERSION_MIN: u16 = 5;

/// Whose format it is. Value type 22 and opcode 243 mean different things in the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Magic {
    /// Redis, and Valkey up to 8.
    Redis,
    /// Valkey from 9.
    Valkey,
}

impl Magic {
    /// As it stands in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "REDIS",
            Self::Valkey => "VALKEY",
        }
    }
}

/// Magic and version number of an RDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RdbVersion {
    /// Whose format.
    pub magic: Magic,
    /// Which version of it.
    pub number: u16,
}

impl RdbVersion {
    /// A version under the magic `REDIS`.
    #[must_use]
    pub const fn redis(number: u16) -> Self {
        Self { magic: Magic::Redis, number }
    }

    /// A version under the magic `VALKEY`.
    #[must_use]
    pub const fn valkey(number: u16) -> Self {
        Self { magic: Magic::Valkey, number }
    }

    /// Whether a checksum of eight bytes follows the end opcode.
    #[must_use]
    pub const fn has_checksum(self) -> bool {
        self.number >= CHECKSUM_VERSION_MIN
    }

    /// Whether this library reads the version.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        match self.magic {
            Magic::Redis => self.number >= 1 && self.number <= REDIS_VERSION_MAX,
            Magic::Valkey => self.number >= VALKEY_VERSION_MIN && self.number <= VALKEY_VERSION_MAX,
        }
    }

    /// Whether everything that a file of this version holds can stand under the header of `other` as it is: a newer
    /// version of the same magic, or Valkey's for what both engines wrote before they parted.
    #[must_use]
    pub const fn fits_into(self, other: Self) -> bool {
        match (self.magic, other.magic) {
            (Magic::Redis, Magic::Redis) | (Magic::Valkey, Magic::Valkey) => self.number <= other.number,
            (Magic::Redis, Magic::Valkey) => self.number <= COMMON_VERSION_MAX,
            (Magic::Valkey, Magic::Redis) => false,
        }
    }

    /// The nine bytes of the header.
    #[must_use]
    pub fn header(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Reads a header.
    pub(crate) fn parse(header: &[u8; HEADER_LEN]) -> Result<Self, Defect> {
        let Some(version) = Self::from_header(header) else { return Err(not_rdb(header)) };
        if version.is_supported() {
            return Ok(version);
        }
        Err(Defect::unsupported(format!(
            "version {version} is not one this library knows: REDIS0001 to REDIS{REDIS_VERSION_MAX:04}, and \
             VALKEY{VALKEY_VERSION_MAX:03}"
        )))
    }

    /// The version that a header states, whether or not this library reads it; `None` where it is no header.
    #[must_use]
    pub fn from_header(header: &[u8; HEADER_LEN]) -> Option<Self> {
        let (magic, digits) = match (header.strip_prefix(b"REDIS"), header.strip_prefix(b"VALKEY")) {
            (Some(digits), _) => (Magic::Redis, digits),
            (_, Some(digits)) => (Magic::Valkey, digits),
            (None, None) => return None,
        };
        let number = |number: u16, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'));
        Some(Self { magic, number: digits.iter().try_fold(0, number)? })
    }

    /// Whether the first bytes of a file can be those of an RDB; fewer than nine are judged as far as they go.
    #[must_use]
    pub fn is_plausible_start(bytes: &[u8]) -> bool {
        [&b"REDIS"[..], &b"VALKEY"[..]].iter().any(|magic| {
            let (magic, bytes) = (magic.iter(), bytes.iter());
            magic.zip(bytes).all(|(expected, found)| expected == found)
        })
    }
}

/// The first bytes are not those of an RDB.
pub(crate) fn not_rdb(start: &[u8]) -> Defect {
    let message = format!("it begins with \"{}\", not with REDIS or VALKEY and a number", start.escape_ascii());
    Defect { kind: ErrorKind::NotRdb, message: message.into() }
}

impl fmt::Display for RdbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.magic {
            Magic::Redis => write!(f, "REDIS{:04}", self.number),
            Magic::Valkey => write!(f, "VALKEY{:03}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_strangers_are_told_apart() {
        for version in [RdbVersion::redis(1), RdbVersion::redis(15), RdbVersion::valkey(80)] {
            let header: [u8; HEADER_LEN] = version.header().try_into().unwrap();
            assert_eq!(RdbVersion::parse(&header), Ok(version));
        }
        let kind = |header: &[u8; HEADER_LEN]| RdbVersion::parse(header).unwrap_err().kind;
        for header in [b"REDIS0000", b"REDIS0016", b"REDIS0099", b"VALKEY011", b"VALKEY987"] {
            assert_eq!(kind(header), ErrorKind::Unsupported);
        }
        for header in [b"REDIX0006", b"REDIS-001", b"REDIS00x9", b"\x1f\x8b\x08\0\0\0\0\0\x02"] {
            assert_eq!(kind(header), ErrorKind::NotRdb);
        }
    }
}
