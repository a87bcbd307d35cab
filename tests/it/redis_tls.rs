//! TLS to sources and targets: what works, and what each failure is called.

use std::path::{Path, PathBuf};

use chrono::Datelike as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cli::Outcome;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Options, Server};

/// An authority whose files are in a folder: `ca.pem`, and a certificate and key for each name that was asked for.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Authority, certificate and key for a server or client of these host names or addresses.
    fn files(&self, label: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> [PathBuf; 3] {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        // without a name of its own OpenSSL takes it for its own issuer
        params.distinguished_name.push(DnType::CommonName, label);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let files = [self.path("ca.pem"), self.path(&format!("{label}.pem")), self.path(&format!("{label}.key"))];
        std::fs::write(&files[1], params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files[2], key.serialize_pem()).unwrap();
        files
    }

    fn server(&self) -> [PathBuf; 3] {
        self.files("server", &["127.0.0.1", "localhost"], |_| {})
    }
}

fn tls_url(server: &Server) -> String {
    format!("rediss://127.0.0.1:{}", server.tls_port().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn create(repo: &Repo, source: &str, name: &str, more: &[&str]) -> Outcome {
    repo.run(&[&["snapshot", "create", "--source", source, "--name", name], more].concat())
}

#[test]
fn a_replicated_source_with_client_certificates_is_captured_and_restored_over_tls() {
    let authority = Authority::new();
    let [ca, cert, key] = authority.files("client", &["backupd"], |_| {});
    let options = Options::new().tls(authority.server()).line("tls-auth-clients yes");
    let (primary, replica) = (Server::start(&options), Server::start(&options));
    Keyspace::new(51, 2000).load(&primary.nodes());
    replica.run(&["REPLICAOF", "127.0.0.1", &primary.tls_port().unwrap().to_string()]);
    replica.wait_link();
    let repo = Repo::folder();
    let files = ["--source-ca", text(&ca), "--source-cert", text(&cert), "--source-key", text(&key)];
    let made = create(&repo, &tls_url(&primary), "one", &files).ok().json();
    let served = format!("127.0.0.1:{}", replica.tls_port().unwrap());
    assert_eq!(made["shards"][0]["node"]["address"].as_str(), Some(served.as_str()));

    // the same by the configuration
    let config = format!(
        "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{}\"]\n\
         repository = \"main\"\ntls_ca = \"{}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        repo.url,
        tls_url(&primary),
        ca.display(),
        cert.display(),
        key.display()
    );
    std::fs::write(repo.path("backupd.toml"), config).unwrap();
    let words = ["snapshot", "create", "orders", "--name", "two", "--config"];
    repo.cli.run(&[&words[..], &[text(&repo.path("backupd.toml"))]].concat()).ok();

    let target = Server::start(&options);
    let node = format!("127.0.0.1:{}", target.tls_port().unwrap());
    let words = ["restore", "two", "--shards", "1", "--nodes", &node];
    let files = ["--target-ca", text(&ca), "--target-cert", text(&cert), "--target-key", text(&key)];
    repo.run(&[&words[..], &files, &["--method", "sync", "--plan"]].concat()).exits(18).says("TLS");
    repo.run(&[&words[..], &files].concat()).ok();
    compare(&primary.nodes(), &target.nodes()).assert_equal();
    let refused = Server::start(&options);
    let node = format!("rediss://127.0.0.1:{}", refused.tls_port().unwrap());
    repo.run(&["restore", "two", "--shards", "1", "--nodes", &node]).exits(13).says("--target-ca");
}

#[test]
fn a_cluster_is_captured_over_tls() {
    let authority = Authority::new();
    let options = Options::new().tls(authority.server()).line("tls-auth-clients no");
    let cluster = Cluster::start_with(&options, policies::shards::equal(2).unwrap(), 1);
    Keyspace::new(52, 2000).load(&cluster.nodes());
    cluster.wait_replicas();
    let repo = Repo::folder();
    let ca = authority.path("ca.pem");
    let made = create(&repo, &tls_url(&cluster.shards[1].replicas[0]), "one", &["--source-ca", text(&ca)]).ok().json();
    for (shard, servers) in made["shards"].as_array().unwrap().iter().zip(&cluster.shards) {
        let served = format!("127.0.0.1:{}", servers.replicas[0].tls_port().unwrap());
        assert_eq!(shard["node"]["address"].as_str(), Some(served.as_str()));
    }
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&cluster.nodes(), &nodes).assert_equal();
}

/// A new cluster that speaks TLS alone: it takes clients with certificates of its authority and the password, nobody else, and
/// what they read of it is what was restored.
#[test]
fn a_cluster_is_launched_with_tls_and_read_with_a_client_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let source = Server::standalone();
    Keyspace::new(57, 2000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let [ca, cert, key] = authority.server();
    let (dir, password) = (repo.path("secure"), repo.path("password"));
    std::fs::write(&password, "a password").unwrap();
    let launched = Launched { dir: dir.clone() };
    let words = ["restore", "one", "--launch", text(&dir), "--shards", "2", "--replicas", "1"];
    let access = ["--launch-ca", text(&ca), "--launch-cert", text(&cert), "--launch-key", text(&key)];
    let outcome = repo.json(&[&words[..], &access, &["--launch-password-file", text(&password)]].concat());
    assert_eq!(outcome["verified"]["keys"], outcome["keys"]);
    let port = &outcome["nodes"][1]["port"];
    let plain = nodes::try_connect(&format!("redis://127.0.0.1:{port}"));
    let answer = plain.and_then(|mut link| nodes::command(&["PING"]).query::<String>(&mut link));
    assert!(answer.is_err(), "it answers without TLS: {answer:?}");

    let url = format!("rediss://127.0.0.1:{port}");
    let [_, cert, key] = authority.files("client", &["backupd"], |_| {});
    let [_, strange_cert, strange_key] = other.files("client", &["backupd"], |_| {});
    let ours = ["--source-ca", text(&ca), "--source-password-file", text(&password)];
    let with = |cert, key| [&ours[..], &["--source-cert", text(cert), "--source-key", text(key)]].concat();
    create(&repo, &url, "two", &with(&strange_cert, &strange_key)).exits(13);
    create(&repo, &url, "two", &with(&cert, &key)).ok();
    drop(launched);
    let (nodes, _launched) = repo.launch("two", &["--shards", "1"]);
    compare(&source.nodes(), &nodes).assert_equal();
}

#[test]
fn what_is_wrong_with_certificates_is_told_and_is_13() {
    let (authority, other) = (Authority::new(), Authority::new());
    let start = |files| Server::start(&Options::new().tls(files).line("tls-auth-clients no"));
    let repo = Repo::folder();
    let ca = authority.path("ca.pem");
    let trusting = ["--source-ca", text(&ca)];

    let good = start(authority.server());
    create(&repo, &tls_url(&good), "x", &["--source-ca", text(&other.path("ca.pem"))]).exits(13).says("--source-ca");
    let outcome = create(&repo, &tls_url(&good), "x", &[]).exits(13).says("--source-ca");
    assert_eq!(outcome.error_json()["error"]["retryable"], false);
    create(&repo, &tls_url(&good), "good", &trusting).ok();

    let expired = start(authority.files("expired", &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }));
    create(&repo, &tls_url(&expired), "x", &trusting).exits(13).says("expired").says("needs a new certificate");

    let named = start(authority.files("named", &["orders.internal"], |_| {}));
    create(&repo, &tls_url(&named), "x", &trusting).exits(13).says("--source-server-name").says("orders.internal");
    let by_name = [&trusting[..], &["--source-server-name", "orders.internal"]].concat();
    create(&repo, &tls_url(&named), "named", &by_name).ok();

    let strict = Server::start(&Options::new().tls(authority.server()).line("tls-auth-clients yes"));
    create(&repo, &tls_url(&strict), "x", &trusting).exits(13).says("--source-cert");
    let [_, cert, key] = other.files("stranger", &["backupd"], |_| {});
    let stranger = [&trusting[..], &["--source-cert", text(&cert), "--source-key", text(&key)]].concat();
    create(&repo, &tls_url(&strict), "x", &stranger).exits(13).says("the server refuses us");
    assert!(repo.list().iter().all(|(name, _)| name != "x"));
}

#[test]
fn wrong_ports_and_files_are_told() {
    let authority = Authority::new();
    let server = Server::start(&Options::new().tls(authority.server()).line("tls-auth-clients no"));
    let repo = Repo::folder();
    let ca = authority.path("ca.pem");
    let plain = format!("rediss://{}", server.address());
    create(&repo, &plain, "x", &["--source-ca", text(&ca)]).exits(15).says("TLS");
    create(&repo, &format!("redis://127.0.0.1:{}", server.tls_port().unwrap()), "x", &[]).exits(15);
    create(&repo, &server.url(), "x", &["--source-ca", text(&ca)]).exits(2).says("rediss://");
    create(&repo, &tls_url(&server), "x", &["--source-ca", "/no/such/file"]).exits(19).says("/no/such/file");
    create(&repo, &tls_url(&server), "x", &["--source-ca", text(&authority.path("server.key"))]).exits(19);
    create(&repo, &tls_url(&server), "x", &["--source-cert", text(&authority.path("server.pem"))]).exits(2);
    let [_, cert, _] = authority.server();
    let [_, _, key] = authority.files("other", &["x"], |_| {});
    let mixed = ["--source-ca", text(&ca), "--source-cert", text(&cert), "--source-key", text(&key)];
    create(&repo, &tls_url(&server), "x", &mixed).exits(19).says("server.pem");
}

#[test]
fn passwords_come_from_variables_too() {
    let server = Server::start(&Options::new().password("s3cret-word"));
    let mut repo = Repo::folder();
    let source = format!("redis://{}", server.address());
    create(&repo, &source, "x", &[]).exits(13);
    let plain = repo.cli.clone();
    repo.cli = plain.clone().env("BACKUPD_SOURCE_PASSWORD", "wrong-word");
    let outcome = create(&repo, &source, "x", &["-vv"]).exits(13);
    assert!(!outcome.stderr.contains("wrong-word"), "{outcome}");
    repo.cli = plain.clone().env("BACKUPD_SOURCE_PASSWORD", "s3cret-word");
    let outcome = create(&repo, &source, "one", &["-vv"]).ok();
    assert!(!format!("{outcome}").contains("s3cret-word"), "{outcome}");
    let config = format!(
        "[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n[clusters.orders]\nsources = [\"{source}\"]\n\
         repository = \"main\"\npassword_env = \"ORDERS\"\n",
        repo.url
    );
    std::fs::write(repo.path("backupd.toml"), config).unwrap();
    let file = repo.path("backupd.toml");
    let words = ["snapshot", "create", "orders", "--name", "two", "--config", text(&file)];
    plain.run(&words).exits(19).says("ORDERS");
    plain.clone().env("ORDERS", "s3cret-word").run(&words).ok();
}

#[test]
fn certificates_that_end_soon_are_told_of_before_they_do() {
    let authority = Authority::new();
    let soon = backupd::clock::now() + chrono::Duration::days(5);
    let end = date_time_ymd(soon.year(), u8::try_from(soon.month()).unwrap(), u8::try_from(soon.day()).unwrap());
    let files = authority.files("server", &["127.0.0.1"], |params| params.not_after = end);
    let [ca, cert, key] = authority.files("client", &["backupd"], |params| params.not_after = end);
    let start = |files| Server::start(&Options::new().tls(files).line("tls-auth-clients yes"));
    // a node that was not named: what is asked is another one
    let (primary, server) = (start(authority.files("primary", &["127.0.0.1"], |_| {})), start(files));
    server.run(&["REPLICAOF", "127.0.0.1", &primary.tls_port().unwrap().to_string()]);
    server.wait_link();
    let repo = Repo::folder();
    let words = ["check", "--source", &tls_url(&primary), "--source-ca", text(&ca), "--source-cert", text(&cert)];
    let outcome = repo.run(&[&words[..], &["--source-key", text(&key)]].concat()).ok();
    let findings = outcome.json()["clusters"][0]["findings"].as_array().unwrap().clone();
    assert_eq!(findings.len(), 2, "{outcome}");
    // our own is told with the node that is asked first, whichever that is
    for what in [server.tls_port().unwrap().to_string(), text(&cert).to_owned()] {
        let is_of = |finding: &&Value| finding["message"].as_str().unwrap().contains(&what);
        let finding = findings.iter().find(is_of).unwrap_or_else(|| panic!("nothing of {what}: {outcome}"));
        assert!(finding["message"].as_str().unwrap().contains("ends in 4 days"), "{outcome}");
        assert_eq!(finding["severity"], "warning");
    }
}
