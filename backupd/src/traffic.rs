//! What was asked of buckets, counted for the whole process: every request that was sent, also those of retries.

use std::sync::LazyLock;

use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What was asked, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// The operation, as S3 calls it.
    pub op: String,
    /// The HTTP status; `none` without an answer.
    pub code: String,
}

/// Counts of this process.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests, by operation and answer.
    pub requests: Family<Request, Counter>,
    /// Those that repeated another one.
    pub retries: Counter,
    /// Multipart uploads that were begun here and not ended.
    pub uploads_open: Gauge,
    /// Multipart uploads that were aborted.
    pub uploads_aborted: Counter,
}

static TRAFFIC: LazyLock<Traffic> = LazyLock::new(Traffic::default);

/// The counts.
#[must_use]
pub fn traffic() -> &'static Traffic {
    &TRAFFIC
}

/// Counts the requests of a client.
#[derive(Debug)]
pub(crate) struct Counting;

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "Counting"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let op = config.load::<Metadata>().map_or_else(|| "other".to_owned(), |metadata| metadata.name().to_owned());
        let code = context.response().map_or_else(|| "none".to_owned(), |answer| answer.status().as_u16().to_string());
        traffic().requests.get_or_create(&Request { op, code }).inc();
        if config.load::<RequestAttempts>().is_some_and(|attempts| attempts.attempts() > 1) {
            traffic().retries.inc();
        }
        Ok(())
    }
}
