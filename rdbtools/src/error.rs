//! Why a scan ended early.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The first bytes are not those of an RDB.
    NotRdb,
    /// The bytes ended before the RDB did.
    Truncated,
    /// The bytes break the format.
    Malformed,
    /// A version, opcode or value type that this library does not know, or one that cannot be walked.
    Unsupported,
    /// The structure is whole, but the checksum at its end belongs to other bytes.
    Checksum,
}

impl ErrorKind {
    /// The name used in reports: `not_rdb`, `truncated`, `malformed`, `unsupported`, `checksum`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRdb => "not_rdb",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Checksum => "checksum",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first defect of an RDB, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanError {
    /// Byte offset from the start of the RDB: of the piece that is wrong, or where the bytes ended.
    pub offset: u64,
    /// What kind of defect it is.
    pub kind: ErrorKind,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.kind, self.offset, self.message)
    }
}

impl std::error::Error for ScanError {}

/// A defect found by a parser that does not know its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) kind: ErrorKind,
    pub(crate) message: Cow<'static, str>,
}

impl Defect {
    #[cold]
    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Malformed, message: message.into() }
    }

    #[cold]
    pub(crate) fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into() }
    }

    #[cold]
    pub(crate) fn at(self, offset: u64) -> ScanError {
        ScanError { offset, kind: self.kind, message: self.message.into_owned() }
    }
}
