//! The main job: a running cluster into a repository, and out of it into clusters of other shapes, every key compared.

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::{compare, compare_except};
use crate::harness::keyspace::Keyspace;
use crate::harness::server::{Options, Server};
use crate::harness::writer::{self, Writer};

fn loaded_cluster() -> Cluster {
    let cluster = Cluster::start(3, 1);
    Keyspace::new(11, 5000).load(&cluster.nodes());
    cluster.wait_replicas();
    cluster
}

#[test]
fn three_shards_become_five_while_writes_go_on() {
    let cluster = loaded_cluster();
    let writer = Writer::start(&cluster.nodes(), 500);
    cluster.wait_replicas();
    let repo = Repo::folder();
    let made = repo.create(&cluster.url(), "one");
    assert!(writer.stop() > 500);
    assert_eq!((made["status"].as_str(), made["mode"].as_str()), (Some("available"), Some("cluster")));
    let shards = made["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 3);
    for shard in shards {
        assert_eq!(shard["node"]["role"], "replica", "a replica serves by preference");
        assert_eq!(shard["rdb"]["aux"]["repl-id"], shard["replid"]);
        assert_eq!(shard["rdb"]["crc"], "ok");
        assert!(shard["choice"].as_array().unwrap().len() == 2 && shard["rdb"]["keys"].as_u64().unwrap() > 1000);
    }
    assert_eq!(repo.list(), [("one".to_owned(), "available".to_owned())]);
    assert_eq!(repo.json(&["snapshot", "show", "one"])["shards"], made["shards"]);
    assert_eq!(repo.json(&["snapshot", "verify", "one"])["keys"], made["keys"]);

    let (nodes, _launched) = repo.launch("one", &["--shards", "5", "--replicas", "1"]);
    assert_eq!(nodes.len(), 5);
    let report = compare_except(&cluster.nodes(), &nodes, &writer::wrote);
    report.assert_equal();
    assert!(report.equal >= 5000 && report.excepted > 0, "{report}");
}

#[test]
fn a_bucket_holds_what_a_folder_holds() {
    let cluster = loaded_cluster();
    let repo = Repo::bucket("roundtrip");
    repo.create(&cluster.url(), "one");
    repo.json(&["snapshot", "verify", "one"]);
    assert_eq!(repo.list(), [("one".to_owned(), "available".to_owned())]);
    let (nodes, _launched) = repo.launch("one", &["--slots", "0-99;100-16383"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
    let bucket = repo.bucket.as_ref().unwrap();
    assert!(bucket.unfinished_uploads().is_empty());
    let objects = bucket.list("");
    assert_eq!(objects.iter().filter(|(key, _)| key.ends_with(".bkd")).count(), 3, "{objects:?}");
    for (key, _) in objects {
        let text = bucket.get(&key).escape_ascii().to_string();
        // names and values stand nowhere; facts about the server are in the manifest, and there alone
        let known = ["user1", "stream:", "readers", "alice"];
        let facts = ["REDIS00", "redis-ver"].iter().filter(|_| !key.ends_with("manifest.json"));
        let found: Vec<_> = known.iter().chain(facts).filter(|word| text.contains(**word)).collect();
        assert!(found.is_empty(), "{key} holds {found:?}");
    }
}

#[test]
fn a_cluster_becomes_one_server_and_one_server_a_cluster() {
    let cluster = loaded_cluster();
    let repo = Repo::folder();
    repo.create(&cluster.url(), "from-cluster");
    let (alone, _launched) = repo.launch("from-cluster", &["--shards", "1"]);
    assert_eq!(alone.len(), 1);
    compare(&cluster.nodes(), &alone).assert_equal();

    repo.create(&alone[0].url, "from-alone");
    let (again, _launched) = repo.launch("from-alone", &["--shards", "4"]);
    assert_eq!(again.len(), 4);
    compare(&cluster.nodes(), &again).assert_equal();
}

#[test]
fn all_databases_of_a_server_come_back() {
    let server = Server::standalone();
    Keyspace::new(3, 300).load(&server.nodes());
    let mut link = server.connect();
    for db in [1, 9] {
        redis::cmd("SELECT").arg(db).exec(&mut link).unwrap();
        redis::cmd("SET").arg("where").arg(db).exec(&mut link).unwrap();
    }
    let repo = Repo::folder();
    repo.create(&server.url(), "dbs");
    let (nodes, _launched) = repo.launch("dbs", &[]);
    compare(&server.nodes(), &nodes).assert_equal();
    let mut link = crate::harness::nodes::connect(&nodes[0].url);
    for db in [1, 9] {
        redis::cmd("SELECT").arg(db).exec(&mut link).unwrap();
        assert_eq!(redis::cmd("GET").arg("where").query::<i64>(&mut link).unwrap(), db);
    }
    // a cluster has database 0 only
    let dir = repo.path("cluster");
    let refused = repo.run(&["restore", "dbs", "--shards", "2", "--out", dir.to_str().unwrap()]);
    refused.exits(18).says("database 1 holds 1 keys");
    assert!(!dir.exists(), "nothing was touched");
    let (nodes, _launched) = repo.launch("dbs", &["--shards", "2", "--db", "9"]);
    assert_eq!(nodes.len(), 2);
}

#[test]
fn files_made_by_out_are_foreign_files_that_restore_again() {
    let server = Server::standalone();
    Keyspace::new(5, 1000).load(&server.nodes());
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let out = repo.path("out");
    let made = repo.json(&["restore", "one", "--shards", "3", "--out", out.to_str().unwrap()]);
    assert_eq!(made["nodes"].as_array().unwrap().len(), 3);
    let names: Vec<_> =
        crate::fixture::files_below(&out).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["README.txt", "nodes.conf", "shard-0000.rdb", "shard-0001.rdb", "shard-0002.rdb"]);

    let files: Vec<String> = (0..3).map(|index| format!("{}/shard-000{index}.rdb", out.display())).collect();
    let dir = repo.path("launched-again");
    let _launched = crate::fixture::Launched { dir: dir.clone() };
    let mut words = vec!["restore", "--launch", dir.to_str().unwrap(), "--shards", "2", "-o", "json", "--rdb"];
    words.extend(files.iter().map(String::as_str));
    let outcome = repo.cli.json(&words);
    let first = &outcome["nodes"][0];
    let nodes = crate::harness::nodes::discover(&format!("redis://127.0.0.1:{}", first["port"]));
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn a_password_is_used_and_never_shown() {
    let server = Server::start(&Options::new().password("correct-horse"));
    let repo = Repo::folder();
    let (port, file) = (server.port(), repo.path("password"));
    std::fs::write(&file, "correct-horse\n").unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    let create = |name: &str, more: &[&str]| {
        repo.run(&[&["snapshot", "create", "--source", &url, "--name", name, "-vv"], more].concat())
    };
    let password_file = ["--source-password-file", file.to_str().unwrap()];
    let good = create("good", &password_file).ok();
    assert!(!format!("{good}").contains("correct-horse"));
    std::fs::write(&file, "wrong-horse").unwrap();
    let bad = create("bad", &password_file).exits(13);
    assert!(!format!("{bad}").contains("wrong-horse"), "{bad}");
    create("none", &[]).exits(13);
    let url = format!("redis://:wrong-horse@127.0.0.1:{port}");
    let bad = repo.run(&["snapshot", "create", "--source", &url, "--name", "bad"]).exits(13);
    assert!(!bad.stderr.contains("wrong-horse") && !bad.stdout.contains("wrong-horse"), "{bad}");
    assert_eq!(repo.list(), [("good".to_owned(), "available".to_owned())]);
}

#[test]
fn running_nodes_take_a_snapshot_when_they_are_empty() {
    let cluster = loaded_cluster();
    let repo = Repo::folder();
    repo.create(&cluster.url(), "one");

    // a formed cluster of another shape keeps its slots
    let formed = Cluster::start(2, 1);
    let addresses: Vec<String> = formed.shards.iter().map(|shard| shard.primary.address()).collect();
    let words = ["restore", "one", "--nodes", &addresses.join(",")];
    let outcome = repo.json(&words);
    assert_eq!(outcome["nodes"].as_array().unwrap().len(), 2);
    compare(&cluster.nodes(), &formed.nodes()).assert_equal();
    // what is full now is refused, and stays as it is
    repo.run(&words).exits(18).says("keys");
    compare(&cluster.nodes(), &formed.nodes()).assert_equal();

    // nodes that do not know each other are joined
    let strangers: Vec<Server> = (0..4).map(|_| Server::start(&Options::new().cluster())).collect();
    let addresses: Vec<String> = strangers.iter().map(Server::address).collect();
    repo.json(&["restore", "one", "--nodes", &addresses.join(",")]);
    let nodes = crate::harness::nodes::discover(&strangers[0].url());
    assert_eq!(nodes.len(), 4);
    compare(&cluster.nodes(), &nodes).assert_equal();

    // and one server takes everything
    let alone = Server::standalone();
    alone.run(&["SET", "stranger", "1"]);
    let words = ["restore", "one", "--nodes", &alone.address()];
    repo.run(&words).exits(18).says(&alone.address());
    alone.run(&["FLUSHALL"]);
    repo.json(&words);
    compare(&cluster.nodes(), &alone.nodes()).assert_equal();
}

#[test]
fn snapshots_are_listed_in_the_order_of_their_making() {
    let server = Server::standalone();
    let repo = Repo::folder();
    // most of them are made in one second
    let names: Vec<String> = (0..8).map(|index| format!("number-{index}")).collect();
    names.iter().for_each(|name| drop(repo.create(&server.url(), name)));
    assert_eq!(repo.list().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
}
