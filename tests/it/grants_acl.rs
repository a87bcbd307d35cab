//! Grants by object ACLs: another account reads each object of one snapshot, may list nothing, and reads nothing else.

use aws_sdk_s3::types::{AccessControlPolicy, Grant, Grantee, ObjectCannedAcl, Permission, Type};
use serde_json::{Value, json};

use crate::fixture::Repo;
use crate::grants::{OTHER, is_list_refused, own_bucket, policy, refused_keys, state_of};
use crate::harness::cli::Cli;
use crate::harness::faults::{Fault, Faulty, Operation, first};
use crate::harness::keyspace::Keyspace;
use crate::harness::s3::{Bucket, block_on};
use crate::harness::server::Server;

/// Everybody who has an account.
const USERS: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";

/// The entries of an object's ACL, as the server tells them.
fn acl(bucket: &Bucket, key: &str) -> Vec<Grant> {
    block_on(bucket.client().get_object_acl().bucket(&bucket.name).key(key).send()).unwrap().grants().to_vec()
}

/// Adds an entry to the ACL of an object, as somebody else may have done.
fn add_entry(bucket: &Bucket, key: &str, grantee: Grantee, permission: Permission) {
    block_on(async {
        let there = bucket.client().get_object_acl().bucket(&bucket.name).key(key).send().await.unwrap();
        let entry = Grant::builder().grantee(grantee).permission(permission).build();
        let policy = AccessControlPolicy::builder().set_owner(there.owner).set_grants(there.grants).grants(entry);
        let put = bucket.client().put_object_acl().bucket(&bucket.name).key(key);
        put.access_control_policy(policy.build()).send().await.unwrap();
    });
}

/// The entries that are neither the owner's nor theirs.
fn foreign(entries: Vec<Grant>) -> Vec<Grant> {
    entries.into_iter().filter(|entry| entry.grantee().unwrap().r#type() == &Type::Group).collect()
}

fn group() -> Grantee {
    Grantee::builder().r#type(Type::Group).uri(USERS).build().unwrap()
}

#[test]
fn an_account_reads_the_objects_of_a_snapshot_until_the_grant_is_taken_back() {
    let server = Server::standalone();
    Keyspace::new(85, 100).load(&server.nodes());
    let repo = Repo::bucket("grants-acl");
    let bucket = repo.bucket.clone().unwrap();
    let granted = repo.create(&server.url(), "granted");
    repo.create(&server.url(), "neighbour");
    let folder = format!("some/prefix/default/{}/", granted["snapshot_id"].as_str().unwrap());
    let (manifest, shard) = (format!("{folder}manifest.json"), format!("{folder}shard-0000-1.bkd"));
    add_entry(&bucket, &manifest, group(), Permission::ReadAcp);
    let (other, own) = (bucket.client_as("AK2", "SK2"), own_bucket(&bucket));
    let all = bucket.list("").len();
    assert_eq!(refused_keys(&bucket, &other, &own).len(), all);

    let theirs = Cli::new().envs(own.envs());
    let key_file = repo.path("theirs.json").display().to_string();
    let public = theirs.json(&["key", "generate", &key_file, "--x25519", "-o", "json"])["public_key"].clone();
    let words = ["grant", "add", "granted", "--canonical-id", OTHER, "--acl", "--key", public.as_str().unwrap()];
    let grant = repo.json(&words);
    assert_eq!((&grant["way"], &grant["state"]), (&json!("acl"), &json!("in_force")), "{grant}");
    let id = grant["grant_id"].clone();

    // the marker, the claim, the manifest, the shard and two wraps, and nothing can be listed
    let refused = refused_keys(&bucket, &other, &own);
    let readable: Vec<String> =
        bucket.list("").into_iter().map(|(key, _)| key).filter(|key| !refused.contains(key)).collect();
    let names = ["backupd-repository.json", "_names/granted/000001.json"].map(|name| format!("some/prefix/{name}"));
    let expected = |key: &String| {
        names.contains(key) || [&manifest, &shard].contains(&key) || key.starts_with(&format!("{folder}wrap-"))
    };
    assert!(readable.len() == 6 && readable.iter().all(expected), "{readable:?}");
    for prefix in ["", "some/prefix/", folder.as_str()] {
        assert!(is_list_refused(&bucket, &other, prefix), "{prefix}");
    }
    assert_eq!((policy(&bucket), foreign(acl(&bucket, &manifest)).len()), (None, 1));
    let stated = |id: &Value| {
        let listed = repo.json(&["grant", "list"]);
        listed["grants"].as_array().unwrap().iter().find(|one| one["grant_id"] == *id).unwrap()["statements"].clone()
    };
    let told = stated(&id);
    assert_eq!(told.as_array().unwrap().len(), 6, "{told}");
    assert!(told.as_array().unwrap().iter().all(|one| one["permissions"] == json!(["READ"])), "{told}");

    // that is enough for them
    let out = repo.path("out").display().to_string();
    let their = |words: &[&str]| theirs.run(&[words, &["--repository", &repo.url, "--key-file", &key_file]].concat());
    their(&["restore", "granted", "--out", &out]).ok();
    their(&["snapshot", "copy", "granted", "--to", &own.url("copy"), "--verify"]).ok();
    their(&["snapshot", "show", "neighbour"]).exits(14);

    // what others change is seen, and given again
    let warned = || {
        let report = repo.json(&["check", "--source", &server.url()]);
        report["clusters"][0]["findings"].to_string().contains(id.as_str().unwrap())
    };
    assert!(!warned());
    let private = bucket.client().put_object_acl().bucket(&bucket.name).key(&shard).acl(ObjectCannedAcl::Private);
    block_on(private.send()).unwrap();
    assert_eq!(state_of(&repo, &id), Some("changed".into()));
    assert!(warned(), "check tells of an ACL that is not as it was given");
    let again = repo.json(&words);
    assert_eq!((state_of(&repo, &id), &again["state"]), (Some("in_force".into()), &json!("in_force")));
    let them = Grantee::builder().r#type(Type::CanonicalUser).id(OTHER).build().unwrap();
    add_entry(&bucket, &manifest, them, Permission::WriteAcp);
    assert_eq!(state_of(&repo, &id), Some("changed".into()), "more than reading was never given");
    repo.run(&words).exits(18).says("more than read");
    let listed = repo.json(&["grant", "list"]);
    assert_eq!(listed["grants"].as_array().unwrap().len(), 2, "nothing is left of what was refused: {listed}");

    // one of two grants for the same account is not needed by the other
    let revoke = |id: &Value| repo.json(&["grant", "revoke", id.as_str().unwrap()])["snapshot"].clone();
    assert_eq!(revoke(&again["grant_id"]), "granted");
    assert!(!refused_keys(&bucket, &other, &own).contains(&shard));
    assert_eq!(revoke(&id), "granted");
    assert_eq!(refused_keys(&bucket, &other, &own).len(), bucket.list("").len());
    assert_eq!(state_of(&repo, &id), None);
    assert_eq!(foreign(acl(&bucket, &manifest)).len(), 1, "what others wrote is there still");
    let left = acl(&bucket, &manifest).into_iter().filter_map(|entry| entry.permission);
    assert!(!left.collect::<Vec<_>>().contains(&Permission::Read));
    their(&["snapshot", "verify", "granted"]).exits(14);
}

#[test]
fn acls_are_for_canonical_ids_and_single_snapshots_and_the_marker_stays_as_long_as_it_is_needed() {
    let server = Server::standalone();
    Keyspace::new(86, 20).load(&server.nodes());
    let repo = Repo::bucket("grants-acl");
    let bucket = repo.bucket.as_ref().unwrap();
    for name in ["one", "two"] {
        repo.create(&server.url(), name);
    }
    repo.run(&["grant", "add", "one", "--account", OTHER, "--acl"]).exits(2);
    repo.run(&["grant", "add", "--cluster", "default", "--canonical-id", OTHER, "--acl"]).exits(2);
    repo.run(&["grant", "add", "one", "--canonical-id", "*", "--acl"]).exits(18);
    assert!(repo.json(&["grant", "list"])["grants"].as_array().unwrap().is_empty());
    let other = bucket.client_as("AK2", "SK2");
    let is_readable = || {
        let get = other.get_object().bucket(&bucket.name).key("some/prefix/backupd-repository.json");
        block_on(get.send()).is_ok()
    };
    let grant = |name: &str| repo.json(&["grant", "add", name, "--canonical-id", OTHER, "--acl"])["grant_id"].clone();
    let grants = ["one", "two"].map(grant);
    for (id, expected) in grants.iter().zip([true, false]) {
        assert!(is_readable());
        repo.json(&["grant", "revoke", id.as_str().unwrap()]);
        assert_eq!(is_readable(), expected);
    }
}

#[test]
fn a_new_wrap_has_the_acls_of_the_grants_and_what_cannot_be_given_is_told() {
    let server = Server::standalone();
    Keyspace::new(87, 20).load(&server.nodes());
    let repo = Repo::bucket("grants-acl-rotate");
    let bucket = repo.bucket.as_ref().unwrap();
    for name in ["granted", "neighbour"] {
        repo.create(&server.url(), name);
    }
    let grant = repo.json(&["grant", "add", "granted", "--canonical-id", OTHER, "--acl"]);
    let (id, first_key) = (&grant["grant_id"], repo.json(&["key", "list"])["keys"][0]["id"].clone());
    let other = bucket.client_as("AK2", "SK2");
    let reads = |key: &str| block_on(other.get_object().bucket(&bucket.name).key(key).send()).is_ok();
    let readable_wraps = || bucket.list("").iter().filter(|(key, _)| key.contains("/wrap-") && reads(key)).count();
    let warned = || repo.json(&["check", "--source", &server.url()])["clusters"][0]["findings"].to_string();
    assert_eq!(readable_wraps(), 1);

    // two snapshots have a new wrap, and one of both is theirs to read
    let done = repo.json(&["key", "rotate"])["repositories"][0].clone();
    assert_eq!((&done["wrapped"], &done["not_given"]), (&json!(["granted", "neighbour"]), &json!([])));
    assert_eq!((readable_wraps(), state_of(&repo, id)), (2, Some("in_force".into())));
    // the old key goes, and with the new one they still read the snapshot, and that alone
    repo.json(&["key", "remove", first_key.as_str().unwrap()]);
    let (theirs, key_file) = (Cli::new().envs(own_bucket(bucket).envs()), repo.path("keys.json"));
    let verify = |name: &str| {
        theirs.run(&["snapshot", "verify", name, "--repository", &repo.url, "--key-file", key_file.to_str().unwrap()])
    };
    verify("granted").ok();
    verify("neighbour").exits(14);
    // nor does the wrap of another grant change this one
    let public = theirs.json(&["key", "generate", repo.path("x.json").to_str().unwrap(), "--x25519", "-o", "json"]);
    let more = ["grant", "add", "granted", "--account", "RGW11111111111111111", "--key"];
    repo.json(&[&more[..], &[public["public_key"].as_str().unwrap()]].concat());
    assert_eq!((readable_wraps(), state_of(&repo, id)), (2, Some("in_force".into())));

    // one who may not write ACLs rotates all the same, and is told
    let denied = Fault::Answer(403, "AccessDenied");
    let proxy = Faulty::start(&bucket.endpoint, first(usize::MAX, |o| o == Operation::Acl, denied));
    let outcome = repo.cli.run(&repo.through(repo.args(&["key", "rotate"]), &proxy.endpoint)).ok();
    let done = outcome.json()["repositories"][0].clone();
    assert_eq!((&done["wrapped"], &done["not_given"][0][0]), (&json!(["granted", "neighbour"]), &json!("granted")));
    let id_text = id.as_str().unwrap();
    assert!(done["not_given"][0][1].as_str().unwrap().contains(id_text), "{done}");
    assert_eq!((readable_wraps(), state_of(&repo, id)), (2, Some("changed".into())));
    assert!(warned().contains(id_text));
    // that goes on where it ended, though nothing is left to wrap
    let done = repo.json(&["key", "rotate", "--resume"])["repositories"][0].clone();
    assert_eq!((&done["wrapped"], &done["not_given"]), (&json!([]), &json!([])));
    assert_eq!((readable_wraps(), state_of(&repo, id)), (3, Some("in_force".into())));
    assert!(!warned().contains(id_text));
}
