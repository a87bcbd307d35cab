//! Pages over more snapshots than fit into one.

use std::collections::BTreeSet;

use backupd::catalog::{Asked, Catalog, Code, NewEvent, NewJob, SnapshotRow, new_id};
use backupd::error::Result;
use policies::job::Kind;

use super::{Served, token};
use crate::daemon::{Fleet, sqlite};
use crate::harness::s3::block_on;

/// A row as a backup notes it.
fn row(number: u64) -> SnapshotRow {
    SnapshotRow {
        repository_id: "r1".into(),
        snapshot_id: format!("20260101T000000Z-{number:08x}"),
        name: format!("s{number:04}"),
        cluster: format!("c{}", number % 2),
        source: if number.is_multiple_of(3) { "automated" } else { "manual" }.into(),
        mode: "standalone".into(),
        engine: "redis".into(),
        engine_version: "7.0.15".into(),
        method: "stream".into(),
        // several began in the same millisecond
        begun_ms: 1_767_225_600_000 + number / 7,
        ended_ms: 1_767_225_700_000,
        skew_ms: 0,
        cipher: "none".into(),
        key_ids: "[]".into(),
        keys: number,
        plain_bytes: 100,
        stored_bytes: 50,
        tags: "{}".into(),
        verified_ms: None,
    }
}

/// Puts `count` snapshots, jobs and events into the catalog of a fleet.
fn seed(fleet: &Fleet, count: u64) {
    let path = fleet.path("catalog.sqlite");
    let seeded: Result<()> = block_on(async move {
        let catalog = Catalog::open(&path.into()).await?;
        for number in 0..count {
            catalog.record_snapshot(&row(number), &[]).await?;
            let job = NewJob {
                job_id: new_id(1_767_225_600_000)?,
                kind: Kind::Verify,
                cluster: format!("c{}", number % 2),
                repository: "main".into(),
                host: String::new(),
                snapshot_name: format!("s{number:04}"),
                source: String::new(),
                parameters: "{}".into(),
                // nobody begins it
                not_before_ms: 9_000_000_000_000,
                start_by_ms: None,
                asked: Asked::default(),
            };
            catalog.add_job(&job, &[], 1_767_225_600_000 + number / 5).await?;
            let event = NewEvent::new(Code::GcApplied, format!("event {number}")).of(&format!("c{}", number % 2));
            catalog.add_event(&event, catalog.now_unix_ms().await?).await?;
        }
        catalog.close().await;
        Ok(())
    });
    seeded.unwrap();
}

/// All of a list, page by page.
fn all(served: &Served, who: &str, path: &str, list: &str, member: &str) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = served.ask_as(who, "GET", &format!("{path}{cursor}"), &serde_json::Value::Null).has(200).json();
        found.extend(answer[list].as_array().unwrap().iter().map(|it| it[member].as_str().unwrap().to_owned()));
        pages += 1;
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, pages),
        }
    }
}

/// Puts so many snapshots into the catalog at once. The last is of `shop` by its tags.
fn seed_at_once(fleet: &Fleet, count: u64) {
    let url = format!("sqlite://{}", fleet.path("catalog.sqlite").display());
    let first = row(0);
    block_on(async move {
        let pool = sqlx::AnyPool::connect(&url).await.unwrap();
        let query = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
             INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version, method,
                 begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags)
             SELECT 'r1', 'at-once-' || n, 'at-once-' || n, 'c' || (n % 2), 'manual', 'standalone', 'redis', '7.0.15', 'stream',
                 {} + n, 1, 0, 'none', '[]', 1, 1, 1, CASE n WHEN {count} THEN '{{\"team\":\"shop\"}}' ELSE '{{}}' END FROM n",
            first.begun_ms
        );
        sqlx::query(sqlx::AssertSqlSafe(query)).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

#[test]
fn who_sees_little_of_much_gets_short_pages_and_all_of_it_at_the_end() {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    seed(&fleet, 1);
    // more than one request reads
    seed_at_once(&fleet, 25_000);
    let tokens = token("shop", "reader", "tags = { team = \"shop\" }") + &token("one", "reader", "clusters = [\"c0\"]");
    let served = Served::of(fleet, "requests_per_second = 1000", &tokens);
    let first = served.ask_as("shop", "GET", "/v1/snapshots", &serde_json::Value::Null).has(200).json();
    assert_eq!((first["snapshots"].as_array().unwrap().len(), first["next_cursor"].is_string()), (0, true), "{first}");
    let (names, pages) = all(&served, "shop", "/v1/snapshots?limit=1000", "snapshots", "name");
    assert!(names == ["at-once-25000"] && pages > 2, "{names:?} {pages}");
    // of one cluster alone nothing else is read
    let (names, pages) = all(&served, "one", "/v1/snapshots?limit=1000", "snapshots", "name");
    assert_eq!((names.len(), pages), (12_501, 13));
}

#[test]
fn pages_over_many_snapshots_jobs_and_events_have_each_of_them_once_and_in_order() {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    seed(&fleet, 125);
    let served = Served::of(fleet, "requests_per_second = 1000", &token("half", "reader", "clusters = [\"c1\"]"));
    let names: Vec<String> = (0..125).map(|number| format!("s{number:04}")).collect();
    let page = |who: &str, query: &str| all(&served, who, &format!("/v1/snapshots?{query}"), "snapshots", "name");
    assert_eq!(page("admin", "limit=50"), (names.clone(), 3));
    assert_eq!(page("admin", "limit=125").1, 1);
    assert_eq!(page("admin", "name=s0007").0, ["s0007"]);
    assert!(page("half", "name=s0008").0.is_empty(), "it is of c0");
    assert_eq!(page("admin", "limit=1&cluster=c0&source=automated").0.len(), 21);
    let newest = page("admin", "limit=40&order=desc").0;
    assert!(newest.iter().eq(names.iter().rev()), "{newest:?}");
    let half = page("half", "limit=20").0;
    assert!(half.iter().eq(names.iter().skip(1).step_by(2)), "{half:?}");

    let (jobs, pages) = all(&served, "half", "/v1/jobs?limit=25", "jobs", "snapshot_name");
    assert_eq!((jobs.iter().collect::<BTreeSet<_>>().len(), jobs.len(), pages), (62, 62, 3));
    let (events, _) = all(&served, "admin", "/v1/events?limit=33", "events", "event_id");
    assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), events.len());
    let (messages, _) = all(&served, "half", "/v1/events?limit=33", "events", "message");
    let seeded: Vec<&str> = messages.iter().filter_map(|text| text.strip_prefix("event ")).collect();
    assert!(seeded.len() == 62 && seeded.iter().all(|text| text.parse::<u32>().unwrap() % 2 == 1), "{seeded:?}");
}
