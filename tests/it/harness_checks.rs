//! The harness itself: above all, that a comparison fails when it should.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::compare::{Report, compare, compare_except};
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::process::wait_for;
use crate::harness::s3::Bucket;
use crate::harness::server::{Engine, Options, Server};
use crate::harness::writer::{self, Writer};

/// Two servers with the same data: a primary and what was its replica.
fn twins() -> [Server; 2] {
    let [left, right] = [Server::standalone(), Server::standalone()];
    Keyspace::new(7, 3000).load(&left.nodes());
    right.replicate(&left);
    right.wait_caught_up(&left);
    right.run(&["REPLICAOF", "NO", "ONE"]);
    [left, right]
}

fn differences(left: &Server, right: &Server) -> Report {
    compare(&left.nodes(), &right.nodes())
}

#[test]
fn equal_servers_compare_equal_and_all_keys_are_looked_at() {
    let [left, right] = twins();
    let report = differences(&left, &right);
    report.assert_equal();
    assert_eq!(report.equal, 3002, "{report}");
    assert!(report.with_expiry > 400, "{report}");
    for kind in ["string", "list", "hash", "set", "zset", "stream"] {
        let keys: u64 = nodes::command(&["SCAN", "0", "COUNT", "100000", "TYPE", kind])
            .query::<(String, Vec<Vec<u8>>)>(&mut left.connect())
            .map(|(_, keys)| keys.len().try_into().unwrap())
            .unwrap();
        assert!(keys > 30, "{keys} keys of type {kind}");
    }
}

#[test]
fn a_replica_that_followed_every_command_compares_equal() {
    let [primary, replica] = [Server::standalone(), Server::standalone()];
    replica.replicate(&primary);
    Keyspace::new(8, 5000).load(&primary.nodes());
    replica.wait_caught_up(&primary);
    differences(&primary, &replica).assert_equal();
}

#[test]
fn every_kind_of_difference_is_found() {
    let [left, right] = twins();
    // for every difference: a change, and its undoing on both sides
    let changes: [&[&str]; 12] = [
        &["RPUSH", "check:list", "x"],
        &["LSET", "check:list", "4321", "x"],
        &["HSET", "check:hash", "field", "other"],
        &["SREM", "check:set", "a"],
        &["ZINCRBY", "check:zset", "0.000000001", "a"],
        &["SET", "check:string", "valuf", "KEEPTTL"],
        &["PEXPIREAT", "check:string", "4102444800001"],
        &["PERSIST", "check:string"],
        &["XACK", "check:stream", "group", "1-1"],
        &["XGROUP", "CREATECONSUMER", "check:stream", "group", "another"],
        &["XGROUP", "SETID", "check:stream", "group", "1-1"],
        &["FUNCTION", "FLUSH"],
    ];
    for change in changes {
        prepare(&left);
        prepare(&right);
        differences(&left, &right).assert_equal();
        right.run(change);
        let report = differences(&left, &right);
        assert_eq!((report.different, report.missing, report.extra), (1, 0, 0), "{change:?}: {report}");
        let key = if change[0] == "FUNCTION" { "function" } else { "check:" };
        assert!(report.to_string().contains(key), "{report}");
        if change[0] != "FUNCTION" {
            let spared = compare_except(&left.nodes(), &right.nodes(), &|key| key.starts_with(b"check:"));
            spared.assert_equal();
            assert!(spared.excepted > 0);
        }
    }
}

/// Writes the same `check:` keys, whatever was there.
fn prepare(server: &Server) {
    for kind in ["list", "hash", "set", "zset", "string", "stream"] {
        server.run(&["DEL", &format!("check:{kind}")]);
    }
    let words: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let mut push = vec!["RPUSH", "check:list"];
    push.extend(words.iter().map(String::as_str));
    server.run(&push);
    server.run(&["HSET", "check:hash", "field", "value", "second", "value"]);
    server.run(&["SADD", "check:set", "a", "b", "3"]);
    server.run(&["ZADD", "check:zset", "1.5", "a", "inf", "b"]);
    server.run(&["SET", "check:string", "value", "PXAT", "4102444800000"]);
    server.run(&["XADD", "check:stream", "1-1", "field", "value"]);
    server.run(&["XADD", "check:stream", "1-2", "field", "value"]);
    server.run(&["XGROUP", "CREATE", "check:stream", "group", "1-2"]);
    // a pending entry with the same time of delivery on both servers, which no replication brought here
    let claim = ["XCLAIM", "check:stream", "group", "consumer", "0", "1-1", "TIME", "1700000000000", "FORCE", "JUSTID"];
    server.run(&claim);
    server.run(&["FUNCTION", "LOAD", "REPLACE", "#!lua name=check\nredis.register_function('check', function() end)"]);
}

#[test]
fn missing_extra_and_retyped_keys_are_told_apart() {
    let [left, right] = twins();
    left.run(&["SET", "only-left", "1"]);
    right.run(&["SET", "only-right", "1"]);
    left.run(&["SET", "both", "1"]);
    right.run(&["RPUSH", "both", "1"]);
    let report = differences(&left, &right);
    assert_eq!((report.different, report.missing, report.extra), (1, 1, 1), "{report}");
    assert!(!report.is_equal());
    let text = report.to_string();
    assert!(
        ["missing only-left", "extra only-right", "different both: type"].iter().all(|part| text.contains(part)),
        "{text}"
    );
}

#[test]
fn a_cluster_is_compared_and_a_misplaced_key_is_found() {
    let cluster = Cluster::start(3, 1);
    let keyspace = Keyspace::new(11, 2000);
    keyspace.load(&cluster.nodes());
    cluster.wait_replicas();
    let single = Server::standalone();
    keyspace.load(&single.nodes());
    // the pending entries of both were delivered at different times
    let streams = |key: &[u8]| key.windows(7).any(|part| part == b"stream:");
    let report = compare_except(&cluster.nodes(), &single.nodes(), &streams);
    report.assert_equal();
    assert!(report.excepted > 30, "{report}");
    let found = nodes::discover(&cluster.shards[2].replicas[0].url());
    let mut slots: Vec<String> = found.iter().map(|node| node.slots.to_string()).collect();
    slots.sort();
    assert_eq!(slots, ["0-5460", "10923-16383", "5461-10922"]);
    assert_eq!(found.len(), 3);

    let report = compare_except(&single.nodes(), &halves(&single), &streams);
    assert!(report.misplaced > 500, "{report}");
}

/// One server as if it were two with half of the slots each, so that each lists keys of the other.
fn halves(server: &Server) -> Vec<nodes::Node> {
    ["0-8191", "8192-16383"].map(|slots| nodes::Node { url: server.url(), slots: slots.parse().unwrap() }).to_vec()
}

#[test]
fn what_a_writer_changes_is_known_by_name() {
    let [left, right] = [Server::standalone(), Server::standalone()];
    Keyspace::new(3, 500).load(&left.nodes());
    let writer = Writer::start(&left.nodes(), 200);
    right.replicate(&left);
    std::thread::sleep(Duration::from_millis(200));
    let report = compare_except(&left.nodes(), &right.nodes(), &writer::wrote);
    report.assert_equal();
    assert!(report.excepted > 0, "{report}");
    let commands = writer.stop();
    assert!(commands > 200, "the writer has sent {commands} commands");
}

#[test]
fn servers_can_be_killed_and_started_again() {
    let mut server = Server::start(&Options::new().password("secret").line("save 3600 1"));
    server.run(&["SET", "key", "value"]);
    server.run(&["SAVE"]);
    let pid = server.pid();
    server.kill();
    assert!(nodes::try_connect(&server.url()).is_err());
    server.restart();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.run(&["GET", "key"]), redis::Value::BulkString(b"value".to_vec()));
}

#[test]
fn a_killed_server_leaves_no_child_behind() {
    // minutes for every key: the child that saves would be there for long
    let mut server = Server::start(&Options::new().line("rdb-key-save-delay 600000000"));
    Keyspace::new(1, 500).load(&server.nodes());
    server.run(&["BGSAVE"]);
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let child = std::fs::read_to_string(children).unwrap().trim().to_owned();
    // nobody waits for an orphan but the init process, so until then it is a zombie
    let runs = || {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.contains("State:") && !status.contains("State:\tZ")
    };
    assert!(runs(), "no child saves");
    server.kill();
    wait_for("the end of the child", Duration::from_secs(60), || if runs() { Err(child.clone()) } else { Ok(()) });
}

#[test]
fn the_other_engines_run_where_they_can_be_had() {
    for name in ["redis-8", "valkey-9"] {
        let engine = Engine::Extra(name);
        if engine.is_recorded_as_unavailable() {
            eprintln!("{name} could not be installed on this machine: not tested");
            continue;
        }
        let server = Server::start(&Options::new().engine(engine));
        Keyspace::new(5, 500).load(&server.nodes());
        compare(&server.nodes(), &server.nodes()).assert_equal();
    }
}

#[test]
fn a_bucket_keeps_what_is_put_into_it() {
    let bucket = Bucket::create("harness");
    bucket.put("folder/key", b"bytes");
    assert_eq!(bucket.list("folder/"), [("folder/key".to_owned(), 5)]);
    assert_eq!(bucket.get("folder/key"), b"bytes");
    bucket.delete("folder/key");
    assert!(bucket.list("").is_empty() && bucket.unfinished_uploads().is_empty());
    assert!(bucket.url("p").starts_with(&format!("s3://{}/p?endpoint=http://127.0.0.1:", bucket.name)));
}
