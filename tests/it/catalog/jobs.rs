//! Jobs, events and the audit chain.

use std::time::Duration;

use backupd::catalog::{Asked, Beat, Catalog, Code, JobFilter, Limits, NewEvent, NewJob, Why, Worker, new_id};
use backupd::error::Class;
use policies::job::{Event, Kind, State, Step, Wait, wait};

use super::Place;

const WIDE: Limits = Limits { repository: 10, host: 10 };

pub(super) fn job(id: &str, cluster: &str) -> NewJob {
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
        asked: Asked::default(),
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

pub(super) async fn a_worker_that_comes_back_under_its_name_is_another(place: &Place) {
    let catalog = place.open().await;
    add(&catalog, job("j", "c")).await;
    let take = |now| {
        let catalog = catalog.clone();
        async move {
            let row = catalog.job("j").await.unwrap();
            let held = catalog.claim_job(&row, &worker("w"), WIDE, now).await.unwrap().unwrap();
            catalog.begin_step(&held, Step::Capture, "s", now).await.unwrap()
        }
    };
    let first = take(200).await;
    let lost = catalog.lost_jobs(800).await.unwrap();
    catalog.end_job(&lost[0], Event::LeaseLost, &Why::default(), |_| vec![], 800).await.unwrap();
    let second = take(900).await;
    assert_eq!((first.fencing, second.fencing, &first.worker), (1, 2, &second.worker));
    // name and state are those of the first, its number is not
    let beat = catalog.beat_job(&first, &worker("w"), &Beat::default(), 901).await.unwrap_err();
    assert_eq!((beat.class(), beat.is_retryable()), (Class::Busy, false));
    assert_eq!(catalog.begin_step(&first, Step::Record, "", 901).await.unwrap_err().class(), Class::Busy);
    let end = catalog.end_job(&first, Event::Fail { retryable: false }, &Why::default(), |_| vec![], 901).await;
    assert_eq!(end.unwrap_err().class(), Class::Busy);
    assert_eq!(catalog.job("j").await.unwrap(), second);
}

pub(super) async fn what_the_limits_hold_back_hides_nothing_else(place: &Place) {
    let catalog = place.open().await;
    let limits = Limits { repository: 2, host: 2 };
    let ready = |count| {
        let catalog = catalog.clone();
        async move {
            let rows = catalog.ready_jobs(limits, 200, count).await.unwrap();
            rows.into_iter().map(|row| row.job_id).collect::<Vec<_>>()
        }
    };
    let new = |id: &str, cluster: &str, repository: &str, host: &str| NewJob {
        repository: repository.into(),
        host: host.into(),
        ..job(id, cluster)
    };
    for (id, host) in [("r1", "h1"), ("r2", "h2")] {
        add(&catalog, new(id, id, "full", host)).await;
        let row = catalog.job(id).await.unwrap();
        catalog.claim_job(&row, &worker("w"), limits, 150).await.unwrap().unwrap();
    }
    // these come first and cannot begin: their repository is full, or their cluster has one
    for n in 0..5 {
        add(&catalog, new(&format!("a{n}"), &format!("a{n}"), "full", "h9")).await;
    }
    add(&catalog, new("b", "r1", "free", "h9")).await;
    let late = NewJob { start_by_ms: Some(199), ..new("c", "c", "free", "h9") };
    add(&catalog, late).await;
    add(&catalog, NewJob { not_before_ms: 201, ..new("d", "d", "free", "h9") }).await;
    add(&catalog, new("e", "e", "free", "h1")).await;
    add(&catalog, new("f", "f", "free", "")).await;
    assert_eq!(ready(1).await, ["e"]);
    assert_eq!(ready(9).await, ["e", "f"]);
    let row = catalog.job("e").await.unwrap();
    catalog.claim_job(&row, &worker("w"), limits, 150).await.unwrap().unwrap();
    add(&catalog, new("g", "g", "free", "h1")).await;
    assert_eq!(ready(9).await, ["f"], "its host has two");
    let beside = |id: &'static str| {
        let catalog = catalog.clone();
        async move { wait(&catalog.beside_job(&catalog.job(id).await.unwrap(), limits).await.unwrap()) }
    };
    assert_eq!(
        [beside("a0").await, beside("b").await, beside("g").await, beside("f").await],
        [Wait::Repository, Wait::Same, Wait::Host, Wait::Worker]
    );
}

pub(super) async fn the_outcome_of_a_backup_is_noted_however_it_ends(place: &Place) {
    let catalog = place.open().await;
    super::schedules::put(&catalog, "", 1).await;
    let outcome = || {
        let catalog = catalog.clone();
        async move { catalog.schedule("c").await.unwrap().unwrap().last_outcome }
    };
    let end = |id: &'static str, claimed: bool, event: Event, now| {
        let catalog = catalog.clone();
        async move {
            add(&catalog, job(id, "c")).await;
            let mut row = catalog.job(id).await.unwrap();
            if claimed {
                let held = catalog.claim_job(&row, &worker("w"), WIDE, 200).await.unwrap().unwrap();
                let held = catalog.begin_step(&held, Step::Capture, "s", 200).await.unwrap();
                row = catalog.begin_step(&held, Step::Record, "", 200).await.unwrap();
            }
            catalog.end_job(&row, event, &Why::default(), |_| vec![], now).await.unwrap()
        }
    };
    end("a", true, Event::Finish, 210).await;
    assert_eq!(outcome().await, "succeeded");
    end("b", false, Event::Cancel, 210).await;
    assert_eq!(outcome().await, "canceled");
    end("c", true, Event::Finish, 210).await;
    end("d", false, Event::Late, 1001).await;
    assert_eq!(outcome().await, "failed");
    end("e", true, Event::Finish, 210).await;
    end("f", true, Event::Fail { retryable: true }, 210).await;
    assert_eq!(outcome().await, "succeeded", "it is tried again");
    let mut row = catalog.job("f").await.unwrap();
    // the last one only looks what the one before it left
    for now in [20_000, 40_000, 80_000, 160_000] {
        let held = catalog.claim_job(&row, &worker("w"), WIDE, now).await.unwrap().unwrap();
        row = catalog.end_job(&held, Event::LeaseLost, &Why::default(), |_| vec![], now + 600).await.unwrap();
    }
    assert_eq!((row.state(), outcome().await.as_str()), (State::Failed, "failed"));
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
