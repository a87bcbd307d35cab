//! Opening: new, old, newer, and what is no catalog.

use std::path::PathBuf;

use backupd::catalog::{Catalog, Location, Postgres, SnapshotFilter};
use backupd::clock;
use backupd::error::Class;
use sqlx::{AnyPool, Executor as _};

use super::Place;
use super::snapshots::{shard, snapshot};
use crate::harness::s3::block_on;

/// The text of the first migration, as it was released.
const FIRST: &str = include_str!("../../../migrations/0001_create_catalog.sql");

pub(super) async fn many_may_open_a_new_one_at_once(place: &Place) {
    let open = |place: Place| async move { Catalog::open(&place.0).await };
    let opening: tokio::task::JoinSet<_> = (0..6).map(|_| open(place.clone())).collect();
    for opened in opening.join_all().await {
        opened.unwrap();
    }
}

/// A connection of our own, past the catalog.
pub(super) async fn connect(place: &Place) -> AnyPool {
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

/// As a release made it that knew the first migration only, with a snapshot, a cluster and a lease in it.
pub(super) async fn a_populated_catalog_of_the_first_migration_is_brought_up_to_date(place: &Place) {
    let migrator = sqlx::migrate::Migrator::with_migrations(vec![sqlx::migrate::Migration::new(
        1,
        "create catalog".into(),
        sqlx::migrate::MigrationType::Simple,
        sqlx::SqlStr::from_static(FIRST),
        false,
    )]);
    let pool = connect(place).await;
    migrator.run(&pool).await.unwrap();
    for row in [
        "INSERT INTO clusters VALUES ('orders', 'cluster', 'redis', '7.0.15', 'file:///x', 1, 2)",
        "INSERT INTO snapshots VALUES ('r', 's1', 'name-of-s1', 'orders', 'manual', 'cluster', 'valkey', '8.1.0', 'stream', 10, 11,
             3, 'aes-256-gcm', '[\"k\"]', 1000000, 1099511627776, 549755813888, '{}', NULL)",
        "INSERT INTO shards VALUES ('r', 's1', 0, NULL, 'n', 'h:1', 'replica', 'ffffffffffffffffffffffffffffffffffffffff',
             1125899906842624, 5, 'shard-0000-1.bkd', 7, 8, 9)",
        "INSERT INTO leases VALUES ('window', 'somebody', 41, 1, 2)",
        "INSERT INTO node_capabilities VALUES ('orders', 'n', 'stream', 1, '', 3)",
    ] {
        pool.execute(row).await.unwrap();
    }
    pool.close().await;

    let catalog = place.open().await;
    assert_eq!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap(), [snapshot("s1", "orders", 10)]);
    assert_eq!(catalog.shards("r", "s1").await.unwrap(), [shard(0)]);
    assert_eq!(catalog.clusters().await.unwrap()[0].engine_version, "7.0.15");
    assert!(catalog.node_capabilities("orders").await.unwrap()[0].available);
    let lease = catalog.acquire_lease("window", "me", std::time::Duration::from_secs(1), 10).await.unwrap();
    assert_eq!(lease.fencing, 42, "numbers go on where they were");
    catalog.close().await;
    place.open().await;
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
