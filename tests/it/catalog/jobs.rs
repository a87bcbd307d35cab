//! Jobs, windows, events and the audit chain.

use std::time::Duration;

use backupd::catalog::{
    Beat, Catalog, Code, Decision, JobFilter, Limits, NewEvent, NewJob, Outcome, Why, Worker, new_id,
};
use backupd::error::Class;
use policies::job::{Event, Kind, State, Step};

use super::Place;

const WIDE: Limits = Limits { repository: 10, host: 10 };

fn job(id: &str, cluster: &str) -> NewJob {
    NewJob {
        job_id: id.into(),
        kind: Kind::Backup,
        cluster: cluster.into(),
        repository: "main".into(),
        host: "h1".into(),
        snapshot_name: format!("snapshot-of-{id}"),
        source: "automated".into(),
        parameters: "{}".into(),
        not_before_ms: 100,
        start_by_ms: Some(1000),
    }
}

fn worker(name: &str) -> Worker {
    Worker { name: name.into(), lease: Duration::from_millis(500) }
}

async fn add(catalog: &Catalog, new: NewJob) {
    catalog.add_job(&new, &[], 50).await.unwrap();
}

pub(super) async fn a_job_is_claimed_once_by_however_many_workers(place: &Place) {
    let catalog = place.open().await;
    for round in 0..5 {
        let id = format!("j{round}");
        add(&catalog, job(&id, &format!("c{round}"))).await;
        let row = catalog.job(&id).await.unwrap();
        let claim = |n: u32, place: Place, row| async move {
            let catalog = place.open().await;
            catalog.claim_job(&row, &worker(&format!("w{n}")), WIDE, 200).await.unwrap()
        };
        let claims: tokio::task::JoinSet<_> = (0..6).map(|n| claim(n, place.clone(), row.clone())).collect();
        let got: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].fencing, got[0].attempts, got[0].state()), (1, 1, State::Running));
        assert_eq!(catalog.job(&id).await.unwrap(), got[0], "what was claimed is what is stored");
    }
}

pub(super) async fn limits_hold_over_all_workers(place: &Place) {
    let catalog = place.open().await;
    for (id, cluster, host) in [("a", "c1", "h1"), ("b", "c2", "h1"), ("c", "c3", "h2"), ("d", "c1", "h3")] {
        add(&catalog, NewJob { host: host.into(), ..job(id, cluster) }).await;
    }
    let claim = |id: &'static str, limits| {
        let catalog = catalog.clone();
        async move {
            let row = catalog.job(id).await.unwrap();
            catalog.claim_job(&row, &worker("w"), limits, 200).await.unwrap().is_some()
        }
    };
    assert!(claim("a", WIDE).await);
    assert!(!claim("b", Limits { host: 1, ..WIDE }).await, "its host has one");
    assert!(!claim("c", Limits { repository: 1, ..WIDE }).await, "its repository has one");
    assert!(!claim("d", WIDE).await, "its cluster has one");
    assert!(claim("c", Limits { repository: 2, host: 1 }).await);
    // many at once stay within the limit, too
    for n in 0..8 {
        add(&catalog, NewJob { repository: "other".into(), ..job(&format!("m{n}"), &format!("m{n}")) }).await;
    }
    let claims: tokio::task::JoinSet<_> = (0..8)
        .map(|n| {
            let place = place.clone();
            async move {
                let catalog = place.open().await;
                let row = catalog.job(&format!("m{n}")).await.unwrap();
                let limits = Limits { repository: 3, host: 100 };
                catalog.claim_job(&row, &worker("w"), limits, 200).await.unwrap().is_some()
            }
        })
        .collect();
    assert_eq!(claims.join_all().await.into_iter().filter(|taken| *taken).count(), 3);
}

pub(super) async fn a_lost_job_is_another_worker_s_and_its_first_worker_is_told(place: &Place) {
    let catalog = place.open().await;
    add(&catalog, job("j", "c")).await;
    let row = catalog.job("j").await.unwrap();
    let held = catalog.claim_job(&row, &worker("w1"), WIDE, 200).await.unwrap().unwrap();
    let held = catalog.begin_step(&held, Step::Capture, "snapshot-id", 210).await.unwrap();
    assert!(!catalog.beat_job(&held, &worker("w1"), &Beat { done_bytes: 7, ..Beat::default() }, 300).await.unwrap());
    assert!(catalog.lost_jobs(799).await.unwrap().is_empty());
    let lost = catalog.lost_jobs(800).await.unwrap();
    assert_eq!((lost.len(), lost[0].done_bytes, lost[0].step.as_str()), (1, 7, "capture"));
    let why = Why::default();
    let lose = || catalog.end_job(&lost[0], Event::LeaseLost, &why, |_| vec![], 800);
    assert_eq!(lose().await.unwrap().state(), State::Queued);
    assert_eq!(lose().await.unwrap_err().class(), Class::Busy, "only one finds it lost");
    // everything of the first worker is refused from now on
    let beat = catalog.beat_job(&held, &worker("w1"), &Beat::default(), 801).await.unwrap_err();
    assert_eq!((beat.class(), beat.is_retryable()), (Class::Busy, false));
    assert_eq!(catalog.begin_step(&held, Step::Record, "", 801).await.unwrap_err().class(), Class::Busy);
    let again = catalog.job("j").await.unwrap();
    assert_eq!((again.snapshot_id.as_str(), again.step.as_str()), ("snapshot-id", ""));
    let held = catalog.claim_job(&again, &worker("w2"), WIDE, 900).await.unwrap().unwrap();
    assert_eq!((held.fencing, held.attempts), (2, 2));
    let steps = catalog.job_steps("j").await.unwrap();
    let told: Vec<_> = steps.iter().map(|step| (step.number, step.event.as_str(), step.fencing)).collect();
    assert_eq!(told, [(1, "claim", 1), (2, "capture", 1), (3, "lease-lost", 1), (4, "claim", 2)]);
}

pub(super) async fn a_heartbeat_in_time_keeps_a_job_from_who_takes_it_for_lost(place: &Place) {
    let catalog = place.open().await;
    add(&catalog, job("j", "c")).await;
    let row = catalog.job("j").await.unwrap();
    let held = catalog.claim_job(&row, &worker("w1"), WIDE, 200).await.unwrap().unwrap();
    let lost = catalog.lost_jobs(700).await.unwrap();
    assert_eq!(lost.len(), 1);
    catalog.beat_job(&held, &worker("w1"), &Beat::default(), 700).await.unwrap();
    let error = catalog.end_job(&lost[0], Event::LeaseLost, &Why::default(), |_| vec![], 701).await.unwrap_err();
    assert_eq!(error.class(), Class::Busy);
    assert_eq!(catalog.job("j").await.unwrap().state(), State::Running);
}

pub(super) async fn cancel_ends_what_waits_and_tells_who_works(place: &Place) {
    let catalog = place.open().await;
    add(&catalog, job("a", "c1")).await;
    add(&catalog, job("b", "c2")).await;
    let event = || NewEvent::new(Code::JobCanceled, "asked for");
    assert_eq!(catalog.cancel_job("a", event(), 60).await.unwrap().state(), State::Canceled);
    assert_eq!(catalog.cancel_job("a", event(), 60).await.unwrap_err().class(), Class::Refused);
    assert_eq!(catalog.cancel_job("x", event(), 60).await.unwrap_err().class(), Class::NotFound);
    let row = catalog.job("b").await.unwrap();
    let held = catalog.claim_job(&row, &worker("w"), WIDE, 200).await.unwrap().unwrap();
    assert_eq!(catalog.cancel_job("b", event(), 210).await.unwrap().state(), State::Running);
    assert!(catalog.beat_job(&held, &worker("w"), &Beat::default(), 220).await.unwrap(), "its worker is told");
    let held = catalog.job("b").await.unwrap();
    let ended = catalog.end_job(&held, Event::Stopped, &Why::default(), |_| vec![event()], 230).await.unwrap();
    assert_eq!((ended.state(), ended.ended_ms), (State::Canceled, Some(230)));
    assert_eq!(catalog.events(None, 0).await.unwrap().len(), 2);
    let open = JobFilter { only_open: true, ..JobFilter::default() };
    assert!(catalog.jobs(&open).await.unwrap().is_empty());
    assert_eq!(catalog.jobs(&JobFilter { cluster: Some("c1".into()), ..JobFilter::default() }).await.unwrap().len(), 1);
    assert_eq!(catalog.forget_jobs(230).await.unwrap(), 1);
}

pub(super) async fn an_occurrence_is_decided_once_by_however_many_schedulers(place: &Place) {
    place.open().await.put_schedule("c", "main", ("* * * * * for 1m in UTC", false), 60, 1).await.unwrap();
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
    assert_eq!(catalog.events(Some("c"), 0).await.unwrap().len(), 1);
    assert_eq!(catalog.known_schedule("c").await.unwrap().settled_ms, Some(3_600_000));
    assert_eq!(catalog.forget_windows(u64::MAX).await.unwrap(), 0, "the newest stays");
}

pub(super) async fn hooks_are_told_until_they_heard(place: &Place) {
    let catalog = place.open().await;
    for n in 0..3 {
        catalog.add_event(&NewEvent::new(Code::BackupFailed, format!("{n}")), 1000 + n).await.unwrap();
    }
    let untold = |now| {
        let catalog = catalog.clone();
        async move {
            let rows = catalog.untold_events("ops", now, 10).await.unwrap();
            rows.into_iter().map(|(row, attempts)| (row.message, attempts, row.event_id)).collect::<Vec<_>>()
        }
    };
    let all = untold(2000).await;
    assert_eq!(all.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
    catalog.note_delivery("ops", &all[0].2, None).await.unwrap();
    catalog.note_delivery("ops", &all[1].2, Some(5000)).await.unwrap();
    assert_eq!(untold(4999).await.len(), 1);
    let again = untold(5000).await;
    assert_eq!((again.len(), again[0].1), (2, 1));
    assert_eq!(catalog.untold_events("other", 2000, 10).await.unwrap().len(), 3, "every hook by itself");
    assert_eq!(catalog.forget_events(1002).await.unwrap(), 2);
}

pub(super) async fn a_changed_audit_line_is_noticed(place: &Place) {
    let catalog = place.open().await;
    let audit = |place: Place, n: u32| async move {
        let catalog = place.open().await;
        catalog.audit("me", "snapshot.delete", &format!("s{n}"), "", 5).await.unwrap();
    };
    let adding: tokio::task::JoinSet<_> = (0..6).map(|n| audit(place.clone(), n)).collect();
    adding.join_all().await;
    let (lines, broken) = catalog.audit_lines().await.unwrap();
    assert_eq!((lines.len(), broken), (6, None));
    let pool = super::opening::connect(place).await;
    sqlx::query("UPDATE audit SET subject = 'another' WHERE number = 4").execute(&pool).await.unwrap();
    assert_eq!(catalog.audit_lines().await.unwrap().1, Some(4));
    sqlx::query("DELETE FROM audit WHERE number = 2").execute(&pool).await.unwrap();
    assert_eq!(catalog.audit_lines().await.unwrap().1, Some(2));
    assert_ne!(new_id(5).unwrap(), new_id(5).unwrap());
}

pub(super) async fn a_schedule_keeps_its_times_and_begins_anew_with_another_window(place: &Place) {
    use backupd::catalog::Mark;
    let catalog = place.open().await;
    assert!(catalog.put_schedule("c", "main", ("03:00-05:00", false), 86_400, 10).await.unwrap());
    catalog.mark_schedule("c", Mark::Success, 20).await.unwrap();
    assert!(!catalog.put_schedule("c", "main", ("03:00-05:00", false), 86_400, 30).await.unwrap());
    let row = catalog.known_schedule("c").await.unwrap();
    assert_eq!((row.since_ms, row.last_success_ms, row.last_outcome.as_str()), (10, Some(20), "succeeded"));
    catalog.put_schedule("c", "main", ("04:00-06:00", false), 86_400, 40).await.unwrap();
    assert_eq!(catalog.known_schedule("c").await.unwrap().since_ms, 40);
    catalog.mark_schedule("gone", Mark::Removed, 50).await.unwrap();
    assert_eq!(catalog.schedules().await.unwrap().len(), 2);
    assert_eq!(catalog.known_schedule("nobody").await.unwrap_err().class(), Class::NotFound);
}
