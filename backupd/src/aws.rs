//! What the clients of S3 and of KMS share: what their failures say.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// How many causes of an error are told, and how long its text may be.
const CAUSES_MAX: usize = 8;
const TEXT_CHARS_MAX: usize = 600;

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// There are no credentials to send it with.
    Credentials,
    /// The certificate of the endpoint is not trusted.
    Certificate,
    /// Server or network stood still.
    Timeout,
    /// There was none.
    NoAnswer,
}

impl Silence {
    /// Why this request failed, which got no answer.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let text = chain(error).to_ascii_lowercase();
        if text.contains("credential") || text.contains("loading identity") {
            Self::Credentials
        } else if text.contains("certificate") {
            Self::Certificate
        } else if text.contains("timeout") || text.contains("timed out") {
            Self::Timeout
        } else {
            Self::NoAnswer
        }
    }
}

/// The HTTP status of a failed request, when there was an answer.
#[must_use]
pub fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// The service's own code for the error.
#[must_use]
pub fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// What a failed request says: `Code (HTTP status): message`, or its causes.
#[must_use]
pub fn text<E>(error: &SdkError<E, HttpResponse>) -> String
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
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
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
