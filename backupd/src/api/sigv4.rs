//! Who signed a request: AWS Signature Version 4 from the header `Authorization`, as a server has to check it.
//!
//! The canonical request is made of what arrived, by the list of headers that the client signed: nothing is reordered, decoded or
//! mended. Where AWS lets several texts mean the same – paths with `.` and `//`, queries that are not encoded as the canonical
//! form is – only that form itself is accepted, so that no byte of what was signed can be changed. Clients of AWS write it.
//!
//! Credentials of a session (`X-Amz-Security-Token`) are refused, since none are issued here, and so are signatures in the query and
//! bodies that are signed in parts or not at all.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

mod canonical;
mod header;
#[cfg(test)]
mod tests;

use axum::http::HeaderMap;
use chrono::NaiveDateTime;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use self::header::Authorization;

/// How far the time of a request may be from ours, s.
pub const SKEW_MAX_S: u64 = 900;

/// Services that a signature of a request to the Query API may be for.
pub const SERVICES: [&str; 3] = ["elasticache", "sts", "tagging"];

/// The same of a request to the REST API.
pub const SERVICES_REST: [&str; 2] = ["backupd", "elasticache"];

/// The word with which the header `Authorization` begins.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// `POST`.
    pub method: &'a str,
    /// As on the wire, still encoded.
    pub path: &'a str,
    /// Behind the `?`, still encoded; empty without one.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// What a signature must be for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The only region that is served; any, when there is none.
    pub region: Option<&'a str>,
    /// The services.
    pub services: &'a [&'a str],
}

/// Why nobody is known to have signed a request. The codes are those of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No signature came with it.
    MissingAuthenticationToken,
    /// The header or what must be signed is not complete.
    IncompleteSignature,
    /// The access key is not known.
    InvalidClientTokenId,
    /// Something else was signed, or with another secret.
    SignatureDoesNotMatch,
    /// The time of the request is too far from ours.
    RequestExpired,
}

impl Code {
    /// The text on the wire and the HTTP status.
    #[must_use]
    pub fn row(self) -> (&'static str, u16) {
        match self {
            Self::MissingAuthenticationToken => ("MissingAuthenticationToken", 403),
            Self::IncompleteSignature => ("IncompleteSignature", 400),
            Self::InvalidClientTokenId => ("InvalidClientTokenId", 403),
            Self::SignatureDoesNotMatch => ("SignatureDoesNotMatch", 403),
            Self::RequestExpired => ("RequestExpired", 400),
        }
    }
}

/// A request that is refused because of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub code: Code,
    /// What is wrong, in words.
    pub message: String,
}

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Of an access key that is not known.
    #[must_use]
    pub fn unknown_key() -> Self {
        Self::new(Code::InvalidClientTokenId, "The security token included in the request is invalid.")
    }
}

impl Authorization {
    /// Proves that the request was signed by who holds `secret`, for this scope, and about now.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn verify(
        &self,
        arrived: &Arrived<'_>,
        secret: &str,
        scope: &Scope<'_>,
        now_unix_s: u64,
    ) -> Result<(), Refusal> {
        self.check_scope(scope)?;
        let stamp = self.stamp(arrived.headers, now_unix_s)?;
        let canonical = canonical::request(arrived, &self.signed_headers)?;
        let to_sign = format!(
            "{ALGORITHM}\n{stamp}\n{}/{}/{}/aws4_request\n{}",
            self.date,
            self.region,
            self.service,
            hex::encode(Sha256::digest(&canonical))
        );
        let key = Zeroizing::new(format!("AWS4{secret}").into_bytes());
        let key = step(&key, &self.date)?;
        let key = step(&*key, &self.region)?;
        let key = step(&*key, &self.service)?;
        let key = step(&*key, "aws4_request")?;
        let mut mac = mac(&*key)?;
        mac.update(to_sign.as_bytes());
        // compares in constant time
        mac.verify_slice(&self.signature).map_err(|_| {
            let message = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.";
            Refusal::new(Code::SignatureDoesNotMatch, message)
        })
    }

    fn check_scope(&self, scope: &Scope<'_>) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::new(Code::SignatureDoesNotMatch, message));
        if let Some(region) = scope.region.filter(|region| *region != self.region) {
            return refuse(format!(
                "Credential should be scoped to a valid region, not '{}': here it is '{region}'.",
                self.region
            ));
        }
        if !scope.services.contains(&self.service.as_str()) {
            return refuse(format!(
                "Credential should be scoped to correct service: '{}'.",
                scope.services.join("' or '")
            ));
        }
        Ok(())
    }

    /// The time of the request, as its header has it, when it is about now and of the day of the credential.
    fn stamp<'a>(&self, headers: &'a HeaderMap, now_unix_s: u64) -> Result<&'a str, Refusal> {
        let stamp = headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let time = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").ok().filter(|_| stamp.len() == 16);
        let Some(time) = time else {
            let message = "Date must be in ISO-8601 'basic format' in the header X-Amz-Date, as in 20260102T030405Z.";
            return Err(Refusal::new(Code::IncompleteSignature, message));
        };
        if stamp.get(..8) != Some(self.date.as_str()) {
            let message = format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{stamp}'.",
                self.date
            );
            return Err(Refusal::new(Code::SignatureDoesNotMatch, message));
        }
        let apart_s = time.and_utc().timestamp().abs_diff(i64::try_from(now_unix_s).unwrap_or(i64::MAX));
        if apart_s > SKEW_MAX_S {
            let message = format!(
                "The time of the request, {stamp}, is {apart_s} s from that of the server; {SKEW_MAX_S} s are allowed. Check the clock."
            );
            return Err(Refusal::new(Code::RequestExpired, message));
        }
        Ok(stamp)
    }
}

fn step(key: &[u8], text: &str) -> Result<Zeroizing<[u8; 32]>, Refusal> {
    let mut mac = mac(key)?;
    mac.update(text.as_bytes());
    Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
}

fn mac(key: &[u8]) -> Result<Hmac<Sha256>, Refusal> {
    // a key of any length is taken
    Hmac::<Sha256>::new_from_slice(key).map_err(|e| Refusal::new(Code::SignatureDoesNotMatch, e.to_string()))
}
