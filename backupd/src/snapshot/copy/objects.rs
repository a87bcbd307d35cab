//! The object of one shard: looked for, copied, and proven at the destination.

use std::ops::AddAssign;
use std::sync::Arc;

use serde::Serialize;

use super::Job;
use super::carry::{At, carry, is_whole, reads};
use crate::canonical::damaged;
use crate::error::{Class, Error, Result};
use crate::manifest::{Object, Shard};
use crate::pipeline::Meter;
use crate::pipeline::ahead::Ahead;
use crate::repository::{Opened, Repository};
use crate::store::{S3Store, ServerCopy, Store};

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Transfer {
    /// The server where it can, else this program.
    Auto,
    /// The server only: no bytes pass through here, or it is refused.
    Server,
    /// This program only.
    Stream,
}

/// Bytes by the way that they went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Through this program.
    pub streamed_bytes: u64,
    /// Within the provider.
    pub server_bytes: u64,
    /// Of an earlier attempt: they were there, and were read and compared.
    pub reused_bytes: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, more: Self) {
        self.streamed_bytes += more.streamed_bytes;
        self.server_bytes += more.server_bytes;
        self.reused_bytes += more.reused_bytes;
    }
}

/// Begins to read the object of the first shard, where it is sure to go through here if it is not at the destination already.
pub(super) fn begun(
    source: &Repository,
    target: &Arc<dyn Store>,
    opened: &Opened,
    transfer: Transfer,
) -> Option<Ahead> {
    let object = &opened.manifest.shards.first()?.object;
    let may_be_asked = source.store().as_bucket().zip(target.as_bucket()).is_some_and(|(a, b)| a.is_beside(b));
    let is_streamed = match transfer {
        Transfer::Stream => true,
        Transfer::Auto => !may_be_asked,
        Transfer::Server => false,
    };
    let key = opened.place.key(&object.file);
    is_streamed.then(|| reads(At { store: source.store(), key: &key }, object).begun())
}

impl Job<'_> {
    /// Brings the object of a shard to the destination, if it is not `there`. Its reading may have been `begun`.
    pub(super) async fn shard(&self, shard: &Shard, there: &[String], begun: Option<Ahead>) -> Result<Moved> {
        let (key, object) = (self.opened.place.key(&shard.object.file), &shard.object);
        let meter = self.progress.row(format!("shard {}", shard.index), Some(object.stored_bytes));
        let size_bytes = object.stored_bytes;
        if there.contains(&key) && self.is_there(&key, object, &meter).await? {
            return Ok(Moved { reused_bytes: size_bytes, ..Moved::default() });
        }
        if let Some(proven) = self.by_server(&key, object).await? {
            if !proven {
                self.prove(&key, object, &meter).await?;
            }
            meter.passed(size_bytes, 0);
            return Ok(Moved { server_bytes: size_bytes, ..Moved::default() });
        }
        let (from, to) = (self.at_source(&key), self.at_target(&key));
        match carry((from, begun), to, object, &meter, self.cancel).await {
            Ok(()) if to.store.proves_writes() => {}
            Ok(()) => self.prove(&key, object, &meter).await?,
            // another copy of the same snapshot was faster
            Err(error) if error.class() == Class::Busy => self.prove(&key, object, &meter).await?,
            Err(error) => return Err(error),
        }
        Ok(Moved { streamed_bytes: size_bytes, ..Moved::default() })
    }

    fn at_source<'k>(&'k self, key: &'k str) -> At<'k> {
        At { store: self.source.store(), key }
    }

    fn at_target<'k>(&'k self, key: &'k str) -> At<'k> {
        At { store: self.target.store(), key }
    }

    /// Whether an earlier attempt brought it. What is there and is something else gives way, since no manifest names it.
    async fn is_there(&self, key: &str, object: &Object, meter: &Meter) -> Result<bool> {
        let to = self.at_target(key);
        if is_whole(to, object, meter, self.cancel).await? {
            return Ok(true);
        }
        tracing::warn!(key, "what an earlier attempt left is not whole, and is copied again");
        to.store.delete(key).await?;
        Ok(false)
    }

    /// Lets the server copy. `None` when this program has to; else whether the server proved it by a digest.
    async fn by_server(&self, key: &str, object: &Object) -> Result<Option<bool>> {
        let why = match (self.options.transfer, self.buckets()) {
            (Transfer::Stream, _) => return Ok(None),
            (_, None) => "only buckets are copied by their server".to_owned(),
            (_, Some((from, to))) => {
                let content = (object.stored_bytes, object.stored_sha256.as_str());
                match to.copy_from(from, key, key, content, self.options.single_bytes_max, self.cancel).await? {
                    ServerCopy::Done { proven } => return Ok(Some(proven)),
                    ServerCopy::Impossible(why) => why,
                }
            }
        };
        if self.options.transfer == Transfer::Server {
            return Err(Error::new(Class::Refused, format!("the server cannot copy `{key}`: {why}"))
                .hint("--transfer auto or stream copies it through this machine"));
        }
        tracing::info!(key, why, "the server cannot copy this object: it goes through here");
        Ok(None)
    }

    fn buckets(&self) -> Option<(&S3Store, &S3Store)> {
        self.source.store().as_bucket().zip(self.target.store().as_bucket())
    }

    /// Reads what arrived, where nobody vouched for it.
    async fn prove(&self, key: &str, object: &Object, meter: &Meter) -> Result<()> {
        let to = self.at_target(key);
        if is_whole(to, object, meter, self.cancel).await? {
            return Ok(());
        }
        // it is no snapshot's, and the next attempt must not meet it
        to.store.delete(key).await?;
        Err(damaged(key, "what arrived is not what the manifest names").at(to.store.url()))
    }
}
