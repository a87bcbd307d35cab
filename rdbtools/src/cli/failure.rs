//! Why a command failed, and its exit code.

use std::io;
use std::path::Path;

use rdbtools::convert::Loss;
use rdbtools::split::SplitError;
use rdbtools::{ErrorKind, ScanError};

/// What kind of failure; each has one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Unforeseen,
    Usage,
    NotFound,
    Verification,
    Refused,
    Version,
}

impl Class {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Unforeseen => 1,
            Self::Usage => 2,
            Self::NotFound => 10,
            Self::Verification => 17,
            Self::Refused => 18,
            Self::Version => 20,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unforeseen => "unforeseen",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Verification => "verification",
            Self::Refused => "refused",
            Self::Version => "version",
        }
    }

    pub(crate) const fn of_defect(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unsupported => Self::Version,
            ErrorKind::NotRdb | ErrorKind::Truncated | ErrorKind::Malformed | ErrorKind::Checksum => Self::Verification,
        }
    }
}

/// A failure with its class, what happened where, and advice.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What was refused, for machines; mostly nothing.
    pub(crate) losses: Vec<Loss>,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, losses: Vec::new() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn losses(mut self, losses: Vec<Loss>) -> Self {
        self.losses = losses;
        self
    }

    /// The system refused something to do with `path`.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        let class = if error.kind() == io::ErrorKind::NotFound { Class::NotFound } else { Class::Unforeseen };
        Self::new(class, format!("{}: {error}", path.display()))
    }

    /// A file is defective.
    pub(crate) fn defect(path: &Path, error: &ScanError) -> Self {
        Self::new(Class::of_defect(error.kind), format!("{}: {error}", path.display()))
    }
}

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        let message = error.to_string();
        match error {
            SplitError::Scan { error, .. } => Self::new(Class::of_defect(error.kind), message),
            SplitError::Write { .. } | SplitError::LeftOut(_) | SplitError::Order(_) => {
                Self::new(Class::Unforeseen, message)
            }
            SplitError::Plan(_) => Self::new(Class::Usage, message),
            SplitError::Refused { hint, .. } => Self::new(Class::Refused, message).hint(hint),
        }
    }
}
