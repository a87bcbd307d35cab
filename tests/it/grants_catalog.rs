//! The catalog knows what is granted, with and without having been told, and is made again from the bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_s3::config::Credentials;
use backupd::catalog::{Catalog, GrantRow, Location};
use backupd::repository::Repository;
use backupd::snapshot::grants;
use backupd::store::{RepositoryUrl, S3Store, Store};
use serde_json::{Value, json};

use crate::catalog;
use crate::fixture::Repo;
use crate::grants::OTHER;
use crate::harness::postgres::Postgres;
use crate::harness::s3::block_on;
use crate::harness::server::Server;

/// A bucket with the snapshots `one` and `two`, and a configuration that names it and a catalog.
struct Place {
    repo: Repo,
    location: Location,
}

impl Place {
    fn new(location: Location, section: &str) -> Self {
        let (repo, server) = (Repo::bucket("grants-catalog"), Server::standalone());
        for name in ["one", "two"] {
            repo.create(&server.url(), name);
        }
        let url = &repo.url;
        let text = format!("[catalog]\n{section}\n[repositories.far]\nurl = \"{url}\"\nkey_file = \"keys.json\"\n");
        std::fs::write(repo.path("backupd.toml"), text).unwrap();
        let place = Self { repo, location };
        place.run(&["catalog", "rebuild"], 0);
        place
    }

    /// Runs a command with the configuration, so that it knows the catalog; what it does with the repository's URL (`Repo::json`) it does not.
    fn run(&self, words: &[&str], code: i32) -> Value {
        let config = self.repo.path("backupd.toml");
        self.repo.cli.run(&[words, &["--config", config.to_str().unwrap(), "-o", "json"]].concat()).exits(code).json()
    }

    fn add(&self, words: &[&str]) -> String {
        let given = self.repo.json(&[&["grant", "add"], words].concat());
        given["grant_id"].as_str().unwrap().to_owned()
    }

    async fn opened(&self) -> (Catalog, Repository) {
        let RepositoryUrl::Bucket(url) = self.repo.url.parse().unwrap() else {
            panic!("{} is no bucket", self.repo.url)
        };
        let bucket = self.repo.bucket.as_ref().unwrap();
        let credentials = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "tests");
        let store: Arc<dyn Store> = Arc::new(S3Store::open(&url, Some(credentials)).await.unwrap());
        (Catalog::open(&self.location).await.unwrap(), Repository::open(store).await.unwrap())
    }

    fn follow(&self) {
        block_on(async {
            let (catalog, repository) = self.opened().await;
            grants::follow(&catalog, &repository).await.unwrap();
            catalog.close().await;
        });
    }

    /// What the catalog knows, by the ids of the grants.
    fn known(&self) -> BTreeMap<String, GrantRow> {
        let rows = block_on(async {
            let (catalog, repository) = self.opened().await;
            let rows = catalog.grants(repository.id(), true).await.unwrap();
            catalog.close().await;
            rows
        });
        rows.into_iter().map(|row| (row.grant_id.clone(), row)).collect()
    }

    /// The ids of those that are not gone.
    fn live(&self) -> Vec<String> {
        self.known().into_values().filter(|row| row.revoked_ms.is_none()).map(|row| row.grant_id).collect()
    }

    /// The grants that `catalog check` finds different.
    fn different(&self, code: i32) -> Vec<String> {
        let mut found: Vec<String> =
            serde_json::from_value(self.run(&["catalog", "check"], code)["repositories"][0]["grants"].clone()).unwrap();
        found.sort();
        found
    }
}

fn sorted<const N: usize>(ids: [&String; N]) -> Vec<String> {
    let mut ids = ids.map(String::clone).to_vec();
    ids.sort();
    ids
}

fn what_is_granted_is_known_followed_and_found_again(place: &Place, forget: impl Fn()) {
    let told = place.run(&["grant", "add", "one", "--account", OTHER], 0)["grant_id"].as_str().unwrap().to_owned();
    let row = place.known().remove(&told).unwrap();
    assert_eq!((row.snapshot_name.as_str(), row.way.as_str(), row.cluster.as_str()), ("one", "policy", "default"));
    assert_eq!(serde_json::from_str::<Value>(&row.principal).unwrap(), json!({"account": OTHER}));
    assert!(place.different(0).is_empty());

    // by a command line that knows no catalog
    let untold = place.add(&["two", "--account", OTHER]);
    let cluster = place.add(&["--cluster", "default", "--account", OTHER]);
    let acl = place.add(&["two", "--canonical-id", OTHER, "--acl"]);
    assert_eq!((place.live(), place.different(17)), (sorted([&told]), sorted([&untold, &cluster, &acl])));
    place.follow();
    // it is beside a snapshot that the policy names as well
    assert_eq!((place.live(), place.different(0)), (sorted([&told, &untold, &cluster, &acl]), Vec::new()));
    let known = place.known();
    assert_eq!((known[&acl].way.as_str(), known[&cluster].snapshot_id.as_str()), ("acl", ""));

    // and taken back by one
    for id in [&untold, &cluster] {
        place.repo.json(&["grant", "revoke", id]);
    }
    assert_eq!((place.live().len(), place.different(17)), (4, sorted([&untold, &cluster])));
    place.follow();
    assert_eq!((place.live(), place.different(0)), (sorted([&told, &acl]), Vec::new()));
    place.repo.json(&["grant", "revoke", &acl]);
    place.follow();
    assert_eq!((place.live(), place.different(0)), (sorted([&told]), Vec::new()));

    // what is by ACLs alone, nobody who does not look at everything can know
    let acl_again = place.add(&["two", "--canonical-id", OTHER, "--acl"]);
    let cluster_again = place.add(&["--cluster", "default", "--account", OTHER]);
    place.follow();
    assert_eq!((place.live(), place.different(17)), (sorted([&told, &cluster_again]), sorted([&acl_again])));
    let before = place.known();
    forget();
    place.run(&["catalog", "rebuild"], 0);
    let after = place.known();
    assert_eq!((place.live(), place.different(0)), (sorted([&told, &cluster_again, &acl_again]), Vec::new()));
    for id in [&told, &untold, &acl] {
        assert_eq!(after.get(id), before.get(id), "it is as its facts say");
    }
    // a policy keeps nothing of what was taken out of it
    assert_eq!((after.get(&cluster), after.len()), (None, 5));

    place.run(&["grant", "revoke", &told], 0);
    place.run(&["grant", "revoke", &cluster_again], 0);
    assert_eq!((place.live(), place.different(0)), (sorted([&acl_again]), Vec::new()));
    what_cannot_be_read_stays_known(place, &acl_again);
    // it goes with its snapshot, whoever deletes that
    place.repo.json(&["snapshot", "delete", "two", "--force"]);
    assert_eq!(place.different(17), sorted([&acl_again]));
    place.run(&["catalog", "rebuild"], 0);
    assert_eq!((place.live(), place.different(0)), (Vec::new(), Vec::new()));
    // and by following the policy, once that says nothing of it any more
    let last = place.run(&["grant", "add", "one", "--account", OTHER], 0)["grant_id"].as_str().unwrap().to_owned();
    place.repo.json(&["snapshot", "delete", "one", "--force"]);
    place.follow();
    assert_eq!(place.live(), sorted([&last]), "the policy still says it");
    place.repo.json(&["grant", "revoke", &last]);
    place.follow();
    assert!(place.live().is_empty());
}

/// A fact that is damaged says neither that something was granted nor that it was not.
fn what_cannot_be_read_stays_known(place: &Place, id: &str) {
    let bucket = place.repo.bucket.as_ref().unwrap();
    let facts = bucket.list("").into_iter().map(|(key, _)| key).filter(|key| key.contains("/fact-granted-"));
    let says = |key: &String| String::from_utf8_lossy(&bucket.get(key)).contains(id);
    let key = facts.filter(says).max().unwrap();
    let (whole, known) = (bucket.get(&key), place.known());
    bucket.put(&key, b"damaged");
    place.follow();
    for command in ["check", "rebuild"] {
        let found = &place.run(&["catalog", command], 0)["repositories"][0];
        assert!(found["broken"].to_string().contains("fact-granted-") && found["grants"] == json!([]), "{found}");
    }
    assert_eq!(place.known(), known);
    bucket.put(&key, &whole);
    assert!(place.different(0).is_empty());
}

#[test]
fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let place = Place::new(path.clone().into(), &format!("path = \"{}\"", path.display()));
    what_is_granted_is_known_followed_and_found_again(&place, || {
        for end in ["", "-wal", "-shm"] {
            let _absent_is_fine = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    });
}

#[test]
fn on_postgres() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let location = catalog::location(&postgres, &database);
    let place = Place::new(location, &format!("url = \"{}\"", postgres.url(&database)));
    what_is_granted_is_known_followed_and_found_again(&place, || {
        postgres.psql(&database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
    });
}
