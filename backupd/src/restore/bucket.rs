//! RDB files into a bucket.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::progress::Progress;
use crate::store::Store;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Refuses a bucket that has one of `names` already.
///
/// # Errors
/// `Refused`, naming the first; what the store says.
pub(super) async fn check_free(store: &Arc<dyn Store>, names: &[String]) -> Result<()> {
    for name in names {
        if store.size(name).await?.is_some() {
            return Err(Error::new(Class::Refused, format!("`{name}` is in {} already", store.url()))
                .hint("a restore never writes over what is there: give another prefix"));
        }
    }
    Ok(())
}

/// Uploads files of `dir`, in their order. When one fails those before it are removed again.
///
/// # Errors
/// What the store says; `Unforeseen` when interrupted or a file cannot be read.
pub(super) async fn upload(
    store: &Arc<dyn Store>,
    dir: &Path,
    names: &[String],
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    for (count, name) in names.iter().enumerate() {
        if let Err(error) = upload_one(store, dir, name, progress, cancel).await {
            for name in names.iter().take(count) {
                if let Err(left) = store.delete(name).await {
                    tracing::warn!(name, error = %left, "a file of the failed restore is left behind");
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

async fn upload_one(
    store: &Arc<dyn Store>,
    dir: &Path,
    name: &str,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let unreadable = |error: std::io::Error| Error::new(Class::Unforeseen, format!("{name}: cannot be read: {error}"));
    let mut file = tokio::fs::File::open(dir.join(name)).await.map_err(unreadable)?;
    let bytes = file.metadata().await.map_err(unreadable)?.len();
    let meter = progress.row(name.to_owned(), Some(bytes));
    let mut upload = store.upload(name, bytes).await?;
    let written = async {
        let mut moved = 0;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            if file.read_buf(&mut chunk).await.map_err(unreadable)? == 0 {
                return Ok(());
            }
            if cancel.is_cancelled() {
                return Err(Error::new(Class::Unforeseen, "interrupted").hint("nothing was left; run it again"));
            }
            moved += chunk.len() as u64;
            upload.write(Bytes::from(chunk)).await?;
            meter.moved(moved);
        }
    };
    match written.await {
        Ok(()) => upload.complete().await,
        Err(error) => {
            if let Err(left) = upload.abort().await {
                tracing::warn!(name, error = %left, "an unfinished upload may be left behind");
            }
            Err(error)
        }
    }
}
