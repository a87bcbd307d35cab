//! `backupd check` says whether a backup would work, and everything that is missing, without making the servers work.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::cli::Outcome;
use crate::harness::cluster::Cluster;
use crate::harness::process;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_server::{server, unused_port, wait_until};

fn check(repo: &Repo, source: &str, more: &[&str]) -> Outcome {
    repo.run(&[&["check", "--source", source], more].concat())
}

/// The messages of one severity, with their hints.
fn findings(outcome: &Outcome, severity: &str) -> Vec<String> {
    let document = outcome.json();
    let all = document["clusters"][0]["findings"].as_array().unwrap();
    let text = |it: &Value| format!("{} ({})", it["message"].as_str().unwrap(), it["hint"].as_str().unwrap_or(""));
    all.iter().filter(|it| it["severity"] == severity).map(text).collect()
}

#[test]
fn a_healthy_source_of_every_engine_is_ok_and_was_not_made_to_work() {
    for engine in Engine::all() {
        let start = || Server::start(&Options::new().engine(engine.clone()));
        let (primary, replica) = (start(), start());
        replica.replicate(&primary);
        wait_until("it is listed", || primary.info("connected_slaves").as_deref() == Some("1"));
        let forks = [&primary, &replica].map(|server| server.info("total_forks"));
        let repo = Repo::folder();
        let outcome = check(&repo, &primary.url(), &[]).ok();
        let document = outcome.json();
        assert_eq!(
            (document["ok"].as_bool(), document["clusters"][0]["findings"].as_array().unwrap().len()),
            (Some(true), 0)
        );
        assert_eq!(document["clusters"][0]["shards"][0]["address"].as_str(), Some(replica.address().as_str()));
        assert_eq!([&primary, &replica].map(|server| server.info("total_forks")), forks, "{engine:?}: nobody forked");
        assert!(repo.files().is_empty(), "what was written to the repository is removed: {:?}", repo.files());
    }
}

#[test]
fn one_line_and_the_exit_code_tell_a_monitor_what_it_needs() {
    let cluster = Cluster::start(2, 1);
    let repo = Repo::folder();
    let config = |more: &str| {
        let text = format!(
            "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{}\"]\n\
             repository = \"main\"\n{more}",
            repo.url,
            cluster.url()
        );
        std::fs::write(repo.path("backupd.toml"), text).unwrap();
    };
    let file = repo.path("backupd.toml");
    let run = |words: &[&str]| repo.cli.run(&[words, &["--config", file.to_str().unwrap()]].concat());
    config("");
    let outcome = run(&["check", "orders"]).ok();
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome}");
    assert!(outcome.stdout.starts_with("ok: orders: 2 shards from replica 127.0.0.1:"), "{outcome}");
    // without a name all clusters are checked, and the first error decides
    config("[clusters.gone]\nsources = [\"redis://127.0.0.1:1\"]\nrepository = \"main\"\n");
    let outcome = run(&["check"]).exits(15).says("a backup of gone would fail now");
    assert!(outcome.stdout.contains("FAILED: gone: ") && outcome.stdout.contains("\nok: orders: "), "{outcome}");
    run(&["check", "orders"]).ok();
    run(&["check", "nobody"]).exits(10);
    std::fs::write(&file, "").unwrap();
    run(&["check"]).exits(2).says("the configuration has no cluster").says("--source");
}

#[test]
fn every_missing_permission_is_named_at_once() {
    let server = server(&[]);
    server.run(&["ACL", "SETUSER", "few", "on", ">pw", "+ping"]);
    let few = format!("redis://few:pw@{}", server.address());
    let repo = Repo::folder();
    let outcome = check(&repo, &few, &[]).exits(13);
    let errors = findings(&outcome, "error").join("\n");
    assert!(errors.contains("+info") && errors.contains("+replconf"), "{errors}");
    server.run(&["ACL", "SETUSER", "few", "+info", "+config|get"]);
    let outcome = check(&repo, &few, &[]).exits(13);
    let errors = findings(&outcome, "error").join("\n");
    assert!(!errors.contains("+info") && errors.contains("+replconf") && errors.contains("+psync"), "{errors}");
    server.run(&["ACL", "SETUSER", "few", "+replconf", "+psync"]);
    check(&repo, &few, &[]).ok();
    let outcome = check(&repo, &format!("redis://few:wrong@{}", server.address()), &[]).exits(13);
    assert!(findings(&outcome, "error")[0].contains("WRONGPASS"), "{outcome}");
    assert!(!outcome.stdout.contains("wrong\""), "{outcome}");
}

#[test]
fn a_command_that_is_renamed_or_a_node_that_is_away_is_named() {
    let primary = server(&[]);
    let (mut gone, renamed) = (server(&[]), server(&["rename-command PSYNC \"\""]));
    gone.replicate(&primary);
    renamed.replicate(&primary);
    wait_until("both are listed", || primary.info("connected_slaves").as_deref() == Some("2"));
    let repo = Repo::folder();
    let outcome = check(&repo, &primary.url(), &["--node", &renamed.address()]).exits(13);
    assert!(findings(&outcome, "error")[0].contains("renamed or blocked"), "{outcome}");
    // where another node serves, it is only a warning
    let outcome = check(&repo, &primary.url(), &["--node", &gone.address()]).ok();
    assert!(findings(&outcome, "warning")[0].contains("renamed or blocked"), "{outcome}");
    check(&repo, &primary.url(), &["--node", "nobody"]).exits(10);
    gone.pause();
    let outcome = check(&repo, &primary.url(), &["--primary", "fallback"]);
    gone.resume();
    assert!(findings(&outcome, "warning").iter().any(|it| it.contains("unreachable")), "{outcome}");
    gone.kill();
    let dead = format!("redis://127.0.0.1:{}", unused_port());
    check(&repo, &dead, &[]).exits(15);
}

#[test]
fn a_primary_that_may_not_serve_and_a_migration_are_told() {
    let primary = server(&["repl-diskless-sync no", "save 3600 1"]);
    let repo = Repo::folder();
    let outcome = check(&repo, &primary.url(), &[]).exits(18);
    assert!(findings(&outcome, "error")[0].contains("repl-diskless-sync"), "{outcome}");
    check(&repo, &primary.url(), &["--primary", "fallback"]).ok();
    let cluster = Cluster::start(2, 0);
    let id = crate::redis_server::ask(&cluster.shards[1].primary, &["CLUSTER", "MYID"]);
    cluster.shards[0].primary.run(&["CLUSTER", "SETSLOT", "7", "MIGRATING", &id]);
    let outcome = check(&repo, &cluster.url(), &[]).ok();
    assert!(findings(&outcome, "warning")[0].contains("would have to wait"), "{outcome}");
}

#[test]
fn a_repository_that_cannot_be_written_and_a_missing_key_are_told() {
    let server = server(&[]);
    let repo = Repo::folder();
    std::fs::write(repo.root(), b"a file, where a folder should be").unwrap();
    let outcome = check(&repo, &server.url(), &[]);
    assert!(matches!(outcome.code, Some(14 | 16 | 19)), "{outcome}");
    assert!(findings(&outcome, "error")[0].contains("repository"), "{outcome}");
    std::fs::remove_file(repo.root()).unwrap();
    let words = ["check", "--source", &server.url(), "--repository", &repo.url];
    repo.cli.run(&words).exits(12).says("--no-encryption");
    repo.cli.run(&[&words[..], &["--no-encryption"]].concat()).ok();
    let mode = std::fs::metadata(repo.root()).unwrap().permissions().mode();
    assert_ne!(mode & 0o200, 0, "the folder is made as the first snapshot makes it");
}

/// A server whose clock is so many seconds ahead of everybody else's.
fn with_clock(repo: &Repo, ahead: i64) -> Server {
    let (library, program) = (repo.path("clock.so"), repo.path("redis-server"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/clock.c");
    let mut compile = process::command("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    assert!(compile.status().unwrap().success(), "no C compiler: run tests/setup.sh tests");
    let server = Engine::Redis.program();
    let script =
        format!("#!/bin/sh\nLD_PRELOAD={} CLOCK_AHEAD={ahead} exec {} \"$@\"\n", library.display(), server.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Server::start(&Options::new().engine(Engine::Path(program)))
}

#[test]
fn a_server_whose_clock_differs_is_told_of_and_captured() {
    let (repo, near) = (Repo::folder(), Repo::folder());
    let server = with_clock(&repo, -3_600);
    server.run(&["SET", "k", "v"]);
    let warnings = findings(&check(&repo, &server.url(), &[]).ok(), "warning");
    let told =
        |text: &String| text.contains(&server.address()) && text.contains("s behind ours") && text.contains("NTP");
    assert!(warnings.len() == 1 && warnings.iter().all(told), "{warnings:?}");
    let made = repo.json(&["snapshot", "create", "--source", &server.url(), "--name", "one"]);
    let reason = made["shards"][0]["choice"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("its clock is 3600.") || reason.contains("its clock is 3599."), "{reason}");
    repo.run(&["snapshot", "verify", "one"]).ok();
    let server = with_clock(&near, 3);
    assert_eq!(findings(&check(&near, &server.url(), &[]).ok(), "warning"), Vec::<String>::new());
}
