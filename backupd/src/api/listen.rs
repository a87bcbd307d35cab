//! Connections: how many, how they begin, how long their heads may take, and how they end with the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

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
        let (connections, graceful) = (Arc::new(Semaphore::new(limits.connections)), GracefulShutdown::new());
        loop {
            let accepted = tokio::select! {
                accepted = async {
                    let place = Arc::clone(&connections).acquire_owned().await;
                    (place, self.tcp.accept().await)
                } => accepted,
                () = stop.cancelled() => break,
            };
            let (Ok(place), Ok((stream, _))) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (router, certificates, watcher) = (router.clone(), self.certificates.clone(), graceful.watcher());
            let heads = Heads { bytes_max: limits.header_bytes, wait: HEAD_WAIT.min(limits.request_time) };
            tokio::spawn(async move {
                converse(stream, certificates, router, heads, watcher).await;
                drop(place);
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
    router: Router,
    heads: Heads,
    watcher: Watcher,
) {
    let Some(certificates) = certificates else { return answer(stream, router, heads, watcher).await };
    if let Some(stream) = greet(stream, &certificates).await {
        answer(stream, router, heads, watcher).await;
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
    router: Router,
    heads: Heads,
    watcher: Watcher,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(heads.wait).max_buf_size(heads.bytes_max);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(error = %error, "a connection ended");
    }
}
