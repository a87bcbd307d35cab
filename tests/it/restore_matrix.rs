//! Restores from every shape to every shape, by every way, and between engines. The short form runs always; the long
//! ones are run by hand: `cargo nextest run -p backupd --run-ignored only -E 'test(restore_matrix)'`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use policies::slot::SlotSet;
use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes::{self, Node};
use crate::harness::server::{Engine, Options, Server};

const UNEVEN: &str = "0-99,16000-16383;100-9999;10000-10000;10001-15999";

/// A source of one of the shapes, with all types.
enum Source {
    Standalone(Box<Server>),
    Cluster(Cluster),
}

impl Source {
    fn start(shards: usize, keys: u64) -> Self {
        let source = match shards {
            1 => Self::Standalone(Box::new(Server::standalone())),
            shards => Self::Cluster(Cluster::start(shards, 0)),
        };
        Keyspace::new(100 + shards as u64, keys).load(&source.nodes());
        source
    }

    fn nodes(&self) -> Vec<Node> {
        match self {
            Self::Standalone(server) => server.nodes(),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }
}

fn shape(target: &str) -> Vec<&str> {
    if target == "uneven" { vec!["--slots", UNEVEN] } else { vec!["--shards", target] }
}

fn slots_of(target: &str) -> Vec<SlotSet> {
    match target {
        "uneven" => UNEVEN.split(';').map(|ranges| ranges.parse().unwrap()).collect(),
        count => policies::shards::equal(count.parse().unwrap()).unwrap(),
    }
}

/// Restores by one way, compares from both sides, and says by which method.
fn one(repo: &Repo, source: &Source, target: &str, way: &str) {
    let shape = shape(target);
    let equal = |nodes: &[Node]| {
        let report = compare(&source.nodes(), nodes);
        assert!(report.is_equal() && report.equal > 0, "to {target} by {way}: {report}");
    };
    match way {
        "launch" => {
            let (nodes, _launched) = repo.launch("one", &shape);
            equal(&nodes);
        }
        "out" => {
            let dir = repo.path(&format!("out-{target}"));
            repo.run(&[&["restore", "one", "--out", dir.to_str().unwrap()], &shape[..]].concat()).ok();
            let servers = start_files(&dir, &slots_of(target));
            let nodes = servers.iter().zip(slots_of(target)).map(|(server, slots)| Node { url: server.url(), slots });
            equal(&nodes.collect::<Vec<_>>());
        }
        "sync" | "restore" if target == "1" => {
            let server = Server::standalone();
            repo.run(&["restore", "one", "--nodes", &server.address(), "--method", way]).ok();
            equal(&server.nodes());
        }
        "restore" => {
            let servers: Vec<Server> =
                slots_of(target).iter().map(|_| Server::start(&Options::new().cluster())).collect();
            let addresses: Vec<String> = servers.iter().map(Server::address).collect();
            repo.run(&[&["restore", "one", "--nodes", &addresses.join(",")], &shape[..]].concat()).ok();
            let nodes = servers.iter().zip(slots_of(target)).map(|(server, slots)| Node { url: server.url(), slots });
            equal(&nodes.collect::<Vec<_>>());
        }
        "formed" => {
            let cluster = Cluster::start_with(&Options::new(), slots_of(target), 0);
            repo.run(&["restore", "one", "--nodes", &cluster.shards[0].primary.address()]).ok();
            equal(&cluster.nodes());
        }
        way => panic!("nobody knows how to restore to {target} by {way}"),
    }
}

/// Starts the files of `--out` as its README says: each as dump.rdb of a server, with the nodes.conf made for it.
fn start_files(dir: &Path, slots: &[SlotSet]) -> Vec<Server> {
    let options = if slots.len() > 1 { Options::new().cluster() } else { Options::new() };
    let mut servers: Vec<Server> = slots.iter().map(|_| Server::start(&options)).collect();
    servers.iter_mut().for_each(Server::kill);
    let template = std::fs::read_to_string(dir.join("nodes.conf")).unwrap_or_default();
    let filled = |own: usize| {
        let line = |(index, line): (usize, &str)| {
            let Some(server) = servers.get(index) else { return line.to_owned() };
            let words: Vec<&str> = line.split(' ').collect();
            let address = format!("127.0.0.1:{}@{}", server.port(), server.port() + 10_000);
            let flags = if index == own { "myself,master" } else { "master" };
            [&[words[0], &address, flags], &words[3..]].concat().join(" ")
        };
        template.lines().enumerate().map(line).collect::<Vec<_>>().join("\n") + "\n"
    };
    let confs: Vec<String> = (0..servers.len()).map(filled).collect();
    for (index, (server, conf)) in servers.iter_mut().zip(confs).enumerate() {
        std::fs::copy(dir.join(format!("shard-{index:04}.rdb")), server.dir().join("dump.rdb")).unwrap();
        if slots.len() > 1 {
            std::fs::write(server.dir().join("nodes.conf"), conf).unwrap();
        }
        server.restart_loading();
    }
    for server in &servers {
        crate::redis_server::wait_until("the cluster is whole", || {
            let loading = server.info("loading").as_deref() == Some("1");
            let state = nodes::command(&["CLUSTER", "INFO"]).query::<String>(&mut server.connect());
            !loading && (slots.len() == 1 || state.is_ok_and(|text| text.contains("cluster_state:ok")))
        });
    }
    servers
}

/// Each source to each target by every way that can be; the table of it.
fn matrix(sources: &[usize], targets: &[&str], ways: &[&str], keys: u64) -> String {
    let mut table = format!("| shards from \\ to | {} |\n|---|{}\n", targets.join(" | "), "---|".repeat(targets.len()));
    for shards in sources {
        let mut cells = Vec::new();
        let source = Source::start(*shards, keys);
        let repo = Repo::folder();
        repo.create(&source.nodes()[0].url, "one");
        for target in targets {
            let possible = |way: &&&str| match **way {
                "sync" => *target == "1",
                "formed" => *target != "1",
                _ => true,
            };
            let ways: Vec<&str> = ways.iter().filter(possible).copied().collect();
            ways.iter().for_each(|way| one(&repo, &source, target, way));
            cells.push(ways.join(", "));
        }
        writeln!(table, "| {shards} | {} |", cells.join(" | ")).unwrap();
    }
    table
}

#[test]
fn shapes_in_short() {
    matrix(&[1, 3], &["1", "uneven"], &["launch", "out", "restore", "sync"], 400);
}

#[test]
#[ignore = "long: every shape by every way; writes the table of docs/restore.md"]
fn shapes_in_full() {
    let ways = ["launch", "out", "restore", "formed", "sync"];
    let table = matrix(&[1, 3, 6], &["1", "2", "3", "5", "12", "uneven"], &ways, 3000);
    println!("{table}");
    write_between("shapes", &table);
}

const ENGINES: [&str; 9] = [
    "redis-6.2",
    "redis-7.0",
    "redis-7.2",
    "redis-7.4",
    "redis-8",
    "redis-8.2",
    "valkey-8.0",
    "valkey-8.1",
    "valkey-9",
];

fn engine(name: &'static str) -> Engine {
    if name == "redis-7.0" { Engine::Redis } else { Engine::Extra(name) }
}

/// What becomes of a snapshot of one engine in another.
fn pair(repo: &Repo, target: &'static str, launches: &mut u32) -> String {
    let program = engine(target).program();
    let mut try_it = |more: &[&str]| {
        *launches += 1;
        let dir = repo.path(&format!("pair-{launches}"));
        let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--engine", program.to_str().unwrap()];
        let outcome = repo.run(&[&words[..], more].concat());
        (outcome, Launched { dir })
    };
    let (first, _launched) = try_it(&[]);
    match first.code {
        Some(0) => {
            assert!(first.json()["verified"]["keys"].as_u64().unwrap() > 0, "{first}");
            return "all".to_owned();
        }
        Some(18) => {}
        _ => return format!("no: {}", first.error_json()["error"]["message"].as_str().unwrap_or("?")),
    }
    let hint = first.error_json()["error"]["hint"].as_str().unwrap_or_default().to_owned();
    let kinds = hint.split("--drop ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let (second, _launched) = try_it(&["--drop", &kinds]);
    if second.code != Some(0) {
        return format!("no: {}", second.error_json()["error"]["message"].as_str().unwrap_or("?"));
    }
    let losses = second.json()["losses"].clone();
    let named = |loss: &Value| {
        let kind = loss["kind"].as_str().unwrap().to_owned();
        kinds.split(',').any(|allowed| allowed == kind).then_some(kind)
    };
    let lost: Vec<String> = losses.as_array().unwrap().iter().filter_map(named).collect();
    format!("without {}", lost.join(", "))
}

#[test]
#[ignore = "long: all pairs of nine engines; writes the table of docs/restore.md"]
fn engines_in_pairs() {
    let mut table = format!("| from \\ to | {} |\n|---|{}\n", ENGINES.join(" | "), "---|".repeat(ENGINES.len()));
    for source in ENGINES {
        let server = Server::start(&Options::new().engine(engine(source)));
        let keyspace = Keyspace::new(110, 800).for_old(source == "redis-6.2");
        keyspace.load(&server.nodes());
        if ["redis-7.4", "redis-8", "redis-8.2", "valkey-9"].contains(&source) {
            server.run(&["HSET", "fields", "a", "1", "b", "2"]);
            server.run(&["HPEXPIREAT", "fields", "4102444800000", "FIELDS", "1", "a"]);
        }
        let repo = Repo::folder();
        repo.create(&server.url(), "one");
        let mut launches = 0;
        let cells: Vec<String> = ENGINES.iter().map(|target| pair(&repo, target, &mut launches)).collect();
        writeln!(table, "| {source} | {} |", cells.join(" | ")).unwrap();
        // every engine takes its own whole, and what is newer takes all that it knows
        assert_eq!(cells[ENGINES.iter().position(|name| *name == source).unwrap()], "all", "{source}");
    }
    println!("{table}");
    write_between("engines", &table);
}

/// Replaces what stands between two marks of backupd/docs/restore.md.
fn write_between(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/restore.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    std::fs::write(path, format!("{before}{begin}{text}{end}{after}")).unwrap();
}
