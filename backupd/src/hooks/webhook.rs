//! An HTTP POST for each event, signed so that the receiver knows that it is ours: HMAC-SHA256 over the time, a dot and the body.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::Sha256;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::catalog::EventRow;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::secret::{self, Password};

/// Keeps its connections and the authorities of the system, for all hooks.
pub(super) type Client = client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(super) fn client() -> Result<Client> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(aws_lc_rs::default_provider())
        .map_err(|error| Error::new(Class::Config, format!("the authorities of the system cannot be read: {error}")))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(client::legacy::Client::builder(TokioExecutor::new()).build(connector))
}

pub(super) async fn tell(client: &Client, url: &str, key: &Password, event: &EventRow) -> Result<()> {
    let failed = |why: String| Error::new(Class::Unforeseen, format!("{url}: {why}"));
    let body = serde_json::to_vec(event).map_err(|error| failed(error.to_string()))?;
    let sent_s = (clock::unix_ms(clock::now()) / 1000).to_string();
    let key = secret::read(Some(key))?.ok_or_else(|| failed("it has no secret".to_owned()))?;
    let signature = sign(key.reveal().as_bytes(), &sent_s, &body)?;
    let request =
        hyper_util_request(url, &sent_s, &signature, event, body).map_err(|error| failed(error.to_string()))?;
    let response = client.request(request).await.map_err(|error| failed(format!("it cannot be reached: {error}")))?;
    if response.status().is_success() { Ok(()) } else { Err(failed(format!("it answered {}", response.status()))) }
}

fn hyper_util_request(
    url: &str,
    sent_s: &str,
    signature: &str,
    event: &EventRow,
    body: Vec<u8>,
) -> axum::http::Result<axum::http::Request<Full<Bytes>>> {
    axum::http::Request::post(url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("backupd/", env!("CARGO_PKG_VERSION")))
        .header("x-backupd-event", &event.code)
        .header("x-backupd-delivery", &event.event_id)
        .header("x-backupd-timestamp", sent_s)
        .header("x-backupd-signature", signature)
        .body(Full::new(Bytes::from(body)))
}

fn sign(key: &[u8], sent_s: &str, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|error| Error::new(Class::Config, format!("the secret of a hook cannot be used: {error}")))?;
    mac.update(sent_s.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    /// `printf '17.{}' | openssl dgst -sha256 -hmac key`
    #[test]
    fn a_signature_is_what_other_tools_make() {
        assert_eq!(
            super::sign(b"key", "17", b"{}").unwrap(),
            "sha256=e66392eac42eafc68c35a01c712811e016386c12456975fc3af80c9268568e3a"
        );
    }
}
