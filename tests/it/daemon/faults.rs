//! The catalog goes away, is cut off, or has no room: nothing is lost, and the messages say what happened.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Fleet, LIMIT, get, postgres};
use crate::harness::mount::Mount;
use crate::harness::postgres::Postgres;
use crate::harness::process::wait_for;

const DAEMON: &str = "lease = \"2s\"\nstop_wait = \"0s\"\njobs_per_host = 8\n";

#[test]
fn a_postgres_that_is_cut_and_stopped_delays_jobs_and_loses_none() {
    cut_and_stopped(Duration::ZERO);
}

#[test]
#[ignore = "two minutes: see docs/daemon.md"]
fn a_postgres_that_is_away_for_two_minutes_delays_jobs_and_loses_none() {
    cut_and_stopped(Duration::from_secs(120));
}

/// `away`: for how long it is stopped beyond the lease of the job.
fn cut_and_stopped(away: Duration) {
    let mut server = Postgres::start();
    let database = server.database();
    let catalog = postgres(&server, &database);
    let fleet = Fleet::new(2, &catalog, DAEMON, "snapshot_retention_limit = 0");
    let listening = format!("{DAEMON}listen = \"127.0.0.1:{}\"\n", fleet.port.number);
    fleet.configure(&catalog, &listening, "snapshot_retention_limit = 0");
    let daemon = fleet.daemon();

    // cut in the middle of a job: it goes on
    fleet.servers[0].pause();
    let cut = fleet.ask("c0", "cut");
    fleet.wait_step(&cut, "capture");
    server.cut(&database);
    fleet.servers[0].resume();
    fleet.wait_job(&cut, &["succeeded"]);

    // stopped for longer than the lease in the middle of a job: it is done when PostgreSQL is back
    fleet.servers[1].pause();
    let stopped = fleet.ask("c1", "stopped");
    fleet.wait_step(&stopped, "capture");
    server.stop();
    wait_for("readiness to end", LIMIT, || match get(fleet.port.number, "/readyz") {
        Ok((503, text)) => Ok(text),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(get(fleet.port.number, "/healthz").unwrap().0, 200, "it lives all the same");
    wait_for("the metric", LIMIT, || match get(fleet.port.number, "/metrics") {
        Ok((200, text)) if text.contains("backupd_catalog_up 0") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    thread::sleep(away);
    fleet.cli.run(&["job", "list"]).exits(16).says("work goes on when it is back");
    fleet.servers[1].resume();
    server.resume();
    fleet.wait_job(&stopped, &["succeeded"]);
    let again = fleet.wait_job(&fleet.ask("c0", "after"), &["succeeded"]);
    assert_eq!(again["attempts"], 1);
    let mut names = fleet.snapshots();
    names.sort();
    assert_eq!(names, ["after", "cut", "stopped"]);
    names.iter().for_each(|name| drop(fleet.cli.run(&["snapshot", "verify", name]).ok()));
    daemon.running.signal("TERM");
    let log = daemon.wait(LIMIT).ok().stderr;
    assert!(log.contains("the catalog does not answer") && log.contains("the catalog answers again"), "{log}");
}

/// Takes all the room that there is in a folder.
fn fill(folder: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("filler")).unwrap();
    for size in [64 << 10, 1024, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_under_sqlite_stops_nothing_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let _small = Mount::small(folder.path(), "2m");
    let catalog = format!("path = \"{}\"", folder.path().join("catalog.sqlite").display());
    let fleet = Fleet::new(1, &catalog, DAEMON, "snapshot_retention_limit = 0");
    let daemon = fleet.daemon();
    fleet.wait_job(&fleet.ask("c0", "before"), &["succeeded"]);
    fleet.servers[0].pause();
    let running = fleet.ask("c0", "during");
    fleet.wait_step(&running, "capture");
    fill(folder.path());
    fleet.servers[0].resume();
    let refused = wait_for("the refusal", LIMIT, || {
        let asked = fleet.cli.run(&["snapshot", "create", "c0", "--name", "refused", "--no-wait"]);
        if asked.code == Some(16) { Ok(asked) } else { Err(asked.to_string()) }
    });
    assert!(refused.stderr.contains("disk is full"), "{refused}");
    // without the catalog a snapshot can still be made, and says what was not noted
    fleet.cli.run(&["snapshot", "create", "c0", "--name", "by-hand"]).ok().says("catalog");
    std::fs::remove_file(folder.path().join("filler")).unwrap();
    fleet.wait_job(&running, &["succeeded"]);
    fleet.wait_job(&fleet.ask("c0", "after"), &["succeeded"]);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    fleet.cli.run(&["catalog", "rebuild"]).ok();
    fleet.cli.run(&["catalog", "check"]).ok();
    for name in ["before", "during", "by-hand", "after"] {
        fleet.cli.run(&["snapshot", "verify", name]).ok();
    }
}
