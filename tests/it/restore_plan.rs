//! What `restore --plan` says, and that it is what happens.

use std::net::TcpListener;

use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cluster::Cluster;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Options, Server};
use crate::redis_server::save_rdb;

fn numbers(list: &Value, field: &str) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|each| each[field].as_u64().unwrap()).collect()
}

#[test]
fn keys_of_every_target_are_foretold_from_the_recorded_slots() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(81, 1500).load(&cluster.nodes());
    let repo = Repo::folder();
    repo.create(&cluster.url(), "one");
    let dir = repo.path("launched");
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--slots", "0-99,9000-9999;100-8999;10000-16383"];
    let plan = repo.json(&[&words[..], &["--plan"]].concat());
    assert!(!dir.exists(), "a plan touches nothing");
    assert_eq!(numbers(&plan["shards"], "keys").iter().sum::<u64>(), plan["keys"].as_u64().unwrap());
    let shares: u64 = numbers_of_shares(&plan).iter().sum();
    assert_eq!(shares, plan["keys"].as_u64().unwrap());
    assert!(plan["shards"].as_array().unwrap().iter().all(|shard| shard["estimated"] == false), "{plan}");
    assert!(plan["shards"][0]["memory"].as_u64().unwrap() > 0 && plan["seconds"].as_u64().unwrap() > 0);
    // the second source shard has slots of the first and of the last target, and others
    assert_eq!(plan["inputs"][1]["targets"], serde_json::json!([0, 1, 2]));
    assert_eq!(plan["inputs"][2]["targets"], serde_json::json!([2]));
    let outcome = repo.json(&words);
    let _launched = Launched { dir };
    assert_eq!(numbers(&outcome["nodes"], "keys"), numbers(&plan["shards"], "keys"));
}

fn numbers_of_shares(plan: &Value) -> Vec<u64> {
    plan["inputs"].as_array().unwrap().iter().flat_map(|input| numbers(&input["shares"], "keys")).collect()
}

#[test]
fn shares_of_foreign_files_are_estimated_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let source = Server::standalone();
    Keyspace::new(82, 300).load(&source.nodes());
    let file = save_rdb(&source, dir.path(), "one.rdb");
    let out = dir.path().join("out");
    let cli = crate::harness::cli::Cli::new();
    let words = ["restore", "--rdb", file.to_str().unwrap(), "--out", out.to_str().unwrap(), "--shards", "2"];
    let plan = cli.json(&[&words[..], &["--plan", "-o", "json"]].concat());
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!(plan["inputs"][0]["read_bytes"], size);
    assert_eq!(plan["shards"][0]["estimated"], true);
    assert_eq!(numbers(&plan["shards"], "bytes").iter().sum::<u64>() / 2, size / 2);
    assert_eq!(plan["shards"][0]["keys"], Value::Null);
    assert_eq!(plan["notes"], serde_json::json!(["keys and bytes of shards are estimated by their number of slots"]));
}

#[test]
fn every_reason_is_told_at_once_and_nothing_is_touched() {
    let source = Server::standalone();
    source.run(&["SET", "a", "b"]);
    let mut third = nodes::connect(&format!("{}/3", source.url()));
    nodes::command(&["SET", "c", "d"]).query::<()>(&mut third).unwrap();
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let dir = repo.path("taken");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("precious"), "x").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--shards", "1", "--port", &port, "--plan"];
    repo.run(&words).exits(18).says("2 reasons").says("precious").says(&port);
    let more = ["--mode", "cluster", "--engine", "/nowhere/redis-server"];
    repo.run(&[&words[..], &more].concat()).exits(18).says("database 3").says("/nowhere/redis-server");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn a_node_without_room_is_refused_before_anything_is_sent() {
    let source = Server::standalone();
    for index in 0..300 {
        source.run(&["SET", &format!("key:{index}"), &"x".repeat(20_000)]);
    }
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let target = Server::start(&Options::new().line("maxmemory 4mb"));
    let words = ["restore", "one", "--nodes", &target.address()];
    repo.run(&words).exits(18).says("shard 0").says(&target.address()).says("maxmemory is 4 MiB");
    assert_eq!(target.run(&["DBSIZE"]), redis::Value::Int(0));
    // whoever knows better may try, and hears what to do
    let outcome = repo.run(&[&words[..], &["--ignore-memory", "--method", "restore"]].concat());
    outcome.exits(18).says(&target.address()).says("out of memory").says("raise its maxmemory");
    // a replica takes more than its limit, and says so when it is none any more
    let target = Server::start(&Options::new().line("maxmemory 4mb"));
    let words = ["restore", "one", "--nodes", &target.address(), "--ignore-memory", "--method", "sync"];
    repo.run(&words).exits(18).says(&target.address()).says("raise its maxmemory").says("--resume");
}

#[test]
fn whether_values_are_too_long_for_a_node_is_told_as_far_as_it_is_known() {
    let source = Server::standalone();
    source.run(&["SET", "a", "b"]);
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let target = Server::standalone();
    let words = ["restore", "--nodes", &target.address(), "--method", "restore", "--plan"];
    let plan = repo.json(&[&words[..], &["one"]].concat());
    assert!(plan["notes"].to_string().contains("no value is longer than 1 MiB"), "{}", plan["notes"]);
    let file = save_rdb(&source, repo.dir.path(), "one.rdb");
    let plan = repo.cli.json(&[&words[..], &["-o", "json", "--rdb", file.to_str().unwrap()]].concat());
    assert!(plan["notes"].to_string().contains("not known before they are read"), "{}", plan["notes"]);
}

#[test]
fn a_synchronisation_of_nodes_in_cluster_mode_is_refused_beforehand() {
    let source = Server::standalone();
    source.run(&["SET", "a", "b"]);
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let target = Cluster::start(2, 0);
    let words = ["restore", "one", "--nodes", &target.shards[0].primary.address(), "--method", "sync"];
    repo.run(&[&words[..], &["--plan"]].concat()).exits(18).says("--method sync");
    repo.run(&words).exits(18).says("--method sync");
}
