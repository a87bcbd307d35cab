//! What was put together from several files, loaded by a real server and compared key by key with the servers that
//! wrote the files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panic")]

#[path = "support/server.rs"]
mod server;
#[path = "support/words.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use policies::shards;
use policies::slot::key_slot;
use server::{Engine, Reply, Server};
use words::words;

/// What stands behind the value in a reply of `DUMP`: version and checksum.
const DUMP_FOOTER_LEN: usize = 10;

/// Keys `prefix:N` of several types, whose values tell who made them.
fn fill(server: &mut Server, who: &str, prefix: &str) {
    let commands = (0..200).flat_map(|n| {
        [
            words(&format!("SET {prefix}:string:{n} {who}-{n}")),
            words(&format!("PEXPIREAT {prefix}:string:{n} 41024448{n:05}")),
            words(&format!("RPUSH {prefix}:list:{n} {who} {n}")),
            words(&format!("HSET {prefix}:hash:{n} who {who} number {n}")),
            words(&format!("ZADD {prefix}:zset:{n} {n} {who}")),
            words(&format!("SADD {prefix}:set:{n} {n} {}", who.len())),
        ]
    });
    server.must(&commands.collect::<Vec<_>>());
}

fn save(server: &mut Server, dir: &Path) -> PathBuf {
    server.must(&[["SAVE"]]);
    dir.join("dump.rdb")
}

/// Expiry and value of each key.
fn values(server: &mut Server, keys: &[Vec<u8>]) -> Vec<(Reply, Vec<u8>)> {
    let ask = |word: &'static [u8]| keys.iter().map(|key| [word, key.as_slice()]).collect::<Vec<_>>();
    let value = |reply: &Reply| reply.bytes().split_last_chunk::<DUMP_FOOTER_LEN>().unwrap().0.to_vec();
    let dumps: Vec<Vec<u8>> = server.all(&ask(b"DUMP")).iter().map(value).collect();
    server.all(&ask(b"PEXPIRETIME")).into_iter().zip(dumps).collect()
}

fn rdbtools(args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_rdbtools")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server that has loaded a file.
fn loaded(rdb: &Path) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(rdb, dir.path().join("dump.rdb")).unwrap();
    let server = Server::start(dir.path());
    (dir, server)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn of_two_keys_a_server_loads_the_one_that_the_rule_names() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut first, mut last] = dirs.each_ref().map(|dir| Server::start(dir.path()));
    for (server, who) in [(&mut first, "first"), (&mut last, "last")] {
        fill(server, who, who);
        fill(server, who, "both");
    }
    let files = [save(&mut first, dirs[0].path()), save(&mut last, dirs[1].path())];
    let (here, there) = (first.keys(), last.keys());
    let mut all = [here.clone(), there.clone()].concat();
    all.sort();
    all.dedup();
    let split = shards::equal(2).unwrap();
    let slots = format!("{};{}", split[0], split[1]);
    let owns = |key: &[u8]| split[0].contains(key_slot(key));
    for (rule, more) in [("first", vec![]), ("last", vec![]), ("owner", vec!["--source-slots", slots.as_str()])] {
        let stays = |key: &Vec<u8>| match (here.binary_search(key).is_ok(), there.binary_search(key).is_ok()) {
            (true, true) => rule == "first" || rule == "owner" && owns(key),
            (only_first, _) => only_first,
        };
        let (of_first, of_last): (Vec<_>, Vec<_>) = all.iter().cloned().partition(stays);
        let folder = tempfile::tempdir().unwrap();
        let (one, many) = (folder.path().join("one.rdb"), folder.path().join("many"));
        let rule = [&[text(&files[0]), text(&files[1]), "--on-duplicate", rule][..], &more].concat();
        rdbtools(&[&["merge", "--out", text(&one)], &rule[..]].concat());
        rdbtools(&[&["split", "--shards", "2", "--out", text(&many)], &rule[..]].concat());
        let outputs = [(one, all.clone())].into_iter().chain([0, 1].map(|shard| {
            let keys = all.iter().filter(|key| owns(key) == (shard == 0)).cloned();
            (many.join(format!("shard-{shard:04}.rdb")), keys.collect())
        }));
        for (file, keys) in outputs {
            let (_dir, mut target) = loaded(&file);
            assert_eq!(target.keys(), keys, "{rule:?}");
            for (source, of_source) in [(&mut first, &of_first), (&mut last, &of_last)] {
                let of_source: Vec<_> = of_source.iter().filter(|key| keys.contains(key)).cloned().collect();
                assert_eq!(values(&mut target, &of_source), values(source, &of_source), "{rule:?}");
            }
        }
    }
}

/// Valkey 8 and Redis up to 7.2 write the same versions, and Valkey 9 reads them under its own header.
#[test]
fn files_of_redis_and_of_valkey_go_into_one_that_valkey_loads() {
    let Some(engine) = Engine::cluster("valkey-9") else {
        let word = "NOT RUN: valkey-9 cannot be had on this machine\n";
        std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes()).unwrap();
        return;
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut redis, mut valkey) = (Server::start(dirs[0].path()), Server::start_engine(&engine, dirs[1].path()));
    valkey.must(&[words("CLUSTER ADDSLOTSRANGE 0 16383")]);
    valkey.wait_for_cluster();
    fill(&mut redis, "redis", "redis");
    fill(&mut valkey, "valkey", "valkey");
    let expiries = (0..50).map(|n| words(&format!("HPEXPIREAT valkey:hash:{n} 4102444800{n:03} FIELDS 1 who")));
    valkey.must(&expiries.collect::<Vec<_>>());
    let files = [save(&mut redis, dirs[0].path()), save(&mut valkey, dirs[1].path())];
    let merged = dirs[2].path().join("dump.rdb");
    rdbtools(&["merge", text(&files[0]), text(&files[1]), "--out", text(&merged)]);
    assert!(fs::read(&merged).unwrap().starts_with(b"VALKEY080"));
    let mut target = Server::start_engine(&engine, dirs[2].path());
    target.wait_for_cluster();
    for source in [&mut redis, &mut valkey] {
        let keys = source.keys();
        assert_eq!(keys.len(), 1000);
        assert_eq!(values(&mut target, &keys), values(source, &keys));
    }
    assert_eq!(target.keys().len(), 2000);
    let asked = words("HPEXPIRETIME valkey:hash:7 FIELDS 1 who");
    assert_eq!(target.one(&asked), Reply::List(vec![Reply::Int(4_102_444_800_007)]));
}
