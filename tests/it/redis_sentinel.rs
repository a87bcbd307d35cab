//! Sources that are found through a Sentinel, which must not notice that they were captured.

use std::time::Duration;

use crate::fixture::Repo;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::process;
use crate::harness::server::{Options, Server};
use crate::redis_server::{fill, server, wait_until};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(180);

/// A Sentinel alone, which decides alone.
fn sentinel(watched: &[(&str, &Server)], lines: &[&str]) -> Server {
    let mut options = Options::new().sentinel();
    for (name, server) in watched {
        options = options.line(format!("sentinel monitor {name} 127.0.0.1 {} 1", server.port()));
        options = options.line(format!("sentinel down-after-milliseconds {name} 60000"));
    }
    Server::start(&lines.iter().fold(options, |options, line| options.line(*line)))
}

/// `ip:port flags` of each replica that the Sentinel knows.
fn replicas(sentinel: &Server, name: &str) -> Vec<String> {
    let entries: Vec<std::collections::HashMap<String, String>> =
        crate::harness::nodes::command(&["SENTINEL", "REPLICAS", name]).query(&mut sentinel.connect()).unwrap();
    entries.iter().map(|entry| format!("{}:{} {}", entry["ip"], entry["port"], entry["flags"])).collect()
}

fn replicated(lines: &[&str], watched: impl FnOnce(&Server) -> Server) -> (Server, Server, Server) {
    let (primary, replica) = (server(lines), server(lines));
    replica.replicate(&primary);
    let sentinel = watched(&primary);
    wait_until("the Sentinel knows the replica", || replicas(&sentinel, "orders").len() == 1);
    (primary, replica, sentinel)
}

#[test]
fn a_sentinel_leads_to_the_replica_and_never_sees_a_ghost() {
    let (primary, replica, sentinel) = replicated(&[], |primary| sentinel(&[("orders", primary)], &[]));
    fill(&primary, 2000);
    let repo = Repo::folder();
    let made = repo.create(&sentinel.url(), "by-replica");
    assert_eq!(made["shards"][0]["node"]["address"].as_str(), Some(replica.address().as_str()));
    // longer than the Sentinel takes to ask the primary again, which is every 10 s
    primary.run(&["CONFIG", "SET", "rdb-key-save-delay", "6500"]);
    let words = ["snapshot", "create", "--source", &sentinel.url(), "--name", "by-primary", "--primary", "prefer"];
    let made = repo.json(&words);
    assert_eq!(made["shards"][0]["node"]["role"].as_str(), Some("primary"));
    assert_eq!(replicas(&sentinel, "orders"), [format!("{} slave", replica.address())]);
}

#[test]
fn a_failover_by_the_sentinel_in_the_middle_is_survived() {
    let (primary, replica, sentinel) = replicated(&[], |primary| sentinel(&[("orders", primary)], &[]));
    Keyspace::new(61, 2000).load(&primary.nodes());
    replica.wait_caught_up(&primary);
    // ten seconds: longer than the Sentinel takes to hear from the replica
    replica.run(&["CONFIG", "SET", "rdb-key-save-delay", "5000"]);
    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &sentinel.url(), "--name", "one"];
    let job = repo.cli.spawn(&repo.args(&words));
    process::wait_for("the capture", Duration::from_secs(60), || {
        let saving = replica.info("rdb_bgsave_in_progress");
        if saving.as_deref() == Some("1") { Ok(()) } else { Err(format!("{saving:?}")) }
    });
    // refused until the Sentinel has heard from the replica
    process::wait_for("the failover", Duration::from_secs(60), || {
        let failover = crate::harness::nodes::command(&["SENTINEL", "FAILOVER", "orders"]);
        failover.query::<String>(&mut sentinel.connect()).map_err(|error| error.to_string())
    });
    let made = job.wait(PATIENCE).ok().says("retaken").json();
    let shard = &made["shards"][0];
    assert!(shard["attempt"].as_u64().unwrap() > 1, "{shard}");
    assert_eq!(shard["node"]["address"].as_str(), Some(primary.address().as_str()), "a replica by now");
    assert_eq!(shard["node"]["role"].as_str(), Some("replica"));
    let (nodes, _launched) = repo.launch("one", &["--shards", "2"]);
    compare(&replica.nodes(), &nodes).assert_equal();
}

#[test]
fn several_primaries_of_one_sentinel_must_be_told_apart() {
    let (orders, carts) = (server(&[]), server(&[]));
    orders.run(&["SET", "which", "orders"]);
    carts.run(&["MSET", "which", "carts", "another", "one"]);
    let sentinel = sentinel(&[("orders", &orders), ("carts", &carts)], &[]);
    let repo = Repo::folder();
    let words = |name: &'static str, more: &[&str]| {
        repo.run(&[&["snapshot", "create", "--source", &sentinel.url(), "--name", name], more].concat())
    };
    words("x", &[]).exits(2).says("--sentinel-master").says("carts");
    words("x", &["--sentinel-master", "nobody"]).exits(10).says("orders");
    let made = words("one", &["--sentinel-master", "carts"]).ok().json();
    assert_eq!(made["keys"], 2);
    let config = format!(
        "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{}\"]\n\
         repository = \"main\"\nsentinel_master = \"orders\"\n",
        repo.url,
        sentinel.url()
    );
    std::fs::write(repo.path("backupd.toml"), config).unwrap();
    let config = repo.path("backupd.toml");
    let flags = ["--config", config.to_str().unwrap(), "-o", "json"];
    let made = repo.cli.json(&[&["snapshot", "create", "orders", "--name", "two"], &flags[..]].concat());
    assert_eq!(made["keys"], 1);
}

#[test]
fn a_sentinel_may_have_no_password_or_another_one_than_the_servers() {
    let options = Options::new().password("of-the-servers");
    let (primary, replica) = (Server::start(&options), Server::start(&options));
    replica.replicate(&primary);
    let auth = "sentinel auth-pass orders of-the-servers";
    let open = sentinel(&[("orders", &primary)], &[auth]);
    let closed = sentinel(&[("orders", &primary)], &[auth]);
    for sentinel in [&open, &closed] {
        wait_until("the Sentinel knows the replica", || replicas(sentinel, "orders").len() == 1);
    }
    closed.run(&["ACL", "SETUSER", "default", "resetpass", ">of-the-sentinel"]);
    let repo = Repo::folder();
    std::fs::write(repo.path("password"), "of-the-servers\n").unwrap();
    let password = repo.path("password");
    for (name, url) in [("open", open.url()), ("closed", format!("redis://:of-the-sentinel@{}", closed.address()))] {
        let words = ["snapshot", "create", "--source", &url, "--name", name, "--source-password-file"];
        let made = repo.json(&[&words[..], &[password.to_str().unwrap()]].concat());
        assert_eq!(made["shards"][0]["node"]["address"].as_str(), Some(replica.address().as_str()));
    }
}
