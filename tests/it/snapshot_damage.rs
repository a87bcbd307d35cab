//! What is stored says nothing to whoever has no key, and any change of it is noticed by whoever has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backupd::crypt::keyring::Keyring;
use backupd::error::{Class, Error};
use backupd::progress::Progress;
use backupd::repository::{Keys, Repository};
use backupd::restore::{self, Mode, Names, Shape, Target, Ttl, input::Input};
use backupd::snapshot::verify;
use backupd::store;
use rdbtools::select::Selection;
use tokio_util::sync::CancellationToken;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::server::Server;

/// A snapshot of a three-shard cluster with a few keys, small enough to change each of its bytes.
fn small_snapshot() -> Repo {
    let cluster = Cluster::start(3, 0);
    for index in 0..30 {
        let (key, value) = (format!("secret-name-{index}"), format!("secret-value-{index}-{}", "x".repeat(40)));
        let owner =
            cluster.nodes().into_iter().find(|node| node.slots.contains(policies::slot::key_slot(key.as_bytes())));
        let mut link = crate::harness::nodes::connect(&owner.unwrap().url);
        redis::cmd("SET").arg(key).arg(value).exec(&mut link).unwrap();
    }
    let repo = Repo::folder();
    repo.create(&cluster.url(), "one");
    repo
}

#[test]
fn the_store_holds_only_ciphertext() {
    let repo = small_snapshot();
    let mut bytes = 0;
    for (path, content) in repo.files() {
        bytes += content.len();
        let text = content.escape_ascii().to_string();
        for known in ["secret-name", "secret-value", "REDIS00", "xxxxxxxx"] {
            assert!(!text.contains(known), "{known} stands in {}", path.display());
        }
    }
    assert!(bytes > 2000);
    // the same search finds them where they are: without encryption nothing hides them, and random bytes do not compress
    let server = Server::standalone();
    let mut random = crate::harness::keyspace::Random::new(1);
    let value: Vec<u8> = (0..4000).map(|_| random.byte()).collect();
    redis::cmd("SET").arg("secret-name").arg(value).exec(&mut server.connect()).unwrap();
    let args = [
        "snapshot",
        "create",
        "--source",
        &server.url(),
        "--name",
        "plain",
        "--no-encryption",
        "--repository",
        &repo.url,
    ];
    repo.cli.run(&args).ok();
    assert!(repo.files().iter().any(|(_, content)| content.escape_ascii().to_string().contains("secret-name")));
}

/// The library as the program calls it, many times in one process.
struct Reader {
    runtime: tokio::runtime::Runtime,
    url: String,
    keys: Keys,
}

impl Reader {
    fn new(repo: &Repo) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { runtime, url: repo.url.clone(), keys: Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap()) }
    }

    fn verify(&self) -> Result<(), Error> {
        self.runtime.block_on(async {
            let repository = Repository::open(store::open(&self.url.parse()?).await?).await?;
            let (progress, never) = (Progress::default(), CancellationToken::new());
            verify::examine(&repository, "one", &self.keys, &verify::Examination::default(), &progress, &never)
                .await
                .map(drop)
        })
    }

    fn restore(&self, dir: PathBuf) -> Result<(), Error> {
        self.runtime.block_on(async {
            let repository = Repository::open(store::open(&self.url.parse()?).await?).await?;
            let opened = Box::new(repository.open_snapshot("one", &self.keys).await?);
            let options = restore::Options {
                verify: false,
                unfinished: backupd::nodes::Unfinished::Refuse,
                now_unix_ms: 0,
                ignore_memory: false,
                input: Input::Snapshot { repository, opened },
                shape: Shape::Shards(2),
                mode: Some(Mode::Cluster),
                target: Target::Out(dir),
                ttl: Ttl::Keep,
                db: None,
                select: Selection::default(),
                names: Names::Shards,
                drop: Vec::new(),
                convert_to: None,
                filled: None,
            };
            let plan = restore::plan(&options).await?;
            restore::run(options, plan, Arc::new(Progress::default()), CancellationToken::new()).await.map(drop)
        })
    }
}

/// Verification and restore must both fail, with the class for damage or for keys, and name the object.
fn assert_noticed(reader: &Reader, repo: &Repo, object: &Path, what: &str) {
    let name = object.file_name().unwrap().to_str().unwrap();
    let out = repo.path("out");
    for (job, outcome) in [("verify", reader.verify()), ("restore", reader.restore(out.clone()))] {
        assert_named(outcome, job, object, what);
        let left = crate::fixture::files_below(&out);
        assert!(left.is_empty(), "{job}, {what} of {name}: {left:?} is left");
    }
}

fn assert_named(outcome: Result<(), Error>, job: &str, object: &Path, what: &str) {
    let name = object.file_name().unwrap().to_str().unwrap();
    let Err(error) = outcome else { panic!("{job} did not notice: {what} of {name}") };
    assert!(matches!(error.class(), Class::Verification | Class::Key), "{job}, {what} of {name}: {error:?}");
    assert!(error.message().contains(name), "{job}, {what} of {name}: {error:?}");
}

#[test]
fn any_changed_byte_of_any_object_is_noticed() {
    let repo = small_snapshot();
    let reader = Reader::new(&repo);
    reader.verify().unwrap();
    let mut changes = 0;
    for (path, content) in repo.snapshot_files() {
        for position in 0..content.len() {
            let mut changed = content.clone();
            changed[position] ^= 1 << (position % 8);
            std::fs::write(&path, &changed).unwrap();
            let what = format!("a change at byte {position}");
            if position % 8 == changes % 8 {
                assert_noticed(&reader, &repo, &path, &what);
            } else {
                // a restore begins with the same reading; it is tried for every eighth byte
                assert_named(reader.verify(), "verify", &path, &what);
            }
            changes += 1;
        }
        std::fs::write(&path, &content).unwrap();
    }
    assert!(changes > 5000, "{changes}");
    reader.verify().unwrap();
}

#[test]
fn cut_grown_missing_and_exchanged_objects_are_noticed() {
    let repo = small_snapshot();
    let reader = Reader::new(&repo);
    let files = repo.snapshot_files();
    for (path, content) in &files {
        for length in [0, 1, content.len() / 2, content.len() - 17, content.len() - 1] {
            std::fs::write(path, &content[..length]).unwrap();
            assert_noticed(&reader, &repo, path, &format!("a cut to {length}"));
        }
        std::fs::write(path, [content.as_slice(), b"\0"].concat()).unwrap();
        assert_noticed(&reader, &repo, path, "an added byte");
        std::fs::write(path, content).unwrap();
    }
    let shards: Vec<_> = files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "bkd")).collect();
    assert_eq!(shards.len(), 3);
    std::fs::write(&shards[0].0, &shards[1].1).unwrap();
    std::fs::write(&shards[1].0, &shards[0].1).unwrap();
    assert_noticed(&reader, &repo, &shards[0].0, "an exchange of two shards");
    std::fs::write(&shards[1].0, &shards[1].1).unwrap();
    std::fs::remove_file(&shards[0].0).unwrap();
    assert_noticed(&reader, &repo, &shards[0].0, "the absence");
    std::fs::write(&shards[0].0, &shards[0].1).unwrap();
    reader.verify().unwrap();
}

/// The places of the frames of a `.bkd` file, from its own heads (docs/format.md, section 4).
pub(crate) fn frames(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut frames, mut at) = (Vec::new(), 128);
    while at + 12 < file.len() - 16 {
        let stored = u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap());
        let end = at + 12 + usize::try_from(stored).unwrap() + 16;
        frames.push(at..end);
        at = end;
    }
    frames
}

#[test]
fn exchanged_frames_and_frames_of_another_snapshot_are_noticed() {
    let server = Server::standalone();
    // two incompressible values of one frame each make frames of equal length
    for index in 0..4 {
        let mut random = crate::harness::keyspace::Random::new(index);
        let value: Vec<u8> = (0..1_100_000).map(|_| random.byte()).collect();
        redis::cmd("SET").arg(index).arg(value).exec(&mut server.connect()).unwrap();
    }
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let reader = Reader::new(&repo);
    let (path, content) =
        repo.snapshot_files().into_iter().find(|(path, _)| path.extension().is_some_and(|end| end == "bkd")).unwrap();
    let frames = frames(&content);
    assert!(frames.len() >= 4 && frames[0].len() == frames[1].len(), "{frames:?}");

    let mut swapped = content.clone();
    swapped.copy_within(frames[1].clone(), frames[0].start);
    swapped[frames[1].clone()].copy_from_slice(&content[frames[0].clone()]);
    std::fs::write(&path, swapped).unwrap();
    assert_noticed(&reader, &repo, &path, "an exchange of two frames");

    let mut repeated = content.clone();
    repeated.copy_within(frames[0].clone(), frames[1].start);
    std::fs::write(&path, repeated).unwrap();
    assert_noticed(&reader, &repo, &path, "a repeated frame");

    std::fs::write(&path, &content).unwrap();
    reader.verify().unwrap();
}

#[test]
fn another_key_file_and_no_key_are_key_errors() {
    let repo = small_snapshot();
    let out = repo.path("out");
    let jobs: [&[&str]; 2] = [&["snapshot", "verify", "one"], &["restore", "one", "--out", out.to_str().unwrap()]];
    for job in jobs {
        let without = [job, &["--repository", &repo.url, "-o", "json"]].concat();
        assert_eq!(repo.cli.run(&without).exits(12).error_json()["error"]["class"], "key");
    }
    std::fs::rename(repo.path("keys.json"), repo.path("right.json")).unwrap();
    repo.cli.run(&["key", "generate", repo.path("keys.json").to_str().unwrap()]).ok();
    for job in jobs {
        repo.run(job).exits(12);
    }
    // a key of the right name and the wrong secret
    let right: serde_json::Value = serde_json::from_slice(&std::fs::read(repo.path("right.json")).unwrap()).unwrap();
    let wrong = std::fs::read_to_string(repo.path("keys.json")).unwrap();
    let other: serde_json::Value = serde_json::from_str(&wrong).unwrap();
    let wrong = wrong.replace(other["active"].as_str().unwrap(), right["active"].as_str().unwrap());
    std::fs::write(repo.path("keys.json"), wrong).unwrap();
    for job in jobs {
        let outcome = repo.run(job).exits(12);
        assert!(outcome.stderr.contains("wrap-"), "names the object: {outcome}");
    }
    assert!(!out.join("shard-0000.rdb").exists());
}

#[test]
fn the_program_reports_damage_with_its_exit_code_and_the_object() {
    let repo = small_snapshot();
    for (path, content) in repo.snapshot_files() {
        for position in [0, content.len() / 3, content.len() / 2, content.len() - 1] {
            let mut changed = content.clone();
            changed[position] ^= 0x10;
            std::fs::write(&path, &changed).unwrap();
            let out = repo.path("out");
            let jobs: [&[&str]; 2] =
                [&["snapshot", "verify", "one"], &["restore", "one", "--out", out.to_str().unwrap()]];
            for job in jobs {
                let outcome = repo.run(job);
                assert!(matches!(outcome.code, Some(12 | 17)), "{outcome}");
                let error = outcome.error_json();
                let message = error["error"]["message"].as_str().unwrap();
                assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
            }
            let _absent_is_fine = std::fs::remove_dir_all(out);
        }
        std::fs::write(&path, &content).unwrap();
    }
    repo.run(&["snapshot", "verify", "one"]).ok();
}
