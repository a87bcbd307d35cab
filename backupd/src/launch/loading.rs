//! A launch whose primaries load while their files are still being written.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::feed::{Growing, feed};
use super::folder::{DUMP, move_file};
use super::{LaunchProgress, Prepared, ShardPlan, Started};
use crate::error::{Error, Result};
use crate::task_failed;

/// Between two looks whether the servers still run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Primaries that load. Dropping it kills them, unless it is [finished](Self::finish).
#[derive(Debug)]
pub struct Loading {
    started: Started,
    files: Vec<Growing>,
    feeds: JoinSet<Result<Sender>>,
    /// Those whose server was given all of its file.
    fed: Vec<Sender>,
    whole: Vec<watch::Sender<Option<u64>>>,
}

impl Loading {
    /// Starts the primaries and begins to give each its file.
    pub(super) fn begin(
        prepared: Prepared,
        files: Vec<Growing>,
        progress: &(dyn Fn(LaunchProgress) + Sync),
    ) -> Result<Self> {
        let pipes: Vec<PathBuf> = prepared.folders.iter().map(|folder| folder.join(DUMP)).collect();
        let started = Started::spawn(prepared, progress)?;
        let (mut feeds, mut whole) = (JoinSet::new(), Vec::new());
        for (file, pipe) in files.iter().zip(pipes) {
            let (sender, receiver) = watch::channel(None);
            feeds.spawn(feed(file.clone(), pipe, receiver));
            whole.push(sender);
        }
        Ok(Self { started, files, feeds, fed: Vec::new(), whole })
    }

    /// Waits until a server ends or takes nothing any more, and says why; as long as all is well it does not return.
    pub async fn failure(&mut self) -> Error {
        loop {
            if let Err(error) = self.look().await {
                return error;
            }
        }
    }

    /// Looks at the servers, and takes note of files that were taken whole.
    async fn look(&mut self) -> Result<()> {
        let fed = tokio::select! {
            Some(ended) = self.feeds.join_next() => ended.map_err(task_failed).and_then(|fed| fed).map(Some),
            () = sleep(LOOK_EVERY) => Ok(None),
        };
        // what its log says is the cause
        self.started.running.check_alive()?;
        self.fed.extend(fed?);
        Ok(())
    }

    /// The files are whole: so many bytes each, and what is known of them by now. Waits until the primaries hold them.
    ///
    /// # Errors
    /// As [`launch()`](super::launch()).
    pub async fn finish(
        mut self,
        shards: Vec<(ShardPlan, u64)>,
        progress: &(dyn Fn(LaunchProgress) + Sync),
    ) -> Result<Started> {
        for (whole, (_, bytes)) in self.whole.iter().zip(&shards) {
            whole.send_replace(Some(*bytes));
        }
        while !self.feeds.is_empty() {
            self.look().await?;
        }
        for (file, folder) in self.files.iter().zip(&self.started.folders) {
            move_file(&file.whole, &folder.join(DUMP))?;
        }
        let mut started = self.started;
        super::folder::end_staging(&started.plan.dir);
        started.plan.shards = shards.into_iter().map(|(shard, _)| shard).collect();
        let loaded = started.wait_loaded(progress).await;
        // kept open until here, see `feed`
        drop(self.fed);
        loaded
    }
}
