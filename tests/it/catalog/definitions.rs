//! What was said of clusters, and tags.

use std::collections::BTreeMap;

use backupd::catalog::{DefinitionRow, SnapshotFilter};

use super::Place;
use super::snapshots::snapshot;

fn made(cluster: &str, number: u64) -> DefinitionRow {
    DefinitionRow { made: 1, job_id: format!("job-{cluster}"), number, ..DefinitionRow::new(cluster, 5) }
}

pub(super) async fn what_was_said_last_of_a_cluster_holds_whatever_comes_late(place: &Place) {
    let catalog = place.open().await;
    catalog.put_definition(&made("b", 1), 10).await.unwrap();
    catalog.put_definition(&made("a", 1), 10).await.unwrap();
    assert_eq!(catalog.definitions().await.unwrap(), [made("a", 1), made("b", 1)]);
    let before = catalog.definitions_mark().await.unwrap();
    let changed = DefinitionRow {
        window_text: Some("03:00-04:00".into()),
        retention_days: Some(3),
        tags: r#"{"x":null,"y":"1"}"#.into(),
        removed_ms: Some(7),
        nodes: r#"["10.0.0.1:6379"]"#.into(),
        ..made("b", 3)
    };
    // the clock stands still, or went back: the change is seen all the same
    catalog.put_definition(&changed, 10).await.unwrap();
    let after = catalog.definitions_mark().await.unwrap();
    assert!(after > before, "{before:?} {after:?}");
    for late in [made("b", 2), DefinitionRow { description: "as new".into(), ..made("b", 3) }] {
        catalog.put_definition(&late, 20).await.unwrap();
    }
    assert_eq!(catalog.definition("b").await.unwrap(), Some(changed.clone()));
    assert_eq!(changed.nodes(), ["10.0.0.1:6379"]);
    assert_eq!(changed.tag_changes(), BTreeMap::from([("x".into(), None), ("y".into(), Some("1".into()))]));
    assert_eq!(catalog.definition_of_job("job-b").await.unwrap(), Some(changed));
    assert_eq!(catalog.definition_of_job("job-other").await.unwrap(), None);
    catalog.forget_definition("b").await.unwrap();
    assert_eq!(catalog.definition("b").await.unwrap(), None);
    catalog.put_definition(&made("b", 1), 30).await.unwrap();
    assert_eq!(catalog.definition("b").await.unwrap(), Some(made("b", 1)));
}

pub(super) async fn tags_of_a_snapshot_are_given_and_taken_and_stay_when_it_is_recorded_again(place: &Place) {
    let catalog = place.open().await;
    let (row, other) = (snapshot("s1", "c", 10), snapshot("s2", "c", 20));
    for row in [&row, &other] {
        catalog.record_snapshot(row, &[]).await.unwrap();
    }
    let changes = |pairs: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
    };
    for changes in
        [changes(&[("x", Some("1")), ("y", Some(""))]), changes(&[("x", None), ("w", Some("4")), ("no", None)])]
    {
        catalog.change_snapshot_tags("r", "s1", &changes).await.unwrap();
        catalog.change_snapshot_tags("elsewhere", "s1", &changes).await.unwrap();
    }
    catalog.record_snapshot(&row, &[]).await.unwrap();
    let oldest_first = SnapshotFilter { oldest_first: true, ..SnapshotFilter::default() };
    let tags = async || -> Vec<String> {
        catalog.snapshots(&oldest_first).await.unwrap().into_iter().map(|row| row.tags).collect()
    };
    assert_eq!(tags().await, [r#"{"w":"4","y":""}"#, "{}"]);
    catalog.put_snapshot_tags("r", "s1", "{}").await.unwrap();
    assert_eq!(tags().await, ["{}", "{}"]);
}
