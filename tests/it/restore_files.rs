//! Restores into files and buckets, of all keys or of some, and exports.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::s3::Bucket;
use crate::harness::server::Server;

/// Restores the files `dir/…` with a launch and returns its nodes.
fn launch(repo: &Repo, files: &[String], more: &[&str]) -> (Vec<nodes::Node>, crate::fixture::Launched) {
    let dir = repo.path("started");
    let mut words = vec!["restore", "--rdb"];
    words.extend(files.iter().map(String::as_str));
    words.extend(["--launch", dir.to_str().unwrap(), "-o", "json"]);
    let outcome = repo.cli.json(&[&words[..], more].concat());
    let first = &outcome["nodes"][0];
    let nodes = nodes::discover(&format!("redis://{}:{}", first["host"].as_str().unwrap(), first["port"]));
    (nodes, crate::fixture::Launched { dir })
}

fn files_of(outcome: &Value, member: &str) -> Vec<String> {
    outcome[member].as_array().unwrap().iter().map(|file| file["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_export_is_plain_rdb_files_that_restore_to_the_same_keys() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(11, 2000).load(&cluster.nodes());
    let repo = Repo::folder();
    repo.create(&cluster.url(), "one");
    let out = repo.path("export");
    let exported = repo.json(&["snapshot", "export", "one", "--to", out.to_str().unwrap(), "--shards", "2"]);
    let files = files_of(&exported, "files");
    let names: Vec<_> = crate::fixture::files_below(&out);
    assert_eq!(names, [out.join("one-0001.rdb"), out.join("one-0002.rdb")]);
    assert_eq!(files, names.iter().map(|path| path.display().to_string()).collect::<Vec<_>>());
    let (nodes, _launched) = launch(&repo, &files, &["--shards", "4"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
    // never over what is there, and without a key not at all
    repo.run(&["snapshot", "export", "one", "--to", out.to_str().unwrap()]).exits(18).says("not empty");
    let other = repo.path("other");
    let words = ["snapshot", "export", "one", "--to", other.to_str().unwrap(), "--repository", &repo.url];
    repo.cli.run(&words).exits(12);
}

#[test]
fn a_bucket_takes_the_files_of_a_restore_and_of_an_export() {
    let server = Server::standalone();
    Keyspace::new(12, 500).load(&server.nodes());
    let bucket = Bucket::create("export");
    let mut repo = Repo::folder();
    repo.cli = repo.cli.clone().envs(bucket.envs());
    repo.create(&server.url(), "one");
    let scratch = repo.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let to = bucket.url("plain");
    let more = ["--scratch", scratch.to_str().unwrap(), "--to", &to];
    let restored = repo.json(&[&["restore", "one", "--shards", "2"], &more[..]].concat());
    let keys = |label: &str| bucket.list(label).into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();
    let expected = ["README.txt", "nodes.conf", "shard-0000.rdb", "shard-0001.rdb"];
    assert_eq!(keys("plain/"), expected.iter().map(|name| format!("plain/{name}")).collect());
    assert!(files_of(&restored, "nodes")[1].ends_with("/plain/shard-0001.rdb"), "{restored}");
    repo.run(&[&["restore", "one", "--shards", "2"], &more[..]].concat()).exits(18).says("already");
    repo.json(&[&["snapshot", "export", "one"], &more[..]].concat());
    assert!(keys("plain/").contains("plain/one-0001.rdb"));
    assert!(std::fs::read_dir(&scratch).unwrap().next().is_none(), "nothing in the clear is left");
    assert!(bucket.unfinished_uploads().is_empty());

    // and back again, straight from the bucket
    let (nodes, _launched) = launch(&repo, &[bucket.url("plain/one-0001.rdb")], &["--shards", "3"]);
    compare(&server.nodes(), &nodes).assert_equal();
    let out = repo.path("out");
    let restore = |url: &str| repo.cli.run(&["restore", "--rdb", url, "--out", out.to_str().unwrap()]);
    restore(&bucket.url("plain/two-0001.rdb")).exits(10).says("two-0001.rdb");
    restore(&bucket.url("plain/README.txt")).exits(17).says("README.txt");
    restore(&bucket.url("")).exits(2);
}

/// The keys of one server.
fn keys_of(node: &nodes::Node) -> BTreeSet<String> {
    redis::cmd("KEYS").arg("*").query(&mut nodes::connect(&node.url)).unwrap()
}

#[test]
fn only_the_selected_keys_are_restored() {
    let server = Server::standalone();
    for index in 0..50 {
        server.run(&["SET", &format!("user:{index}"), "x"]);
        server.run(&["SADD", &format!("user:{index}:tags"), "a"]);
        server.run(&["SET", &format!("session:{index}"), "x"]);
    }
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let select = ["--filter", "user:*", "--filter", "session:1?", "--exclude", "*[13579]", "--type", "string"];
    let (nodes, _launched) = repo.launch("one", &select);
    let even = |count: usize, kind: &str| (0..count).step_by(2).map(|n| format!("{kind}:{n}")).collect::<BTreeSet<_>>();
    let mut expected = even(50, "user");
    expected.extend(even(20, "session").into_iter().filter(|name| name.len() == "session:10".len()));
    assert_eq!(keys_of(&nodes[0]), expected);

    let out = repo.path("out");
    let restore = |more: &[&str]| repo.run(&[&["restore", "one", "--out", out.to_str().unwrap()], more].concat());
    restore(&["--filter", "usr:*"]).exits(10).says("no key");
    assert!(crate::fixture::files_below(&out).is_empty());
    restore(&["--type", "strings"]).exits(2).says("string, list");
}
