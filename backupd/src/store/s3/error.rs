//! The errors of the S3 client in our words.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::{Class, Error};

/// How many causes of an error are told, and how long its text may be.
const CAUSES_MAX: usize = 8;
const TEXT_CHARS_MAX: usize = 600;

const CREDENTIALS_HINT: &str =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or add ?profile=… to the repository URL";
const SERVER_HINT: &str = "by its own words the failure is the server's: look at its state";
const REGION_HINT: &str = "the bucket is in another region, or the endpoint is another one: add ?region=… or ?endpoint=… to the repository URL";

/// The HTTP status of a failed request, when there was an answer.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// The S3 error code.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

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
    let text = chain(error).to_ascii_lowercase();
    if text.contains("credential") || text.contains("loading identity") {
        (Class::StoreAuth, CREDENTIALS_HINT)
    } else if text.contains("certificate") {
        (Class::StoreUnavailable, "the certificate of the endpoint is not trusted: name its authority by SSL_CERT_FILE")
    } else if text.contains("timeout") || text.contains("timed out") {
        (
            Class::StoreUnavailable,
            "the server, or the network on the way to it, stood still: nothing is wrong with the request",
        )
    } else {
        (
            Class::StoreUnavailable,
            "there was no answer: the endpoint is another one, the server is down, or the network is",
        )
    }
}

/// The class of an answer, and advice. A HEAD answers with a status alone.
fn of_answer(status: u16, code: &str) -> (Class, &'static str) {
    match code {
        "NoSuchBucket" => {
            return (Class::NotFound, "the bucket does not exist: create it, or look at the repository URL");
        }
        "QuotaExceeded" | "InsufficientStorage" | "EntityTooLarge" => {
            return (Class::StoreUnavailable, "the quota of the account or bucket is used up");
        }
        "RequestTimeTooSkewed" => return (Class::StoreAuth, "the clock of this machine is wrong"),
        "XAmzContentSHA256Mismatch" | "BadDigest" | "IncompleteBody" => {
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

fn text<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let Some(answer) = error.as_service_error() else {
        // The outermost text says only that the request failed.
        return match error {
            SdkError::DispatchFailure(_) => error.source().map_or_else(|| chain(error), chain),
            _ => chain(error),
        };
    };
    let status = status(error).unwrap_or(0);
    let text = match (answer.code(), answer.message()) {
        (Some(code), Some(message)) => format!("{code} (HTTP {status}): {message}"),
        (Some(code), None) => format!("{code} (HTTP {status})"),
        (None, _) => format!("HTTP {status}"),
    };
    shortened(&text)
}

/// An error with its causes, `outer: inner: innermost`.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next.filter(|_| texts.len() < CAUSES_MAX) {
        let text = cause.to_string();
        // Many causes repeat the one below them.
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    shortened(&texts.join(": "))
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
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
