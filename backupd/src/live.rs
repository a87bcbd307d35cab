//! The configuration as it is now: the file, with what was said of clusters through the API.
//!
//! Whoever decides or works by the configuration gets this one. It is read again from the catalog when something was said, a second later in
//! other processes; who must not be late asks for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::Result;

/// How often the catalog is asked whether something was said.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the file and of definitions: those that the present configuration was made of.
type Seen = Option<(Arc<Config>, (i64, i64))>;

/// Keeps the configuration up to date.
#[derive(Debug)]
pub struct Definitions {
    catalog: Catalog,
    file: watch::Receiver<Arc<Config>>,
    merged: watch::Sender<Arc<Config>>,
    seen: Mutex<Seen>,
}

impl Definitions {
    /// Begins with what the file says and what was said until now.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn begin(catalog: Catalog, file: watch::Receiver<Arc<Config>>) -> Result<Arc<Self>> {
        let merged = watch::Sender::new(Arc::clone(&file.borrow()));
        let definitions = Self { catalog, file, merged, seen: Mutex::new(None) };
        definitions.refresh().await?;
        Ok(Arc::new(definitions))
    }

    /// The configuration, now and whenever it changes.
    #[must_use]
    pub fn live(&self) -> watch::Receiver<Arc<Config>> {
        self.merged.subscribe()
    }

    /// Takes over what was said until now.
    ///
    /// # Errors
    /// Those of the catalog; the configuration before holds then.
    pub async fn refresh(&self) -> Result<()> {
        let file = Arc::clone(&self.file.borrow());
        let mark = self.catalog.definitions_mark().await?;
        let is_known = |seen: &Seen| seen.as_ref().is_some_and(|(of, at)| Arc::ptr_eq(of, &file) && *at == mark);
        if is_known(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        // what is said from here on is newer than the mark, and is read the next time
        let rows = self.catalog.definitions().await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.merged.send_replace(Arc::new(file.with_definitions(&rows)));
        *seen = Some((file, mark));
        Ok(())
    }

    /// Takes over what is said, until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut file = self.file.clone();
        while !stop.is_cancelled() {
            if let Err(error) = self.refresh().await {
                tracing::debug!(error = %error, "what was said of clusters could not be read");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                changed = file.changed() => if changed.is_err() { return },
                () = stop.cancelled() => {}
            }
        }
    }
}
