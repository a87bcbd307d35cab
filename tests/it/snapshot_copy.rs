//! A snapshot in another repository: it outlives the first one, its region and its keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backupd::crypt::keyring::Keyring;
use backupd::error::{Class, Error};
use backupd::progress::Progress;
use backupd::repository::{Keys, Repository};
use backupd::snapshot::copy::{self, Copied, Options, Transfer};
use backupd::store::{COPY_BYTES_MAX, LocalStore, Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::dying::Dying;
use crate::fixture::Repo;
use crate::harness::cli::Outcome;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::faults::{Fault, Faulty, Operation, first};
use crate::harness::keyspace::Keyspace;
use crate::harness::process::wait_for;
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::Server;
use crate::store_faults::incompressible;

/// The words that copy snapshot `one` of `from` into `to`, which has keys of its own.
pub(crate) fn words(from: &Repo, to: &Repo, more: &[&str]) -> Vec<String> {
    let key_file = to.path("keys.json").display().to_string();
    from.args(&[&["snapshot", "copy", "one", "--to", &to.url, "--to-key-file", &key_file], more].concat())
}

pub(crate) fn copy_to(from: &Repo, to: &Repo, more: &[&str]) -> Outcome {
    // a repository in a folder has no credentials
    let cli = if to.bucket.is_some() { &to.cli } else { &from.cli };
    cli.run(&words(from, to, more))
}

/// Removes a repository: all of its objects, and its keys.
fn destroy(repo: &Repo) {
    std::fs::remove_file(repo.path("keys.json")).unwrap();
    match &repo.bucket {
        None => std::fs::remove_dir_all(repo.root()).unwrap(),
        Some(bucket) => bucket.list("").iter().for_each(|(key, _)| bucket.delete(key)),
    }
}

fn fact<'a>(shown: &'a Value, kind: &str) -> &'a Value {
    let facts = shown["facts"].as_array().unwrap();
    facts.iter().find(|fact| fact["kind"] == kind).unwrap_or_else(|| panic!("no fact {kind} in {shown}"))
}

#[test]
fn a_copy_goes_from_region_to_region_to_folder_and_outlives_each_source_and_its_key() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(81, 600).load(&cluster.nodes());
    let first = Repo::bucket("copy-first");
    let second = Repo::in_bucket(Bucket::create_in_second_region("copy-second"));
    let (third, back) = (Repo::folder(), Repo::bucket("copy-back"));
    first.create(&cluster.url(), "one");
    let way = [&first, &second, &third, &back];
    for (index, pair) in way.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let copied = copy_to(from, to, &["--verify"]).ok().json();
        assert_eq!((&copied["name"], &copied["status"]), (&"one".into(), &"available".into()), "{copied}");
        let ring = Keyring::read(&to.path("keys.json")).unwrap();
        assert_eq!(copied["encryption"]["key_ids"], Value::from([ring.active_id()].as_slice()), "{copied}");
        assert_eq!(copied["streamed_bytes"], copied["stored_bytes"], "the servers do not know each other: {copied}");
        assert_eq!((&copied["source"], copied["shards"].as_array().unwrap().len()), (&"manual".into(), 3));
        let (here, there) = (from.json(&["snapshot", "show", "one"]), to.json(&["snapshot", "show", "one"]));
        assert_eq!(fact(&there, "copied")["says"]["from"], from.url.as_str(), "{index}: {there}");
        let said = here["facts"].as_array().unwrap().iter().any(|fact| fact["says"]["to"] == to.url.as_str());
        assert!(said, "{index}: {here}");
        assert_eq!(here["shards"], there["shards"]);
        // the destination's key alone opens it, and the source's does not
        let foreign = from.path("keys.json").display().to_string();
        let wrong = ["snapshot", "verify", "one", "--repository", &to.url, "--key-file", &foreign];
        to.cli.run(&wrong).exits(12);
        destroy(from);
        to.json(&["snapshot", "verify", "one"]);
    }
    let (nodes, _launched) = back.launch("one", &["--shards", "2"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
}

#[test]
fn within_one_server_no_byte_of_the_data_passes_through_here() {
    let server = incompressible(18);
    let from = Repo::bucket("server-from");
    from.create(&server.url(), "one");
    let stored = usize::try_from(from.json(&["snapshot", "show", "one"])["stored_bytes"].as_u64().unwrap()).unwrap();
    // one request, and parts: the threshold is a hidden flag
    for (label, more, operation) in
        [("whole", &[][..], Operation::Copy), ("parts", &["--copy-object-max", "8388608"], Operation::PartCopy(3))]
    {
        let to = Repo::bucket(&format!("server-{label}"));
        let endpoint = &from.bucket.as_ref().unwrap().endpoint;
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let proxy = Faulty::start(endpoint, move |operation| {
            log.lock().unwrap().push(operation);
            None
        });
        let words = to.through(from.through(words(&from, &to, more), &proxy.endpoint), &proxy.endpoint);
        let copied = from.cli.run(&words).ok().json();
        assert_eq!(
            (&copied["server_bytes"], &copied["streamed_bytes"]),
            (&copied["stored_bytes"], &0.into()),
            "{copied}"
        );
        assert!(seen.lock().unwrap().contains(&operation), "{label}: {:?}", seen.lock().unwrap());
        assert!(proxy.passed() < 200_000 && stored > 17_000_000, "{label}: {} bytes of {stored}", proxy.passed());
        to.json(&["snapshot", "verify", "one"]);
        assert_eq!(to.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0]);
    }
    // asked to go through here it does, and where the server cannot it is refused
    let to = Repo::bucket("server-stream");
    let copied = copy_to(&from, &to, &["--transfer", "stream"]).ok().json();
    assert_eq!((&copied["server_bytes"], &copied["streamed_bytes"]), (&0.into(), &copied["stored_bytes"]), "{copied}");
    let folder = Repo::folder();
    copy_to(&from, &folder, &["--transfer", "server"]).exits(18).says("only buckets");
    let elsewhere = Repo::in_bucket(Bucket::create_in_second_region("server-elsewhere"));
    copy_to(&from, &elsewhere, &["--transfer", "server"]).exits(18).says("different endpoints");
    assert!(folder.list().iter().chain(&elsewhere.list()).all(|(_, status)| status != "available"));
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_written() {
    let server = Server::standalone();
    server.run(&["SET", "a", "1"]);
    let (from, to) = (Repo::folder(), Repo::folder());
    from.create(&server.url(), "one");
    let key_file = to.path("keys.json").display().to_string();
    let copy = |more: &[&str]| from.run(&[&["snapshot", "copy", "one", "--to", &to.url], more].concat());
    from.run(&["snapshot", "copy", "none", "--to", &to.url]).exits(10);
    copy(&["--to-no-encryption"]).exits(18).says("encrypted");
    copy(&["--name", "a/b"]).exits(2);
    from.run(&["snapshot", "copy", "one", "--to", "nowhere"]).exits(10).says("nowhere");
    from.run(&["snapshot", "copy", "one", "--to", &from.url]).exits(18).says("another repository");
    assert!(!to.root().exists(), "nothing was written");
    // nor can there be a repository below a file
    assert_ne!(from.run(&["snapshot", "copy", "one", "--to", &format!("{key_file}/below")]).code, Some(0));
    let is_lease = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("lease-");
    assert!(!from.files().iter().any(|(path, _)| is_lease(path)), "what was refused holds nothing up");
    // the key of the source is the default, a folder can be named by its path, and the name is the user's
    let path = to.root().display().to_string();
    let copied = from.json(&["snapshot", "copy", "one", "--to", &path, "--name", "two"]);
    let ring = Keyring::read(&from.path("keys.json")).unwrap();
    assert_eq!((&copied["name"], &copied["encryption"]["key_ids"][0]), (&"two".into(), &ring.active_id().into()));
    copy(&["--name", "two"]).exits(18).says("already, as two");
    copy(&["--name", "three"]).exits(18).says("already, as two");
    // a name that another snapshot has
    to.create(&server.url(), "taken");
    from.create(&server.url(), "other");
    let other = ["snapshot", "copy", "other", "--to", &to.url, "--name", "taken", "--to-key-file", &key_file];
    from.run(&other).exits(18).says("taken exists");
    assert!(!to.files().iter().any(|(path, _)| is_lease(path)), "what was refused holds nothing up");
    // what is in the clear stays so, when that is said
    let clear = ["--source", &server.url(), "--name", "clear", "--repository", &from.url, "--no-encryption"];
    from.cli.run(&[&["snapshot", "create"], &clear[..]].concat()).ok();
    let base = ["snapshot", "copy", "clear", "--to", &to.url, "--repository", &from.url];
    let sealed = [&base[..], &["--to-key-file", &key_file]].concat();
    from.cli.run(&sealed).exits(18).says("--to-no-encryption");
    from.cli.run(&[&base[..], &["--to-no-encryption"]].concat()).ok();
    to.cli.run(&["snapshot", "verify", "clear", "--repository", &to.url, "--no-encryption"]).ok();
    // two names for one snapshot: the first try died, and its name is free for others
    let gone = Repo::folder();
    let claimed = words(&from, &gone, &["--name", "first"]);
    let blocked = gone.root().join("default");
    std::fs::create_dir_all(gone.root()).unwrap();
    std::fs::write(&blocked, "a file where a folder must be").unwrap();
    assert_ne!(from.cli.run(&claimed).code, Some(0));
    assert!(gone.root().join("_names/first/000001-released.json").exists(), "the claim is given back");
    std::fs::remove_file(&blocked).unwrap();
    copy_to(&from, &gone, &["--name", "second"]).ok();
    gone.create(&server.url(), "first");
    assert_eq!(gone.list().len(), 2);
}

/// Copies within this process, between folders, through these stores.
fn copy_here(from: Arc<dyn Store>, to: Arc<dyn Store>, repos: [&Repo; 2]) -> Result<Copied, Error> {
    let keys = |repo: &Repo| Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap());
    let options = Options {
        name: "one".to_owned(),
        new_name: "one".to_owned(),
        keys: keys(repos[0]),
        to_keys: keys(repos[1]),
        source_kind: "automated".to_owned(),
        transfer: Transfer::Auto,
        single_bytes_max: COPY_BYTES_MAX,
    };
    block_on(async move {
        let source = Repository::open(from).await?;
        copy::copy(&source, to, options, &Progress::default(), &CancellationToken::new()).await
    })
}

#[test]
fn a_copy_that_dies_at_any_write_of_either_side_is_finished_by_the_next() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(82, 60).load(&cluster.nodes());
    let from = Repo::folder();
    from.create(&cluster.url(), "one");
    let mut reused = 0;
    for dies_at_source in [false, true] {
        let mut rounds = 0;
        for writes in 0.. {
            let to = Repo::folder();
            let stores = [LocalStore::new(&from.root()), LocalStore::new(&to.root())];
            let [source, target] = stores.clone();
            let dying = Dying::after(if dies_at_source { source.clone() } else { target.clone() }, writes);
            let died = match dies_at_source {
                true => copy_here(dying.clone(), Arc::new(target), [&from, &to]),
                false => copy_here(Arc::new(source), dying.clone(), [&from, &to]),
            };
            rounds = writes;
            if !dying.is_dead() {
                assert_eq!(died.unwrap().manifest.source, "automated");
                break;
            }
            // this process lives on, and a claim of its own would be taken for one at work
            if let Ok(claims) = std::fs::read_dir(to.root().join("_names/one")) {
                claims.for_each(|claim| std::fs::remove_file(claim.unwrap().path()).unwrap());
            }
            let [source, target] = stores;
            let again = copy_here(Arc::new(source), Arc::new(target), [&from, &to]);
            match again {
                Ok(copied) => reused += copied.moved.reused_bytes,
                // it died after its last word to the source
                Err(error) => assert_eq!(error.class(), Class::Refused, "write {writes}: {error}"),
            }
            let notes = to.files().into_iter().filter(|(path, _)| path.to_str().unwrap().contains("/fact-copied-"));
            assert_eq!(notes.count(), 1, "write {writes}: it says once where it came from");
            to.json(&["snapshot", "verify", "one"]);
            to.json(&["gc", "apply", "--older-than", "0s"]);
            to.json(&["snapshot", "verify", "one"]);
            from.json(&["snapshot", "verify", "one"]);
        }
        // marker, claim, lease, three shards, wrap, fact, manifest, lease; lease, lease, fact
        assert!(rounds >= if dies_at_source { 3 } else { 10 }, "{rounds}");
    }
    assert!(reused > 0, "what had arrived was used again");
}

#[test]
fn what_an_earlier_attempt_left_is_looked_at_and_not_trusted() {
    let server = Server::standalone();
    Keyspace::new(83, 100).load(&server.nodes());
    let (from, to) = (Repo::folder(), Repo::folder());
    from.create(&server.url(), "one");
    let (path, mut body) =
        from.files().into_iter().find(|(path, _)| path.extension().is_some_and(|end| end == "bkd")).unwrap();
    let half = body.len() / 2;
    body[half] ^= 1;
    let there = to.root().join(path.strip_prefix(from.root()).unwrap());
    std::fs::create_dir_all(there.parent().unwrap()).unwrap();
    std::fs::write(&there, &body).unwrap();
    let copied = copy_to(&from, &to, &[]).ok().json();
    assert_eq!((&copied["reused_bytes"], &copied["streamed_bytes"]), (&0.into(), &copied["stored_bytes"]));
    to.json(&["snapshot", "verify", "one"]);
    // damage at the source is noticed on the way, and nothing is published
    std::fs::write(&path, &body).unwrap();
    let other = Repo::folder();
    copy_to(&from, &other, &[]).exits(17).says("SHA-256");
    assert!(other.list().iter().all(|(_, status)| status != "available"));
    assert!(!other.files().iter().any(|(path, _)| path.extension().is_some_and(|end| end == "bkd")));
}

#[test]
fn while_it_is_copied_a_snapshot_cannot_be_deleted_nor_its_copy_collected() {
    let server = incompressible(18);
    let (from, to) = (Repo::bucket("lease-from"), Repo::bucket("lease-to"));
    from.create(&server.url(), "one");
    let endpoint = &to.bucket.as_ref().unwrap().endpoint;
    let proxy = Faulty::start(endpoint, first(1, |operation| operation == Operation::Part(2), Fault::Stall));
    let job = from.cli.spawn(&to.through(words(&from, &to, &["--transfer", "stream"]), &proxy.endpoint));
    wait_for("the second part", Duration::from_secs(60), || match proxy.struck().len() {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    from.run(&["snapshot", "delete", "one"]).exits(11).says("copy");
    to.json(&["gc", "apply", "--older-than", "0s"]);
    assert_eq!(to.bucket.as_ref().unwrap().unfinished_uploads().len(), 1, "gc leaves the upload of a living job");
    to.run(&["snapshot", "show", "one"]).exits(11);
    copy_to(&from, &to, &["--name", "one"]).exits(11);
    drop(job);
    // a dead job holds nothing up
    copy_to(&from, &to, &[]).ok();
    from.json(&["snapshot", "delete", "one"]);
    to.json(&["snapshot", "verify", "one"]);
}
