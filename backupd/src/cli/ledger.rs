//! Audit lines of what is done on the command line, in the catalog of the configuration. What names its repository by a URL is in no
//! catalog, and whoever may write there could do the same without this program.

use std::future::Future;

use crate::catalog::{Catalog, Location};
use crate::error::{Error, Result};
use crate::host;

/// Where lines are written.
#[derive(Debug)]
pub struct Ledger {
    catalog: Option<Catalog>,
    /// Nothing is done without its line.
    strict: bool,
}

impl Ledger {
    /// For what cannot be undone: it is not done when its line cannot be written. Nothing is written where no catalog is configured.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn strict(location: Option<&Location>) -> Result<Self> {
        let catalog = match location {
            Some(location) => Some(Catalog::open(location).await.map_err(not_without)?),
            None => None,
        };
        Ok(Self { catalog, strict: true })
    }

    /// For what must work when the catalog is lost: a line that cannot be written is a warning.
    pub async fn lenient(location: Option<&Location>) -> Self {
        let opened = match location {
            Some(location) => Catalog::open(location).await.map(Some),
            None => Ok(None),
        };
        let catalog = opened.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "no audit line can be written");
            None
        });
        Self { catalog, strict: false }
    }

    /// Writes a line, does it, and writes another line when it failed.
    ///
    /// # Errors
    /// What the deed says, and what the catalog says where nothing is done without a line.
    pub async fn around<T>(
        &self,
        action: &str,
        subject: &str,
        details: &str,
        deed: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.note(action, subject, details).await {
            Err(error) if self.strict => return Err(not_without(error)),
            Err(error) => tracing::warn!(error = %error, action, subject, "the audit line could not be written"),
            Ok(()) => {}
        }
        let done = deed.await;
        if let Err(error) = &done
            && let Err(unwritten) = self.note(&format!("{action}.failed"), subject, error.message()).await
        {
            tracing::warn!(error = %unwritten, action, subject, "that it failed could not be written to the audit lines");
        }
        done
    }

    /// The catalog, where one is configured and could be opened.
    #[must_use]
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref()
    }

    /// Notes that a snapshot is gone. The catalog is only an index of the repository, so that it cannot be noted is a warning.
    pub async fn removed(&self, repository_id: &str, snapshot_id: &str) {
        let Some(catalog) = &self.catalog else { return };
        let noted = async {
            let now_ms = catalog.now_unix_ms().await?;
            catalog.mark_snapshot_removed(repository_id, snapshot_id, now_ms).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(error = %error, "the removal could not be noted in the catalog");
        }
    }

    async fn note(&self, action: &str, subject: &str, details: &str) -> Result<()> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        catalog.audit(&who(), action, subject, details, catalog.now_unix_ms().await?).await
    }
}

fn not_without(error: Error) -> Error {
    let hint = "nothing is done without its audit line; a repository that is named by its URL is in no catalog";
    error.at("the audit line cannot be written").hint(hint)
}

/// User and host.
#[must_use]
pub fn who() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{}", host::name())
}
