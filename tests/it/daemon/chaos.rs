//! Three daemons on one PostgreSQL, killed again and again while windows are due every minute and snapshots are asked for.
//!
//! The shortest form runs with the other tests. The long one is a command, see docs/daemon.md:
//! `BACKUPD_KILLS=500 BACKUPD_CLUSTERS=20 BACKUPD_SEED=1 cargo nextest run -p backupd --run-ignored only -E 'test(killed_many_times)'`.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::{Fleet, LIMIT, postgres};
use crate::fixture::files_below;
use crate::harness::cli::Spawned;
use crate::harness::cluster::Cluster;
use crate::harness::keyspace::{Keyspace, Random};
use crate::harness::postgres::Postgres;
use crate::harness::process::wait_for;

const DAEMON: &str = "lease = \"2s\"\nstop_wait = \"0s\"\njobs = 8\njobs_per_repository = 40\njobs_per_host = 40\n";

#[test]
fn a_window_fires_once_while_daemons_are_killed() {
    chaos(1, 3, 7, LIMIT);
}

#[test]
#[ignore = "takes an hour or more: see docs/daemon.md"]
fn windows_fire_once_while_daemons_are_killed_many_times() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let clusters = usize::try_from(number("BACKUPD_CLUSTERS", 20)).unwrap();
    chaos(clusters, number("BACKUPD_KILLS", 500), number("BACKUPD_SEED", 1), Duration::from_secs(4 * 3600));
}

/// Where a daemon is killed: when a job has just begun this step, or at any moment.
const MARKS: [&str; 6] = ["claim", "capture", "record", "finish", "lease-lost", ""];

fn chaos(clusters: usize, kills: u64, seed: u64, limit: Duration) {
    let server = Postgres::start();
    let database = server.database();
    let window = "window = \"* * * * * for 1m\"";
    let mut fleet = Fleet::new(clusters, &postgres(&server, &database), DAEMON, window);
    // and one of three shards, which the daemons share
    let sharded = Cluster::start(3, 0);
    Keyspace::new(3, 300).load(&sharded.nodes());
    let section = |more: &str| {
        let sources = format!("sources = [\"{}\"]", sharded.url());
        format!("[clusters.sharded]\n{sources}\nrepository = \"main\"\nprimary = \"fallback\"\n{more}\n")
    };
    fleet.sections = section(window);
    fleet.configure(&postgres(&server, &database), DAEMON, window);
    let mut random = Random::new(seed);
    let mut daemons: Vec<Spawned> = (0..3).map(|_| fleet.daemon()).collect();
    let (began, mut killed): (_, BTreeMap<&str, u64>) = (Instant::now(), BTreeMap::new());
    let fired = || -> u64 {
        let query = "SELECT COUNT(*) FROM windows_fired WHERE outcome = 'fired'";
        server.psql(&database, query).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    wait_for("the first window", LIMIT, || if fired() > 0 { Ok(()) } else { Err(String::new()) });
    for kill in 0..kills {
        // so that there are steps to die at, whenever the next window is
        let cluster = match random.below(clusters as u64 + 1) {
            0 => "sharded".to_owned(),
            number => format!("c{}", number - 1),
        };
        let ask = || drop(fleet.ask(&cluster, &format!("asked-{kill}")));
        let mark = MARKS[usize::try_from(random.below(MARKS.len() as u64)).unwrap()];
        let victim = victim(&server, &database, mark, &mut random, ask);
        let number = victim.map_or_else(
            || usize::try_from(random.below(3)).unwrap(),
            |pid| daemons.iter().position(|daemon| daemon.running.child.id() == pid).unwrap_or(0),
        );
        *killed.entry(if victim.is_some() { mark } else { "any moment" }).or_default() += 1;
        daemons[number].running.kill();
        daemons[number] = fleet.daemon();
        assert!(began.elapsed() < limit, "{kill} of {kills} kills after {limit:?}");
    }
    // in peace, what was begun is ended
    fleet.sections = section("snapshot_retention_limit = 0");
    fleet.configure(&postgres(&server, &database), DAEMON, "snapshot_retention_limit = 0");
    // not by `event list`, which shows the newest ones only
    let started = || -> u64 {
        let query = "SELECT COUNT(*) FROM events WHERE code = 'daemon.started'";
        server.psql(&database, query).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let before = started();
    let restart = |mut daemon: Spawned| {
        daemon.running.kill();
        fleet.daemon()
    };
    daemons = daemons.into_iter().map(restart).collect();
    // a signal before they listen to signals would end them
    wait_for("three daemons", LIMIT, || if started() >= before + 3 { Ok(()) } else { Err(String::new()) });
    wait_for("all jobs to end", LIMIT.max(Duration::from_secs(600)), || {
        let open = fleet.json(&["job", "list", "--open"])["jobs"].as_array().unwrap().clone();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    });
    daemons.iter().for_each(|daemon| daemon.running.signal("TERM"));
    daemons.into_iter().for_each(|daemon| drop(daemon.wait(LIMIT).ok()));
    println!("seed {seed}, {clusters} clusters, kills: {killed:?}, {:?}", began.elapsed());
    account_for_every_window(&fleet, &server, &database, kills);
}

/// Asks for a snapshot, waits for a mark of any job to appear, and gives the process that set it; `None` for any moment.
fn victim(server: &Postgres, database: &str, mark: &str, random: &mut Random, ask: impl FnOnce()) -> Option<u32> {
    let last = "SELECT COALESCE(MAX(at_ms), 0) FROM job_steps";
    let since = server.psql(database, last).unwrap();
    ask();
    if mark.is_empty() {
        thread::sleep(Duration::from_millis(random.below(1500)));
        return None;
    }
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        let query = format!(
            "SELECT worker FROM job_steps WHERE event = '{mark}' AND at_ms > {since} AND worker <> '' ORDER BY at_ms LIMIT 1"
        );
        match server.psql(database, &query) {
            Ok(worker) if !worker.is_empty() => return worker.split(':').nth(1).and_then(|pid| pid.parse().ok()),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

fn account_for_every_window(fleet: &Fleet, server: &Postgres, database: &str, kills: u64) {
    let query = |text: &str| server.psql(database, text).unwrap();
    let none = |text: &str, what: &str| assert_eq!(query(text), "", "{what}");
    let count = |text: &str| query(text).parse::<u64>().unwrap();
    let windows = count("SELECT COUNT(*) FROM windows_fired WHERE outcome <> 'missed'");
    assert!(windows > 0);
    // every window that fired has one job, and every job of a window has its window
    none(
        "SELECT w.cluster, w.occurrence_ms FROM windows_fired w LEFT JOIN jobs j ON j.job_id = w.job_id AND j.cluster = w.cluster
         WHERE w.outcome <> 'missed' AND (j.state IS NULL OR j.state NOT IN ('succeeded', 'failed'))",
        "a window without a job that ended",
    );
    assert_eq!(count("SELECT COUNT(*) FROM jobs WHERE source = 'automated'"), windows);
    assert_eq!(count("SELECT COUNT(*) FROM jobs WHERE source = 'manual'"), kills);
    none(
        "SELECT cluster, snapshot_name FROM jobs WHERE kind = 'backup' GROUP BY 1, 2 HAVING COUNT(*) > 1",
        "a window fired twice",
    );
    none(
        "SELECT cluster, occurrence_ms FROM (SELECT cluster, occurrence_ms, LEAD(occurrence_ms) OVER
         (PARTITION BY cluster ORDER BY occurrence_ms) AS next FROM windows_fired) t WHERE next - occurrence_ms > 60000",
        "an occurrence was decided by nobody",
    );
    none("SELECT job_id FROM jobs WHERE state NOT IN ('succeeded', 'failed')", "a job or its lease is stuck");
    none(
        "SELECT j.job_id, j.reason FROM jobs j WHERE j.state = 'failed' AND (j.reason = '' OR NOT EXISTS
         (SELECT 1 FROM events e WHERE e.job_id = j.job_id AND e.severity = 'error'))",
        "a failure without its reason and event",
    );
    // only what died as often as may be, or found no worker in its window, may fail here
    none(
        "SELECT job_id, reason FROM jobs WHERE state = 'failed' AND attempts < 4 AND started_ms IS NOT NULL",
        "a job failed that was not killed four times",
    );
    let failed = query("SELECT reason || ': ' || COUNT(*) FROM jobs WHERE state = 'failed' GROUP BY reason");

    // what is shown as available is just what succeeded, or was published by an attempt that was the last, and restores
    let mut names = fleet.snapshots();
    names.sort();
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let succeeded = sorted(query("SELECT snapshot_name FROM jobs WHERE kind = 'backup' AND state = 'succeeded'"));
    let killed = sorted(query("SELECT snapshot_name FROM jobs WHERE state = 'failed' AND attempts > 4"));
    assert!(!succeeded.is_empty());
    let unexpected: Vec<&String> =
        names.iter().filter(|name| !succeeded.contains(name) && !killed.contains(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?} are there without a job that made them");
    let missing: Vec<&String> = succeeded.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} succeeded and are not there");
    let mut once = names.clone();
    once.dedup();
    assert_eq!(once.len(), names.len(), "a name is there twice");
    for name in &names {
        fleet.cli.run(&["snapshot", "verify", name]).ok();
    }
    // who only looked what the last attempt left may have been killed, too; then the daemons note it within the hour, as this does
    let unnoted: Vec<&String> = names.iter().filter(|name| killed.contains(name)).collect();
    if !unnoted.is_empty() {
        fleet.cli.run(&["catalog", "rebuild"]).ok();
    }
    let missed = query("SELECT COUNT(*) FROM windows_fired WHERE outcome = 'missed'");
    let shared = count("SELECT COUNT(*) FROM job_steps WHERE event = 'shared'");
    println!("shards read by other workers: {shared}");
    none("SELECT job_id FROM shard_offers", "an offer stays though all jobs have ended");
    println!(
        "windows fired {windows}, missed with an event {missed}, asked for {kills}, snapshots {}, of failed jobs {}, failed jobs: {failed:?}",
        names.len(),
        unnoted.len()
    );

    nothing_leaks(fleet);
}

fn nothing_leaks(fleet: &Fleet) {
    // gc finds all that is left, and then nothing; it waits ten minutes before it takes a file for abandoned
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    for path in files_below(&fleet.path("repository")) {
        if path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-") {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    fleet.cli.run(&["gc", "apply", "--older-than", "0s"]).ok();
    let left: Value = fleet.json(&["gc", "plan", "--older-than", "0s"]);
    assert_eq!(left["removes"].as_array().map(Vec::len), Some(0), "{left}");
    assert_eq!(left["keeps"].as_array().map(Vec::len), Some(0), "{left}");
    fleet.cli.run(&["catalog", "check"]).ok();
}
