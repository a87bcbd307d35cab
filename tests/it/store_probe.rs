//! What a store lets us do is found out by doing it; with less than everything the program still does what it can.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backupd::error::{Class, Result};
use backupd::repository::Repository;
use backupd::store::{LocalStore, Page, Stat, Store, Unfinished, Upload};
use bytes::Bytes;
use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::faults::{Fault, Faulty, Operation, Script, first};
use crate::harness::process::{self, wait_for};
use crate::harness::s3::block_on;
use crate::harness::server::{Options, Server};

/// The repository through a proxy with this script.
fn through(repo: &Repo, script: impl Script + 'static) -> (Repo, Faulty) {
    let bucket = repo.bucket.clone().unwrap();
    let proxy = Faulty::start(&bucket.endpoint, script);
    let url = repo.url_through(&proxy.endpoint);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(repo.path("keys.json"), dir.path().join("keys.json")).unwrap();
    (Repo { dir, url, cli: repo.cli.clone(), bucket: Some(bucket) }, proxy)
}

fn deny(wanted: impl Fn(Operation) -> bool + Send) -> impl Script {
    first(usize::MAX, wanted, Fault::Answer(403, "AccessDenied"))
}

fn probe(repo: &Repo, code: i32) -> Value {
    let outcome = repo.cli.run(&["check", "--repository", &repo.url, "-o", "json"]).exits(code);
    outcome.json()["repositories"][0].clone()
}

fn allowed(probe: &Value) -> Vec<String> {
    let permissions = probe["permissions"].as_object().unwrap().iter();
    permissions.filter(|(_, it)| it["allowed"] == true).map(|(what, _)| what.clone()).collect()
}

const ALL: [&str; 7] = ["delete", "head", "list", "range", "read", "upload", "write"];

#[test]
fn a_probe_says_what_is_allowed_and_leaves_nothing() {
    let (folder, bucket) = (Repo::folder(), Repo::bucket("probe"));
    for repo in [&folder, &bucket] {
        let found = probe(repo, 0);
        assert_eq!(
            (&found["ok"], &found["mode"], &found["repository_id"]),
            (&true.into(), &"read-write".into(), &Value::Null)
        );
        assert_eq!(allowed(&found), ALL, "{found}");
        assert_eq!(found["features"]["conditional_writes"], true);
    }
    assert!(folder.files().is_empty());
    assert_eq!(bucket.bucket.as_ref().unwrap().list(""), []);
    assert_eq!(bucket.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0]);
    let features = probe(&bucket, 0)["features"].clone();
    assert_eq!((&features["digests"], &features["checksums"]), (&true.into(), &true.into()), "of radosgw: {features}");
    assert_eq!(probe(&bucket, 0)["features"]["versioning"], false);
    let text = bucket.cli.run(&["check", "--repository", &bucket.url]).ok().stdout;
    assert!(text.starts_with("ok: ") && text.contains("everything works"), "{text}");
    let gone = bucket.url.replace(&bucket.bucket.as_ref().unwrap().name, "no-such-bucket-here");
    bucket.cli.run(&["check", "--repository", &gone, "-o", "json"]).exits(10);
}

#[test]
fn a_probe_tells_append_only_and_read_only_credentials() {
    let repo = Repo::bucket("probe-denied");
    let (append, _proxy) = through(&repo, deny(|o| o == Operation::Delete));
    let found = probe(&append, 0);
    assert_eq!((&found["ok"], &found["mode"]), (&true.into(), &"append-only".into()), "{found}");
    let (read, _proxy) = through(&repo, deny(Operation::is_write));
    let found = probe(&read, 14);
    assert_eq!((&found["ok"], &found["mode"]), (&false.into(), &"read-only".into()), "{found}");
    let (parts, _proxy) = through(&repo, deny(|o| o == Operation::Begin));
    assert!(!allowed(&probe(&parts, 14)).contains(&"upload".to_owned()));
    // the canary that could not be deleted is garbage
    repo.create(&Server::standalone().url(), "one");
    let removed = repo.json(&["gc", "apply", "--older-than", "0s"]);
    assert_eq!(removed["removes"].as_array().unwrap().len(), 1, "{removed}");
    assert_eq!(removed["unknown"], Value::from([Value::Null; 0].as_slice()));
}

#[test]
fn with_append_only_credentials_snapshots_are_made_and_restored_and_never_deleted() {
    let server = Server::standalone();
    server.run(&["SET", "a", "1"]);
    let repo = Repo::bucket("append-only");
    let (append, _proxy) = through(&repo, deny(|o| o == Operation::Delete));
    append.create(&server.url(), "one");
    append.create(&server.url(), "two");
    append.json(&["snapshot", "verify", "one"]);
    append.json(&["restore", "one", "--out", append.path("out").to_str().unwrap()]);
    append.run(&["snapshot", "delete", "two"]).exits(14);
    append.run(&["gc", "apply", "--older-than", "0s"]).exits(14);
    // the lease of the restore stays, until it runs out or its process is seen to be gone
    assert!(repo.bucket.as_ref().unwrap().list("").iter().any(|(key, _)| key.contains("/lease-")));
    repo.json(&["snapshot", "delete", "one"]);
    // without leases: credentials that only read restore all the same, and say so
    let (read, _proxy) = through(&repo, deny(Operation::is_write));
    let out = read.path("read").display().to_string();
    read.run(&["restore", "two", "--out", &out]).ok().says("no lease can be written");
    read.run(&["snapshot", "verify", "two"]).ok().says("could not be noted");
    read.run(&["snapshot", "verify", "two", "--no-record"]).ok();
}

#[test]
fn a_server_that_ignores_conditions_is_noticed_and_looked_at_before_every_write() {
    let server = Server::start(&Options::new().line("rdb-key-save-delay 300000"));
    for index in 0..10 {
        server.run(&["SET", &index.to_string(), "1"]);
    }
    let repo = Repo::bucket("ignoring");
    let ignore = || first(usize::MAX, |o| o.is_write(), Fault::Unconditional);
    let (ignoring, _proxy) = through(&repo, ignore());
    let found = probe(&ignoring, 0);
    assert_eq!((&found["ok"], &found["features"]["conditional_writes"]), (&true.into(), &false.into()), "{found}");
    ignoring
        .run(&["snapshot", "create", "--source", &server.url(), "--name", "one"])
        .ok()
        .says("ignores If-None-Match");
    ignoring.run(&["snapshot", "create", "--source", &server.url(), "--name", "one"]).exits(18);
    ignoring.json(&["snapshot", "verify", "one"]);
    // two jobs that want one name: one makes it
    let words = ignoring.args(&["snapshot", "create", "--source", &server.url(), "--name", "two"]);
    let one = ignoring.cli.spawn(&words);
    wait_for("the claim", Duration::from_secs(60), || {
        let claimed = repo.bucket.as_ref().unwrap().list("some/prefix/_names/two/");
        if claimed.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    });
    let other = Server::standalone();
    ignoring.run(&["snapshot", "create", "--source", &other.url(), "--name", "two"]).exits(11);
    one.wait(Duration::from_secs(120)).ok();
    ignoring.json(&["snapshot", "verify", "two"]);
}

/// A folder whose clock is wrong.
#[derive(Debug)]
struct Skewed(LocalStore);

#[async_trait]
impl Store for Skewed {
    fn url(&self) -> String {
        self.0.url()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        self.0.create(key, body).await
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        self.0.read(key, size_bytes_max).await
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.0.read_range(key, offset, length).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        let slow = |stat: Stat| Stat { modified_unix_ms: stat.modified_unix_ms - 600_000, ..stat };
        Ok(self.0.stat(key).await?.map(slow))
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        self.0.list(prefix, by_folder, after).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    async fn upload(&self, key: &str, size_hint_bytes: u64) -> Result<Box<dyn Upload>> {
        self.0.upload(key, size_hint_bytes).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.0.unfinished().await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.0.discard(unfinished).await
    }
}

#[test]
fn gc_removes_nothing_when_its_clock_and_the_stores_disagree() {
    let repo = Repo::folder();
    repo.create(&Server::standalone().url(), "one");
    let orphan = repo.root().join("default/20200101T000000Z-00000001/shard-0000-1.bkd");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "garbage").unwrap();
    let files = repo.files().len();
    let gc = |store: Arc<dyn Store>| {
        block_on(async { Repository::open(store).await.unwrap().apply_gc(Duration::ZERO).await })
    };
    let error = gc(Arc::new(Skewed(LocalStore::new(&repo.root())))).unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert!(error.message().contains("600 s apart") || error.message().contains("601 s apart"), "{error}");
    assert_eq!(repo.files().len(), files, "nothing was removed, and nothing was left");
    assert!(gc(Arc::new(LocalStore::new(&repo.root()))).unwrap().applied && !orphan.exists());
}

#[test]
fn no_other_program_of_the_user_can_look_into_the_memory() {
    let server = Server::start(&Options::new().line("rdb-key-save-delay 1000000"));
    for index in 0..20 {
        server.run(&["SET", &index.to_string(), "1"]);
    }
    // of a process that may be dumped the files in /proc are its user's, of one that may not they are root's
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let (program, nobody) = (dir.path().join("backupd"), 65_534);
    std::fs::copy(env!("CARGO_BIN_EXE_backupd"), &program).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(nobody), Some(nobody)).unwrap();
    let owner = |command: &mut std::process::Command, name: &str| {
        let command = std::mem::replace(command.uid(nobody).gid(nobody), process::command("true"));
        let mut running = process::spawn(command);
        let folder = PathBuf::from(format!("/proc/{}", running.child.id()));
        let is_it = || std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let mut last = None;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(20));
            let seen = is_it().then(|| std::fs::metadata(folder.join("maps")).ok()).flatten().map(|maps| maps.uid());
            // the files of a process that has ended are root's in any case
            last = if running.is_alive() { seen } else { None };
            if last == Some(0) {
                break;
            }
        }
        last
    };
    let url = format!("file://{}/repository", dir.path().display());
    let mut ours = process::command(&program);
    ours.args([
        "snapshot",
        "create",
        "--source",
        &server.url(),
        "--name",
        "one",
        "--repository",
        &url,
        "--no-encryption",
    ]);
    ours.env("PATH", std::env::var("PATH").unwrap())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    assert_eq!(owner(&mut ours, "backupd"), Some(0), "the memory of backupd is its user's to read");
    let mut other = process::command("sleep");
    other.arg("60");
    assert_eq!(owner(&mut other, "sleep"), Some(nobody), "the test sees the difference");
}
