//! What a target must hold: digested while the inputs are read, on a thread beside the one that splits them.

use std::path::Path;
use std::sync::Arc;

use rdbtools::content::{Content, ContentRules, ContentSink};
use rdbtools::split::Ttl;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Options;
use super::plan::Plan;
use super::split::unwritable;
use crate::clock;
use crate::digest::{self, CHUNKS_AHEAD, STREAM_FACTS_VERSION, Undigested};
use crate::error::{Class, Error, Result};
use crate::task_failed;

/// What each shard must hold, as far as the inputs were read.
#[derive(Debug)]
pub struct Expected {
    pub(super) rules: ContentRules,
    /// One for each target shard.
    pub(super) contents: Vec<Content>,
}

/// Where the chunks of an input go that is digested.
pub(super) type Chunks = mpsc::Sender<Arc<Vec<u8>>>;

impl Expected {
    /// The rules for a restore; `None` when it is not to be verified.
    pub(super) fn begin(options: &Options, plan: &Plan, ttl: Ttl) -> Option<Self> {
        if !options.verify || !plan.is_loaded {
            return None;
        }
        let rules = ContentRules {
            ttl,
            db: options.db,
            select: options.select.clone(),
            one_database: plan.is_cluster(),
            stream_facts: plan.oldest_version >= STREAM_FACTS_VERSION
                && plan.converted_to.iter().flatten().all(|target| target.version().number >= STREAM_FACTS_VERSION),
            shards: if plan.is_cluster() { plan.targets() } else { Vec::new() },
            ..ContentRules::new(clock::unix_ms(clock::now()))
        };
        let contents = ContentSink::new(rules.clone()).into_contents();
        Some(Self { rules, contents })
    }

    /// Begins to digest one input: chunks are to be sent, and at the end [`Self::end_input`] be called.
    pub(super) fn begin_input(&self) -> (Chunks, JoinHandle<Result<Vec<Content>>>) {
        let (sender, chunks) = mpsc::channel::<Arc<Vec<u8>>>(CHUNKS_AHEAD);
        let rules = self.rules.clone();
        let task = tokio::task::spawn_blocking(move || digest::of_chunks(rules, chunks).map_err(undigested));
        (sender, task)
    }

    /// Adds what an input held.
    pub(super) async fn end_input(&mut self, task: JoinHandle<Result<Vec<Content>>>) -> Result<()> {
        for (content, more) in self.contents.iter_mut().zip(task.await.map_err(task_failed)??) {
            content.merge(more);
        }
        Ok(())
    }

    /// A shard must hold what its file holds: something was left out of it, with consent.
    pub(super) async fn take_file(&mut self, shard: usize, path: &Path) -> Result<()> {
        let (rules, path) = (self.rules.read_back(), path.to_owned());
        let digest = move || {
            digest::of_file(rules, &path).map_err(|why| match why {
                Undigested::File(error) => unwritable(&path, &error),
                Undigested::Scan(error) => undigested(error),
            })
        };
        let found = tokio::task::spawn_blocking(digest).await.map_err(task_failed)??;
        if let Some(content) = self.contents.get_mut(shard) {
            *content = found.into_iter().next().unwrap_or_default();
        }
        Ok(())
    }
}

fn undigested(error: rdbtools::ScanError) -> Error {
    Error::new(Class::Verification, format!("a value cannot be digested: {error}"))
        .hint("--no-verify restores the value as it is, without comparing what the target holds then")
}
