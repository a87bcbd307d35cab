//! The certificate of the API: read again when its files change, so that a renewed one needs no restart.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::config::api::ServerTls;
use crate::error::{Class, Error, Result};

/// What tells that files changed: when they were written, and their lengths.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Files, and what they said last.
#[derive(Debug)]
pub(super) struct Certificates {
    files: ServerTls,
    read: Mutex<(Stamp, Arc<ServerConfig>)>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// `Config`, naming the file.
    pub(super) fn read(files: ServerTls) -> Result<Self> {
        let read = (stamp(&files), Arc::new(load(&files)?));
        Ok(Self { files, read: Mutex::new(read) })
    }

    /// What holds now. Files that cannot be used change nothing.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.files);
        if now != read.0 {
            match load(&self.files) {
                Ok(config) => {
                    tracing::info!(file = %self.files.cert.display(), "the certificate of the API was read again");
                    *read = (now, Arc::new(config));
                }
                // told once for each change
                Err(error) => {
                    tracing::warn!(error = %error, "the new certificate of the API is not used, the one before holds");
                    read.0 = now;
                }
            }
        }
        Arc::clone(&read.1)
    }
}

fn stamp(files: &ServerTls) -> Stamp {
    let of = |path: &Path| {
        let known = std::fs::metadata(path).ok()?;
        Some((known.modified().ok()?, known.len()))
    };
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten().map(|path| of(path)).collect()
}

fn load(files: &ServerTls) -> Result<ServerConfig> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let unusable = |path: &Path, why: String| Error::new(Class::Config, format!("{}: {why}", path.display()));
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        match read {
            Ok(read) if Vec::is_empty(&read) => Err(unusable(path, "it holds no certificate".to_owned())),
            read => read.map_err(|error| unusable(path, error.to_string())),
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Class::Unforeseen, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(path, error.to_string()))?)
        }
    };
    let config = builder.with_single_cert(certificates(&files.cert)?, key);
    config.map_err(|error| unusable(&files.cert, error.to_string()))
}
