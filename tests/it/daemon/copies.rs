//! Copies by policy: what is made in one region is copied into another one, and kept there by rules of its own.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::Credentials;
use backupd::crypt::keyring::Keyring;
use backupd::repository::Keys;
use backupd::store::{RepositoryUrl, S3Store, Store};
use serde_json::Value;

use super::{Fleet, LIMIT, get, sqlite};
use crate::fixture::Repo;
use crate::harness::faults::{Fault, Faulty, Operation, first};
use crate::harness::process::wait_for;
use crate::harness::s3::{Bucket, block_on};
use crate::retention::{automated_into, verdicts};

/// A window that never opens while a test runs, and what the cluster keeps itself.
const RULES: &str = "window = \"0 0 29 2 * for 1h in UTC\"\nretention = { keep_last = 5 }";

/// A cluster whose snapshots are in one region, with repositories in another one and in a folder.
struct Regions {
    fleet: Fleet,
    near: Repo,
    far: Repo,
}

impl Regions {
    fn new() -> Self {
        let near = Repo::bucket("policy-near");
        let far = Repo::in_bucket(Bucket::create_in_second_region("policy-far"));
        let mut fleet = Fleet::new(1, &sqlite(), "", RULES);
        fleet.cli = fleet.cli.clone().envs(near.bucket.as_ref().unwrap().envs());
        Self { fleet, near, far }
    }

    /// Writes the configuration, with the regions at these URLs and these copies.
    fn configure(&self, near: &str, far: &str, copies: &str) {
        let key = |repo: &Repo| repo.path("keys.json").display().to_string();
        let fleet = &self.fleet;
        let text = format!(
            "[catalog]\npath = \"catalog.sqlite\"\n[daemon]\nlisten = \"127.0.0.1:{}\"\nlease = \"2s\"\n\
             [repositories.near]\nurl = \"{near}\"\nkey_file = \"{}\"\n[repositories.far]\nurl = \"{far}\"\nkey_file = \"{}\"\n\
             [repositories.shelf]\nurl = \"file://{}\"\nkey_file = \"{}\"\n\
             [clusters.c0]\nsources = [\"{}\"]\nrepository = \"near\"\nprimary = \"fallback\"\n{RULES}\ncopies = {copies}\n",
            fleet.port.number,
            key(&self.near),
            key(&self.far),
            fleet.path("repository").display(),
            key(&self.near),
            fleet.servers[0].url(),
        );
        std::fs::write(fleet.path("backupd.toml"), text).unwrap();
    }

    /// Makes a snapshot as a window does, and lets the catalog know.
    fn automated(&self, name: &str) {
        let bucket = self.near.bucket.as_ref().unwrap();
        let RepositoryUrl::Bucket(url) = self.near.url.parse().unwrap() else {
            panic!("{} is no bucket", self.near.url)
        };
        let credentials = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "tests");
        let store: Arc<dyn Store> = Arc::new(block_on(S3Store::open(&url, Some(credentials))).unwrap());
        let keys = Keys::Keyring(Keyring::read(&self.near.path("keys.json")).unwrap());
        automated_into(store, keys, ("c0", &self.fleet.servers[0]), name);
        self.fleet.cli.run(&["catalog", "rebuild"]).ok();
    }

    /// Waits until a repository has just these snapshots.
    fn wait(&self, repository: &str, names: &[&str]) {
        wait_for(&format!("{names:?} in {repository}"), LIMIT, || {
            let listed = self.fleet.cli.run(&["snapshot", "list", "--repository", repository, "-o", "json"]);
            let listed = if listed.code == Some(0) { listed.json() } else { Value::Null };
            let available = listed["snapshots"].as_array().cloned().unwrap_or_default();
            let mut found: Vec<String> = available.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            found.sort();
            if found == names { Ok(()) } else { Err(format!("{found:?} {:?}", self.fleet.events())) }
        });
    }

    fn lag(&self, to: &str) -> Option<f64> {
        let (_, text) = get(self.fleet.port.number, "/metrics").ok()?;
        let name = format!("backupd_copy_lag_seconds{{cluster=\"c0\",to=\"{to}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok())
    }
}

#[test]
fn snapshots_are_copied_once_available_and_kept_by_the_rules_of_their_destination() {
    let regions = Regions::new();
    let fleet = &regions.fleet;
    std::fs::create_dir(fleet.path("repository")).unwrap();
    regions.configure(
        &regions.near.url,
        &regions.far.url,
        "[{ to = \"far\", retention = { keep_last = 1 } }, { to = \"shelf\", manual = true }]",
    );
    for name in ["a1", "a2", "a3"] {
        regions.automated(name);
    }
    let daemon = fleet.daemon();
    // only the newest would be kept in the other region; the shelf has the rules of the cluster
    regions.wait("far", &["a3"]);
    regions.wait("shelf", &["a1", "a2", "a3"]);
    let job = fleet.ask("c0", "by-hand");
    fleet.wait_job(&job, &["succeeded"]);
    regions.wait("shelf", &["a1", "a2", "a3", "by-hand"]);
    wait_for("no lag", LIMIT, || match (regions.lag("far"), regions.lag("shelf")) {
        (Some(0.0), Some(0.0)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let source = |repository: &str, name: &str| {
        let listed = fleet.json(&["snapshot", "list", "--repository", repository]);
        let listed = listed["snapshots"].as_array().unwrap().clone();
        listed.into_iter().find(|one| one["name"] == name).unwrap()["source"].clone()
    };
    assert_eq!((source("far", "a3"), source("shelf", "by-hand")), ("automated".into(), "manual".into()));
    let copied = fleet.codes().iter().filter(|code| *code == "snapshot.copied").count();
    assert_eq!(copied, 5, "{:?}", fleet.events());

    // the next one comes, and the one before it may go there, though its original is kept
    regions.automated("a4");
    regions.wait("far", &["a3", "a4"]);
    let verdict = |repository: &str, name: &str| {
        let plan = verdicts(&fleet.json(&["retention", "plan", "--repository", repository]));
        plan.into_iter().find(|(of, ..)| of == name).unwrap().1
    };
    assert!(matches!(verdict("far", "a3").as_str(), "mark" | "wait"), "{}", verdict("far", "a3"));
    assert_eq!((verdict("far", "a4"), verdict("near", "a3")), ("keep".to_owned(), "keep".to_owned()));
    // what somebody deletes there stays deleted
    fleet.cli.run(&["snapshot", "delete", "a4", "--repository", "far"]).ok();
    regions.automated("a5");
    regions.wait("far", &["a3", "a5"]);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    fleet.cli.run(&["snapshot", "verify", "a5", "--repository", "far"]).ok();
}

#[test]
fn a_daemon_that_dies_in_a_copy_leaves_it_to_the_next() {
    let regions = Regions::new();
    let fleet = &regions.fleet;
    let endpoint = &regions.far.bucket.as_ref().unwrap().endpoint;
    let proxy = Faulty::start(endpoint, first(1, |operation| operation == Operation::Manifest, Fault::Stall));
    regions.configure(&regions.near.url, &regions.far.url_through(&proxy.endpoint), "[{ to = \"far\" }]");
    regions.automated("a1");
    let mut daemon = fleet.daemon();
    wait_for("the copy to stand still", LIMIT, || match proxy.struck().len() {
        1 => Ok(()),
        _ => Err(format!("{:?}", fleet.events())),
    });
    wait_for("the lag", LIMIT, || match regions.lag("far") {
        Some(lag) if lag > 0.0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    daemon.running.kill();
    assert!(regions.far.list().iter().all(|(_, status)| status != "available"));
    let daemon = fleet.daemon();
    regions.wait("far", &["a1"]);
    fleet.wait_event("job.lost");
    fleet.wait_event("snapshot.copied");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    regions.far.json(&["snapshot", "verify", "a1"]);
}

/// Lets so many writes pass and stalls the next one.
#[derive(Debug, Default)]
struct Plan {
    passing: Option<usize>,
    struck: Option<Operation>,
}

#[test]
fn a_daemon_that_dies_at_any_write_of_a_copy_leaves_it_to_the_next_which_makes_it_once() {
    let regions = Regions::new();
    let fleet = &regions.fleet;
    let plan = Arc::new(Mutex::new(Plan::default()));
    let proxies = [&regions.near, &regions.far].map(|side| {
        let plan = Arc::clone(&plan);
        Faulty::start(&side.bucket.as_ref().unwrap().endpoint, move |operation| {
            let mut plan = plan.lock().unwrap();
            let passing = plan.passing.filter(|_| operation.is_write())?;
            plan.passing = passing.checked_sub(1);
            plan.struck = (passing == 0).then_some(operation);
            plan.struck.map(|_| Fault::Stall)
        })
    });
    let copies = "[{ to = \"far\", retention = { keep_last = 50 } }]";
    let [near, far] = [(&regions.near, &proxies[0]), (&regions.far, &proxies[1])]
        .map(|(side, proxy)| side.url_through(&proxy.endpoint));
    regions.configure(&near, &far, copies);
    let copied = || fleet.codes().iter().filter(|code| *code == "snapshot.copied").count();
    let (mut names, mut struck) = (Vec::new(), Vec::new());
    for number in 0.. {
        names.push(format!("a{number:02}"));
        let name = names.last().unwrap();
        regions.automated(name);
        *plan.lock().unwrap() = Plan { passing: Some(number), struck: None };
        let mut daemon = fleet.daemon();
        wait_for("the write, or the copy", LIMIT, || match plan.lock().unwrap().struck {
            Some(_) => Ok(()),
            None if copied() > number => Ok(()),
            None => Err(format!("{:?}", fleet.events())),
        });
        let operation = std::mem::take(&mut *plan.lock().unwrap()).struck;
        if operation.is_some() {
            daemon.running.kill();
            daemon = fleet.daemon();
        }
        regions.wait("far", &names.iter().map(String::as_str).collect::<Vec<_>>());
        wait_for("the event", LIMIT, || match copied() {
            count if count == number + 1 => Ok(()),
            count => Err(format!("{count} of {}, killed at {operation:?}: {:?}", number + 1, fleet.events())),
        });
        daemon.running.signal("TERM");
        daemon.wait(LIMIT).ok();
        let out = regions.far.path(&format!("out-{number}"));
        regions.far.json(&["restore", name, "--out", out.to_str().unwrap()]);
        let objects = regions.far.bucket.as_ref().unwrap().list("");
        assert_eq!(objects.iter().filter(|(key, _)| key.ends_with(".bkd")).count(), names.len(), "{operation:?}");
        match operation {
            Some(operation) => struck.push(operation),
            None => break,
        }
    }
    // leases on both sides, claim, object, wrap, two facts, manifest, and the ends of both leases
    assert!(struck.len() >= 10 && struck.contains(&Operation::Manifest), "{struck:?}");
    println!("killed at {struck:?}");
}
