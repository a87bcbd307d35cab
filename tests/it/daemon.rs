//! `backupd serve`, from outside: real servers, both databases, and whatever may happen to them.

mod chaos;
mod copies;
mod faults;
mod follow;
mod hooks;
mod life;
mod schedule;
mod shared;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use backupd::catalog::Catalog;
use serde_json::Value;

use crate::harness::cli::{Cli, Spawned};
use crate::harness::postgres::Postgres;
use crate::harness::process::wait_for;
use crate::harness::s3::block_on;
use crate::harness::server::{Port, Server};

/// When something that must happen is given up.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Clusters of one server each, a repository, a catalog, and a configuration that names them.
pub(crate) struct Fleet {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) servers: Vec<Server>,
    pub(crate) port: Port,
    pub(crate) cli: Cli,
    /// Sections of the configuration beside those of the servers.
    pub(crate) sections: String,
}

impl Fleet {
    /// `count` servers with a few keys; `more` is added to each cluster's section.
    pub(crate) fn new(count: usize, catalog: &str, daemon: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers: Vec<Server> = (0..count).map(|_| Server::standalone()).collect();
        for server in &servers {
            for n in 0..50 {
                server.run(&["SET", &format!("key:{n}"), &"v".repeat(n)]);
            }
        }
        let port = Port::reserve();
        let cli = Cli::new().env("BACKUPD_CONFIG", folder.path().join("backupd.toml"));
        let fleet = Self { cli, folder, servers, port, sections: String::new() };
        fleet.configure(catalog, daemon, more);
        fleet
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, catalog: &str, daemon: &str, more: &str) {
        let repository = self.path("repository");
        // many tests run at the same time, so nobody listens who was not told where
        let quiet = if daemon.contains("listen") { "" } else { "listen = \"\"\n" };
        let head = format!(
            "[catalog]\n{catalog}\n[daemon]\n{quiet}{daemon}\n[repositories.main]\nurl = \"file://{}\"\nno_encryption = true\n",
            repository.display()
        );
        let section = |(number, server): (usize, &Server)| {
            let sources = format!("sources = [\"redis://127.0.0.1:{}\"]", server.port());
            format!("[clusters.c{number}]\n{sources}\nrepository = \"main\"\nprimary = \"fallback\"\n{more}\n")
        };
        let text = head + &self.servers.iter().enumerate().map(section).collect::<String>() + &self.sections;
        std::fs::write(self.path("backupd.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A daemon.
    pub(crate) fn daemon(&self) -> Spawned {
        self.cli.spawn(&["serve", "--log-format", "json"])
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        self.cli.json(&words)
    }

    /// The job of this id.
    pub(crate) fn job(&self, id: &str) -> Value {
        self.json(&["job", "show", id])["job"].clone()
    }

    /// Asks the daemon for a snapshot: the id of its job.
    pub(crate) fn ask(&self, cluster: &str, name: &str) -> String {
        let made = self.json(&["snapshot", "create", cluster, "--name", name, "--no-wait"]);
        made["job_id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in one of these states.
    pub(crate) fn wait_job(&self, id: &str, states: &[&str]) -> Value {
        wait_for(&format!("job {id} to be {states:?}"), LIMIT, || {
            let job = self.job(id);
            if states.contains(&job["state"].as_str().unwrap()) { Ok(job) } else { Err(job.to_string()) }
        })
    }

    /// Waits until a job has begun this step.
    pub(crate) fn wait_step(&self, id: &str, step: &str) {
        wait_for(&format!("job {id} to begin {step}"), LIMIT, || {
            let job = self.job(id);
            if job["step"] == step { Ok(()) } else { Err(job.to_string()) }
        });
    }

    /// Waits for an event with this code.
    pub(crate) fn wait_event(&self, code: &str) -> Value {
        wait_for(&format!("event {code}"), LIMIT, || {
            self.events().into_iter().find(|event| event["code"] == code).ok_or_else(|| format!("{:?}", self.codes()))
        })
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json(&["event", "list"])["events"].as_array().unwrap().clone()
    }

    pub(crate) fn codes(&self) -> Vec<String> {
        self.events().iter().map(|event| event["code"].as_str().unwrap().to_owned()).collect()
    }

    /// The catalog that the daemons work on, from the side; of [`sqlite`].
    pub(crate) fn catalog(&self) -> Catalog {
        block_on(Catalog::open(&self.path("catalog.sqlite").into())).unwrap()
    }

    /// Names of available snapshots in the repository, as it is itself.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.snapshots_in("main")
    }

    /// The same of one repository of the configuration.
    pub(crate) fn snapshots_in(&self, repository: &str) -> Vec<String> {
        if !self.path("repository").exists() {
            return Vec::new();
        }
        let listed = self.json(&["snapshot", "list", "--repository", repository]);
        let all = listed["snapshots"].as_array().unwrap().iter();
        all.filter(|it| it["status"] == "available").map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// `[catalog]` of a SQLite file in the folder of the configuration.
pub(crate) fn sqlite() -> String {
    "path = \"catalog.sqlite\"".to_owned()
}

/// `[catalog]` of a new database of this server.
pub(crate) fn postgres(server: &Postgres, database: &str) -> String {
    format!("url = \"{}\"", server.url(database))
}

/// `GET` of the daemon: status and body.
pub(crate) fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| text.clone())?;
    Ok((status, text.split_once("\r\n\r\n").map(|it| it.1.to_owned()).unwrap_or_default()))
}
