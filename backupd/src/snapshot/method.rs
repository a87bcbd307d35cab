//! How a shard is read: from the replication stream of a node, which its child or its disk feeds, or from the file of a save.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use policies::replica::{Method as Named, PrimaryUse};
use tokio_util::sync::CancellationToken;

use super::capture;
use crate::clock;
use crate::error::Result;
use crate::pipeline::Meter;
use crate::pipeline::write::{Target, Written};
use crate::redis::{Node, Replication, Save, SourceOptions, Started};

/// How shards are read.
#[derive(Debug, Clone, Default)]
pub enum Method {
    /// Over the replication protocol.
    #[default]
    Stream,
    /// Over the replication protocol, from the file that the server writes for it.
    StreamDisk,
    /// `BGSAVE`, then the file, which is looked for in these folders, by the id or `host:port` of the node.
    Bgsave(BTreeMap<String, PathBuf>),
}

impl Method {
    /// The one that was named; `folders` are where RDB files are to be read.
    #[must_use]
    pub fn new(named: Named, folders: BTreeMap<String, PathBuf>) -> Self {
        match named {
            Named::Stream => Self::Stream,
            Named::StreamDisk => Self::StreamDisk,
            Named::Bgsave => Self::Bgsave(folders),
        }
    }

    /// As the manifest has it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::StreamDisk => "stream-disk",
            Self::Bgsave(_) => "bgsave",
        }
    }

    /// Connects to `node`; it does no work yet.
    pub(super) async fn prepare(&self, node: &Node, source: &SourceOptions, primaries: PrimaryUse) -> Result<Prepared> {
        let risk = matches!(primaries, PrimaryUse::Fallback | PrimaryUse::Prefer);
        match self {
            Self::Stream => Replication::prepare(node, source).await.map(Box::new).map(Prepared::Stream),
            Self::StreamDisk => {
                Replication::prepare_from_disk(node, source, risk).await.map(Box::new).map(Prepared::Stream)
            }
            Self::Bgsave(folders) => {
                let folder = folders.iter().find(|(name, _)| node.is_called(name)).map(|(_, path)| Path::new(path));
                Save::prepare(node, source, folder, risk).await.map(Box::new).map(Prepared::Bgsave)
            }
        }
    }
}

/// A node that waits for the word.
#[derive(Debug)]
pub enum Prepared {
    /// A replication stream.
    Stream(Box<Replication>),
    /// A save of its own.
    Bgsave(Box<Save>),
}

/// What was read, and at which position.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) replid: String,
    pub(super) offset: u64,
    pub(super) taken_at: DateTime<Utc>,
    pub(super) written: Written,
}

impl Prepared {
    /// Reads the shard into `target`. When the position of a file that was stored is refused, its object stays.
    pub(super) async fn take(self, target: Target, meter: Arc<Meter>, stop: &CancellationToken) -> Result<Taken> {
        match self {
            Self::Stream(replication) => {
                // the server answers when its child begins, which may take as long as another child lives
                let started = tokio::select! {
                    started = replication.start() => started?,
                    () = stop.cancelled() => return Err(capture::interrupted()),
                };
                let Started { replid, offset, payload, .. } = started;
                let taken_at = clock::now();
                let written = capture::shard(payload, target, meter, stop).await?;
                Ok(Taken { replid, offset, taken_at, written })
            }
            Self::Bgsave(save) => {
                let taken_at = clock::now();
                let saved = tokio::select! {
                    saved = save.run() => saved?,
                    () = stop.cancelled() => return Err(capture::interrupted()),
                };
                let written = capture::file(&saved, target, meter, stop).await?;
                let (replid, offset) = saved.position(&written.report.aux)?;
                Ok(Taken { replid, offset, taken_at, written })
            }
        }
    }
}
