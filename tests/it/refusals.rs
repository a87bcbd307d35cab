//! Bad input gets the documented exit code and words that help.

use crate::fixture::Repo;
use crate::harness::keyspace::Keyspace;
use crate::harness::server::{Options, Server};

fn create(repo: &Repo, source: &str, more: &[&str]) -> crate::harness::cli::Outcome {
    repo.run(&[&["snapshot", "create", "--source", source, "--name", "one"], more].concat())
}

#[test]
fn an_unreachable_source_is_15_and_claims_nothing() {
    let repo = Repo::folder();
    let outcome = create(&repo, "redis://127.0.0.1:1", &[]).exits(15).says("127.0.0.1:1");
    assert_eq!(outcome.error_json()["error"]["retryable"], true);
    assert!(!repo.root().exists(), "no repository was made for it");
}

#[test]
fn a_snapshot_without_a_key_must_be_asked_for() {
    let server = Server::standalone();
    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &server.url(), "--name", "one", "--repository", &repo.url];
    repo.cli.run(&words).exits(12).says("--no-encryption");
    repo.cli.run(&[&words[..], &["--no-encryption"]].concat()).ok();
    // and reading it with a key is refused: it is not what the key's owner made
    repo.run(&["snapshot", "verify", "one"]).exits(18);
    let verify = ["snapshot", "verify", "one", "--repository", &repo.url];
    repo.cli.run(&verify).ok();
}

#[test]
fn a_name_is_made_once() {
    let server = Server::standalone();
    let repo = Repo::folder();
    create(&repo, &server.url(), &[]).ok();
    create(&repo, &server.url(), &[]).exits(18).says("exists");
    repo.run(&["snapshot", "show", "two"]).exits(10);
    repo.run(&["snapshot", "verify", "../two"]).exits(2);
    for bad in ["../x", "a/b", ".x", "_names"] {
        repo.run(&["snapshot", "create", "--source", &server.url(), "--name", bad]).exits(2);
    }
}

#[test]
fn two_jobs_for_one_name_make_one_snapshot() {
    let server = Server::start(&Options::new().line("rdb-key-save-delay 1000"));
    Keyspace::new(1, 1000).load(&server.nodes());
    let repo = Repo::folder();
    let words = repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "one"]);
    let jobs: Vec<_> = (0..3).map(|_| repo.cli.spawn(&words)).collect();
    let mut codes: Vec<_> = jobs.into_iter().map(|job| job.wait(std::time::Duration::from_secs(60)).code).collect();
    codes.sort();
    assert_eq!(codes[0], Some(0), "{codes:?}");
    assert!(codes[1..].iter().all(|code| matches!(code, Some(11 | 18))), "{codes:?}");
    assert_eq!(repo.list(), [("one".to_owned(), "available".to_owned())]);
    repo.run(&["snapshot", "verify", "one"]).ok();
}

#[test]
fn a_lone_primary_whose_writes_could_stop_is_not_used_unasked() {
    let server = Server::start(&Options::new().line("repl-diskless-sync no").line("save 3600 1"));
    let repo = Repo::folder();
    create(&repo, &server.url(), &[]).exits(18).says("repl-diskless-sync");
    assert_eq!(server.info("total_forks").as_deref(), Some("0"), "it was not even asked to save");
    create(&repo, &server.url(), &["--primary", "fallback"]).ok();
}

#[test]
fn foreign_files_that_are_no_rdb_are_refused_by_kind() {
    let server = Server::standalone();
    Keyspace::new(1, 200).load(&server.nodes());
    server.run(&["SAVE"]);
    let good = std::fs::read(server.dir().join("dump.rdb")).unwrap();
    let repo = Repo::folder();
    let (file, out) = (repo.path("file.rdb"), repo.path("out"));
    let restore = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let _absent_is_fine = std::fs::remove_dir_all(&out);
        let words = ["restore", "--rdb", file.to_str().unwrap(), "--shards", "2", "--out", out.to_str().unwrap()];
        let outcome = repo.cli.run(&words);
        assert_eq!(out.join("shard-0000.rdb").exists(), outcome.code == Some(0), "{outcome}");
        outcome
    };
    restore(&good).ok();
    restore(b"").exits(17);
    restore(b"hello, this is no RDB").exits(17).says("file.rdb");
    restore(&good[..good.len() - 9]).exits(17);
    restore(&good[..good.len() / 2]).exits(17);
    restore(&[&good[..], b"more"].concat()).exits(17);
    let mut newer = good.clone();
    newer[5..9].copy_from_slice(b"0099");
    restore(&newer).exits(20);
    // the checksum: a bit of a length could make the rest look like the file of a newer server
    let mut flipped = good.clone();
    flipped[good.len() - 1] ^= 4;
    restore(&flipped).exits(17);
    let mut link = server.connect();
    redis::cmd("SELECT").arg(1).exec(&mut link).unwrap();
    redis::cmd("SET").arg("a").arg("b").exec(&mut link).unwrap();
    redis::cmd("SAVE").exec(&mut link).unwrap();
    restore(&std::fs::read(server.dir().join("dump.rdb")).unwrap()).exits(18).says("database 1");
    std::fs::remove_file(&file).unwrap();
    let words = ["restore", "--rdb", file.to_str().unwrap(), "--out", out.to_str().unwrap()];
    repo.cli.run(&words).exits(10);
}

#[test]
fn plans_that_cannot_work_are_refused_before_anything_is_touched() {
    let server = Server::standalone();
    server.run(&["SET", "a", "1"]);
    let repo = Repo::folder();
    create(&repo, &server.url(), &[]).ok();
    let out = repo.path("out");
    let restore = |more: &[&str]| repo.run(&[&["restore", "one", "--out", out.to_str().unwrap()], more].concat());
    restore(&["--slots", "0-100;200-16383"]).exits(18).says("101-199");
    restore(&["--slots", "0-100;100-16383"]).exits(18).says("100");
    restore(&["--slots", "0-100;x"]).exits(2);
    restore(&["--slots", "0-20000"]).exits(2);
    restore(&["--shards", "0"]).exits(2);
    restore(&["--shards", "5000"]).exits(2);
    restore(&["--shards", "2", "--mode", "standalone"]).exits(2);
    assert!(!out.exists());
    let plan = restore(&["--shards", "3", "--plan"]).ok().json();
    assert_eq!(plan["shards"][1]["slots"], "5461-10922");
    assert!(!out.exists(), "a plan touches nothing");

    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("precious"), b"data").unwrap();
    restore(&[]).exits(18).says("not empty");
    let launch = ["restore", "one", "--launch", out.to_str().unwrap()];
    repo.run(&launch).exits(18);
    assert_eq!(std::fs::read(out.join("precious")).unwrap(), b"data");
    std::fs::remove_dir_all(&out).unwrap();
    let engine = [&launch[..], &["--engine", "/no/such/engine"]].concat();
    repo.run(&engine).exits(19);
    let port = server.port().to_string();
    repo.run(&[&launch[..], &["--port", &port]].concat()).exits(18).says(&port);
}

#[test]
fn a_repository_that_is_not_there_is_10_and_a_folder_without_rights_is_an_error() {
    let repo = Repo::folder();
    repo.run(&["snapshot", "list"]).exits(10);
    repo.run(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]).exits(10);
    repo.cli.run(&["snapshot", "list"]).exits(2);
    repo.cli.run(&["snapshot", "list", "--repository", "ftp://x"]).exits(2);
    let json = repo.cli.run(&["snapshot", "list", "--nonsense", "-o", "json"]).exits(2).error_json();
    assert_eq!(json["error"]["class"], "usage");
}

#[test]
fn a_reader_that_closes_its_pipe_is_no_error_and_a_full_device_is_one() {
    let server = Server::standalone();
    let repo = Repo::folder();
    create(&repo, &server.url(), &[]).ok();
    let show = |stdout: std::process::Stdio| {
        let mut command = std::process::Command::new(&repo.cli.program);
        command.args(repo.args(&["snapshot", "show", "one"])).stdout(stdout).output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = show(writer.into());
    assert_eq!((closed.status.code(), String::from_utf8_lossy(&closed.stderr).as_ref()), (Some(0), ""));
    let full = show(std::fs::File::options().write(true).open("/dev/full").unwrap().into());
    let said = String::from_utf8_lossy(&full.stderr);
    assert!(full.status.code() == Some(1) && said.contains("cannot be printed"), "{said}");
}
