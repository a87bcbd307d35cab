//! The header `Authorization` of a signed request.

use axum::http::{HeaderMap, header};

use super::{ALGORITHM, Code, Refusal};

/// The longest header that is read, bytes.
const HEADER_LEN_MAX: usize = 4096;

/// The most headers that may be signed.
const SIGNED_MAX: usize = 64;

/// What a client says of its signature. Nothing of it is proven before [`Authorization::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The id of the access key.
    pub key_id: String,
    /// `YYYYMMDD`.
    pub date: String,
    /// The region that the client believes to talk to.
    pub region: String,
    /// `elasticache`.
    pub service: String,
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: [u8; 32],
}

impl Authorization {
    /// Reads the header, and looks whether all that must be signed is.
    ///
    /// # Errors
    /// That there is none, or what it lacks.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if headers.contains_key("x-amz-security-token") {
            let message = "Credentials of a session are not issued here: sign without X-Amz-Security-Token.";
            return Err(Refusal::new(Code::InvalidClientTokenId, message));
        }
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else {
            return Err(Refusal::new(Code::MissingAuthenticationToken, "Request is missing Authentication Token"));
        };
        let text = value.to_str().ok().filter(|text| text.len() <= HEADER_LEN_MAX);
        let Some(fields) = text.and_then(|text| text.strip_prefix(ALGORITHM)?.strip_prefix(' ')) else {
            return Err(incomplete(format!("Authorization header requires the algorithm {ALGORITHM}.")));
        };
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let field = field.trim_start_matches(' ');
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => {
                    return Err(incomplete(format!(
                        "Authorization header has an unknown parameter '{}'.",
                        short(name)
                    )));
                }
            };
            if place.replace(value).is_some() {
                return Err(incomplete(format!("Authorization header has '{name}' twice.")));
            }
        }
        let missing = |name: &str| incomplete(format!("Authorization header requires '{name}' parameter."));
        let [key_id, date, region, service] = credential_of(credential.ok_or_else(|| missing("Credential"))?)?;
        let signed_headers = signed_of(signed.ok_or_else(|| missing("SignedHeaders"))?, headers)?;
        let signature = signature_of(signature.ok_or_else(|| missing("Signature"))?)?;
        Ok(Self { key_id, date, region, service, signed_headers, signature })
    }
}

impl Authorization {
    /// The signature, hexadecimal.
    #[must_use]
    pub fn signature(&self) -> String {
        hex::encode(self.signature)
    }
}

fn credential_of(text: &str) -> Result<[String; 4], Refusal> {
    let parts: Vec<&str> = text.split('/').collect();
    let [key, date, region, service, "aws4_request"] = *parts.as_slice() else {
        let message = "Credential must have the form <key>/<date>/<region>/<service>/aws4_request.";
        return Err(incomplete(message));
    };
    if [key, date, region, service].iter().any(|part| part.is_empty()) {
        return Err(incomplete("Credential has an empty part."));
    }
    Ok([key, date, region, service].map(str::to_owned))
}

/// The names of signed headers: in order, each once, and all that matter among them.
fn signed_of(text: &str, headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    if names.len() > SIGNED_MAX || !names.is_sorted_by(|a, b| a < b) || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(incomplete("SignedHeaders must be names in lower case, sorted, each once."));
    }
    if let Some(absent) = names.iter().find(|name| !headers.contains_key(name.as_str())) {
        return Err(incomplete(format!("The header '{}' was signed and did not arrive.", short(absent))));
    }
    for name in ["host", "x-amz-date", "content-type", "idempotency-key"] {
        let must = ["host", "x-amz-date"].contains(&name) || headers.contains_key(name);
        if must && !names.iter().any(|signed| signed == name) {
            return Err(incomplete(format!("The header '{name}' must be signed.")));
        }
    }
    Ok(names)
}

fn signature_of(text: &str) -> Result<[u8; 32], Refusal> {
    let mut signature = [0; 32];
    let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    match hex::decode_to_slice(text, &mut signature) {
        Ok(()) if is_lower => Ok(signature),
        _ => Err(incomplete("Signature must be 64 hexadecimal digits in lower case.")),
    }
}

/// What a client sent, short enough for a message.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn incomplete(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::IncompleteSignature, message)
}
