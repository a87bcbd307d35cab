//! Who asks: a bearer token of the configuration, a key that signs, or, where it names nobody, whoever is on this machine.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policies::access::{Action, Principal, Resource, Role, Scope};
use sha2::{Digest as _, Sha256};

use super::Api;
use super::problem::Problem;
use super::query::error::{Code, Fault};
use super::sigv4::{ALGORITHM, Arrived, Authorization, Refusal, SERVICES, SERVICES_REST, Scope as Signed};
use crate::error::{Class, Error};
use crate::secret;

/// The longest token that is looked at, bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// Who asks, and for what: made by the layer, for the route.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// What the route does.
    pub action: Action,
    /// Its signature, where it signed: no other request has the same.
    pub signature: Option<String>,
}

impl Caller {
    /// The same caller with another action, where the request decides what it is.
    #[must_use]
    pub fn with(&self, action: Action) -> Self {
        Self { action, ..self.clone() }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let nobody = || Error::new(Class::Unforeseen, "nobody was asked who they are");
        parts.extensions.get::<Self>().cloned().ok_or_else(|| nobody().into())
    }
}

/// Asks who it is, and whether the role may do what the route does to anything at all.
pub(super) async fn layer(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (parts, body) = request.into_parts();
    // it was read before its turn
    let Ok(bytes) = to_bytes(body, api.inner.limits.body_bytes).await else {
        return Problem::request(StatusCode::BAD_REQUEST, "the body ended before its time").into_response();
    };
    let principal = identify(&api, &parts, &bytes);
    request = Request::from_parts(parts, Body::from(bytes));
    match admit(&api, principal, &method, &path, &route.unwrap_or_default()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn admit(
    api: &Api,
    identified: Result<Identified, Problem>,
    method: &Method,
    path: &str,
    route: &str,
) -> Result<Caller, Problem> {
    let (principal, signature) = identified?;
    if !api.inner.rates.admits(&principal.name, tokio::time::Instant::now()) {
        return Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, "too many requests in a second"));
    }
    let rules = api.inner.rules.get(route);
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let rule = rules.and_then(|rules| rules.iter().find(|(known, _)| known == method));
    let Some((_, action)) = rule else {
        // a path without any rule is refused to everybody
        return Err(rules.map_or_else(
            || Problem::request(StatusCode::FORBIDDEN, "this route has no rule who may use it"),
            |_| Problem::method(),
        ));
    };
    let decision =
        policies::access::decide(&principal, *action, Resource::Service, crate::clock::unix_ms(crate::clock::now()));
    if !decision.is_allowed() {
        // with its line in the audit chain
        let decision = api.services().decide(&principal, *action, Resource::Service, path).await?;
        return Err(Problem::denied(decision));
    }
    Ok(Caller { principal: Arc::new(principal), action: *action, signature })
}

/// Who asks, and the signature where there is one.
type Identified = (Principal, Option<String>);

/// Whose credentials these are.
///
/// # Errors
/// 401 when they are nobody's, 403 for a browser that another site's page drives.
fn identify(api: &Api, parts: &Parts, body: &[u8]) -> Result<Identified, Problem> {
    let config = api.services().config();
    let headers = &parts.headers;
    if !config.api.asks_who() {
        return Ok((local(headers)?, None));
    }
    let given =
        headers.get(header::AUTHORIZATION).ok_or_else(|| Problem::unknown_caller("no credentials were sent"))?;
    let text = given.to_str().map_err(|_| Problem::unknown_caller("the credentials are not ASCII"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if scheme == ALGORITHM {
        let (principal, authorization) =
            verified(api, parts, body, &SERVICES_REST).map_err(|fault| match fault.status() {
                500.. => Problem::of(StatusCode::INTERNAL_SERVER_ERROR, &Error::new(Class::Config, fault.message)),
                _ => Problem::unknown_caller(&fault.message),
            })?;
        return Ok((principal, Some(authorization.signature())));
    }
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Problem::unknown_caller("the credentials are no bearer token and no signature"));
    }
    // digests are compared: how long that takes tells nothing of a token
    let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let found = config.api.tokens.iter().find(|known| known.sha256 == digest);
    let found = found.ok_or_else(|| Problem::unknown_caller("the token is nobody's"))?;
    Ok((found.principal.clone(), None))
}

/// Who signed a request of the Query API, and for which region; whoever is on this machine where nobody is asked who they are.
///
/// # Errors
/// What is wrong with the signature, in AWS's words.
pub(super) fn signed(api: &Api, parts: &Parts, body: &[u8]) -> Result<(Principal, Option<String>), Fault> {
    if !api.services().config().api.asks_who() {
        let denied = |problem: Problem| Fault::new(Code::AccessDenied, problem.detail);
        let region = Authorization::of(&parts.headers).ok().map(|it| it.region);
        return Ok((local(&parts.headers).map_err(denied)?, region));
    }
    let (principal, authorization) = verified(api, parts, body, &SERVICES)?;
    Ok((principal, Some(authorization.region)))
}

/// Whose key signed a request, for one of these services.
fn verified(api: &Api, parts: &Parts, body: &[u8], services: &[&str]) -> Result<(Principal, Authorization), Fault> {
    let config = api.services().config();
    let authorization = Authorization::of(&parts.headers)?;
    let key = config.api.keys.iter().find(|key| key.id == authorization.key_id).ok_or_else(Refusal::unknown_key)?;
    let secret = secret::read(Some(&key.secret))?.ok_or_else(Refusal::unknown_key)?;
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let arrived = Arrived { method: parts.method.as_str(), path, query, headers: &parts.headers, body };
    let now_s = crate::clock::unix_ms(crate::clock::now()) / 1000;
    authorization.verify(&arrived, secret.reveal(), &Signed { region: None, services }, now_s)?;
    Ok((key.principal.clone(), authorization))
}

/// Whoever is on this machine, when nobody is asked who they are: but no page of another site that is open in a browser here.
fn local(headers: &HeaderMap) -> Result<Principal, Problem> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let is_here = name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_same = text(header::ORIGIN).is_none_or(|origin| origin.split_once("://").is_some_and(|(_, at)| at == host));
    if !is_here || !is_same {
        let error = Error::new(
            Class::Refused,
            "without tokens only programs of this machine are served, by its loopback address",
        )
        .hint("add [api.tokens.NAME] to the configuration");
        return Err(Problem::of(StatusCode::FORBIDDEN, &error));
    }
    Ok(Principal { name: "local".to_owned(), role: Role::Admin, scope: Scope::default(), expires_unix_ms: None })
}
