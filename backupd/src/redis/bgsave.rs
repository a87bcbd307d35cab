//! A save of a server to its own disk, and the proof that it succeeded.
//!
//! `rdb_last_bgsave_status:ok` is no proof: a child that `FLUSHALL` or a full synchronisation killed leaves it so, and
//! `rdb_saves` rises as well. What is: `rdb_last_save_time` advanced, in the same run and role of the server, and the
//! file itself says that it was made since then, at a position between those before and after.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::redis::cmd;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::info::Info;
use super::node::{Node, Role};
use super::source::SourceOptions;
use crate::error::{Class, Error, Result};

/// Between two looks at a server that saves.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A server that is ready to save: nothing else saves or rewrites there, and its last save is at least a second old.
#[derive(Debug)]
pub struct Save {
    client: Client,
    node: String,
    role: Role,
    path: PathBuf,
    deadline: Instant,
}

/// What was so before a save.
#[derive(Debug)]
struct Begun {
    before: Position,
    /// The server's clock, seconds since 1970.
    begun_at: u64,
    /// When it had saved before, seconds since 1970.
    last_save: u64,
    /// The file that was there.
    earlier: Option<Metadata>,
}

/// The file of a save that succeeded, held open, so that a later save does not take it away.
#[derive(Debug)]
pub struct Saved {
    /// The file.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    node: String,
    role: Role,
    path: PathBuf,
    /// The server's clock before the save, seconds since 1970.
    begun_at: u64,
    before: Position,
    after: Position,
}

/// A place in a replication history, and the run of the server that said it.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    run_id: String,
    replica: bool,
    replid: String,
    offset: u64,
}

impl Position {
    fn of(info: &Info) -> Self {
        let replica = info.is_replica();
        Self {
            run_id: info.text("run_id").to_owned(),
            replica,
            replid: info.text("master_replid").to_owned(),
            offset: info.number(if replica { "slave_repl_offset" } else { "master_repl_offset" }),
        }
    }
}

impl Save {
    /// Connects to `node` and waits until nothing saves or rewrites there. Its RDB file is looked for in `folder`, else,
    /// when the node is on this machine, where the server itself says.
    ///
    /// # Errors
    /// `Refused` when the folder of a node elsewhere is not known, or when a failed save would stop the writes of a
    /// primary and `risk` does not allow that; `SourceAuth` when a command is refused; `SourceUnavailable` when another
    /// child does not end in time.
    pub async fn prepare(node: &Node, options: &SourceOptions, folder: Option<&Path>, risk: bool) -> Result<Self> {
        let mut client = Client::connect(&node.address, options).await?;
        let dir = config(&mut client, "dir").await?;
        let file = config(&mut client, "dbfilename").await?;
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None if node.address.is_local() => PathBuf::from(dir),
            None => {
                let message = format!("{}: the folder {dir} of its RDB file is on another machine", node.address);
                return Err(Error::new(Class::Refused, message)
                    .hint("say where it can be read from here: --data-dir HOST:PORT=PATH, or use --method stream"));
            }
        };
        check_risk(&mut client, node, risk).await?;
        let deadline = Instant::now() + options.payload_wait;
        let (node, role) = (node.address.to_string(), node.role);
        Ok(Self { client, node, role, path: folder.join(file), deadline })
    }

    /// Saves. When this returns, the save is proven by the server; [`Saved::position`] proves the file.
    ///
    /// # Errors
    /// `SourceUnavailable` when the save fails, when its child is killed, or when the server is another process or in
    /// another role afterwards; `Config` when the file cannot be read from here.
    pub async fn run(mut self) -> Result<Saved> {
        let Begun { before, begun_at, last_save, earlier } = self.begin().await?;
        let info = loop {
            let info = self.info().await?;
            if info.text("rdb_bgsave_in_progress") != "1" && info.text("rdb_bgsave_scheduled") != "1" {
                break info;
            }
            self.wait("its save did not end in time").await?;
        };
        if Position::of(&info).run_id != before.run_id || info.is_replica() != before.replica {
            return Err(self.failed("the server was restarted or changed its role while it saved"));
        }
        if info.text("rdb_last_bgsave_status") != "ok" {
            return Err(self.failed("its save failed").hint("look at its log and at the room on its disk"));
        }
        if info.number("rdb_last_save_time") <= last_save {
            return Err(self.failed("the child that saved was killed, although the status of its last save is ok"));
        }
        let (file, bytes) = self.open(earlier.as_ref())?;
        // after the file is open: another save that replaced it in between has a later position
        let after = Position::of(&self.info().await?);
        let Self { node, role, path, .. } = self;
        Ok(Saved { file, bytes, node, role, path, begun_at, before, after })
    }

    /// Asks for a save until the server begins one.
    async fn begin(&mut self) -> Result<Begun> {
        loop {
            let info = self.info().await?;
            let last_save = info.number("rdb_last_save_time");
            let now: (u64, u64) = self.client.query("TIME", &cmd("TIME")).await?;
            let busy = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"];
            // times are whole seconds: a save that ends in the second of the one before would not show
            if busy.iter().any(|field| info.text(field) == "1") || now.0 <= last_save {
                self.wait("another save or rewrite of it did not end in time").await?;
                continue;
            }
            // a small save can have ended before the answer is here
            let earlier = std::fs::metadata(&self.path).ok();
            match self.client.query::<String>("BGSAVE", &cmd("BGSAVE")).await {
                Ok(_) => return Ok(Begun { before: Position::of(&info), begun_at: now.0, last_save, earlier }),
                // a child that began in between
                Err(error) if ["in progress", "child process"].iter().any(|words| error.message().contains(words)) => {
                    self.wait("another save or rewrite of it did not end in time").await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn info(&mut self) -> Result<Info> {
        let text: String = self.client.query("INFO", cmd("INFO").arg("everything")).await?;
        Ok(Info::parse(&text))
    }

    async fn wait(&self, why: &str) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(self.failed(why));
        }
        sleep(LOOK_EVERY).await;
        Ok(())
    }

    fn failed(&self, why: &str) -> Error {
        Error::new(Class::SourceUnavailable, format!("{}: BGSAVE: {why}", self.node))
    }

    /// The file, which must be another one than `earlier`.
    fn open(&self, earlier: Option<&Metadata>) -> Result<(File, u64)> {
        let path = self.path.display();
        let unreadable = |error: std::io::Error| {
            let class = if error.kind() == ErrorKind::Interrupted { Class::SourceUnavailable } else { Class::Config };
            Error::new(class, format!("{}: its RDB file {path} cannot be read: {error}", self.node))
                .hint("say where it can be read from here: --data-dir HOST:PORT=PATH, or use --method stream")
        };
        let file = File::open(&self.path).map_err(unreadable)?;
        let facts = file.metadata().map_err(unreadable)?;
        let identity = |facts: &Metadata| (facts.dev(), facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.len());
        if earlier.is_some_and(|earlier| identity(earlier) == identity(&facts)) {
            return Err(Error::new(
                Class::Config,
                format!("{}: it saved, but the file {path} did not change", self.node),
            )
            .hint("that is the folder of another server: check --data-dir"));
        }
        Ok((file, facts.len()))
    }
}

impl Saved {
    /// The position of the file, from what it says of itself (`aux`).
    ///
    /// # Errors
    /// `Verification` when the file was made before the save, belongs to another history, or lies outside of what the
    /// server went through meanwhile; retryable.
    pub fn position(&self, aux: &BTreeMap<String, String>) -> Result<(String, u64)> {
        let number = |name: &str| aux.get(name).and_then(|text| text.parse::<u64>().ok());
        let wrong = |why: String| {
            let message = format!("{}: the file {} is not of its save: {why}", self.node, self.path.display());
            Error::new(Class::Verification, message).hint("check --data-dir").retryable(true)
        };
        match number("ctime") {
            Some(made_at) if made_at >= self.begun_at => {}
            other => return Err(wrong(format!("it was made at {other:?}, the save began at {}", self.begun_at))),
        }
        let (first, last) = (&self.before, &self.after);
        match (aux.get("repl-id"), number("repl-offset")) {
            (Some(replid), Some(offset)) => {
                let inside = (first.offset..=last.offset).contains(&offset);
                if *replid != first.replid || first.replid != last.replid || !inside {
                    return Err(wrong(format!(
                        "its position {replid} {offset} does not lie from {} {} to {} {}",
                        first.replid, first.offset, last.replid, last.offset
                    )));
                }
                Ok((replid.clone(), offset))
            }
            // a primary without a backlog has a history in which nothing moves, and saves none
            _ if self.role == Role::Primary && first == last => Ok((first.replid.clone(), first.offset)),
            _ => Err(wrong("it has no position".to_owned())),
        }
    }
}

async fn config(client: &mut Client, name: &str) -> Result<String> {
    let known = client.setting(name).await?;
    known.ok_or_else(|| Error::new(Class::SourceUnavailable, format!("CONFIG GET {name} is empty")))
}

/// Refuses a primary whose writes a failed save to its disk would stop, unless `risk` allows that.
pub(super) async fn check_risk(client: &mut Client, node: &Node, risk: bool) -> Result<()> {
    if node.role != Role::Primary || risk || !may_stop_writes(client).await? {
        return Ok(());
    }
    let message = format!("{}: a failed save would stop the writes of this primary (MISCONF)", node.address);
    Err(Error::new(Class::Refused, message).hint(
        "save on a replica, use --method stream, or allow it: --primary fallback, or primary = \"fallback\" in \
         the section of the cluster",
    ))
}

/// Whether a failed save would make this server refuse writes: it has save points and `stop-writes-on-bgsave-error`.
async fn may_stop_writes(client: &mut Client) -> Result<bool> {
    Ok(!config(client, "save").await?.is_empty() && config(client, "stop-writes-on-bgsave-error").await? == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(replid: &str, offset: u64) -> Position {
        Position { run_id: "run".into(), replica: false, replid: replid.into(), offset }
    }

    fn saved(before: Position, after: Position) -> Saved {
        let (role, path) = (Role::Primary, PathBuf::from("dump.rdb"));
        Saved {
            file: tempfile::tempfile().unwrap(),
            bytes: 0,
            node: "n".into(),
            role,
            path,
            begun_at: 100,
            before,
            after,
        }
    }

    fn aux(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_file_counts_only_when_it_was_made_since_and_lies_within_the_same_history() {
        let file = saved(at("a", 10), at("a", 20));
        let good = aux(&[("ctime", "100"), ("repl-id", "a"), ("repl-offset", "15")]);
        assert_eq!(file.position(&good).unwrap(), ("a".to_owned(), 15));
        for (name, value) in [("ctime", "99"), ("repl-id", "b"), ("repl-offset", "9"), ("repl-offset", "21")] {
            let mut bad = good.clone();
            bad.insert(name.to_owned(), value.to_owned());
            let error = file.position(&bad).unwrap_err();
            assert!(error.class() == Class::Verification && error.is_retryable(), "{name} {value}: {error}");
        }
        let silent = aux(&[("ctime", "100")]);
        assert!(file.position(&silent).is_err(), "the history moved, so the file must say where it is");
        assert!(file.position(&aux(&[])).is_err());
        assert_eq!(saved(at("a", 0), at("a", 0)).position(&silent).unwrap(), ("a".to_owned(), 0));
        assert!(saved(at("a", 10), at("b", 20)).position(&good).is_err(), "the history changed");
    }
}
