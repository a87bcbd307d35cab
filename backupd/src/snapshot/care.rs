//! What captures may cost their source: budgets that are watched while they run, how many run together, how fast.

use std::time::Duration;

use policies::budget::{Budget, Load, exceeded};
use policies::waves::Limits;
use tokio::time::{Instant, sleep};

use crate::error::{Class, Error, Result};
use crate::pipeline::{Flow, Meter};
use crate::redis::{Client, Node, SourceOptions, connect, load};

/// Between two looks at a server that serves a capture.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the captures of a job may cost.
#[derive(Debug, Clone)]
pub struct Care {
    /// What one capture may cost its server.
    pub budget: Budget,
    /// How many captures may run at the same time.
    pub limits: Limits,
    /// Where frames wait for the store, and how fast bytes go.
    pub flow: Flow,
}

impl Care {
    /// Watches `node` until the capture costs it more than the budget allows; says why. Never ends otherwise.
    ///
    /// A node that does not answer is asked again: whether it still serves shows in the capture itself.
    pub(super) async fn watch(&self, node: &Node, source: &SourceOptions, meter: &Meter) -> Error {
        let (begun, mut client): (Instant, Option<Client>) = (Instant::now(), None);
        let mut before: Option<Load> = None;
        loop {
            let now = match look(&mut client, node, source).await {
                Ok(now) => {
                    meter.cost(now.copied);
                    before.get_or_insert(now);
                    now
                }
                Err(error) => {
                    tracing::debug!(%error, "what the capture costs could not be asked");
                    client = None;
                    // what is not known is not limited, but the time is
                    before.unwrap_or_default()
                }
            };
            let first = before.unwrap_or(now);
            if let Some(why) = exceeded(&self.budget, &first, &now, begun.elapsed().as_secs()) {
                return Error::new(Class::Refused, format!("the capture was ended to spare the server: {why}")).hint(
                    "capture at a quieter time or from another node, or raise the limit in the section [capture] of \
                     the configuration",
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Asks over the same connection, as long as that lives.
async fn look(client: &mut Option<Client>, node: &Node, source: &SourceOptions) -> Result<Load> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(&node.address, source).await?),
    };
    load(client).await
}

/// The outcome of `capture`, unless `watch` ends before: then `stop` is called, and its error is the outcome once the
/// capture has ended.
pub(super) async fn watched<T>(
    capture: impl Future<Output = Result<T>>,
    watch: impl Future<Output = Error>,
    stop: impl FnOnce(),
) -> Result<T> {
    let (mut capture, watch) = (Box::pin(capture), Box::pin(watch));
    tokio::select! {
        outcome = &mut capture => outcome,
        error = watch => {
            stop();
            // it may have succeeded in that moment
            capture.await.map_err(|_| error)
        }
    }
}
