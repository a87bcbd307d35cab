//! Grants.

use backupd::catalog::GrantRow;

use super::Place;
use super::snapshots::snapshot;

pub(super) fn grant(id: &str, snapshot_id: &str) -> GrantRow {
    GrantRow {
        repository_id: "r".into(),
        grant_id: id.into(),
        cluster: "orders".into(),
        snapshot_id: snapshot_id.into(),
        snapshot_name: format!("name-of-{snapshot_id}"),
        principal: "{\"account\":\"1\"}".into(),
        way: "policy".into(),
        key_id: Some("x-1".into()),
        kms_key: None,
        given_ms: 7,
        revoked_ms: None,
    }
}

pub(super) async fn a_grant_is_as_it_was_noted_last_and_goes_with_its_snapshot(place: &Place) {
    let catalog = place.open().await;
    let elsewhere = GrantRow { repository_id: "other".into(), ..grant("g1", "s1") };
    for row in [grant("g1", "s2"), grant("g1", "s1"), grant("g2", "s2"), grant("g3", "s1"), elsewhere.clone()] {
        catalog.put_grant(&row).await.unwrap();
    }
    catalog.record_snapshot(&snapshot("s1", "orders", 10), &[]).await.unwrap();
    assert_eq!(catalog.grants("r", false).await.unwrap(), [grant("g1", "s1"), grant("g2", "s2"), grant("g3", "s1")]);
    assert!(catalog.mark_grant_revoked("r", "g3", 20).await.unwrap());
    assert!(!catalog.mark_grant_revoked("r", "g3", 30).await.unwrap());
    assert!(!catalog.mark_grant_revoked("r", "g4", 30).await.unwrap());
    assert!(catalog.mark_snapshot_removed("r", "s1", 40).await.unwrap());
    assert_eq!(catalog.grants("r", false).await.unwrap(), [grant("g2", "s2")]);
    let gone = |id: &str, ms| GrantRow { revoked_ms: Some(ms), ..grant(id, "s1") };
    assert_eq!(catalog.grants("r", true).await.unwrap(), [gone("g1", 40), grant("g2", "s2"), gone("g3", 20)]);
    assert_eq!(catalog.grants("other", false).await.unwrap(), [elsewhere]);
    // given again, as its facts say
    catalog.put_grant(&grant("g1", "s1")).await.unwrap();
    assert_eq!(catalog.grants("r", false).await.unwrap().len(), 2);
}
