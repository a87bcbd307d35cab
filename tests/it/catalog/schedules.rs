//! Schedules and windows.

use backupd::catalog::{
    Catalog, Code, Decision, JobFilter, Mark, NewEvent, NewJob, NewSchedule, Outcome, ScheduleRow, SnapshotRow,
};

use super::Place;
use super::jobs::job;
use super::snapshots::snapshot;

/// Notes cluster `c` with a window.
pub(super) async fn put(catalog: &Catalog, window: &str, now_ms: u64) -> ScheduleRow {
    let rows = catalog.put_schedules(&[noted("c", window)], now_ms).await.unwrap();
    rows.into_iter().next().unwrap()
}

fn noted<'a>(cluster: &'a str, window: &str) -> NewSchedule<'a> {
    NewSchedule {
        cluster,
        repository: "main",
        window: window.to_owned(),
        is_chosen: false,
        expected_interval_s: 86_400,
        event: NewEvent::new(Code::ClusterRegistered, "new").of(cluster),
    }
}

pub(super) async fn an_occurrence_is_decided_once_by_however_many_schedulers(place: &Place) {
    put(&place.open().await, "* * * * * for 1m in UTC", 1).await;
    let decide = |place: Place, n: u32| async move {
        let catalog = place.open().await;
        let new = job(&format!("j{n}"), "c");
        let event = NewEvent::new(Code::WindowFired, "now").of("c");
        let decision = Decision {
            cluster: "c",
            occurrence_ms: 3_600_000,
            outcome: Outcome::Fired,
            reason: "it is time",
            job: Some(&new),
            event,
        };
        catalog.decide_window(&decision, 3_600_001).await.unwrap()
    };
    let deciding: tokio::task::JoinSet<_> = (0..8).map(|n| decide(place.clone(), n)).collect();
    assert_eq!(deciding.join_all().await.into_iter().filter(|decided| *decided).count(), 1);
    let catalog = place.open().await;
    assert_eq!(catalog.jobs(&JobFilter::default()).await.unwrap().len(), 1);
    assert_eq!(catalog.events(Some("c"), 2).await.unwrap().len(), 1);
    assert_eq!(catalog.schedule("c").await.unwrap().unwrap().settled_ms, Some(3_600_000));
    assert_eq!(catalog.forget_windows(u64::MAX).await.unwrap(), 0, "the newest stays");
}

pub(super) async fn a_schedule_keeps_its_times_and_begins_anew_with_another_window(place: &Place) {
    let catalog = place.open().await;
    put(&catalog, "03:00-05:00", 10).await;
    catalog.mark_schedule("c", Mark::Success, 20).await.unwrap();
    let row = put(&catalog, "03:00-05:00", 30).await;
    assert_eq!(row, catalog.schedule("c").await.unwrap().unwrap());
    assert_eq!((row.since_ms, row.last_success_ms), (10, Some(20)));
    put(&catalog, "04:00-06:00", 40).await;
    assert_eq!(catalog.events(Some("c"), 0).await.unwrap().len(), 1, "it was new once");
    assert_eq!(catalog.schedule("c").await.unwrap().unwrap().since_ms, 40);
    catalog.mark_schedule("gone", Mark::Removed, 50).await.unwrap();
    assert_eq!(catalog.schedules().await.unwrap().len(), 2);
    assert_eq!(catalog.schedule("nobody").await.unwrap(), None);
}

pub(super) async fn a_whole_fleet_is_noted_by_several_schedulers_at_once(place: &Place) {
    let names: Vec<String> = (0..150).map(|n| format!("c{n:03}")).collect();
    let note = |place: Place, names: Vec<String>| async move {
        let catalog = place.open().await;
        let fleet: Vec<NewSchedule<'_>> = names.iter().map(|name| noted(name, "03:00-05:00")).collect();
        catalog.put_schedules(&fleet, 10).await.unwrap()
    };
    let noting: tokio::task::JoinSet<_> = (0..4).map(|_| note(place.clone(), names.clone())).collect();
    for rows in noting.join_all().await {
        assert!(rows.iter().map(|row| &row.cluster).eq(&names));
    }
    let catalog = place.open().await;
    assert_eq!(catalog.schedules().await.unwrap().len(), names.len());
    let told: std::collections::BTreeSet<String> =
        catalog.events(None, 0).await.unwrap().into_iter().map(|event| event.cluster).collect();
    assert!(told.iter().eq(&names));
    assert_eq!(catalog.events(None, 0).await.unwrap().len(), names.len(), "each is told of once");
}

/// Decides the occurrence at 3,600,000 of cluster `c`.
async fn decides(catalog: &Catalog, outcome: Outcome, job: Option<&NewJob>) -> bool {
    let event = NewEvent::new(Code::WindowMissed, "").of("c");
    let decision = Decision { cluster: "c", occurrence_ms: 3_600_000, outcome, reason: "why", job, event };
    catalog.decide_window(&decision, 3_600_001).await.unwrap()
}

pub(super) async fn what_a_clock_that_was_ahead_has_missed_still_fires_once(place: &Place) {
    let catalog = place.open().await;
    let (one, two) = (job("j1", "c"), job("j2", "c"));
    assert!(decides(&catalog, Outcome::Missed, None).await);
    assert!(catalog.fired_since("c", 0).await.unwrap().is_empty());
    assert!(!decides(&catalog, Outcome::Missed, None).await);
    assert!(decides(&catalog, Outcome::Fired, Some(&one)).await);
    assert!(!decides(&catalog, Outcome::Fired, Some(&two)).await);
    assert!(!decides(&catalog, Outcome::Missed, None).await);
    assert_eq!(catalog.jobs(&JobFilter::default()).await.unwrap().len(), 1);
    assert_eq!(catalog.fired_since("c", 3_600_000).await.unwrap(), [3_600_000]);
    assert!(catalog.fired_since("c", 3_600_001).await.unwrap().is_empty());
    assert!(catalog.fired_since("d", 0).await.unwrap().is_empty());
}

pub(super) async fn a_removed_cluster_is_taken_up_again(place: &Place) {
    let catalog = place.open().await;
    put(&catalog, "03:00-05:00", 10).await;
    let event = || NewEvent::new(Code::ClusterRegistered, "again").of("c");
    assert!(!catalog.register_again("c", &event(), 20).await.unwrap(), "it was not removed");
    catalog.mark_schedule("c", Mark::Removed, 30).await.unwrap();
    assert!(catalog.register_again("c", &event(), 40).await.unwrap());
    assert!(!catalog.register_again("c", &event(), 50).await.unwrap());
    let row = catalog.schedule("c").await.unwrap().unwrap();
    assert_eq!((row.removed_ms, row.since_ms), (None, 40), "what was due meanwhile is not missed");
    assert_eq!(catalog.events(Some("c"), 20).await.unwrap().len(), 1);
}

pub(super) async fn the_times_of_a_schedule_come_up_to_what_is_known_of_its_snapshots(place: &Place) {
    let catalog = place.open().await;
    put(&catalog, "03:00-05:00", 10).await;
    let times = async || {
        let row = catalog.schedule("c").await.unwrap().unwrap();
        (row.last_success_ms, row.last_verified_ms)
    };
    catalog.follow_snapshots("c").await.unwrap();
    assert_eq!(times().await, (None, None), "nothing is known of any");
    for (id, cluster, ms) in [("s1", "c", 20), ("s2", "c", 40), ("s3", "c", 60), ("s4", "d", 80)] {
        let row =
            SnapshotRow { verified_ms: (id != "s3").then_some(ms + 5), ..snapshot(id, cluster, ms.unsigned_abs()) };
        catalog.record_snapshot(&row, &[]).await.unwrap();
    }
    catalog.follow_snapshots("c").await.unwrap();
    assert_eq!(times().await, (Some(61), Some(45)));
    catalog.mark_snapshot_removed("r", "s3", 99).await.unwrap();
    catalog.put_snapshot_verified("r", "s2", None).await.unwrap();
    catalog.follow_snapshots("c").await.unwrap();
    assert_eq!(times().await, (Some(61), Some(45)), "what was known of it stays");
    assert_eq!(catalog.schedule("d").await.unwrap(), None);
}
