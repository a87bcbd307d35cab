//! Until when certificates are valid.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// The last second of a certificate, since 1970; `None` when it cannot be read, which rustls judges elsewhere.
#[must_use]
pub fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// The same of the first certificate of a file.
#[must_use]
pub fn valid_until(path: &Path) -> Option<i64> {
    end_of(&CertificateDer::pem_file_iter(path).ok()?.next()?.ok()?)
}
