//! The canonical request: what is signed of a request.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest as _, Sha256};

use super::{Arrived, Code, Refusal};

/// Everything but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same for a path.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

pub(super) fn request(arrived: &Arrived<'_>, signed_headers: &[String]) -> Result<Vec<u8>, Refusal> {
    let hash = hex::encode(Sha256::digest(arrived.body));
    if let Some(told) = arrived.headers.get("x-amz-content-sha256")
        && told.as_bytes() != hash.as_bytes()
    {
        return Err(differs("The value of X-Amz-Content-Sha256 is not the SHA-256 of the body that arrived."));
    }
    let mut text = Vec::with_capacity(1024);
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| text.extend_from_slice(part));
        text.push(b'\n');
    };
    line(&[arrived.method.as_bytes()]);
    line(&[path(arrived.path)?.as_bytes()]);
    line(&[query(arrived.query)?.as_bytes()]);
    for name in signed_headers {
        let values: Vec<Vec<u8>> =
            arrived.headers.get_all(name.as_str()).iter().map(|value| collapsed(value.as_bytes())).collect();
        line(&[name.as_bytes(), b":", &values.join(&b',')]);
    }
    line(&[]);
    line(&[signed_headers.join(";").as_bytes()]);
    text.extend_from_slice(hash.as_bytes());
    Ok(text)
}

/// The path, encoded once more, as all services but S3 have it.
fn path(raw: &str) -> Result<String, Refusal> {
    let below = raw.strip_prefix('/').ok_or_else(|| differs("The path must begin with '/'."))?;
    let inner = below.strip_suffix('/').unwrap_or(below);
    if raw != "/" && inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(differs("The path must have no empty segment, '.' or '..'."));
    }
    Ok(percent_encode(raw.as_bytes(), RESERVED_IN_PATH).to_string())
}

/// The parameters in the order of their names and values, which must be encoded as the canonical form is.
fn query(raw: &str) -> Result<String, Refusal> {
    if raw.is_empty() {
        return Ok(String::new());
    }
    let mut pairs = Vec::new();
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.is_empty() || !is_encoded(name) || !is_encoded(value) {
            let message = "Names and values of the query must be percent-encoded, all but letters, digits and '-._~', with digits in upper case.";
            return Err(differs(message));
        }
        pairs.push((name, value));
    }
    pairs.sort_unstable();
    Ok(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

fn is_encoded(text: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    percent_encode(&decoded, RESERVED).to_string() == text
}

/// Without spaces at its ends, and with one where several are in a row.
fn collapsed(value: &[u8]) -> Vec<u8> {
    let mut text = value.trim_ascii().to_vec();
    text.dedup_by(|a, b| *a == b' ' && *b == b' ');
    text
}

fn differs(message: &str) -> Refusal {
    Refusal::new(Code::SignatureDoesNotMatch, message)
}
