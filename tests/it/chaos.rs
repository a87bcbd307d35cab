//! Captures of a cluster under writes while things happen to it, by seed. Whatever is published holds what it must.

use std::collections::BTreeMap;
use std::time::Duration;

use policies::slot::{SlotSet, key_slot};
use policies::{nodes as cluster_nodes, shards};

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::journal::{self, Journal};
use crate::harness::keyspace::Random;
use crate::harness::nodes;
use crate::harness::process::wait_for;
use crate::harness::proxy::Proxy;
use crate::harness::server::{Options, Server};
use crate::redis_server::{ask, fill_shard, wait_until};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long the cluster may take to be well again.
const HEAL_LIMIT: Duration = Duration::from_secs(120);
/// Lists that are written to, all in the slots of the first two shards; the third is for `FLUSHALL`.
const TAGS: usize = 8;

/// What happens in the middle of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillReplica,
    PauseReplica,
    Resynchronise,
    Promote,
    KillPrimary,
    MigrateSlots,
    Flush,
    Cut,
    Slow,
}

const FAULTS: [Fault; 9] = [
    Fault::KillReplica,
    Fault::PauseReplica,
    Fault::Resynchronise,
    Fault::Promote,
    Fault::KillPrimary,
    Fault::MigrateSlots,
    Fault::Flush,
    Fault::Cut,
    Fault::Slow,
];

/// Nine servers in three shards, each behind a proxy.
struct Chaos {
    servers: Vec<Server>,
    proxies: Vec<Proxy>,
    random: Random,
    down: Vec<usize>,
    paused: Vec<usize>,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let options =
            ["rdb-key-save-delay 400", "cluster-node-timeout 3000", "repl-ping-replica-period 1", "save \"\""];
        let options = options.iter().fold(Options::new(), |options, line| options.line(*line));
        let cluster = Cluster::start_with(&options, shards::equal(3).unwrap(), 2);
        for shard in &cluster.shards {
            fill_shard(&shard.primary, &shard.slots, 1500);
        }
        let servers: Vec<Server> =
            cluster.shards.into_iter().flat_map(|shard| std::iter::once(shard.primary).chain(shard.replicas)).collect();
        let proxies = servers.iter().map(|server| Proxy::start(&server.address())).collect();
        Self { servers, proxies, random: Random::new(seed), down: Vec::new(), paused: Vec::new() }
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }

    /// Any node that answers.
    fn living(&self) -> &Server {
        let lives = |index: &usize| !self.down.contains(index) && !self.paused.contains(index);
        &self.servers[(0..self.servers.len()).find(lives).unwrap()]
    }

    /// The nodes of shard `number`, by their slots: the index of the primary, then those of the replicas.
    fn shard(&self, number: usize) -> (usize, Vec<usize>) {
        let text = ask(self.living(), &["CLUSTER", "NODES"]);
        let all: Vec<_> = text.lines().filter_map(cluster_nodes::Node::parse).collect();
        let index = |address: &str| {
            let address = address.split(['@', ',']).next().unwrap();
            self.servers.iter().position(|server| server.address() == address).unwrap()
        };
        // slots move between the first and the second; the middle of each stays where it is
        let middle = [2000, 8000, 14_000][number];
        let primary = all.iter().find(|node| node.has("master") && node.slots.contains(middle)).unwrap();
        let follows = |node: &&cluster_nodes::Node<'_>| node.follows == Some(primary.id);
        (index(primary.address), all.iter().filter(follows).map(|node| index(node.address)).collect())
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.random.below(of.len() as u64)).unwrap()]
    }

    fn strike(&mut self, fault: Fault) {
        let number = self.any(&[0, 1, 2]);
        let (primary, replicas) = self.shard(number);
        let replica = self.any(&replicas);
        match fault {
            Fault::KillReplica | Fault::KillPrimary => {
                let victim = if fault == Fault::KillReplica { replica } else { primary };
                self.servers[victim].kill();
                self.down.push(victim);
            }
            Fault::PauseReplica => {
                self.servers[replica].pause();
                self.paused.push(replica);
            }
            Fault::Resynchronise => {
                self.servers[primary].run(&["DEBUG", "CHANGE-REPL-ID"]);
                self.servers[primary].run(&["CLIENT", "KILL", "TYPE", "replica"]);
            }
            // refused while its link is down: then nothing happens
            Fault::Promote => {
                let _refused = nodes::command(&["CLUSTER", "FAILOVER"])
                    .query::<redis::Value>(&mut self.servers[replica].connect());
            }
            Fault::MigrateSlots => self.migrate(),
            Fault::Flush => {
                let scratch = self.shard(2).0;
                self.servers[scratch].run(&["FLUSHALL"]);
            }
            Fault::Cut => {
                let bytes = 30_000 + self.random.below(60_000);
                replicas.iter().chain([&primary]).for_each(|index| self.proxies[*index].cut_after(bytes));
            }
            Fault::Slow => self.proxies.iter().for_each(|proxy| proxy.slow(20)),
        }
    }

    /// Moves a few slots, with the keys in them, from the first shard to the second, or back.
    fn migrate(&self) {
        let (one, two) = (self.shard(0).0, self.shard(1).0);
        let ids = [one, two].map(|index| ask(&self.servers[index], &["CLUSTER", "MYID"]));
        let text = ask(&self.servers[one], &["CLUSTER", "NODES"]);
        let own = text.lines().filter_map(cluster_nodes::Node::parse).find(|node| node.has("myself")).unwrap().slots;
        let (from, to) = if own.contains(5000) { (0, 1) } else { (1, 0) };
        let indices = [one, two];
        let [source, target] = [from, to].map(|index| &self.servers[indices[index]]);
        for slot in 5000..5008_u16 {
            let slot = slot.to_string();
            target.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]);
            source.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]);
            let words = ["CLUSTER", "GETKEYSINSLOT", &slot, "1000"];
            let keys: Vec<String> = nodes::command(&words).query(&mut source.connect()).unwrap();
            if !keys.is_empty() {
                let port = target.port().to_string();
                let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                words.extend(keys.iter().map(String::as_str));
                source.run(&words);
            }
            for server in [target, source] {
                server.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
            }
        }
    }

    /// Brings back what is down, and waits until all nodes agree and every replica has all that was written.
    fn heal(&mut self) {
        self.proxies.iter().for_each(Proxy::heal);
        std::mem::take(&mut self.paused).into_iter().for_each(|index| self.servers[index].resume());
        std::mem::take(&mut self.down).into_iter().for_each(|index| self.servers[index].restart());
        wait_for("the cluster to be well", HEAL_LIMIT, || {
            let offsets: Vec<u64> = (0..3).map(|number| offset(&self.servers[self.shard(number).0])).collect();
            for server in &self.servers {
                let (info, list) = (ask(server, &["CLUSTER", "INFO"]), ask(server, &["CLUSTER", "NODES"]));
                let ok = info.contains("cluster_state:ok") && !list.contains("fail") && !list.contains("->-");
                if !ok || server.info("master_link_status").is_some_and(|status| status != "up") {
                    return Err(format!("{}\n{info}\n{list}", server.address()));
                }
            }
            for (number, wanted) in offsets.into_iter().enumerate() {
                let (_, replicas) = self.shard(number);
                if replicas.len() != 2 || replicas.iter().any(|index| offset(&self.servers[*index]) < wanted) {
                    return Err(format!("shard {number} has replicas {replicas:?} that are behind"));
                }
            }
            Ok(())
        });
    }
}

fn offset(server: &Server) -> u64 {
    let field =
        if server.info("role").as_deref() == Some("slave") { "slave_repl_offset" } else { "master_repl_offset" };
    server.info(field).unwrap().parse().unwrap()
}

/// Names whose lists are in slots of the first two shards, some of them in those that move.
fn tags() -> Vec<String> {
    let within = |slots: &SlotSet, count: usize| -> Vec<String> {
        let is_there = |tag: &String| slots.contains(key_slot(journal::key(tag).as_bytes()));
        (0..).map(|number: u32| format!("t{number}")).filter(is_there).take(count).collect()
    };
    let moving = SlotSet::range(5000, 5007).unwrap();
    let staying = SlotSet::range(0, 4999).unwrap().union(&SlotSet::range(5500, 10_900).unwrap());
    [within(&moving, TAGS / 4), within(&staying, TAGS - TAGS / 4)].concat()
}

/// What became of the captures.
#[derive(Debug, Default)]
struct Count {
    published: u32,
    refused: u32,
    attempts: u64,
    retaken: u64,
    checked: u64,
    by_fault: BTreeMap<Fault, [u32; 2]>,
}

fn run(seed: u64, captures: u32, faults: &[Fault]) -> Count {
    let (mut chaos, tags, repo, mut count) = (Chaos::start(seed), tags(), Repo::folder(), Count::default());
    let journal = Journal::start(&tags, chaos.addresses());
    wait_until("the writer writes", || journal.log().values().all(|list| list.iter().filter(|it| **it).count() > 20));
    for number in 0..captures {
        chaos.heal();
        let floor = journal.log();
        // what was acknowledged before is on every replica
        chaos.heal();
        let fault = chaos.any(faults);
        let name = format!("n{number}");
        let job = repo.cli.spawn(&repo.args(&words(&chaos, &name).iter().map(String::as_str).collect::<Vec<_>>()));
        std::thread::sleep(Duration::from_millis(100 + chaos.random.below(900)));
        chaos.strike(fault);
        // what stands still is let go on when the job may have to wait for it
        std::thread::sleep(Duration::from_millis(chaos.random.below(1500)));
        std::mem::take(&mut chaos.paused).into_iter().for_each(|index| chaos.servers[index].resume());
        let outcome = job.wait(PATIENCE);
        let entry = count.by_fault.entry(fault).or_default();
        match outcome.code {
            Some(0) => entry[0] += 1,
            // no node could serve, or the cluster did not come to rest in time
            Some(15 | 18) => {
                (count.refused, entry[1]) = (count.refused + 1, entry[1] + 1);
                continue;
            }
            _ => panic!("seed {seed}, capture {number}, {fault:?}: {outcome}"),
        }
        let attempts: Vec<u64> = outcome.json()["shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|shard| shard["attempt"].as_u64().unwrap())
            .collect();
        count.published += 1;
        count.attempts += attempts.iter().sum::<u64>();
        count.retaken += attempts.iter().filter(|attempt| **attempt > 1).count() as u64;
        // only a cluster that is well can say what it lost itself
        chaos.heal();
        let live = journal::read(&tags, &nodes::discover(&format!("redis://{}", chaos.living().address())));
        let (restored, _launched) = repo.launch(&name, &["--shards", "1"]);
        let (held, log) = (journal::read(&tags, &restored), journal.log());
        for tag in &tags {
            let wrong = journal::wrong(&held[tag], &log[tag], floor[tag].len(), &live[tag]);
            assert!(wrong.is_none(), "seed {seed}, capture {number}, {fault:?}, list {tag}: {wrong:?}\n{outcome}");
            count.checked += held[tag].len() as u64;
        }
    }
    let log = journal.stop();
    assert!(log.values().flatten().filter(|acknowledged| **acknowledged).count() > 100);
    println!("seed {seed}, {captures} captures: {count:?}");
    count
}

/// A snapshot of all nodes, each reached through its proxy.
fn words(chaos: &Chaos, name: &str) -> Vec<String> {
    let mut words = ["snapshot", "create", "--name", name, "--settle-wait", "30s"].map(str::to_owned).to_vec();
    words.push("--source".to_owned());
    words.extend(chaos.addresses().iter().take(3).map(|address| format!("redis://{address}")));
    for (server, proxy) in chaos.servers.iter().zip(&chaos.proxies) {
        words.extend(["--source-address".to_owned(), format!("{}={}", server.address(), proxy.address)]);
    }
    words
}

#[test]
fn captures_hold_what_they_must_whatever_happens_to_the_cluster() {
    let count = run(20_261_125, 6, &FAULTS);
    assert!(count.published > 0 && count.checked > 0, "{count:?}");
}

#[test]
#[ignore = "half an hour: the full form, see docs/capture.md"]
fn sixty_captures_hold_what_they_must_whatever_happens_to_the_cluster() {
    let count = run(1, 60, &FAULTS);
    assert!(count.published >= 40 && count.by_fault.len() == FAULTS.len(), "{count:?}");
}

#[test]
fn the_bounds_notice_what_may_not_be() {
    // the third of five was never acknowledged
    let log = [true, true, false, true, true];
    let live = [0, 1, 2, 3, 4];
    let wrong = |held: &[usize], floor: usize| journal::wrong(held, &log, floor, &live);
    for held in [&[0, 1, 2, 3, 4][..], &[0, 1, 3], &[0, 1], &[]] {
        assert_eq!(wrong(held, 0), None, "{held:?}");
    }
    assert_eq!(wrong(&[0, 1], 3), None, "what was not acknowledged need not be there");
    assert!(wrong(&[0, 3], 0).unwrap().starts_with("1 was acknowledged"));
    assert!(wrong(&[], 2).unwrap().starts_with("0 was acknowledged"), "a list that is missing as a whole");
    assert!(wrong(&[0, 1, 3], 5).unwrap().starts_with("4 was acknowledged"));
    assert!(wrong(&[0, 1, 2, 3, 4, 5], 0).unwrap().contains("never written"));
    assert!(wrong(&[1, 0], 0).is_some() && wrong(&[0, 0], 0).is_some(), "another order, and twice");
    // what the cluster lost in a failover may be missing
    assert_eq!(journal::wrong(&[0, 3], &log, 0, &[0, 2, 3, 4]), None);
}
