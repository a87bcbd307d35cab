//! Whatever dies in the middle, nothing is listed as available that does not restore, and doing it again works.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::{Keyspace, Random};
use crate::harness::server::{Options, Server};

/// Slow enough to be hit in the middle: the server's child sleeps after every key.
const SLOW_CHILD: &str = "rdb-key-save-delay 300";

/// Every snapshot that is listed as available must verify.
fn assert_honest(repo: &Repo) {
    for (name, status) in repo.list() {
        if status == "available" {
            repo.run(&["snapshot", "verify", &name]).ok();
        }
    }
}

/// `kill -9` of the program at ten moments, then the same command again.
fn kill_at_ten_moments(repo: &Repo, source: &str, seed: u64) {
    let mut random = Random::new(seed);
    for round in 0..10 {
        let name = format!("round-{round}");
        let words = ["snapshot", "create", "--source", source, "--name", &name];
        let mut job = repo.cli.spawn(&repo.args(&words));
        thread::sleep(Duration::from_millis(random.below(700)));
        job.running.kill();
        assert_honest(repo);
        let finished = repo.list().iter().any(|(listed, status)| *listed == name && status == "available");
        let again = repo.run(&words);
        if finished {
            again.exits(18);
        } else {
            again.ok();
        }
        repo.run(&["snapshot", "verify", &name]).ok();
    }
    let list = repo.list();
    assert_eq!(list.iter().filter(|(_, status)| status == "available").count(), 10, "{list:?}");
}

fn slow_server() -> Server {
    let server = Server::start(&Options::new().line(SLOW_CHILD));
    Keyspace::new(2, 1200).load(&server.nodes());
    server
}

#[test]
fn killed_at_ten_moments_in_a_folder() {
    let server = slow_server();
    let repo = Repo::folder();
    kill_at_ten_moments(&repo, &server.url(), 20_261_123);
    let (nodes, _launched) = repo.launch("round-9", &["--shards", "2"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn killed_at_ten_moments_in_a_bucket() {
    let server = slow_server();
    let repo = Repo::bucket("crash");
    kill_at_ten_moments(&repo, &server.url(), 20_261_124);
}

#[test]
fn the_only_replica_of_a_shard_that_dies_in_the_middle_fails_the_snapshot_and_nothing_else() {
    let mut cluster = Cluster::start(3, 1);
    Keyspace::new(4, 3000).load(&cluster.nodes());
    cluster.wait_replicas();
    for shard in &cluster.shards {
        shard.replicas[0].run(&["CONFIG", "SET", "rdb-key-save-delay", "2000"]);
    }
    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &cluster.url(), "--name", "one", "--settle-wait", "2s"];
    let job = repo.cli.spawn(&repo.args(&words));
    crate::harness::process::wait_for("the capture", Duration::from_secs(20), || {
        let saving = cluster.shards[1].replicas[0].info("rdb_bgsave_in_progress");
        if saving.as_deref() == Some("1") { Ok(()) } else { Err(format!("{saving:?}")) }
    });
    thread::sleep(Duration::from_millis(300));
    cluster.shards[1].replicas[0].kill();
    let outcome = job.wait(Duration::from_secs(60)).exits(15);
    assert_eq!(outcome.error_json()["error"]["retryable"], true);
    assert!(outcome.stderr.contains("shard 1") && outcome.stderr.contains("could not be retaken"), "{outcome}");
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
    assert!(
        !repo.files().iter().any(|(path, _)| path.extension().is_some_and(|end| end == "bkd")),
        "the failed job removed what it had stored"
    );

    // without its replica the shard has only its primary, which is not used unasked
    repo.run(&words).exits(18).says("--primary fallback");
    for server in cluster.servers().filter(|server| server.pid() != 0) {
        let _dead_ones_do_not_answer = redis::Client::open(server.url()).and_then(|client| {
            redis::cmd("CONFIG").arg(&["SET", "rdb-key-save-delay", "0"]).exec(&mut client.get_connection()?)
        });
    }
    repo.run(&[&words[..], &["--primary", "fallback"]].concat()).ok();
    let (nodes, _launched) = repo.launch("one", &["--shards", "2"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
}

#[test]
fn a_folder_that_goes_away_in_the_middle_leaves_nothing_that_looks_finished() {
    let server = slow_server();
    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &server.url(), "--name", "one"];
    let job = repo.cli.spawn(&repo.args(&words));
    let root = repo.root();
    crate::harness::process::wait_for("the claim", Duration::from_secs(20), || {
        if root.join("_names/one/000001.json").exists() { Ok(()) } else { Err("no claim".to_owned()) }
    });
    // the folder is replaced by a file at once, so every further write fails, as with a disk that went away
    let gone = repo.path("gone");
    std::fs::write(&gone, b"").unwrap();
    let exchange = || rustix::fs::renameat_with(CWD, &root, CWD, &gone, RenameFlags::EXCHANGE).unwrap();
    exchange();
    let outcome = job.wait(Duration::from_secs(60));
    assert!(matches!(outcome.code, Some(14 | 16 | 19)), "{outcome}");
    exchange();
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
    repo.run(&words).ok();
    repo.run(&["snapshot", "verify", "one"]).ok();
}

#[test]
fn a_bucket_that_goes_away_in_the_middle_leaves_nothing_that_looks_finished() {
    let server = slow_server();
    let repo = Repo::bucket("outage");
    let bucket = repo.bucket.as_ref().unwrap();
    let proxy = Proxy::start(&bucket.endpoint);
    let direct = repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "one"]);
    let job = repo.cli.spawn(&repo.through(direct.clone(), &proxy.url()));
    crate::harness::process::wait_for("the capture", Duration::from_secs(20), || {
        let saving = server.info("rdb_bgsave_in_progress");
        if saving.as_deref() == Some("1") { Ok(()) } else { Err(format!("{saving:?}")) }
    });
    proxy.cut();
    job.wait(Duration::from_secs(120)).exits(16);
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
    // the claim could not be released, but its process is gone
    repo.cli.run(&direct).ok();
    repo.run(&["snapshot", "verify", "one"]).ok();
    assert!(bucket.unfinished_uploads().is_empty());
}

/// Bytes through to a server until it is cut: then every connection breaks and new ones are refused.
struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    fn start(endpoint: &str) -> Self {
        let upstream = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&cut);
        thread::spawn(move || {
            for client in listener.incoming() {
                if flag.load(Ordering::Relaxed) {
                    return; // dropping the listener refuses what comes later
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(&upstream).unwrap());
                let pairs = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (from, to) in pairs {
                    let flag = Arc::clone(&flag);
                    thread::spawn(move || pass(from, to, &flag));
                }
            }
        });
        Self { port, cut }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        // wakes the listener, which then ends
        let _refused_is_fine = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 16384];
    while !cut.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => break,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Ok(_) | Err(_) => {}
        }
    }
    for side in [from, to] {
        let _gone_already_is_fine = side.shutdown(Shutdown::Both);
    }
}
