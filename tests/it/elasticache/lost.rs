//! The catalog is lost: what was said through the API is in the repositories.

use super::fuzz::form;
use super::{LIMIT, Place, not_now};
use crate::harness::process::wait_for;

/// What the Query API tells, without what is different in each answer, and without times of making: those are of the catalog.
fn told(place: &Place, asked: &str) -> (u16, String) {
    let body = format!("Version=2015-02-02&Action={asked}");
    let (status, _, text) = form(place.port.number, body.as_bytes());
    let parts = text.split_inclusive('>').filter(|part| !part.contains("CreateTime>") && !part.contains("RequestId>"));
    (status, parts.collect::<Vec<_>>().join("\n"))
}

fn ask(place: &Place, asked: &str) -> String {
    let (status, text) = told(place, asked);
    assert_eq!(status, 200, "{asked}: {text}");
    text
}

fn until(place: &Place, asked: &str, words: &str) {
    wait_for(words, LIMIT, || {
        let (_, text) = told(place, asked);
        if text.contains(words) { Ok(()) } else { Err(text) }
    });
}

fn arn(kind: &str, name: &str) -> String {
    format!("arn:aws:elasticache:us-east-1:000000000000:{kind}:{name}")
}

/// All that is shown of clusters and snapshots.
fn all(place: &Place) -> Vec<String> {
    let tags = |kind, name| format!("ListTagsForResource&ResourceName={}", arn(kind, name));
    [
        "DescribeReplicationGroups".to_owned(),
        "DescribeCacheClusters&ShowCacheNodeInfo=true".to_owned(),
        "DescribeSnapshots&ShowNodeGroupConfig=true".to_owned(),
        tags("snapshot", "one"),
        tags("replicationgroup", "orders"),
        tags("replicationgroup", "new"),
    ]
    .iter()
    .map(|asked| told(place, asked).1)
    .collect()
}

/// Ends the daemon, loses the catalog, makes it again, and starts a daemon.
fn lose(place: &Place, daemon: crate::harness::cli::Spawned, differs: &str) -> crate::harness::cli::Spawned {
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    place.cli.run(&["catalog", "check"]).ok();
    for end in ["", "-wal", "-shm"] {
        let _absent_is_fine = std::fs::remove_file(place.path(&format!("catalog.sqlite{end}")));
    }
    assert!(!place.path("catalog.sqlite").exists());
    let check = place.cli.run(&["catalog", "check", "-o", "json"]).exits(17);
    assert!(check.stdout.contains(differs), "{check:?}");
    place.cli.run(&["catalog", "rebuild"]).ok();
    place.cli.run(&["catalog", "check"]).ok();
    place.daemon()
}

#[test]
fn what_was_said_through_the_api_outlives_the_catalog() {
    let place = Place::without_keys("lost", 2);
    let daemon = place.daemon();
    let tagged = "Tags.Tag.1.Key=a&Tags.Tag.1.Value=1&Tags.Tag.2.Key=b&Tags.Tag.2.Value=2";
    ask(&place, &format!("CreateSnapshot&ReplicationGroupId=orders&SnapshotName=one&{tagged}"));
    until(&place, "DescribeSnapshots&SnapshotName=one", "available</SnapshotStatus>");
    let one = arn("snapshot", "one");
    ask(&place, &format!("AddTagsToResource&ResourceName={one}&Tags.Tag.1.Key=c&Tags.Tag.1.Value=3"));
    ask(&place, &format!("RemoveTagsFromResource&ResourceName={one}&TagKeys.member.1=a"));
    let orders = arn("replicationgroup", "orders");
    ask(&place, &format!("AddTagsToResource&ResourceName={orders}&Tags.Tag.1.Key=team&Tags.Tag.1.Value=shop"));
    let window = not_now();
    let changed = format!("SnapshotWindow={window}&SnapshotRetentionLimit=3&ReplicationGroupDescription=shop");
    ask(&place, &format!("ModifyReplicationGroup&ReplicationGroupId=orders&{changed}"));
    let create = |id: &str| {
        let more = "ReplicationGroupDescription=d&SnapshotName=one&NumNodeGroups=2&SnapshotRetentionLimit=2";
        let more = format!("{more}&SnapshotWindow={window}");
        ask(&place, &format!("CreateReplicationGroup&ReplicationGroupId={id}&{more}&{tagged}"))
    };
    create("new");
    until(&place, "DescribeReplicationGroups&ReplicationGroupId=new", "available</Status>");
    // there is no node for these: one stays as it is, one is given up
    for id in ["late", "never"] {
        create(id);
        until(&place, &format!("DescribeReplicationGroups&ReplicationGroupId={id}"), "restore-failed</Status>");
    }
    ask(&place, "DeleteReplicationGroup&ReplicationGroupId=never");

    let before = all(&place);
    let daemon = lose(&place, daemon, "\"new\"");
    assert_eq!(all(&place), before);
    let shown = place.cli.json(&["snapshot", "show", "one", "--repository", "main", "-o", "json"]);
    assert_eq!(shown["tags"], serde_json::json!({"b": "2", "c": "3"}));
    wait_for("the window", LIMIT, || {
        let shown = place.cli.json(&["cluster", "show", "orders", "-o", "json"])["cluster"]["window"].clone();
        if shown == window.as_str() { Ok(()) } else { Err(shown.to_string()) }
    });
    // what was made is still backed up like any other, by tags that it was given
    ask(&place, "CreateSnapshot&ReplicationGroupId=new&SnapshotName=two");
    until(&place, "DescribeSnapshots&SnapshotName=two", "available</SnapshotStatus>");
    let tags = ask(&place, &format!("ListTagsForResource&ResourceName={}", arn("snapshot", "two")));
    assert!(tags.contains("a</Key>") && tags.contains("b</Key>"), "{tags}");

    // and what was removed stays removed
    ask(&place, "DeleteReplicationGroup&ReplicationGroupId=new");
    let gone = "ReplicationGroupNotFoundFault";
    until(&place, "DescribeReplicationGroups&ReplicationGroupId=new", gone);
    let _daemon = lose(&place, daemon, "\"new\"");
    until(&place, "DescribeReplicationGroups&ReplicationGroupId=new", gone);
    assert!(!ask(&place, "DescribeReplicationGroups").contains("new</ReplicationGroupId>"));
    // only what was said last is needed
    let plan = place.cli.json(&["gc", "plan", "--older-than", "0s", "--repository", "main", "-o", "json"]);
    assert_eq!(plan["unknown"], serde_json::json!([]), "{plan}");
    place.cli.run(&["gc", "apply", "--older-than", "0s", "--repository", "main"]).ok();
    place.cli.run(&["catalog", "check"]).ok();
    let mut left: Vec<_> = std::fs::read_dir(place.path("main/orders")).unwrap().flatten().collect();
    left.retain(|entry| entry.file_name().to_str().unwrap().starts_with("definition-"));
    assert_eq!(left.len(), 1, "{left:?}");
}
