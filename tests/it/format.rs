//! `docs/format.md` is enough to read a snapshot: a reader that was written from it alone says so, and its worked
//! example is a snapshot that this program reads too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use backupd::bkd::Header;
use backupd::crypt::keyring::Keyring;
use backupd::crypt::master::{Binding, Master};
use backupd::crypt::{DataKey, derive, wrap};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::fixture::{Repo, files_below};
use crate::grants::OTHER;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes::Node;
use crate::harness::process;
use crate::harness::s3::block_on;
use crate::harness::server::{Options, Server};

const MANIFEST_DIR: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the reader on the folder of a snapshot.
fn read(snapshot: &Path, keyring: &Path, out: &Path) -> Output {
    // the packages that set-up installs are those of the system's Python, whatever else is in PATH
    let mut command = process::command("/usr/bin/python3");
    command.arg(Path::new(MANIFEST_DIR).join("../tests/reader/read_snapshot.py"));
    let output = command.arg(snapshot).arg(keyring).arg(out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("ModuleNotFoundError"), "run tests/setup.sh tests: {said}");
    output
}

fn snapshot_folder(repo: &Repo) -> PathBuf {
    repo.snapshot_files()[0].0.parent().unwrap().to_owned()
}

#[test]
fn the_independent_reader_gives_the_rdb_files_of_a_cluster() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(21, 4000).load(&cluster.nodes());
    let repo = Repo::folder();
    let made = repo.create(&cluster.url(), "one");
    let out = repo.path("out");
    let output = read(&snapshot_folder(&repo), &repo.path("keys.json"), &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let files = files_below(&out);
    assert_eq!(files.len(), 3, "{files:?}");
    let mut servers = Vec::new();
    for (file, shard) in files.iter().zip(made["shards"].as_array().unwrap()) {
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), shard["object"]["plain_sha256"].as_str().unwrap());
        assert_eq!(Some(bytes.len() as u64), shard["object"]["plain_bytes"].as_u64());
        let (dir, name) = (out.display(), file.file_name().unwrap().to_str().unwrap());
        servers.push(Server::start(&Options::new().line(format!("dir {dir}")).line(format!("dbfilename {name}"))));
    }
    let loaded: Vec<Node> = cluster
        .nodes()
        .into_iter()
        .map(|node| {
            let shard = made["shards"]
                .as_array()
                .unwrap()
                .iter()
                .position(|shard| shard["slots"].as_str().unwrap() == node.slots.to_string());
            Node { url: servers[shard.unwrap()].url(), slots: node.slots }
        })
        .collect();
    compare(&cluster.nodes(), &loaded).assert_equal();
}

#[test]
fn the_independent_reader_passes_over_key_filters() {
    let server = Server::standalone();
    Keyspace::new(23, 300).load(&server.nodes());
    // more than three frames: the first, the last and the key's own are read, wherever the server puts it
    let script = "for i = 1, 80000 do redis.call('SET', 'key:' .. i, string.rep(redis.sha1hex(i), 3)) end";
    server.run(&["EVAL", script, "0"]);
    let repo = Repo::folder();
    let made = repo.create(&server.url(), "one");
    let object = &made["shards"][0]["object"];
    let out = repo.path("out");
    let output = read(&snapshot_folder(&repo), &repo.path("keys.json"), &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(out.join("shard-0000.rdb")).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&bytes)), object["plain_sha256"].as_str().unwrap());
    // there are some: else one key could not be found in fewer frames
    let plan = repo.json(&["restore", "one", "--out", "/nowhere", "--plan", "--filter", "key:1"]);
    assert!(plan["inputs"][0]["read_frames"].as_u64() < object["frames"].as_u64(), "{plan}");
}

#[test]
fn the_independent_reader_notices_damage_of_every_object() {
    let server = Server::standalone();
    Keyspace::new(22, 200).load(&server.nodes());
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let (folder, keyring) = (snapshot_folder(&repo), repo.path("keys.json"));
    let mut objects = repo.snapshot_files();
    objects.extend(repo.files().into_iter().filter(|(path, _)| path.ends_with("backupd-repository.json")));
    assert_eq!(objects.len(), 4, "a marker, a manifest, a wrap, a shard");
    for (path, content) in objects {
        let length = content.len();
        for position in [0, 12, 90, length / 3, length / 2, length - 20, length - 1] {
            let mut changed = content.clone();
            changed[position] ^= 1 << (position % 8);
            std::fs::write(&path, &changed).unwrap();
            let out = repo.path("out");
            let output = read(&folder, &keyring, &out);
            let place = format!("byte {position} of {}", path.display());
            assert_eq!(output.status.code(), Some(1), "{place}");
            assert!(files_below(&out).iter().all(|file| !file.ends_with("shard-0000.rdb")), "{place}");
            let _absent_is_fine = std::fs::remove_dir_all(&out);
        }
        std::fs::write(&path, &content[..length - 1]).unwrap();
        assert_eq!(read(&folder, &keyring, &repo.path("out")).status.code(), Some(1), "{} cut", path.display());
        let _absent_is_fine = std::fs::remove_dir_all(repo.path("out"));
        std::fs::write(&path, &content).unwrap();
    }
    // another key, and none
    let other = repo.path("other.json");
    repo.cli.run(&["key", "generate", other.to_str().unwrap()]).ok();
    for keyring in [&other, Path::new("-")] {
        assert_eq!(read(&folder, keyring, &repo.path("none")).status.code(), Some(1));
    }
    assert!(read(&folder, &keyring, &repo.path("whole")).status.success());
}

/// The data key is sealed by the library that TLS has, and opened by the reader's own HPKE over other code.
#[test]
fn the_independent_reader_opens_what_was_granted_to_a_public_key() {
    let server = Server::standalone();
    Keyspace::new(23, 200).load(&server.nodes());
    let repo = Repo::bucket("format-granted");
    let bucket = repo.bucket.as_ref().unwrap();
    let made = repo.create(&server.url(), "one");
    let theirs = repo.path("theirs.json");
    let pair = repo.cli.json(&["key", "generate", theirs.to_str().unwrap(), "--x25519", "-o", "json"]);
    let public = pair["public_key"].as_str().unwrap();
    let grant = repo.json(&["grant", "add", "one", "--account", OTHER, "--key", public]);
    for (key, _) in bucket.list("some/prefix/") {
        let path = repo.root().join(key.strip_prefix("some/prefix/").unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bucket.get(&key)).unwrap();
    }
    let folder = snapshot_folder(&repo);
    assert!(folder.join(format!("wrap-{}.json", grant["key_id"].as_str().unwrap())).exists());
    let output = read(&folder, &theirs, &repo.path("out"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rdb = std::fs::read(repo.path("out/shard-0000.rdb")).unwrap();
    let object = &made["shards"][0]["object"];
    assert_eq!(hex::encode(Sha256::digest(&rdb)), object["plain_sha256"].as_str().unwrap());
    // ours opens its own wrap, though another one lies beside it
    assert!(read(&folder, &repo.path("keys.json"), &repo.path("ours")).status.success());

    // another private key under the same public one
    let mut ring: Value = serde_json::from_slice(&std::fs::read(&theirs).unwrap()).unwrap();
    ring["pairs"][0]["secret"] = ring["keys"][0]["secret"].clone();
    std::fs::write(&theirs, ring.to_string()).unwrap();
    let output = read(&folder, &theirs, &repo.path("wrong"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("the tag does not fit"), "{said}");
}

/// The blocks of the worked example: what stands in `<!-- example NAME -->` is the name, the fenced block after it the
/// content. JSON is broken into lines there, and a document has none; bytes are in hex, with remarks behind `;`.
fn example() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(Path::new(MANIFEST_DIR).join("docs/format.md")).unwrap();
    let mut blocks = BTreeMap::new();
    for part in text.split("<!-- example ").skip(1) {
        let (name, rest) = part.split_once(" -->").unwrap();
        let lines = rest.split("```").nth(1).unwrap().lines().skip(1);
        let content = if name.ends_with(".json") {
            lines.collect::<String>().into_bytes()
        } else {
            let digits: String = lines.map(|line| line.split(';').next().unwrap()).collect();
            hex::decode(digits.replace(' ', "")).unwrap()
        };
        assert!(blocks.insert(name.to_owned(), content).is_none(), "{name} stands there twice");
    }
    blocks
}

fn unwrapped(file: &[u8], snapshot_id: &str, ring: &Keyring) -> DataKey {
    let wrap = wrap::parse("wrap", file, snapshot_id, ring.active_id()).unwrap();
    // a key of a file needs nothing else to be known
    let binding = Binding { repository: "", cluster: "", snapshot_id };
    block_on(wrap::open("wrap", &wrap, binding, &Master::File(ring.active().unwrap().clone()))).unwrap()
}

#[test]
fn the_worked_example_is_a_snapshot() {
    let blocks = example();
    let block = |name: &str| blocks.get(name).unwrap_or_else(|| panic!("no block {name} in {:?}", blocks.keys()));
    let repo = Repo::folder();
    for (name, content) in blocks.iter().filter(|(name, _)| name.contains('.') && *name != "dump.rdb") {
        let path = if name == "keys.json" { repo.path(name) } else { repo.root().join(name) };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let verified = repo.json(&["snapshot", "verify", "worked-example"]);
    assert_eq!(verified["keys"], 2);
    let folder = snapshot_folder(&repo);
    let output = read(&folder, &repo.path("keys.json"), &repo.path("out"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(repo.path("out/shard-0000.rdb")).unwrap() == *block("dump.rdb"));

    // the values on the way
    let ring = Keyring::read(&repo.path("keys.json")).unwrap();
    let id = folder.file_name().unwrap().to_str().unwrap();
    let file = std::fs::read(folder.join(format!("wrap-{}.json", ring.active_id()))).unwrap();
    let data_key = unwrapped(&file, id, &ring);
    assert_eq!(data_key.expose().as_slice(), block("data key"));
    let pair = &ring.pairs()[0];
    let file = std::fs::read(folder.join(format!("wrap-{}.json", pair.public.id))).unwrap();
    let wrap = wrap::parse("wrap", &file, id, &pair.public.id).unwrap();
    let binding = Binding { repository: "", cluster: "", snapshot_id: id };
    let opened = block_on(wrap::open("wrap", &wrap, binding, &Master::Pair(pair.clone()))).unwrap();
    assert_eq!(opened.expose(), data_key.expose(), "another program made this wrap");
    assert_eq!(data_key.manifest_key().unwrap().as_slice(), block("manifest key"));
    let shard = std::fs::read(folder.join("shard-0000-1.bkd")).unwrap();
    let header = Header::decode("shard", shard.first_chunk().unwrap()).unwrap();
    assert_eq!(header.object_key(Some(&data_key)).unwrap().secret.unwrap().as_slice(), block("object key"));
    let info = [b"backupd/1 object".as_slice(), &shard[..72]].concat();
    let by_hand = derive::<32>(data_key.expose(), &shard[56..72], &[&info]).unwrap();
    assert_eq!(by_hand.as_slice(), block("object key"));
}

/// Prints the blocks of a fresh example, to be put into the document when the format changes:
/// `cargo test -p backupd --test it print_a_worked_example -- --ignored --nocapture`.
#[test]
#[ignore = "prints text for the document"]
fn print_a_worked_example() {
    let server = Server::standalone();
    let mut link = server.connect();
    redis::cmd("SET").arg("greeting").arg("hello, hello, hello, hello, hello, hello").exec(&mut link).unwrap();
    redis::cmd("RPUSH").arg("list").arg(&["a", "b"]).exec(&mut link).unwrap();
    let repo = Repo::folder();
    repo.create(&server.url(), "worked-example");
    let (folder, ring) = (snapshot_folder(&repo), Keyring::read(&repo.path("keys.json")).unwrap());
    let output = read(&folder, &repo.path("keys.json"), &repo.path("out"));
    assert!(output.status.success());
    let id = folder.file_name().unwrap().to_str().unwrap();
    let file = std::fs::read(folder.join(format!("wrap-{}.json", ring.active_id()))).unwrap();
    let data_key = unwrapped(&file, id, &ring);
    let shard = std::fs::read(folder.join("shard-0000-1.bkd")).unwrap();
    let header = Header::decode("shard", shard.first_chunk().unwrap()).unwrap();
    let keys: Value = serde_json::from_slice(&std::fs::read(repo.path("keys.json")).unwrap()).unwrap();
    println!("<!-- example keys.json -->\n```json\n{}\n```\n", broken(&keys.to_string()));
    for (path, content) in repo.files().into_iter().filter(|(path, _)| !path.starts_with(repo.root().join("_names"))) {
        let name = path.strip_prefix(repo.root()).unwrap().display().to_string();
        if name.ends_with(".json") {
            println!("<!-- example {name} -->\n```json\n{}\n```\n", broken(&String::from_utf8(content).unwrap()));
        } else {
            println!("<!-- example {name} -->\n```\n{}```\n", pieces(&content));
        }
    }
    let rdb = std::fs::read(repo.path("out/shard-0000.rdb")).unwrap();
    println!("<!-- example dump.rdb -->\n```\n{}```\n", lines(&rdb, "the RDB"));
    let object_key = header.object_key(Some(&data_key)).unwrap().secret.unwrap();
    let named = [
        ("data key", data_key.expose().to_vec()),
        ("manifest key", data_key.manifest_key().unwrap().to_vec()),
        ("object key", object_key.to_vec()),
    ];
    for (name, bytes) in named {
        println!("<!-- example {name} -->\n```\n{}```\n", lines(&bytes, name));
    }
}

/// JSON of one line, broken behind commas into lines of about 110 characters.
fn broken(json: &str) -> String {
    let (mut text, mut length) = (String::new(), 0);
    for part in json.split_inclusive(',') {
        if length > 0 && length + part.len() > 110 {
            text.push('\n');
            length = 0;
        }
        text.push_str(part);
        length += part.len();
    }
    text
}

/// Bytes in lines of 32, the first with a remark.
fn lines(bytes: &[u8], remark: &str) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(32).enumerate() {
        let digits: Vec<_> = line.chunks(4).map(hex::encode).collect();
        let remark = if index == 0 { format!("  ; {remark}") } else { String::new() };
        writeln!(text, "{}{remark}", digits.join(" ")).unwrap();
    }
    text
}

/// A `.bkd` file, piece by piece.
fn pieces(file: &[u8]) -> String {
    let mut text = String::new();
    let header = [
        (0, 12, "magic, version, cipher, compression"),
        (12, 16, "frame size"),
        (16, 48, "snapshot id"),
        (48, 56, "shard, attempt"),
        (56, 72, "salt"),
        (72, 96, "key check, zero bytes"),
        (96, 128, "SHA-256 of what stands above"),
    ];
    header.into_iter().for_each(|(from, to, what)| text.push_str(&lines(&file[from..to], what)));
    let mut at = 128;
    while at + 16 < file.len() {
        let stored = usize::try_from(u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap())).unwrap();
        let what = if file[at + 8] == 1 { "index frame" } else { "data frame" };
        text.push_str(&lines(&file[at..at + 12], &format!("head of the {what}")));
        text.push_str(&lines(&file[at + 12..at + 12 + stored], "payload"));
        text.push_str(&lines(&file[at + 12 + stored..at + 28 + stored], "tag"));
        at += 28 + stored;
    }
    text + &lines(&file[at..], "footer: offset of the index frame, magic")
}
