//! Garage, an S3 server that differs from the one of the other tests: it is strict about regions and ignores `If-None-Match`. Asked for by name,
//! since nothing installs it: `cargo nextest run -p backupd --run-ignored only -E 'test(garage::)'`.

use std::sync::Arc;
use std::time::Duration;

use backupd::store::{RepositoryUrl, S3Store, Store};
use serde_json::json;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::garage::Garage;
use crate::harness::keyspace::Keyspace;
use crate::harness::s3::Bucket;
use crate::harness::server::{Options, Server};
use crate::snapshot_copy::copy_to;
use crate::store_contract::{self, Race};
use crate::store_faults::incompressible;

/// The part size of an upload whose size is not known.
const PART_BYTES: usize = 8 << 20;
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(120);

async fn open(bucket: &Bucket) -> Arc<dyn Store> {
    let RepositoryUrl::Bucket(url) = bucket.url("some/prefix").parse().unwrap() else {
        panic!("a URL of a bucket is one")
    };
    Arc::new(S3Store::open(&url, Some(bucket.credentials())).await.unwrap())
}

#[test]
#[ignore = "needs Garage: see docs/damage.md"]
fn it_keeps_the_contract_of_a_store_but_for_races() {
    let garage = Garage::start("us-east-1");
    let bucket = garage.bucket("contract");
    let run = async {
        let store = open(&bucket).await;
        // what a server keeps to is learnt by the first write
        store.create("first", bytes::Bytes::new()).await.unwrap();
        assert!(store.looks_before_writes());
        store_contract::run(store, "contract", PART_BYTES, Race::Several).await;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run);
}

#[test]
#[ignore = "needs Garage: see docs/damage.md"]
fn its_features_are_found_and_a_snapshot_of_several_parts_restores() {
    let garage = Garage::start("us-east-1");
    let repo = Repo::in_bucket(garage.bucket("features"));
    let found = repo.cli.json(&["check", "--repository", &repo.url, "-o", "json"])["repositories"][0].clone();
    println!("{found}");
    assert_eq!((&found["ok"], &found["mode"]), (&true.into(), &"read-write".into()), "{found}");
    assert_eq!(found["features"]["conditional_writes"], false);
    assert_eq!((&found["features"]["digests"], &found["features"]["checksums"]), (&true.into(), &true.into()));

    let server = incompressible(18);
    let words = ["snapshot", "create", "--source", &server.url(), "--name", "one"];
    repo.run(&words).ok().says("ignores If-None-Match");
    repo.run(&words).exits(18).says("exists");
    let parts = repo.bucket.as_ref().unwrap().list("").into_iter().find(|(key, _)| key.ends_with(".bkd")).unwrap().1;
    assert!(parts > 2 * PART_BYTES as u64, "one of several parts");
    repo.json(&["snapshot", "verify", "one"]);
    let (nodes, _launched) = repo.launch("one", &["--shards", "2"]);
    compare(&server.nodes(), &nodes).assert_equal();
    repo.json(&["snapshot", "delete", "one"]);
    repo.json(&["gc", "apply", "--older-than", "0s"]);
    let left: Vec<String> = repo.bucket.as_ref().unwrap().list("").into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["some/prefix/backupd-repository.json"]);
    assert_eq!(repo.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0]);
}

#[test]
#[ignore = "needs Garage: see docs/damage.md"]
fn another_region_than_its_own_is_refused_in_words_that_help() {
    let garage = Garage::start("eu-west-1");
    let repo = Repo::in_bucket(garage.bucket("region"));
    let wrong = repo.url.replace("region=eu-west-1", "region=us-east-1");
    let key_file = repo.path("keys.json").display().to_string();
    let server = Server::standalone();
    let create = ["snapshot", "create", "--source", &server.url(), "--name", "one", "--key-file", &key_file];
    for words in [&["snapshot", "list", "--no-encryption"][..], &create] {
        let refused = repo.cli.run(&[words, &["--repository", &wrong, "-o", "json"]].concat()).exits(19).error_json();
        let hint = refused["error"]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("another region") && hint.contains("?region="), "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("eu-west-1"), "it says which: {refused}");
        assert_eq!(refused["error"]["retryable"], false, "{refused}");
    }
    repo.run(&["snapshot", "create", "--source", &server.url(), "--name", "one"]).ok();
}

#[test]
#[ignore = "needs Garage: see docs/damage.md"]
fn jobs_that_want_one_name_and_make_one_repository_in_the_same_moment_make_one_snapshot() {
    let garage = Garage::start("us-east-1");
    let server = Server::start(&Options::new().line("rdb-key-save-delay 1000"));
    Keyspace::new(1, 1000).load(&server.nodes());
    for round in 0..5 {
        let repo = Repo::in_bucket(garage.bucket("race"));
        let words = |name: &str| repo.args(&["snapshot", "create", "--source", &server.url(), "--name", name]);
        // each of them makes the repository, too
        let jobs: Vec<_> = ["one", "one", "two"].map(|name| repo.cli.spawn(&words(name))).into_iter().collect();
        let [first, second, other] =
            <[_; 3]>::try_from(jobs.into_iter().map(|job| job.wait(LIMIT)).collect::<Vec<_>>()).unwrap();
        let mut codes = [first.code, second.code];
        codes.sort();
        assert!(matches!(codes, [Some(0), Some(11 | 18)]), "{round}: {first}\n{second}");
        assert_eq!(other.code, Some(0), "{round}: {other}");
        let mut listed = repo.list();
        listed.sort();
        assert_eq!(listed, [("one".to_owned(), "available".to_owned()), ("two".to_owned(), "available".to_owned())]);
        for name in ["one", "two"] {
            repo.json(&["snapshot", "verify", name]);
        }
    }
}

#[test]
#[ignore = "needs Garage: see docs/damage.md"]
fn copies_go_to_it_and_back_and_outlive_it() {
    let garage = Garage::start("us-east-1");
    let cluster = Cluster::start(3, 0);
    Keyspace::new(82, 600).load(&cluster.nodes());
    let [mut first, mut third] = ["copy-to-garage", "copy-from-garage"].map(Repo::bucket);
    let mut second = Repo::in_bucket(garage.bucket("copy"));
    // one program has credentials for both: those of Garage are a profile, which its URL names
    let profile = second.path("credentials");
    let bucket = second.bucket.as_ref().unwrap();
    let text =
        format!("[garage]\naws_access_key_id = {}\naws_secret_access_key = {}\n", bucket.access_key, bucket.secret_key);
    std::fs::write(&profile, text).unwrap();
    second.url += "&profile=garage";
    let cli = first.cli.clone().env("AWS_SHARED_CREDENTIALS_FILE", &profile);
    [&mut first, &mut second, &mut third].into_iter().for_each(|repo| repo.cli = cli.clone());
    first.create(&cluster.url(), "one");
    for (from, to) in [(&first, &second), (&second, &third)] {
        let copied = copy_to(from, to, &["--verify"]).ok().json();
        assert_eq!((&copied["name"], &copied["status"]), (&"one".into(), &"available".into()), "{copied}");
        assert_eq!(copied["streamed_bytes"], copied["stored_bytes"], "the servers do not know each other: {copied}");
        assert_eq!(copied["verified"], json!(true), "{copied}");
    }
    // the first one is gone with its key, then the server between
    std::fs::remove_file(first.path("keys.json")).unwrap();
    let bucket = first.bucket.as_ref().unwrap();
    bucket.list("").iter().for_each(|(key, _)| bucket.delete(key));
    second.json(&["snapshot", "verify", "one"]);
    std::fs::remove_file(second.path("keys.json")).unwrap();
    drop(garage);
    third.json(&["snapshot", "verify", "one"]);
    let (nodes, _launched) = third.launch("one", &["--shards", "2"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
}
