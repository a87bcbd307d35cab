//! Who may do what: the table is made of the routes themselves.

use serde_json::{Value, json};

use super::signed::{Signer, id_of, key};
use super::{Served, digest, exchange, token};
use crate::daemon::{Fleet, sqlite};

const SECRET: &str = "secret-of-all";

/// What the description says of a route.
struct Route {
    method: String,
    path: String,
    action: String,
}

fn routes(served: &Served) -> Vec<Route> {
    let document = served.request("GET", "/v1/openapi.json", &[], "").has(200).json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let action = operation["x-action"].as_str().unwrap_or_else(|| panic!("{method} {path} has no rule"));
            routes.push(Route { method: method.to_uppercase(), path: path.clone(), action: action.to_owned() });
        }
    }
    routes
}

/// The weakest role that may, said once more here: a rule that is changed is changed twice.
fn least(action: &str) -> usize {
    match action {
        "api.describe" | "cluster.read" | "snapshot.read" | "job.read" | "event.read" | "restore.plan"
        | "grant.read" => 0,
        "snapshot.create" | "snapshot.verify" | "snapshot.copy" | "snapshot.keep" | "restore.run" | "job.cancel" => 1,
        "snapshot.export" | "snapshot.release" | "snapshot.delete" | "cluster.remove" | "grant.add"
        | "grant.revoke" => 2,
        other => panic!("{other} is not in the table of this test: add it"),
    }
}

/// The path and body for things of one cluster; names that are not there, so that nothing is done.
fn filled(route: &Route, cluster: &str, job: &str) -> (String, Value) {
    let snapshot = format!("of-{cluster}");
    let path = route.path.replace("{cluster}", cluster).replace("{snapshot}", &snapshot).replace("{job}", job);
    // an id of no grant: nobody learns whether it is one
    let path = path.replace("{grant}", "0011223344556677");
    let body = match route.path.as_str() {
        _ if route.method != "POST" => Value::Null,
        "/v1/snapshots" => json!({"cluster": cluster, "name": "!"}),
        "/v1/restores" | "/v1/restores/plan" => json!({"snapshot": snapshot, "target": "nowhere", "name": "x"}),
        "/v1/grants" => json!({"snapshot": snapshot, "account": "123456789012"}),
        "/v1/snapshots/{snapshot}/copy" | "/v1/snapshots/{snapshot}/export" => json!({"to": "nowhere"}),
        _ => Value::Null,
    };
    // a removal of a cluster that would be done ends at its name
    let path = if route.action == "cluster.remove" { format!("{path}?final_snapshot=!") } else { path };
    (path, body)
}

#[test]
fn every_route_is_refused_to_weaker_roles_and_hides_what_is_out_of_scope() {
    let roles = ["reader", "operator", "admin"];
    let scopes = [("c0", "clusters = [\"c0\"]"), ("tagged", "tags = { of = \"c0\" }")];
    let scoped: String = roles
        .iter()
        .flat_map(|role| scopes.map(|(name, scope)| token(&format!("{role}-{name}"), role, scope)))
        .chain([key("tagger", "admin", "")])
        .collect();
    let fleet = Fleet::new(2, &sqlite(), "", "");
    std::fs::write(fleet.path("secret"), SECRET).unwrap();
    let served = Served::of(fleet, "requests_per_second = 10000", &scoped);
    let mut jobs = Vec::new();
    for cluster in ["c0", "c1"] {
        let body = json!({"cluster": cluster, "name": format!("of-{cluster}"), "tags": {"of": cluster}});
        let job = served.done("POST", "/v1/snapshots", &body);
        jobs.push((cluster, job["job_id"].as_str().unwrap().to_owned()));
        // so that nothing is deleted of what is asked for below
        served.done("POST", &format!("/v1/snapshots/of-{cluster}/keep"), &Value::Null);
    }
    tag_cluster(&served, "c0");
    let mut checked = 0;
    let mut all = routes(&served);
    all.sort_by_key(|route| route.action == "snapshot.release");
    for route in all {
        for (rank, role) in roles.iter().enumerate() {
            for ((scope, _), (cluster, job)) in scopes.iter().flat_map(|scope| jobs.iter().map(move |job| (scope, job)))
            {
                let (path, body) = filled(&route, cluster, job);
                let answer = served.ask_as(&format!("{role}-{scope}"), &route.method, &path, &body);
                let what = format!("{role} of {scope}, {} {path}: {answer:?}", route.method);
                let names_one = route.path.contains('{') || !body.is_null();
                match (rank >= least(&route.action), *cluster == "c1" && names_one) {
                    (false, _) => assert_eq!(answer.status, 403, "{what}"),
                    (true, true) => assert_eq!(answer.status, 404, "{what}"),
                    (true, false) => {
                        assert!(![401, 403, 500].contains(&answer.status), "{what}");
                        // what may be absent is what nobody has: a place called nowhere, a grant
                        let hidden = ["there is no snapshot", "there is no cluster", "there is no job"];
                        assert!(!hidden.iter().any(|words| answer.body.contains(words)), "{what}");
                    }
                }
                if rank >= least(&route.action) && !names_one {
                    let foreign = ["\"c1\"", "of-c1"].iter().any(|word| answer.body.contains(word));
                    assert!(!foreign, "a list shows what is out of scope: {what}");
                    let own = ["/v1/clusters", "/v1/snapshots", "/v1/jobs", "/v1/retention", "/v1/costs", "/v1/events"];
                    assert!(!own.contains(&route.path.as_str()) || answer.body.contains("\"c0\""), "{what}");
                }
                checked += 1;
            }
            // nobody gets anywhere without credentials
            let (path, body) = filled(&route, "c0", &jobs[0].1);
            let body = if body.is_null() { String::new() } else { body.to_string() };
            served.request(&route.method, &path, &[], &body).has(401);
        }
    }
    assert!(checked > 300, "{checked}");
    let listed = served.get("/v1/snapshots?cluster=c1");
    assert_eq!(listed["snapshots"][0]["name"], "of-c1");
    denials_are_written_down(&served);
}

/// Gives a cluster the tag that the tokens of the table ask for.
fn tag_cluster(served: &Served, cluster: &str) {
    let signer = Signer { id: id_of("tagger"), secret: SECRET, service: "elasticache", port: served.port() };
    let arn = format!("arn:aws:elasticache:us-east-1:000000000000:replicationgroup:{cluster}");
    let form = format!(
        "Action=AddTagsToResource&Version=2015-02-02&ResourceName={arn}&Tags.Tag.1.Key=of&Tags.Tag.1.Value={cluster}"
    );
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    exchange(served.port(), &signer.request("POST", "/", &kind, &form)).has(200);
}

fn denials_are_written_down(served: &Served) {
    let audit = served.fleet.json(&["event", "audit"]);
    let lines = audit["lines"].as_array().unwrap();
    let has = |who: &str, action: &str, words: &str| {
        let is = |line: &&Value| {
            line["who"] == who && line["action"] == action && line["details"].as_str().unwrap().contains(words)
        };
        assert!(lines.iter().any(|line| is(&line)), "{who} {action} {words}: {lines:?}");
    };
    has("token:reader-c0", "snapshot.delete", "denied: it takes the role admin");
    has("token:operator-c0", "snapshot.create", "denied: the cluster is not in its scope");
    has("token:admin-c0", "snapshot.delete", "allowed");
    let events = served.get("/v1/events");
    let denied = |event: &&Value| event["code"] == "access.denied";
    assert!(events["events"].as_array().unwrap().iter().any(|event| denied(&event)), "{events}");
}

#[test]
fn tokens_that_are_wrong_expired_or_narrowed_by_tags_get_nothing() {
    let expired = format!(
        "[api.tokens.old]\nsha256 = \"{}\"\nexpires = \"2020-01-01T00:00:00Z\"\nrole = \"admin\"\n",
        digest("old")
    );
    let tagged = token("tagged", "admin", "tags = { team = \"shop\" }");
    let served = Served::new(1, "", &(expired + &tagged));
    served.done("POST", "/v1/snapshots", &json!({"cluster": "c0", "name": "plain"}));
    served.done("POST", "/v1/snapshots", &json!({"cluster": "c0", "name": "shop", "tags": {"team": "shop"}}));
    for who in ["nobody", "", "ADMIN"] {
        let answer = served.ask_as(who, "GET", "/v1/whoami", &Value::Null).has(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    served.request("GET", "/v1/whoami", &[("Authorization", "Basic YWRtaW46")], "").has(401);
    let old = served.ask_as("old", "GET", "/v1/snapshots", &Value::Null).has(401).json();
    assert!(old["detail"].as_str().unwrap().contains("expired"), "{old}");
    let seen = served.ask_as("tagged", "GET", "/v1/snapshots", &Value::Null).has(200).json();
    let names: Vec<_> = seen["snapshots"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop"]);
    served.ask_as("tagged", "GET", "/v1/snapshots/plain", &Value::Null).has(404);
    served.ask_as("tagged", "DELETE", "/v1/snapshots/plain", &Value::Null).has(404);
    served.ask_as("tagged", "GET", "/v1/snapshots/shop", &Value::Null).has(200);
    let whoami = served.ask_as("tagged", "GET", "/v1/whoami", &Value::Null).has(200).json();
    assert_eq!((whoami["name"].as_str(), whoami["tags"]["team"].as_str()), (Some("token:tagged"), Some("shop")));
}

#[test]
fn without_tokens_programs_of_this_machine_are_served_and_pages_of_others_are_not() {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    let daemon = format!("listen = \"\"\n[api]\nlisten = \"127.0.0.1:{}\"\n", fleet.port.number);
    fleet.configure(&sqlite(), &daemon, "");
    let served = Served { daemon: fleet.daemon(), fleet };
    crate::harness::process::wait_for("the API", super::SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", served.port())).map_err(|error| error.to_string())
    });
    assert_eq!(served.request("GET", "/v1/whoami", &[], "").has(200).json()["name"], "local");
    served.request("GET", "/v1/whoami", &[("Origin", "https://evil.example")], "").has(403);
    let text = format!("GET /v1/whoami HTTP/1.1\r\nHost: evil.example:{}\r\nConnection: close\r\n\r\n", served.port());
    exchange(served.port(), text.as_bytes()).has(403);
    served.request("GET", "/explorer", &[], "").has(200);
}

#[test]
fn an_api_that_others_reach_takes_tokens_and_tls() {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    let refused = |api: &str, words: &str| {
        fleet.configure(&sqlite(), &format!("listen = \"\"\n[api]\nlisten = \"0.0.0.0:0\"\n{api}"), "");
        fleet.cli.run(&["serve"]).exits(19).says(words);
    };
    refused("", "nobody would be asked who they are");
    refused(&token("admin", "admin", ""), "tokens would be sent in the clear");
}
