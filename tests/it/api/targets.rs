//! Where restores go to: a pool of running nodes, and a program that names some.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::Served;
use crate::daemon::{Fleet, sqlite};
use crate::harness::server::{Options, Server};

/// The address that a restore went to.
fn port_of(job: &serde_json::Value) -> u16 {
    u16::try_from(job["result"]["nodes"][0]["port"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_pool_gives_each_restore_empty_nodes_until_it_has_none() {
    let pool: Vec<Server> = (0..3).map(|_| Server::start(&Options::new().password("pw"))).collect();
    pool[1].run(&["SET", "somebody", "else"]);
    let fleet = Fleet::new(1, &sqlite(), "", "");
    std::fs::write(fleet.path("password"), "pw\n").unwrap();
    let nodes: Vec<String> = pool.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let more = format!("[targets.pool]\nnodes = [{}]\npassword_file = \"password\"\n", nodes.join(", "));
    let served = Served::of(fleet, "", &more);
    served.snapshot("c0", "one");
    let wanted = |name: &str| json!({"snapshot": "one", "target": "pool", "name": name});
    // both are asked for before either is done: no node is taken twice
    let asked: Vec<String> = ["a", "b"]
        .map(|name| {
            let answer = served.ask_as("admin", "POST", "/v1/restores", &wanted(name)).has(202);
            answer.header("location").unwrap().to_owned()
        })
        .to_vec();
    let mut ports: Vec<u16> = asked
        .iter()
        .map(|location| {
            let job = served.ended(location);
            assert_eq!(job["state"], "succeeded", "{job}");
            port_of(&job)
        })
        .collect();
    ports.sort_unstable();
    let mut expected = vec![pool[0].port(), pool[2].port()];
    expected.sort_unstable();
    assert_eq!(ports, expected);
    let none = served.job("POST", "/v1/restores", &wanted("c"));
    assert_eq!((none["state"].as_str(), none["class"].as_str()), (Some("failed"), Some("refused")));
    let why = none["reason"].as_str().unwrap();
    assert!(why.contains("0 free nodes and 1 are needed") && why.contains("holds 1 keys"), "{why}");
    assert_eq!(pool[1].run(&["GET", "somebody"]), redis::Value::BulkString(b"else".to_vec()));
}

#[test]
fn a_program_names_the_nodes_and_is_told_what_is_wanted() {
    let node = Server::standalone();
    let fleet = Fleet::new(1, &sqlite(), "", "");
    let program = fleet.path("new-nodes");
    let text = format!("#!/bin/sh\ncat > {}\necho '[\"{}\"]'\n", fleet.path("asked.json").display(), node.address());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let served = Served::of(fleet, "", &format!("[targets.cloud]\ncommand = [\"{}\"]\n", program.display()));
    served.snapshot("c0", "one");
    let done = served.done("POST", "/v1/restores", &json!({"snapshot": "one", "target": "cloud", "name": "new"}));
    assert_eq!(port_of(&done), node.port());
    let asked: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(served.fleet.path("asked.json")).unwrap()).unwrap();
    assert_eq!((asked["name"].as_str(), asked["shards"].as_u64()), (Some("new"), Some(1)));
    // what the program names is not empty any more
    let again = served.job("POST", "/v1/restores", &json!({"snapshot": "one", "target": "cloud", "name": "again"}));
    assert_eq!(again["class"], "refused", "{again}");
    for (target, status) in [("nowhere", 404), ("cloud", 400)] {
        let wanted = json!({"snapshot": "one", "target": target, "name": "x", "shards": 5000});
        served.ask_as("admin", "POST", "/v1/restores", &wanted).has(status);
    }
}
