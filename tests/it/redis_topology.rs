//! Finding the nodes and shards of real servers.

use backupd::error::{Class, Error};
use backupd::redis::{Mode, Role, Topology, discover};
use backupd::secret::Secret;
use policies::replica::{PrimaryUse, Wishes, choose};

use crate::harness::cluster::Cluster;
use crate::harness::server::{Options, Server};
use crate::redis_server::{fill, options, server, unused_port, wait_until};

async fn find(urls: &[&str]) -> Result<Topology, Error> {
    discover(&options(urls)).await
}

#[tokio::test]
async fn an_unreachable_source_is_exit_15_and_another_seed_is_enough() {
    let dead = format!("redis://127.0.0.1:{}", unused_port());
    let error = find(&[&dead]).await.unwrap_err();
    assert_eq!(error.class(), Class::SourceUnavailable);
    assert!(error.is_retryable() && error.message().contains("127.0.0.1"), "{error}");
    let server = server(&[]);
    let topology = find(&[&dead, &server.url()]).await.unwrap();
    assert_eq!(topology.shards[0].nodes.len(), 1, "a dead seed that no node knows is no part of the source");
}

#[tokio::test]
async fn wrong_and_missing_passwords_and_permissions_are_exit_13_and_not_retried() {
    let server = Server::start(&Options::new().password("right"));
    for url in [format!("redis://{}", server.address()), format!("redis://:hunter2@{}", server.address())] {
        let error = find(&[&url]).await.unwrap_err();
        assert_eq!(error.class(), Class::SourceAuth, "{error}");
        assert!(!error.is_retryable() && error.message().contains(&server.address()), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let mut with_file = options(&[&format!("redis://:wrong@{}", server.address())]);
    with_file.password = Some(Secret::new("right".to_owned()));
    assert_eq!(discover(&with_file).await.unwrap().mode, Mode::Standalone);

    server.run(&["ACL", "SETUSER", "few", "on", ">pw", "+ping"]);
    let error = find(&[&format!("redis://few:pw@{}", server.address())]).await.unwrap_err();
    assert_eq!(error.class(), Class::SourceAuth);
    assert!(error.message().contains("INFO") && error.advice().unwrap().contains("+info"), "{error}");
}

#[tokio::test]
async fn a_primary_and_its_replicas_are_found_from_any_of_them() {
    let (primary, mut a, b) = (server(&[]), server(&[]), server(&[]));
    fill(&primary, 500);
    a.replicate(&primary);
    b.replicate(&primary);
    wait_until("both replicas are listed", || primary.info("connected_slaves").as_deref() == Some("2"));
    for seed in [&primary, &a, &b] {
        let topology = find(&[&seed.url()]).await.unwrap();
        assert_eq!(topology.mode, Mode::Standalone);
        assert_eq!(topology.shards.len(), 1);
        assert!(["redis", "valkey"].contains(&topology.engine.as_str()), "{}", topology.engine);
        assert!(topology.version.starts_with(|c: char| c.is_ascii_digit()), "{}", topology.version);
        let shard = &topology.shards[0];
        assert_eq!(shard.slots, None);
        let mut ports: Vec<u16> = shard.nodes.iter().map(|node| node.port).collect();
        assert_eq!((ports[0], shard.nodes[0].role), (primary.port(), Role::Primary));
        ports.sort_unstable();
        let mut expected = [primary.port(), a.port(), b.port()];
        expected.sort_unstable();
        assert_eq!(ports, expected);
        assert!(shard.nodes.iter().all(|node| node.keys == 500 && node.replid == shard.nodes[0].replid));
        let choice = choose(&shard.candidates(), &Wishes::default());
        assert_eq!(shard.nodes[choice.chosen.unwrap()].role, Role::Replica, "{choice}");
    }
    a.kill();
    let topology = find(&[&primary.url(), &b.url()]).await.unwrap();
    let gone = topology.shards[0].nodes.iter().find(|node| node.port == a.port());
    assert!(gone.is_none_or(|node| node.unreachable.is_some()), "{gone:?}");
    let by_replica = find(&[&b.url()]).await.unwrap();
    assert!(by_replica.shards[0].nodes.iter().any(|node| node.role == Role::Primary));
}

#[tokio::test]
async fn a_replica_whose_primary_is_gone_still_tells_its_shard() {
    let (mut primary, replica) = (server(&[]), server(&[]));
    replica.replicate(&primary);
    primary.kill();
    wait_until("the link is down", || replica.info("master_link_status").as_deref() == Some("down"));
    let topology = find(&[&replica.url()]).await.unwrap();
    let [first, second] = topology.shards[0].nodes.as_slice() else { panic!("two nodes") };
    assert!(first.role == Role::Primary && first.unreachable.is_some());
    assert!(second.role == Role::Replica && !second.link_up);
    let choice =
        choose(&topology.shards[0].candidates(), &Wishes { primary_use: PrimaryUse::Fallback, ..Wishes::default() });
    assert_eq!(choice.chosen, None, "{choice}");
}

#[tokio::test]
async fn a_lone_primary_tells_whether_a_failed_save_would_stop_its_writes() {
    for (settings, harmless) in [
        (["repl-diskless-sync yes", "save 900 1"], true),
        (["repl-diskless-sync no", "save \"\""], true),
        (["repl-diskless-sync no", "save 900 1"], false),
    ] {
        let server = server(&settings);
        let topology = find(&[&server.url()]).await.unwrap();
        assert_eq!(topology.shards[0].nodes[0].save_is_harmless, Some(harmless), "{settings:?}");
        let choice = choose(&topology.shards[0].candidates(), &Wishes::default());
        assert_eq!(choice.chosen.is_some(), harmless, "{choice}");
    }
}

#[tokio::test]
async fn seeds_of_two_primaries_are_refused() {
    let (one, two) = (server(&[]), server(&[]));
    let error = find(&[&one.url(), &two.url()]).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message().contains(&one.address()) && error.message().contains(&two.address()), "{error}");
}

#[tokio::test]
async fn one_server_under_two_names_is_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let server = server(&[&format!("unixsocket {}", socket.display())]);
    let by_name = format!("redis://localhost:{}", server.port());
    let topology = find(&[&format!("unix://{}", socket.display()), &by_name, &server.url()]).await.unwrap();
    assert_eq!(topology.shards[0].nodes.len(), 1);
    assert_eq!(topology.shards[0].nodes[0].id, format!("unix://{}", socket.display()));
}

#[tokio::test]
async fn a_cluster_is_found_whole_or_refused_with_the_missing_slots() {
    let cluster = Cluster::start(3, 0);
    let servers: Vec<&Server> = cluster.servers().collect();
    for seed in &servers {
        let topology = find(&[&seed.url()]).await.unwrap();
        assert_eq!(topology.mode, Mode::Cluster);
        assert!(topology.epoch >= 3 && topology.migrating.is_empty());
        let slots: Vec<String> = topology.shards.iter().map(|it| it.slots.as_ref().unwrap().to_string()).collect();
        assert_eq!(slots, ["0-5460", "5461-10922", "10923-16383"]);
        for (shard, server) in topology.shards.iter().zip(&servers) {
            assert_eq!(shard.nodes.len(), 1);
            assert_eq!((shard.nodes[0].port, shard.nodes[0].id.len()), (server.port(), 40));
            assert!(shard.nodes[0].run_id.len() == 40 && shard.nodes[0].role == Role::Primary);
        }
    }
    let before = find(&[&servers[0].url()]).await.unwrap();
    let id = |index: usize| before.shards[index].nodes[0].id.clone();
    servers[1].run(&["CLUSTER", "SETSLOT", "6000", "MIGRATING", &id(2)]);
    let moving = find(&[&servers[0].url()]).await.unwrap();
    assert_eq!(moving.migrating, [format!("{}: [6000->-{}]", id(1), id(2))]);
    assert!(moving.unsettled().unwrap().contains("[6000->-") && before.unsettled().is_none());
    servers[1].run(&["CLUSTER", "SETSLOT", "6000", "STABLE"]);

    for server in &servers {
        server.run(&["CLUSTER", "DELSLOTS", "77"]);
    }
    let error = find(&[&servers[0].url()]).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message().ends_with("slots 77"), "{error}");
}

#[tokio::test]
async fn cluster_slots_serves_where_cluster_nodes_is_denied() {
    let cluster = Cluster::start(3, 0);
    let servers: Vec<&Server> = cluster.servers().collect();
    for server in &servers {
        server.run(&["ACL", "SETUSER", "few", "on", ">pw", "+info", "+cluster|slots"]);
    }
    let by_slots = find(&[&format!("redis://few:pw@{}", servers[2].address())]).await.unwrap();
    let whole = find(&[&servers[2].url()]).await.unwrap();
    assert!(by_slots.changed_since(&whole).is_empty());
    let ids = |topology: &Topology| -> Vec<String> {
        topology.shards.iter().map(|shard| shard.nodes[0].id.clone()).collect()
    };
    assert_eq!(ids(&by_slots), ids(&whole));
}
