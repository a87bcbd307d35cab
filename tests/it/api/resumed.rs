//! Workers that die in the middle of a copy, an export, a keep or a restore: at every write into the bucket that such a job makes.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Served;
use crate::daemon::{Fleet, LIMIT, sqlite};
use crate::harness::cli::Cli;
use crate::harness::faults::{Fault, Faulty, Operation};
use crate::harness::process::wait_for;
use crate::harness::s3::Bucket;
use crate::harness::server::Server;

/// Stalls one write of those that are counted.
#[derive(Debug, Default)]
struct Plan {
    /// So many pass before; `None`: all.
    passing: Option<usize>,
    has_struck: bool,
}

/// A daemon whose bucket stands still when it is told to.
struct Stage {
    served: Served,
    bucket: Bucket,
    pool: Server,
    plan: Arc<Mutex<Plan>>,
    _proxy: Faulty,
}

impl Stage {
    fn new() -> Self {
        let (bucket, pool) = (Bucket::create("resumed"), Server::standalone());
        let plan = Arc::new(Mutex::new(Plan::default()));
        let script = {
            let plan = Arc::clone(&plan);
            move |operation: Operation| {
                let mut plan = plan.lock().unwrap();
                let passing = plan.passing.filter(|_| operation.is_write() && !plan.has_struck)?;
                plan.passing = Some(passing.saturating_sub(1));
                plan.has_struck = passing == 0;
                plan.has_struck.then_some(Fault::Stall)
            }
        };
        let proxy = Faulty::start(&bucket.endpoint, script);
        let url = |prefix: &str| {
            format!("s3://{}/{prefix}?endpoint={}&region={}", bucket.name, proxy.endpoint, bucket.region)
        };
        let more = format!(
            "[repositories.far]\nurl = \"{}\"\nno_encryption = true\n[exports.out]\nurl = \"{}\"\n[targets.pool]\nnodes = [\"{}\"]\n",
            url("far"),
            url("out"),
            pool.address()
        );
        let mut fleet = Fleet::new(1, &sqlite(), "", "");
        fleet.cli = fleet.cli.clone().envs(bucket.envs());
        Self { served: Served::leased(fleet, "2s", "", &more), bucket, pool, plan, _proxy: proxy }
    }

    /// Asks for a job whose worker is killed at write number `n`, from 0: the job when another worker ended it; `None` when it makes no such
    /// write, and so was ended by the first.
    fn dies_at(&mut self, n: usize, path: &str, body: &Value) -> (Value, bool) {
        *self.plan.lock().unwrap() = Plan { passing: Some(n), has_struck: false };
        let answer = self.served.ask_as("admin", "POST", path, body).has(202);
        let location = answer.header("location").unwrap().to_owned();
        let has_struck = wait_for("the write or the end", LIMIT, || {
            let has_struck = self.plan.lock().unwrap().has_struck;
            let job = self.served.get(&location)["job"].clone();
            assert_ne!(job["state"], "failed", "before write {n}: {job}");
            if has_struck || job["state"] == "succeeded" { Ok(has_struck) } else { Err(job.to_string()) }
        });
        if has_struck {
            self.killed();
        }
        let job = self.served.ended(&location);
        assert_eq!(job["state"], "succeeded", "killed at write {n}: {job}");
        assert_eq!(job["attempts"], if has_struck { 2 } else { 1 }, "killed at write {n}: {job}");
        (job, has_struck)
    }

    /// Kills the daemon, and starts another.
    fn killed(&mut self) {
        self.served.daemon.running.kill();
        self.plan.lock().unwrap().passing = None;
        self.served.daemon = self.served.fleet.daemon();
        let port = self.served.port();
        wait_for("the API", LIMIT, || TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string()));
    }

    /// Kills at one write after the other, until there are no more. `check` looks at what became of each.
    fn dies_at_each(
        &mut self,
        path: &str,
        body: impl Fn(usize) -> Value,
        check: impl Fn(&Self, usize, &Value),
    ) -> usize {
        for n in 0.. {
            let (job, has_struck) = self.dies_at(n, path, &body(n));
            check(self, n, &job);
            if !has_struck {
                return n;
            }
        }
        unreachable!("there are only so many writes")
    }

    fn told(&self, code: &str) -> usize {
        self.served.fleet.codes().iter().filter(|known| *known == code).count()
    }
}

#[test]
fn jobs_whose_worker_is_killed_at_any_write_are_done_by_the_next_one() {
    let mut stage = Stage::new();
    stage.served.snapshot("c0", "one");
    let cli = stage.served.fleet.cli.clone();
    let copies = stage.dies_at_each(
        "/v1/snapshots/one/copy",
        |n| {
            // a copy has the place of its snapshot, so there is one at a time
            if let Some(before) = n.checked_sub(1) {
                cli.run(&["snapshot", "delete", &format!("copy-{before}"), "--repository", "far"]).ok();
            }
            json!({"to": "far", "name": format!("copy-{n}")})
        },
        |stage, n, job| {
            assert_eq!(job["result"]["snapshot"], format!("copy-{n}"), "{job}");
            let copy = format!("copy-{n}");
            stage.served.fleet.cli.run(&["snapshot", "verify", &copy, "--repository", "far", "--no-record"]).ok();
        },
    );
    assert!(copies >= 4, "{copies}");
    let copy = format!("copy-{copies}");
    assert_eq!(stage.served.fleet.snapshots_in("far"), [copy.as_str()]);
    assert_eq!(stage.told("snapshot.copied"), copies + 1);

    let rdbtools = Cli::sibling("rdbtools");
    let exports = stage.dies_at_each(
        "/v1/snapshots/one/export",
        |n| json!({"to": "out", "prefix": format!("e{n}")}),
        |stage, n, _| {
            let keys: Vec<String> = stage.bucket.list(&format!("out/e{n}/")).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, [format!("out/e{n}/one-0001.rdb")]);
            let file = stage.served.fleet.path("exported.rdb");
            std::fs::write(&file, stage.bucket.get(&keys[0])).unwrap();
            let told = rdbtools.json(&["verify", file.to_str().unwrap(), "-o", "json"]);
            assert_eq!(told["keys"], 50, "{told}");
        },
    );
    assert!(exports >= 1, "{exports}");
    assert_eq!(stage.bucket.unfinished_uploads(), Vec::<String>::new());

    let (kept, path) = (format!("/v1/snapshots/{copy}/keep"), format!("/v1/snapshots/{copy}"));
    let keeps = stage.dies_at_each(
        &kept,
        |_| Value::Null,
        |stage, _, job| {
            assert_eq!(job["result"]["kept"], true, "{job}");
            let refused = stage.served.job("DELETE", &path, &Value::Null);
            assert_eq!(
                (refused["state"].as_str(), refused["class"].as_str()),
                (Some("failed"), Some("refused")),
                "{refused}"
            );
        },
    );
    assert!(keeps >= 1, "{keeps}");

    let restores = stage.dies_at_each(
        "/v1/restores",
        |n| json!({"snapshot": copy, "target": "pool", "name": format!("r{n}")}),
        |stage, n, job| {
            assert_eq!(job["result"]["keys"], 50, "{n}: {job}");
            let keys: usize = redis::cmd("DBSIZE").query(&mut stage.pool.connect()).unwrap();
            assert_eq!(keys, 50, "{n}");
            stage.pool.run(&["FLUSHALL"]);
        },
    );
    assert!(restores >= 1, "{restores}");
    assert_eq!(stage.told("restore.succeeded"), restores + 1);
    println!("killed at {copies} writes of copies, {exports} of exports, {keeps} of keeps, {restores} of restores");

    // nothing is left that gc does not find, and what there is is known
    cli.run(&["gc", "apply", "--older-than", "0s", "--repository", "far"]).ok();
    let left = cli.json(&["gc", "plan", "--older-than", "0s", "--repository", "far", "-o", "json"]);
    assert_eq!((&left["removes"], &left["unknown"]), (&json!([]), &json!([])), "{left}");
    cli.run(&["catalog", "check"]).ok();
    assert_eq!(stage.served.fleet.snapshots_in("far"), [copy]);
}

#[test]
fn what_is_canceled_or_impossible_after_its_worker_was_killed_ends_with_its_reason_and_leaves_nothing() {
    let mut stage = Stage::new();
    stage.served.snapshot("c0", "one");
    // at the manifest, when all objects are there
    let begin = |stage: &mut Stage, n: usize, path: &str, body: &Value| -> String {
        *stage.plan.lock().unwrap() = Plan { passing: Some(n), has_struck: false };
        let answer = stage.served.ask_as("admin", "POST", path, body).has(202);
        let plan = Arc::clone(&stage.plan);
        wait_for("the write", LIMIT, || if plan.lock().unwrap().has_struck { Ok(()) } else { Err(String::new()) });
        answer.header("location").unwrap().to_owned()
    };
    let location = begin(&mut stage, 3, "/v1/snapshots/one/copy", &json!({"to": "far", "name": "canceled"}));
    stage.served.ask_as("admin", "POST", &format!("{location}/cancel"), &Value::Null).has(202);
    stage.killed();
    let job = stage.served.ended(&location);
    assert_eq!(job["state"], "canceled", "{job}");
    assert!(job["reason"].as_str().unwrap().contains("its worker is gone"), "{job}");

    // while nobody works on it the snapshot is deleted
    let location = begin(&mut stage, 3, "/v1/snapshots/one/copy", &json!({"to": "far", "name": "failed"}));
    stage.served.daemon.running.kill();
    stage.served.fleet.cli.run(&["snapshot", "delete", "one", "--repository", "main"]).ok();
    stage.killed();
    let job = stage.served.ended(&location);
    assert_eq!((job["state"].as_str(), job["class"].as_str()), (Some("failed"), Some("not_found")), "{job}");
    let events = stage.served.fleet.events();
    let told = |event: &Value| event["code"] == "copy.failed" && event["job_id"] == job["job_id"];
    assert!(events.iter().any(told), "{events:?}");
    let cli = &stage.served.fleet.cli;
    cli.run(&["gc", "apply", "--older-than", "0s", "--repository", "far"]).ok();
    let left: Vec<_> = stage.bucket.list("").into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["far/backupd-repository.json"]);
}
