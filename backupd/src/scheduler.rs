//! The scheduler: windows, late jobs, retention, scheduled verification, and the cleaning up of history and leftovers.
//!
//! Any number of them may run: each decision is one write with a unique key or a lease, and whoever comes second does nothing.

mod care;
mod retention;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::jobs::Live;
use crate::telemetry::Telemetry;

/// How often a pass begins.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// The wait after the catalog could not be reached.
const PAUSE: Duration = Duration::from_secs(2);

/// The scheduler of this process.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// What is known and decided.
    pub catalog: Catalog,
    /// The clusters.
    pub config: Live,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Different for every process.
    pub name: String,
}

impl Scheduler {
    /// Makes passes until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match Box::pin(self.pass()).await {
                Ok(()) => PASS_EVERY,
                Err(error) => {
                    self.telemetry.catalog_failed(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// One pass over all clusters.
    ///
    /// # Errors
    /// Those of the catalog. What was decided until then is written, and the next pass goes on.
    pub async fn pass(&self) -> Result<()> {
        let began = Instant::now();
        let config = Arc::clone(&self.config.borrow());
        let now_ms = self.catalog.now_unix_ms().await?;
        windows::pass(&self.catalog, &config, now_ms).await?;
        windows::late(&self.catalog, now_ms).await?;
        care::pass(self, &config, now_ms).await?;
        self.telemetry.passed(began.elapsed(), now_ms);
        self.telemetry.catalog_answered();
        Ok(())
    }
}
