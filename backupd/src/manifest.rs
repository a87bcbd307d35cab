//! The immutable description of a snapshot. Its presence makes the snapshot exist.

use std::collections::BTreeMap;

use policies::replica::Verdict;
use policies::slot::SlotSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canonical::{self, Proof, damaged};
use crate::crypt::DataKey;
use crate::error::{Class, Error, Result};

/// The format that this program writes.
pub const FORMAT: u32 = 1;

/// A snapshot: what it is, when and how it was taken, and every shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// `<time>-<random>`; names the folder of the snapshot's objects.
    pub snapshot_id: String,
    /// What users call it; unique in its repository.
    pub name: String,
    /// The number of the claim that holds the name.
    pub claim: u64,
    /// The cluster it is of.
    pub cluster: String,
    /// `manual`, `automated` or `final`.
    pub source: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// `redis`, `valkey`, …
    pub engine: String,
    /// The engine's version.
    pub engine_version: String,
    /// How shards were read: `stream`.
    pub method: String,
    /// When the job began, RFC 3339.
    pub begun_at: String,
    /// When the last shard was complete, RFC 3339.
    pub ended_at: String,
    /// Between the first and the last shard's point in time, milliseconds.
    pub skew_ms: u64,
    /// The cluster's epoch when the job began.
    pub epoch_begin: u64,
    /// The cluster's epoch after the last shard; differs only where slot owners did not change.
    pub epoch_end: u64,
    /// How it is sealed.
    pub encryption: Encryption,
    /// How it is compressed.
    pub compression: Compression,
    /// One entry per shard, by index.
    pub shards: Vec<Shard>,
    /// The user's tags.
    pub tags: BTreeMap<String, String>,
    /// Program and version that wrote it.
    pub tool: String,
}

/// How a snapshot is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// `aes-256-gcm` or `none`.
    pub cipher: String,
    /// The master keys that its data key was wrapped for when it was made.
    pub key_ids: Vec<String>,
}

impl Encryption {
    /// Whether the snapshot is encrypted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.cipher != "none"
    }
}

/// How a snapshot is compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// `zstd` or `none`.
    pub algorithm: String,
    /// The level.
    pub level: i32,
}

/// One shard: where it was read, its position, its object and what the object holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// From 0, ascending by first slot.
    pub index: u32,
    /// Its slots; `null` for a server without cluster mode.
    pub slots: Option<SlotSet>,
    /// The node that served it.
    pub node: Node,
    /// Why this node, and why not the others.
    pub choice: Vec<Verdict>,
    /// Which attempt succeeded, from 1.
    pub attempt: u32,
    /// Replication id of the snapshot's position.
    pub replid: String,
    /// Replication offset of the snapshot's position.
    pub offset: u64,
    /// When the server gave the position, RFC 3339.
    pub taken_at: String,
    /// When the last byte was stored, RFC 3339.
    pub stored_at: String,
    /// The stored object.
    pub object: Object,
    /// What the scanner found in the RDB.
    pub rdb: rdbtools::Report,
}

/// The node that served a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Node id, or `host:port`.
    pub id: String,
    /// `host:port`.
    pub address: String,
    /// `primary` or `replica`.
    pub role: String,
    /// The server's run id.
    pub run_id: String,
    /// Bytes behind its primary when it was chosen.
    pub lag_bytes: u64,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// File name beside the manifest.
    pub file: String,
    /// Its size.
    pub stored_bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub stored_sha256: String,
    /// Bytes of the RDB in it.
    pub plain_bytes: u64,
    /// SHA-256 of the RDB, hex.
    pub plain_sha256: String,
    /// Data frames.
    pub frames: u64,
}

impl Manifest {
    /// The bytes of the manifest object: with a digest, and a MAC by the data key when it is encrypted.
    ///
    /// # Errors
    /// Only when it cannot be written as JSON.
    pub fn seal(&self, data_key: Option<&DataKey>) -> Result<Vec<u8>> {
        match data_key {
            Some(key) => canonical::seal(self, Proof::Mac(&*key.manifest_key()?)),
            None => canonical::seal(self, Proof::Digest),
        }
    }

    /// All keys of all shards.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rdb.keys).sum()
    }

    /// Bytes of all RDBs.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.object.plain_bytes).sum()
    }

    /// Bytes of all shard objects.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.object.stored_bytes).sum()
    }

    /// What must hold of any snapshot that is shown as available.
    ///
    /// # Errors
    /// `Verification`, naming what does not hold.
    fn check(&self, name: &str) -> Result<()> {
        if self.shards.is_empty() {
            return Err(damaged(name, "it lists no shard"));
        }
        for (index, shard) in self.shards.iter().enumerate() {
            if usize::try_from(shard.index) != Ok(index) {
                return Err(damaged(name, &format!("shard {index} is out of order")));
            }
        }
        let slots: Option<Vec<SlotSet>> = self.shards.iter().map(|shard| shard.slots.clone()).collect();
        match (self.mode.as_str(), slots) {
            ("standalone", _) if self.shards.len() == 1 => Ok(()),
            ("cluster", Some(slots)) => {
                policies::shards::check_cover(&slots).map_err(|error| damaged(name, &error.to_string()))
            }
            _ => Err(damaged(name, "its mode and its shards do not fit together")),
        }
    }
}

/// A manifest whose form and digest were checked, but not yet its MAC.
#[derive(Debug, Clone)]
pub struct Unproven {
    name: String,
    object: Map<String, Value>,
    manifest: Manifest,
}

impl Unproven {
    /// Reads the bytes of a manifest object called `name`.
    ///
    /// # Errors
    /// `Verification` when it is damaged, `Version` when it is newer than this program.
    pub fn parse(name: &str, file: &[u8]) -> Result<Self> {
        let object = canonical::parse(name, file)?;
        if let Some(format) = object.get("format").and_then(Value::as_u64)
            && format > u64::from(FORMAT)
        {
            return Err(Error::new(
                Class::Version,
                format!("{name}: manifest format {format} is newer than this program"),
            )
            .hint("use the backupd that wrote it, or a newer one"));
        }
        let manifest: Manifest = canonical::members(name, object.clone())?;
        manifest.check(name)?;
        Ok(Self { name: name.to_owned(), object, manifest })
    }

    /// What it says, which may have been changed by someone who can write to the repository.
    #[must_use]
    pub fn claimed(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks the proof.
    ///
    /// # Errors
    /// `Verification` when it does not fit, `Key` when the snapshot is encrypted and there is no key.
    pub fn prove(&self, data_key: Option<&DataKey>) -> Result<Manifest> {
        let object = self.object.clone();
        match (self.manifest.encryption.is_on(), data_key) {
            (false, _) => canonical::open(&self.name, object, Proof::Digest),
            (true, Some(key)) => canonical::open(&self.name, object, Proof::Mac(&*key.manifest_key()?)),
            (true, None) => {
                Err(Error::new(Class::Key, format!("{}: the snapshot is encrypted and no key was given", self.name))
                    .hint("give the key file with --key-file"))
            }
        }
    }
}
