//! Grants and costs by REST.

use serde_json::{Value, json};

use super::{Answer, Served, token};
use crate::daemon::{Fleet, LIMIT, sqlite};
use crate::grants::{OTHER, is_list_refused, own_bucket, policy};
use crate::harness::cli::Cli;
use crate::harness::kms::{Kms, Scripted};
use crate::harness::process::wait_for;
use crate::harness::s3::{Bucket, block_on};

#[test]
fn another_account_reads_what_is_granted_by_rest_until_it_is_taken_back() {
    let bucket = Bucket::create("rest-grants");
    let mut fleet = Fleet::new(2, &sqlite(), "", "");
    fleet.cli = fleet.cli.clone().envs(bucket.envs());
    let more = format!("[repositories.far]\nurl = \"{}\"\nno_encryption = true\n", bucket.url("far"));
    let scoped = token("shop", "admin", "clusters = [\"c0\"]") + &token("ops", "operator", "");
    let served = Served::of(fleet, "", &(more + &scoped));
    for cluster in ["c0", "c1"] {
        served.snapshot(cluster, cluster);
        served.done(
            "POST",
            &format!("/v1/snapshots/{cluster}/copy"),
            &json!({"to": "far", "name": format!("of-{cluster}")}),
        );
    }
    let manifest = |cluster: &str| {
        let keys = bucket.list(&format!("far/{cluster}/")).into_iter().map(|(key, _)| key);
        keys.into_iter().find(|key| key.ends_with("/manifest.json")).unwrap()
    };
    let other = bucket.client_as("AK2", "SK2");
    let reads = |cluster: &str| block_on(other.get_object().bucket(&bucket.name).key(manifest(cluster)).send()).is_ok();
    assert!(!reads("c0") && !reads("c1"));

    let wanted = |snapshot: &str| json!({"snapshot": snapshot, "account": OTHER});
    served.ask_as("ops", "POST", "/v1/grants", &wanted("of-c0")).has(403);
    served.ask_as("shop", "POST", "/v1/grants", &wanted("of-c1")).has(404);
    for wrong in
        [json!({}), json!({"snapshot": "of-c0"}), json!({"snapshot": "of-c0", "cluster": "c0", "account": OTHER})]
    {
        served.ask_as("admin", "POST", "/v1/grants", &wrong).has(400);
    }
    // a folder has nobody who could be granted anything
    served.ask_as("admin", "POST", "/v1/grants", &wanted("c0")).has(409);
    let given = served.ask_as("shop", "POST", "/v1/grants", &wanted("of-c0")).has(200).json();
    assert_eq!((&given["repository"], &given["state"]), (&json!("far"), &json!("in_force")), "{given}");
    served.ask_as("admin", "POST", "/v1/grants", &wanted("of-c1")).has(200);
    assert!(reads("c0") && reads("c1"));

    let ids = |who: &str| -> Vec<Value> {
        let listed = served.ask_as(who, "GET", "/v1/grants", &Value::Null).has(200).json();
        listed["grants"].as_array().unwrap().iter().map(|grant| grant["grant_id"].clone()).collect()
    };
    assert_eq!((ids("admin").len(), ids("shop")), (2, vec![given["grant_id"].clone()]));
    // what the command line lists is the same
    let listed = served.fleet.json(&["grant", "list", "--repository", "far"]);
    assert_eq!(listed["grants"].as_array().unwrap().len(), 2);
    let foreign = ids("admin").into_iter().find(|id| *id != given["grant_id"]).unwrap();
    let path = |id: &Value| format!("/v1/grants/{}", id.as_str().unwrap());
    served.ask_as("shop", "DELETE", &path(&foreign), &Value::Null).has(404);
    served.ask_as("ops", "DELETE", &path(&foreign), &Value::Null).has(403);
    served.ask_as("shop", "DELETE", &path(&given["grant_id"]), &Value::Null).has(200);
    served.ask_as("shop", "DELETE", &path(&given["grant_id"]), &Value::Null).has(404);
    assert!(!reads("c0") && reads("c1"));
    let audit = served.fleet.json(&["event", "audit"]);
    let lines = audit["lines"].as_array().unwrap();
    for action in ["grant.add", "grant.revoke"] {
        let is = |line: &&Value| line["who"] == "token:shop" && line["action"] == action;
        assert!(lines.iter().any(|line| is(&line)), "{action}: {lines:?}");
    }
}

/// A daemon with an encrypted snapshot `one` in a bucket, and the program as the other account runs it.
struct Encrypted {
    served: Served,
    bucket: Bucket,
    theirs: Cli,
    kms: Kms,
    _proxy: Scripted,
}

impl Encrypted {
    /// KMS refuses the first thing that it is asked for.
    fn new() -> Self {
        let (bucket, kms, mut refusals) = (Bucket::create("rest-grants-keys"), Kms::start(), 1);
        let proxy = Scripted::start(&kms, move |_| {
            refusals -= 1;
            (refusals >= 0).then_some((400, "AccessDeniedException"))
        });
        let mut fleet = Fleet::new(1, &sqlite(), "", "");
        let environment = bucket.envs().into_iter().chain([("AWS_ENDPOINT_URL_KMS", proxy.endpoint.as_str())]);
        fleet.cli = fleet.cli.clone().envs(environment);
        let keys = fleet.path("keys.json");
        fleet.cli.run(&["key", "generate", keys.to_str().unwrap()]).ok();
        let more = format!(
            "[repositories.far]\nurl = \"{}\"\nkey_file = \"{}\"\n[clusters.sealed]\nsources = [\"redis://127.0.0.1:{}\"]\n\
             repository = \"far\"\nprimary = \"fallback\"\nsnapshot_retention_limit = 0\n",
            bucket.url("far"),
            keys.display(),
            fleet.servers[0].port()
        );
        let served = Served::of(fleet, "", &more);
        served.snapshot("sealed", "one");
        Self { theirs: Cli::new().envs(own_bucket(&bucket).envs()), served, bucket, kms, _proxy: proxy }
    }

    /// Asks for a grant, under a key of the caller where there is one.
    fn grant(&self, under: &str, more: &Value) -> Answer {
        let mut body = json!({"snapshot": "one", "account": OTHER});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/v1/grants", under, &body)
    }

    fn post(&self, path: &str, under: &str, body: &Value) -> Answer {
        let headers = [("Authorization", "Bearer admin"), ("Idempotency-Key", under)];
        let count = if under.is_empty() { 1 } else { 2 };
        self.served.request("POST", path, &headers[..count], &body.to_string())
    }

    /// Ids of the grants that there are.
    fn ids(&self) -> Vec<Value> {
        let listed = self.served.get("/v1/grants");
        listed["grants"].as_array().unwrap().iter().map(|grant| grant["grant_id"].clone()).collect()
    }

    fn revoke(&self, grant: &Value) {
        let path = format!("/v1/grants/{}", grant["grant_id"].as_str().unwrap());
        self.served.ask_as("admin", "DELETE", &path, &Value::Null).has(200);
    }
}

#[test]
fn keys_of_theirs_open_what_is_granted_by_rest_and_asking_twice_is_asking_once() {
    let place = Encrypted::new();
    let file = place.served.fleet.path("theirs.json");
    let file = file.to_str().unwrap();
    let made = place.theirs.json(&["key", "generate", file, "--x25519", "-o", "json"]);
    let key = json!({"key": made["public_key"]});
    let url = place.bucket.url("far");
    let verify = || place.theirs.run(&["snapshot", "verify", "one", "--repository", &url, "--key-file", file]);

    let given = place.grant("first", &key).has(200).json();
    assert!(given["key_id"].as_str().unwrap().starts_with("x-"), "{given}");
    verify().ok();
    // the same under the same key is the same grant, another request is refused, whatever it is
    assert_eq!(place.grant("first", &key).has(200).json(), given);
    place.grant("first", &json!({})).has(409);
    place.post("/v1/snapshots", "first", &json!({"cluster": "c0", "name": "x"})).has(409);
    place.post("/v1/snapshots", "job", &json!({"cluster": "c0", "name": "y"})).has(202);
    place.grant("job", &key).has(409);
    assert_eq!(place.ids(), [given["grant_id"].clone()]);
    // what was taken back is not given again
    place.revoke(&given);
    let again = place.grant("first", &key).has(200).json();
    let told = |member: &str| (&again[member], &given[member]);
    assert!(told("grant_id").0 == told("grant_id").1 && again["state"] == "not_in_policy", "{again}");
    assert_eq!(place.ids(), [json!(null); 0]);
    verify().exits(14);
    // without a key, and under another one, each is a grant of its own
    for under in ["", "", "second"] {
        place.grant(under, &key).has(200);
    }
    assert_eq!(place.ids().len(), 3);

    let arn = place.kms.key("eu-west-1");
    let of_kms = json!({"grantee_kms_key": arn});
    let cluster = json!({"cluster": "c0", "account": OTHER, "repository": "far", "key": key["key"]});
    place.post("/v1/grants", "", &cluster).has(400);
    for wrong in [json!({"key": "x25519:AAAA"}), json!({"key": file}), json!({"grantee_kms_key": "no key"})] {
        place.grant("", &wrong).has(400);
    }
    place.grant("", &json!({"key": key["key"], "grantee_kms_key": arn})).has(400);
    // one that could not be given is gone on with when it is asked for again
    place.grant("third", &of_kms).has(502);
    assert_eq!(place.ids().len(), 3);
    let given = place.grant("third", &of_kms).has(200).json();
    assert_eq!((&given["key_id"], &given["state"]), (&json!(arn), &json!("in_force")), "{given}");
    assert_eq!(place.grant("third", &of_kms).has(200).json(), given);
    assert_eq!(place.ids().len(), 4);
}

#[test]
fn acls_say_what_is_granted_by_rest_where_that_is_asked_for() {
    let place = Encrypted::new();
    let file = place.served.fleet.path("theirs.json");
    let file = file.to_str().unwrap();
    let key = place.theirs.json(&["key", "generate", file, "--x25519", "-o", "json"])["public_key"].clone();
    let url = place.bucket.url("far");
    let verify = || place.theirs.run(&["snapshot", "verify", "one", "--repository", &url, "--key-file", file]);
    let wanted = json!({"snapshot": "one", "canonical_id": OTHER, "key": key, "acl": true});
    let post = |under: &str, body: &Value| place.post("/v1/grants", under, body);
    for wrong in [
        json!({"snapshot": "one", "account": OTHER, "key": key, "acl": true}),
        json!({"cluster": "sealed", "canonical_id": OTHER, "acl": true}),
        json!({"snapshot": "one", "canonical_id": OTHER, "acl": "yes"}),
    ] {
        post("", &wrong).has(400);
    }
    assert!(place.ids().is_empty());

    let given = post("first", &wanted).has(200).json();
    assert_eq!((&given["way"], &given["state"]), (&json!("acl"), &json!("in_force")), "{given}");
    assert_eq!(policy(&place.bucket), None, "nothing is said in the policy");
    let other = place.bucket.client_as("AK2", "SK2");
    assert!(is_list_refused(&place.bucket, &other, "far/"));
    verify().ok();
    assert_eq!(post("first", &wanted).has(200).json(), given);
    // the command line shows the same, and without it the policy says it, which is another request
    assert_eq!(place.served.fleet.json(&["grant", "list", "--repository", "far"])["grants"][0]["state"], "in_force");
    post("first", &json!({"snapshot": "one", "canonical_id": OTHER, "key": key})).has(409);

    let path = format!("/v1/grants/{}", given["grant_id"].as_str().unwrap());
    let revoked = place.served.ask_as("admin", "DELETE", &path, &Value::Null).has(200).json();
    let again = post("first", &wanted).has(200).json();
    for told in [revoked, again] {
        assert_eq!((&told["way"], &told["state"]), (&json!("acl"), &json!("not_in_acl")), "{told}");
    }
    verify().exits(14);
}

#[test]
fn costs_are_those_of_the_command_line_and_only_of_what_is_seen() {
    let scoped = token("shop", "reader", "clusters = [\"c1\"]");
    let price = "[cost]\nprice_per_gb_month = \"85000\"\nfirst_snapshot_free = true\n";
    let served = Served::new(2, "", &(scoped + price));
    for (cluster, name) in [("c0", "a"), ("c0", "b"), ("c1", "c")] {
        served.snapshot(cluster, name);
    }
    let costs = served.get("/v1/costs");
    let told = served.fleet.json(&["snapshot", "list"]);
    assert_eq!((&costs["clusters"], &costs["price_per_gb_month"]), (&told["clusters"], &told["price_per_gb_month"]));
    assert_eq!(costs["clusters"][0]["snapshots"], 2);
    assert_ne!(costs["clusters"][0]["monthly_cost"], "0.00", "{costs}");
    assert_eq!(costs["clusters"][1]["monthly_cost"], "0.00", "the first is free: {costs}");
    assert_eq!(served.get("/v1/costs?cluster=c1")["clusters"], json!([costs["clusters"][1]]));
    assert_eq!(served.get("/v1/costs?repository=main"), costs);
    let seen = served.ask_as("shop", "GET", "/v1/costs", &Value::Null).has(200).json();
    assert_eq!(seen["clusters"], json!([costs["clusters"][1]]));
    served.ask_as("shop", "GET", "/v1/costs?cluster=c0", &Value::Null).has(404);
    served.ask_as("admin", "GET", "/v1/costs?repository=nowhere", &Value::Null).has(404);
}

#[test]
fn what_catalog_and_policy_name_is_looked_at_and_nothing_else_as_long_as_that_is_enough() {
    let bucket = Bucket::create("rest-grants-known");
    let mut fleet = Fleet::new(1, &sqlite(), "", "");
    fleet.cli = fleet.cli.clone().envs(bucket.envs());
    let url = bucket.url("far");
    let source = format!("redis://127.0.0.1:{}", fleet.servers[0].port());
    let by_url = |cli: &Cli, words: &[&str]| {
        cli.json(&[words, &["--repository", &url, "--no-encryption", "-o", "json"]].concat())
    };
    let id = |grant: &Value| grant["grant_id"].as_str().unwrap().to_owned();
    for name in ["early", "late"] {
        by_url(&fleet.cli, &["snapshot", "create", "--source", &source, "--name", name]);
    }
    let early = id(&by_url(&fleet.cli, &["grant", "add", "early", "--account", OTHER]));
    let served = Served::of(fleet, "", &format!("[repositories.far]\nurl = \"{url}\"\nno_encryption = true\n"));
    let known = || -> Vec<String> {
        let (path, query) =
            (served.fleet.path("catalog.sqlite"), "SELECT grant_id FROM grants WHERE revoked_ms IS NULL");
        sqlx::any::install_default_drivers();
        block_on(async {
            let pool = sqlx::AnyPool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            let ids = sqlx::query_scalar(query).fetch_all(&pool).await.unwrap();
            pool.close().await;
            ids
        })
    };
    // who answers has opened its catalog
    served.get("/v1/jobs");
    let follows = || if known() == [early.clone()] { Ok(()) } else { Err(format!("{:?}", known())) };
    wait_for("the catalog to follow the policy", LIMIT, follows);

    // whoever looks at everything finds what cannot be read
    let damaged = "far/default/20261129T070000Z-00000001/fact-granted-20261129T070000Z-00000002.json";
    for key in [damaged, "far/default/20261129T070000Z-00000001/manifest.json"] {
        bucket.put(key, b"damaged");
    }
    let cli = &served.fleet.cli;
    cli.run(&["grant", "list", "--repository", &url, "--no-encryption"]).exits(17);
    let ids = || -> Vec<String> {
        let listed = served.get("/v1/grants?repository=far");
        listed["grants"].as_array().unwrap().iter().map(id).collect()
    };
    assert_eq!(ids(), std::slice::from_ref(&early));
    // what was given without the catalog is in the policy
    let unknown = id(&by_url(cli, &["grant", "add", "late", "--account", OTHER]));
    let cluster = id(&by_url(cli, &["grant", "add", "--cluster", "default", "--account", OTHER]));
    let mut expected = [early.clone(), unknown.clone(), cluster.clone()];
    let mut found = ids();
    expected.sort();
    found.sort();
    assert_eq!((found.as_slice(), known()), (&expected[..], vec![early.clone()]));
    let revoke = |id: &str| served.ask_as("admin", "DELETE", &format!("/v1/grants/{id}"), &Value::Null);
    for id in [&early, &unknown, &cluster] {
        revoke(id).has(200);
    }
    assert_eq!((ids().len(), known().len()), (0, 0));
    // and what is by ACLs is found only where all is looked at
    let acl = id(&by_url(cli, &["grant", "add", "late", "--canonical-id", OTHER, "--acl"]));
    assert!(ids().is_empty());
    revoke(&acl).has(500);
    bucket.delete(damaged);
    revoke(&acl).has(200);
    revoke(&acl).has(404);
}
