//! The errors of the S3 client in our words.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::aws::Silence;
pub(super) use crate::aws::{chain, code, status, text};
use crate::error::{Class, Error};

const CREDENTIALS_HINT: &str =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or add ?profile=… to the repository URL";
const SERVER_HINT: &str = "by its own words the failure is the server's: look at its state";
const REGION_HINT: &str = "the bucket is in another region, or the endpoint is another one: add ?region=… or ?endpoint=… to the repository URL";

/// Whether the request may have been carried out although it failed: its answer is missing, unreadable or a
/// failure of the server.
pub(super) fn is_ambiguous<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
        _ => status(error).is_none_or(|status| status >= 500 || status == 200),
    }
}

/// The error of an `operation` on a `place` (which object in which bucket).
pub(super) fn of<E>(operation: &str, place: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let (class, hint) = match error {
        SdkError::ServiceError(_) => of_answer(status(error).unwrap_or(0), code(error).unwrap_or_default()),
        SdkError::ResponseError(_) => of_answer(status(error).unwrap_or(0), ""),
        _ => of_no_answer(error),
    };
    let made = Error::new(class, format!("cannot {operation} {place}: {}", text(error)));
    if hint.is_empty() { made } else { made.hint(hint) }
}

/// The class of a request that got no answer, and advice.
fn of_no_answer(error: &(dyn StdError + 'static)) -> (Class, &'static str) {
    match Silence::of(error) {
        Silence::Credentials => (Class::StoreAuth, CREDENTIALS_HINT),
        Silence::Certificate => (
            Class::StoreUnavailable,
            "the certificate of the endpoint is not trusted: name its authority by SSL_CERT_FILE",
        ),
        Silence::Timeout => (
            Class::StoreUnavailable,
            "the server, or the network on the way to it, stood still: nothing is wrong with the request",
        ),
        Silence::NoAnswer => (
            Class::StoreUnavailable,
            "there was no answer: the endpoint is another one, the server is down, or the network is",
        ),
    }
}

/// The class of an answer, and advice. A HEAD answers with a status alone.
fn of_answer(status: u16, code: &str) -> (Class, &'static str) {
    match code {
        "NoSuchBucket" => {
            return (Class::NotFound, "the bucket does not exist: create it, or look at the repository URL");
        }
        "NoSuchUpload" => {
            return (
                Class::NotFound,
                "a lifecycle rule or another program ended this upload in parts: look at the rules of the bucket",
            );
        }
        "QuotaExceeded" | "InsufficientStorage" | "EntityTooLarge" => {
            return (Class::StoreUnavailable, "the quota of the account or bucket is used up");
        }
        "RequestTimeTooSkewed" => return (Class::StoreAuth, "the clock of this machine is wrong"),
        "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "BadDigest" | "IncompleteBody" => {
            return (Class::StoreUnavailable, "bytes were changed or lost on their way to the server");
        }
        "SlowDown" => {
            return (
                Class::StoreUnavailable,
                "the server asks for fewer requests: other clients or its limits are in the way",
            );
        }
        "RequestTimeout" | "ServiceUnavailable" | "InternalError" => return (Class::StoreUnavailable, SERVER_HINT),
        "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "TokenRefreshRequired" => {
            return (Class::StoreAuth, CREDENTIALS_HINT);
        }
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            return (Class::Config, REGION_HINT);
        }
        _ => {}
    }
    match status {
        401 | 403 => (
            Class::StoreAuth,
            "the credentials need permission to list the bucket and to read, write and delete its objects",
        ),
        404 => (Class::NotFound, ""),
        409 | 412 => (Class::Busy, ""),
        300..=399 => (Class::Config, REGION_HINT),
        400 | 405 | 501 => {
            (Class::Config, "the server refuses this request: look at the endpoint and at what it supports")
        }
        429 => (Class::StoreUnavailable, "the server asks for fewer requests"),
        500.. => (Class::StoreUnavailable, SERVER_HINT),
        _ => (Class::Unforeseen, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_class_that_the_exit_code_needs() {
        for (status, code, class) in [
            (403, "AccessDenied", Class::StoreAuth),
            (403, "", Class::StoreAuth),
            (401, "", Class::StoreAuth),
            (400, "ExpiredToken", Class::StoreAuth),
            (403, "SignatureDoesNotMatch", Class::StoreAuth),
            (403, "QuotaExceeded", Class::StoreUnavailable),
            (404, "NoSuchBucket", Class::NotFound),
            (404, "NoSuchKey", Class::NotFound),
            (301, "PermanentRedirect", Class::Config),
            (301, "", Class::Config),
            (400, "AuthorizationHeaderMalformed", Class::Config),
            (501, "NotImplemented", Class::Config),
            (400, "XAmzContentSHA256Mismatch", Class::StoreUnavailable),
            (412, "PreconditionFailed", Class::Busy),
            (503, "SlowDown", Class::StoreUnavailable),
            (500, "", Class::StoreUnavailable),
        ] {
            assert_eq!(of_answer(status, code).0, class, "{status} {code}");
        }
    }
}
