//! Notes of the commands in the catalog. It is an index of the repository, so what it cannot take is a warning.

use crate::catalog::{Catalog, Location};
use crate::error::{Error, Result};

/// Opens the catalog, if there is one, and notes something there; `what` is what the warning calls it.
pub(super) async fn noted(location: Option<&Location>, what: &str, note: impl AsyncFnOnce(&Catalog) -> Result<()>) {
    let Some(location) = location else { return };
    let done = async {
        let catalog = Catalog::open(location).await?;
        note(&catalog).await?;
        catalog.close().await;
        Ok::<_, Error>(())
    };
    if let Err(error) = done.await {
        tracing::warn!(%error, "{what} could not be noted in the catalog");
    }
}
