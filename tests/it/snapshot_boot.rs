//! A snapshot that a real server loads, and that holds what the files say.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::fixture::{Repo, files_below};
use crate::harness::cluster::Cluster;
use crate::harness::keyspace::Keyspace;
use crate::harness::server::{Engine, Options, Server};

/// The newest verdict that is noted beside a snapshot.
fn noted(repo: &Repo) -> Value {
    let shown = repo.json(&["snapshot", "show", "one"]);
    let facts = shown["facts"].as_array().unwrap();
    facts.iter().rfind(|fact| fact["kind"] == "verified").map(|fact| fact["says"].clone()).unwrap_or_default()
}

#[test]
fn every_engine_loads_its_own_snapshot_and_holds_the_same() {
    for engine in Engine::all() {
        let server = Server::start(&Options::new().engine(engine.clone()));
        Keyspace::new(91, 600).load(&server.nodes());
        server.run(&["SET", "over soon", "1", "PX", "1"]);
        let repo = Repo::folder();
        repo.create(&server.url(), "one");
        let (program, scratch) = (engine.program().display().to_string(), repo.path("scratch"));
        std::fs::create_dir(&scratch).unwrap();
        let words =
            ["snapshot", "verify", "one", "--boot", "--engine", &program, "--scratch", scratch.to_str().unwrap()];
        let verdict = repo.json(&words);
        assert!(verdict["booted"]["databases"]["0"].as_u64().unwrap() >= 600, "{engine:?}: {verdict}");
        let said = noted(&repo);
        assert_eq!((&said["method"], &said["ok"]), (&"boot".into(), &true.into()), "{engine:?}: {said}");
        assert_eq!(said["engine"], verdict["booted"]["engine"]);
        assert!(files_below(&scratch).is_empty(), "nothing in the clear is left");
    }
}

#[test]
fn every_shard_of_a_cluster_is_booted_and_the_verdict_can_be_left_out() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(92, 300).load(&cluster.nodes());
    let repo = Repo::folder();
    let made = repo.create(&cluster.url(), "one");
    let verdict = repo.json(&["snapshot", "verify", "one", "--boot", "--no-record"]);
    assert_eq!(verdict["booted"]["databases"]["0"], made["keys"]);
    assert!(noted(&repo).is_null() && verdict["recorded_at"].is_null());
    repo.json(&["snapshot", "verify", "one"]);
    assert_eq!((&noted(&repo)["method"], &noted(&repo)["keys"]), (&"read".into(), &made["keys"]));
}

#[test]
fn a_server_that_holds_something_else_is_noticed_and_noted() {
    let [server, other] = [Server::standalone(), Server::standalone()];
    for (server, value) in [(&server, "one"), (&other, "two")] {
        Keyspace::new(93, 50).load(&server.nodes());
        server.run(&["SET", "changed", value]);
    }
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    // an engine that loads another file with as many keys
    other.run(&["SAVE"]);
    let (lying, real) = (repo.path("engine"), Engine::Redis.program());
    let (dump, real) = (other.dir().join("dump.rdb").display().to_string(), real.display().to_string());
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] || cp '{dump}' \"$(dirname \"$1\")/dump.rdb\"\nexec {real} \"$@\"\n"
    );
    std::fs::write(&lying, script).unwrap();
    std::fs::set_permissions(&lying, std::fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["snapshot", "verify", "one", "--boot", "--engine", lying.to_str().unwrap()];
    repo.run(&words).exits(17).says("other contents of string keys");
    let said = noted(&repo);
    assert_eq!((&said["method"], &said["ok"]), (&"boot".into(), &false.into()), "{said}");
    assert!(said["error"].as_str().unwrap().contains("shard-0000-1.bkd"), "{said}");
    // what says nothing of the snapshot is no verdict
    repo.json(&["snapshot", "verify", "one"]);
    repo.run(&["snapshot", "verify", "one", "--boot", "--engine", "/no/such/engine"]).exits(19);
    assert_eq!((&noted(&repo)["method"], &noted(&repo)["ok"]), (&"read".into(), &true.into()));
}
