//! Reads a snapshot again, every byte, and compares it with its manifest.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::boot::{self, Booted};
use crate::bkd::SlotEntry;
use crate::canonical::damaged;
use crate::error::{Class, Error, Result};
use crate::manifest::{Manifest, Shard};
use crate::pipeline::{Meter, prove, read};
use crate::progress::Progress;
use crate::repository::fact::Kind;
use crate::repository::{Keys, Opened, Repository};
use crate::task_failed;

/// How a snapshot is examined, beyond reading all of it.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// Each shard is loaded by a real server.
    pub boot: Option<boot::Options>,
    /// The verdict is noted as a fact beside the manifest.
    pub record: bool,
}

/// What an examination showed.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The manifest.
    pub manifest: Manifest,
    /// What servers said, if they were asked.
    pub booted: Option<Booted>,
    /// When the verdict was noted, RFC 3339; `None` when it was not.
    pub recorded_at: Option<String>,
}

/// Verifies a snapshot: wraps, manifest, every object's digest, every frame, the RDB's structure and checksum, counts and
/// slots; by real servers too if that is asked for. Anything missing or unreadable is a failure. The verdict is noted as a
/// fact if that is asked for, a bad one too.
///
/// # Errors
/// The first defect, naming the object; as [`boot::boot`]. That the verdict could not be noted is a warning.
pub async fn examine(
    repository: &Repository,
    name: &str,
    keys: &Keys,
    examination: &Examination,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Verdict> {
    progress.phase("opening the snapshot");
    let opened = repository.open_snapshot(name, keys).await?;
    let looked = async {
        read_all(repository, &opened, progress).await?;
        match &examination.boot {
            Some(options) => boot::boot(repository, &opened, options, progress).await.map(Some),
            None => Ok(None),
        }
    };
    let outcome = tokio::select! {
        outcome = looked => outcome,
        () = cancel.cancelled() => Err(Error::new(Class::Unforeseen, "interrupted")),
    };
    let recorded_at = match says(&opened, examination, &outcome) {
        Some(says) if examination.record => note(repository, &opened, says).await,
        _ => None,
    };
    outcome.map(|booted| Verdict { manifest: opened.manifest, booted, recorded_at })
}

/// Whether an examination came to a verdict, good or bad: that a store could not be reached is none.
#[must_use]
pub fn is_verdict<T>(examined: &Result<T>) -> bool {
    examined.as_ref().err().is_none_or(|error| error.class() == Class::Verification)
}

/// What the fact says; only a verdict is one.
fn says(opened: &Opened, examination: &Examination, outcome: &Result<Option<Booted>>) -> Option<Map<String, Value>> {
    let mut says = Map::new();
    let method = if examination.boot.is_some() { "boot" } else { "read" };
    says.insert("method".to_owned(), method.into());
    says.insert("ok".to_owned(), outcome.is_ok().into());
    match outcome {
        Ok(booted) => {
            if let Some(booted) = booted {
                says.insert("engine".to_owned(), booted.engine.as_str().into());
            }
            says.insert("keys".to_owned(), opened.manifest.keys().into())
        }
        Err(error) if error.class() == Class::Verification => says.insert("error".to_owned(), error.message().into()),
        Err(_) => return None,
    };
    Some(says)
}

async fn note(repository: &Repository, opened: &Opened, says: Map<String, Value>) -> Option<String> {
    match repository.note(&opened.place, Kind::Verified, says, opened.data_key.as_ref()).await {
        Ok(fact) => Some(fact.at),
        Err(error) => {
            tracing::warn!(error = %error, "the verdict could not be noted in the repository");
            None
        }
    }
}

async fn read_all(repository: &Repository, opened: &Opened, progress: &Progress) -> Result<()> {
    // those for which it was wrapped when it was made may have gone since, with their keys
    let wraps = match repository.wraps(&opened.place).await {
        // who may read and not list, as by ACLs, has opened it by one of them
        Err(error) if error.class() == Class::StoreAuth => Vec::new(),
        other => other?,
    };
    for key_id in wraps {
        repository.check_wrap(&opened.place, &key_id).await?;
    }
    progress.phase("reading every byte");
    for shard in &opened.manifest.shards {
        let meter = progress.row(format!("shard {}", shard.index), Some(shard.object.plain_bytes));
        verify_shard(repository, opened, shard, meter).await?;
    }
    Ok(())
}

async fn verify_shard(repository: &Repository, opened: &Opened, shard: &Shard, meter: Arc<Meter>) -> Result<()> {
    let source = source(repository, opened, shard);
    let key = source.key.clone();
    let head = match prove::Head::read(&source).await {
        Err(error) if error.is_retryable() => return Err(error),
        // what is wrong is told best by who reads all of it
        head => head,
    };
    let frame_bytes = head.as_ref().map_or(1, prove::Head::frame_bytes);
    let (chunks, reading) = read::shard(source.clone(), Arc::clone(&meter));
    let counted = tokio::task::spawn_blocking(move || prove::count(chunks, frame_bytes, &meter));
    // the reader's error is the cause; a scanner that got too few bytes only repeats it
    let counted = counted.await.map_err(task_failed)?;
    let index = reading.await.map_err(task_failed)??;
    let counted = counted.map_err(|error| error.at(&key))?;
    if hex::encode(counted.sha256) != shard.object.plain_sha256 {
        return Err(damaged(&key, "the SHA-256 of its RDB is not the one in the manifest"));
    }
    if counted.report != shard.rdb {
        return Err(damaged(&key, "its RDB holds something else than the manifest says"));
    }
    if counted.slots != index.slots {
        return Err(damaged(&key, "its keys are of other slots than its index says"));
    }
    prove::placed(&source, &head?, &index, &counted).await?;
    let slots = counted.slots;
    let foreign = |entry: &&SlotEntry| shard.slots.as_ref().is_some_and(|slots| !slots.contains(entry.slot));
    match slots.iter().find(foreign) {
        Some(entry) => Err(damaged(&key, &format!("it holds keys of slot {}, which is not its own", entry.slot))),
        None => Ok(()),
    }
}

/// The reading side of one shard of an opened snapshot.
#[must_use]
pub fn source(repository: &Repository, opened: &Opened, shard: &Shard) -> read::Source {
    read::Source {
        store: Arc::clone(repository.store()),
        key: opened.place.key(&shard.object.file),
        snapshot_id: opened.place.snapshot_id.clone(),
        shard: shard.index,
        object: shard.object.clone(),
        data_key: opened.data_key.clone(),
    }
}
