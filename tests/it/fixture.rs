//! What most tests of snapshots need: a repository of their own, a key file, and the program to use them with.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::cli::{Cli, Outcome};
use crate::harness::nodes::{self, Node};
use crate::harness::process;
use crate::harness::s3::Bucket;

/// A repository, a key file and a place for other files; all gone when dropped (but for buckets).
#[derive(Debug)]
pub(crate) struct Repo {
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    pub(crate) cli: Cli,
    /// The bucket, when it is one.
    pub(crate) bucket: Option<Bucket>,
}

impl Repo {
    /// In a folder.
    pub(crate) fn folder() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().join("repository").display());
        Self { dir, url, cli: Cli::new(), bucket: None }.with_key()
    }

    /// In a fresh bucket of the S3 server of the tests.
    pub(crate) fn bucket(label: &str) -> Self {
        Self::in_bucket(Bucket::create(label))
    }

    /// In this bucket.
    pub(crate) fn in_bucket(bucket: Bucket) -> Self {
        let url = bucket.url("some/prefix");
        let cli = Cli::new().envs(bucket.envs());
        Self { dir: tempfile::tempdir().unwrap(), url, cli, bucket: Some(bucket) }.with_key()
    }

    fn with_key(self) -> Self {
        self.cli.run(&["key", "generate", self.path("keys.json").to_str().unwrap()]).ok();
        self
    }

    /// A path beside the repository.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder of the repository.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("repository")
    }

    /// `words`, then the flags that name repository and key, and `-o json`.
    pub(crate) fn args(&self, words: &[&str]) -> Vec<String> {
        let key_file = self.path("keys.json");
        let flags = ["--repository", &self.url, "--key-file", key_file.to_str().unwrap(), "-o", "json"];
        words.iter().chain(&flags).map(ToString::to_string).collect()
    }

    /// Its URL with another endpoint: that of a proxy in front of its server.
    pub(crate) fn url_through(&self, endpoint: &str) -> String {
        self.url.replace(&self.bucket.as_ref().unwrap().endpoint, endpoint)
    }

    /// `words`, which then reach the repository through this endpoint.
    pub(crate) fn through(&self, words: Vec<String>, endpoint: &str) -> Vec<String> {
        let through = self.url_through(endpoint);
        words.into_iter().map(|word| if word == self.url { through.clone() } else { word }).collect()
    }

    /// Runs a command on this repository.
    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        self.cli.run(&self.args(words))
    }

    /// Runs it, wants success, and gives its JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.run(words).ok().json()
    }

    /// Makes a snapshot of what is at `source`.
    pub(crate) fn create(&self, source: &str, name: &str) -> Value {
        self.json(&["snapshot", "create", "--source", source, "--name", name])
    }

    /// Starts a new cluster below [`Self::path`] and returns its nodes and a guard that stops it.
    pub(crate) fn launch(&self, name: &str, more: &[&str]) -> (Vec<Node>, Launched) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = self.path(&format!("launched-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let launched = Launched { dir: dir.clone() };
        let words = [&["restore", name, "--launch", dir.to_str().unwrap()], more].concat();
        let outcome = self.json(&words);
        (nodes_of(&outcome), launched)
    }

    /// The states in `snapshot list`, as (name, status).
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        let list = self.json(&["snapshot", "list"]);
        let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
        list["snapshots"].as_array().unwrap().iter().map(|line| (text(line, "name"), text(line, "status"))).collect()
    }

    /// All files of the repository's folder, with their contents.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files_below(&self.root()).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// The files of the only snapshot: manifest, wraps, shards.
    pub(crate) fn snapshot_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = self.files();
        files.retain(|(path, _)| {
            let path = path.strip_prefix(self.root()).unwrap();
            path.components().count() == 3 && !path.starts_with("_names")
        });
        assert!(files.len() >= 3, "{files:?}");
        files
    }
}

/// The primaries of a restored cluster.
fn nodes_of(outcome: &Value) -> Vec<Node> {
    let first = &outcome["nodes"][0];
    nodes::discover(&format!("redis://{}:{}", first["host"].as_str().unwrap(), first["port"]))
}

/// All files below a folder, sorted.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Stops a launched cluster when the test is over.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) dir: PathBuf,
}

impl Drop for Launched {
    fn drop(&mut self) {
        let script = self.dir.join("stop.sh");
        if script.exists() {
            process::command(script).status().unwrap();
        }
    }
}
