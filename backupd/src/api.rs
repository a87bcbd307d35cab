//! The API of the daemon: REST under `/v1`, its description, and a page that explores it; and the Query API of ElastiCache at `/` (`query`),
//! whose requests are signed (`sigv4`).
//!
//! A request passes, from the outside in: the limits (`limits`: size, time, how many at once), who asks and whether the role may do that at all
//! (`auth`, by the rule that each route has in its description), the route, which asks whether the caller may do it to this very thing, and
//! the services (`crate::service`). Everything that goes wrong is a problem of RFC 9457 (`problem`).
//!
//! The rule of a route is its `x-action`, a name of [`policies::access::Action`]. A route without one is refused to everybody.

pub mod auth;
mod bodies;
mod clusters;
mod costs;
mod crowd;
mod events;
mod explorer;
mod extract;
mod grants;
mod jobs;
pub mod limits;
pub mod listen;
mod openapi;
pub mod problem;
mod progress;
pub mod query;
mod restores;
mod retention;
pub mod sigv4;
mod snapshots;
mod spoken;
mod tls;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};
use policies::access::{Action, Resource};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::api::Limits;
use crate::error::{Error, Result};
use crate::jobs::seen::Watch;
use crate::live::Definitions;
use crate::service::Services;
use auth::Caller;
use bodies::Bodies;
use limits::Rates;
pub use openapi::document;
use problem::Problem;
use query::call::Query;

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    query: Query,
    limits: Limits,
    rates: Rates,
    bodies: Bodies,
    working: Semaphore,
    streams: Arc<Semaphore>,
    rules: BTreeMap<String, Vec<(Method, Action)>>,
    /// The daemon is ending.
    stop: CancellationToken,
}

impl Api {
    /// An API of these services.
    #[must_use]
    pub fn new(services: Services, definitions: Arc<Definitions>, limits: &Limits, stop: CancellationToken) -> Self {
        let inner = Inner {
            query: Query { services, definitions, watch: Watch::default() },
            rates: Rates::new(limits.requests_per_second),
            bodies: Bodies::new(limits.body_bytes, limits.bodies_bytes),
            working: Semaphore::new(limits.concurrency),
            streams: Arc::new(Semaphore::new(limits.concurrency)),
            limits: limits.clone(),
            rules: openapi::rules(&document()),
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the daemon can be asked for.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.inner.query.services
    }

    /// What the Query API is answered from.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.inner.query
    }

    /// Counts a request of a caller. False when it is one too many.
    #[must_use]
    pub fn admits(&self, caller: &str) -> bool {
        self.inner.rates.admits(caller, tokio::time::Instant::now())
    }

    /// Whether the caller may do what its route does to this very thing. Who must not know that it is there is told what `unknown` says.
    ///
    /// # Errors
    /// 403 for the role, 404 for the scope; those of the catalog.
    pub async fn may(
        &self,
        caller: &Caller,
        resource: Resource<'_>,
        subject: &str,
        unknown: impl FnOnce() -> Error,
    ) -> Result<(), Problem> {
        let decision = self.services().decide(&caller.principal, caller.action, resource, subject).await?;
        match decision.is_allowed() {
            true => Ok(()),
            false if decision.hides() => Err(unknown().into()),
            false => Err(Problem::denied(decision)),
        }
    }
}

/// All routes.
pub fn router(api: &Api) -> Router {
    let (rest, _) = openapi::routes().split_for_parts();
    let rest = rest
        .method_not_allowed_fallback(|| async { Problem::method() })
        .route_layer(from_fn_with_state(api.clone(), auth::layer));
    // what describes the API holds no secrets, and a page cannot show who loads it
    let open = Router::new()
        .route("/v1/openapi.json", get(openapi::answer))
        .route("/explorer", get(explorer::page))
        .route("/explorer.js", get(explorer::script));
    rest.merge(open)
        .route("/", any(query::answer::answer))
        .fallback(|| async { Problem::no_route() })
        .layer(from_fn_with_state(api.clone(), limits::layer))
        .layer(from_fn(query::answer::layer))
        .layer(from_fn(explorer::harden))
        .with_state(api.clone())
}
