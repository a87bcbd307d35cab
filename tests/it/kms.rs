//! Master keys of KMS: what is wrapped for one opens with it alone, goes to other keys and regions, and fails closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backupd::canonical::{self, Proof};
use backupd::crypt::keyring::Keyring;
use serde_json::{Value, json};

use crate::fixture::Repo;
use crate::harness::cli::{Cli, Outcome};
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::kms::{Kms, Scripted};
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::Server;

const HERE: &str = "us-east-1";
const THERE: &str = "eu-west-1";

fn loaded() -> Server {
    let server = Server::standalone();
    Keyspace::new(91, 100).load(&server.nodes());
    server
}

/// A repository in a folder, whose program has credentials for KMS.
fn folder() -> Repo {
    let mut repo = Repo::folder();
    repo.cli = repo.cli.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
    repo
}

/// `words` on a repository, with this KMS key at this endpoint.
fn with_key(repo: &Repo, endpoint: &str, key: &str, words: &[&str]) -> Outcome {
    let flags = ["--repository", &repo.url, "--kms-key", key, "--kms-endpoint", endpoint, "-o", "json"];
    repo.cli.run(&[words, &flags].concat())
}

fn create(repo: &Repo, endpoint: &str, key: &str, server: &Server, name: &str) -> Outcome {
    with_key(repo, endpoint, key, &["snapshot", "create", "--source", &server.url(), "--name", name])
}

/// The wraps in a repository's folder: path and content.
fn wraps(repo: &Repo) -> Vec<(PathBuf, Value)> {
    let is_wrap = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("wrap-");
    let files = repo.files().into_iter().filter(|(path, _)| is_wrap(path));
    files.map(|(path, content)| (path, serde_json::from_slice(&content).unwrap())).collect()
}

/// Everything but wraps, and the facts that verification leaves.
fn data(repo: &Repo) -> Vec<(PathBuf, Vec<u8>)> {
    let is_data = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !name.starts_with("wrap-") && !name.starts_with("fact-")
    };
    repo.files().into_iter().filter(|(path, _)| is_data(path)).collect()
}

#[test]
fn a_snapshot_opens_with_its_key_of_kms_alone_and_only_where_it_belongs() {
    let (server, kms, repo) = (loaded(), Kms::start(), folder());
    let (key, other, far) = (kms.key(HERE), kms.key(HERE), kms.key(THERE));
    let proxy = Scripted::start(&kms, |_| None);
    let made = create(&repo, &proxy.endpoint, &key, &server, "one").ok().json();
    assert_eq!(made["encryption"]["key_ids"], json!([key]), "{made}");
    assert_eq!(proxy.asked(), ["GenerateDataKey"], "the data key comes from KMS");

    // format.md, section 3
    let (path, wrap) = wraps(&repo).remove(0);
    let id = made["snapshot_id"].as_str().unwrap();
    let marker: Value =
        serde_json::from_slice(&std::fs::read(repo.root().join("backupd-repository.json")).unwrap()).unwrap();
    let context = json!({
        "backupd:cluster": "default", "backupd:repository": marker["repository_id"], "backupd:snapshot": id,
    });
    assert_eq!(path, repo.root().join(format!("default/{id}/wrap-{}.json", key.replace([':', '/'], "."))));
    let members: Vec<&String> = wrap.as_object().unwrap().keys().collect();
    assert_eq!(members, ["algorithm", "ciphertext", "context", "digest", "format", "key_id", "snapshot_id"]);
    assert_eq!((&wrap["algorithm"], &wrap["key_id"], &wrap["context"]), (&json!("aws-kms"), &json!(key), &context));

    let verify = |endpoint: &str, key: &str| with_key(&repo, endpoint, key, &["snapshot", "verify", "one"]);
    assert_eq!(verify(&proxy.endpoint, &key).ok().json()["keys"], made["keys"]);
    assert_eq!(proxy.asked()[1..], ["Decrypt"]);
    let (out, exported) = (repo.path("out"), repo.path("exported"));
    with_key(&repo, &kms.endpoint, &key, &["restore", "one", "--out", out.to_str().unwrap()]).ok();
    with_key(&repo, &kms.endpoint, &key, &["snapshot", "export", "one", "--to", exported.to_str().unwrap()]).ok();
    assert!(exported.join("one-0001.rdb").is_file());
    // the environment may say where KMS is, and an alias which key; its region is then the environment's
    block_on(kms.client(HERE).create_alias().alias_name("alias/backups").target_key_id(&key).send()).unwrap();
    let cli = repo.cli.clone().env("AWS_ENDPOINT_URL_KMS", &kms.endpoint).env("AWS_REGION", HERE);
    let by_alias = ["snapshot", "verify", "one", "--repository", &repo.url, "--kms-key", "alias/backups"];
    cli.run(&by_alias).ok();
    let listed = with_key(&repo, &kms.endpoint, &key, &["key", "list"]).ok().json();
    assert_eq!(listed["keys"][0]["snapshots"], json!(["one"]), "{listed}");

    // other keys, keys that are none, and none at all
    for wrong in [&other, &far] {
        let outcome = verify(&kms.endpoint, wrong).exits(12);
        assert!(outcome.stderr.contains(&key) && outcome.stderr.contains(wrong.as_str()), "{outcome}");
    }
    let gone = format!("arn:aws:kms:{HERE}:123456789012:key/00000000-0000-0000-0000-000000000000");
    verify(&kms.endpoint, &gone).exits(12).says(&gone);
    create(&repo, &kms.endpoint, &gone, &server, "none").exits(12).says(&gone);
    cli.run(&["snapshot", "verify", "one", "--repository", &repo.url, "--kms-key", "alias/none"])
        .exits(12)
        .says("alias/none");
    repo.run(&["snapshot", "verify", "one"]).exits(12).says(&key);
    repo.cli.run(&["snapshot", "verify", "one", "--repository", &repo.url]).exits(12).says("--kms-key");
    verify(&kms.endpoint, "no key").exits(2);
    assert_eq!(repo.list().len(), 1, "nothing was made with keys that are none");

    // a wrap that says it is of another repository is refused, though its digest is right
    let mut moved = wrap.clone();
    moved["context"]["backupd:repository"] = json!("0".repeat(32));
    moved.as_object_mut().unwrap().remove("digest");
    std::fs::write(&path, canonical::seal(&moved, Proof::Digest).unwrap()).unwrap();
    verify(&kms.endpoint, &key).exits(17).says("context");
    // and one that is bound to the place, but was sealed for another: KMS itself does not open it
    let theirs = create(&repo, &kms.endpoint, &key, &server, "two").ok().json();
    let mut mixed = wrap.clone();
    let of_two =
        |(path, _): &(PathBuf, Value)| path.to_str().unwrap().contains(theirs["snapshot_id"].as_str().unwrap());
    mixed["ciphertext"] = wraps(&repo).into_iter().find(of_two).unwrap().1["ciphertext"].clone();
    mixed.as_object_mut().unwrap().remove("digest");
    std::fs::write(&path, canonical::seal(&mixed, Proof::Digest).unwrap()).unwrap();
    verify(&kms.endpoint, &key).exits(12).says(&key);
}

#[test]
fn a_copy_is_wrapped_for_the_key_of_its_region_and_outlives_the_first_region() {
    let server = loaded();
    // a region is a KMS and an S3 server of its own here, which then go away together
    let (first, second) = (Kms::start(), Kms::start());
    let (key, far) = (first.key(HERE), second.key(THERE));
    let there = Bucket::create_in_second_region("kms-copy");
    let cli = Cli::new().envs(there.envs());
    let near = first.endpoint.clone();
    let source = format!("s3://source/backups?endpoint={near}&region={HERE}");
    make_bucket(&near, "source");
    let target = there.url("copies");
    let from = ["--repository", &source, "--kms-key", &key, "--kms-endpoint", &near, "-o", "json"];
    let to = ["--repository", &target, "--kms-key", &far, "--kms-endpoint", &second.endpoint, "-o", "json"];
    let on = |words: &[&str], place: &[&str]| cli.run(&[words, place].concat());
    on(&["snapshot", "create", "--source", &server.url(), "--name", "one"], &from).ok();
    let copy = |key: &str| {
        let to_key = ["--to-kms-key", key, "--to-kms-endpoint", &second.endpoint];
        on(&[&["snapshot", "copy", "one", "--to", &target, "--verify"][..], &to_key].concat(), &from)
    };
    // the key of the source is not known there: found out before a byte is moved
    copy(&key).exits(12).says(&key);
    assert!(there.list("").iter().all(|(name, _)| name.ends_with("backupd-repository.json")));
    let copied = copy(&far).ok().json();
    assert_eq!(copied["encryption"]["key_ids"], json!([far]), "{copied}");

    first.stop();
    on(&["snapshot", "verify", "one"], &from).exits(16);
    let dir = there_is(&on, &to);
    let shard = dir.path().join("out/shard-0000.rdb");
    assert!(shard.metadata().unwrap().len() > 1000);
    let launched = crate::fixture::Launched { dir: dir.path().join("launched") };
    let words = ["restore", "one", "--launch", launched.dir.to_str().unwrap()];
    let restored = on(&words, &to).ok().json();
    let node = &restored["nodes"][0];
    let url = format!("redis://{}:{}", node["host"].as_str().unwrap(), node["port"]);
    compare(&server.nodes(), &crate::harness::nodes::discover(&url)).assert_equal();
}

/// Verifies the copy and writes it out.
fn there_is(on: &impl Fn(&[&str], &[&str]) -> Outcome, to: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    on(&["snapshot", "verify", "one"], to).ok();
    on(&["restore", "one", "--out", dir.path().join("out").to_str().unwrap()], to).ok();
    dir
}

fn make_bucket(endpoint: &str, name: &str) {
    use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(HERE))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new("k", "s", None, None, "tests"));
    block_on(aws_sdk_s3::Client::from_conf(config.build()).create_bucket().bucket(name).send()).unwrap();
}

#[test]
fn snapshots_go_from_a_key_file_to_kms_to_another_key_and_back() {
    let (server, kms, repo) = (loaded(), Kms::start(), folder());
    let (first, second) = (kms.key(HERE), kms.key(HERE));
    repo.create(&server.url(), "one");
    repo.create(&server.url(), "two");
    let (before, both) = (data(&repo), json!(["one", "two"]));
    let file_key = repo.json(&["key", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    let proxy = Scripted::start(&kms, |_| None);
    let endpoint = &proxy.endpoint;
    let [to_first, to_second] =
        [&first, &second].map(|key| ["key", "rotate", "--to-kms-key", key, "--to-kms-endpoint", endpoint]);
    let opens_only_with = |key: &str| {
        for name in ["one", "two"] {
            with_key(&repo, &kms.endpoint, key, &["snapshot", "verify", name]).ok();
        }
    };

    // from the key file to KMS
    let rotated = repo.json(&to_first);
    assert_eq!((&rotated["key_id"], &rotated["new"]), (&json!(first), &json!(false)), "{rotated}");
    assert_eq!(rotated["repositories"][0]["wrapped"], both);
    opens_only_with(&first);
    repo.json(&["snapshot", "verify", "one"]);
    with_key(&repo, &kms.endpoint, &first, &["key", "remove", &first]).exits(18).says(&first);
    let removed = with_key(&repo, &kms.endpoint, &first, &["key", "remove", &file_key]).ok().json();
    assert_eq!(removed["wraps"], 2);
    repo.run(&["snapshot", "verify", "one"]).exits(12).says(&first);
    // to another key: KMS does it without showing the data key to the one who wraps
    let asked = proxy.asked().len();
    let rotated = with_key(&repo, &proxy.endpoint, &first, &to_second).ok().json();
    assert_eq!(rotated["repositories"][0]["wrapped"], both, "{rotated}");
    let asked = proxy.asked().split_off(asked);
    assert_eq!(asked.iter().filter(|operation| *operation == "ReEncrypt").count(), 2, "{asked:?}");
    assert!(!asked.contains(&"Encrypt".to_owned()), "{asked:?}");
    opens_only_with(&second);
    let again = with_key(&repo, &proxy.endpoint, &first, &to_second).ok().json();
    assert_eq!(again["repositories"][0]["wrapped"], json!([]), "nothing is left to do");
    with_key(&repo, &kms.endpoint, &second, &["key", "remove", &first]).ok();
    with_key(&repo, &kms.endpoint, &first, &["snapshot", "verify", "one"]).exits(12).says(&second);
    let listed = with_key(&repo, &kms.endpoint, &first, &["key", "list"]).ok().json();
    assert_eq!((&listed["keys"][0]["snapshots"], &listed["not_in_file"][&second]), (&json!([]), &both), "{listed}");
    // KMS rotates its own keys by itself
    with_key(&repo, &kms.endpoint, &second, &["key", "rotate"]).exits(2).says("--to-kms-key");
    // and back
    let key_file = repo.path("keys.json");
    let back = ["key", "rotate", "--to-key-file", key_file.to_str().unwrap()];
    assert_eq!(with_key(&repo, &kms.endpoint, &second, &back).ok().json()["key_id"], file_key.as_str());
    repo.json(&["key", "remove", &second]);
    with_key(&repo, &kms.endpoint, &second, &["snapshot", "verify", "one"]).exits(12).says(&file_key);
    for name in ["one", "two"] {
        repo.json(&["snapshot", "verify", name]);
    }
    assert!(data(&repo) == before, "data changed");
    assert_eq!(wraps(&repo).len(), 2);
}

#[test]
fn what_kms_refuses_is_told_with_the_key_and_leaves_nothing() {
    let (server, kms, repo) = (loaded(), Kms::start(), folder());
    let key = kms.key(HERE);
    create(&repo, &kms.endpoint, &key, &server, "one").ok();
    let before = repo.files();
    for (status, code, exit, attempts) in [
        (400, "DisabledException", 12, 1),
        (400, "KMSInvalidStateException", 12, 1),
        (400, "NotFoundException", 12, 1),
        (400, "AccessDeniedException", 14, 1),
        (400, "UnrecognizedClientException", 14, 1),
        // tried again, within bounds
        (400, "ThrottlingException", 16, 5),
        (500, "KMSInternalException", 16, 5),
    ] {
        let proxy = Scripted::start(&kms, move |_| Some((status, code)));
        let made = create(&repo, &proxy.endpoint, &key, &server, "two").exits(exit).says(&key);
        assert!(made.stderr.contains(code), "{made}");
        assert_eq!(proxy.asked(), vec!["GenerateDataKey"; attempts], "{code}");
        let read = with_key(&repo, &proxy.endpoint, &key, &["snapshot", "verify", "one"]).exits(exit).says(&key);
        assert!(read.stderr.contains(code), "{read}");
        assert!(repo.files() == before, "{code}: something was written");
    }
    // a moment of refusal is waited for
    let mut left = 2;
    let proxy = Scripted::start(&kms, move |_| {
        left -= 1;
        (left >= 0).then_some((400, "ThrottlingException"))
    });
    with_key(&repo, &proxy.endpoint, &key, &["snapshot", "verify", "one"]).ok();
    assert_eq!(proxy.asked().len(), 3);
    kms.stop();
    with_key(&repo, &proxy.endpoint, &key, &["snapshot", "verify", "one"]).exits(16).says(&key);
}

#[test]
fn repositories_and_clusters_of_the_configuration_have_keys_of_kms() {
    let (server, kms, repo) = (loaded(), Kms::start(), folder());
    let (key, own) = (kms.key(HERE), kms.key(THERE));
    let refuse = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&refuse);
    let proxy = Scripted::start(&kms, move |operation| {
        (asked.load(Ordering::Relaxed) && operation == "Decrypt").then_some((400, "AccessDeniedException"))
    });
    let (url, source, endpoint) = (&repo.url, server.url(), &proxy.endpoint);
    let text = format!(
        "[catalog]\npath = \"c.sqlite\"\n\
         [repositories.main]\nurl = \"{url}\"\nkms_key = \"{key}\"\nkms_endpoint = \"{endpoint}\"\n\
         [clusters.plain]\nsources = [\"{source}\"]\nrepository = \"main\"\n\
         [clusters.own]\nsources = [\"{source}\"]\nrepository = \"main\"\nkms_key = \"{own}\"\nkms_endpoint = \"{endpoint}\"\n\
         [clusters.file]\nsources = [\"{source}\"]\nrepository = \"main\"\nkey_file = \"keys.json\"\n"
    );
    std::fs::write(repo.path("backupd.toml"), text).unwrap();
    let cli = repo.cli.clone().env("BACKUPD_CONFIG", repo.path("backupd.toml"));
    let file_key = Keyring::read(&repo.path("keys.json")).unwrap().active_id().to_owned();
    for (cluster, expected) in [("plain", key.as_str()), ("own", &own), ("file", &file_key)] {
        let made = cli.json(&["snapshot", "create", cluster, "--name", cluster, "-o", "json"]);
        assert_eq!(made["encryption"]["key_ids"], json!([expected]), "{made}");
        cli.run(&["snapshot", "verify", cluster]).ok();
        cli.run(&["check", cluster]).ok();
    }
    // one cluster's key goes, the others' stay
    let rotated = ["key", "rotate", "--kms-key", &own, "--kms-endpoint", endpoint, "--cluster", "own", "-o", "json"];
    let rotated = cli.json(&[&rotated[..], &["--to-kms-key", &key, "--to-kms-endpoint", endpoint]].concat());
    assert_eq!(
        (&rotated["repositories"][0]["snapshots"], &rotated["repositories"][0]["wrapped"]),
        (&json!(1), &json!(["own"]))
    );

    refuse.store(true, Ordering::Relaxed);
    cli.run(&["check", "plain"]).exits(14).says(&key);
    cli.run(&["check", "file"]).ok();
}

/// The command lines of the numbered block of docs/keys.md, each with these stand-ins.
fn commands(block: usize, stand_ins: &[(&str, &str)]) -> Vec<Vec<String>> {
    let document = include_str!("../../backupd/docs/keys.md").split("```").nth(2 * block + 1).unwrap();
    let lines = document.lines().filter(|line| !line.trim().is_empty());
    let lines = lines.map(|line| stand_ins.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to)));
    lines.map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect()).collect()
}

#[test]
fn the_commands_of_the_document_work() {
    let (server, kms, repo, of_file) = (loaded(), Kms::start(), folder(), Repo::folder());
    let (key, newer) = (kms.key(HERE), kms.key(HERE));
    for (alias, key) in [("alias/backups", &key), ("alias/newer", &newer)] {
        block_on(kms.client(HERE).create_alias().alias_name(alias).target_key_id(key).send()).unwrap();
    }
    let cli = repo.cli.clone().env("AWS_ENDPOINT_URL_KMS", &kms.endpoint).env("AWS_REGION", HERE);
    let arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let (source, file) = (server.url(), of_file.path("keys.json"));
    let first = [("redis://10.0.0.1:6379", source.as_str()), ("s3://bucket/backups", &repo.url), (arn, &key)];
    for words in commands(0, &first) {
        cli.run(&words).ok();
    }
    of_file.create(&server.url(), "monday");
    let second = [("s3://bucket/backups", of_file.url.as_str()), ("backup.key", file.to_str().unwrap())];
    let commands = commands(1, &second);
    assert_eq!(commands.len(), 4);
    for words in commands {
        cli.run(&words).ok();
    }
    // what stands in the text
    for id in [&key, &newer] {
        of_file.json(&["key", "remove", id]);
    }
}
