//! Deletion and garbage: what goes, what stays, and that dying in the middle of either harms no snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backupd::error::Class;
use backupd::repository::gc::GUARD;
use backupd::repository::removal::Despite;
use backupd::repository::{Place, Repository};
use backupd::store::{LocalStore, Store};

use crate::dying::Dying;
use crate::fixture::Repo;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::process::wait_for;
use crate::harness::s3::block_on;
use crate::harness::server::{Options, Server};

pub(crate) fn loaded() -> Server {
    let server = Server::standalone();
    Keyspace::new(31, 200).load(&server.nodes());
    server
}

/// A server that takes seconds to be captured.
fn slow() -> Server {
    let server = Server::start(&Options::new().line("rdb-key-save-delay 2000"));
    Keyspace::new(32, 1000).load(&server.nodes());
    server
}

/// The files of the repository below its folder, without the marker.
pub(crate) fn names(repo: &Repo) -> Vec<String> {
    let relative = |path: PathBuf| path.strip_prefix(repo.root()).unwrap().display().to_string();
    let names = repo.files().into_iter().map(|(path, _)| relative(path));
    // that a snapshot was verified is noted beside it
    names.filter(|name| name != "backupd-repository.json" && !name.contains("/fact-verified-")).collect()
}

pub(crate) fn place(repo: &Repo) -> Place {
    let folder = repo.snapshot_files()[0].0.parent().unwrap().to_owned();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    Place { cluster: name(folder.parent().unwrap()), snapshot_id: name(&folder) }
}

pub(crate) async fn open(store: Arc<dyn Store>) -> Repository {
    Repository::open(store).await.unwrap()
}

#[test]
fn a_deleted_snapshot_is_gone_its_name_is_free_and_the_others_stay() {
    let server = loaded();
    for repo in [Repo::folder(), Repo::bucket("delete")] {
        repo.create(&server.url(), "one");
        repo.create(&server.url(), "two");
        repo.json(&["snapshot", "keep", "one"]);
        repo.run(&["snapshot", "delete", "one"]).exits(18).says("kept");
        let shown = repo.json(&["snapshot", "show", "one"]);
        assert_eq!((&shown["facts"][0]["kind"], &shown["facts"][0]["says"]["kept"]), (&"kept".into(), &true.into()));
        repo.json(&["snapshot", "keep", "one", "--release"]);
        let deleted = repo.json(&["snapshot", "delete", "one"]);
        assert_eq!((deleted["left"].as_array().unwrap().len(), deleted["name"].as_str()), (0, Some("one")));
        assert_eq!(repo.list(), [("two".to_owned(), "available".to_owned())]);
        repo.run(&["snapshot", "delete", "one"]).exits(10);
        repo.run(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]).exits(10);
        repo.json(&["snapshot", "verify", "two"]);
        // two deletions leave nothing at all but the marker; the name can be used at once
        repo.create(&server.url(), "one");
        repo.json(&["snapshot", "verify", "one"]);
        for name in ["one", "two"] {
            // no key is needed
            repo.cli.run(&["snapshot", "delete", name, "--repository", &repo.url]).ok();
        }
        match &repo.bucket {
            None => assert_eq!(names(&repo), [""; 0]),
            Some(bucket) => assert_eq!(bucket.list("").len(), 1, "{:?}", bucket.list("")),
        }
    }
}

#[test]
fn a_broken_snapshot_is_deleted_only_when_that_is_asked_for() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let manifest = repo.root().join(place(&repo).manifest_key());
    std::fs::write(&manifest, "{}").unwrap();
    let note = manifest.with_file_name("note.txt");
    std::fs::write(&note, "not ours").unwrap();
    let id = place(&repo).snapshot_id;
    assert_eq!(repo.list(), [(id.clone(), "broken".to_owned())]);
    repo.run(&["snapshot", "delete", "one"]).exits(17).says("--broken");
    repo.run(&["snapshot", "delete", &id]).exits(10);
    let deleted = repo.json(&["snapshot", "delete", "one", "--broken"]);
    assert_eq!(deleted["left"].as_array().unwrap().len(), 1, "{deleted}");
    assert!(note.exists(), "what is not ours stays");
    assert_eq!(repo.list(), []);
    // --broken is no way around a manifest that is whole, and its id is a name for it
    repo.create(&server.url(), "two");
    let place = Place {
        cluster: "default".into(),
        snapshot_id: repo.json(&["snapshot", "show", "two"])["snapshot_id"].as_str().unwrap().into(),
    };
    repo.run(&["snapshot", "delete", &place.snapshot_id, "--broken"]).exits(10);
    std::fs::write(repo.root().join(place.manifest_key()), "{}").unwrap();
    std::fs::remove_dir_all(repo.root().join("_names")).unwrap();
    repo.json(&["snapshot", "delete", &place.snapshot_id, "--broken"]);
    assert_eq!(repo.list(), []);
}

/// Makes a tombstone that was written by this process one whose process is gone: here that of the snapshot's maker.
fn bury(repo: &Repo) {
    for (path, content) in repo.files() {
        if !path.file_name().unwrap().to_str().unwrap().starts_with("fact-tombstone-") {
            continue;
        }
        let claim = std::fs::read(repo.root().join("_names/other/000001.json")).unwrap();
        let claim: serde_json::Value = serde_json::from_slice(&claim).unwrap();
        let mut stone: serde_json::Value = serde_json::from_slice(&content).unwrap();
        stone.as_object_mut().unwrap().remove("digest");
        stone["says"]["process"] = claim["process"].clone();
        let file = backupd::canonical::seal(&stone, backupd::canonical::Proof::Digest).unwrap();
        std::fs::write(path, file).unwrap();
    }
}

#[test]
fn a_deletion_that_dies_at_any_write_leaves_a_whole_snapshot_or_garbage() {
    let server = loaded();
    let mut outcomes = Vec::new();
    for writes in 0.. {
        let repo = Repo::folder();
        repo.create(&server.url(), "one");
        repo.create(&server.url(), "other");
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let deleted = block_on(async { open(dying.clone()).await.delete("one", Despite::default()).await });
        if !dying.is_dead() {
            deleted.unwrap();
            break;
        }
        assert!(deleted.is_err(), "write {writes}");
        let status = repo.list().into_iter().find(|(name, _)| name == "one").map(|(_, status)| status);
        outcomes.push(status.clone());
        bury(&repo);
        if status.as_deref() == Some("available") {
            repo.run(&["snapshot", "verify", "one"]).ok();
            repo.json(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]);
        }
        // the same command again ends it, or finds that it had ended
        let again = repo.run(&["snapshot", "delete", "one"]);
        assert!(matches!(again.code, Some(0 | 10)), "write {writes}: {again}");
        // what only gc can still find is old enough when no age is asked for
        repo.json(&["gc", "apply", "--older-than", "0s"]);
        assert_eq!(repo.list(), [("other".to_owned(), "available".to_owned())], "write {writes}");
        assert_eq!(names(&repo).len(), 4, "write {writes}: {:?}", names(&repo));
        repo.create(&server.url(), "one");
        repo.json(&["snapshot", "verify", "one"]);
        repo.json(&["snapshot", "verify", "other"]);
    }
    // before the tombstone, the note on the claim, the manifest; then data, wrap, tombstone, claim, its note
    let available = |outcome: &&Option<String>| outcome.as_deref() == Some("available");
    assert_eq!((outcomes.iter().filter(available).count(), outcomes.len()), (3, 8), "{outcomes:?}");
}

/// Makes the claim on a name one of this process, which is alive, as that of a daemon is.
fn revive(repo: &Repo, name: &str) {
    let path = repo.root().join(format!("_names/{name}/000001.json"));
    let mut claim: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    claim.as_object_mut().unwrap().remove("digest");
    claim["process"] = serde_json::to_value(backupd::repository::claim::Process::this()).unwrap();
    std::fs::write(path, backupd::canonical::seal(&claim, backupd::canonical::Proof::Digest).unwrap()).unwrap();
}

#[test]
fn a_name_is_free_once_the_manifest_is_gone_however_young_the_claim_and_alive_its_maker() {
    let server = loaded();
    for writes in 3.. {
        let repo = Repo::folder();
        repo.create(&server.url(), "one");
        revive(&repo, "one");
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let deleted = block_on(async { open(dying.clone()).await.delete("one", Despite::default()).await });
        assert_eq!(deleted.is_err(), dying.is_dead());
        repo.create(&server.url(), "one");
        repo.json(&["snapshot", "verify", "one"]);
        if !dying.is_dead() {
            break;
        }
    }
}

#[test]
fn a_gc_that_dies_at_any_write_harms_nothing_and_the_next_goes_on() {
    let server = slow();
    let repo = Repo::folder();
    repo.create(&server.url(), "whole");
    // the state that a killed job leaves, to be copied for every round
    let job = repo.cli.spawn(&repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "killed"]));
    let mut job = job;
    wait_for("the claim", Duration::from_secs(20), || {
        if repo.root().join("_names/killed/000001.json").exists() { Ok(()) } else { Err("none".to_owned()) }
    });
    job.running.kill();
    let claim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(repo.root().join("_names/killed/000001.json")).unwrap()).unwrap();
    let orphan = repo.root().join("default").join(claim["snapshot_id"].as_str().unwrap());
    let put_back = |round: u32| {
        std::fs::create_dir_all(&orphan).unwrap();
        for file in ["shard-0000-1.bkd", "shard-0001-1.bkd", "wrap-k-0011.json"] {
            std::fs::write(orphan.join(file), round.to_string()).unwrap();
        }
        std::fs::create_dir_all(repo.root().join("_names/killed")).unwrap();
        std::fs::write(repo.root().join("_names/killed/000001.json"), claim.to_string()).unwrap();
    };
    // a temporary file of the killed job is too young to be told from one in use
    let aside = repo
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-"));
    aside.for_each(|path| std::fs::remove_file(path).unwrap());
    let mut rounds = 0;
    for writes in 0.. {
        put_back(writes);
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let cleaned = block_on(async { open(dying.clone()).await.apply_gc(Duration::ZERO).await });
        rounds = writes;
        if !dying.is_dead() {
            assert!(cleaned.unwrap().applied);
            break;
        }
        assert!(cleaned.is_err(), "write {writes}");
        repo.json(&["snapshot", "verify", "whole"]);
        repo.json(&["gc", "apply", "--older-than", "0s"]);
        assert_eq!(names(&repo).len(), 4, "write {writes}: {:?}", names(&repo));
    }
    // clock object twice, note, tombstone, three objects, tombstone, note, claim; more when a temporary file was left
    assert!(rounds >= 10, "{rounds}");
    assert_eq!(names(&repo).len(), 4, "{:?}", names(&repo));
    repo.json(&["snapshot", "verify", "whole"]);
}

#[test]
fn a_restore_in_progress_is_honoured_and_a_dead_one_is_not() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let place = place(&repo);
    let folder = repo.root().join(place.key(""));
    let leases = || {
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.filter(|name| name.starts_with("lease-")).count()
    };
    let repository = block_on(open(Arc::new(LocalStore::new(&repo.root()))));
    block_on(async {
        let runtime = tokio::runtime::Handle::current();
        let lease = repository.lease(&place, "restore").await.unwrap();
        assert_eq!(leases(), 1);
        let (blocked, collected) = runtime
            .spawn_blocking({
                let (cli, delete) = (repo.cli.clone(), repo.args(&["snapshot", "delete", "one"]));
                let gc = repo.args(&["gc", "apply", "--older-than", "0s"]);
                move || (cli.run(&delete), cli.run(&gc))
            })
            .await
            .unwrap();
        blocked.exits(11).says("being read");
        collected.ok();
        assert_eq!(leases(), 1, "gc leaves a lease that is alive");
        lease.release().await;
    });
    assert_eq!(leases(), 0);

    // a job whose process is gone holds nothing up, though its lease has not run out: here that of the snapshot's maker
    let claim = std::fs::read(repo.root().join("_names/one/000001.json")).unwrap();
    let claim: serde_json::Value = serde_json::from_slice(&claim).unwrap();
    let id = "20261123T081500Z-0a1b2c3d";
    let dead = serde_json::json!({
        "format": 1, "snapshot_id": place.snapshot_id, "lease_id": id, "purpose": "restore",
        "expires_unix_ms": 9_000_000_000_000_u64, "process": claim["process"],
    });
    let file = backupd::canonical::seal(&dead, backupd::canonical::Proof::Digest).unwrap();
    std::fs::write(folder.join(format!("lease-{id}-000001.json")), file).unwrap();
    repo.run(&["snapshot", "delete", "one"]).ok();
    assert_eq!((repo.list(), names(&repo)), (vec![], vec![]));
}

#[test]
fn a_reader_steps_back_from_a_snapshot_that_is_being_deleted() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let place = place(&repo);
    block_on(async {
        // dies right after its tombstone; its process, which is this one, is still there
        let dying = Dying::after(LocalStore::new(&repo.root()), 1);
        open(dying).await.delete("one", Despite::default()).await.unwrap_err();
        let repository = open(Arc::new(LocalStore::new(&repo.root()))).await;
        let error = repository.lease(&place, "restore").await.unwrap_err();
        assert_eq!((error.class(), error.is_retryable()), (Class::Busy, true), "{error}");
    });
    // the process that died would be seen to be gone; here only its expiry could tell, so the deletion is ended instead
    repo.run(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]).exits(11);
    repo.run(&["snapshot", "delete", "one"]).ok();
}

#[test]
fn gc_leaves_what_is_young_alive_or_foreign() {
    let server = slow();
    let repo = Repo::folder();
    repo.create(&server.url(), "whole");
    let foreign = [
        "notes.txt",
        "default/notes.txt",
        "default/20261123T081500Z-0a1b2c3d/notes.txt",
        "_other/x",
        "default/not-an-id/shard-0000-1.bkd",
    ];
    for file in foreign {
        let path = repo.root().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "not ours").unwrap();
    }
    // an old folder of ours that nobody claims, one that only claims to be old, and a retaken shard
    let old = repo.root().join("default/20200101T000000Z-00000001/shard-0000-1.bkd");
    let touched = repo.root().join("default/20200101T000000Z-00000002/shard-0000-1.bkd");
    let retaken = repo.root().join(place(&repo).key("shard-0000-2.bkd"));
    for file in [&old, &touched, &retaken] {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "garbage").unwrap();
    }
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    let tmp = repo.root().join(".tmp-00112233445566778899aabbccddeeff");
    std::fs::write(&tmp, "left by a process that died").unwrap();
    std::fs::File::options().write(true).open(&tmp).unwrap().set_modified(long_ago).unwrap();

    let plan = repo.json(&["gc", "plan"]);
    let keys = |plan: &serde_json::Value, list: &str| {
        let key = |entry: &serde_json::Value| entry.get("key").unwrap_or(entry).as_str().unwrap().to_owned();
        let mut keys: Vec<String> = plan[list].as_array().unwrap().iter().map(key).collect();
        keys.sort();
        keys
    };
    let expected = [".tmp-00112233445566778899aabbccddeeff", "default/20200101T000000Z-00000001/shard-0000-1.bkd"];
    assert_eq!(keys(&plan, "removes"), expected, "{plan}");
    let mut sorted = foreign;
    sorted.sort_unstable();
    assert_eq!(keys(&plan, "unknown"), sorted);
    assert!(keys(&plan, "keeps").contains(&"default/20200101T000000Z-00000002/shard-0000-1.bkd".to_owned()), "{plan}");
    assert!(old.exists() && tmp.exists(), "a plan removes nothing");

    // a job at work is safe whatever age is asked for
    let job = repo.cli.spawn(&repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "alive"]));
    wait_for("the claim", Duration::from_secs(20), || {
        if repo.root().join("_names/alive/000001.json").exists() { Ok(()) } else { Err("none".to_owned()) }
    });
    let applied = repo.json(&["gc", "apply", "--older-than", "0s"]);
    assert_eq!(applied["applied"], true);
    job.wait(Duration::from_secs(120)).ok();
    assert!(!old.exists() && !touched.exists() && !retaken.exists(), "{applied}");
    assert!(foreign.iter().all(|file| repo.root().join(file).exists()), "{applied}");
    for name in ["whole", "alive"] {
        repo.json(&["snapshot", "verify", name]);
    }
    repo.json(&["gc", "apply", "--older-than", "0s"]);
    assert!(!tmp.exists(), "with no job at work the temporary file goes too");
    let (nodes, _launched) = repo.launch("alive", &[]);
    compare(&server.nodes(), &nodes).assert_equal();
    assert_eq!(GUARD, Duration::from_secs(86_400), "the documents name the guard");
}

#[test]
fn gc_of_a_bucket_aborts_uploads_of_ours_and_no_others() {
    let server = loaded();
    let repo = Repo::bucket("gc");
    repo.create(&server.url(), "one");
    let bucket = repo.bucket.as_ref().unwrap();
    let id = "20200101T000000Z-00000001";
    let shard = format!("some/prefix/default/{id}/shard-0000-1.bkd");
    bucket.put(&shard, b"garbage");
    bucket.put("some/prefix/default/notes.txt", b"foreign");
    for key in [&format!("some/prefix/default/{id}/shard-0001-1.bkd"), "some/prefix/notes", "elsewhere"] {
        block_on(bucket.client().create_multipart_upload().bucket(&bucket.name).key(key).send()).unwrap();
    }
    let plan = repo.json(&["gc", "plan"]);
    assert_eq!(plan["removes"].as_array().unwrap().len(), 0, "{plan}");
    let applied = repo.json(&["gc", "apply", "--older-than", "0s"]);
    assert_eq!(applied["removes"].as_array().unwrap().len(), 2, "{applied}");
    assert_eq!(bucket.unfinished_uploads(), ["elsewhere", "some/prefix/notes"]);
    assert!(!bucket.list("").iter().any(|(key, _)| key.contains(id) || key.contains("_gc")), "{:?}", bucket.list(""));
    assert!(bucket.list("").iter().any(|(key, _)| key.ends_with("notes.txt")));
    repo.json(&["snapshot", "verify", "one"]);
}
