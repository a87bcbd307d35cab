//! TLS to a server: rustls, with the certificates of files or of the system.
//!
//! The files are read for every connection, so a changed one counts from the next connection on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore, crypto};

use super::refusal::refusal;
use super::source::Address;
use crate::certificate::end_of;
use crate::error::{Class, Error, Result};
use crate::task_failed;

/// The longest answer to our first command, in bytes.
const ANSWER_LEN_MAX: usize = 1024;

/// How servers are recognised and how we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that may have signed the server's certificate; those of the system without it.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate (with what signed it) and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the certificates of all servers have; each server's own host without it.
    pub server_name: Option<String>,
}

impl Tls {
    /// Speaks TLS on `stream`, which leads to `address`. When it returns, the server has accepted our certificate:
    /// with TLS 1.3 it judges that only after the handshake, so it is asked one question first.
    ///
    /// # Errors
    /// `SourceAuth` when the server's certificate does not hold or ours is refused, `SourceUnavailable` when it does
    /// not speak TLS or leaves, `Config` when a file cannot be used.
    pub(super) async fn wrap(
        &self,
        address: &Address,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>> {
        let this = self.clone();
        let config = spawn_blocking(move || this.config()).await.map_err(task_failed)??;
        let name = self.server_name.as_deref().unwrap_or(address.host()).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| Error::new(Class::Config, format!("{address}: the server name is no host name")))?;
        let greet = async {
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") && answer.len() < ANSWER_LEN_MAX {
                answer.push(stream.read_u8().await?);
            }
            Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
        };
        let (stream, answer) = match timeout(limit, greet).await {
            Ok(done) => done.map_err(|error| failure(address, &error))?,
            Err(_) => {
                let message = format!("{address}: no TLS within {} ms", limit.as_millis());
                return Err(Error::new(Class::SourceUnavailable, message).hint("check that this is the port with TLS"));
            }
        };
        match answer.trim_end().strip_prefix('-') {
            // such as too many clients; what concerns PING alone (NOAUTH, LOADING) does not matter yet
            Some(text) if text.starts_with("ERR ") => Err(refusal(&address.to_string(), "PING", text)),
            _ => Ok(stream),
        }
    }

    /// When certificates end, in seconds since 1970: that of the server at the other end of `stream`, and ours.
    pub(super) fn ends(&self, address: &Address, stream: &TlsStream<TcpStream>) -> Result<Vec<(String, i64)>> {
        let theirs = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let mut ends: Vec<(String, i64)> =
            theirs.and_then(end_of).map(|end| (address.to_string(), end)).into_iter().collect();
        if let Some((path, _)) = &self.identity {
            let ours = certificates(path)?;
            ends.extend(ours.first().and_then(end_of).map(|end| (path.display().to_string(), end)));
        }
        Ok(ends)
    }

    fn config(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Class::Unforeseen, format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(self.roots()?);
        let Some((cert, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error.to_string()))?;
        builder
            .with_client_auth_cert(certificates(cert)?, key_der)
            .map_err(|error| unusable(cert, &format!("{error} (its key is in {})", key.display())))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                // a broken certificate among those of the system is no reason to distrust the others
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(Error::new(Class::Config, "this system has no certificates of authorities")
                        .hint("give the authority of the servers with --source-ca (of a target: --target-ca)"));
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unusable(path, "there is no certificate in it")),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::new(Class::Config, format!("{}: the TLS file cannot be used: {why}", path.display()))
}

/// What went wrong with TLS, by what rustls says.
fn failure(address: &Address, error: &io::Error) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (class, advice) = match tls {
        Some(rustls::Error::InvalidCertificate(why)) => (Class::SourceAuth, certificate_advice(why)),
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => (
            Class::SourceAuth,
            "the server wants a certificate of us: give --source-cert and --source-key (to a target: --target-cert, --target-key)",
        ),
        Some(rustls::Error::AlertReceived(_)) => (
            Class::SourceAuth,
            "the server refuses us: check --source-cert and --source-key, and the log of the server",
        ),
        Some(rustls::Error::InvalidMessage(_)) => {
            (Class::SourceUnavailable, "the server does not speak TLS here: check the port, or use redis://")
        }
        _ => (Class::SourceUnavailable, "check that the server speaks TLS on this port (tls-port)"),
    };
    Error::new(class, format!("{address}: TLS: {error}")).hint(advice)
}

fn certificate_advice(why: &CertificateError) -> &'static str {
    match why {
        // an authority of the same name with another key
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority that we trust signed the server's certificate: give the right one with --source-ca (of a target: --target-ca)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the server needs a new certificate",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "compare the clocks of both machines"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "reach the server by a name of its certificate, or give one with --source-server-name (of a target: --target-server-name)"
        }
        _ => "look at the server's certificate",
    }
}
