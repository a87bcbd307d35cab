//! Faults, as AWS names them.

use crate::api::sigv4;
use crate::error::{Class, Error};

/// What is wrong. Clients tell faults apart by these texts, so they are AWS's, to the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The caller may not.
    AccessDenied,
    /// A cluster of this id is there.
    CacheClusterAlreadyExists,
    /// There is no such cluster.
    CacheClusterNotFound,
    /// We failed.
    InternalFailure,
    /// We do not speak this.
    InvalidAction,
    /// No ARN of ours.
    InvalidArn,
    /// The cluster is busy.
    InvalidCacheClusterState,
    /// Parameters that do not go together.
    InvalidParameterCombination,
    /// A parameter that means nothing.
    InvalidParameterValue,
    /// The group is busy.
    InvalidReplicationGroupState,
    /// The snapshot is busy.
    InvalidSnapshotState,
    /// The form cannot be read.
    MalformedQueryString,
    /// The form names no action.
    MissingAction,
    /// A parameter that must be there.
    MissingParameter,
    /// More shards than slots.
    NodeGroupsPerReplicationGroupQuotaExceeded,
    /// A group of this id is there.
    ReplicationGroupAlreadyExists,
    /// There is no such group.
    ReplicationGroupNotFound,
    /// Somebody we need is away for now.
    ServiceUnavailable,
    /// A snapshot of this name is there.
    SnapshotAlreadyExists,
    /// What was asked for cannot be done with this cluster.
    SnapshotFeatureNotSupported,
    /// There is no such snapshot.
    SnapshotNotFound,
    /// The body is too large.
    RequestTooLarge,
    /// The body did not come in time.
    RequestTimeout,
    /// The resource has no such tag.
    TagNotFound,
    /// More tags than a resource may have.
    TagQuotaPerResourceExceeded,
    /// Too many requests.
    Throttling,
    /// The request is not signed as it must be.
    Signature(sigv4::Code),
}

impl Code {
    /// The text on the wire and the HTTP status.
    #[must_use]
    pub fn row(self) -> (&'static str, u16) {
        match self {
            Self::AccessDenied => ("AccessDenied", 403),
            Self::CacheClusterAlreadyExists => ("CacheClusterAlreadyExists", 400),
            Self::CacheClusterNotFound => ("CacheClusterNotFound", 404),
            Self::InternalFailure => ("InternalFailure", 500),
            Self::InvalidAction => ("InvalidAction", 400),
            Self::InvalidArn => ("InvalidARN", 400),
            Self::InvalidCacheClusterState => ("InvalidCacheClusterState", 400),
            Self::InvalidParameterCombination => ("InvalidParameterCombination", 400),
            Self::InvalidParameterValue => ("InvalidParameterValue", 400),
            Self::InvalidReplicationGroupState => ("InvalidReplicationGroupState", 400),
            Self::InvalidSnapshotState => ("InvalidSnapshotState", 400),
            Self::MalformedQueryString => ("MalformedQueryString", 404),
            Self::MissingAction => ("MissingAction", 400),
            Self::MissingParameter => ("MissingParameter", 400),
            Self::NodeGroupsPerReplicationGroupQuotaExceeded => ("NodeGroupsPerReplicationGroupQuotaExceeded", 400),
            Self::ReplicationGroupAlreadyExists => ("ReplicationGroupAlreadyExists", 400),
            Self::ReplicationGroupNotFound => ("ReplicationGroupNotFoundFault", 404),
            Self::RequestTooLarge => ("RequestEntityTooLarge", 413),
            Self::RequestTimeout => ("RequestTimeout", 408),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503),
            Self::SnapshotAlreadyExists => ("SnapshotAlreadyExistsFault", 400),
            Self::SnapshotFeatureNotSupported => ("SnapshotFeatureNotSupportedFault", 400),
            Self::SnapshotNotFound => ("SnapshotNotFoundFault", 404),
            Self::TagNotFound => ("TagNotFound", 404),
            Self::TagQuotaPerResourceExceeded => ("TagQuotaPerResourceExceeded", 400),
            Self::Throttling => ("Throttling", 400),
            Self::Signature(code) => code.row(),
        }
    }
}

/// A request that is refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub code: Code,
    /// What is wrong, in words.
    pub message: String,
}

impl Fault {
    /// A fault.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A parameter that means nothing.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameterValue, message)
    }

    /// Parameters that do not go together.
    pub fn combination(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameterCombination, message)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.code.row().1
    }
}

impl From<sigv4::Refusal> for Fault {
    fn from(refusal: sigv4::Refusal) -> Self {
        Self::new(Code::Signature(refusal.code), refusal.message)
    }
}

impl From<Error> for Fault {
    /// What fails below the services. Clients try codes of 500 and more again, so only what may pass is one of them.
    fn from(error: Error) -> Self {
        let code = match error.class() {
            Class::Usage | Class::NotFound => Code::InvalidParameterValue,
            Class::Refused | Class::Version | Class::Verification => Code::InvalidParameterCombination,
            Class::Busy => Code::Throttling,
            Class::SourceUnavailable | Class::StoreUnavailable => Code::ServiceUnavailable,
            Class::Unforeseen | Class::Key | Class::SourceAuth | Class::StoreAuth | Class::Config => {
                Code::InternalFailure
            }
        };
        let message = match error.advice() {
            Some(advice) => format!("{}: {advice}", error.message()),
            None => error.message().to_owned(),
        };
        Self::new(code, message)
    }
}
