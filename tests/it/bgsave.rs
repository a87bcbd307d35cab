//! Captures by `BGSAVE`: only a save that is proven counts, and none is asked of a server that it could harm.

use std::path::Path;
use std::time::Duration;

use crate::fixture::Repo;
use crate::harness::cli::{Outcome, Spawned};
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::mount::Mount;
use crate::harness::process;
use crate::harness::proxy::Proxy;
use crate::harness::server::Server;
use crate::redis_server::{fill, server, wait_until};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(180);

fn start(repo: &Repo, source: &Server, more: &[&str]) -> Spawned {
    let url = source.url();
    let words = [&["snapshot", "create", "--source", &url, "--name", "one", "--method", "bgsave"], more].concat();
    repo.cli.spawn(&repo.args(&words))
}

fn is(server: &Server, field: &str, value: &str) -> bool {
    server.info(field).as_deref() == Some(value)
}

fn wait_saving(server: &Server) {
    wait_until("the save", || is(server, "rdb_bgsave_in_progress", "1"));
}

fn kill_child(server: &Server, signal: &str) {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
    let child = children.split_whitespace().next().expect("a child").to_owned();
    assert!(process::send(signal, &child));
}

fn assert_restores(repo: &Repo, server: &Server) {
    repo.json(&["snapshot", "verify", "one"]);
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

fn attempt(outcome: &Outcome) -> u64 {
    outcome.json()["shards"][0]["attempt"].as_u64().unwrap()
}

#[test]
fn a_replica_saves_and_the_primary_does_nothing() {
    let (primary, replica) = (server(&["save 3600 1"]), server(&[]));
    Keyspace::new(81, 1000).load(&primary.nodes());
    replica.replicate(&primary);
    replica.wait_caught_up(&primary);
    let forks = primary.info("total_forks");
    let repo = Repo::folder();
    let outcome = start(&repo, &primary, &[]).wait(PATIENCE).ok();
    let (made, shard) = (outcome.json(), &outcome.json()["shards"][0]);
    assert_eq!(made["method"], "bgsave");
    assert_eq!(shard["node"]["address"].as_str(), Some(replica.address().as_str()));
    assert_eq!(shard["replid"].as_str(), primary.info("master_replid").as_deref());
    assert_eq!(shard["offset"].as_u64(), shard["rdb"]["aux"]["repl-offset"].as_str().and_then(|it| it.parse().ok()));
    assert_eq!(primary.info("total_forks"), forks);
    assert_restores(&repo, &primary);
}

#[test]
fn a_child_that_is_killed_is_never_taken_for_a_save() {
    // what FLUSHALL and a full synchronisation do to it leaves the status ok; what the system does, err
    for (signal, status) in [("USR1", "ok"), ("KILL", "err")] {
        let server = server(&["rdb-key-save-delay 1000"]);
        fill(&server, 2000);
        let repo = Repo::folder();
        // a file of an earlier save is there, and is not taken either
        server.run(&["SAVE"]);
        server.run(&["SET", "later", "1"]);
        let job = start(&repo, &server, &[]);
        wait_saving(&server);
        kill_child(&server, signal);
        wait_until("the child is gone", || !is(&server, "rdb_bgsave_in_progress", "1"));
        assert!(is(&server, "rdb_last_bgsave_status", status), "{signal}");
        let outcome = job.wait(PATIENCE).ok().says("retaken");
        assert_eq!(attempt(&outcome), 2, "{outcome}");
        assert!(outcome.stderr.contains(if status == "ok" { "was killed" } else { "its save failed" }), "{outcome}");
        assert_restores(&repo, &server);
    }
}

#[test]
fn other_saves_and_rewrites_are_waited_for_and_our_own_is_made() {
    for command in ["BGSAVE", "BGREWRITEAOF"] {
        let server = server(&["rdb-key-save-delay 1000"]);
        fill(&server, 1500);
        server.run(&[command]);
        server.run(&["SET", "after", command]);
        let repo = Repo::folder();
        assert_eq!(attempt(&start(&repo, &server, &[]).wait(PATIENCE).ok()), 1, "{command}");
        // what was written after the other began is in it
        assert_restores(&repo, &server);
    }
}

#[test]
fn a_primary_whose_writes_a_failed_save_would_stop_is_not_asked() {
    let server = server(&["save 3600 1000000"]);
    server.run(&["SET", "a", "1"]);
    let repo = Repo::folder();
    start(&repo, &server, &[]).wait(PATIENCE).exits(18).says("MISCONF").says("--primary fallback");
    assert!(is(&server, "total_forks", "0"));
    start(&repo, &server, &["--primary", "fallback"]).wait(PATIENCE).ok();
    assert_restores(&repo, &server);
}

#[test]
fn a_save_that_fails_is_said_so_and_a_folder_of_another_server_is_no_save() {
    let (one, other) = (server(&[]), server(&[]));
    for server in [&one, &other] {
        server.run(&["SET", "a", "1"]);
    }
    let mapped = |path: &Path| format!("{}={}", one.address(), path.display());
    let repo = Repo::folder();
    let wrong = start(&repo, &one, &["--data-dir", &mapped(Path::new("/nowhere"))]).wait(PATIENCE);
    wrong.exits(19).says("/nowhere/dump.rdb").says("--data-dir");
    other.run(&["SAVE"]);
    start(&repo, &one, &["--data-dir", &mapped(other.dir())]).wait(PATIENCE).exits(19).says("did not change");
    start(&repo, &one, &["--data-dir", "somewhere"]).wait(PATIENCE).exits(2);
    let right = start(&repo, &one, &["--data-dir", &mapped(one.dir())]).wait(PATIENCE).ok();
    assert_eq!(attempt(&right), 1);
    // where its file should be is a folder
    std::fs::remove_file(one.dir().join("dump.rdb")).unwrap();
    std::fs::create_dir(one.dir().join("dump.rdb")).unwrap();
    let url = one.url();
    let words = ["snapshot", "create", "--source", &url, "--name", "two", "--method", "bgsave"];
    repo.run(&words).exits(15).says("its save failed");
}

#[test]
fn a_save_that_ends_before_the_server_has_answered_is_seen() {
    let server = server(&[]);
    server.run(&["SET", "a", "1"]);
    server.run(&["SAVE"]);
    // every answer is late, and the save of one key is quick
    let proxy = Proxy::start(&server.address());
    proxy.slow(500);
    let repo = Repo::folder();
    let source = format!("redis://{}", proxy.address);
    let words = ["snapshot", "create", "--source", &source, "--name", "one", "--method", "bgsave"];
    let outcome = repo.run(&words).ok();
    assert_eq!(attempt(&outcome), 1, "{outcome}");
}

#[test]
fn a_disk_that_is_full_fails_what_needs_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let _small = Mount::small(folder.path(), "4m");
    let server = server(&[&format!("dir {}", folder.path().display())]);
    fill(&server, 100_000);
    let repo = Repo::folder();
    let url = server.url();
    let words = |method| ["snapshot", "create", "--source", &url, "--name", "one", "--method", method];
    repo.run(&words("bgsave")).exits(15).says("its save failed").says("room on its disk");
    repo.run(&words("stream-disk")).exits(15).says("is retaken").says(&server.address());
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
    let made = repo.json(&words("stream"));
    assert_eq!(made["method"], "stream");
    assert_restores(&repo, &server);
}
