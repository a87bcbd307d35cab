//! What the daemon answers over HTTP: whether it lives, whether it is ready, and its metrics.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::certificate::valid_until;
use crate::error::{Class, Error, Result};
use crate::telemetry::{Known, Telemetry};

/// What is answered from.
#[derive(Debug, Clone)]
pub struct Served {
    /// The catalog.
    pub catalog: Catalog,
    /// What was counted.
    pub telemetry: Arc<Telemetry>,
    /// The file with the certificate of the API, when it has one.
    pub certificate: Option<PathBuf>,
    /// The daemon is ending.
    pub stop: CancellationToken,
}

/// Listens. Only an address of this machine is accepted, since nobody is asked who they are.
///
/// # Errors
/// `Refused` for another address, `Config` when it cannot be listened at.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        let what = format!("{address} can be reached from other machines, and nothing here asks who they are");
        return Err(
            Error::new(Class::Refused, what).hint("listen at 127.0.0.1, and put a proxy with authentication before it")
        );
    }
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(Class::Config, format!("{address} cannot be listened at: {error}")).hint("see `listen` in [daemon]")
    })
}

/// Answers until `ended`, which comes when all work of the daemon has ended.
pub async fn serve(listener: TcpListener, served: Served, ended: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(served);
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { ended.cancelled().await });
    if let Err(error) = serving.await {
        tracing::error!(error = %error, "nothing is answered over HTTP any more");
    }
}

async fn ready(State(served): State<Served>) -> Response {
    if served.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n").into_response();
    }
    match served.catalog.now_unix_ms().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.message())).into_response(),
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let catalog = &served.catalog;
    let read = async {
        Ok::<_, Error>(Known {
            schedules: catalog.schedules().await?,
            jobs: catalog.open_jobs().await?,
            snapshots: catalog.count_snapshots().await?,
            leases: catalog.leases_held(catalog.now_unix_ms().await?).await?,
        })
    };
    if let Some(until) = served.certificate.as_deref().and_then(valid_until) {
        served.telemetry.certificate(until);
    }
    match read.await {
        Ok(known) => {
            served.telemetry.catalog_answered();
            served.telemetry.take_over(&known);
        }
        // what was known before is told, with catalog_up 0
        Err(error) => served.telemetry.catalog_failed(&error),
    }
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match served.telemetry.text() {
        Ok(text) => (kind, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.message().to_owned()).into_response(),
    }
}
