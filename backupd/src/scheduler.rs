//! The scheduler: windows, late jobs, retention, copies by policy, scheduled verification, and the cleaning up of history and leftovers.
//!
//! Any number of them may run: each decision is one write with a unique key or a lease, and whoever comes second does nothing.

mod care;
mod copies;
mod retention;
mod verification;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::jobs::Live;
use crate::telemetry::Telemetry;

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
    repository_ids: copies::Ids,
}

/// What it does, each by itself: a store that does not answer, or has much to clean up, delays no window.
#[derive(Debug, Clone, Copy)]
enum Part {
    Windows,
    Verification,
    Copies,
    Care,
}

impl Part {
    /// How often it looks.
    const fn every(self) -> Duration {
        Duration::from_secs(match self {
            Self::Windows => 1,
            Self::Verification | Self::Copies | Self::Care => 5,
        })
    }
}

impl Scheduler {
    /// One that has looked at nothing yet.
    #[must_use]
    pub fn new(catalog: Catalog, config: Live, telemetry: Arc<Telemetry>, name: String) -> Self {
        Self { catalog, config, telemetry, name, repository_ids: copies::Ids::default() }
    }

    /// Makes passes until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let parts = [Part::Windows, Part::Verification, Part::Copies, Part::Care].into_iter();
        let mut running: JoinSet<()> = parts.map(|part| self.clone().repeat(part, stop.clone())).collect();
        while running.join_next().await.is_some() {}
    }

    async fn repeat(self, part: Part, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let done = match part {
                Part::Windows => self.pass().await,
                Part::Verification => verification::pass(&self, &stop).await,
                Part::Copies => Box::pin(copies::pass(&self, &stop)).await,
                Part::Care => Box::pin(care::pass(&self, &stop)).await,
            };
            let pause = match done {
                Ok(()) => part.every(),
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

    /// One pass over the windows of all clusters.
    ///
    /// # Errors
    /// Those of the catalog. What was decided until then is written, and the next pass goes on.
    async fn pass(&self) -> Result<()> {
        let began = Instant::now();
        let config = Arc::clone(&self.config.borrow());
        let now_ms = self.catalog.now_unix_ms().await?;
        windows::pass(&self.catalog, &config, now_ms).await?;
        windows::late(&self.catalog, &config, now_ms).await?;
        self.telemetry.passed(began.elapsed());
        self.telemetry.catalog_answered();
        Ok(())
    }
}
