//! Who may do what through the Query API: the table is made of the actions that are spoken.

use backupd::api::query::actions::SPOKEN;

use crate::api::signed::{Signer, id_of, key};
use crate::api::{Served, exchange};
use crate::daemon::{Fleet, sqlite};

const SECRET: &str = "secret-of-all";

/// The weakest role that may, said once more here: a rule that is changed is changed twice.
fn least(action: &str) -> usize {
    match action {
        "DescribeCacheClusters"
        | "DescribeEvents"
        | "DescribeReplicationGroups"
        | "DescribeSnapshots"
        | "GetCallerIdentity"
        | "ListTagsForResource" => 0,
        "AddTagsToResource"
        | "CopySnapshot"
        | "CreateCacheCluster"
        | "CreateReplicationGroup"
        | "CreateSnapshot"
        | "RemoveTagsFromResource" => 1,
        "DeleteCacheCluster"
        | "DeleteReplicationGroup"
        | "DeleteSnapshot"
        | "ModifyCacheCluster"
        | "ModifyReplicationGroup" => 2,
        other => panic!("{other} is not in the table of this test: add it"),
    }
}

/// Parameters that name things of one cluster, and the fault of who must not know of them; `None` for lists and what concerns no cluster.
/// None of them changes anything: names are taken, parameters that come later are wrong, or nothing is there.
fn filled(action: &str, cluster: &str) -> (String, Option<&'static str>) {
    let (snapshot, group, node) = ("SnapshotNotFoundFault", "ReplicationGroupNotFoundFault", "CacheClusterNotFound");
    let arn = format!("ResourceName=arn:aws:elasticache:eu-central-1:000000000000:snapshot:of-{cluster}");
    let named = format!("SnapshotName=of-{cluster}");
    match action {
        "DescribeCacheClusters" => (format!("CacheClusterId={cluster}-001"), Some(node)),
        "DescribeReplicationGroups" => (format!("ReplicationGroupId={cluster}"), Some(group)),
        "DescribeSnapshots" => (named, Some(snapshot)),
        "DescribeEvents" | "GetCallerIdentity" => (String::new(), None),
        "ListTagsForResource" => (arn, Some(snapshot)),
        "AddTagsToResource" => (format!("{arn}&Tags.Tag.1.Key=k&Tags.Tag.1.Value=v"), Some(snapshot)),
        "RemoveTagsFromResource" => (format!("{arn}&TagKeys.member.1=none"), Some(snapshot)),
        // there is no other repository
        "CopySnapshot" => (format!("SourceSnapshotName=of-{cluster}&TargetSnapshotName=copy"), Some(snapshot)),
        "CreateSnapshot" => (format!("{named}&ReplicationGroupId={cluster}"), Some(group)),
        // it is kept
        "DeleteSnapshot" => (named, Some(snapshot)),
        // the name is taken, which is looked at behind the snapshot
        "CreateCacheCluster" => (format!("CacheClusterId={cluster}&{named}"), Some(snapshot)),
        "CreateReplicationGroup" => {
            (format!("ReplicationGroupId={cluster}&ReplicationGroupDescription=d&{named}"), Some(snapshot))
        }
        "ModifyCacheCluster" => (format!("CacheClusterId={cluster}-001"), Some(node)),
        "ModifyReplicationGroup" => (format!("ReplicationGroupId={cluster}"), Some(group)),
        // a node of a group cannot be deleted alone, and the name of the last snapshot is taken
        "DeleteCacheCluster" => (format!("CacheClusterId={cluster}-001"), Some(node)),
        "DeleteReplicationGroup" => {
            (format!("ReplicationGroupId={cluster}&FinalSnapshotIdentifier=of-{cluster}"), Some(group))
        }
        other => panic!("{other} is not in the table of this test: add it"),
    }
}

#[test]
fn every_action_is_refused_to_weaker_roles_and_hides_what_is_out_of_scope() {
    let roles = ["reader", "operator", "admin"];
    let scopes = [("c0", "clusters = [\"c0\"]"), ("tagged", "tags = { of = \"c0\" }")];
    let keys: String =
        roles.iter().flat_map(|role| scopes.map(|(name, scope)| key(&format!("{role}-{name}"), role, scope))).collect();
    let fleet = Fleet::new(2, &sqlite(), "", "");
    std::fs::write(fleet.path("secret"), SECRET).unwrap();
    // only somewhere to restore into, which nothing here gets to
    let target = format!("[targets.here]\nlaunch = \"{}\"\nports = \"7000-7001\"\n", fleet.path("new").display());
    let served = Served::of(fleet, "requests_per_second = 10000", &(keys + &target));
    let signer = |id: String| Signer { id, secret: SECRET, service: "elasticache", port: served.port() };
    let ask = |signer: &Signer, action: &str, parameters: &str| {
        let version = if action == "GetCallerIdentity" { "2011-06-15" } else { "2015-02-02" };
        let body = format!("Action={action}&Version={version}&{parameters}");
        let body = body.trim_end_matches('&');
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = exchange(served.port(), &signer.request("POST", "/", &kind, body));
        let code = answer.body.split_once("<Code>").and_then(|it| it.1.split_once("</Code>")).map(|it| it.0.to_owned());
        (answer, code.unwrap_or_default())
    };
    for cluster in ["c0", "c1"] {
        let body = serde_json::json!({"cluster": cluster, "name": format!("of-{cluster}")});
        served.done("POST", "/v1/snapshots", &body);
        served.done("POST", &format!("/v1/snapshots/of-{cluster}/keep"), &serde_json::Value::Null);
    }
    served.done("POST", "/v1/snapshots", &serde_json::json!({"cluster": "c0", "name": "bare"}));
    let admin = signer(id_of("admin-c0"));
    for kind in ["snapshot:of-c0", "replicationgroup:c0"] {
        let arn = format!("ResourceName=arn:aws:elasticache:eu-central-1:000000000000:{kind}");
        let (answer, _) = ask(&admin, "AddTagsToResource", &format!("{arn}&Tags.Tag.1.Key=of&Tags.Tag.1.Value=c0"));
        answer.has(200);
    }
    let mut checked = 0;
    for (action, _) in SPOKEN {
        for (rank, role) in roles.iter().enumerate() {
            for (scope, _) in scopes {
                let signer = signer(id_of(&format!("{role}-{scope}")));
                for cluster in ["c0", "c1"] {
                    let (parameters, hidden) = filled(action, cluster);
                    let (answer, code) = ask(&signer, action, &parameters);
                    let what = format!("{role} of {scope}, {action} {parameters}: {answer:?}");
                    let is_right = match (rank >= least(action), hidden) {
                        (false, _) => (answer.status, code.as_str()) == (403, "AccessDenied"),
                        (true, Some(hidden)) if cluster == "c1" => (answer.status, code.as_str()) == (404, hidden),
                        (true, Some(hidden)) => code != hidden && code != "AccessDenied" && answer.status < 500,
                        (true, None) => answer.status == 200,
                    };
                    assert!(is_right, "{what}");
                    checked += 1;
                }
                // lists show what is in scope, and nothing else
                if action.starts_with("Describe") {
                    let (list, _) = ask(&signer, action, "");
                    let list = list.has(200).body;
                    assert!(!list.contains("of-c1") && !list.contains(">c1<") && !list.contains(">c1-001<"), "{list}");
                    assert!(action == "DescribeEvents" || list.contains(">c0") || list.contains("of-c0"), "{list}");
                }
            }
            // nobody gets anywhere without a signature
            let (parameters, _) = filled(action, "c0");
            let body = format!("Action={action}&Version=2015-02-02&{parameters}");
            let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
            let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            assert!(exchange(served.port(), text.as_bytes()).has(403).body.contains("MissingAuthenticationToken"));
        }
    }
    assert_eq!(checked, SPOKEN.len() * 3 * 2 * 2);
    for (role, (scope, _)) in roles.iter().flat_map(|role| scopes.map(|scope| (role, scope))) {
        tags_are_listed(&served, Signer { service: "tagging", ..signer(id_of(&format!("{role}-{scope}"))) });
    }
    let mut names = served.fleet.snapshots();
    names.sort();
    assert_eq!(names, ["bare", "of-c0", "of-c1"], "nothing was made or deleted but what was asked for by its name");
}

/// `GetResources` lists what exists, has tags, and is seen: nothing else is told of what was named, not even that it is not there.
fn tags_are_listed(served: &Served, signer: Signer) {
    let ask = |kinds: &[&str]| {
        let arns: Vec<String> =
            kinds.iter().map(|kind| format!("arn:aws:elasticache:eu-central-1:000000000000:{kind}")).collect();
        let body = serde_json::json!({ "ResourceARNList": arns }).to_string();
        let head = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "ResourceGroupsTaggingAPI_20170126.GetResources"),
        ];
        exchange(served.port(), &signer.request("POST", "/", &head, &body))
    };
    // what is there and has no tags is left out as well
    let named = [
        "snapshot:bare",
        "snapshot:of-c0",
        "snapshot:of-c1",
        "snapshot:none",
        "replicationgroup:c0",
        "replicationgroup:c1",
        "cluster:none",
    ];
    let answer = ask(&named).has(200).json();
    let found: Vec<&str> = answer["ResourceTagMappingList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["ResourceARN"].as_str().unwrap().rsplit("000000000000:").next().unwrap())
        .collect();
    assert_eq!(found, ["snapshot:of-c0", "replicationgroup:c0"], "{answer}");
    // the other one was given above
    let tags = serde_json::json!([{"Key": "k", "Value": "v"}, {"Key": "of", "Value": "c0"}]);
    assert_eq!(answer["ResourceTagMappingList"][0]["Tags"], tags);
    ask(&[]).has(400);
}
