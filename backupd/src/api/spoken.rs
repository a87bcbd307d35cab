//! What many routes take and answer, for their descriptions.

#![expect(dead_code, reason = "only the descriptions are used: `extract` and `jobs` read and write what they say")]
use utoipa::{IntoParams, IntoResponses};

use crate::service::jobs::JobView;

/// A snapshot in the path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Named {
    /// Its name
    snapshot: String,
}

/// A caller's own key for a request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Once {
    /// Asking twice under one key is asking once
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

/// A job that was begun.
#[derive(Debug, IntoResponses)]
#[response(status = 202, description = "", headers(("Location" = String, description = "The job")))]
pub(super) struct Accepted(JobView);
