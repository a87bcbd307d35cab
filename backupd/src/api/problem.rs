//! What goes wrong, as a problem of RFC 9457, with the classes of the exit codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policies::access::Decision;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Class, Error};

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:backupd:problem:CLASS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status of HTTP, in words.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The status of HTTP.
    pub status: u16,
    /// What happened, where.
    pub detail: String,
    /// The class, as in the JSON of errors on the command line.
    #[schema(value_type = String)]
    pub class: &'static str,
    /// The exit code that the command line would end with.
    pub code: u8,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether trying again can help.
    pub retryable: bool,
}

impl Problem {
    /// An error under a status of HTTP.
    #[must_use]
    pub fn of(status: StatusCode, error: &Error) -> Self {
        Self {
            kind: format!("urn:backupd:problem:{}", error.class().code()),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: error.message().to_owned(),
            class: error.class().code(),
            code: error.class().exit_code(),
            hint: error.advice().map(str::to_owned),
            retryable: error.is_retryable(),
        }
    }

    /// Nobody is known by these credentials, or there are none.
    #[must_use]
    pub fn unknown_caller(why: &str) -> Self {
        let error = Error::new(Class::Refused, why)
            .hint("send `Authorization: Bearer TOKEN`, or sign the request with an access key");
        Self::of(StatusCode::UNAUTHORIZED, &error)
    }

    /// The caller is known and may not.
    #[must_use]
    pub fn denied(decision: Decision) -> Self {
        let status = if decision == Decision::Expired { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Self::of(status, &Error::new(Class::Refused, decision.to_string()))
    }

    /// The request is not one that this API has.
    #[must_use]
    pub fn request(status: StatusCode, why: impl Into<String>) -> Self {
        Self::of(status, &Error::new(Class::Usage, why))
    }

    /// Too much is going on.
    #[must_use]
    pub fn busy(status: StatusCode, why: &str) -> Self {
        Self::of(status, &Error::new(Class::Busy, why).hint("come again in a second"))
    }

    pub(super) fn method() -> Self {
        Self::request(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
    }

    pub(super) fn no_route() -> Self {
        let error = Error::new(Class::NotFound, "there is no such path").hint("see /v1/openapi.json");
        Self::of(StatusCode::NOT_FOUND, &error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.class() {
            Class::Usage => StatusCode::BAD_REQUEST,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::Busy | Class::Refused => StatusCode::CONFLICT,
            Class::Version => StatusCode::UNPROCESSABLE_ENTITY,
            Class::SourceAuth | Class::StoreAuth => StatusCode::BAD_GATEWAY,
            Class::SourceUnavailable | Class::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Unforeseen | Class::Key | Class::Verification | Class::Config => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, &error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // what is left of the body is not read
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
