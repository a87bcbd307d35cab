//! What a restore reads: the shards of a snapshot, or RDB files of other tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdbtools::scan::Scanner;
use rdbtools::{ErrorKind, RdbVersion, ScanError};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Class, Error, Result};
use crate::manifest::Manifest;
use crate::pipeline::pick::{self, Pick};
use crate::pipeline::write::scan_error;
use crate::pipeline::{CHUNKS_QUEUED, Meter, read};
use crate::repository::{Opened, Repository};
use crate::snapshot::verify;
use crate::store::{self, RepositoryUrl, Store};

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes read from an object at once; the next are asked for while these are worked on.
const BLOCK_BYTES: u64 = 4 << 20;
/// The header of an RDB.
const HEADER_LEN: u64 = 9;

/// The inputs of a restore.
#[derive(Debug)]
pub enum Input {
    /// A snapshot, opened and proven.
    Snapshot {
        /// Its repository.
        repository: Repository,
        /// The snapshot.
        opened: Box<Opened>,
    },
    /// RDB files.
    Files(Vec<Foreign>),
}

/// An RDB file of another tool.
#[derive(Debug, Clone)]
pub enum Foreign {
    /// A path.
    File(PathBuf),
    /// What came from standard input, in a file that is removed in the end.
    Spooled(Arc<tempfile::TempPath>),
    /// An object in a bucket.
    Object {
        /// The bucket and all of the prefix but the object's name.
        store: Arc<dyn Store>,
        /// The object's name.
        key: String,
    },
}

impl Foreign {
    /// Reads a path, `-` (standard input, which is kept in a private file in `scratch`), `file:///path` or `s3://bucket/prefix/object` with the parameters of a repository's URL.
    ///
    /// # Errors
    /// `Usage` for a URL that is none or names no object; what opening a store says.
    pub async fn named(text: &str, scratch: &Path) -> Result<Self> {
        if text == "-" {
            return spool(scratch).await;
        }
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        match text.parse()? {
            RepositoryUrl::Folder(path) => Ok(Self::File(path)),
            RepositoryUrl::Bucket(mut url) => {
                let (prefix, key) = url.prefix.rsplit_once('/').unwrap_or(("", &url.prefix));
                let (prefix, key) = (prefix.to_owned(), key.to_owned());
                if key.is_empty() {
                    return Err(Error::new(Class::Usage, format!("{text}: it names a bucket, not an RDB file in it")));
                }
                url.prefix = prefix;
                Ok(Self::Object { store: store::open(&RepositoryUrl::Bucket(url)).await?, key })
            }
        }
    }
}

/// One RDB to be read.
#[derive(Debug, Clone)]
pub enum Part {
    /// A shard of a snapshot.
    Shard(Box<read::Source>),
    /// Those frames of it that can hold what is selected.
    Picked(Box<(read::Source, Pick)>),
    /// A file.
    File(PathBuf),
    /// An object in a bucket, with its size.
    Object(Arc<dyn Store>, String, u64),
}

/// What is known of a part before it is read.
#[derive(Debug, Clone)]
pub struct PartInfo {
    /// Its name in messages: the object's key or the path.
    pub name: String,
    /// Its format and version.
    pub version: RdbVersion,
    /// Its bytes, if known.
    pub bytes: Option<u64>,
    /// Bytes that are read, if known: stored ones of a snapshot's shard.
    pub read_bytes: Option<u64>,
    /// Its keys, if known.
    pub keys: Option<u64>,
    /// Databases above 0 that hold keys, if known.
    pub high_databases: Vec<(u64, u64)>,
}

impl Input {
    /// The manifest, when it is a snapshot.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Snapshot { opened, .. } => Some(&opened.manifest),
            Self::Files(_) => None,
        }
    }

    /// The parts in order, with what is known of each. Of files the first nine bytes are read.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `Verification` for one that is no RDB, `Version` for one too new.
    pub async fn parts(&self) -> Result<Vec<(Part, PartInfo)>> {
        match self {
            Self::Snapshot { repository, opened } => {
                Ok(opened.manifest.shards.iter().map(|shard| of_shard(repository, opened, shard)).collect())
            }
            Self::Files(files) => {
                let mut parts = Vec::new();
                for file in files {
                    parts.push(match file {
                        Foreign::File(path) => of_file(path, path.display().to_string()).await?,
                        Foreign::Spooled(path) => of_file(path, "standard input".to_owned()).await?,
                        Foreign::Object { store, key } => of_object(store, key).await?,
                    });
                }
                Ok(parts)
            }
        }
    }
}

fn of_shard(repository: &Repository, opened: &Opened, shard: &crate::manifest::Shard) -> (Part, PartInfo) {
    let source = verify::source(repository, opened, shard);
    let databases = shard.rdb.databases.iter();
    let info = PartInfo {
        name: source.key.clone(),
        version: RdbVersion { magic: shard.rdb.magic, number: shard.rdb.rdb_version },
        bytes: Some(shard.object.plain_bytes),
        read_bytes: Some(shard.object.stored_bytes),
        keys: Some(shard.rdb.keys),
        high_databases: databases
            .filter(|(db, counts)| **db > 0 && counts.keys > 0)
            .map(|(db, c)| (*db, c.keys))
            .collect(),
    };
    (Part::Shard(Box::new(source)), info)
}

/// Keeps standard input in a file, because a plan and a restore each look at it.
async fn spool(scratch: &Path) -> Result<Foreign> {
    let failed = |error: std::io::Error| {
        Error::new(Class::Refused, format!("standard input cannot be kept in {}: {error}", scratch.display()))
            .hint("give a folder with room for it: --scratch DIR")
    };
    let path = tempfile::Builder::new().prefix("backupd-stdin-").tempfile_in(scratch).map_err(failed)?.into_temp_path();
    let to = path.to_path_buf();
    let copied = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(to)?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.sync_all()
    });
    copied.await.map_err(crate::task_failed)?.map_err(failed)?;
    Ok(Foreign::Spooled(Arc::new(path)))
}

async fn of_file(path: &Path, name: String) -> Result<(Part, PartInfo)> {
    let file = open(path).await?;
    let bytes = file.metadata().await.map_err(|error| unreadable(path, &error))?.len();
    let mut header = Vec::new();
    file.take(HEADER_LEN).read_to_end(&mut header).await.map_err(|error| unreadable(path, &error))?;
    Ok((Part::File(path.to_owned()), of_header(name, &header, bytes)?))
}

async fn of_object(store: &Arc<dyn Store>, key: &str) -> Result<(Part, PartInfo)> {
    let name = format!("`{key}` in {}", store.url());
    let Some(bytes) = store.size(key).await? else {
        return Err(Error::new(Class::NotFound, format!("{name}: there is no such object")));
    };
    let header = store.read_range(key, 0, bytes.min(HEADER_LEN)).await?;
    Ok((Part::Object(Arc::clone(store), key.to_owned(), bytes), of_header(name, &header, bytes)?))
}

fn of_header(name: String, header: &[u8], bytes: u64) -> Result<PartInfo> {
    let version = version_of(header).map_err(|error| scan_error(&error).at(&name))?;
    Ok(PartInfo { name, version, bytes: Some(bytes), read_bytes: Some(bytes), keys: None, high_databases: Vec::new() })
}

/// The version in the first bytes of a file.
fn version_of(header: &[u8]) -> Result<RdbVersion, ScanError> {
    let mut scanner = Scanner::new(());
    scanner.feed(header)?;
    // a file of fewer bytes than a header is refused here, as cut short
    match scanner.version() {
        Some(version) => Ok(version),
        None => Err(scanner.finish().err().unwrap_or(ScanError {
            offset: header.len() as u64,
            kind: ErrorKind::NotRdb,
            message: "it has no header".into(),
        })),
    }
}

async fn open(path: &Path) -> Result<tokio::fs::File> {
    tokio::fs::File::open(path).await.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let class = if error.kind() == std::io::ErrorKind::NotFound { Class::NotFound } else { Class::SourceUnavailable };
    Error::new(class, format!("{}: cannot be read: {error}", path.display())).retryable(false)
}

/// A part being read: its bytes, and whether all of it was there and right.
pub type Reading = (mpsc::Receiver<Vec<u8>>, JoinHandle<Result<()>>);

impl Part {
    /// What was picked of a shard; all of anything else.
    #[must_use]
    pub fn only(self, pick: Option<&Pick>) -> Self {
        match (self, pick) {
            (Self::Shard(source), Some(pick)) => Self::Picked(Box::new((*source, pick.clone()))),
            (part, _) => part,
        }
    }

    /// Begins to read it.
    #[must_use]
    pub fn read(self, meter: Arc<Meter>) -> Reading {
        match self {
            Self::Shard(source) => {
                let (chunks, task) = read::shard(*source, meter);
                (chunks, tokio::spawn(async move { task.await.map_err(crate::task_failed)?.map(drop) }))
            }
            Self::Picked(picked) => {
                let (source, pick) = *picked;
                pick::read(source, pick, meter)
            }
            Self::File(path) => {
                let (sender, chunks) = mpsc::channel(CHUNKS_QUEUED);
                let task = tokio::spawn(async move {
                    let file = open(&path).await?;
                    pump(file, sender, &meter).await.map_err(|error| unreadable(&path, &error))
                });
                (chunks, task)
            }
            Self::Object(store, key, bytes) => {
                // one block is being sent, one waits, one is fetched
                let (sender, chunks) = mpsc::channel(1);
                (chunks, tokio::spawn(fetch(store, key, bytes, sender, meter)))
            }
        }
    }
}

async fn fetch(
    store: Arc<dyn Store>,
    key: String,
    bytes: u64,
    chunks: mpsc::Sender<Vec<u8>>,
    meter: Arc<Meter>,
) -> Result<()> {
    let mut offset = 0;
    while offset < bytes {
        let length = BLOCK_BYTES.min(bytes - offset);
        let block = store.read_range(&key, offset, length).await?;
        offset += length;
        meter.moved(offset);
        if chunks.send(block.into()).await.is_err() {
            return Ok(()); // the splitter stopped and says why
        }
    }
    Ok(())
}

async fn pump(mut file: impl AsyncRead + Unpin, chunks: mpsc::Sender<Vec<u8>>, meter: &Meter) -> std::io::Result<()> {
    let mut moved = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        moved += chunk.len() as u64;
        meter.moved(moved);
        if chunks.send(chunk).await.is_err() {
            return Ok(()); // the splitter stopped and says why
        }
    }
}
