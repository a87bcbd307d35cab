//! `[api]`: where the API is served, who may use it, and what one request may cost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::access::{Principal, Role, Scope};
use serde::Deserialize;
use toml::Spanned;

use super::Password;
use super::file::Text;
use crate::error::{Class, Error, Result};

/// The smallest limit of a request's head: below it ordinary clients fail.
const HEADER_BYTES_MIN: u64 = 8 << 10;

/// The API of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Where it is served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Its certificate; `None` for plain HTTP.
    pub tls: Option<ServerTls>,
    /// What requests may cost.
    pub limits: Limits,
    /// Who may use it with a bearer token.
    pub tokens: Vec<Token>,
    /// Who may use it with signed requests.
    pub keys: Vec<AccessKey>,
}

/// PEM files, read again for every connection after they changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate, with what signed it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities whose certificates clients must show; none are asked for without it.
    pub client_ca: Option<PathBuf>,
}

/// What requests may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest body, bytes.
    pub body_bytes: usize,
    /// All bodies together beyond the first 16 KiB of each, bytes.
    pub bodies_bytes: usize,
    /// The largest head of a request, bytes.
    pub header_bytes: usize,
    /// How long a request may take, its reading included.
    pub request_time: Duration,
    /// Requests that are worked on at the same time.
    pub concurrency: usize,
    /// Connections that are open at the same time.
    pub connections: usize,
    /// Requests of one caller in a second.
    pub requests_per_second: u32,
}

/// A bearer token: it is known by its digest only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Who it is.
    pub principal: Principal,
}

/// A key for signed requests (AWS Signature Version 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id, which is no secret.
    pub id: String,
    /// Where the secret is.
    pub secret: Password,
    /// Who it is.
    pub principal: Principal,
}

impl Api {
    /// Whether anybody is asked who they are.
    #[must_use]
    pub fn asks_who(&self) -> bool {
        !self.tokens.is_empty() || !self.keys.is_empty()
    }
}

/// `[api]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiSection {
    listen: Option<Spanned<String>>,
    tls_cert: Option<Spanned<PathBuf>>,
    tls_key: Option<Spanned<PathBuf>>,
    tls_client_ca: Option<Spanned<PathBuf>>,
    body_max: Option<Spanned<String>>,
    bodies_max: Option<Spanned<String>>,
    header_max: Option<Spanned<String>>,
    request_time: Option<Spanned<String>>,
    concurrency: Option<Spanned<u32>>,
    connections: Option<Spanned<u32>>,
    requests_per_second: Option<Spanned<u32>>,
    #[serde(default)]
    tokens: BTreeMap<Spanned<String>, TokenSection>,
    #[serde(default)]
    keys: BTreeMap<Spanned<String>, KeySection>,
}

/// `[api.tokens.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSection {
    sha256: Spanned<String>,
    expires: Spanned<String>,
    role: Role,
    #[serde(default)]
    clusters: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// `[api.keys.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySection {
    id: Spanned<String>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    expires: Option<Spanned<String>>,
    role: Role,
    #[serde(default)]
    clusters: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl ApiSection {
    /// What it means; keys that are missing are those of `defaults`.
    pub(super) fn read(&self, text: Text<'_>, folder: &Path, defaults: Option<&Api>) -> Result<Api> {
        let api =
            Api {
                listen: match &self.listen {
                    None => defaults.and_then(|it| it.listen),
                    Some(listen) if listen.get_ref().is_empty() => None,
                    Some(listen) => Some(listen.get_ref().parse().map_err(|_| {
                        text.error(listen.span().start, "it is no address: write it as 127.0.0.1:8471")
                    })?),
                },
                tls: self.tls(text, folder)?,
                limits: self.limits(text, defaults.map(|it| &it.limits))?,
                tokens: self.tokens.iter().map(|(name, it)| it.read(text, name)).collect::<Result<_>>()?,
                keys: self.keys.iter().map(|(name, it)| it.read(text, folder, name)).collect::<Result<_>>()?,
            };
        let at = self.listen.as_ref().map_or(0, |listen| listen.span().start);
        check_listen(&api).map_err(|error| text.error(at, error.message()).hint(error.advice().unwrap_or_default()))?;
        Ok(api)
    }

    fn tls(&self, text: Text<'_>, folder: &Path) -> Result<Option<ServerTls>> {
        let client_ca = self.tls_client_ca.as_ref().map(|path| folder.join(path.get_ref()));
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (folder.join(cert.get_ref()), folder.join(key.get_ref()));
                Ok(Some(ServerTls { cert, key, client_ca }))
            }
            (None, None) => match &self.tls_client_ca {
                Some(path) => Err(text.error(path.span().start, "[api] has tls_client_ca and no tls_cert")),
                None => Ok(None),
            },
            (Some(one), None) | (None, Some(one)) => {
                Err(text.error(one.span().start, "[api] has only one of tls_cert and tls_key"))
            }
        }
    }

    fn limits(&self, text: Text<'_>, defaults: Option<&Limits>) -> Result<Limits> {
        let bytes = |value: &Option<Spanned<String>>, default: Option<usize>, min: u64| match value {
            None => Ok(default.unwrap_or_default()),
            Some(value) => crate::quantity::bytes(value.get_ref())
                .ok()
                .filter(|bytes| (min..=1 << 30).contains(bytes))
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| text.error(value.span().start, &format!("it is a size from {min} bytes to 1GiB"))),
        };
        let count = |value: &Option<Spanned<u32>>, default: Option<u32>| match value {
            None => Ok(default.unwrap_or(1)),
            Some(value) if *value.get_ref() == 0 => Err(text.error(value.span().start, "it must be at least 1")),
            Some(value) => Ok(*value.get_ref()),
        };
        let size = |value: &Option<Spanned<u32>>, default: Option<usize>| {
            let default = default.and_then(|count| u32::try_from(count).ok());
            count(value, default).map(|count| usize::try_from(count).unwrap_or(1))
        };
        let request_time = match &self.request_time {
            None => defaults.map(|it| it.request_time).unwrap_or_default(),
            Some(value) => policies::duration::parse(value.get_ref())
                .map(Duration::from_millis)
                .map_err(|reason| text.error(value.span().start, &reason))?,
        };
        Ok(Limits {
            body_bytes: bytes(&self.body_max, defaults.map(|it| it.body_bytes), 1)?,
            bodies_bytes: bytes(&self.bodies_max, defaults.map(|it| it.bodies_bytes), 1)?,
            header_bytes: bytes(&self.header_max, defaults.map(|it| it.header_bytes), HEADER_BYTES_MIN)?,
            request_time,
            concurrency: size(&self.concurrency, defaults.map(|it| it.concurrency))?,
            connections: size(&self.connections, defaults.map(|it| it.connections))?,
            requests_per_second: count(&self.requests_per_second, defaults.map(|it| it.requests_per_second))?,
        })
    }
}

/// Who others reach is asked who they are, and not over a line that anybody may read along.
fn check_listen(api: &Api) -> Result<()> {
    let Some(address) = api.listen.filter(|address| !address.ip().is_loopback()) else { return Ok(()) };
    let refuse = |why: &str, hint: &str| {
        Err(Error::new(Class::Config, format!("{address} can be reached from other machines, and {why}")).hint(hint))
    };
    if !api.asks_who() {
        return refuse("there is no token and no key: nobody would be asked who they are", "add [api.tokens.NAME]");
    }
    if api.tls.is_none() {
        return refuse("tokens would be sent in the clear", "give tls_cert and tls_key");
    }
    Ok(())
}

impl TokenSection {
    fn read(&self, text: Text<'_>, name: &Spanned<String>) -> Result<Token> {
        let wrong = || {
            text.error(self.sha256.span().start, "it is no SHA-256: 64 hexadecimal digits")
                .hint("printf %s \"$TOKEN\" | sha256sum")
        };
        let mut sha256 = [0; 32];
        hex::decode_to_slice(self.sha256.get_ref(), &mut sha256).map_err(|_| wrong())?;
        let scope = Scope { clusters: self.clusters.clone(), tags: self.tags.clone() };
        let principal = Principal {
            name: format!("token:{}", name.get_ref()),
            role: self.role,
            scope,
            expires_unix_ms: Some(moment(text, &self.expires)?),
        };
        Ok(Token { sha256, principal })
    }
}

impl KeySection {
    fn read(&self, text: Text<'_>, folder: &Path, name: &Spanned<String>) -> Result<AccessKey> {
        let secret = match (&self.secret_file, &self.secret_env) {
            (Some(path), None) => Password::File(folder.join(path)),
            (None, Some(variable)) => Password::Variable(variable.clone()),
            _ => {
                let reason = format!("[api.keys.{}] needs one of secret_file and secret_env", name.get_ref());
                return Err(text.error(name.span().start, &reason));
            }
        };
        let id = self.id.get_ref();
        if !(16..=128).contains(&id.len()) || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(text.error(self.id.span().start, "an id has 16 to 128 letters, digits and `_`"));
        }
        let scope = Scope { clusters: self.clusters.clone(), tags: self.tags.clone() };
        let principal = Principal {
            name: format!("key:{}", name.get_ref()),
            role: self.role,
            scope,
            expires_unix_ms: self.expires.as_ref().map(|expires| moment(text, expires)).transpose()?,
        };
        Ok(AccessKey { id: id.clone(), secret, principal })
    }
}

/// A moment of the file, ms since 1970.
fn moment(text: Text<'_>, written: &Spanned<String>) -> Result<u64> {
    chrono::DateTime::parse_from_rfc3339(written.get_ref())
        .map(|time| crate::clock::unix_ms(time.to_utc()))
        .map_err(|_| text.error(written.span().start, "it is no time: write it as 2027-06-30T00:00:00Z"))
}
