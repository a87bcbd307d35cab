//! Grants and costs by REST.

use serde_json::{Value, json};

use super::{Served, token};
use crate::daemon::{Fleet, sqlite};
use crate::harness::s3::{Bucket, block_on};

/// The other account of the S3 server.
const OTHER: &str = "RGW22222222222222222";

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
