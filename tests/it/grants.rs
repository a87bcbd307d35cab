//! Grants: another account of the S3 server reads what it was granted, with its own credentials and its own key, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use backupd::crypt::keyring::Keyring;
use backupd::repository::Keys;
use backupd::store::{RepositoryUrl, S3Store, Store};
use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cli::Cli;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::faults::Faulty;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::Server;
use crate::retention::{automated_into, verdicts};

/// The other account of the S3 server.
pub(crate) const OTHER: &str = "RGW22222222222222222";
/// Of somebody else, with spaces and an order that no writer of ours would choose.
const FOREIGN: &str = r#" { "Version" : "2012-10-17",
  "Statement" : [ {"Sid": "theirs",  "Effect":"Deny", "Principal": {"AWS": "arn:aws:iam::RGW22222222222222222:root"},
    "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::BUCKET/some/*" } ] }"#;

pub(crate) fn policy(bucket: &Bucket) -> Option<String> {
    let read = block_on(bucket.client().get_bucket_policy().bucket(&bucket.name).send());
    read.ok().and_then(|answer| answer.policy().map(str::to_owned))
}

fn is_refused<T, E: std::fmt::Debug>(result: Result<T, aws_sdk_s3::error::SdkError<E>>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.raw_response().map(|answer| answer.status().as_u16()), Some(403), "{error:?}");
            true
        }
    }
}

/// The keys that another account can neither read, ask after nor copy from; all or none of these for each.
pub(crate) fn refused_keys(bucket: &Bucket, other: &Client, own: &Bucket) -> Vec<String> {
    let (name, mut refused) = (&bucket.name, Vec::new());
    for (key, _) in bucket.list("") {
        let get = is_refused(block_on(other.get_object().bucket(name).key(&key).send()));
        let head = is_refused(block_on(other.head_object().bucket(name).key(&key).send()));
        assert_eq!((get, is_refused_as_source(name, &key, other, own)), (head, head), "{key}");
        if get {
            refused.push(key);
        }
    }
    refused
}

/// Whether a part of an upload of theirs cannot be copied from it. The server's `CopyObject` does not ask the policy.
fn is_refused_as_source(bucket: &str, key: &str, other: &Client, own: &Bucket) -> bool {
    block_on(async {
        let begun = other.create_multipart_upload().bucket(&own.name).key("stolen").send().await.unwrap();
        let id = begun.upload_id().unwrap();
        let part = other.upload_part_copy().bucket(&own.name).key("stolen").upload_id(id).part_number(1);
        let part = part.copy_source(format!("{bucket}/{key}")).customize().mutate_request(|request| {
            // radosgw wants the length of the empty body said
            request.headers_mut().insert("content-length", "0");
        });
        let copied = part.send().await;
        let refused = is_refused(copied);
        other.abort_multipart_upload().bucket(&own.name).key("stolen").upload_id(id).send().await.unwrap();
        refused
    })
}

pub(crate) fn is_list_refused(bucket: &Bucket, other: &Client, prefix: &str) -> bool {
    is_refused(block_on(other.list_objects_v2().bucket(&bucket.name).prefix(prefix).send()))
}

/// A bucket of the other account.
pub(crate) fn own_bucket(like: &Bucket) -> Bucket {
    let mut own = like.clone();
    own.name = format!("{}-theirs", like.name);
    (own.access_key, own.secret_key) = ("AK2".to_owned(), "SK2".to_owned());
    block_on(own.client_as("AK2", "SK2").create_bucket().bucket(&own.name).send()).unwrap();
    own
}

pub(crate) fn state_of(repo: &Repo, id: &Value) -> Option<Value> {
    let listed = repo.json(&["grant", "list"]);
    listed["grants"]
        .as_array()
        .unwrap()
        .iter()
        .find(|grant| grant["grant_id"] == *id)
        .map(|grant| grant["state"].clone())
}

#[test]
fn another_account_restores_and_copies_the_granted_snapshot_and_nothing_else() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(81, 300).load(&cluster.nodes());
    let repo = Repo::bucket("grants");
    let bucket = repo.bucket.clone().unwrap();
    let foreign = FOREIGN.replace("BUCKET", &bucket.name);
    block_on(bucket.client().put_bucket_policy().bucket(&bucket.name).policy(&foreign).send()).unwrap();
    assert_eq!(policy(&bucket).as_deref(), Some(foreign.as_str()), "the server keeps policies as they are");
    let granted = repo.create(&cluster.url(), "granted");
    repo.create(&cluster.url(), "neighbour");
    let folder =
        format!("some/prefix/{}/{}/", granted["cluster"].as_str().unwrap(), granted["snapshot_id"].as_str().unwrap());
    let other = bucket.client_as("AK2", "SK2");
    let own = own_bucket(&bucket);
    let keys = bucket.list("").len();
    assert_eq!(refused_keys(&bucket, &other, &own).len(), keys);
    assert!(is_list_refused(&bucket, &other, &folder));

    let theirs = Cli::new().envs(own.envs());
    let their_key = repo.path("theirs.json");
    let their_key = their_key.to_str().unwrap();
    theirs.run(&["key", "generate", their_key]).ok();
    let grant = repo.json(&["grant", "add", "granted", "--account", OTHER, "--key", their_key]);
    let id = grant["grant_id"].clone();
    assert_eq!((grant["state"].as_str(), grant["snapshot"].as_str()), (Some("in_force"), Some("granted")), "{grant}");
    assert_eq!(state_of(&repo, &id), Some("in_force".into()));

    // what they can read: the snapshot, its name and the marker of the repository
    let refused = refused_keys(&bucket, &other, &own);
    let readable = |key: &str| {
        key.starts_with(&folder)
            || key.starts_with("some/prefix/_names/granted/")
            || key == "some/prefix/backupd-repository.json"
    };
    let expected: Vec<String> = bucket.list("").into_iter().map(|(key, _)| key).filter(|key| !readable(key)).collect();
    assert!(!expected.is_empty() && expected.iter().any(|key| key.contains("neighbour")));
    assert_eq!(refused, expected);
    assert!(!is_list_refused(&bucket, &other, &folder));
    for prefix in ["", "some/prefix/", "some/prefix/_names/", "some/prefix/_names/neighbour/"] {
        assert!(is_list_refused(&bucket, &other, prefix), "{prefix}");
    }
    let put = other.put_object().bucket(&bucket.name).key(format!("{folder}more")).body(Vec::new().into());
    assert!(
        is_refused(block_on(put.send())) && is_refused(block_on(other.get_bucket_policy().bucket(&bucket.name).send()))
    );

    let dir = repo.path("restored");
    let words = ["restore", "granted", "--repository", &repo.url, "--key-file", their_key];
    let launch = ["--launch", dir.to_str().unwrap(), "--shards", "2", "-o", "json"];
    let restored = theirs.json(&[&words[..], &launch].concat());
    let _launched = Launched { dir };
    let url = format!("redis://127.0.0.1:{}", restored["nodes"][0]["port"]);
    compare(&cluster.nodes(), &nodes::discover(&url)).assert_equal();
    let copy = own.url("copy");
    let words =
        ["snapshot", "copy", "granted", "--repository", &repo.url, "--key-file", their_key, "--to", &copy, "--verify"];
    theirs.run(&words).ok();
    let neighbour = ["snapshot", "show", "neighbour", "--repository", &repo.url, "--key-file", their_key];
    theirs.run(&neighbour).exits(14);

    // retention says so and keeps it; what somebody changes in the policy is seen
    let now = policy(&bucket).unwrap();
    let wider = now.replace(&format!("{folder}*"), "some/prefix/*");
    assert_ne!(wider, now);
    block_on(bucket.client().put_bucket_policy().bucket(&bucket.name).policy(&wider).send()).unwrap();
    assert_eq!(state_of(&repo, &id), Some("changed".into()));
    let warned = || {
        let report = repo.json(&["check", "--source", &cluster.url()]);
        let findings = report["clusters"][0]["findings"].as_array().unwrap().clone();
        findings.iter().any(|finding| finding["message"].as_str().unwrap().contains(id.as_str().unwrap()))
    };
    assert!(warned(), "check tells of what was changed");
    block_on(bucket.client().put_bucket_policy().bucket(&bucket.name).policy(&foreign).send()).unwrap();
    assert_eq!(state_of(&repo, &id), Some("not_in_policy".into()));
    assert!(warned());
    block_on(bucket.client().put_bucket_policy().bucket(&bucket.name).policy(&now).send()).unwrap();
    assert!(!warned(), "and not of what is in force");
    // it is not deleted by mistake
    repo.run(&["snapshot", "delete", "granted"]).exits(18).says(&format!("grant revoke {}", id.as_str().unwrap()));
    repo.json(&["snapshot", "verify", "granted"]);

    let wraps = || bucket.list(&folder).iter().filter(|(key, _)| key.contains("/wrap-")).count();
    assert_eq!(wraps(), 2);
    repo.run(&["grant", "revoke", id.as_str().unwrap()]).ok();
    assert_eq!((wraps(), state_of(&repo, &id)), (1, None));
    assert_eq!(policy(&bucket).as_deref(), Some(foreign.as_str()), "what was there before is there to the byte");
    assert_eq!(refused_keys(&bucket, &other, &own).len(), bucket.list("").len());
    repo.run(&["grant", "revoke", id.as_str().unwrap()]).exits(10);
    // their copy is theirs
    let dir = repo.path("from-copy");
    let words =
        ["restore", "granted", "--repository", &copy, "--key-file", their_key, "--launch", dir.to_str().unwrap()];
    theirs.run(&words).ok();
    drop(Launched { dir });
}

#[test]
fn grants_of_a_cluster_are_for_later_snapshots_too_and_what_is_unsafe_is_refused() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(82, 50).load(&cluster.nodes());
    let repo = Repo::bucket("grants");
    let bucket = repo.bucket.clone().unwrap();
    let first = repo.create(&cluster.url(), "first");
    let name = first["cluster"].as_str().unwrap();
    let grant = repo.json(&["grant", "add", "--cluster", name, "--account", OTHER]);
    let later = repo.create(&cluster.url(), "later");
    let other = bucket.client_as("AK2", "SK2");
    let manifest = format!("some/prefix/{name}/{}/manifest.json", later["snapshot_id"].as_str().unwrap());
    let is_readable = |key: &str| !is_refused(block_on(other.get_object().bucket(&bucket.name).key(key).send()));
    assert!(is_readable(&manifest));
    assert_eq!(state_of(&repo, &grant["grant_id"]), Some("policy_only".into()));
    repo.run(&["grant", "revoke", grant["grant_id"].as_str().unwrap()]).ok();
    assert!(!is_readable(&manifest) && policy(&bucket).is_none());

    let before = bucket.list("").len();
    repo.run(&["grant", "add", "first", "--account", "*"]).exits(18).says("letters and digits");
    repo.run(&["grant", "add", "first", "--principal", "*"]).exits(18);
    repo.run(&["grant", "add", "missing", "--account", OTHER]).exits(10);
    repo.run(&["grant", "add", "first"]).exits(2);
    assert_eq!((bucket.list("").len(), policy(&bucket)), (before, None), "nothing is left of what was refused");
    let folder = Repo::folder();
    folder.create(&cluster.url(), "one");
    folder.run(&["grant", "add", "one", "--account", OTHER]).exits(18).says("no bucket");
}

#[test]
fn a_granted_snapshot_outlives_retention_and_goes_only_by_force() {
    let server = Server::standalone();
    Keyspace::new(84, 50).load(&server.nodes());
    let repo = Repo::bucket("grants-kept");
    let bucket = repo.bucket.as_ref().unwrap();
    let keys = Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap());
    let RepositoryUrl::Bucket(url) = repo.url.parse().unwrap() else { panic!("{} is no bucket", repo.url) };
    let credentials = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "tests");
    let store: Arc<dyn Store> = Arc::new(block_on(S3Store::open(&url, Some(credentials))).unwrap());
    for name in ["a1", "a2", "a3"] {
        automated_into(Arc::clone(&store), keys.clone(), ("default", &server), name);
    }
    let id = repo.json(&["grant", "add", "a1", "--account", OTHER])["grant_id"].as_str().unwrap().to_owned();
    let plan = verdicts(&repo.json(&["retention", "plan", "--keep-last", "1"]));
    let of = |name: &str| plan.iter().find(|(of, ..)| of == name).unwrap();
    let (_, verdict, reasons) = of("a1");
    assert!(verdict == "keep" && reasons.contains(&"granted".to_owned()), "{verdict} {reasons:?}");
    assert_eq!(of("a2").1, "mark");
    for _ in 0..2 {
        repo.json(&["retention", "apply", "--keep-last", "1", "--grace", "0s"]);
    }
    assert_eq!(repo.list().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a1", "a3"]);

    repo.run(&["snapshot", "delete", "a1"]).exits(18).says(&id);
    repo.json(&["snapshot", "delete", "a1", "--force"]);
    assert_eq!(repo.list().len(), 1);
    // what is left of the grant is seen, and taken back
    assert_eq!(state_of(&repo, &id.as_str().into()), Some("policy_only".into()));
    repo.json(&["grant", "revoke", &id]);
    assert_eq!(policy(bucket), None);
    // a grant that was taken back keeps nothing
    repo.create(&server.url(), "b");
    let id = repo.json(&["grant", "add", "b", "--account", OTHER])["grant_id"].as_str().unwrap().to_owned();
    repo.json(&["grant", "revoke", &id]);
    repo.json(&["snapshot", "delete", "b"]);
}

#[test]
fn what_is_granted_is_found_in_one_pass_however_many_snapshots_there_are() {
    let server = Server::standalone();
    let repo = Repo::bucket("grants-many");
    let bucket = repo.bucket.as_ref().unwrap();
    let one = repo.create(&server.url(), "one");
    let id = repo.json(&["grant", "add", "one", "--account", OTHER])["grant_id"].clone();
    let counted = |words: &[&str]| {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let proxy = Faulty::start(&bucket.endpoint, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            None
        });
        let outcome = repo.cli.run(&repo.through(repo.args(words), &proxy.endpoint));
        (outcome.ok().json(), count.load(Ordering::Relaxed))
    };
    let (before, few) = counted(&["grant", "list"]);
    let manifest = format!("some/prefix/default/{}/manifest.json", one["snapshot_id"].as_str().unwrap());
    let manifest = bucket.get(&manifest);
    for number in 0..300 {
        bucket.put(&format!("some/prefix/other/20261129T070000Z-{number:08x}/manifest.json"), &manifest);
    }
    // what a removal that died may leave is no snapshot's
    let fact = bucket.list("").into_iter().map(|(key, _)| key).find(|key| key.contains("/fact-granted-")).unwrap();
    let file = fact.rsplit('/').next().unwrap();
    bucket.put(&format!("some/prefix/other/gone/{file}"), &bucket.get(&fact));
    let (after, many) = counted(&["grant", "list"]);
    println!("grant list: {few} requests with one snapshot, {many} with 301");
    assert_eq!((&after, &before["grants"][0]["grant_id"]), (&before, &id));
    assert_eq!(many, few + 1, "one more, for the place that has a note and no snapshot");
    let (_, many) = counted(&["grant", "revoke", id.as_str().unwrap()]);
    println!("grant revoke: {many} requests with 301 snapshots");
    assert!(many <= 20, "{many}");
    assert_eq!((state_of(&repo, &id), policy(bucket)), (None, None));
}
