//! Several workers read the shards of one snapshot.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use backupd::catalog::Catalog;
use backupd::config::Config;
use serde_json::Value;

use super::{Fleet, LIMIT, postgres, sqlite};
use crate::fixture::Repo;
use crate::harness::cli::Spawned;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::{Keyspace, Random};
use crate::harness::nodes::Links;
use crate::harness::postgres::Postgres;
use crate::harness::process::wait_for;
use crate::harness::s3::block_on;

const SHORT: &str = "lease = \"2s\"\nstop_wait = \"0s\"\njobs = 4\njobs_per_host = 8\n";

/// A cluster of three shards, its repository with a key, and daemons that know both.
struct Shared {
    fleet: Fleet,
    cluster: Cluster,
    repo: Repo,
    catalog: Catalog,
}

impl Shared {
    fn new(catalog: &str, capture: &str) -> Self {
        let (cluster, repo) = (Cluster::start(3, 1), Repo::folder());
        Keyspace::new(17, 2000).load(&cluster.nodes());
        cluster.wait_replicas();
        let fleet = Fleet::new(0, catalog, SHORT, "");
        let path = fleet.path("backupd.toml");
        let mut text = std::fs::read_to_string(&path).unwrap();
        let head = text.find("[repositories").unwrap();
        text.truncate(head);
        write!(
            text,
            "{capture}\n[repositories.main]\nurl = \"file://{}\"\nkey_file = \"{}\"\n[clusters.orders]\nsources = [\"{}\"]\nrepository = \"main\"\nsnapshot_retention_limit = 0\n",
            repo.root().display(),
            repo.path("keys.json").display(),
            cluster.url()
        )
        .unwrap();
        std::fs::write(&path, text).unwrap();
        let location = Config::load(Some(&path)).unwrap().catalog;
        let catalog = block_on(Catalog::open(&location)).unwrap();
        Self { fleet, cluster, repo, catalog }
    }

    /// Daemons of which all others know.
    fn daemons(&self, count: usize) -> Vec<Spawned> {
        let daemons = (0..count).map(|_| self.fleet.daemon()).collect();
        wait_for("the workers", LIMIT, || match block_on(self.catalog.other_workers("", 0)).unwrap() {
            found if found == count => Ok(()),
            found => Err(format!("{found} of {count}")),
        });
        daemons
    }

    fn ask(&self, name: &str) -> String {
        self.fleet.ask("orders", name)
    }

    /// The lines of a job's log about shards that other workers read.
    fn shared(&self, job: &str) -> Vec<String> {
        let shown = self.fleet.json(&["job", "show", job]);
        let steps = shown["steps"].as_array().unwrap().iter();
        steps.filter(|step| step["event"] == "shared").map(|step| step["reason"].as_str().unwrap().to_owned()).collect()
    }

    fn shards(&self, name: &str) -> Vec<Value> {
        self.fleet.json(&["snapshot", "show", name])["shards"].as_array().unwrap().clone()
    }

    /// All of it comes back.
    fn restores(&self, name: &str) {
        self.fleet.cli.run(&["snapshot", "verify", name]).ok();
        let (nodes, _launched) = self.repo.launch(name, &["--shards", "2"]);
        compare(&self.cluster.nodes(), &nodes).assert_equal();
    }
}

fn end(daemons: Vec<Spawned>) {
    daemons.iter().for_each(|daemon| daemon.running.signal("TERM"));
    daemons.into_iter().for_each(|daemon| drop(daemon.wait(LIMIT).ok()));
}

/// The daemon whose process a worker's name says.
fn position(daemons: &[Spawned], worker: &str) -> usize {
    let pid: u32 = worker.split(':').nth(1).unwrap().parse().unwrap();
    daemons.iter().position(|daemon| daemon.running.child.id() == pid).unwrap()
}

#[test]
fn three_workers_read_a_shard_each_on_sqlite() {
    three_workers_read_a_shard_each(&sqlite());
}

#[test]
fn three_workers_read_a_shard_each_on_postgres() {
    let server = Postgres::start();
    three_workers_read_a_shard_each(&postgres(&server, &server.database()));
}

fn three_workers_read_a_shard_each(catalog: &str) {
    let shared = Shared::new(catalog, "");
    let daemons = shared.daemons(3);
    let id = shared.ask("one");
    let job = shared.fleet.wait_job(&id, &["succeeded", "failed"]);
    assert_eq!(job["state"], "succeeded", "{job}");
    end(daemons);
    let lines = shared.shared(&id);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_ne!(lines[0].rsplit(' ').next(), lines[1].rsplit(' ').next(), "each takes one: {lines:?}");
    let shards = shared.shards("one");
    assert!(shards.iter().all(|shard| shard["attempt"] == 1), "{shards:?}");
    shared.restores("one");
    shared.fleet.cli.run(&["catalog", "check"]).ok();
    // who ended is offered nothing, and nothing stays behind
    assert_eq!(block_on(shared.catalog.other_workers("", 0)).unwrap(), 0);
    let plan = shared.fleet.json(&["gc", "plan", "--older-than", "0s"]);
    assert_eq!(plan["removes"].as_array().map(Vec::len), Some(0), "{plan}");
}

/// Slow enough to be caught in the middle.
const SLOW: &str = "[capture]\nsource_rate_max = \"256KiB\"";

/// Waits until another worker reads a shard of a job: that worker.
fn reading(shared: &Shared, job: &str) -> String {
    wait_for("another worker to read", LIMIT, || {
        let lines = shared.shared(job);
        let line = lines.first().ok_or_else(|| shared.fleet.job(job).to_string())?;
        Ok(line.rsplit(' ').next().unwrap().to_owned())
    })
}

#[test]
fn a_shard_whose_worker_dies_is_read_again_by_the_worker_of_the_job() {
    let server = Postgres::start();
    let shared = Shared::new(&postgres(&server, &server.database()), SLOW);
    fill(&shared.cluster);
    let mut daemons = shared.daemons(2);
    let id = shared.ask("one");
    let worker = reading(&shared, &id);
    thread::sleep(Duration::from_millis(500));
    let dead = position(&daemons, &worker);
    daemons[dead].running.kill();
    let job = shared.fleet.wait_job(&id, &["succeeded", "failed"]);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["attempts"], 1, "the job itself went on: {job}");
    daemons.remove(dead);
    end(daemons);
    let attempts: Vec<u64> = shared.shards("one").iter().map(|shard| shard["attempt"].as_u64().unwrap()).collect();
    assert_eq!(attempts.iter().filter(|attempt| **attempt == 2).count(), 1, "{attempts:?}");
    shared.restores("one");
}

#[test]
fn what_was_lent_by_a_worker_that_dies_counts_for_nothing() {
    let server = Postgres::start();
    let shared = Shared::new(&postgres(&server, &server.database()), SLOW);
    fill(&shared.cluster);
    let mut daemons = shared.daemons(2);
    let id = shared.ask("one");
    reading(&shared, &id);
    let worker = shared.fleet.job(&id)["worker"].as_str().unwrap().to_owned();
    let begun = shared.fleet.job(&id)["snapshot_id"].as_str().unwrap().to_owned();
    let dead = position(&daemons, &worker);
    daemons[dead].running.kill();
    let job = shared.fleet.wait_job(&id, &["succeeded", "failed"]);
    assert_eq!((&job["state"], &job["attempts"]), (&"succeeded".into(), &2.into()), "{job}");
    assert_ne!(job["snapshot_id"], begun.as_str(), "another attempt is another snapshot");
    daemons.remove(dead);
    end(daemons);
    shared.restores("one");
    shared.fleet.cli.run(&["gc", "apply", "--older-than", "0s"]).ok();
    assert!(!shared.repo.root().join("orders").join(begun).exists(), "gc takes what the first attempt left");
}

/// A megabyte for each shard.
fn fill(cluster: &Cluster) {
    let mut random = Random::new(5);
    let values: Vec<(String, Vec<u8>)> =
        (0..150).map(|n| (format!("large:{n}"), (0..20_000).map(|_| random.byte()).collect())).collect();
    let keys: Vec<&str> = values.iter().map(|(key, _)| key.as_str()).collect();
    let set = |key: &&str| {
        let value = &values.iter().find(|(name, _)| name == key).unwrap().1;
        let mut command = redis::cmd("SET");
        command.arg(*key).arg(value);
        command
    };
    Links::open(&cluster.nodes()).ask(&keys, set);
    cluster.wait_replicas();
}
