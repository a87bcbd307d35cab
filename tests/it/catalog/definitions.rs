//! What was said of clusters through the API, and tags.

use std::collections::BTreeMap;

use backupd::catalog::DefinitionRow;

use super::Place;

fn made(cluster: &str) -> DefinitionRow {
    DefinitionRow {
        cluster: cluster.into(),
        made: 1,
        shape: "group".into(),
        job_id: format!("job-{cluster}"),
        nodes: "[]".into(),
        created_ms: 5,
        ..DefinitionRow::default()
    }
}

pub(super) async fn a_definition_is_added_once_and_changed_as_a_whole(place: &Place) {
    let catalog = place.open().await;
    assert!(catalog.add_definition(&made("b"), 10).await.unwrap());
    assert!(catalog.add_definition(&made("a"), 10).await.unwrap());
    let other = DefinitionRow { description: "other".into(), ..made("b") };
    assert!(!catalog.add_definition(&other, 11).await.unwrap());
    assert_eq!(catalog.definitions().await.unwrap(), [made("a"), made("b")]);
    let before = catalog.definitions_mark().await.unwrap();
    let changed = DefinitionRow { window_text: Some("03:00-04:00".into()), retention_days: Some(3), ..made("b") };
    // the clock stands still, or went back: the change is seen all the same
    catalog.put_definition(&DefinitionRow { created_ms: 99, ..changed.clone() }, 10).await.unwrap();
    assert_eq!(catalog.definition("b").await.unwrap(), Some(changed.clone()));
    let after = catalog.definitions_mark().await.unwrap();
    assert!(after > before, "{before:?} {after:?}");
    let nodes = ["10.0.0.1:6379".to_owned()];
    catalog.define_nodes("job-other", &nodes, 20).await.unwrap();
    assert_eq!(catalog.definitions_mark().await.unwrap(), after);
    catalog.define_nodes("job-b", &nodes, 20).await.unwrap();
    assert_eq!(catalog.definition("b").await.unwrap().unwrap().nodes(), nodes);
    catalog.forget_definition("b").await.unwrap();
    assert_eq!(catalog.definition("b").await.unwrap(), None);
    assert!(catalog.add_definition(&made("b"), 30).await.unwrap());
}

pub(super) async fn tags_are_given_and_taken(place: &Place) {
    let catalog = place.open().await;
    let changes = |pairs: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
    };
    catalog.change_tags("group", "a", &changes(&[("x", Some("1")), ("y", Some(""))])).await.unwrap();
    catalog.change_tags("snapshot", "a", &changes(&[("z", Some("3"))])).await.unwrap();
    catalog.change_tags("group", "a", &changes(&[("x", None), ("w", Some("4"))])).await.unwrap();
    let found = catalog.tag_changes("group", "a").await.unwrap();
    assert_eq!(found, changes(&[("w", Some("4")), ("x", None), ("y", Some(""))]));
    catalog.forget_definition("a").await.unwrap();
    assert!(catalog.tag_changes("group", "a").await.unwrap().is_empty());
    assert_eq!(catalog.tag_changes("snapshot", "a").await.unwrap().len(), 1);
}
