//! The client of a bucket: credentials, region, endpoint, timeouts, retries.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};

use super::patience::Patience;
use crate::error::{Class, Error, Result};
use crate::store::{BucketUrl, Style};
use crate::traffic::Counting;

/// How often a request is sent in all, before its error is told.
const ATTEMPTS_MAX: u32 = 5;

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to put the parts of an object together.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);

/// The region when an endpoint is given and no region: servers other than AWS use it or ignore it.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// Makes the client.
pub(super) async fn client(url: &BucketUrl, credentials: Option<Credentials>, patience: Patience) -> Result<Client> {
    let shared = shared(url, credentials, patience).await;
    if shared.region().is_none() {
        return Err(Error::new(Class::Config, format!("no region is known for the bucket `{}`", url.bucket))
            .hint("add ?region=… to the repository URL, or set AWS_REGION"));
    }
    let path = match url.style {
        Some(style) => style == Style::Path,
        None => named_endpoint(url) || shared.endpoint_url().is_some(),
    };
    let config = Builder::from(&shared)
        .force_path_style(path)
        .interceptor(Counting)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Ok(Client::from_conf(config.build()))
}

async fn shared(url: &BucketUrl, credentials: Option<Credentials>, patience: Patience) -> SdkConfig {
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX);
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region(url))
        .retry_config(retries.with_initial_backoff(patience.backoff).with_max_backoff(BACKOFF_MAX))
        .timeout_config(attempt_within(patience.stall))
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(patience.stall).build());
    let loader = match &url.profile {
        // A profile that is asked for by name wins over credentials in the environment.
        Some(profile) => loader
            .profile_name(profile)
            .credentials_provider(ProfileFileCredentialsProvider::builder().profile_name(profile).build()),
        None => loader,
    };
    let loader = match &url.endpoint {
        Some(endpoint) => loader.endpoint_url(endpoint),
        None => loader,
    };
    let loader = match credentials {
        Some(credentials) => loader.credentials_provider(credentials),
        None => loader,
    };
    loader.load().await
}

/// The region of the URL, of the environment, or of the profile. Behind an endpoint a last default spares the
/// question to the metadata service of a cloud machine.
fn region(url: &BucketUrl) -> RegionProviderChain {
    let profile = ProfileFileRegionProvider::builder();
    let profile = match &url.profile {
        Some(name) => profile.profile_name(name),
        None => profile,
    };
    let chain = RegionProviderChain::first_try(url.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    if named_endpoint(url) {
        chain.or_else(Region::from_static(REGION_OF_ENDPOINTS))
    } else {
        chain.or_default_provider()
    }
}

/// Whether the URL or the environment names an endpoint.
fn named_endpoint(url: &BucketUrl) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    url.endpoint.is_some() || is_set("AWS_ENDPOINT_URL_S3") || is_set("AWS_ENDPOINT_URL")
}

fn attempt_within(time: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(time)
        .operation_attempt_timeout(time.saturating_add(CONNECT_TIMEOUT))
        .build()
}

/// The time for a request with a body of `length` bytes.
pub(super) fn time_for(patience: Patience, length: u64) -> Builder {
    Builder::new().timeout_config(attempt_within(patience.time_for(length)))
}

/// The time for putting the parts together.
pub(super) fn time_to_complete() -> Builder {
    Builder::new().timeout_config(attempt_within(COMPLETE_TIMEOUT))
}
