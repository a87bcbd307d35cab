//! The errors of KMS in our words: whether the key, the permission or the service is at fault.

use std::error::Error as StdError;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use crate::aws::{self, Silence};
use crate::error::{Class, Error};

const CREDENTIALS_HINT: &str =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that may use the key";

/// The error of an operation with a key: `cannot OPERATION the KMS key KEY: …`.
pub(super) fn failed<E>(operation: &str, key: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let (class, hint) = match error {
        SdkError::ServiceError(_) => of_answer(aws::status(error).unwrap_or(0), aws::code(error).unwrap_or_default()),
        SdkError::ResponseError(_) => of_answer(aws::status(error).unwrap_or(0), ""),
        _ => of_no_answer(Silence::of(error)),
    };
    let made = Error::new(class, format!("cannot {operation} the KMS key {key}: {}", aws::text(error))).hint(hint);
    // its own store of keys may be back in a moment
    if aws::code(error) == Some("KeyUnavailableException") { made.retryable(true) } else { made }
}

fn of_no_answer(silence: Silence) -> (Class, &'static str) {
    match silence {
        Silence::Credentials => (Class::StoreAuth, CREDENTIALS_HINT),
        Silence::Certificate => (
            Class::StoreUnavailable,
            "the certificate of the endpoint is not trusted: name its authority by SSL_CERT_FILE",
        ),
        Silence::Timeout => (Class::StoreUnavailable, "KMS, or the network on the way to it, stood still"),
        Silence::NoAnswer => (
            Class::StoreUnavailable,
            "KMS did not answer: its endpoint is another one (--kms-endpoint, AWS_ENDPOINT_URL_KMS), or it is down",
        ),
    }
}

/// The class of an answer, and advice.
fn of_answer(status: u16, code: &str) -> (Class, &'static str) {
    match code {
        "NotFoundException" => {
            return (
                Class::Key,
                "there is no such key in this region and account: look at its ARN and at the endpoint",
            );
        }
        "DisabledException" => return (Class::Key, "enable the key again: aws kms enable-key"),
        "KMSInvalidStateException" | "KMSInvalidStateFault" => {
            return (Class::Key, "the key is pending deletion or import: aws kms cancel-key-deletion, then enable it");
        }
        "KeyUnavailableException" => return (Class::Key, "the store of the key is not connected: try again later"),
        "IncorrectKeyException" | "InvalidCiphertextException" => {
            return (Class::Key, "it was sealed with another key, or for another snapshot or repository");
        }
        "InvalidKeyUsageException" | "UnsupportedOperationException" => {
            return (Class::Key, "a master key is a symmetric key for encryption (SYMMETRIC_DEFAULT)");
        }
        "AccessDeniedException" | "KMSAccessDeniedException" | "NotAuthorized" => {
            return (
                Class::StoreAuth,
                "these credentials lack a permission on the key: kms:GenerateDataKey to make snapshots, kms:Decrypt to read them, \
                 kms:Encrypt and kms:ReEncrypt* to wrap them anew, kms:DescribeKey for an alias",
            );
        }
        "ThrottlingException" | "RequestLimitExceeded" | "LimitExceededException" => {
            return (Class::StoreUnavailable, "KMS asks for fewer requests");
        }
        "DependencyTimeoutException" | "KMSInternalException" => {
            return (Class::StoreUnavailable, "by its own words the failure is the service's");
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature" => {
            return (Class::StoreAuth, CREDENTIALS_HINT);
        }
        _ => {}
    }
    match status {
        401 | 403 => (Class::StoreAuth, CREDENTIALS_HINT),
        429 => (Class::StoreUnavailable, "KMS asks for fewer requests"),
        500.. => (Class::StoreUnavailable, "by its own words the failure is the service's"),
        400..=499 => (Class::Key, "KMS refuses this request: look at the key and at the endpoint"),
        _ => (Class::Unforeseen, "look at the endpoint: this is no answer of KMS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_class_that_the_exit_code_needs() {
        for (status, code, class) in [
            (400, "NotFoundException", Class::Key),
            (400, "DisabledException", Class::Key),
            (400, "KMSInvalidStateException", Class::Key),
            (500, "KeyUnavailableException", Class::Key),
            (400, "InvalidCiphertextException", Class::Key),
            (400, "IncorrectKeyException", Class::Key),
            (400, "AccessDeniedException", Class::StoreAuth),
            (400, "UnrecognizedClientException", Class::StoreAuth),
            (403, "", Class::StoreAuth),
            (400, "ThrottlingException", Class::StoreUnavailable),
            (500, "KMSInternalException", Class::StoreUnavailable),
            (503, "", Class::StoreUnavailable),
            (400, "ValidationException", Class::Key),
        ] {
            assert_eq!(of_answer(status, code).0, class, "{status} {code}");
        }
    }
}
