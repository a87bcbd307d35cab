//! Snapshots and their shards.

use backupd::catalog::{ShardRow, SnapshotFilter, SnapshotRow};

use super::Place;

pub(super) fn snapshot(id: &str, cluster: &str, begun_ms: u64) -> SnapshotRow {
    SnapshotRow {
        repository_id: "r".into(),
        snapshot_id: id.into(),
        name: format!("name-of-{id}"),
        cluster: cluster.into(),
        source: "manual".into(),
        mode: "cluster".into(),
        engine: "valkey".into(),
        engine_version: "8.1.0".into(),
        method: "stream".into(),
        begun_ms,
        ended_ms: begun_ms + 1,
        skew_ms: 3,
        cipher: "aes-256-gcm".into(),
        key_ids: "[\"k\"]".into(),
        keys: 1_000_000,
        plain_bytes: 1 << 40,
        stored_bytes: 1 << 39,
        tags: "{}".into(),
        verified_ms: None,
    }
}

pub(super) fn shard(index: u32) -> ShardRow {
    ShardRow {
        shard_index: index,
        slots: (index > 0).then(|| "0-100".into()),
        node_id: "n".into(),
        node_address: "h:1".into(),
        node_role: "replica".into(),
        replid: "f".repeat(40),
        repl_offset: 1 << 50,
        taken_ms: 5,
        file: format!("shard-{index:04}-1.bkd"),
        keys: 7,
        plain_bytes: 8,
        stored_bytes: 9,
    }
}

pub(super) async fn recording_twice_is_recording_once(place: &Place) {
    let catalog = place.open().await;
    let row = snapshot("s1", "c", 10);
    catalog.record_snapshot(&SnapshotRow { keys: 0, ..row.clone() }, &[shard(0), shard(1), shard(2)]).await.unwrap();
    for _ in 0..2 {
        catalog.record_snapshot(&row, &[shard(0), shard(1)]).await.unwrap();
    }
    catalog.close().await;
    let catalog = place.open().await;
    assert_eq!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap(), [row]);
    assert_eq!(catalog.shards("r", "s1").await.unwrap(), [shard(0), shard(1)]);
    assert!(catalog.shards("other", "s1").await.unwrap().is_empty());
}

pub(super) async fn a_snapshot_without_all_its_shards_is_not_recorded(place: &Place) {
    let catalog = place.open().await;
    let error = catalog.record_snapshot(&snapshot("s1", "c", 10), &[shard(0), shard(0)]).await.unwrap_err();
    assert!(error.message().contains(&place.0.to_string()), "{error}");
    assert!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap().is_empty());
}

pub(super) async fn removal_is_final(place: &Place) {
    let catalog = place.open().await;
    assert!(!catalog.mark_snapshot_removed("r", "s1", 50).await.unwrap());
    catalog.record_snapshot(&snapshot("s1", "c", 10), &[]).await.unwrap();
    assert!(catalog.mark_snapshot_removed("r", "s1", 50).await.unwrap());
    assert!(!catalog.mark_snapshot_removed("r", "s1", 60).await.unwrap());
    catalog.record_snapshot(&snapshot("s1", "c", 10), &[]).await.unwrap();
    assert!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap().is_empty());
    let all = SnapshotFilter { with_removed: true, ..SnapshotFilter::default() };
    assert_eq!(catalog.snapshots(&all).await.unwrap().len(), 1);
}

pub(super) async fn lists_are_newest_first_and_in_pages(place: &Place) {
    let catalog = place.open().await;
    for (id, cluster, begun_ms) in [("s1", "a", 10), ("s2", "b", 30), ("s3", "a", 30), ("s4", "a", 20)] {
        catalog.record_snapshot(&snapshot(id, cluster, begun_ms), &[]).await.unwrap();
    }
    let list = |filter: SnapshotFilter| {
        let catalog = catalog.clone();
        async move {
            let rows = catalog.snapshots(&filter).await.unwrap();
            rows.into_iter().map(|row| row.snapshot_id).collect::<Vec<_>>()
        }
    };
    let all = SnapshotFilter::default;
    assert_eq!(list(all()).await, ["s3", "s2", "s4", "s1"]);
    assert_eq!(list(SnapshotFilter { cluster: Some("a".into()), ..all() }).await, ["s3", "s4", "s1"]);
    assert_eq!(list(SnapshotFilter { repository_id: Some("other".into()), ..all() }).await, [""; 0]);
    assert_eq!(list(SnapshotFilter { after: Some((30, "s3".into())), ..all() }).await, ["s2", "s4", "s1"]);
    assert_eq!(list(SnapshotFilter { after: Some((20, "s4".into())), ..all() }).await, ["s1"]);
}

pub(super) async fn the_newest_is_that_of_one_repository(place: &Place) {
    let catalog = place.open().await;
    let old = snapshot("s1", "c", 10);
    let newer = SnapshotRow { repository_id: "other".into(), ..snapshot("s2", "c", 20) };
    let copy = SnapshotRow { repository_id: "other".into(), name: "copy".into(), ..old.clone() };
    for row in [&old, &newer, &copy, &snapshot("s3", "d", 30)] {
        catalog.record_snapshot(row, &[shard(0)]).await.unwrap();
    }
    let newest = |cluster: &'static str, repository: &'static str| {
        let catalog = catalog.clone();
        async move { catalog.newest_snapshot(cluster, repository).await.unwrap() }
    };
    assert_eq!(newest("c", "r").await.as_deref(), Some("name-of-s1"));
    assert_eq!(newest("c", "other").await.as_deref(), Some("name-of-s2"));
    assert_eq!(newest("d", "other").await, None);
    catalog.mark_snapshot_removed("r", "s1", 40).await.unwrap();
    assert_eq!(newest("c", "r").await, None);
}

pub(super) async fn a_copy_that_nobody_has_seen_counts_as_gone_until_somebody_does(place: &Place) {
    let catalog = place.open().await;
    let original = SnapshotRow { verified_ms: Some(7), ..snapshot("s1", "c", 10) };
    let copy = SnapshotRow { repository_id: "far".into(), name: "other".into(), verified_ms: None, ..original.clone() };
    let far =
        |with_removed| SnapshotFilter { repository_id: Some("far".into()), with_removed, ..SnapshotFilter::default() };
    catalog.record_snapshot(&original, &[shard(0)]).await.unwrap();
    catalog.note_copy(("r", "s1"), ("far", "other"), 20).await.unwrap();
    assert_eq!(catalog.snapshots(&far(false)).await.unwrap(), []);
    assert_eq!(catalog.snapshots(&far(true)).await.unwrap(), std::slice::from_ref(&copy));
    catalog.record_snapshot(&copy, &[shard(0)]).await.unwrap();
    catalog.mark_snapshot_present("far", "s1").await.unwrap();
    catalog.note_copy(("r", "s1"), ("far", "other"), 30).await.unwrap();
    assert_eq!(catalog.snapshots(&far(false)).await.unwrap(), [copy]);
    assert_eq!(
        catalog.snapshots(&SnapshotFilter { repository_id: Some("r".into()), ..far(false) }).await.unwrap(),
        [original]
    );
}
