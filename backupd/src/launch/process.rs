//! The processes of a launch, from their start until they hold their data.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ::redis::cmd;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::folder::{CONF, LOG, refused};
use super::{LaunchProgress, ShardPlan};
use crate::error::{Class, Error, Result};
use crate::redis::{Address, Client, Info, SourceOptions};

/// Between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a node may stand still: not answer, or load nothing more.
pub(super) const STALL_WAIT: Duration = Duration::from_secs(180);

/// For a connection and for a reply; a loading server answers between its keys.
const REPLY_WAIT: Duration = Duration::from_secs(10);

/// How much of a log an error shows.
const LOG_LINES_SHOWN: usize = 8;
const LOG_BYTES_SHOWN: u64 = 4096;

/// The processes of a launch. Dropping it kills them, unless [`keep`](Self::keep) was called.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) processes: Vec<Process>,
    /// How the nodes are entered.
    options: SourceOptions,
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It fails only for a process that is gone already.
            process.child.start_kill().ok();
        }
    }
}

impl Running {
    /// No process yet; those to come are entered so.
    pub(super) fn new(options: SourceOptions) -> Self {
        let options = SourceOptions { connect_timeout: REPLY_WAIT, reply_timeout: REPLY_WAIT, ..options };
        Self { processes: Vec::new(), options }
    }

    /// Lets the processes live on.
    pub(super) fn keep(mut self) {
        self.processes.clear();
    }

    /// Starts one node, in a process group of its own so that no Ctrl-C of our terminal reaches it.
    pub(super) fn start(&mut self, engine: &Path, folder: &Path, port: u16) -> Result<()> {
        let log = folder.join(LOG);
        let output = File::options().create(true).append(true).open(&log).map_err(|error| refused(&log, &error))?;
        let errors = output.try_clone().map_err(|error| refused(&log, &error))?;
        let mut command = Command::new(engine);
        command.arg(folder.join(CONF)).current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::from(output)).stderr(Stdio::from(errors));
        let child = command.spawn().map_err(|error| {
            Error::new(Class::Config, format!("engine {}: cannot be run: {error}", engine.display()))
        })?;
        self.processes.push(Process {
            child,
            folder: folder.to_owned(),
            port,
            client: None,
            options: self.options.clone(),
        });
        Ok(())
    }

    /// Whether all of them still run.
    ///
    /// # Errors
    /// `Unforeseen`, with the end of its log, for one that has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check_alive)
    }

    /// Waits until every node has loaded its file, and counts its keys.
    pub(super) async fn wait_loaded(
        &mut self,
        shards: &[ShardPlan],
        progress: &(dyn Fn(LaunchProgress) + Sync),
    ) -> Result<()> {
        let all = 0..self.processes.len();
        self.wait_for(all, "it stands still while it starts", |index, port, info| {
            if info.text("loading") != "1" {
                shards.get(index).map_or(Ok(()), |shard| check_keys(port, info, shard))?;
                progress(LaunchProgress::Loaded { port, keys: info.keys() });
                return Ok(Step::Done);
            }
            let (loaded_bytes, total_bytes) = (info.number("loading_loaded_bytes"), info.number("loading_total_bytes"));
            progress(LaunchProgress::Loading { port, loaded_bytes, total_bytes });
            Ok(Step::At(loaded_bytes))
        })
        .await
    }

    /// Waits until the replicas, which are the processes from `first` on, hold what their primaries hold.
    pub(super) async fn wait_replicas(&mut self, first: usize) -> Result<()> {
        let replicas = first..self.processes.len();
        self.wait_for(replicas, "this replica does not get in step with its primary", |_, _, info| {
            let in_step = info.text("master_link_status") == "up" && info.text("loading") != "1";
            let at = info.number("master_sync_read_bytes").saturating_add(info.number("loading_loaded_bytes"));
            Ok(if in_step { Step::Done } else { Step::At(at) })
        })
        .await
    }

    /// Looks at some nodes again and again until `step` says of each that it is done. `stalled` is what is
    /// wrong with one that stays where it is.
    async fn wait_for(
        &mut self,
        nodes: Range<usize>,
        stalled: &str,
        mut step: impl FnMut(usize, u16, &Info) -> Result<Step>,
    ) -> Result<()> {
        let mut pending: Vec<(usize, Option<u64>, Instant)> =
            nodes.map(|index| (index, None, Instant::now())).collect();
        while !pending.is_empty() {
            let mut still = Vec::new();
            for (index, mut seen, mut since) in pending {
                let Some(process) = self.processes.get_mut(index) else { continue };
                match process.look().await?.map(|info| step(index, process.port, &info)).transpose()? {
                    Some(Step::Done) => continue,
                    Some(Step::At(at)) if seen != Some(at) => (seen, since) = (Some(at), Instant::now()),
                    Some(Step::At(_)) | None => {}
                }
                if since.elapsed() > STALL_WAIT {
                    return Err(process.failed(stalled));
                }
                still.push((index, seen, since));
            }
            pending = still;
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Saves the first node: the file that it had loaded is put aside, and the new one takes its place.
    pub(super) async fn save(&mut self) -> Result<PathBuf> {
        let gone = || Error::new(Class::Unforeseen, "there is no server that could save");
        let process = self.processes.first_mut().ok_or_else(gone)?;
        let (saved, loaded) = (process.folder.join("dump.rdb"), process.folder.join("loaded.rdb"));
        std::fs::rename(&saved, &loaded).map_err(|error| refused(&loaded, &error))?;
        let begun: Option<String> = process.ask("BGSAVE", &cmd("BGSAVE")).await?;
        if begun.is_none() {
            return Err(process.failed("it does not answer to BGSAVE"));
        }
        self.wait_for(0..1, "its save stands still", |_, _, info| {
            if info.text("rdb_bgsave_in_progress") == "0" && saved.exists() {
                return Ok(Step::Done);
            }
            if info.text("rdb_last_bgsave_status") == "err" {
                let what = "the server could not save what it holds: there may be no room on the scratch space";
                return Err(Error::new(Class::Unforeseen, what));
            }
            // servers before 6.2 tell only how long it takes
            let keys = info.number("current_save_keys_processed");
            Ok(Step::At(keys.saturating_add(info.number("rdb_current_bgsave_time_sec"))))
        })
        .await?;
        Ok(saved)
    }

    /// Keys and process id of every node, in their order.
    pub(super) async fn facts(&mut self) -> Result<Vec<(u64, u32)>> {
        let mut facts = Vec::new();
        for process in &mut self.processes {
            let info = process.look().await?.ok_or_else(|| process.failed("it does not answer any more"))?;
            let pid = info.text("process_id").parse().ok().or(process.child.id()).unwrap_or(0);
            facts.push((info.keys(), pid));
        }
        Ok(facts)
    }
}

/// Where a node stands that we wait for.
enum Step {
    /// Where it should be.
    Done,
    /// On its way; a changing number shows that it moves.
    At(u64),
}

/// Every key of the file must be there, except those whose time is over.
fn check_keys(port: u16, info: &Info, shard: &ShardPlan) -> Result<()> {
    let keys = info.keys();
    if keys <= shard.keys && keys >= shard.keys.saturating_sub(shard.expires) {
        return Ok(());
    }
    let message = format!(
        "127.0.0.1:{port}: the server holds {keys} keys, but its file has {} ({} of them with an expiry)",
        shard.keys, shard.expires
    );
    Err(Error::new(Class::Verification, message))
}

/// One node's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) folder: PathBuf,
    pub(super) port: u16,
    client: Option<Client>,
    options: SourceOptions,
}

impl Process {
    /// Asks the node how it is; `None` while it does not answer yet. An ended process is an error.
    async fn look(&mut self) -> Result<Option<Info>> {
        let text: String = match self.ask("INFO", &cmd("INFO")).await? {
            Some(text) => text,
            None => return Ok(None),
        };
        let info = Info::parse(&text);
        let own = self.folder.join(CONF);
        if info.text("config_file") != own.to_string_lossy() {
            let message = format!("port {} of 127.0.0.1 is taken: another server answers there", self.port);
            return Err(Error::new(Class::Refused, message).hint("give another first port with --port P"));
        }
        Ok(Some(info))
    }

    fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.failed(&format!("the server ended ({status})"))),
            _ => Ok(()),
        }
    }

    /// Runs a command; `None` when the node does not answer (yet).
    pub(super) async fn ask<T: ::redis::FromRedisValue>(
        &mut self,
        name: &str,
        command: &::redis::Cmd,
    ) -> Result<Option<T>> {
        self.check_alive()?;
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let address = Address::tcp("127.0.0.1", self.port);
                match Client::connect(&address, &self.options).await {
                    Ok(client) => client,
                    Err(error) if error.is_retryable() => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        match client.query(name, command).await {
            Ok(reply) => {
                self.client = Some(client);
                Ok(Some(reply))
            }
            Err(error) if error.is_retryable() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The error for a node that does not do what it should, with the end of its log.
    pub(super) fn failed(&self, why: &str) -> Error {
        let log = log_tail(&self.folder.join(LOG));
        let taken = log.contains("Address already in use");
        let class = if taken { Class::Refused } else { Class::Unforeseen };
        let message = format!("node on port {}: {why}; its log ends with:\n{log}", self.port);
        Error::new(class, message)
    }
}

/// The last lines of a log, or why there are none.
fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_SHOWN).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let skip = lines.len().saturating_sub(LOG_LINES_SHOWN);
            lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}
