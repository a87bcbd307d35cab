//! What schedulers decide, and when nobody does it: late backups, verification, a store that does not answer.

use std::net::TcpListener;

use serde_json::Value;

use super::{Fleet, LIMIT, sqlite};
use crate::harness::process::wait_for;

fn append(fleet: &Fleet, more: &str) {
    let path = fleet.path("backupd.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text + more).unwrap();
}

#[test]
fn a_backup_that_finds_no_worker_is_missed_after_its_window_or_waits_for_the_next() {
    let fleet = Fleet::new(2, &sqlite(), "", "window = \"*/2 * * * * for 1m\"");
    // of the last one
    append(&fleet, "missed = \"catch-up\"\n");
    let daemon = fleet.cli.spawn(&["serve", "--roles", "scheduler"]);
    let missed = wait_for("the window to pass", LIMIT * 2, || {
        let events = fleet.events();
        events.into_iter().find(|it| it["code"] == "window.missed").ok_or_else(|| format!("{:?}", fleet.codes()))
    });
    assert!(
        missed["cluster"] == "c0" && missed["message"].as_str().unwrap().contains("no worker had room"),
        "{missed}"
    );
    let failed = fleet.job(missed["job_id"].as_str().unwrap());
    assert_eq!((failed["state"].as_str(), failed["source"].as_str()), (Some("failed"), Some("automated")));
    assert_eq!(fleet.json(&["cluster", "show", "c0"])["cluster"]["last_outcome"], "failed");
    // what is caught up waits for its turn as long as the next window has not begun
    let open = fleet.json(&["job", "list", "--open"])["jobs"].as_array().unwrap().clone();
    let waiting = open.iter().find(|job| job["cluster"] == "c1").unwrap();
    let by = |job: &Value| job["start_by_ms"].as_u64().unwrap();
    assert_eq!((waiting["state"].as_str(), by(waiting)), (Some("queued"), by(&failed) + 60_000));
    // a worker that comes now does it
    let worker = fleet.cli.spawn(&["serve", "--roles", "worker"]);
    fleet.wait_job(waiting["job_id"].as_str().unwrap(), &["succeeded"]);
    for daemon in [daemon, worker] {
        daemon.running.signal("TERM");
        daemon.wait(LIMIT * 3).ok();
    }
}

#[test]
fn a_store_that_does_not_answer_delays_no_window_and_no_end() {
    let fleet = Fleet::new(1, &sqlite(), "", "window = \"* * * * * for 1m\"");
    // connections are taken, and nothing is ever said
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("s3://bucket/p?endpoint=http://{}", silent.local_addr().unwrap());
    append(&fleet, &format!("[repositories.away]\nurl = \"{url}\"\nno_encryption = true\n"));
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")];
    let daemon = fleet.cli.clone().envs(keys).spawn(&["serve", "--roles", "scheduler"]);
    fleet.wait_event("window.fired");
    daemon.running.signal("TERM");
    let ended = daemon.wait(LIMIT * 2).ok();
    // it was in the middle of looking for leftovers all the time
    assert!(!ended.stderr.contains("leftovers could not be looked for"), "{ended}");
}

#[test]
fn verification_asks_for_the_newest_snapshot_that_lies_where_the_cluster_s_go() {
    let fleet = Fleet::new(1, &sqlite(), "", "snapshot_retention_limit = 0");
    let other =
        format!("[repositories.other]\nurl = \"file://{}\"\nno_encryption = true\n", fleet.path("other").display());
    append(&fleet, &other);
    let daemon = fleet.daemon();
    fleet.wait_event("cluster.registered");
    fleet.wait_job(&fleet.ask("c0", "one"), &["succeeded"]);
    // the copy bears another name, and no snapshot of it is in the repository of the cluster
    fleet.cli.run(&["snapshot", "copy", "one", "--repository", "main", "--to", "other", "--name", "two"]).ok();
    fleet.configure(&sqlite(), "", "snapshot_retention_limit = 0\nverify = \"read daily\"");
    append(&fleet, &other);
    daemon.running.signal("HUP");
    let verified = fleet.wait_event("verify.succeeded");
    assert_eq!(verified["snapshot_name"], "one");
    let shown = fleet.json(&["snapshot", "show", "one", "--repository", "main"]);
    assert!(shown["facts"].to_string().contains("verified"), "{shown}");
    let cluster = fleet.json(&["cluster", "show", "c0"])["cluster"].clone();
    assert!(cluster["last_verified_ms"].as_u64() >= cluster["last_success_ms"].as_u64(), "{cluster}");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT * 2).ok();
    let asked = fleet.json(&["job", "list"])["jobs"].as_array().unwrap().clone();
    assert_eq!(asked.iter().filter(|job| job["kind"] == "verify").count(), 1, "once a day: {asked:?}");
}
