//! Stored bytes from one store to another, as they are: never opened, digested on the way.
//!
//! Memory: [`BLOCKS_AHEAD`] + 1 blocks of [`BLOCK_BYTES`], and the parts of the upload.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::canonical::damaged;
use crate::error::{Class, Error, Result};
use crate::manifest::Object;
use crate::pipeline::Meter;
use crate::pipeline::ahead::Ahead;
use crate::store::{Store, Upload};
use crate::task_failed;

/// How much is read from the store at once.
const BLOCK_BYTES: u64 = 8 << 20;
/// How many such reads are under way before the first is used.
const BLOCKS_AHEAD: usize = 4;

/// One object in one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    /// The store.
    pub(super) store: &'a Arc<dyn Store>,
    /// The key.
    pub(super) key: &'a str,
}

/// The reads of an object from front to back.
pub(super) fn reads(from: At<'_>, object: &Object) -> Ahead {
    Ahead::new(Arc::clone(from.store), from.key.to_owned(), object.stored_bytes, BLOCK_BYTES, BLOCKS_AHEAD)
}

/// Copies an object, whose reading may have been begun. Nothing is visible at the destination unless all of it is what the manifest says.
///
/// # Errors
/// `Verification` when the source is something else, `Busy` when the destination has an object there, what the stores say.
pub(super) async fn carry(
    (from, begun): (At<'_>, Option<Ahead>),
    to: At<'_>,
    object: &Object,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<()> {
    let ahead = begun.unwrap_or_else(|| reads(from, object));
    let mut upload = to.store.upload(to.key, object.stored_bytes).await?;
    let outcome = pump(ahead, meter, cancel, Some(&mut *upload)).await.and_then(|sum| {
        if sum == object.stored_sha256 {
            return Ok(());
        }
        Err(damaged(from.key, "its SHA-256 is not the one in the manifest").at(from.store.url()))
    });
    match outcome {
        Ok(()) => upload.complete().await,
        Err(error) => {
            if let Err(left) = upload.abort().await {
                tracing::warn!(key = to.key, error = %left, "an unfinished upload may be left behind");
            }
            Err(error)
        }
    }
}

/// Whether an object is what the manifest says, by reading all of it.
///
/// # Errors
/// What the store says.
pub(super) async fn is_whole(at: At<'_>, object: &Object, meter: &Meter, cancel: &CancellationToken) -> Result<bool> {
    if at.store.size(at.key).await? != Some(object.stored_bytes) {
        return Ok(false);
    }
    Ok(pump(reads(at, object), meter, cancel, None).await? == object.stored_sha256)
}

/// Reads an object from front to back, into an upload if there is one. Returns its SHA-256, hex.
async fn pump(
    mut ahead: Ahead,
    meter: &Meter,
    cancel: &CancellationToken,
    mut upload: Option<&mut dyn Upload>,
) -> Result<String> {
    let (mut sum, mut moved) = (Sha256::new(), 0);
    while let Some(block) = ahead.next().await? {
        if cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted"));
        }
        moved += block.len() as u64;
        let hashed = block.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            sum.update(&hashed);
            sum
        });
        if let Some(upload) = upload.as_deref_mut() {
            upload.write(block).await?;
        }
        sum = hashing.await.map_err(task_failed)?;
        // in terms of progress what is carried is what the manifest counts as stored
        meter.moved(moved);
        meter.passed(moved, 0);
    }
    Ok(hex::encode(sum.finalize()))
}
