//! Grants with keys: a public key of theirs, a KMS key of theirs, and grants of KMS where the master key is of it.

use aws_sdk_kms::types::GrantListEntry;
use serde_json::{Value, json};

use crate::fixture::Repo;
use crate::grants::{OTHER, own_bucket, policy};
use crate::harness::cli::{Cli, Outcome};
use crate::harness::keyspace::Keyspace;
use crate::harness::kms::Kms;
use crate::harness::s3::block_on;
use crate::harness::server::Server;

const REGION: &str = "us-east-1";

/// A snapshot in a bucket, and the program as the other account runs it.
struct Place {
    repo: Repo,
    server: Server,
    theirs: Cli,
    their_bucket: String,
}

impl Place {
    fn new() -> Self {
        let server = Server::standalone();
        Keyspace::new(83, 100).load(&server.nodes());
        let repo = Repo::bucket("grants-keys");
        let own = own_bucket(repo.bucket.as_ref().unwrap());
        Self { server, theirs: Cli::new().envs(own.envs()), their_bucket: own.url("copies"), repo }
    }

    /// What they do with our repository and these keys.
    fn theirs(&self, words: &[&str], keys: &[&str]) -> Outcome {
        self.theirs.run(&[words, &["--repository", &self.repo.url], keys].concat())
    }

    /// The names of the wraps.
    fn wraps(&self) -> Vec<String> {
        let keys = self.repo.bucket.as_ref().unwrap().list("");
        keys.into_iter().map(|(key, _)| key).filter(|key| key.contains("/wrap-")).collect()
    }

    fn revoke(&self, grant: &Value, keys: &[&str]) {
        let words = ["grant", "revoke", grant["grant_id"].as_str().unwrap(), "--repository", &self.repo.url];
        self.repo.cli.run(&[&words, keys].concat()).ok();
    }
}

#[test]
fn a_public_key_of_theirs_is_enough() {
    let place = Place::new();
    let repo = &place.repo;
    repo.create(&place.server.url(), "one");
    let (file, out) = (repo.path("theirs.json"), repo.path("out"));
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let made = place.theirs.json(&["key", "generate", file, "--x25519", "-o", "json"]);
    let printed = place.theirs.run(&["key", "public", file]).ok().stdout;
    assert_eq!(printed.trim(), made["public_key"].as_str().unwrap());
    let grant = repo.json(&["grant", "add", "one", "--account", OTHER, "--key", printed.trim()]);
    let id = grant["key_id"].as_str().unwrap();
    let wrap = place.wraps().into_iter().find(|key| key.ends_with(&format!("/wrap-{id}.json"))).unwrap();
    let wrap: Value = serde_json::from_slice(&repo.bucket.as_ref().unwrap().get(&wrap)).unwrap();
    let members: Vec<&String> = wrap.as_object().unwrap().keys().collect();
    assert_eq!(members, ["algorithm", "ciphertext", "digest", "encapsulated", "format", "key_id", "snapshot_id"]);
    assert_eq!(wrap["algorithm"], "hpke-x25519-sha256-aes-256-gcm");
    // twice for the same key is as good
    let again = repo.json(&["grant", "add", "one", "--account", OTHER, "--key", printed.trim()]);
    assert_eq!(place.wraps().len(), 2);
    place.revoke(&again, &[]);
    assert_eq!(place.wraps().len(), 2, "the first grant needs it");

    let keys = ["--key-file", file];
    place.theirs(&["restore", "one", "--out", out], &keys).ok();
    place.theirs(&["snapshot", "copy", "one", "--to", &place.their_bucket, "--verify"], &keys).ok();
    repo.json(&["snapshot", "verify", "one"]);
    // another pair in their file opens nothing, and the private key is needed
    let other = repo.path("other.json");
    let other = other.to_str().unwrap();
    place.theirs.run(&["key", "generate", other]).ok();
    place.theirs.run(&["key", "public", other]).exits(10).says("--new");
    place.theirs.run(&["key", "public", other, "--new"]).ok();
    place.theirs(&["snapshot", "verify", "one"], &["--key-file", other]).exits(12).says(id);

    place.revoke(&grant, &[]);
    assert_eq!(place.wraps().len(), 1);
    place.theirs(&["snapshot", "verify", "one"], &keys).exits(14);
    repo.run(&["grant", "add", "one", "--account", OTHER, "--key", "x25519:AAAA"]).exits(2);
    let ours = repo.path("keys.json");
    repo.run(&["grant", "add", "one", "--account", OTHER, "--key", ours.to_str().unwrap()]).exits(18).says("ours");
    assert_eq!((place.wraps().len(), policy(repo.bucket.as_ref().unwrap())), (1, None));
}

#[test]
fn a_kms_key_of_theirs_opens_what_ours_of_a_file_sealed() {
    let (place, kms) = (Place::new(), Kms::start());
    let (key, own) = (kms.key("eu-west-1"), kms.key(REGION));
    place.repo.create(&place.server.url(), "one");
    let words = ["grant", "add", "one", "--account", OTHER, "--grantee-kms-key", &key];
    let grant = place.repo.json(&[&words[..], &["--grantee-kms-endpoint", &kms.endpoint]].concat());
    assert_eq!((&grant["key_id"], grant.get("kms_key")), (&json!(key), None), "{grant}");
    let keys = ["--kms-key", &key, "--kms-endpoint", &kms.endpoint];
    let to = ["--to-kms-key", &own, "--to-kms-endpoint", &kms.endpoint];
    let copy = [&["snapshot", "copy", "one", "--to", &place.their_bucket, "--verify"], &to[..]].concat();
    let copied = place.theirs(&[&copy[..], &["-o", "json"]].concat(), &keys).ok().json();
    assert_eq!(copied["encryption"]["key_ids"], json!([own]));
    place.revoke(&grant, &[]);
    assert_eq!(place.wraps().len(), 1);
}

/// The grants of a key in KMS.
fn grants(kms: &Kms, key: &str) -> Vec<GrantListEntry> {
    block_on(kms.client(REGION).list_grants().key_id(key).send()).unwrap().grants().to_vec()
}

/// What a grant of KMS says: its name, who, what for, and the context that it asks for.
fn told(grant: &GrantListEntry) -> Value {
    let context = grant.constraints().and_then(|it| it.encryption_context_subset()).unwrap();
    let operations: Vec<&str> = grant.operations().iter().map(|operation| operation.as_str()).collect();
    json!({
        "name": grant.name(), "grantee": grant.grantee_principal(), "operations": operations,
        "context": context.iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

#[test]
fn where_the_master_key_is_of_kms_kms_grants_it_for_what_was_granted_alone() {
    let (place, kms) = (Place::new(), Kms::start());
    let key = kms.key(REGION);
    let ours = ["--repository", &place.repo.url, "--kms-key", &key, "--kms-endpoint", &kms.endpoint, "-o", "json"];
    let run = |words: &[&str]| place.repo.cli.run(&[words, &ours].concat());
    let state = |grant: &Value| {
        let listed = run(&["grant", "list"]).ok().json();
        let mut listed = listed["grants"].as_array().unwrap().clone();
        listed.retain(|one| one["grant_id"] == grant["grant_id"]);
        listed.pop().map(|one| one["state"].as_str().unwrap().to_owned())
    };
    let made = run(&["snapshot", "create", "--source", &place.server.url(), "--name", "one"]).ok().json();
    let grant = run(&["grant", "add", "one", "--account", OTHER]).ok().json();
    assert_eq!((&grant["kms_key"], grant.get("key_id")), (&json!(key), None), "{grant}");
    let marker = place.repo.bucket.as_ref().unwrap().get("some/prefix/backupd-repository.json");
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    let expected = |grant: &Value, snapshot: Option<&Value>| {
        let mut context = json!({"backupd:cluster": "default", "backupd:repository": marker["repository_id"]});
        if let Some(id) = snapshot {
            context["backupd:snapshot"] = id.clone();
        }
        json!({
            "name": format!("backupd-{}", grant["grant_id"].as_str().unwrap()), "operations": ["Decrypt"],
            "grantee": format!("arn:aws:iam::{OTHER}:root"), "context": context,
        })
    };
    assert_eq!(grants(&kms, &key).iter().map(told).collect::<Vec<_>>(), [expected(&grant, Some(&made["snapshot_id"]))]);
    let theirs = ["--kms-key", &key, "--kms-endpoint", &kms.endpoint];
    let out = place.repo.path("out");
    place.theirs(&["restore", "one", "--out", out.to_str().unwrap()], &theirs).ok();
    assert_eq!(state(&grant).as_deref(), Some("in_force"));

    // somebody takes it back in KMS alone, or the policy's part alone
    let revoke =
        |id: Option<&str>| kms.client(REGION).revoke_grant().key_id(&key).set_grant_id(id.map(str::to_owned)).send();
    block_on(revoke(grants(&kms, &key)[0].grant_id())).unwrap();
    assert_eq!(state(&grant).as_deref(), Some("not_in_kms"));
    place.revoke(&grant, &theirs);
    assert_eq!(state(&grant), None);
    // one of a cluster is for its later snapshots too, and has no fact beside a snapshot
    let cluster = run(&["grant", "add", "--cluster", "default", "--account", OTHER]).ok().json();
    assert_eq!(grants(&kms, &key).iter().map(told).collect::<Vec<_>>(), [expected(&cluster, None)]);
    assert_eq!(state(&cluster).as_deref(), Some("policy_only"));
    let bucket = place.repo.bucket.as_ref().unwrap();
    block_on(bucket.client().delete_bucket_policy().bucket(&bucket.name).send()).unwrap();
    assert_eq!(state(&cluster).as_deref(), Some("kms_only"));
    place.revoke(&cluster, &theirs);
    assert!(grants(&kms, &key).is_empty() && state(&cluster).is_none() && policy(bucket).is_none());

    run(&["grant", "add", "one", "--canonical-id", "abc123"]).exits(18).says("canonical");
    assert!(grants(&kms, &key).is_empty() && policy(bucket).is_none(), "nothing is left of what was refused");
}
