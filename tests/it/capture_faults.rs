//! What a source can do to a capture, one fault at a time. The table of all of them is in backupd/docs/capture.md.

use std::time::Duration;

use crate::fixture::Repo;
use crate::harness::cli::{Outcome, Spawned};
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::process;
use crate::harness::server::{Options, Server};
use crate::redis_server::{ask, fill, server, wait_until};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(180);

/// Slow enough to be hit in the middle: the server's child sleeps after every key.
const SLOW: &str = "rdb-key-save-delay 1000";

fn start(repo: &Repo, source: &Server, more: &[&str]) -> Spawned {
    let url = source.url();
    let words = [&["snapshot", "create", "--source", &url, "--name", "one"], more].concat();
    repo.cli.spawn(&repo.args(&words))
}

fn wait_saving(server: &Server) {
    process::wait_for("the capture", Duration::from_secs(60), || match server.info("rdb_bgsave_in_progress") {
        Some(saving) if saving == "1" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn attempt(outcome: &Outcome) -> u64 {
    outcome.json()["shards"][0]["attempt"].as_u64().unwrap()
}

/// A capture of a slow server in whose middle `fault` happens is taken again, and then holds what is there.
fn is_retaken_after(fault: impl FnOnce(&Server)) {
    let server = server(&[SLOW]);
    Keyspace::new(71, 1500).load(&server.nodes());
    let repo = Repo::folder();
    let job = start(&repo, &server, &[]);
    wait_saving(&server);
    fault(&server);
    let outcome = job.wait(PATIENCE).ok().says("retaken");
    assert_eq!(attempt(&outcome), 2);
    assert_eq!(server.info("rdb_last_bgsave_status").as_deref(), Some("ok"), "which proves nothing");
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn a_node_that_gets_no_child_is_left_for_another_and_its_primary_is_not_asked() {
    let primary = Server::standalone();
    Keyspace::new(72, 200).load(&primary.nodes());
    let childless = Server::start(&Options::new().childless());
    childless.replicate(&primary);
    childless.wait_caught_up(&primary);
    let forks = primary.info("total_forks");
    let repo = Repo::folder();
    let outcome = start(&repo, &primary, &[]).wait(PATIENCE).exits(15).says("could not start its child");
    assert!(outcome.stderr.contains("vm.overcommit_memory"), "{outcome}");
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
    assert_eq!(primary.info("total_forks"), forks, "the primary was not asked");

    let sound = Server::standalone();
    sound.replicate(&primary);
    sound.wait_caught_up(&primary);
    let outcome = start(&repo, &primary, &[]).wait(PATIENCE).ok();
    assert_eq!(outcome.json()["shards"][0]["node"]["address"], sound.address().as_str());
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&primary.nodes(), &nodes).assert_equal();
}

#[test]
fn flushall_kills_the_child_and_the_shard_is_retaken() {
    is_retaken_after(|server| {
        server.run(&["FLUSHALL"]);
        server.run(&["SET", "after", "it"]);
    });
}

#[test]
fn a_child_that_is_killed_sends_no_whole_rdb() {
    is_retaken_after(|server| {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
        let child = children.split_whitespace().next().expect("a child");
        assert!(
            std::process::Command::new("sh").args(["-c", &format!("kill -KILL {child}")]).status().unwrap().success()
        );
    });
}

#[test]
fn a_replica_that_synchronises_again_in_the_middle_is_retaken() {
    let (primary, replica) = (server(&[]), server(&[SLOW]));
    Keyspace::new(72, 1500).load(&primary.nodes());
    replica.replicate(&primary);
    let repo = Repo::folder();
    let job = start(&repo, &primary, &[]);
    wait_saving(&replica);
    // a primary with another history: what the replica has is thrown away
    primary.run(&["DEBUG", "CHANGE-REPL-ID"]);
    replica.run(&["REPLICAOF", "NO", "ONE"]);
    replica.replicate(&primary);
    let outcome = job.wait(PATIENCE).ok().says("retaken");
    assert!(attempt(&outcome) > 1);
    assert_eq!(outcome.json()["shards"][0]["node"]["role"], "replica");
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&primary.nodes(), &nodes).assert_equal();
}

#[test]
fn writes_beyond_the_output_buffer_do_not_cut_a_capture_that_wants_the_rdb_alone() {
    let server = server(&[SLOW, "client-output-buffer-limit replica 2mb 1mb 1", "repl-backlog-size 16kb"]);
    fill(&server, 3000);
    let repo = Repo::folder();
    let job = start(&repo, &server, &[]);
    wait_saving(&server);
    let value = "x".repeat(1 << 20);
    for index in 0..8 {
        server.run(&["SET", &format!("later:{index}"), &value]);
    }
    assert_eq!(attempt(&job.wait(PATIENCE).ok()), 1);
    assert!(!server.log_tail().contains("overcoming of output buffer limits"));
}

#[test]
fn a_capture_outlives_repl_timeout_and_never_counts_as_a_replica() {
    let server = server(&["rdb-key-save-delay 2000", "repl-timeout 3", "repl-ping-replica-period 1"]);
    fill(&server, 4000);
    let repo = Repo::folder();
    let job = start(&repo, &server, &[]);
    wait_saving(&server);
    server.run(&["SET", "a", "1"]);
    assert_eq!(server.run(&["WAIT", "1", "200"]), redis::Value::Int(0), "nobody acknowledges");
    assert_eq!(attempt(&job.wait(PATIENCE).ok()), 1);
}

#[test]
fn other_children_of_the_server_are_waited_for() {
    for command in ["BGSAVE", "BGREWRITEAOF"] {
        let server = server(&[SLOW]);
        fill(&server, 3000);
        server.run(&[command]);
        wait_until("the child runs", || {
            ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"]
                .iter()
                .any(|it| server.info(it).as_deref() == Some("1"))
        });
        let repo = Repo::folder();
        let outcome = start(&repo, &server, &[]).wait(PATIENCE).ok();
        assert_eq!(attempt(&outcome), 1, "{command}");
        let reason = outcome.json()["shards"][0]["choice"][0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("a child of it is saving or rewriting"), "{command}: {reason}");
    }
}

#[test]
fn a_server_whose_saves_fail_is_captured_without_its_disk_and_keeps_what_it_may_do() {
    let server = server(&["save 3600 1000000", "stop-writes-on-bgsave-error yes"]);
    Keyspace::new(73, 500).load(&server.nodes());
    let repo = Repo::folder();
    // where its file should be is a folder, so nothing can be saved; a diskless synchronisation needs no file
    std::fs::create_dir(server.dir().join("dump.rdb")).unwrap();
    start(&repo, &server, &[]).wait(PATIENCE).ok();
    server.run(&["SET", "writes", "go on"]);
    // and once its own save has failed, captures still work, and do not mend what is not theirs
    wait_until("its child is gone", || server.info("rdb_bgsave_in_progress").as_deref() == Some("0"));
    server.run(&["BGSAVE"]);
    wait_until("its save failed", || server.info("rdb_last_bgsave_status").as_deref() == Some("err"));
    let write = crate::harness::nodes::command(&["SET", "a", "1"]).query::<String>(&mut server.connect());
    assert!(write.unwrap_err().to_string().contains("MISCONF"));
    repo.create(&server.url(), "two");
    assert_eq!(server.info("rdb_last_bgsave_status").as_deref(), Some("err"));
    let (nodes, _launched) = repo.launch("two", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn primaries_that_disagree_about_a_slot_are_no_source() {
    let cluster = Cluster::start(2, 0);
    let [first, second] = [0, 1].map(|index| &cluster.shards[index].primary);
    let id = ask(second, &["CLUSTER", "MYID"]);
    // the first gives a slot away without a word to the second, which does not take it
    first.run(&["CLUSTER", "SETSLOT", "7", "NODE", &id]);
    let repo = Repo::folder();
    for seed in [first, second] {
        let outcome = start(&repo, seed, &["--settle-wait", "1s"]).wait(PATIENCE);
        assert!(matches!(outcome.code, Some(15 | 18)), "{outcome}");
    }
    assert!(!repo.root().exists(), "nothing was written");
}

#[test]
fn empty_shards_and_files_without_checksum_are_captured_and_said_so() {
    let cluster = Cluster::start(2, 0);
    // `b` is in slot 3300, so the second shard stays empty
    cluster.shards[0].primary.run(&["SET", "b", "1"]);
    let repo = Repo::folder();
    let made = repo.create(&cluster.url(), "empty");
    assert_eq!((made["keys"].as_u64(), made["shards"].as_array().unwrap().len()), (Some(1), 2));
    let (nodes, _launched) = repo.launch("empty", &["--shards", "3"]);
    compare(&cluster.nodes(), &nodes).assert_equal();

    let server = server(&["rdbchecksum no"]);
    Keyspace::new(74, 500).load(&server.nodes());
    let made = repo.create(&server.url(), "unchecked");
    assert_eq!(made["shards"][0]["rdb"]["crc"], "disabled");
    let (nodes, _launched) = repo.launch("unchecked", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}
