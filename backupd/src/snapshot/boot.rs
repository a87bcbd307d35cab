//! Proves a snapshot by a real server: each shard is loaded by the engine it came from, saved again by it, and what that
//! file holds is compared with what the shard holds, key by key, whatever the encodings.
//!
//! One shard after another, on scratch space, with the data in the clear there; it needs room for two RDBs of the largest shard and
//! the memory of a server that holds it. Keys that are over are no difference: those count whose time comes after the save.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdbtools::content::{Content, ContentRules};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::verify::source;
use crate::canonical::damaged;
use crate::clock;
use crate::digest::{self, CHUNKS_AHEAD, STREAM_FACTS_VERSION, Undigested};
use crate::error::{Class, Error, Result};
use crate::launch::{self, LaunchPlan, LaunchProgress, ShardPlan};
use crate::manifest::Shard;
use crate::pipeline::write::scan_error;
use crate::pipeline::{Meter, read};
use crate::progress::Progress;
use crate::repository::{Opened, Repository};
use crate::task_failed;

/// How many databases a server has unless it is told otherwise.
const DATABASES: u64 = 16;

/// With what, and where.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The server program; found by the engine's name when there is none.
    pub engine: Option<PathBuf>,
    /// Where the files are put, in the clear; the system's folder for temporary files when not said.
    pub scratch: Option<PathBuf>,
}

/// What a boot showed.
#[derive(Debug, Clone, Serialize)]
pub struct Booted {
    /// The engine that loaded everything, with its version.
    pub engine: String,
    /// Keys of each database in all files, those among them whose time was over.
    pub databases: BTreeMap<u64, u64>,
}

/// Boots every shard of an opened snapshot.
///
/// # Errors
/// `Verification` when what a server holds is something else than the file; `Version` when the engine cannot load it; `Config` when there
/// is no engine; what reading the snapshot says.
pub async fn boot(repository: &Repository, opened: &Opened, options: &Options, progress: &Progress) -> Result<Booted> {
    let engine = options.engine.clone().unwrap_or_else(|| launch::default_program(opened.manifest.engine == "valkey"));
    let probed = launch::probe_engine(&engine).await?;
    let mut databases: BTreeMap<u64, u64> = BTreeMap::new();
    for shard in &opened.manifest.shards {
        let content = one(repository, opened, shard, &engine, options.scratch.as_deref(), progress).await?;
        for (db, keys) in content.keys() {
            *databases.entry(db).or_default() += keys;
        }
    }
    Ok(Booted { engine: probed.to_string(), databases })
}

async fn one(
    repository: &Repository,
    opened: &Opened,
    shard: &Shard,
    engine: &Path,
    scratch: Option<&Path>,
    progress: &Progress,
) -> Result<Content> {
    let base = scratch.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = tempfile::Builder::new().prefix("backupd-boot-").tempdir_in(&base);
    let folder = folder.map_err(|error| unwritable(&base, &error))?;
    let rdb = folder.path().join("shard.rdb");
    let rules = ContentRules {
        stream_facts: shard.rdb.rdb_version >= STREAM_FACTS_VERSION,
        ..ContentRules::new(clock::unix_ms(clock::now()))
    };
    progress.phase(format!("reading shard {}", shard.index));
    let meter = progress.row(format!("boot of shard {}", shard.index), Some(shard.object.plain_bytes));
    let ours = write(source(repository, opened, shard), rules.clone(), &rdb, meter).await?;
    let highest = shard.rdb.databases.keys().max().copied().unwrap_or(0);
    let plan = LaunchPlan {
        dir: folder.path().join("server"),
        engine: engine.to_owned(),
        first_port: None,
        shards: vec![ShardPlan { slots: None, rdb, keys: shard.rdb.keys, expires: shard.rdb.expires }],
        replicas: 0,
        access: launch::Access::default(),
        settings: vec!["save \"\"".to_owned(), format!("databases {}", DATABASES.max(highest.saturating_add(1)))],
    };
    progress.phase(format!("starting a server with shard {}", shard.index));
    let mut server = launch::start(plan, &|step: LaunchProgress| tracing::debug!(?step)).await?;
    let saved = server.save().await?;
    let saved_ms = clock::unix_ms(clock::now());
    drop(server);
    progress.phase(format!("comparing shard {}", shard.index));
    let back = rules.read_back();
    let digest = move || {
        digest::of_file(back, &saved).map_err(|why| match why {
            Undigested::File(error) => Error::new(Class::Unforeseen, format!("{}: {error}", saved.display())),
            Undigested::Scan(error) => scan_error(&error).at(saved.display()),
        })
    };
    let theirs = only(tokio::task::spawn_blocking(digest).await.map_err(task_failed)??);
    let differences = ours.differences(&theirs, saved_ms);
    if differences.is_empty() {
        return Ok(ours);
    }
    let shown = digest::shown(&differences);
    let key = opened.place.key(&shard.object.file);
    Err(damaged(&key, &format!("a server that loaded it holds something else: {}", shown.join("; "))))
}

/// The shard's RDB as a file; what it holds is digested on the way.
async fn write(source: read::Source, rules: ContentRules, path: &Path, meter: Arc<Meter>) -> Result<Content> {
    let failed = |error: std::io::Error| unwritable(path, &error);
    let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
    let (digest, digested) = mpsc::channel(CHUNKS_AHEAD);
    let digesting = tokio::task::spawn_blocking(move || digest::of_chunks(rules, digested).map_err(|e| scan_error(&e)));
    let (mut chunks, reading) = read::shard(source, Arc::clone(&meter));
    let mut written = 0;
    while let Some(chunk) = chunks.recv().await {
        file.write_all(&chunk).await.map_err(failed)?;
        written += chunk.len() as u64;
        meter.passed(written, 0);
        if digest.send(Arc::new(chunk)).await.is_err() {
            break; // it failed, and says why
        }
    }
    drop((digest, chunks));
    let content = digesting.await.map_err(task_failed)?;
    reading.await.map_err(task_failed)??;
    file.flush().await.map_err(failed)?;
    content.map(only)
}

/// The content of the one shard that the rules have.
fn only(contents: Vec<Content>) -> Content {
    contents.into_iter().next().unwrap_or_default()
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Class::Unforeseen, format!("{}: cannot be written: {error}", path.display()))
        .hint("--scratch DIR names another place for the files")
}
