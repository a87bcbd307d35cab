//! Waiting for a source that is in a failover, a migration of slots, or without a node that can serve.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::redis::{self, SourceOptions, Topology};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks again and again until `look` succeeds, fails for good, or `wait` is over; then its last error stands.
pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(
    wait: Duration,
    cancel: &CancellationToken,
    mut look: impl FnMut() -> F,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look().await {
            Err(error) if error.is_retryable() && begun.elapsed() < wait => {
                tracing::info!(error = %error, "waiting for the source");
                tokio::select! {
                    () = sleep(LOOK_EVERY) => {}
                    () = cancel.cancelled() => return Err(error),
                }
            }
            outcome => return outcome,
        }
    }
}

/// The shape of the source, once it is undisputed. What makes it unreachable is not waited for.
///
/// # Errors
/// As [`redis::discover`], and as [`settled`] when `wait` is over.
pub(super) async fn discover(source: &SourceOptions, wait: Duration, cancel: &CancellationToken) -> Result<Topology> {
    let look = || async {
        match redis::discover(source).await {
            Ok(topology) => settled(topology).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    };
    patiently(wait, cancel, look).await?
}

/// The topology, if it is undisputed.
///
/// # Errors
/// `Refused` while slots are on their way, `SourceUnavailable` while nodes disagree; both retryable.
pub(super) fn settled(topology: Topology) -> Result<Topology> {
    let Some(what) = topology.unsettled() else { return Ok(topology) };
    let class = if topology.migrating.is_empty() { Class::SourceUnavailable } else { Class::Refused };
    Err(Error::new(class, what)
        .hint("wait until the failover or resharding is done (`redis-cli --cluster check` tells), then try again")
        .retryable(true))
}
