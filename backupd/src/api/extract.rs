//! What requests hold, with problems of ours where it does not fit.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::auth::Caller;
use super::problem::Problem;
use crate::catalog::Asked;
use crate::service::jobs::asked;
use policies::access::Principal;

/// The parameters behind the `?`.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::request(StatusCode::BAD_REQUEST, why);
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(wrong("a parameter holds a zero byte".to_owned()));
        }
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| wrong(error.body_text()))
    }
}

/// A part of the path.
#[derive(Debug)]
pub(super) struct Path(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(path) if !path.0.contains('\0') => Ok(Self(path.0)),
            _ => Err(Problem::request(StatusCode::BAD_REQUEST, "the path is not text")),
        }
    }
}

/// What was sent: a JSON object, with the caller's own key for the request. No body at all is an empty object.
#[derive(Debug)]
pub(super) struct Sent<T> {
    pub(super) value: T,
    method: Method,
    path: String,
    body: Bytes,
    key: Option<String>,
}

impl<T> Sent<T> {
    /// Who asked for what, so that asking twice is asking once.
    pub(super) fn asked(&self, by: &Principal) -> crate::error::Result<Asked> {
        asked(by, self.key.as_deref(), &[self.method.as_str().as_bytes(), self.path.as_bytes(), &self.body])
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        // whoever repeats a signed request, as it was or as it was overheard, gets the job that there is
        let signature = request.extensions().get::<Caller>().and_then(|caller| caller.signature.clone());
        let wrong = |why: String| Problem::request(StatusCode::BAD_REQUEST, why);
        let body = Bytes::from_request(request, state).await.map_err(|error| wrong(error.body_text()))?;
        if !body.is_empty() && !is_json(&headers) {
            let what = "the body is to be sent as application/json";
            return Err(Problem::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
        }
        // no name and no tag of ours holds one, and no database takes one
        if body.windows(6).any(|six| six == br"\u0000") {
            return Err(wrong("a text holds a zero byte".to_owned()));
        }
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let value = serde_json::from_slice(text).map_err(|error| wrong(format!("the body does not fit: {error}")))?;
        let key = match headers.get("idempotency-key") {
            None => signature.map(|signature| format!("signature/{signature}")),
            Some(key) => {
                Some(key.to_str().map_err(|_| wrong("the idempotency key is not ASCII".to_owned()))?.to_owned())
            }
        };
        let path = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
        Ok(Self { value, method, path, body, key })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
