//! A snapshot from its making to its end, and that asking twice is asking once.

use serde_json::{Value, json};

use super::Served;
use crate::daemon::{Fleet, sqlite};
use crate::fixture::Launched;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;

/// A fleet, and sections for a cluster, a second repository, a place for exports and a target.
fn with_cluster(cluster: &Cluster) -> Served {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    let more = format!(
        "[clusters.big]\nsources = [\"{}\"]\nrepository = \"main\"\nsnapshot_retention_limit = 0\ntags = {{ team = \"shop\" }}\n\
         [repositories.other]\nurl = \"file://{}\"\nno_encryption = true\n\
         [exports.plain]\nurl = \"file://{}\"\n[targets.here]\nlaunch = \"new\"\nports = \"{}\"",
        cluster.url(),
        fleet.path("other").display(),
        fleet.path("plain").display(),
        "12100-12400",
    );
    Served::of(fleet, "", &more)
}

#[test]
fn a_snapshot_of_a_cluster_is_made_shown_verified_copied_exported_kept_restored_and_deleted() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(9, 300).load(&cluster.nodes());
    let served = with_cluster(&cluster);
    let made = served.done("POST", "/v1/snapshots", &json!({"cluster": "big", "name": "one", "tags": {"why": "test"}}));
    assert_eq!((made["kind"].as_str(), made["requested_by"].as_str()), (Some("backup"), Some("token:admin")));
    // the command line and the API say the same
    let listed = served.get("/v1/snapshots");
    assert_eq!(listed["snapshots"], served.fleet.json(&["snapshot", "list", "--repository", "main"])["snapshots"]);
    assert_eq!(listed["next_cursor"], Value::Null);
    let shown = served.get("/v1/snapshots/one");
    assert_eq!(shown, served.fleet.json(&["snapshot", "show", "one", "--repository", "main"]));
    assert_eq!((shown["shards"].as_array().unwrap().len(), shown["tags"]["why"].as_str()), (3, Some("test")));

    served.done("POST", "/v1/snapshots/one/verify", &json!({}));
    let copied = served.done("POST", "/v1/snapshots/one/copy", &json!({"to": "other", "name": "two", "verify": true}));
    assert_eq!(copied["result"]["verified"], true);
    served.fleet.cli.run(&["snapshot", "verify", "two", "--repository", "other"]).ok();
    let exported =
        served.done("POST", "/v1/snapshots/one/export", &json!({"to": "plain", "prefix": "a/b", "shards": 2}));
    assert_eq!(exported["result"]["files"].as_array().unwrap().len(), 2);
    assert!(served.fleet.path("plain/a/b/one-0002.rdb").is_file());

    served.done("POST", "/v1/snapshots/one/keep", &Value::Null);
    let refused = served.job("DELETE", "/v1/snapshots/one", &Value::Null);
    assert_eq!((refused["state"].as_str(), refused["class"].as_str()), (Some("failed"), Some("refused")));
    served.done("POST", "/v1/snapshots/one/release", &Value::Null);

    restored_with_another_shape(&served, &cluster);
    served.done("DELETE", "/v1/snapshots/one", &Value::Null);
    served.ask_as("admin", "GET", "/v1/snapshots/one", &Value::Null).has(404);
    assert_eq!(served.fleet.snapshots_in("main"), Vec::<String>::new());
    audited(&served);
}

fn restored_with_another_shape(served: &Served, cluster: &Cluster) {
    let wanted = json!({"snapshot": "one", "target": "here", "name": "smaller", "slots": ["0-9999", "10000-16383"]});
    let plan = served.ask_as("admin", "POST", "/v1/restores/plan", &wanted).has(200).json();
    assert_eq!(plan["plan"]["shards"][1]["slots"], "10000-16383");
    let _launched = Launched { dir: served.fleet.path("new/smaller") };
    assert!(!served.fleet.path("new").exists(), "a plan touches nothing");
    let restored = served.done("POST", "/v1/restores", &wanted);
    let found = &restored["result"]["nodes"];
    assert_eq!((found.as_array().unwrap().len(), found[0]["slots"].as_str()), (2, Some("0-9999")));
    assert_eq!(served.get("/v1/restores")["jobs"][0]["job_id"], restored["job_id"]);
    let id = restored["job_id"].as_str().unwrap();
    assert_eq!(served.get(&format!("/v1/restores/{id}"))["result"], restored["result"]);
    let nodes = nodes::discover(&format!("redis://127.0.0.1:{}", found[0]["port"]));
    compare(&cluster.nodes(), &nodes).assert_equal();
    // what happened is told as it comes, and the last word ends the stream
    let stream = served.ask_as("admin", "GET", &format!("/v1/jobs/{id}/events"), &Value::Null).has(200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert!(stream.body.contains("event: job") && stream.body.contains("\"state\":\"succeeded\""), "{stream:?}");
}

/// Every change that was asked for has its line, with who asked.
fn audited(served: &Served) {
    let audit = served.fleet.json(&["event", "audit"]);
    let lines: Vec<_> = audit["lines"].as_array().unwrap().iter().filter(|line| line["who"] == "token:admin").collect();
    for action in [
        "snapshot.create",
        "snapshot.verify",
        "snapshot.copy",
        "snapshot.export",
        "snapshot.keep",
        "snapshot.release",
        "snapshot.delete",
        "restore.run",
    ] {
        assert!(lines.iter().any(|line| line["action"] == action), "{action}: {lines:?}");
    }
}

#[test]
fn asking_twice_under_one_key_is_asking_once() {
    let served = Served::new(1, "", &super::token("other", "admin", ""));
    let ask = |who: &str, key: &str, body: &Value| {
        let headers = [("Authorization", format!("Bearer {who}")), ("Idempotency-Key", key.to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        served.request("POST", "/v1/snapshots", &headers, &body.to_string())
    };
    let body = json!({"cluster": "c0", "name": "one"});
    let first = ask("admin", "k", &body).has(202);
    let second = ask("admin", "k", &body).has(202);
    assert_eq!(first.header("location"), second.header("location"));
    served.ended(first.header("location").unwrap());
    // and also when it has ended
    assert_eq!(ask("admin", "k", &body).has(202).header("location"), first.header("location"));
    let other = ask("admin", "k", &json!({"cluster": "c0", "name": "two"})).has(409).json();
    assert_eq!((other["class"].as_str(), other["code"].as_u64()), (Some("refused"), Some(18)));
    // a key is its caller's own, and the name is taken by now
    ask("other", "k", &body).has(409);
    ask("other", "k", &json!({"cluster": "c0", "name": "two"})).has(202);
    ask("other", "a b", &body).has(400);
    let jobs = served.get("/v1/jobs?kind=backup");
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2, "{jobs}");
}

#[test]
fn a_job_is_canceled_and_a_window_is_previewed() {
    let served = Served::new(1, "", "");
    served.fleet.servers[0].pause();
    let asked = served.ask_as("admin", "POST", "/v1/snapshots", &json!({"cluster": "c0", "name": "never"})).has(202);
    let location = asked.header("location").unwrap().to_owned();
    served.ask_as("admin", "POST", &format!("{location}/cancel"), &Value::Null).has(202);
    assert_eq!(served.ended(&location)["state"], "canceled");
    served.ask_as("admin", "POST", &format!("{location}/cancel"), &Value::Null).has(409);
    served.fleet.servers[0].resume();
    let tags = json!({"cluster": "c0", "name": "tagged", "tags": {"": "a tag without a name"}});
    served.ask_as("admin", "POST", "/v1/snapshots", &tags).has(400);
    let preview = served.get("/v1/clusters/c0/windows?window=03:00-05:00&count=3");
    let opens: Vec<&str> =
        preview["occurrences"].as_array().unwrap().iter().map(|it| it["opens_at"].as_str().unwrap()).collect();
    assert!(opens.len() == 3 && opens.iter().all(|at| at.ends_with("T03:00:00Z")), "{preview}");
    assert_eq!(served.get("/v1/clusters/c0/windows")["window"], Value::Null, "automated backups are off");
    let events = served.get("/v1/events?cluster=c0");
    assert!(events["events"].as_array().unwrap().iter().any(|event| event["code"] == "job.canceled"), "{events}");
    served.done("DELETE", "/v1/clusters/c0?final_snapshot=last", &Value::Null);
    let last = served.get("/v1/snapshots/last");
    assert_eq!((&last["source"], &last["status"]), (&json!("final"), &json!("available")), "{last}");
    assert_eq!(served.get("/v1/clusters/c0")["status"], "removed");
}
