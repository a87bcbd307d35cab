//! How long restores take beside what the same servers need by themselves and beside `redis-cli --pipe`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rdbtools::crc64::Crc64;
use rdbtools::{Key, RdbVersion, Scanner, Sink};
use serde_json::Value;

use crate::harness::cli::Cli;
use crate::harness::cluster::Cluster;
use crate::harness::nodes;
use crate::harness::process::{self, Running};
use crate::harness::server::{Options, Server};
use crate::meter::{Cost, measure};
use crate::shapes::Shape;
use crate::{Asked, Source, backupd, mb, snapshot};

/// Nodes of the cluster that runs already.
const SHARDS: usize = 3;
/// How long a server may take to load.
const LOAD_LIMIT: Duration = Duration::from_secs(600);

/// One line of the table.
struct Row {
    name: &'static str,
    costs: Vec<Cost>,
}

/// What the runs of a shape have in common.
struct Bench<'a> {
    asked: &'a Asked,
    /// The flags that name the repository and its key.
    place: Vec<String>,
    rows: Vec<Row>,
}

pub(crate) fn restore(asked: &Asked) {
    let picked = std::env::var("BENCH_SHAPES").unwrap_or_else(|_| "small,mixed".to_owned());
    for shape in [Shape::Small, Shape::Mixed].into_iter().filter(|shape| picked.contains(shape.name())) {
        let source = Source::launch(asked, shape, 1);
        let (_, made) = snapshot(asked, &source, "one");
        drop(source);
        let object = &made["shards"][0]["object"];
        let [plain, stored] = ["plain_bytes", "stored_bytes"].map(|name| mb(object[name].as_u64().unwrap()));
        let keys = &made["shards"][0]["rdb"]["keys"];
        println!(
            "\nshape {}: {plain:.0} MB of RDB, {stored:.0} MB stored, {keys} keys, {} runs",
            shape.name(),
            asked.runs
        );
        let mut bench = Bench { asked, place: asked.place().to_vec(), rows: Vec::new() };
        bench.launches();
        bench.synchronisation();
        bench.running_nodes();
        bench.print();
    }
}

impl Bench<'_> {
    fn add(&mut self, name: &'static str, cost: Cost) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.costs.push(cost),
            None => self.rows.push(Row { name, costs: vec![cost] }),
        }
    }

    fn restore(&self, words: &[&str]) -> (Cost, Value) {
        let place = self.place.iter().map(String::as_str);
        let words: Vec<&str> =
            ["restore", "one", "-o", "json"].into_iter().chain(place).chain(words.iter().copied()).collect();
        let (cost, text) = backupd(&words);
        (cost, serde_json::from_str(&text).unwrap())
    }

    /// New clusters of one and three shards, and the same servers with the same files without us.
    fn launches(&mut self) {
        for _ in 0..self.asked.runs {
            for (shards, own, plain, verified) in [
                ("1", OWN, "--launch, 1 shard, --no-verify", "--launch, 1 shard"),
                ("3", OWN_3, "--launch, 3 shards, --no-verify", "--launch, 3 shards"),
            ] {
                let dir = self.asked.dir.join("launched");
                let words = ["--launch", dir.to_str().unwrap(), "--shards", shards];
                let (cost, _) = self.restore(&[&words[..], &["--no-verify"]].concat());
                self.add(plain, cost);
                kill(&dir);
                let [loaded, answering] = own_load(&dir);
                self.add(own, loaded);
                if shards != "1" {
                    self.add(OWN_3_OK, answering);
                }
                std::fs::remove_dir_all(&dir).unwrap();
                let (cost, _) = self.restore(&words);
                self.add(verified, cost);
                kill(&dir);
                std::fs::remove_dir_all(&dir).unwrap();
            }
        }
    }

    fn synchronisation(&mut self) {
        for _ in 0..self.asked.runs {
            let target = Server::start(&Options::new());
            let (cost, _) = self.restore(&["--nodes", &target.address(), "--method", "sync", "--no-verify"]);
            self.add(SYNC, cost);
        }
    }

    /// A cluster that runs: by us, and by commands that were made before and are only sent.
    fn running_nodes(&mut self) {
        let target = Cluster::start(SHARDS, 0);
        let address = target.shards[0].primary.address();
        let out = self.asked.dir.join("files");
        self.restore(&["--out", out.to_str().unwrap(), "--shards", "3"]);
        let files: Vec<PathBuf> = (0..SHARDS).map(|index| out.join(format!("shard-{index:04}.rdb"))).collect();
        let restores: Vec<PathBuf> = files.iter().map(|file| restore_commands(file)).collect();
        let rdb_cli = std::env::var("BENCH_RDB_CLI").ok();
        for _ in 0..self.asked.runs {
            let (cost, _) = self.restore(&["--nodes", &address, "--no-verify"]);
            self.add(NODES, cost);
            empty(&target);
            self.add(PIPE, pipe(&target, &restores));
            empty(&target);
            if let Some(program) = &rdb_cli {
                self.add(PIPE_OF_FILE, pipe_of_files(program, "-r -t 7.0", &target, &files));
                empty(&target);
            }
            let (cost, _) = self.restore(&["--nodes", &address]);
            self.add("--nodes, formed cluster", cost);
            empty(&target);
        }
        restores.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let plains: Vec<PathBuf> = files.iter().map(|file| plain_commands(file)).collect();
        self.add(PLAIN, pipe(&target, &plains));
        empty(&target);
        if let Some(program) = &rdb_cli {
            self.add(PLAIN_OF_FILE, pipe_of_files(program, "", &target, &files));
        }
        std::fs::remove_dir_all(&out).unwrap();
    }

    fn print(&self) {
        println!("{:<56}{:>10}{:>8}{:>8}{:>10}{:>10}", "", "median s", "min s", "max s", "CPU s", "peak MiB");
        for Row { name, costs } in &self.rows {
            let wall = Cost::sorted(costs, |cost| cost.wall_s);
            let (cpu, peak) = (Cost::median(costs, |cost| cost.cpu_s), Cost::sorted(costs, |cost| cost.peak_mib));
            let (median, last) = (Cost::median(costs, |cost| cost.wall_s), costs.len() - 1);
            println!("{name:<56}{median:>10.2}{:>8.2}{:>8.2}{cpu:>10.2}{:>10.0}", wall[0], wall[last], peak[last]);
        }
        let median = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name)?;
            Some(Cost::median(&row.costs, |cost| cost.wall_s))
        };
        for (what, above, below) in [
            ("launch of 1 shard over the server's own load", "--launch, 1 shard, --no-verify", OWN),
            ("launch of 3 shards over the servers' own load", "--launch, 3 shards, --no-verify", OWN_3),
            (
                "launch of 3 shards over the servers' own load until they answer",
                "--launch, 3 shards, --no-verify",
                OWN_3_OK,
            ),
            ("synchronisation over the server's own load", SYNC, OWN),
            ("redis-cli --pipe of RESTORE over --nodes", PIPE, NODES),
            ("redis-cli --pipe of plain commands over --nodes", PLAIN, NODES),
            ("rdb-cli | redis-cli --pipe of RESTORE over --nodes", PIPE_OF_FILE, NODES),
            ("rdb-cli | redis-cli --pipe of plain commands over --nodes", PLAIN_OF_FILE, NODES),
        ] {
            if let (Some(above), Some(below)) = (median(above), median(below)) {
                println!("{what}: {:.2}", above / below);
            }
        }
    }
}

const OWN: &str = "the server loads the file, 1 shard";
const OWN_3: &str = "the servers load the files, 3 shards";
const OWN_3_OK: &str = "the servers load and answer for their slots, 3 shards";
const SYNC: &str = "--nodes, one server, as its primary, --no-verify";
const NODES: &str = "--nodes, formed cluster, --no-verify";
const PIPE: &str = "redis-cli --pipe, RESTORE made before, one per node";
const PIPE_OF_FILE: &str = "rdb-cli | redis-cli --pipe, RESTORE, one per node";
const PLAIN_OF_FILE: &str = "rdb-cli | redis-cli --pipe, plain, one per node";
const PLAIN: &str = "redis-cli --pipe, plain commands made before, one per node";

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("redis.conf").is_file()).collect()
}

/// Ends the servers of a launch at once, so that they save nothing.
fn kill(dir: &Path) {
    for folder in folders(dir) {
        let pid = std::fs::read_to_string(folder.join("server.pid")).unwrap();
        assert!(process::send("KILL", pid.trim()));
        // threads of a server that ended may still hold its ports, and its lock of nodes.conf goes with them
        process::wait_for("the ports of a server", LOAD_LIMIT, || {
            let port = port_of(&folder);
            let free = [port, port + 10_000].map(|port| TcpListener::bind(("127.0.0.1", port)));
            free.into_iter().try_for_each(|bound| bound.map(drop).map_err(|error| error.to_string()))
        });
    }
}

fn port_of(folder: &Path) -> u16 {
    folder.file_name().unwrap().to_str().unwrap().trim_start_matches("node-").parse().unwrap()
}

/// The servers of a launch, all at the same time, from their start until they have loaded their files, and until they answer for their
/// slots, which nodes of a cluster do two seconds later (`CLUSTER_WRITABLE_DELAY`, `src/cluster.c`).
fn own_load(dir: &Path) -> [Cost; 2] {
    let folders = folders(dir);
    folders.iter().for_each(|folder| drop(std::fs::remove_file(folder.join("server.pid"))));
    let begun = Instant::now();
    let start = |folder: &PathBuf| -> Running {
        let mut command = process::command("redis-server");
        command.arg(folder.join("redis.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::spawn_group(command)
    };
    let running: Vec<Running> = folders.iter().map(start).collect();
    for folder in &folders {
        let port = port_of(folder);
        process::wait_for("the load", LOAD_LIMIT, || {
            let link = nodes::try_connect(&format!("redis://127.0.0.1:{port}"));
            match link.ok().and_then(|mut link| nodes::info(&mut link, "loading")).as_deref() {
                Some("0") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let took = || Cost { wall_s: begun.elapsed().as_secs_f64(), cpu_s: 0.0, peak_mib: 0.0 };
    let loaded = took();
    for folder in folders.iter().filter(|_| folders.len() > 1) {
        process::wait_for("a cluster", LOAD_LIMIT, || {
            let link = nodes::try_connect(&format!("redis://127.0.0.1:{}", port_of(folder)));
            let state = link.ok().map(|mut link| nodes::command(&["CLUSTER", "INFO"]).query::<String>(&mut link));
            match state {
                Some(Ok(state)) if state.contains("cluster_state:ok") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let answering = took();
    drop(running);
    [loaded, answering]
}

fn empty(target: &Cluster) {
    for server in target.servers() {
        server.run(&["FLUSHALL"]);
        server.run(&["FUNCTION", "FLUSH"]);
    }
}

/// Sends each node its file, all at the same time.
fn pipe(target: &Cluster, files: &[PathBuf]) -> Cost {
    piped(target, files, |file, pipe| format!("{pipe} < {}", file.display()))
}

/// Sends each node its file as the program `rdb-cli` of librdb makes commands of it.
fn pipe_of_files(program: &str, flags: &str, target: &Cluster, files: &[PathBuf]) -> Cost {
    piped(target, files, |file, pipe| format!("{program} {} -l /dev/null resp -1 {flags} | {pipe}", file.display()))
}

fn piped(target: &Cluster, files: &[PathBuf], fed: impl Fn(&Path, &str) -> String) -> Cost {
    let each = target.shards.iter().zip(files).map(|(shard, file)| {
        let pipe = format!("redis-cli -p {} --pipe", shard.primary.port());
        format!("{{ {}; }} > /dev/null &", fed(file, &pipe))
    });
    let script = each.collect::<String>() + " wait";
    let cost = measure("sh", &["-c", &script], 0).0;
    let keys: u64 =
        target.servers().map(|server| nodes::command(&["DBSIZE"]).query::<u64>(&mut server.connect()).unwrap()).sum();
    assert!(keys > 0);
    cost
}

fn plain_commands(file: &Path) -> PathBuf {
    let commands = file.with_extension("plain");
    let out = File::create(&commands).unwrap();
    let program = Cli::sibling("rdbtools").program;
    let mut command = process::command(program);
    command.arg("dump").arg(file).args(["--format", "resp"]).stdout(out).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    commands
}

/// `RESTORE` for every key of a file, as `DUMP` of the server would have it.
fn restore_commands(file: &Path) -> PathBuf {
    let commands = file.with_extension("restore");
    let out = BufWriter::with_capacity(1 << 20, File::create(&commands).unwrap());
    let bytes = std::fs::read(file).unwrap();
    let sink = Restores { out, version: [0; 2], key: Vec::new(), ttl: String::new(), payload: Vec::new() };
    let mut scanner = Scanner::new(sink);
    scanner.feed(&bytes).unwrap();
    scanner.finish().unwrap().1.out.flush().unwrap();
    commands
}

struct Restores {
    out: BufWriter<File>,
    version: [u8; 2],
    key: Vec<u8>,
    ttl: String,
    payload: Vec<u8>,
}

impl Restores {
    fn put(&mut self, words: &[&[u8]]) {
        write!(self.out, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(self.out, "${}\r\n", word.len()).unwrap();
            self.out.write_all(word).unwrap();
            self.out.write_all(b"\r\n").unwrap();
        }
    }
}

impl Sink for Restores {
    fn header(&mut self, version: RdbVersion) {
        self.version = version.number.to_le_bytes();
    }

    fn function(&mut self, source: &[u8]) {
        self.put(&[b"FUNCTION", b"LOAD", source]);
    }

    fn key(&mut self, key: &Key<'_>) {
        self.key = key.name.to_vec();
        self.ttl = key.expires_at_ms.unwrap_or(0).to_string();
        self.payload = vec![key.value_type.code()];
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
    }

    fn key_end(&mut self, _bytes: u64) {
        let mut payload = std::mem::take(&mut self.payload);
        payload.extend(self.version);
        let mut crc = Crc64::new();
        crc.update(&payload);
        payload.extend(crc.value().to_le_bytes());
        let (key, ttl) = (std::mem::take(&mut self.key), std::mem::take(&mut self.ttl));
        self.put(&[b"RESTORE", &key, ttl.as_bytes(), &payload, b"ABSTTL"]);
    }
}
