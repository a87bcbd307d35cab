//! Clusters and what their nodes can do.

use backupd::catalog::{ClusterRow, NodeCapabilityRow};
use backupd::error::Class;

use super::Place;

fn cluster(name: &str, version: &str, last_seen_ms: u64) -> ClusterRow {
    ClusterRow {
        name: name.into(),
        mode: "cluster".into(),
        engine: "redis".into(),
        engine_version: version.into(),
        repository_url: "file:///x".into(),
        last_seen_ms,
    }
}

pub(super) async fn a_cluster_is_as_it_was_last_seen(place: &Place) {
    let catalog = place.open().await;
    for row in [cluster("b", "7.0.1", 10), cluster("a", "8.0.0", 5), cluster("b", "7.0.2", 20)] {
        catalog.upsert_cluster(&row).await.unwrap();
    }
    catalog.upsert_cluster(&cluster("b", "7.0.1", 15)).await.unwrap();
    catalog.close().await;
    let reopened = place.open().await;
    assert_eq!(reopened.clusters().await.unwrap(), [cluster("a", "8.0.0", 5), cluster("b", "7.0.2", 20)]);
    assert_eq!(reopened.cluster_seen("b").await.unwrap(), Some((cluster("b", "7.0.2", 20), 10)));
    // a snapshot of it that is older was found
    reopened.upsert_cluster(&cluster("b", "6.2.0", 3)).await.unwrap();
    assert_eq!(reopened.cluster_seen("b").await.unwrap(), Some((cluster("b", "7.0.2", 20), 3)));
    let impossible = ClusterRow { mode: "sharded".into(), ..cluster("c", "1", 1) };
    assert!(reopened.upsert_cluster(&impossible).await.is_err());
}

pub(super) async fn what_a_node_can_do_is_replaced_as_a_whole(place: &Place) {
    let catalog = place.open().await;
    let can = |node: &str, capability: &str, available| NodeCapabilityRow {
        node_id: node.into(),
        capability: capability.into(),
        available,
        reason: if available { String::new() } else { "NOPERM".into() },
        seen_ms: 7,
    };
    let error = catalog.record_node_capabilities("c", &[can("n1", "psync", true)]).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    catalog.upsert_cluster(&cluster("c", "7.0.1", 1)).await.unwrap();
    let before = [can("n1", "bgsave", false), can("n1", "psync", true), can("n2", "psync", true)];
    for _ in 0..2 {
        catalog.record_node_capabilities("c", &before).await.unwrap();
    }
    assert_eq!(catalog.node_capabilities("c").await.unwrap(), before);
    catalog.record_node_capabilities("c", &[can("n1", "psync", false)]).await.unwrap();
    let after = [can("n1", "psync", false), can("n2", "psync", true)];
    assert_eq!(catalog.node_capabilities("c").await.unwrap(), after);
    // what was seen before that is told late
    let late = NodeCapabilityRow { seen_ms: 6, ..can("n1", "bgsave", true) };
    let of_another = NodeCapabilityRow { seen_ms: 6, ..can("n3", "psync", true) };
    catalog.record_node_capabilities("c", &[late, of_another.clone()]).await.unwrap();
    assert_eq!(catalog.node_capabilities("c").await.unwrap(), [&after[..], &[of_another]].concat());
}
