//! What a restore reads, in which shape, and who may enter what it makes.

use std::fs::File;
use std::process::Stdio;

use policies::slot::{SlotSet, key_slot};
use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cli::Cli;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::faults::Faulty;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::s3::Bucket;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_server::save_rdb;
use crate::store_faults::incompressible;

#[test]
fn files_of_several_versions_and_standard_input_become_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let engines = [Engine::Redis, Engine::Extra("redis-8"), Engine::Redis];
    let mut files = Vec::new();
    for engine in engines.iter().filter(|engine| !engine.is_recorded_as_unavailable()) {
        let server = Server::start(&Options::new().engine(engine.clone()));
        let name = format!("key-{}", files.len());
        server.run(&["SET", &name, &name]);
        server.run(&["SADD", &format!("set-{}", files.len()), "a", "b"]);
        files.push(save_rdb(&server, dir.path(), &format!("{}.rdb", files.len())));
    }
    let out = dir.path().join("out");
    let program = env!("CARGO_BIN_EXE_backupd");
    let mut command = crate::harness::process::command(program);
    command.args(["restore", "--shards", "2", "--out"]).arg(&out).args(["-o", "json", "--rdb", "-"]).args(&files[1..]);
    let output = command.stdin(Stdio::from(File::open(&files[0]).unwrap())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["keys"], 2 * files.len());
    assert_eq!(outcome["plan"]["inputs"][0]["name"], "standard input");
}

/// What is far away is fetched while what came before is split.
#[test]
fn the_next_input_is_fetched_before_the_one_before_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::create("inputs");
    let mut urls = Vec::new();
    for (name, server) in [("a.rdb", incompressible(30)), ("b.rdb", Server::standalone())] {
        server.run(&["SET", name, name]);
        bucket.put(name, &std::fs::read(save_rdb(&server, dir.path(), name)).unwrap());
        urls.push(bucket.url(name));
    }
    let proxy = Faulty::start(&bucket.endpoint, |_| None);
    let urls: Vec<String> = urls.iter().map(|url| url.replace(&bucket.endpoint, &proxy.endpoint)).collect();
    let out = dir.path().join("out").display().to_string();
    let words = ["restore", "--rdb", &urls[0], &urls[1], "--shards", "2", "--out", &out, "-o", "json"];
    let cli = Cli::new().envs(bucket.envs());
    assert_eq!(cli.json(&words)["keys"], 32);
    // headers of both are read before; the second is one block, the first many
    let reads = proxy.asked();
    let last = |name: &str| reads.iter().rposition(|line| line.starts_with("GET") && line.contains(name));
    assert!(last("b.rdb").is_some() && last("b.rdb") < last("a.rdb"), "{reads:?}");
}

#[test]
fn the_shape_of_another_cluster_is_taken() {
    let source = Cluster::start(3, 0);
    Keyspace::new(91, 800).load(&source.nodes());
    let like = Cluster::start(2, 0);
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let (nodes, _launched) = repo.launch("one", &["--like", &like.shards[0].primary.address()]);
    let slots: Vec<&SlotSet> = nodes.iter().map(|node| &node.slots).collect();
    assert_eq!(slots, like.nodes().iter().map(|node| &node.slots).collect::<Vec<_>>());
    compare(&source.nodes(), &nodes).assert_equal();
    let standalone = Server::standalone();
    let words = ["restore", "one", "--out", "/nowhere", "--plan", "--like", &standalone.address()];
    assert_eq!(repo.json(&words)["mode"], "standalone");
}

#[test]
fn only_the_slots_that_were_asked_for_are_restored_and_only_their_shards_read() {
    let source = Cluster::start(3, 0);
    Keyspace::new(92, 1000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let words = ["--slot-range", "100-2000", "--shards", "2"];
    let plan = repo.json(&[&["restore", "one", "--out", "/nowhere", "--plan"], &words[..]].concat());
    assert_eq!((&plan["inputs"][1]["read_bytes"], &plan["inputs"][1]["targets"]), (&0.into(), &Value::Array(vec![])));
    let (target, _launched) = repo.launch("one", &words);
    let keys: Vec<Vec<u8>> = target
        .iter()
        .flat_map(|node| redis::cmd("KEYS").arg("*").query::<Vec<Vec<u8>>>(&mut nodes::connect(&node.url)).unwrap())
        .collect();
    assert_eq!(plan["shards"][0]["keys"], keys.len());
    assert!(!keys.is_empty() && keys.iter().all(|key| (100..=2000).contains(&key_slot(key))));
}

#[test]
fn new_nodes_want_the_password_that_was_given() {
    let source = Server::standalone();
    Keyspace::new(93, 300).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let file = repo.path("password");
    std::fs::write(&file, "se \"cret\n").unwrap();
    let dir = repo.path("launched");
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--shards", "2", "--replicas", "1"];
    let outcome = repo.json(&[&words[..], &["--launch-password-file", file.to_str().unwrap()]].concat());
    let _launched = Launched { dir: dir.clone() };
    for node in outcome["nodes"].as_array().unwrap() {
        let address = format!("127.0.0.1:{}", node["port"]);
        let mut link = nodes::connect(&format!("redis://:se%20%22cret@{address}"));
        assert!(redis::cmd("DBSIZE").query::<u64>(&mut link).unwrap() > 0);
        let client = redis::Client::open(format!("redis://{address}")).unwrap();
        let refused = redis::cmd("DBSIZE").query::<u64>(&mut client.get_connection().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("NOAUTH"), "{refused}");
    }
    let shown = crate::fixture::files_below(&dir).into_iter().filter(|path| path.ends_with("redis.conf"));
    for conf in shown {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(conf).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "only its owner reads it");
    }
}

#[test]
fn files_of_a_redis_and_of_a_newer_valkey_become_one_valkey() {
    let valkey = Engine::Extra("valkey-9");
    if valkey.is_recorded_as_unavailable() {
        return println!("valkey-9 is recorded as unavailable here: not run");
    }
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Server::standalone(), Server::start(&Options::new().engine(valkey)));
    old.run(&["RPUSH", "old", "a", "b"]);
    new.run(&["HSET", "new", "field", "value"]);
    new.run(&["HPEXPIREAT", "new", "4102444800123", "FIELDS", "1", "field"]);
    let files = [save_rdb(&old, dir.path(), "old.rdb"), save_rdb(&new, dir.path(), "new.rdb")];
    let launched = dir.path().join("launched");
    let repo = Repo::folder();
    let words = ["restore", "--rdb", files[0].to_str().unwrap(), "--rdb", files[1].to_str().unwrap(), "-o", "json"];
    let program = Engine::Extra("valkey-9").program();
    let to = ["--launch", launched.to_str().unwrap(), "--engine", program.to_str().unwrap()];
    let outcome = repo.cli.json(&[&words[..], &to].concat());
    let _launched = Launched { dir: launched.clone() };
    assert_eq!((&outcome["keys"], &outcome["verified"]["keys"]), (&2.into(), &2.into()), "{outcome}");
}
