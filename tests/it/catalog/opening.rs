//! Opening: new, old, newer, and what is no catalog.

use std::path::PathBuf;

use backupd::catalog::{Catalog, Location, Postgres, SnapshotFilter};
use backupd::clock;
use backupd::error::Class;
use sqlx::{AnyPool, Executor as _};

use super::Place;
use super::snapshots::{shard, snapshot};
use crate::harness::s3::block_on;

pub(super) async fn many_may_open_a_new_one_at_once(place: &Place) {
    let open = |place: Place| async move { Catalog::open(&place.0).await };
    let opening: tokio::task::JoinSet<_> = (0..6).map(|_| open(place.clone())).collect();
    for opened in opening.join_all().await {
        opened.unwrap();
    }
}

/// A connection of our own, past the catalog.
pub(crate) async fn connect(place: &Place) -> AnyPool {
    sqlx::any::install_default_drivers();
    let url = match &place.0 {
        Location::Sqlite(path) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            format!("sqlite://{}?mode=rwc", path.display())
        }
        postgres @ Location::Postgres(_) => postgres.to_string(),
    };
    AnyPool::connect(&url).await.unwrap()
}

pub(super) async fn a_newer_catalog_is_refused(place: &Place) {
    place.open().await.close().await;
    let pool = connect(place).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT 9999, 'later', success, checksum, 1 FROM _sqlx_migrations WHERE version = 1";
    pool.execute(later).await.unwrap();
    let error = Catalog::open(&place.0).await.unwrap_err();
    assert_eq!(error.class(), Class::Version, "{error}");
}

/// What a release that knew migrations up to this one may have written.
const WRITTEN: [&[&str]; 8] = [
    &[
        "INSERT INTO clusters VALUES ('orders', 'cluster', 'redis', '7.0.15', 'file:///x', 1, 2)",
        "INSERT INTO snapshots VALUES ('r', 's1', 'name-of-s1', 'orders', 'manual', 'cluster', 'valkey', '8.1.0', 'stream', 10, 11,
             3, 'aes-256-gcm', '[\"k\"]', 1000000, 1099511627776, 549755813888, '{}', NULL)",
        "INSERT INTO shards VALUES ('r', 's1', 0, NULL, 'n', 'h:1', 'replica', 'ffffffffffffffffffffffffffffffffffffffff',
             1125899906842624, 5, 'shard-0000-1.bkd', 7, 8, 9)",
        "INSERT INTO leases VALUES ('window', 'somebody', 41, 1, 2)",
        "INSERT INTO node_capabilities VALUES ('orders', 'n', 'stream', 1, '', 3)",
    ],
    &[
        "INSERT INTO jobs VALUES ('j2', 'backup', 'orders', 'main', 'h', 'name-of-s1', 'manual', '{}', 'failed', 1, 1, NULL, 4, '', 4, 0,
             NULL, 'capture', 's1', '', 1, 2, 3, 1, 9, 'unforeseen', 'it died')",
        "INSERT INTO job_steps VALUES ('j2', 1, 1, 'w', 1, 'claim', 'running', 'a worker took it')",
        "INSERT INTO windows_fired VALUES ('orders', 60000, 'fired', 'j2', '', 60001)",
        "INSERT INTO schedules (cluster, repository, window_text, window_chosen, since_ms, expected_interval_s, last_outcome)
             VALUES ('orders', 'main', '03:00-04:00', 1, 5, 86400, 'failed')",
        "INSERT INTO events VALUES ('e2', 7, 'backup.failed', 'error', 'orders', 'name-of-s1', 'j2', 'it died')",
        "INSERT INTO deliveries VALUES ('hook', 'e2', 1, 9, 1)",
    ],
    &[
        "INSERT INTO jobs VALUES ('j3', 'copy', 'orders', 'main', '', 'name-of-s1', '', '{}', 'succeeded', 1, 1, NULL, 1, '', 1, 0,
             NULL, 'record', 's1', '', 1, 2, 3, 1, 9, '', 'all steps are done', 'me', 'key', 'sha', '{}')",
        "INSERT INTO taken_nodes VALUES ('h:2', 'j3', 4)",
    ],
    &[
        "INSERT INTO definitions (cluster, made, shape, description, snapshotting, repository, target, job_id, nodes, created_ms, changed_ms)
             VALUES ('orders', 0, 'group', 'ours', '', 'main', '', '', '[]', 3, 4)",
        "INSERT INTO tags VALUES ('snapshot', 's1', 'team', 'a')",
    ],
    &["UPDATE definitions SET number = 7, tags = '{\"team\":\"a\"}' WHERE cluster = 'orders'"],
    &["INSERT INTO workers VALUES ('w', 5)"],
    &["INSERT INTO requests VALUES ('me', 'key', 'sha', 'g1', 6, NULL)"],
    &["INSERT INTO grants VALUES ('r', 'g1', 'orders', 's1', 'name-of-s1', '{\"account\":\"1\"}', 'policy', 'x-1', NULL, 7, NULL)"],
];

/// The migrations up to this number.
fn up_to(count: usize) -> sqlx::migrate::Migrator {
    static ALL: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
    assert_eq!(ALL.iter().count(), WRITTEN.len(), "a migration without rows that it must keep");
    sqlx::migrate::Migrator::with_migrations(ALL.iter().take(count).cloned().collect())
}

async fn emptied(place: &Place) -> AnyPool {
    match &place.0 {
        Location::Sqlite(path) if path.exists() => std::fs::remove_file(path).unwrap(),
        Location::Sqlite(_) => {}
        Location::Postgres(_) => {
            let pool = connect(place).await;
            pool.execute("DROP SCHEMA public CASCADE").await.unwrap();
            pool.execute("CREATE SCHEMA public").await.unwrap();
            pool.close().await;
        }
    }
    connect(place).await
}

/// From whichever release it is, with rows in all of its tables.
pub(super) async fn a_populated_catalog_of_any_earlier_migration_is_brought_up_to_date(place: &Place) {
    for count in 1..=WRITTEN.len() {
        emptied(place).await.close().await;
        for (before, rows) in WRITTEN.iter().take(count).enumerate() {
            // each release with connections of its own, that know no older tables
            let pool = connect(place).await;
            up_to(before + 1).run(&pool).await.unwrap();
            pool.close().await;
            let pool = connect(place).await;
            for row in *rows {
                pool.execute(*row).await.unwrap_or_else(|error| panic!("{count}: {row}: {error}"));
            }
            pool.close().await;
        }
        let catalog = place.open().await;
        all_is_there(&catalog, count).await;
        catalog.close().await;
        place.open().await.close().await;
    }
}

async fn all_is_there(catalog: &Catalog, count: usize) {
    assert_eq!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap(), [snapshot("s1", "orders", 10)]);
    assert_eq!(catalog.shards("r", "s1").await.unwrap(), [shard(0)]);
    assert_eq!(catalog.clusters().await.unwrap()[0].engine_version, "7.0.15");
    assert!(catalog.node_capabilities("orders").await.unwrap()[0].available);
    let lease = catalog.acquire_lease("window", "me", std::time::Duration::from_secs(1), 10).await.unwrap();
    assert_eq!(lease.fencing, 42, "numbers go on where they were");
    if count >= 2 {
        let job = catalog.job("j2").await.unwrap();
        assert_eq!((job.state.as_str(), job.attempts, job.reason.as_str(), job.done_keys), ("failed", 4, "it died", 3));
        assert_eq!(catalog.job_steps("j2").await.unwrap()[0].event, "claim");
        assert_eq!(catalog.schedule("orders").await.unwrap().unwrap().window_text, "03:00-04:00");
        assert_eq!(catalog.events(None, 0).await.unwrap()[0].message, "it died");
    }
    if count >= 3 {
        assert_eq!(catalog.job("j3").await.unwrap().requested_by, "me");
        assert_eq!(catalog.nodes_taken("j3").await.unwrap(), ["h:2"]);
    }
    if count >= 4 {
        let said = catalog.definition("orders").await.unwrap().unwrap();
        assert_eq!((said.description.as_str(), said.number), ("ours", if count >= 5 { 7 } else { 0 }));
    }
    if count >= 8 {
        assert_eq!(catalog.grants("r", false).await.unwrap(), [super::grants::grant("g1", "s1")]);
    }
    if count >= 6 {
        assert_eq!(catalog.other_workers("", 5).await.unwrap(), 1);
    }
}

pub(super) async fn its_clock_is_the_time(place: &Place) {
    let catalog = place.open().await;
    let before = clock::unix_ms(clock::now());
    let now = catalog.now_unix_ms().await.unwrap();
    // both are on this machine; the databases count to the millisecond, not always the same way
    assert!(now + 2 >= before && now <= clock::unix_ms(clock::now()) + 2, "{now} {before}");
}

#[test]
fn what_is_no_catalog_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    std::fs::write(&path, "this is not a database, and it is longer than a header of one".repeat(100)).unwrap();
    let open = |path: PathBuf| block_on(async { Catalog::open(&path.into()).await }).unwrap_err();
    let error = open(path.clone());
    assert_eq!(error.class(), Class::Verification, "{error}");
    assert!(error.message().contains("catalog.sqlite"), "{error}");
    let error = open(folder.path().to_owned());
    assert_eq!(error.class(), Class::Config, "{error}");
    let error = open(path.join("below/a/file"));
    assert_eq!(error.class(), Class::Config, "{error}");
}

#[test]
fn a_postgres_that_is_not_there_or_refuses_is_told_apart() {
    let postgres = crate::harness::postgres::Postgres::start();
    let open = |url: &str| {
        let location = Location::Postgres(Postgres::new(url, None).unwrap());
        block_on(async { Catalog::open(&location).await }).unwrap_err()
    };
    let error = open(&postgres.url("absent"));
    assert_eq!(error.class(), Class::Config, "{error}");
    let tls = open(&format!("{}?sslmode=require", postgres.url("postgres")));
    assert_eq!(tls.class(), Class::StoreAuth, "a server without TLS is refused where TLS is wanted: {tls}");
    let url = postgres.url("postgres");
    drop(postgres);
    let error = open(&url);
    assert_eq!((error.class(), error.is_retryable()), (Class::StoreUnavailable, true), "{error}");
}
