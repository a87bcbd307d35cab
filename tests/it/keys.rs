//! Master keys: a new one is made and wraps everything, an old one goes, and no snapshot loses its last key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backupd::crypt::keyring::Keyring;
use backupd::crypt::master::Master;
use backupd::repository::{Keys, Repository};
use backupd::store::LocalStore;
use serde_json::Value;

use crate::dying::Dying;
use crate::fixture::Repo;
use crate::harness::keyspace::Keyspace;
use crate::harness::process::wait_for;
use crate::harness::s3::block_on;
use crate::harness::server::{Options, Server};

fn loaded() -> Server {
    let server = Server::standalone();
    Keyspace::new(41, 100).load(&server.nodes());
    server
}

fn active(repo: &Repo) -> String {
    Keyring::read(&repo.path("keys.json")).unwrap().active_id().to_owned()
}

/// A key command on the key file and the repository.
fn key(repo: &Repo, words: &[&str]) -> Value {
    repo.run(&[&["key"], words].concat()).ok().json()
}

/// What `key list` says: the snapshots that refer to each key.
fn references(repo: &Repo) -> BTreeMap<String, Vec<String>> {
    let list = key(repo, &["list"]);
    let names =
        |key: &Value| key["snapshots"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
    list["keys"].as_array().unwrap().iter().map(|key| (key["id"].as_str().unwrap().to_owned(), names(key))).collect()
}

/// Everything but wraps.
fn data(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_wrap = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("wrap-");
    repo.files().into_iter().filter(|(path, _)| !is_wrap(path)).collect()
}

#[test]
fn a_key_is_rotated_and_the_old_one_goes() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    repo.create(&server.url(), "two");
    let (first, before) = (active(&repo), data(&repo));
    std::fs::copy(repo.path("keys.json"), repo.path("old.json")).unwrap();
    let old = ["--repository", &repo.url, "--key-file", repo.path("old.json").to_str().unwrap()].map(str::to_owned);
    let with_old =
        |words: &[&str]| repo.cli.run(&[words, &old.iter().map(String::as_str).collect::<Vec<_>>()].concat());

    repo.run(&["key", "remove", &first]).exits(18).says("active");
    let rotated = key(&repo, &["rotate"]);
    let second = active(&repo);
    assert_eq!(rotated["key_id"], second.as_str());
    assert_eq!(rotated["repositories"][0]["wrapped"], serde_json::json!(["one", "two"]));
    assert_ne!(first, second);
    assert_eq!(data(&repo), before, "no byte of data changed");
    let both = vec!["one".to_owned(), "two".to_owned()];
    assert_eq!(references(&repo), BTreeMap::from([(first.clone(), both.clone()), (second.clone(), both.clone())]));
    // both key files open both snapshots; new ones are for the new key
    with_old(&["snapshot", "verify", "one"]).ok();
    repo.json(&["snapshot", "verify", "one"]);
    repo.create(&server.url(), "three");
    with_old(&["snapshot", "verify", "three"]).exits(12).says(&second);

    let removed = key(&repo, &["remove", &first]);
    assert_eq!(removed["wraps"], 2);
    let all = [both, vec!["three".to_owned()]].concat();
    assert_eq!(references(&repo), BTreeMap::from([(second.clone(), all.clone())]));
    for name in &all {
        repo.json(&["snapshot", "verify", name]);
        let outcome = with_old(&["snapshot", "verify", name]).exits(12);
        assert!(outcome.stderr.contains(&first) && outcome.stderr.contains(&second), "{outcome}");
    }
    repo.run(&["key", "remove", &first]).exits(10);
    repo.json(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]);
    // nothing is left to do
    assert_eq!(key(&repo, &["rotate", "--resume"])["repositories"][0]["wrapped"], serde_json::json!([]));
}

#[test]
fn a_key_that_is_needed_stays_and_a_snapshot_of_another_key_is_named() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let first = active(&repo);
    // another file with another key makes a snapshot in the same repository
    std::fs::rename(repo.path("keys.json"), repo.path("mine.json")).unwrap();
    repo.cli.run(&["key", "generate", repo.path("keys.json").to_str().unwrap()]).ok();
    let foreign = active(&repo);
    repo.create(&server.url(), "foreign");
    std::fs::rename(repo.path("mine.json"), repo.path("keys.json")).unwrap();
    let listed = key(&repo, &["list"]);
    assert_eq!(listed["not_in_file"][&foreign], serde_json::json!(["foreign"]));

    let outcome = repo.run(&["key", "rotate"]).exits(12).says("foreign");
    assert!(outcome.stderr.contains(&foreign), "{outcome}");
    assert_eq!(outcome.json()["repositories"][0]["wrapped"], serde_json::json!(["one"]));
    // its new wrap is spoilt: the old key is needed, and the file keeps it
    let wrap =
        repo.files().into_iter().find(|(path, _)| path.to_str().unwrap().contains(&format!("wrap-{}", active(&repo))));
    let (path, content) = wrap.unwrap();
    std::fs::write(&path, "{}").unwrap();
    repo.run(&["key", "remove", &first]).exits(18).says("one");
    std::fs::remove_file(&path).unwrap();
    repo.run(&["key", "remove", &first]).exits(18).says("one");
    std::fs::write(&path, content).unwrap();
    key(&repo, &["remove", &first]);
    repo.json(&["snapshot", "verify", "one"]);
    // a key file alone can be listed; what it opens is then not known
    let words =
        ["key", "list", "--key-file", repo.path("keys.json").to_str().unwrap(), "-o", "json"].map(str::to_owned);
    assert_eq!(repo.cli.json(&words)["keys"][0]["snapshots"], Value::Null);
    let words = ["key", "rotate", "--key-file", repo.path("keys.json").to_str().unwrap()].map(str::to_owned);
    repo.cli.run(&words).exits(2).says("--repository");
    assert_eq!(Keyring::read(&repo.path("keys.json")).unwrap().keys().len(), 1, "no key was made");
}

#[test]
fn a_snapshot_in_the_making_keeps_its_key() {
    let server = Server::start(&Options::new().line("rdb-key-save-delay 2000"));
    Keyspace::new(42, 1000).load(&server.nodes());
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let first = active(&repo);
    let job = repo.cli.spawn(&repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "late"]));
    wait_for("the claim", Duration::from_secs(20), || {
        if repo.root().join("_names/late/000001.json").exists() { Ok(()) } else { Err("none".to_owned()) }
    });
    key(&repo, &["rotate"]);
    repo.run(&["key", "remove", &first]).exits(11).says("late");
    job.wait(Duration::from_secs(120)).ok();
    // it was wrapped for the key that was active when it began
    repo.run(&["key", "remove", &first]).exits(18).says("late");
    assert_eq!(key(&repo, &["rotate", "--resume"])["repositories"][0]["wrapped"], serde_json::json!(["late"]));
    key(&repo, &["remove", &first]);
    for name in ["one", "late"] {
        repo.json(&["snapshot", "verify", name]);
    }
}

#[test]
fn rotation_and_removal_that_die_at_any_write_leave_every_snapshot_readable() {
    let server = loaded();
    let repo = Repo::folder();
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| drop(repo.create(&server.url(), name)));
    let first = active(&repo);
    let mut deaths = 0;
    for writes in 0.. {
        // as `key rotate` does: the key is in the file before the first wrap
        let ring = Keyring::add_active(&repo.path("keys.json")).unwrap();
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let done = block_on(async {
            let (keys, to) = (Keys::Keyring(ring.clone()), Master::File(ring.active().unwrap().clone()));
            Repository::open(dying.clone()).await.unwrap().rewrap(&keys, &to, None).await
        });
        names.iter().for_each(|name| drop(repo.json(&["snapshot", "verify", name])));
        if !dying.is_dead() {
            assert_eq!(done.unwrap().wrapped.len(), 3);
            break;
        }
        deaths += 1;
        key(&repo, &["rotate", "--resume"]);
    }
    assert_eq!(deaths, 3);
    let keys = Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap());
    for writes in 0.. {
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let done = block_on(async { Repository::open(dying.clone()).await.unwrap().remove_wraps(&keys, &first).await });
        names.iter().for_each(|name| drop(repo.json(&["snapshot", "verify", name])));
        if !dying.is_dead() {
            assert!(done.unwrap() > 0);
            break;
        }
    }
    assert!(references(&repo)[&first].is_empty());
    key(&repo, &["remove", &first]);
}
