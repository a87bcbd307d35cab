//! Which node of real servers is chosen, and the reason told for each.

use backupd::redis::discover;
use policies::replica::{Choice, PrimaryUse, Wishes, choose};

use crate::fixture::Repo;
use crate::harness::proxy::Proxy;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_server::{fill, options, server, wait_until};

/// The chosen port, if any, and the whole choice.
async fn choice(seed: &Server, wishes: &Wishes) -> (Option<u16>, Choice) {
    let topology = discover(&options(&[&seed.url()])).await.unwrap();
    let shard = &topology.shards[0];
    let choice = choose(&shard.candidates(), wishes);
    (choice.chosen.map(|index| shard.nodes[index].port), choice)
}

fn reason(choice: &Choice, node: &Server) -> String {
    let verdict = choice.verdicts.iter().find(|verdict| verdict.id.ends_with(&node.port().to_string()));
    verdict.unwrap_or_else(|| panic!("{choice}")).reason.clone()
}

#[tokio::test]
async fn a_replica_that_is_never_promoted_comes_first_and_one_whose_child_runs_last() {
    let slow = "rdb-key-save-delay 20000";
    let (primary, a, b) = (server(&[]), server(&[slow]), server(&[slow]));
    fill(&primary, 2000);
    a.replicate(&primary);
    b.replicate(&primary);
    wait_until("both are listed", || primary.info("connected_slaves").as_deref() == Some("2"));
    for (never, other) in [(&a, &b), (&b, &a)] {
        never.run(&["CONFIG", "SET", "replica-priority", "0"]);
        other.run(&["CONFIG", "SET", "replica-priority", "100"]);
        let (port, choice) = choice(&primary, &Wishes::default()).await;
        assert_eq!(port, Some(never.port()), "{choice}");
    }
    b.run(&["BGSAVE"]);
    let (port, choice) = choice(&primary, &Wishes::default()).await;
    assert_eq!(port, Some(a.port()), "{choice}");
    assert!(reason(&choice, &b).contains("a child of it is saving"), "{choice}");
    assert!(reason(&choice, &primary).contains("--primary fallback"), "{choice}");
}

#[tokio::test]
async fn replicas_that_load_or_lost_their_link_or_are_gone_are_told_and_not_chosen() {
    let (primary, mut gone) = (server(&[]), server(&[]));
    let (down, mut loading) =
        (server(&[]), server(&["key-load-delay 1000", "loading-process-events-interval-bytes 1024"]));
    fill(&primary, 3000);
    for replica in [&gone, &down, &loading] {
        replica.replicate(&primary);
    }
    wait_until("all are listed", || primary.info("connected_slaves").as_deref() == Some("3"));
    gone.kill();
    // a password that the primary does not know of: the link cannot come up again
    down.run(&["CONFIG", "SET", "masteruser", "nobody"]);
    down.run(&["CONFIG", "SET", "masterauth", "wrong"]);
    down.run(&["CLIENT", "KILL", "TYPE", "master"]);
    wait_until("the link is down", || down.info("master_link_status").as_deref() == Some("down"));
    loading.run(&["SAVE"]);
    loading.restart_loading();
    let seeds = [primary.url(), gone.url(), down.url()];
    let topology = discover(&options(&seeds.each_ref().map(String::as_str))).await.unwrap();
    let choice =
        choose(&topology.shards[0].candidates(), &Wishes { primary_use: PrimaryUse::Fallback, ..Wishes::default() });
    let chosen = choice.chosen.map(|index| topology.shards[0].nodes[index].port);
    assert_eq!(chosen, Some(primary.port()), "{choice}");
    assert!(reason(&choice, &down).contains("link to the primary is down"), "{choice}");
    // a restarted server is nobody's replica, so it may be a second primary of the seeds: it is asked alone
    let alone = discover(&options(&[&loading.url()])).await.unwrap();
    let alone = choose(&alone.shards[0].candidates(), &Wishes { primary_use: PrimaryUse::Prefer, ..Wishes::default() });
    assert!(alone.chosen.is_none() && alone.may_pass && !alone.forbidden, "{alone}");
    assert!(reason(&alone, &loading).contains("loading"), "{alone}");
}

#[tokio::test]
async fn a_replica_that_lags_comes_after_one_that_does_not_and_its_lag_is_in_the_manifest() {
    let (primary, near, far) = (server(&[]), server(&[]), server(&[]));
    near.replicate(&primary);
    let slow = Proxy::start(&primary.address());
    let port = slow.address.rsplit_once(':').unwrap().1;
    far.run(&["REPLICAOF", "127.0.0.1", port]);
    wait_until("it follows", || far.info("master_link_status").as_deref() == Some("up"));
    slow.slow(500);
    fill(&primary, 50_000);
    near.wait_caught_up(&primary);
    let lag = || {
        let offset = |server: &Server, field| server.info(field).unwrap().parse::<u64>().unwrap();
        offset(&primary, "master_repl_offset") - offset(&far, "slave_repl_offset")
    };
    assert!(lag() > 2 << 20, "{}", lag());
    let (port, choice) = choice(&primary, &Wishes::default()).await;
    assert_eq!(port, Some(near.port()), "{choice}");
    assert!(reason(&choice, &far).contains("behind"), "{choice}");
    let repo = Repo::folder();
    let named = far.address();
    let words = ["snapshot", "create", "--source", &primary.url(), "--name", "one", "--node", &named];
    let made = repo.json(&words);
    assert_eq!(made["shards"][0]["node"]["address"], named.as_str());
    assert!(made["shards"][0]["node"]["lag_bytes"].as_u64().unwrap() > 1 << 20, "{made}");
}

#[tokio::test]
async fn a_zone_decides_between_replicas_that_are_level() {
    let engine = Engine::Extra("valkey-9");
    if engine.is_recorded_as_unavailable() {
        return println!("valkey-9 is recorded as unavailable here: not run");
    }
    let start =
        |zone: &str| Server::start(&Options::new().engine(engine.clone()).line(format!("availability-zone {zone}")));
    let (primary, a, b) = (start("east"), start("east"), start("west"));
    a.replicate(&primary);
    b.replicate(&primary);
    wait_until("both are listed", || primary.info("connected_slaves").as_deref() == Some("2"));
    for (zone, node) in [("east", &a), ("west", &b)] {
        let (port, choice) = choice(&primary, &Wishes { zone: Some(zone.to_owned()), ..Wishes::default() }).await;
        assert_eq!(port, Some(node.port()), "{choice}");
    }
}

#[test]
fn the_configuration_says_when_a_primary_may_serve() {
    let (primary, mut replica) = (server(&[]), server(&[]));
    replica.replicate(&primary);
    wait_until("it is listed", || primary.info("connected_slaves").as_deref() == Some("1"));
    let repo = Repo::folder();
    let create = |name: &str, line: &str| {
        let text = format!(
            "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{}\"]\n\
             repository = \"main\"\n{line}\n",
            repo.url,
            primary.url()
        );
        std::fs::write(repo.path("backupd.toml"), text).unwrap();
        let config = repo.path("backupd.toml");
        let words =
            ["snapshot", "create", "orders", "--name", name, "-o", "json", "--config", config.to_str().unwrap()];
        repo.cli.run(&words)
    };
    let role = |outcome: crate::harness::cli::Outcome| {
        outcome.ok().json()["shards"][0]["node"]["role"].as_str().unwrap().to_owned()
    };
    assert_eq!(role(create("one", "primary = \"prefer\"")), "primary");
    assert_eq!(role(create("two", "primary = \"fallback\"")), "replica");
    create("three", "primary = \"sometimes\"").exits(19).says("backupd.toml:7:");
    replica.pause();
    let refused = create("three", "");
    replica.resume();
    refused.exits(18).says("primary = \\\"fallback\\\"");
    replica.kill();
    wait_until("it is gone", || primary.info("connected_slaves").as_deref() == Some("0"));
    create("three", "primary = \"never\"").exits(18).says("never used");
}
