//! RDB files into a bucket.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::nodes::Unfinished;
use crate::progress::Progress;
use crate::store::Store;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Refuses a bucket that has one of `names` already. Where an attempt before this one may have left files they are compared later.
///
/// # Errors
/// `Refused`, naming the first; what the store says.
pub(super) async fn check_free(store: &Arc<dyn Store>, names: &[String], unfinished: Unfinished) -> Result<()> {
    if unfinished != Unfinished::Refuse {
        return Ok(());
    }
    for name in names {
        if store.size(name).await?.is_some() {
            return Err(taken(store, name, ""));
        }
    }
    Ok(())
}

fn taken(store: &Arc<dyn Store>, name: &str, how: &str) -> Error {
    Error::new(Class::Refused, format!("`{name}` is in {} already{how}", store.url()))
        .hint("a restore never writes over what is there: give another prefix")
}

/// Uploads files of `dir`, in their order. When one fails those before it are removed again. What an attempt before this one has uploaded
/// is there with the same bytes, and what it was still uploading is given up.
///
/// # Errors
/// What the store says; `Refused` when something else is there; `Unforeseen` when interrupted or a file cannot be read.
pub(super) async fn upload(
    store: &Arc<dyn Store>,
    dir: &Path,
    names: &[String],
    unfinished: Unfinished,
    (progress, cancel): (&Progress, &CancellationToken),
) -> Result<()> {
    if unfinished != Unfinished::Refuse {
        let left = store.unfinished().await?.into_iter();
        for upload in left.filter(|upload| upload.key.as_ref().is_some_and(|key| names.contains(key))) {
            store.discard(&upload).await?;
        }
    }
    for (count, name) in names.iter().enumerate() {
        if unfinished != Unfinished::Refuse && is_there(store, dir, name).await? {
            continue;
        }
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

/// Whether the file is in the bucket, byte for byte.
async fn is_there(store: &Arc<dyn Store>, dir: &Path, name: &str) -> Result<bool> {
    let unreadable = |error: std::io::Error| Error::new(Class::Unforeseen, format!("{name}: cannot be read: {error}"));
    let Some(stored_bytes) = store.size(name).await? else { return Ok(false) };
    let mut file = tokio::fs::File::open(dir.join(name)).await.map_err(unreadable)?;
    let mut offset = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let count = file.read_buf(&mut chunk).await.map_err(unreadable)? as u64;
        let end = offset + count;
        let is_same = match count {
            0 => offset == stored_bytes,
            _ => end <= stored_bytes && store.read_range(name, offset, count).await? == chunk,
        };
        if !is_same {
            return Err(taken(store, name, ", with other bytes"));
        }
        if count == 0 {
            return Ok(true);
        }
        offset = end;
    }
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
