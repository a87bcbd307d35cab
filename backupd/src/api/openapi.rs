//! The description of the API (OpenAPI 3.1), made from the routes, and the rules that stand in it.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::Method;
use axum::response::IntoResponse;
use policies::access::Action;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi as _, openapi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, clusters, costs, events, grants, jobs, problem, progress, restores, retention, snapshots, work};

/// Where a route says what it does.
pub(super) const ACTION: &str = "x-action";

/// What every route may answer when it does not do what was asked.
const PROBLEMS: [(&str, &str); 15] = [
    ("400", "The request is wrong."),
    ("401", "Nobody is known by these credentials, or they have expired."),
    ("403", "The role may not do that."),
    ("404", "There is no such thing, or none that the caller may know of."),
    ("405", "The path has no such method."),
    ("408", "The body did not come in time."),
    ("409", "Its state, another job or a policy forbids it."),
    ("413", "The body is too large."),
    ("415", "The body is no JSON."),
    ("422", "A format or engine version does not fit."),
    ("429", "Too many requests in a second."),
    ("431", "The head of the request is too large."),
    ("500", "The daemon failed."),
    ("502", "A server or store refused the daemon."),
    ("503", "A server or store cannot be reached, or too much is going on."),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "backupd", description = "Snapshots of Redis and Valkey: made, verified, copied, restored."),
    components(schemas(problem::Problem)),
    modifiers(&Credentials),
    security(("bearer" = []), ("signature" = [])),
)]
struct Base;

#[derive(Debug)]
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let words = "AWS Signature Version 4 with an access key, for the service `backupd`, in any region.";
        let header = ApiKeyValue::with_description("Authorization", words);
        components.add_security_scheme("signature", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// All routes that have a description.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(clusters::whoami))
        .routes(routes!(clusters::list))
        .routes(routes!(clusters::show, clusters::remove))
        .routes(routes!(clusters::windows))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::show, snapshots::delete))
        .routes(routes!(work::verify))
        .routes(routes!(work::copy))
        .routes(routes!(work::export))
        .routes(routes!(work::keep))
        .routes(routes!(work::release))
        .routes(routes!(restores::list, restores::create))
        .routes(routes!(restores::plan))
        .routes(routes!(restores::show))
        .routes(routes!(retention::plan))
        .routes(routes!(costs::show))
        .routes(routes!(grants::list, grants::add))
        .routes(routes!(grants::revoke))
        .routes(routes!(events::list))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(progress::watch))
}

/// The description.
#[must_use]
pub fn document() -> OpenApi {
    let (_, mut document) = routes().split_for_parts();
    for item in document.paths.paths.values_mut() {
        for (_, operation) in operations_mut(item) {
            for (status, words) in PROBLEMS {
                let content = Content::new(Some(Ref::from_schema_name("Problem")));
                let response = ResponseBuilder::new().description(words).content("application/problem+json", content);
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_owned()).or_insert_with(|| openapi::RefOr::T(response.build()));
            }
        }
    }
    document
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// What the routes of each path do. A route that does not say so is not in it, and is refused to everybody.
pub(super) fn rules(document: &OpenApi) -> BTreeMap<String, Vec<(Method, Action)>> {
    let mut rules = BTreeMap::new();
    for (path, item) in &document.paths.paths {
        let mut item = item.clone();
        let action = |operation: &Operation| Action::of(operation.extensions.as_ref()?.get(ACTION)?.as_str()?);
        let known = operations_mut(&mut item).filter_map(|(method, it)| action(it).map(|action| (method, action)));
        rules.insert(path.clone(), known.collect());
    }
    rules
}

/// `GET /v1/openapi.json`
pub(super) async fn answer() -> impl IntoResponse {
    Json(document())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of who may what is made from the routes, so a route without a rule is found here.
    #[test]
    fn every_route_says_what_it_does() {
        let document = document();
        let rules = rules(&document);
        for (path, item) in &document.paths.paths {
            let mut item = item.clone();
            let methods: Vec<Method> = operations_mut(&mut item).map(|(method, _)| method).collect();
            assert!(!methods.is_empty(), "{path}");
            for method in methods {
                assert!(rules[path].iter().any(|(known, _)| *known == method), "{method} {path} has no rule");
            }
        }
    }
}
