//! What the daemon does now and then, without being asked.

use backupd::repository::Keys;

use super::{Fleet, LIMIT, sqlite};
use crate::harness::mount::Mount;
use crate::harness::process::wait_for;
use crate::retention::{automated_in, verdicts};

#[test]
fn what_the_rules_no_longer_keep_is_marked() {
    // a window that never opens while this test runs
    let rules = "window = \"0 0 29 2 * for 1h in UTC\"\nretention = { keep_last = 1 }";
    let fleet = Fleet::new(1, &sqlite(), "", rules);
    for name in ["a1", "a2", "a3", "a4"] {
        automated_in(&fleet.path("repository"), Keys::NoEncryption, ("c0", &fleet.servers[0]), name);
    }
    let daemon = fleet.daemon();
    wait_for("three marks", LIMIT, || {
        let report = fleet.json(&["retention", "plan"]);
        let found: Vec<_> = verdicts(&report).into_iter().map(|(name, verdict, _)| (name, verdict)).collect();
        let told = |name: &str| {
            fleet.events().iter().any(|it| it["snapshot_name"] == name && it["code"] == "retention.applied")
        };
        let expected = [("a1", "wait"), ("a2", "wait"), ("a3", "wait"), ("a4", "keep")];
        let is_so = found.iter().map(|(name, verdict)| (name.as_str(), verdict.as_str())).eq(expected);
        if is_so && ["a1", "a2", "a3"].into_iter().all(told) && !told("a4") { Ok(()) } else { Err(report.to_string()) }
    });
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    assert_eq!(fleet.snapshots(), ["a1", "a2", "a3", "a4"], "what is marked is still there for a day");
}

#[test]
fn what_was_marked_for_long_enough_goes_and_what_the_store_refuses_is_told() {
    let rules = "window = \"0 0 29 2 * for 1h in UTC\"\nretention = { keep_last = 1 }";
    let fleet = Fleet::new(1, &sqlite(), "", rules);
    for name in ["a1", "a2", "a3", "a4"] {
        automated_in(&fleet.path("repository"), Keys::NoEncryption, ("c0", &fleet.servers[0]), name);
    }
    fleet.cli.run(&["catalog", "rebuild"]).ok();
    fleet.cli.run(&["retention", "apply", "--grace", "0s"]).ok();
    let id = fleet.json(&["snapshot", "show", "a2"])["snapshot_id"].as_str().unwrap().to_owned();
    let _locked = Mount::read_only(&fleet.path("repository").join("c0").join(id));
    let daemon = fleet.daemon();
    let event =
        |name: &str, code: &str| fleet.events().iter().any(|it| it["snapshot_name"] == name && it["code"] == code);
    wait_for("the events", LIMIT, || {
        let told = event("a1", "snapshot.deleted") && event("a2", "delete.failed") && event("a3", "snapshot.deleted");
        if told { Ok(()) } else { Err(format!("{:?}", fleet.events())) }
    });
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    assert_eq!(fleet.snapshots(), ["a2", "a4"]);
    assert!(!event("a4", "retention.applied"));
    // the catalog knows what went, and each deed has its line
    fleet.cli.run(&["catalog", "check"]).ok();
    let lines = fleet.json(&["event", "audit"])["lines"].as_array().unwrap().clone();
    let subjects: Vec<_> =
        lines.iter().map(|line| (line["action"].as_str().unwrap(), line["subject"].as_str().unwrap())).collect();
    assert_eq!(subjects, ["a1", "a2", "a3"].map(|name| ("snapshot.delete", name)));
}
