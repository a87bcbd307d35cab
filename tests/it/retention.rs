//! Retention with real snapshots: what is marked, what goes, what stays, and who wins races.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backupd::catalog::{Catalog, Mark};
use backupd::config::Capture;
use backupd::crypt::keyring::Keyring;
use backupd::error::Class;
use backupd::jobs::reach::care;
use backupd::progress::Progress;
use backupd::redis::SourceOptions;
use backupd::repository::retention::Question;
use backupd::repository::{Keys, Place, Repository};
use backupd::snapshot::create;
use backupd::snapshot::method::Method;
use backupd::store::{LocalStore, Store};
use policies::replica::Wishes;
use policies::retention::{Cluster, Policy};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::dying::Dying;
use crate::fixture::Repo;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::mount::Mount;
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::Server;

fn loaded() -> Server {
    let server = Server::standalone();
    Keyspace::new(33, 100).load(&server.nodes());
    server
}

/// Makes a snapshot as the daemon does, in a folder.
fn automated(repo: &Repo, server: &Server, name: &str) {
    let keys = Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap());
    automated_in(&repo.root(), keys, ("default", server), name);
}

pub(crate) fn automated_in(root: &Path, keys: Keys, of: (&str, &Server), name: &str) {
    automated_into(Arc::new(LocalStore::new(root)), keys, of, name);
}

pub(crate) fn automated_into(store: Arc<dyn Store>, keys: Keys, (cluster, server): (&str, &Server), name: &str) {
    let options = create::Options {
        name: name.to_owned(),
        cluster: cluster.to_owned(),
        snapshot_id: None,
        source_kind: "automated".to_owned(),
        source: SourceOptions::new(vec![server.url().parse().unwrap()]),
        wishes: Wishes::default(),
        method: Method::Stream,
        care: care(&Capture::default()).unwrap(),
        turns: None,
        lend: None,
        settle_wait: Duration::from_secs(5),
        keys,
        level: 1,
        tags: BTreeMap::new(),
    };
    block_on(create::create(store, options, Arc::new(Progress::default()), CancellationToken::new())).unwrap();
}

/// Each snapshot with its verdict and the rules behind it.
pub(crate) fn verdicts(report: &Value) -> Vec<(String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rules = |line: &Value| line["reasons"].as_array().unwrap().iter().map(|reason| text(&reason["rule"])).collect();
    let lines = report["snapshots"].as_array().unwrap();
    lines.iter().map(|line| (text(&line["name"]), text(&line["verdict"]), rules(line))).collect()
}

fn verdict_of(report: &Value, name: &str) -> String {
    verdicts(report).into_iter().find(|(found, ..)| found == name).unwrap().1
}

fn names(repo: &Repo) -> Vec<String> {
    repo.list().into_iter().map(|(name, _)| name).collect()
}

fn place(repo: &Repo, name: &str) -> Place {
    let shown = repo.json(&["snapshot", "show", name]);
    Place { cluster: "default".into(), snapshot_id: shown["snapshot_id"].as_str().unwrap().into() }
}

/// Judges, and carries out until the store dies.
async fn apply(store: Arc<dyn Store>, question: Question<'_>) -> backupd::error::Result<()> {
    let repository = Repository::open(store).await.unwrap();
    let mut plan = repository.plan_to_apply(question).await?;
    for line in &mut plan.lines {
        repository.carry_out(line).await?;
    }
    Ok(())
}

const APPLY: [&str; 6] = ["retention", "apply", "--keep-last", "1", "--grace", "0s"];

#[test]
fn what_nothing_keeps_is_marked_then_removed_and_the_rest_stays() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "by-hand");
    for name in ["a1", "a2", "a3", "a4"] {
        automated(&repo, &server, name);
    }
    repo.json(&["snapshot", "keep", "a1"]);

    let plan = repo.json(&["retention", "plan", "--keep-last", "1"]);
    let kept = |rules: &[&str]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of = |name: &str, verdict: &str, rules: &[&str]| (name.to_owned(), verdict.to_owned(), kept(rules));
    assert_eq!(
        verdicts(&plan),
        [
            of("by-hand", "keep", &["not-automated"]),
            of("a1", "keep", &["kept"]),
            of("a2", "mark", &[]),
            of("a3", "mark", &[]),
            of("a4", "keep", &["newest-available", "keep-last"]),
        ]
    );
    assert_eq!((&plan["applied"], names(&repo).len()), (&Value::from(false), 5));

    // a day passes between the mark and the removal, unless another time is asked for
    let marked = repo.json(&["retention", "apply", "--keep-last", "1"]);
    assert_eq!(verdict_of(&marked, "a2"), "mark");
    assert_eq!(verdict_of(&repo.json(&APPLY), "a2"), "wait");
    assert_eq!(names(&repo).len(), 5);
    // what something keeps again loses its mark, and is marked anew
    assert_eq!(verdict_of(&repo.json(&["retention", "apply", "--keep-days", "7"]), "a2"), "unmark");
    assert_eq!(verdict_of(&repo.json(&APPLY), "a2"), "mark");
    let removed = repo.json(&APPLY);
    assert_eq!((verdict_of(&removed, "a2"), verdict_of(&removed, "a3")), ("remove".to_owned(), "remove".to_owned()));
    assert_eq!(names(&repo), ["by-hand", "a1", "a4"]);
    assert_eq!(verdicts(&repo.json(&APPLY)).len(), 3);
    repo.json(&["gc", "apply", "--older-than", "0s"]);
    for name in ["by-hand", "a1", "a4"] {
        repo.json(&["snapshot", "verify", name]);
    }
    let (nodes, _launched) = repo.launch("a4", &[]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn plans_without_rules_or_for_too_much_are_refused() {
    let server = loaded();
    let repo = Repo::folder();
    for name in ["a1", "a2", "a3", "a4", "a5"] {
        automated(&repo, &server, name);
    }
    repo.run(&["retention", "plan"]).exits(18).says("--keep-last");
    let refused = repo.run(&APPLY).exits(18).says("4 of 5 automated snapshots would expire, more than 50 percent");
    assert_eq!(refused.json()["refused"][0]["cluster"], "default");
    repo.run(&["retention", "plan", "--keep-last", "1"]).exits(18).says("--max-share");
    let larger = repo.json(&["retention", "plan", "--keep-last", "1", "--max-share", "80"]);
    assert_eq!(verdicts(&larger).iter().filter(|line| line.1 == "mark").count(), 4);
    assert!(repo.files().iter().all(|(path, _)| !path.to_string_lossy().contains("fact-")), "nothing was marked");
    repo.run(&["retention", "plan", "--keep-days", "36"]).exits(2);
}

#[test]
fn the_configuration_says_what_is_kept_and_the_catalog_follows() {
    let server = loaded();
    let repo = Repo::folder();
    let config = repo.path("backupd.toml");
    let text = |cluster: &str| {
        format!(
            "[catalog]\npath = \"c.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
             [repositories.never-used]\nurl = \"file://{}\"\nno_encryption = true\n\
             [clusters.{cluster}]\nsources = [\"{}\"]\nrepository = \"main\"\nretention = {{ keep_last = 1 }}\n",
            repo.url,
            repo.path("other").display(),
            server.url()
        )
    };
    for name in ["a1", "a2"] {
        automated(&repo, &server, name);
    }
    let cli = repo.cli.clone().env("BACKUPD_CONFIG", &config);
    let run = |words: &[&str]| cli.json(&[words, &["-o", "json"]].concat());
    // of a cluster that is not in the configuration nothing is touched
    std::fs::write(&config, text("others")).unwrap();
    let unknown = run(&["retention", "apply", "--grace", "0s"]);
    assert!(verdicts(&unknown).iter().all(|line| line.1 == "keep" && line.2 == ["unknown-cluster"]), "{unknown}");
    std::fs::write(&config, text("default")).unwrap();
    run(&["catalog", "rebuild"]);
    run(&["retention", "apply", "--grace", "0s", "--cluster", "default"]);
    assert_eq!(verdict_of(&run(&["retention", "apply", "--cluster", "default"]), "a1"), "remove");
    assert_eq!(names(&repo), ["a2"]);
    cli.run(&["catalog", "check"]).exits(0);
    let table = cli.run(&["retention", "plan"]).ok();
    assert!(table.stdout.contains("the newest that is available, 1 of the 1 newest"), "{table}");
}

#[test]
fn what_went_before_the_store_failed_is_noted_and_audited() {
    let server = loaded();
    let repo = Repo::folder();
    let config = repo.path("backupd.toml");
    let text = format!(
        "[catalog]\npath = \"c.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
         [clusters.default]\nsources = [\"{}\"]\nrepository = \"main\"\nretention = {{ keep_last = 1 }}\n",
        repo.url,
        server.url()
    );
    std::fs::write(&config, &text).unwrap();
    for name in ["a1", "a2", "a3", "a4"] {
        automated(&repo, &server, name);
    }
    let cli = repo.cli.clone().env("BACKUPD_CONFIG", &config);
    let apply = ["retention", "apply", "--grace", "0s", "-o", "json"];
    cli.run(&["catalog", "rebuild"]).ok();
    cli.run(&apply).ok();
    let failing = Mount::elsewhere(&repo.root().join(place(&repo, "a2").key("")));
    let failed = cli.run(&apply).exits(19);
    let problem = |n: usize| failed.json()["snapshots"][n]["problem"].as_str().map(str::to_owned);
    assert_eq!((problem(0), problem(2).as_deref()), (None, Some("it was not reached")));
    assert!(problem(1).unwrap().contains("link"), "{failed}");
    drop(failing);
    assert_eq!(names(&repo), ["a2", "a3", "a4"]);
    cli.run(&["catalog", "check"]).ok();
    let audit = cli.json(&["event", "audit", "-o", "json"])["lines"].as_array().unwrap().clone();
    let told: Vec<_> =
        audit.iter().map(|it| (it["action"].as_str().unwrap(), it["subject"].as_str().unwrap())).collect();
    assert_eq!(told, [("snapshot.delete", "a1"), ("snapshot.delete", "a2"), ("snapshot.delete.failed", "a2")]);

    // of a cluster whose automated snapshots are switched off nothing is touched, as by the daemon
    std::fs::write(&config, text.replace("retention = { keep_last = 1 }", "snapshot_retention_limit = 0")).unwrap();
    let off = cli.json(&["retention", "plan", "-o", "json"]);
    assert!(verdicts(&off).iter().all(|line| line.2.contains(&"unknown-cluster".to_owned())), "{off}");
    // of one that was removed they expire, all of them
    block_on(async {
        let catalog = Catalog::open(&repo.path("c.sqlite").into()).await.unwrap();
        catalog.mark_schedule("default", Mark::Removed, 5).await.unwrap();
        catalog.close().await;
    });
    let removed = cli.json(&["retention", "plan", "-o", "json"]);
    assert_eq!(verdict_of(&removed, "a4"), "mark", "{removed}");
}

#[test]
fn what_was_found_damaged_is_no_floor_and_is_left_alone() {
    let server = loaded();
    let repo = Repo::folder();
    for name in ["a1", "a2"] {
        automated(&repo, &server, name);
    }
    let shard = repo.root().join(place(&repo, "a2").key("shard-0000-1.bkd"));
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    repo.run(&["snapshot", "verify", "a2"]).exits(17);
    let plan = repo.json(&["retention", "plan", "--keep-last", "1"]);
    let rules = |rules: &[&str]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    let line = |name: &str, of: &[&str]| (name.to_owned(), "keep".to_owned(), rules(of));
    assert_eq!(verdicts(&plan), [line("a1", &["newest-available", "keep-last"]), line("a2", &["not-available"])]);
}

#[test]
fn a_restore_in_progress_and_a_keep_win_against_retention() {
    let server = loaded();
    let repo = Repo::folder();
    for name in ["a1", "a2"] {
        automated(&repo, &server, name);
    }
    repo.json(&APPLY);
    let one = place(&repo, "a1");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo.root()));
    let repository = block_on(Repository::open(store)).unwrap();
    // a job that reads it: its time has come, and it stays
    for reader in ["restore", "copy"] {
        block_on(async {
            let lease = repository.lease(&one, reader).await.unwrap();
            let (cli, args) = (repo.cli.clone(), repo.args(&APPLY));
            let report = tokio::task::spawn_blocking(move || cli.json(&args)).await.unwrap();
            assert_eq!(verdict_of(&report, "a1"), "unmark", "{report}");
            lease.release().await;
        });
        repo.json(&APPLY);
    }
    // kept after the plan was made: the removal looks again, before and after its tombstone
    let policy = Policy { keep_last: 1, ..Policy::default() };
    let question = Question {
        cluster: None,
        known: &BTreeMap::new(),
        others: Cluster::Registered(&policy),
        grace_ms: 0,
        share_max_percent: 100,
    };
    for writes in 0..20 {
        // killed at any write, the snapshot is whole or gone, and a keep that succeeded holds
        let dying = Dying::after(LocalStore::new(&repo.root()), writes);
        let applied = block_on(apply(dying, question));
        if !repo.list().contains(&("a1".to_owned(), "available".to_owned())) {
            // the clock object twice, the tombstone, the note on the claim, the manifest
            assert_eq!(writes, 5);
            break;
        }
        assert_eq!(applied.unwrap_err().class(), Class::Unforeseen, "write {writes}");
        repo.json(&["snapshot", "verify", "a1", "--no-record"]);
    }

    // a keep while a removal stands between its tombstone and the manifest is refused, and the snapshot is not lost
    automated(&repo, &server, "a3");
    let two = place(&repo, "a2");
    repo.json(&APPLY);
    let dying = Dying::after(LocalStore::new(&repo.root()), 3);
    block_on(apply(dying, question)).unwrap_err();
    let error = block_on(repository.keep(&two, true, None)).unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::Busy, true), "{error}");
    repo.json(&["snapshot", "verify", "a2", "--no-record"]);
    // the note that it is kept stands: retention steps back from now on
    assert_eq!(verdict_of(&repo.json(&APPLY), "a2"), "unmark");
}

#[test]
fn a_bucket_is_retained_as_a_folder_is() {
    let server = loaded();
    let folder = Repo::folder();
    automated(&folder, &server, "a1");
    automated(&folder, &server, "a2");
    // what the library made in a folder is put into the bucket as it is
    let repo = Repo::in_bucket(Bucket::create_locking("retention"));
    let bucket = repo.bucket.as_ref().unwrap();
    for (path, bytes) in folder.files() {
        bucket.put(&format!("some/prefix/{}", path.strip_prefix(folder.root()).unwrap().display()), &bytes);
    }
    std::fs::copy(folder.path("keys.json"), repo.path("keys.json")).unwrap();
    assert_eq!(verdict_of(&repo.json(&APPLY), "a1"), "mark");
    let lock = |on: bool| bucket.hold(&format!("some/prefix/{}", place(&repo, "a1").manifest_key()), on);
    lock(true);
    let held = repo.json(&APPLY);
    assert_eq!(verdict_of(&held, "a1"), "unmark");
    assert!(verdicts(&held)[0].2.contains(&"locked".to_owned()), "{held}");
    repo.run(&["snapshot", "delete", "a1"]).exits(18).says("Object Lock");
    lock(false);
    assert_eq!(verdict_of(&repo.json(&APPLY), "a1"), "mark");
    let restored = repo.cli.spawn(&repo.args(&["restore", "a1", "--out", repo.path("out").to_str().unwrap()]));
    let removed = repo.json(&APPLY);
    let restored = restored.wait(Duration::from_secs(120));
    // whoever came second stepped back: never a restore that lost its objects
    match (restored.code, verdict_of(&removed, "a1").as_str(), removed["snapshots"][0]["problem"].is_null()) {
        (Some(0), "unmark", _) | (Some(0), "remove", false) | (Some(10 | 11), "remove", true) => {}
        // it was over before retention looked
        (Some(0), "remove", true) => {}
        other => panic!("{other:?}\n{restored}"),
    }
    repo.json(&APPLY);
    repo.json(&APPLY);
    assert_eq!(names(&repo), ["a2"]);
    repo.json(&["snapshot", "verify", "a2"]);
    assert!(!bucket.list("").iter().any(|(key, _)| key.contains("/a1/")), "{:?}", bucket.list(""));
}
