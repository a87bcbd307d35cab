//! The catalog follows the repository, whatever died before it could tell it.

use std::time::Duration;

use backupd::catalog::{Catalog, JobRow, Limits, Why, Worker};
use backupd::repository::Keys;
use policies::job::{ATTEMPTS_MAX, Event, Step};

use super::{Fleet, LIMIT, sqlite};
use crate::harness::s3::block_on;
use crate::retention::automated_in;

/// No window opens, and nothing expires.
const QUIET: &str = "window = \"0 0 29 2 * for 1h in UTC\"\nsnapshot_retention_limit = 0";

/// Lets worker after worker die in a job's capture of the snapshot `snapshot_id`, as often as it is tried.
async fn die_as_often_as_may_be(catalog: &Catalog, mut row: JobRow, snapshot_id: &str) {
    let worker = Worker { name: "gone".into(), lease: Duration::from_millis(1) };
    let limits = Limits { repository: 9, host: 9 };
    for attempt in 1..=ATTEMPTS_MAX {
        let now_ms = catalog.now_unix_ms().await.unwrap();
        let claimed = catalog.claim_job(&row, &worker, limits, now_ms).await.unwrap().unwrap();
        let begun = catalog.begin_step(&claimed, Step::Capture, snapshot_id, now_ms).await.unwrap();
        if attempt < ATTEMPTS_MAX {
            let later_ms = now_ms + 100;
            row = catalog.end_job(&begun, Event::LeaseLost, &Why::default(), |_| Vec::new(), later_ms).await.unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
}

fn job_that_died(fleet: &Fleet, name: &str, snapshot_id: &str) -> String {
    let id = fleet.ask("c0", name);
    let catalog = fleet.catalog();
    block_on(async {
        let row = catalog.job(&id).await.unwrap();
        die_as_often_as_may_be(&catalog, row, snapshot_id).await;
        catalog.close().await;
    });
    id
}

#[test]
fn what_the_last_worker_published_before_it_died_is_a_backup_that_succeeded() {
    let fleet = Fleet::new(1, &sqlite(), "lease = \"2s\"", QUIET);
    automated_in(&fleet.path("repository"), Keys::NoEncryption, ("c0", &fleet.servers[0]), "published");
    let snapshot_id = fleet.json(&["snapshot", "show", "published"])["snapshot_id"].as_str().unwrap().to_owned();
    let id = job_that_died(&fleet, "published", &snapshot_id);
    let daemon = fleet.daemon();
    let job = fleet.wait_job(&id, &["succeeded", "failed"]);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["attempts"], ATTEMPTS_MAX + 1);
    assert_eq!(job["snapshot_id"], snapshot_id.as_str());
    assert!(fleet.codes().iter().any(|code| code == "backup.succeeded"), "{:?}", fleet.codes());
    fleet.cli.run(&["catalog", "check"]).ok();
}

#[test]
fn what_no_worker_could_publish_has_failed_and_is_not_tried_a_fifth_time() {
    let fleet = Fleet::new(1, &sqlite(), "lease = \"2s\"", QUIET);
    automated_in(&fleet.path("repository"), Keys::NoEncryption, ("c0", &fleet.servers[0]), "another");
    let id = job_that_died(&fleet, "never", "20260101T000000Z-00000000");
    let daemon = fleet.daemon();
    let job = fleet.wait_job(&id, &["succeeded", "failed"]);
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    assert_eq!(job["state"], "failed", "{job}");
    assert!(job["reason"].as_str().unwrap().contains("its workers died as often as may be"), "{job}");
    assert!(fleet.codes().iter().any(|code| code == "backup.failed"), "{:?}", fleet.codes());
    assert_eq!(fleet.snapshots(), ["another"]);
}

#[test]
fn a_daemon_notes_what_came_into_the_repository_and_what_vanished() {
    let fleet = Fleet::new(1, &sqlite(), "", QUIET);
    let make = |name: &str| {
        automated_in(&fleet.path("repository"), Keys::NoEncryption, ("c0", &fleet.servers[0]), name);
    };
    make("known");
    make("lost");
    fleet.cli.run(&["catalog", "rebuild"]).ok();
    make("found-1");
    make("found-2");
    let id = fleet.json(&["snapshot", "show", "lost"])["snapshot_id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(fleet.path("repository").join("c0").join(id)).unwrap();
    fleet.cli.run(&["catalog", "check"]).exits(17);

    let daemon = fleet.daemon();
    let vanished = fleet.wait_event("snapshot.vanished");
    let found = fleet.wait_event("snapshot.found");
    fleet.cli.run(&["catalog", "check"]).ok();
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    assert_eq!((&found["cluster"], &found["severity"]), (&"c0".into(), &"warning".into()), "{found}");
    let told = found["message"].as_str().unwrap();
    assert!(told.contains("2 snapshots") && told.contains("found-1") && told.contains("found-2"), "{told}");
    assert!(!told.contains("known"), "{told}");
    let told = vanished["message"].as_str().unwrap();
    assert!(told.contains("1 snapshot") && told.contains("lost"), "{told}");
    assert_eq!(vanished["severity"], "error");
}
