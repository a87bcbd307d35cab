//! A catalog that was lost is made again from the repositories alone, with everything but history.

use std::collections::BTreeMap;
use std::sync::Arc;

use backupd::catalog::{Catalog, Location};
use backupd::repository::{Keys, Repository};
use backupd::store::LocalStore;
use sqlx::{Column as _, Row as _};

use crate::catalog::{self, Place, connect};
use crate::daemon::{Fleet, LIMIT, postgres};
use crate::fixture::files_below;
use crate::harness::postgres::Postgres;
use crate::harness::s3::block_on;
use crate::retention::automated_in;

/// No window opens, and a day is kept.
const QUIET: &str = "window = \"0 0 29 2 * for 1h in UTC\"\nsnapshot_retention_limit = 1";

/// What must be as it was. Left out are when something was noted to be gone, and what schedulers decided: history.
const TABLES: [&str; 7] = [
    "SELECT * FROM clusters ORDER BY name",
    "SELECT * FROM node_capabilities ORDER BY cluster, node_id, capability",
    "SELECT * FROM snapshots WHERE removed_ms IS NULL ORDER BY repository_id, snapshot_id",
    // of those that are gone only what keeps them from being copied again
    "SELECT repository_id, snapshot_id, name FROM snapshots WHERE removed_ms IS NOT NULL ORDER BY repository_id, snapshot_id",
    "SELECT shards.* FROM shards JOIN snapshots ON shards.repository_id = snapshots.repository_id
         AND shards.snapshot_id = snapshots.snapshot_id AND removed_ms IS NULL
     ORDER BY shards.repository_id, shards.snapshot_id, shard_index",
    "SELECT cluster, made, shape, description, window_text, retention_days, snapshotting, repository, target, job_id, nodes,
         created_ms, number, tags, removed_ms FROM definitions ORDER BY cluster",
    "SELECT cluster, last_success_ms, last_verified_ms, removed_ms, CASE WHEN removed_ms IS NULL THEN window_text END AS open
     FROM schedules ORDER BY cluster",
];

/// The rows of all tables, as text.
fn dump(location: &Location) -> Vec<String> {
    block_on(async {
        let pool = connect(&Place(location.clone())).await;
        let mut lines = Vec::new();
        for query in TABLES {
            for row in sqlx::query(query).fetch_all(&pool).await.unwrap() {
                let cell = |at: usize| {
                    let text = row.try_get::<Option<String>, _>(at);
                    let number = || row.try_get::<Option<i64>, _>(at).map(|it| it.map(|it| it.to_string()));
                    let value = text.or_else(|_| number()).unwrap().unwrap_or_else(|| "NULL".to_owned());
                    format!("{}={value}", row.columns()[at].name())
                };
                let cells: Vec<String> = (0..row.columns().len()).map(cell).collect();
                let table = query.split_whitespace().skip_while(|word| *word != "FROM").nth(1).unwrap();
                lines.push(format!("{table}: {}", cells.join(" ")));
            }
        }
        pool.close().await;
        lines
    })
}

/// Every kind of fact about snapshots of two clusters, one of which is removed, in two repositories.
fn happen(fleet: &Fleet, location: &Location) {
    let main = fleet.path("repository");
    for name in ["a1", "a2"] {
        automated_in(&main, Keys::NoEncryption, ("c0", &fleet.servers[0]), name);
    }
    let daemon = fleet.daemon();
    fleet.wait_event("snapshot.found");
    for (cluster, name) in [("c0", "one"), ("c0", "two"), ("c1", "three")] {
        fleet.wait_job(&fleet.ask(cluster, name), &["succeeded"]);
    }
    let run = |words: &[&str]| fleet.cli.run(&[words, &["--repository", "main"]].concat());
    run(&["snapshot", "verify", "one"]).ok();
    run(&["snapshot", "verify", "two"]).ok();
    let id = run(&["snapshot", "show", "two", "-o", "json"]).json()["snapshot_id"].as_str().unwrap().to_owned();
    let shard =
        files_below(&main.join("c0").join(id)).into_iter().find(|it| it.extension().is_some_and(|it| it == "bkd"));
    let (shard, mut bytes) = (shard.as_ref().unwrap(), std::fs::read(shard.as_ref().unwrap()).unwrap());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(shard, bytes).unwrap();
    run(&["snapshot", "verify", "two"]).exits(17);
    run(&["snapshot", "keep", "a1"]).ok();
    for (name, new) in [("one", "one-far"), ("three", "three-far")] {
        run(&["snapshot", "copy", name, "--to", "far", "--name", new]).ok();
    }
    fleet.cli.run(&["snapshot", "verify", "one-far", "--repository", "far"]).ok();
    fleet.cli.run(&["snapshot", "delete", "three-far", "--repository", "far"]).ok();
    fleet.cli.run(&["cluster", "remove", "c1"]).ok();
    fleet.wait_event("cluster.removed");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    block_on(async {
        let repository = Repository::open(Arc::new(LocalStore::new(&main))).await.unwrap();
        let (place, _) = repository.find("one").await.unwrap();
        let changes = BTreeMap::from([("team".to_owned(), Some("shop".to_owned()))]);
        repository.tag(&place, &changes, None).await.unwrap();
        let catalog = Catalog::open(location).await.unwrap();
        catalog.change_snapshot_tags(repository.id(), &place.snapshot_id, &changes).await.unwrap();
        catalog.close().await;
    });
}

fn a_catalog_that_was_lost_is_made_again(catalog: &str, location: &Location, forget: impl Fn()) {
    let mut fleet = Fleet::new(2, catalog, "", QUIET);
    let far = fleet.path("far").display().to_string();
    fleet.sections = format!("[repositories.far]\nurl = \"file://{far}\"\nno_encryption = true\n");
    fleet.configure(catalog, "", QUIET);
    happen(&fleet, location);
    fleet.cli.run(&["catalog", "check"]).ok();
    let before = dump(location);
    forget();
    fleet.cli.run(&["catalog", "check"]).exits(17);
    fleet.cli.run(&["catalog", "rebuild"]).ok();
    fleet.cli.run(&["catalog", "check"]).ok();
    // schedules are the daemon's
    let daemon = fleet.daemon();
    fleet.wait_event("cluster.registered");
    daemon.running.signal("TERM");
    daemon.wait(LIMIT).ok();
    let after = dump(location);
    println!("{}", before.join("\n"));
    let only = |of: &[String], other: &[String]| {
        of.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(before == after, "was:\n{}\nis:\n{}", only(&before, &after), only(&after, &before));
    let count = |text: &str| before.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count(" verified_ms=NULL"), 4, "all but `one` and its copy, of which one was found damaged");
    assert_eq!((count("snapshots: repository_id="), count(" name=three-far")), (7, 1));
    assert_eq!((count("definitions: cluster=c1"), count(" tags={\"team\":\"shop\"}")), (1, 1));
    assert_eq!((count("last_success_ms=NULL"), count("last_verified_ms=NULL")), (0, 1));
}

#[test]
fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let section = format!("path = \"{}\"", path.display());
    a_catalog_that_was_lost_is_made_again(&section, &path.clone().into(), || {
        for end in ["", "-wal", "-shm"] {
            let _absent_is_fine = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    });
}

#[test]
fn on_postgres() {
    let server = Postgres::start();
    let database = server.database();
    let location = catalog::location(&server, &database);
    a_catalog_that_was_lost_is_made_again(&postgres(&server, &database), &location, || {
        server.psql(&database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
    });
}
