//! A shard that fails is taken again, alone; shards that changed meanwhile are, too; and what cannot be is refused.

use std::time::Duration;

use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::cli::Spawned;
use crate::harness::cluster::{Cluster, Shard};
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes::Node;
use crate::harness::process;
use crate::harness::server::{Options, Server};
use crate::redis_server::{ask, server};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(180);

fn start(repo: &Repo, source: &str, more: &[&str]) -> Spawned {
    let words = [&["snapshot", "create", "--source", source, "--name", "one"], more].concat();
    repo.cli.spawn(&repo.args(&words))
}

/// Makes the children of servers slow enough to be hit in the middle, or fast again.
fn set_delay<'a>(servers: impl Iterator<Item = &'a Server>, micros: &str) {
    servers.for_each(|server| drop(server.run(&["CONFIG", "SET", "rdb-key-save-delay", micros])));
}

/// Waits until one of these servers has a child that saves; its index.
fn saving(servers: &[&Server]) -> usize {
    process::wait_for("the capture", Duration::from_secs(60), || {
        let is_saving = |server: &&Server| server.info("rdb_bgsave_in_progress").as_deref() == Some("1");
        servers.iter().position(is_saving).ok_or_else(|| "nobody saves".to_owned())
    })
}

fn attempts(made: &Value) -> Vec<u64> {
    made["shards"].as_array().unwrap().iter().map(|shard| shard["attempt"].as_u64().unwrap()).collect()
}

/// The snapshot verifies, restores to what `source` holds, and nothing but it is in the repository.
fn assert_whole(repo: &Repo, made: &Value, source: &[Node]) {
    let shards = made["shards"].as_array().unwrap();
    for shard in shards {
        let file = format!("shard-{:04}-{}.bkd", shard["index"].as_u64().unwrap(), shard["attempt"]);
        assert_eq!(shard["object"]["file"].as_str(), Some(file.as_str()));
        let served: Vec<&Value> =
            shard["choice"].as_array().unwrap().iter().filter(|verdict| verdict["chosen"] == true).collect();
        assert_eq!((served.len(), &served[0]["id"]), (1, &shard["node"]["id"]), "{shard}");
    }
    let is_shard = |path: &std::path::Path| path.extension().is_some_and(|end| end == "bkd");
    let objects = repo.files().iter().filter(|(path, _)| is_shard(path)).count();
    assert_eq!(objects, shards.len(), "the objects of failed attempts are removed");
    repo.run(&["snapshot", "verify", "one"]).ok();
    let (nodes, _launched) = repo.launch("one", &["--shards", "2"]);
    compare(source, &nodes).assert_equal();
}

#[test]
fn a_replica_that_dies_in_the_middle_is_replaced_by_another() {
    let mut cluster = Cluster::start(2, 2);
    Keyspace::new(31, 3000).load(&cluster.nodes());
    cluster.wait_replicas();
    set_delay(cluster.shards[1].replicas.iter(), "1000");
    let repo = Repo::folder();
    let job = start(&repo, &cluster.url(), &[]);
    let serving = saving(&cluster.shards[1].replicas.iter().collect::<Vec<_>>());
    cluster.shards[1].replicas[serving].kill();
    let made = job.wait(PATIENCE).ok().says("retaken").json();
    assert_eq!(attempts(&made), [1, 2], "only the shard that failed was retaken");
    let other = &cluster.shards[1].replicas[1 - serving];
    assert_eq!(made["shards"][1]["node"]["address"].as_str(), Some(other.address().as_str()));
    assert!(made["skew_ms"].as_u64().unwrap() > 0, "the retaken shard is later than the other: {made}");
    assert_whole(&repo, &made, &cluster.nodes());
}

#[test]
fn a_replica_that_nobody_names_any_more_does_not_make_its_primary_a_lone_one() {
    let (primary, mut replica) = (server(&[]), server(&["rdb-key-save-delay 1000"]));
    Keyspace::new(32, 2000).load(&primary.nodes());
    replica.replicate(&primary);
    let repo = Repo::folder();
    let job = start(&repo, &primary.url(), &["--settle-wait", "3s"]);
    saving(&[&replica]);
    replica.kill();
    let outcome = job.wait(PATIENCE).exits(15).says("could not be retaken").says("no node knows it now");
    assert!(outcome.stderr.contains("--primary fallback"), "{outcome}");
    assert_eq!(primary.info("total_forks").as_deref(), Some("1"), "only the replica made it fork");

    // where the primary is allowed it serves, but only after the replica failed
    replica.restart();
    replica.replicate(&primary);
    let job = start(&repo, &primary.url(), &["--primary", "fallback"]);
    saving(&[&replica]);
    replica.kill();
    let made = job.wait(PATIENCE).ok().json();
    assert_eq!((attempts(&made), made["shards"][0]["node"]["role"].as_str()), (vec![2], Some("primary")));
    assert_whole(&repo, &made, &primary.nodes());
}

#[test]
fn when_every_node_dies_the_source_is_unavailable() {
    let (mut primary, mut replica) = (server(&[]), server(&["rdb-key-save-delay 1000"]));
    Keyspace::new(33, 2000).load(&primary.nodes());
    replica.replicate(&primary);
    let repo = Repo::folder();
    let job = start(&repo, &primary.url(), &["--primary", "fallback", "--settle-wait", "2s"]);
    saving(&[&replica]);
    primary.kill();
    replica.kill();
    let outcome = job.wait(PATIENCE).exits(15);
    assert_eq!(outcome.error_json()["error"]["retryable"], true);
    assert!(outcome.stderr.contains("could not be retaken"), "{outcome}");
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
}

#[test]
fn a_replica_that_comes_back_is_waited_for() {
    let (primary, mut replica) = (server(&[]), server(&["rdb-key-save-delay 1000"]));
    Keyspace::new(34, 2000).load(&primary.nodes());
    replica.replicate(&primary);
    let repo = Repo::folder();
    let job = start(&repo, &primary.url(), &[]);
    saving(&[&replica]);
    replica.kill();
    replica.restart();
    replica.replicate(&primary);
    let made = job.wait(PATIENCE).ok().json();
    assert_eq!((attempts(&made), made["shards"][0]["node"]["role"].as_str()), (vec![2], Some("replica")));
    assert_whole(&repo, &made, &primary.nodes());
}

#[test]
fn a_primary_that_dies_while_it_was_the_only_seed_does_not_lose_the_way_to_its_replica() {
    let (mut primary, a, b) = (server(&[]), server(&["rdb-key-save-delay 1000"]), server(&["rdb-key-save-delay 1000"]));
    Keyspace::new(35, 2000).load(&primary.nodes());
    let before = primary.nodes();
    a.replicate(&primary);
    b.replicate(&primary);
    let repo = Repo::folder();
    let job = start(&repo, &primary.url(), &[]);
    let serving = saving(&[&a, &b]);
    // what a failover does: the primary is gone, the serving replica is promoted and so cuts our stream
    let (promoted, other) = if serving == 0 { (&a, &b) } else { (&b, &a) };
    let mut lost = Server::standalone();
    std::mem::swap(&mut lost, &mut primary);
    lost.kill();
    promoted.run(&["REPLICAOF", "NO", "ONE"]);
    other.replicate(promoted);
    let made = job.wait(PATIENCE).ok().json();
    assert_eq!(made["shards"][0]["node"]["address"].as_str(), Some(other.address().as_str()));
    assert!(attempts(&made)[0] > 1, "{made}");
    drop(before);
    assert_whole(&repo, &made, &promoted.nodes());
}

#[test]
fn a_failover_in_the_middle_is_survived() {
    let cluster = Cluster::start(3, 1);
    Keyspace::new(36, 3000).load(&cluster.nodes());
    cluster.wait_replicas();
    let Shard { primary, replicas, .. } = &cluster.shards[2];
    set_delay(replicas.iter(), "2000");
    let repo = Repo::folder();
    let job = start(&repo, &cluster.url(), &[]);
    saving(&[&replicas[0]]);
    replicas[0].run(&["CLUSTER", "FAILOVER"]);
    let made = job.wait(PATIENCE).ok().json();
    let shard = &made["shards"][2];
    assert!(shard["attempt"].as_u64().unwrap() > 1, "{shard}");
    assert_eq!(shard["node"]["address"].as_str(), Some(primary.address().as_str()), "it is the replica by now");
    assert_eq!(shard["node"]["role"].as_str(), Some("replica"));
    let nodes: Vec<Node> = cluster.nodes();
    let promoted = Node { url: replicas[0].url(), ..nodes[2].clone() };
    assert_whole(&repo, &made, &[nodes[0].clone(), nodes[1].clone(), promoted]);
}

/// Moves `slot`, which holds no keys, from one primary to another as `redis-cli --cluster` does.
fn move_empty_slot(cluster: &Cluster, slot: u16, from: usize, to: usize) {
    let slot = slot.to_string();
    let id = |index: usize| ask(&cluster.shards[index].primary, &["CLUSTER", "MYID"]);
    let (source, target) = (&cluster.shards[from].primary, &cluster.shards[to].primary);
    target.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    source.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    target.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    source.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
}

/// A slot of the first shard without keys.
fn empty_slot(cluster: &Cluster) -> u16 {
    let count = |slot: u16| -> u64 {
        let words = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()];
        crate::harness::nodes::command(&words).query(&mut cluster.shards[0].primary.connect()).unwrap()
    };
    (100..5000).find(|slot| count(*slot) == 0).expect("a slot without keys")
}

#[test]
fn shards_whose_slots_moved_meanwhile_are_taken_again_and_the_others_are_kept() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(37, 1500).load(&cluster.nodes());
    let primaries: Vec<&Server> = cluster.servers().collect();
    set_delay(primaries.iter().copied(), "2000");
    let repo = Repo::folder();
    let slot = empty_slot(&cluster);
    let job = start(&repo, &cluster.url(), &[]);
    saving(&primaries);
    move_empty_slot(&cluster, slot, 0, 1);
    set_delay(primaries.iter().copied(), "0");
    let made = job.wait(PATIENCE).ok().says("changed").json();
    assert_eq!(attempts(&made), [2, 2, 1], "{made}");
    let slots = made["shards"][1]["slots"].as_str().unwrap();
    assert!(slots.starts_with(&format!("{slot},")), "the shard has the slot that it was given: {slots}");
    assert_whole(&repo, &made, &crate::harness::nodes::discover(&cluster.url()));
}

#[test]
fn a_migration_that_does_not_end_is_refused_and_one_that_ends_is_waited_for() {
    let cluster = Cluster::start(2, 0);
    Keyspace::new(38, 300).load(&cluster.nodes());
    let id = ask(&cluster.shards[1].primary, &["CLUSTER", "MYID"]);
    cluster.shards[0].primary.run(&["CLUSTER", "SETSLOT", "7", "MIGRATING", &id]);
    let repo = Repo::folder();
    let outcome = start(&repo, &cluster.url(), &["--settle-wait", "1s"]).wait(PATIENCE).exits(18).says("[7->-");
    assert_eq!(outcome.error_json()["error"]["retryable"], true);
    assert!(!repo.root().exists(), "nothing was written for it");

    let mut job = start(&repo, &cluster.url(), &["-v"]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(job.running.is_alive(), "it waits");
    cluster.shards[0].primary.run(&["CLUSTER", "SETSLOT", "7", "STABLE"]);
    let made = job.wait(PATIENCE).ok().says("waiting for the source").json();
    assert_eq!(attempts(&made), [1, 1]);
}

#[test]
fn a_node_can_be_named_by_its_address_and_an_unknown_one_is_refused() {
    let (primary, a, b) = (server(&[]), server(&[]), server(&[]));
    a.replicate(&primary);
    b.replicate(&primary);
    let repo = Repo::folder();
    for (name, node) in [("by-a", &a), ("by-b", &b)] {
        let words = ["snapshot", "create", "--source", &primary.url(), "--name", name, "--node", &node.address()];
        let made = repo.json(&words);
        assert_eq!(made["shards"][0]["node"]["address"].as_str(), Some(node.address().as_str()));
    }
    start(&repo, &primary.url(), &["--node", "nobody:1"]).wait(PATIENCE).exits(10).says(&b.address());
    let shard = Cluster::start_with(&Options::new(), vec![policies::slot::SlotSet::full()], 1);
    let words = ["snapshot", "create", "--source", &shard.url(), "--name", "in-cluster", "--node"];
    let made = repo.json(&[&words[..], &[&shard.shards[0].replicas[0].address()]].concat());
    assert_eq!(made["shards"][0]["node"]["role"].as_str(), Some("replica"));
}
