//! How sources are reached: announced addresses, sockets, names, several seeds, users, passwords that change; and what a
//! check finds out about it.

use std::time::Duration;

use backupd::catalog::Catalog;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::s3::block_on;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_server::{fill, server, unused_port, wait_until};

/// What the documentation says a user needs for captures by stream, and by `BGSAVE` besides.
const STREAM_RULES: [&str; 7] = ["-@all", "+ping", "+info", "+config|get", "+cluster|nodes", "+replconf", "+psync"];
const BGSAVE_RULES: [&str; 2] = ["+bgsave", "+time"];

#[test]
fn a_node_that_announces_another_address_is_reached_where_the_map_says() {
    let primary = server(&[]);
    // nobody listens on port 1
    let replica = server(&["replica-announce-ip 127.0.0.1", "replica-announce-port 1"]);
    Keyspace::new(91, 500).load(&primary.nodes());
    replica.replicate(&primary);
    wait_until("it is listed", || primary.info("slave0").is_some_and(|line| line.contains("port=1,")));
    let repo = Repo::folder();
    let (url, map) = (primary.url(), format!("127.0.0.1:1={}", replica.address()));
    let words = ["snapshot", "create", "--source", &url, "--name", "one", "--settle-wait", "1s"];
    repo.run(&words).exits(18).says("127.0.0.1:1");
    let made = repo.json(&[&words[..], &["--source-address", &map]].concat());
    assert_eq!(made["shards"][0]["node"]["role"], "replica");
    assert_eq!(made["shards"][0]["node"]["run_id"].as_str(), replica.info("run_id").as_deref());
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&primary.nodes(), &nodes).assert_equal();

    // the same by the configuration
    let config = format!(
        "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{url}\"]\n\
         repository = \"main\"\naddresses = {{ \"127.0.0.1:1\" = \"{}\" }}\n",
        repo.url,
        replica.address()
    );
    let file = repo.path("backupd.toml");
    std::fs::write(&file, &config).unwrap();
    let run = |words: &[&str]| repo.cli.run(&[words, &["--config", file.to_str().unwrap()]].concat());
    run(&["snapshot", "create", "orders", "--name", "two"]).ok();
    std::fs::write(&file, config.replace("127.0.0.1:1\" =", "127.0.0.1:x\" =")).unwrap();
    run(&["check", "orders"]).exits(19).says("`127.0.0.1:x` is no address");
    repo.run(&[&words[..], &["--source-address", "nonsense"]].concat()).exits(2);
}

#[test]
fn sockets_names_and_several_seeds_lead_to_the_source() {
    let repo = Repo::folder();
    let socket = repo.path("socket");
    let server = server(&[&format!("unixsocket {}", socket.display())]);
    Keyspace::new(92, 500).load(&server.nodes());
    let by_socket = format!("unix://{}", socket.display());
    for method in ["stream", "bgsave"] {
        repo.json(&["snapshot", "create", "--source", &by_socket, "--name", method, "--method", method]);
        let (nodes, _launched) = repo.launch(method, &["--shards", "1"]);
        compare(&server.nodes(), &nodes).assert_equal();
    }
    let named = format!("redis://localhost:{}", server.port());
    repo.create(&named, "named");
    let (dead, living) = (format!("redis://127.0.0.1:{}", unused_port()), server.url());
    for seeds in [[dead.as_str(), &living], [&living, &dead]] {
        let name = if seeds[0] == dead { "last" } else { "first" };
        repo.json(&["snapshot", "create", "--name", name, "--source", seeds[0], seeds[1]]);
    }
    let cluster = Cluster::start(2, 0);
    let words = ["snapshot", "create", "--name", "cluster", "--source", &dead, &cluster.shards[1].primary.url()];
    assert_eq!(repo.json(&words)["shards"].as_array().unwrap().len(), 2);
}

/// Gives all servers a user with these rules and no keys.
fn set_user(servers: &[&Server], rules: &[&str]) {
    for server in servers {
        let words = [&["ACL", "SETUSER", "backupd", "reset", "on", ">pw", "resetkeys"], rules].concat();
        server.run(&words);
    }
}

#[test]
fn a_user_with_exactly_the_documented_rules_is_enough() {
    let readme = include_str!("../../README.md").to_owned() + include_str!("../../backupd/docs/capture.md");
    for rules in [&STREAM_RULES[..], &BGSAVE_RULES] {
        assert!(readme.contains(&rules.join(" ")), "the documentation does not say `{}`", rules.join(" "));
    }
    let slots = policies::shards::equal(2).unwrap();
    let cluster = Cluster::start_with(&Options::new(), slots, 1);
    Keyspace::new(93, 500).load(&cluster.nodes());
    cluster.wait_replicas();
    let servers: Vec<&Server> = cluster.servers().collect();
    let url = format!("redis://backupd:pw@{}", servers[0].address());
    let repo = Repo::folder();
    set_user(&servers, &STREAM_RULES);
    let outcome = repo.run(&["check", "--source", &url]).ok();
    let report = &outcome.json()["clusters"][0];
    assert_eq!(report["findings"].as_array().unwrap().len(), 0, "{outcome}");
    assert!(
        report["shards"][0]["memory"]["system_bytes"].as_u64()
            > report["shards"][0]["memory"]["resident_bytes"].as_u64()
    );
    repo.create(&url, "stream");
    repo.run(&["snapshot", "create", "--source", &url, "--name", "no", "--method", "bgsave"]).exits(13).says("+time");
    set_user(&servers, &[&STREAM_RULES[..], &BGSAVE_RULES].concat());
    repo.json(&["snapshot", "create", "--source", &url, "--name", "bgsave", "--method", "bgsave"]);
    for name in ["stream", "bgsave"] {
        let (nodes, _launched) = repo.launch(name, &["--shards", "1"]);
        compare(&cluster.nodes(), &nodes).assert_equal();
    }
    // one rule less is named, and what needs it
    for rule in ["+info", "+replconf", "+psync"] {
        let less: Vec<&str> = STREAM_RULES.iter().copied().filter(|it| *it != rule).collect();
        set_user(&servers, &less);
        let outcome = repo.run(&["check", "--source", &url]).exits(13);
        assert!(outcome.stdout.contains(rule), "{rule}: {outcome}");
    }
}

#[test]
fn where_nothing_is_allowed_the_alternative_is_told_and_what_nodes_can_do_is_kept() {
    let server = server(&[]);
    server.run(&["ACL", "SETUSER", "managed", "on", ">pw", "~*", "+@all", "-psync", "-sync", "-bgsave"]);
    let repo = Repo::folder();
    let url = format!("redis://managed:pw@{}", server.address());
    let outcome = repo.run(&["check", "--source", &url]).exits(13);
    assert!(outcome.stdout.contains("neither PSYNC nor BGSAVE is allowed"), "{outcome}");
    assert!(outcome.stdout.contains("backupd restore --rdb"), "{outcome}");

    let config = format!(
        "[catalog]\npath = \"catalog.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
         [clusters.orders]\nsources = [\"redis://{}\"]\nusername = \"managed\"\npassword_file = \"password\"\n\
         repository = \"main\"\n",
        repo.url,
        server.address()
    );
    let file = repo.path("backupd.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::write(repo.path("password"), "pw\n").unwrap();
    let check = || repo.cli.run(&["check", "orders", "--config", file.to_str().unwrap()]);
    let kept = || {
        block_on(async {
            let catalog = Catalog::open(&repo.path("catalog.sqlite").into()).await.unwrap();
            catalog.node_capabilities("orders").await.unwrap()
        })
    };
    check().exits(13);
    let rows = kept();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| !row.available && row.reason.contains("NOPERM")), "{rows:?}");
    server.run(&["ACL", "SETUSER", "managed", "+psync"]);
    check().ok();
    let can: Vec<(String, bool)> = kept().into_iter().map(|row| (row.capability, row.available)).collect();
    assert_eq!(can, [("bgsave".to_owned(), false), ("stream".to_owned(), true)]);
}

#[test]
fn the_oldest_engine_is_checked_without_making_it_work() {
    let engine = Engine::Extra("redis-6.2");
    if engine.is_recorded_as_unavailable() {
        return println!("redis-6.2 is recorded as unavailable here: not run");
    }
    let server = Server::start(&Options::new().engine(engine));
    let repo = Repo::folder();
    let rules = [&STREAM_RULES[..], &["+multi"]].concat();
    let url = format!("redis://backupd:pw@{}", server.address());
    for rule in ["", "+psync"] {
        let less: Vec<&str> = rules.iter().copied().filter(|it| *it != rule).collect();
        set_user(&[&server], &less);
        let outcome = repo.run(&["check", "--source", &url]);
        assert_eq!(outcome.code, Some(if rule.is_empty() { 0 } else { 13 }), "{outcome}");
        assert!(outcome.stdout.contains(rule), "{outcome}");
    }
    assert_eq!(server.info("total_forks").as_deref(), Some("0"));
}

#[test]
fn a_password_that_changes_while_a_job_runs_is_read_again() {
    let server = Server::start(&Options::new().password("old").line("rdb-key-save-delay 1000"));
    fill(&server, 2000);
    let repo = Repo::folder();
    let (password, source) = (repo.path("password"), format!("redis://{}", server.address()));
    std::fs::write(&password, "old\n").unwrap();
    let words = ["snapshot", "create", "--source", &source, "--name", "one", "--source-password-file"];
    let job = repo.cli.spawn(&repo.args(&[&words[..], &[password.to_str().unwrap()]].concat()));
    let mut link = server.connect();
    wait_until("the capture", || nodes::info(&mut link, "rdb_bgsave_in_progress").as_deref() == Some("1"));
    std::fs::write(&password, "new\n").unwrap();
    nodes::command(&["CONFIG", "SET", "requirepass", "new"]).exec(&mut link).unwrap();
    // what was begun with the old one is lost
    nodes::command(&["CLIENT", "KILL", "TYPE", "replica"]).exec(&mut link).unwrap();
    let outcome = job.wait(Duration::from_secs(180)).ok().says("retaken");
    assert_eq!(outcome.json()["shards"][0]["attempt"], 2);
    assert!(!outcome.stderr.contains("old\n") && !outcome.stderr.contains("new\n"), "{outcome}");
    repo.json(&["snapshot", "verify", "one"]);
}
