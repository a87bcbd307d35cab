//! Connections: how many, how they begin, how long their heads may take, and how they end with the daemon.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{Request, header};
use axum::response::Response;
use axum::{BoxError, Router};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::crowd::{Crowd, Place};
use super::tls::Certificates;
use crate::config::api::{Limits, ServerTls};
use crate::error::{Class, Error, Result};

/// How long a TLS handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// How long open requests may go on when the daemon ends.
const END_WAIT: Duration = Duration::from_secs(5);

/// The pause after a connection could not be taken, such as when there are no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The type of a stream of progress.
const STREAM: &str = "text/event-stream";

/// A listener, and its certificate where it has one.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

impl Listener {
    /// Listens, and reads the certificate.
    ///
    /// # Errors
    /// `Config` when it cannot be listened there, or a file cannot be used.
    pub async fn bind(address: SocketAddr, tls: Option<&ServerTls>) -> Result<Self> {
        let certificates = tls.map(|files| Certificates::read(files.clone()).map(Arc::new)).transpose()?;
        let tcp = TcpListener::bind(address).await.map_err(|error| {
            Error::new(Class::Config, format!("{address} cannot be listened at: {error}")).hint("see `listen` in [api]")
        })?;
        Ok(Self { tcp, certificates })
    }

    /// Serves until `stop`; what is being answered then has a few seconds to end.
    pub async fn serve(self, router: Router, limits: Limits, stop: CancellationToken) {
        let (crowd, graceful) = (Crowd::new(limits.connections), GracefulShutdown::new());
        loop {
            let accepted = tokio::select! {
                accepted = async {
                    let (stream, _) = self.tcp.accept().await?;
                    std::io::Result::Ok((stream, crowd.enter().await))
                } => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, place)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (router, certificates, watcher) = (router.clone(), self.certificates.clone(), graceful.watcher());
            let heads = Heads { bytes_max: limits.header_bytes, wait: HEAD_WAIT.min(limits.request_time) };
            tokio::spawn(async move {
                tokio::select! {
                    () = converse(stream, certificates, &place, router, heads, watcher) => {}
                    () = place.is_wanted() => {}
                }
            });
        }
        drop(self.tcp);
        if timeout(END_WAIT, graceful.shutdown()).await.is_err() {
            tracing::info!("connections that did not end are closed");
        }
    }
}

/// What the head of a request may cost.
#[derive(Debug, Clone, Copy)]
struct Heads {
    bytes_max: usize,
    wait: Duration,
}

async fn converse(
    stream: TcpStream,
    certificates: Option<Arc<Certificates>>,
    place: &Arc<Place>,
    router: Router,
    heads: Heads,
    watcher: Watcher,
) {
    let Some(certificates) = certificates else { return answer(stream, place, router, heads, watcher).await };
    if let Some(stream) = greet(stream, &certificates).await {
        answer(stream, place, router, heads, watcher).await;
    }
}

async fn greet(stream: TcpStream, certificates: &Certificates) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let acceptor = tokio_rustls::TlsAcceptor::from(certificates.current());
    match timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Arc<Place>,
    router: Router,
    heads: Heads,
    watcher: Watcher,
) {
    let place = Arc::clone(place);
    let service = tower::service_fn(move |request| placed(router.clone(), Arc::clone(&place), request));
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(heads.wait).max_buf_size(heads.bytes_max);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(error = %error, "a connection ended");
    }
}

/// Answers a request. Its connection waits for the client before and afterwards, but for a stream of progress, of which there are few.
async fn placed<B>(mut router: Router, place: Arc<Place>, mut request: Request<B>) -> Result<Response, Infallible>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    request.extensions_mut().insert(Arc::clone(&place));
    let response = router.call(request).await?;
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind.as_bytes() != STREAM.as_bytes()) {
        place.waits();
    }
    Ok(response)
}
