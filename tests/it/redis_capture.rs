//! The replication stream of real servers.

use std::time::Duration;

use backupd::error::Class;
use backupd::redis::{EndVerdict, Framing, Node, Replication, Started, check_end, discover};
use bytes::BytesMut;

use crate::harness::server::Server;
use crate::redis_server::{ask, check_rdb, fill, options, server, wait_until};

async fn node_of(server: &Server) -> Node {
    let url = format!("redis://{}", server.address());
    let topology = discover(&options(&[&url])).await.unwrap();
    topology.shards[0].nodes.iter().find(|node| node.port == server.port()).unwrap().clone()
}

/// Reads the whole payload: the RDB, and what follows it.
async fn take(started: &mut Started) -> (Framing, Vec<u8>, Vec<u8>) {
    let framing = started.payload.framing().await.unwrap();
    let mut bytes = BytesMut::new();
    while started.payload.next(&mut bytes).await.unwrap() > 0 {}
    let rdb_len = match framing {
        Framing::Length(length) => usize::try_from(length).unwrap(),
        Framing::Mark(mark) => bytes.windows(mark.len()).rposition(|window| window == mark).expect("the mark"),
    };
    let rest = bytes.split_off(rdb_len);
    (framing, bytes.to_vec(), rest.to_vec())
}

/// The value of an aux field, as text. Strings are length-prefixed; small integers are stored as such.
fn aux(rdb: &[u8], name: &str) -> String {
    let at = rdb.windows(name.len()).position(|window| window == name.as_bytes()).expect("the aux field") + name.len();
    let number = |width: usize| {
        let mut bytes = [0; 4];
        bytes[..width].copy_from_slice(&rdb[at + 1..=at + width]);
        u32::from_le_bytes(bytes).to_string()
    };
    match rdb[at] {
        0xC0 => number(1),
        0xC1 => number(2),
        0xC2 => number(4),
        length => String::from_utf8(rdb[at + 1..=at + usize::from(length)].to_vec()).unwrap(),
    }
}

fn assert_whole(started: &Started, framing: Framing, rdb: &[u8], rest: &[u8]) {
    assert_eq!(aux(rdb, "repl-id"), started.replid);
    assert_eq!(aux(rdb, "repl-offset"), started.offset.to_string());
    let length = u64::try_from(rdb.len()).unwrap();
    assert_eq!(check_end(&framing, Some(length), rest, true), EndVerdict::Complete);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump.rdb");
    std::fs::write(&file, rdb).unwrap();
    check_rdb(&file);
}

#[tokio::test]
async fn both_framings_give_a_whole_rdb_at_the_announced_position() {
    for (diskless, lone) in [("yes", true), ("no", true), ("yes", false), ("no", false)] {
        let primary = server(&[&format!("repl-diskless-sync {diskless}")]);
        fill(&primary, 20_000);
        let replica = (!lone).then(|| server(&[&format!("repl-diskless-sync {diskless}")]));
        if let Some(replica) = &replica {
            replica.replicate(&primary);
            primary.run(&["SET", "later", "1"]);
            replica.wait_caught_up(&primary);
        }
        let source = replica.as_ref().unwrap_or(&primary);
        let prepared = Replication::prepare(&node_of(source).await, &options(&[])).await.unwrap();
        assert!(prepared.rdb_only());
        let listed = ask(source, &["INFO", "replication"]);
        assert!(!listed.contains("slave0:"), "before PSYNC we are no replica: {listed}");
        let mut started = prepared.start().await.unwrap();
        let (framing, rdb, rest) = take(&mut started).await;
        assert_eq!(matches!(framing, Framing::Mark(_)), diskless == "yes", "{framing:?}");
        assert!(rdb.len() > 20_000 * 50);
        assert_whole(&started, framing, &rdb, &rest);
        assert_eq!(started.offset > 0, !lone);
    }
}

#[tokio::test]
async fn a_capture_of_a_primary_is_no_ghost_for_sentinel() {
    let primary = server(&["repl-diskless-sync yes", "rdb-key-save-delay 2000"]);
    fill(&primary, 2000);
    let prepared = Replication::prepare(&node_of(&primary).await, &options(&[])).await.unwrap();
    let mut started = prepared.start().await.unwrap();
    started.payload.framing().await.unwrap();
    let listed = ask(&primary, &["INFO", "replication"]);
    assert!(listed.contains("port=70000,"), "{listed}");
    let during = node_of(&primary).await;
    assert_eq!(during.port, primary.port(), "a capture in progress is not taken for a node");
}

#[tokio::test]
async fn a_replica_without_its_primary_refuses_and_says_so() {
    let (mut primary, replica) = (server(&[]), server(&[]));
    replica.replicate(&primary);
    let node = node_of(&replica).await;
    primary.kill();
    wait_until("the link is down", || replica.info("master_link_status").as_deref() == Some("down"));
    let prepared = Replication::prepare(&node, &options(&[])).await.unwrap();
    let error = prepared.start().await.unwrap_err();
    assert_eq!(error.class(), Class::SourceUnavailable);
    assert!(error.is_retryable() && error.message().contains("NOMASTERLINK"), "{error}");
    assert!(error.message().starts_with(&replica.address()), "{error}");
}

#[tokio::test]
async fn a_user_without_psync_is_told_which_command_is_missing() {
    let server = server(&[]);
    server.run(&["ACL", "SETUSER", "few", "on", ">pw", "+info", "+replconf", "+config|get"]);
    let node = node_of(&server).await;
    let few = options(&[&format!("redis://few:pw@{}", server.address())]);
    let prepared = Replication::prepare(&node, &few).await.unwrap();
    let error = prepared.start().await.unwrap_err();
    assert_eq!(error.class(), Class::SourceAuth);
    assert!(!error.is_retryable() && error.advice().unwrap().contains("+psync"), "{error}");
    server.run(&["ACL", "SETUSER", "few", "+psync"]);
    let mut started = Replication::prepare(&node, &few).await.unwrap().start().await.unwrap();
    let (framing, rdb, rest) = take(&mut started).await;
    assert_whole(&started, framing, &rdb, &rest);
}

#[tokio::test]
async fn a_source_that_dies_in_the_middle_is_never_a_whole_payload() {
    for diskless in ["yes", "no"] {
        let mut server = server(&[&format!("repl-diskless-sync {diskless}"), "rdb-key-save-delay 100"]);
        fill(&server, 5000);
        let node = node_of(&server).await;
        let mut started = Replication::prepare(&node, &options(&[])).await.unwrap().start().await.unwrap();
        if diskless == "yes" {
            let framing = started.payload.framing().await.unwrap();
            let mut bytes = BytesMut::new();
            started.payload.next(&mut bytes).await.unwrap();
            server.run(&["FLUSHALL"]);
            while started.payload.next(&mut bytes).await.is_ok_and(|count| count > 0) {}
            assert!(matches!(check_end(&framing, None, b"", true), EndVerdict::Bad(_)));
            let Framing::Mark(mark) = framing else { panic!("diskless") };
            assert!(!bytes.windows(mark.len()).any(|window| window == mark), "the child was killed before the end");
        } else {
            server.kill();
            let error = started.payload.framing().await.unwrap_err();
            assert_eq!(error.class(), Class::SourceUnavailable);
            assert!(error.is_retryable(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_goes_silent_is_given_up() {
    let server = server(&["repl-diskless-sync yes", "rdb-key-save-delay 1000"]);
    fill(&server, 20_000);
    let node = node_of(&server).await;
    let patience = backupd::redis::SourceOptions { stall_timeout: Duration::from_secs(3), ..options(&[]) };
    let mut started = Replication::prepare(&node, &patience).await.unwrap().start().await.unwrap();
    server.pause();
    let mut bytes = BytesMut::new();
    let error = loop {
        match started.payload.next(&mut bytes).await {
            Ok(count) => assert!(count > 0, "it ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), Class::SourceUnavailable);
    assert!(error.message().contains("not a byte"), "{error}");
}
