//! The life of a daemon: jobs from the command line, cancelling, ending, reloading, what it answers over HTTP.

use backupd::config::Config;
use backupd::jobs::submit;
use policies::job::Kind;

use super::{Fleet, LIMIT, get, sqlite};
use crate::harness::postgres::Postgres;
use crate::harness::process::wait_for;
use crate::harness::s3::block_on;

const SHORT: &str = "lease = \"2s\"\nstop_wait = \"0s\"\njobs = 4\njobs_per_host = 8\n";

fn off() -> &'static str {
    "snapshot_retention_limit = 0"
}

fn with_port(fleet: &Fleet, catalog: &str, more: &str) {
    let daemon = format!("{SHORT}listen = \"127.0.0.1:{}\"\n", fleet.port.number);
    fleet.configure(catalog, &daemon, more);
}

#[test]
fn jobs_run_are_canceled_and_handed_back_on_sqlite() {
    jobs_run_are_canceled_and_handed_back(&sqlite());
}

#[test]
fn jobs_run_are_canceled_and_handed_back_on_postgres() {
    let server = Postgres::start();
    jobs_run_are_canceled_and_handed_back(&super::postgres(&server, &server.database()));
}

fn jobs_run_are_canceled_and_handed_back(catalog: &str) {
    let fleet = Fleet::new(2, catalog, SHORT, off());
    with_port(&fleet, catalog, off());
    // a job that waits is canceled at once, without any daemon
    let waiting = fleet.ask("c0", "never");
    fleet.cli.run(&["job", "cancel", &waiting]).ok();
    assert_eq!(fleet.job(&waiting)["state"], "canceled");
    fleet.cli.run(&["job", "cancel", &waiting]).exits(18);

    let mut daemon = fleet.daemon();
    let made = fleet.wait_job(&fleet.ask("c0", "one"), &["succeeded", "failed"]);
    assert_eq!(made["state"], "succeeded", "{made}");
    assert_eq!(fleet.snapshots(), ["one"]);
    fleet.cli.run(&["catalog", "check"]).ok();

    // a job that runs stops when it is told to, and leaves nothing
    fleet.servers[1].pause();
    let running = fleet.ask("c1", "stopped");
    fleet.wait_step(&running, "capture");
    fleet.cli.run(&["job", "cancel", &running]).ok();
    fleet.wait_job(&running, &["canceled"]);

    // one that runs when the daemon ends is handed back, and the next daemon does it
    let handed = fleet.ask("c1", "handed");
    fleet.wait_step(&handed, "capture");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    let back = fleet.job(&handed);
    assert_eq!((back["state"].as_str(), back["attempts"].as_u64()), (Some("queued"), Some(0)), "{back}");
    fleet.servers[1].resume();
    daemon = fleet.daemon();
    fleet.wait_job(&handed, &["succeeded"]);
    assert_eq!(fleet.snapshots(), ["one", "handed"]);
    let gc = fleet.json(&["gc", "plan", "--older-than", "0s"]);
    assert_eq!(gc["removes"].as_array().map(Vec::len), Some(0), "{gc}");

    answers_over_http(&fleet);
    a_configuration_is_taken_over_only_when_it_is_right(&fleet, catalog, &daemon);
    removal_takes_a_final_snapshot_first(&fleet);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    let codes = fleet.codes();
    for code in ["daemon.started", "daemon.stopped", "backup.succeeded", "job.canceled", "job.handed-back"] {
        assert!(codes.iter().any(|known| known == code), "{code}: {codes:?}");
    }
    fleet.cli.run(&["event", "audit"]).ok();
}

fn answers_over_http(fleet: &Fleet) {
    let port = fleet.port.number;
    wait_for("health", LIMIT, || get(port, "/healthz").and_then(|it| if it.0 == 200 { Ok(()) } else { Err(it.1) }));
    assert_eq!(get(port, "/readyz").unwrap().0, 200);
    let (status, text) = get(port, "/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("backupd_backup_attempts_total{cluster=\"c1\",result=\"success\",class=\"\"} 1"), "{text}");
    assert!(text.contains("backupd_catalog_up 1"), "{text}");
    // names are part of what users rely on: docs/daemon.md has each of them
    let documented = include_str!("../../../backupd/docs/daemon.md");
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<&str> = names.filter(|name| !documented.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "docs/daemon.md does not name {missing:?}");
    // what a backup into a folder leaves
    for line in [
        "backupd_shard_capture_seconds_count{cluster=\"c1\"} 1",
        "backupd_source_cow_bytes{cluster=\"c1\"} ",
        "backupd_source_lag_bytes{cluster=\"c1\"} 0.0",
        "backupd_backups_count{state=\"available\"} 2",
        "backupd_backups_count{state=\"verified\"} 0",
        "backupd_stall_seconds_total{side=\"source\"} ",
        "backupd_catalog_drift_objects 0",
        "backupd_leases_held ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

fn a_configuration_is_taken_over_only_when_it_is_right(
    fleet: &Fleet,
    catalog: &str,
    daemon: &crate::harness::cli::Spawned,
) {
    std::fs::write(fleet.path("wrong.toml"), "").unwrap();
    let right = std::fs::read_to_string(fleet.path("backupd.toml")).unwrap();
    // the command line needs a right one, too: it is looked at through a copy
    std::fs::write(fleet.path("copy.toml"), &right).unwrap();
    std::fs::write(fleet.path("backupd.toml"), format!("{right}\nnonsense = 1\n")).unwrap();
    daemon.running.signal("HUP");
    let copy = fleet.path("copy.toml");
    let events = || {
        let listed = fleet.cli.json(&["event", "list", "-o", "json", "--config", copy.to_str().unwrap()]);
        listed["events"].as_array().unwrap().clone()
    };
    wait_for("the refusal", LIMIT, || {
        let refused = |event: &serde_json::Value| {
            event["code"] == "config.refused" && event["message"].as_str().unwrap().contains("nonsense")
        };
        if events().iter().any(refused) { Ok(()) } else { Err(format!("{:?}", events())) }
    });
    with_port(fleet, catalog, "snapshot_retention_limit = 3\nwindow = \"03:00-05:00\"");
    daemon.running.signal("HUP");
    let reloaded = fleet.wait_event("config.reloaded");
    assert!(reloaded["message"].as_str().unwrap().contains("c0"), "{reloaded}");
    wait_for("the window", LIMIT, || {
        let shown = fleet.json(&["cluster", "show", "c0"]);
        let window = shown["cluster"]["window"].as_str().unwrap().to_owned();
        if window == "03:00-05:00" { Ok(()) } else { Err(window) }
    });
}

fn removal_takes_a_final_snapshot_first(fleet: &Fleet) {
    // a name that is taken: nothing is removed
    fleet.cli.run(&["cluster", "remove", "c0", "--final-snapshot", "one"]).exits(18);
    assert_eq!(fleet.json(&["cluster", "show", "c0"])["cluster"]["status"], "registered");
    fleet.cli.run(&["cluster", "remove", "c0", "--final-snapshot", "last"]).ok();
    let shown = fleet.json(&["snapshot", "show", "last"]);
    assert_eq!((shown["source"].as_str(), shown["status"].as_str()), (Some("final"), Some("available")));
    let facts = shown["facts"].to_string();
    assert!(facts.contains("verified"), "it was verified before the cluster went: {shown}");
    assert_eq!(fleet.json(&["cluster", "show", "c0"])["cluster"]["status"], "removed");
    fleet.cli.run(&["snapshot", "verify", "last"]).ok();
    fleet.cli.run(&["cluster", "remove", "nobody"]).exits(10);
    // it may come back: with what it had, and new snapshots beside them
    fleet.cli.run(&["cluster", "register", "nobody"]).exits(10);
    fleet.cli.run(&["cluster", "register", "c0"]).ok();
    fleet.cli.run(&["cluster", "register", "c0"]).exits(18);
    assert_eq!(fleet.json(&["cluster", "show", "c0"])["cluster"]["status"], "registered");
    fleet.wait_job(&fleet.ask("c0", "back"), &["succeeded"]);
    let names = fleet.snapshots();
    assert!(["one", "last", "back"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
}

#[test]
fn what_was_asked_for_and_is_not_understood_is_not_guessed_at() {
    let fleet = Fleet::new(1, &sqlite(), SHORT, off());
    let now_ms = block_on(fleet.catalog().now_unix_ms()).unwrap();
    let config = Config::load(Some(&fleet.path("backupd.toml"))).unwrap();
    let add = |kind, name: &str, parameters: &str| {
        let mut new = submit::job(&config, kind, "c0", name, now_ms).unwrap();
        parameters.clone_into(&mut new.parameters);
        block_on(fleet.catalog().add_job(&new, &[], now_ms)).unwrap();
        new.job_id
    };
    let removal = add(Kind::Remove, "last", r#"{"who":"me","final_snapshot":true,"of_a_later_version":1}"#);
    let backup = add(Kind::Backup, "one", r#"{"of_a_later_version":1}"#);
    let daemon = fleet.daemon();
    for id in [removal, backup] {
        let failed = fleet.wait_job(&id, &["succeeded", "failed"]);
        assert_eq!((failed["state"].as_str(), failed["class"].as_str()), (Some("failed"), Some("version")), "{failed}");
    }
    assert_eq!(fleet.json(&["cluster", "show", "c0"])["cluster"]["status"], "registered");
    assert!(fleet.snapshots().is_empty());
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
}

#[test]
fn a_daemon_that_ends_says_so_until_its_work_has_ended() {
    let fleet = Fleet::new(1, &sqlite(), SHORT, off());
    let daemon = format!("lease = \"2s\"\nstop_wait = \"5m\"\nlisten = \"127.0.0.1:{}\"\n", fleet.port.number);
    fleet.configure(&sqlite(), &daemon, off());
    let daemon = fleet.daemon();
    fleet.servers[0].pause();
    let running = fleet.ask("c0", "one");
    fleet.wait_step(&running, "capture");
    daemon.running.signal("TERM");
    wait_for("readiness to end", LIMIT, || match get(fleet.port.number, "/readyz") {
        Ok((503, text)) if text.contains("ending") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(get(fleet.port.number, "/healthz").unwrap().0, 200, "it lives as long as its work");
    fleet.servers[0].resume();
    daemon.wait(LIMIT * 2).ok();
    assert_eq!(fleet.job(&running)["state"], "succeeded");
}

#[test]
fn a_window_begins_a_backup_and_its_snapshot_is_named_for_it() {
    let fleet = Fleet::new(1, &sqlite(), SHORT, "window = \"* * * * * for 1m\"");
    let _daemon = fleet.daemon();
    fleet.wait_event("cluster.registered");
    let made = fleet.wait_event("backup.succeeded");
    let name = made["snapshot_name"].as_str().unwrap();
    let time = name.strip_prefix("automatic.c0-").unwrap();
    assert!(time.len() == 16 && time.chars().all(|c| c.is_ascii_digit() || c == '-'), "{name}");
    assert_eq!(fleet.json(&["snapshot", "show", name])["source"], "automated");
    let listed = fleet.json(&["cluster", "list"]);
    assert_eq!(listed["clusters"][0]["expected_interval_s"], 60);
    assert_eq!(listed["clusters"][0]["last_outcome"], "succeeded");
}

#[test]
fn a_daemon_does_not_listen_where_others_reach_it() {
    let fleet = Fleet::new(0, &sqlite(), "listen = \"0.0.0.0:0\"", "");
    fleet.cli.run(&["serve"]).exits(19).says("nothing here asks who they are");
    let text = fleet.cli.run(&["config", "default"]).ok().stdout;
    std::fs::write(fleet.path("backupd.toml"), text).unwrap();
    // it is read as it stands, and has no cluster yet
    fleet.cli.run(&["check"]).exits(2).says("has no cluster");
}

#[test]
fn clusters_are_read_as_their_section_says() {
    let more = format!("{}\nmethod = \"bgsave\"", off());
    let fleet = Fleet::new(1, &sqlite(), SHORT, &more);
    let daemon = fleet.daemon();
    let saved_before = fleet.servers[0].info("rdb_last_save_time");
    let made = fleet.wait_job(&fleet.ask("c0", "one"), &["succeeded", "failed"]);
    assert_eq!(made["state"], "succeeded", "{made}");
    assert_eq!(fleet.json(&["snapshot", "show", "one"])["method"], "bgsave");
    assert!(fleet.servers[0].info("rdb_last_save_time") > saved_before);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    // a flag comes before the section, and is nothing that a job of the daemon could be told
    let other = fleet.json(&["snapshot", "create", "c0", "--name", "two", "--method", "stream-disk"]);
    assert_eq!(other["method"], "stream-disk");
    fleet.cli.run(&["snapshot", "create", "c0", "--no-wait", "--method", "stream"]).exits(2).says("--no-wait");
}

#[test]
fn a_job_that_takes_too_long_fails_and_leaves_nothing() {
    let fleet = Fleet::new(1, &sqlite(), &format!("{SHORT}job_time_max = \"3s\"\n"), off());
    let daemon = fleet.daemon();
    fleet.servers[0].pause();
    let failed = fleet.wait_job(&fleet.ask("c0", "one"), &["failed", "succeeded"]);
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("job_time_max"), "{failed}");
    fleet.servers[0].resume();
    let next = fleet.wait_job(&fleet.ask("c0", "one"), &["failed", "succeeded"]);
    assert_eq!(next["state"], "succeeded", "the name is free, and other jobs are done: {next}");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
}
