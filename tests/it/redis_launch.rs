//! Launching new clusters from RDB files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use backupd::error::{Class, Result};
use backupd::launch::{Access, LaunchPlan, LaunchProgress, LaunchedNode, ShardPlan, claim_dir, launch};
use backupd::redis::{Mode, Role, discover};
use policies::slot::SlotSet;

use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::redis_server::{ask_port, fill, options, program, save_rdb, server, wait_until};

/// Stops a launched cluster at the end of a test, however it ends.
struct StopAtEnd(PathBuf);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        Command::new(self.0.join("stop.sh")).status().ok();
    }
}

fn plan(dir: &Path, shards: Vec<ShardPlan>) -> LaunchPlan {
    let settings = vec!["repl-diskless-sync-delay 0".to_owned()];
    LaunchPlan {
        dir: dir.to_owned(),
        engine: program(),
        first_port: None,
        shards,
        replicas: 0,
        settings,
        access: Access::default(),
    }
}

async fn run(plan: LaunchPlan) -> Result<Vec<LaunchedNode>> {
    launch(plan, &|_| {}).await
}

/// One shard from the data of a standalone server: `keys` of them, ten expired by the time they are loaded.
fn standalone(dir: &Path, keys: u64) -> ShardPlan {
    let server = server(&[]);
    fill(&server, keys - 10);
    for index in 0..10 {
        server.run(&["SET", &format!("short:{index}"), "x", "PX", "300"]);
    }
    let rdb = save_rdb(&server, dir, "one.rdb");
    ShardPlan { slots: None, rdb, keys, expires: 10 }
}

/// The shards of a cluster: each owner's slots, file and keys.
fn shards_of(cluster: &Cluster, dir: &Path) -> Vec<ShardPlan> {
    let shard = |(index, shard): (usize, &crate::harness::cluster::Shard)| ShardPlan {
        slots: Some(shard.slots.clone()),
        rdb: save_rdb(&shard.primary, dir, &format!("{index}.rdb")),
        keys: nodes::command(&["DBSIZE"]).query(&mut shard.primary.connect()).unwrap(),
        expires: 0,
    };
    cluster.shards.iter().enumerate().map(shard).collect()
}

#[tokio::test]
async fn a_standalone_with_replicas_serves_what_its_file_holds() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("it's new");
    let staging = claim_dir(&dir).unwrap();
    let shard = standalone(&staging, 2000);
    let _stop = StopAtEnd(dir.clone());
    let seen = Mutex::new(Vec::new());
    let plan = LaunchPlan { replicas: 2, ..plan(&dir, vec![shard]) };
    let nodes = launch(plan, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    let roles: Vec<Role> = nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Primary, Role::Replica, Role::Replica]);
    assert!(nodes.iter().all(|node| node.slots.is_none() && (1990..=2000).contains(&node.keys)), "{nodes:?}");
    let expected = ask_port(nodes[0].port, &["GET", "key:7"]).unwrap();
    assert_eq!(expected.len(), 100);
    assert!(nodes.iter().all(|node| ask_port(node.port, &["GET", "key:7"]).as_ref() == Some(&expected)));
    assert!(!staging.exists());
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.first(), Some(&LaunchProgress::Started { port: nodes[0].port }));
    assert_eq!(seen.last(), Some(&LaunchProgress::Serving));

    let stop = dir.join("stop.sh");
    assert_eq!(stop.metadata().unwrap().permissions().mode() & 0o111, 0o111);
    assert!(Command::new(&stop).status().unwrap().success());
    assert!(nodes.iter().all(|node| ask_port(node.port, &["PING"]).is_none()), "stop.sh waits until they are gone");
    assert!(Command::new(dir.join("start.sh")).status().unwrap().success());
    wait_until("it serves again", || ask_port(nodes[2].port, &["GET", "key:7"]).as_ref() == Some(&expected));
}

#[tokio::test]
async fn a_cluster_of_five_shards_with_replicas_has_exactly_the_planned_slots() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let source = Cluster::start(5, 0);
    Keyspace::new(7, 2000).load(&source.nodes());
    let shards = shards_of(&source, &claim_dir(&dir).unwrap());
    let slots: Vec<Option<SlotSet>> = shards.iter().map(|shard| shard.slots.clone()).collect();
    let keys: Vec<u64> = shards.iter().map(|shard| shard.keys).collect();
    let _stop = StopAtEnd(dir.clone());
    let launched = run(LaunchPlan { replicas: 1, ..plan(&dir, shards) }).await.unwrap();
    assert_eq!(launched.len(), 10);
    for (index, node) in launched.iter().enumerate() {
        assert_eq!((&node.slots, node.keys), (&slots[index % 5], keys[index % 5]));
        assert_eq!(node.role, if index < 5 { Role::Primary } else { Role::Replica });
        assert_eq!(usize::from(node.port), usize::from(launched[0].port) + index);
        assert!(ask_port(node.port, &["CLUSTER", "INFO"]).unwrap().contains("cluster_state:ok"));
    }
    let url = format!("redis://127.0.0.1:{}", launched[9].port);
    let (left, right) = (source.nodes(), nodes::discover(&url));
    compare(&left, &right).assert_equal();
    let topology = discover(&options(&[&url])).await.unwrap();
    assert_eq!((topology.mode, topology.shards.len()), (Mode::Cluster, 5));
    assert!(topology.shards.iter().zip(&slots).all(|(shard, slots)| shard.slots == *slots && shard.nodes.len() == 2));
}

#[tokio::test]
async fn one_shard_may_be_a_cluster() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let shard = ShardPlan { slots: Some(SlotSet::full()), ..standalone(temporary.path(), 100) };
    let _stop = StopAtEnd(dir.clone());
    let nodes = run(plan(&dir, vec![shard])).await.unwrap();
    assert_eq!(nodes[0].slots, Some(SlotSet::full()));
    assert_eq!(ask_port(nodes[0].port, &["GET", "key:1"]).unwrap().len(), 100);
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_made() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let shard = standalone(temporary.path(), 20);
    let taken = server(&[]);
    let check = async |change: &dyn Fn(&mut LaunchPlan), class: Class, word: &str| {
        let mut plan = plan(&dir, vec![shard.clone()]);
        change(&mut plan);
        let error = run(plan).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.message().contains(word), "{word} in {error}");
        assert!(!dir.exists() && shard.rdb.exists());
    };
    check(&|plan| plan.first_port = Some(taken.port()), Class::Refused, &taken.port().to_string()).await;
    check(&|plan| plan.dir = temporary.path().to_owned(), Class::Refused, "one.rdb").await;
    check(&|plan| plan.engine = "no-such-server".into(), Class::Config, "no-such-server").await;
    check(&|plan| plan.engine = "ls".into(), Class::Config, "--version").await;
    check(&|plan| plan.shards.push(plan.shards[0].clone()), Class::Refused, "no slots").await;
    let part = Some("0-100".parse().unwrap());
    check(&|plan| plan.shards[0].slots.clone_from(&part), Class::Refused, "101-16383").await;
    let newer = temporary.path().join("newer.rdb");
    std::fs::write(&newer, b"REDIS0099\xff").unwrap();
    check(&|plan| plan.shards[0].rdb.clone_from(&newer), Class::Version, "99").await;
    let no_rdb = temporary.path().join("no.rdb");
    std::fs::write(&no_rdb, b"SQLite").unwrap();
    check(&|plan| plan.shards[0].rdb.clone_from(&no_rdb), Class::Verification, "no.rdb").await;
}

#[tokio::test]
async fn a_server_that_cannot_load_its_file_shows_its_log_and_leaves_nothing_running() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let source = Cluster::start(3, 0);
    Keyspace::new(7, 100).load(&source.nodes());
    let shards = shards_of(&source, temporary.path());
    let bytes = std::fs::read(&shards[1].rdb).unwrap();
    std::fs::write(&shards[1].rdb, &bytes[..bytes.len() - 9]).unwrap();
    let error = run(plan(&dir, shards.clone())).await.unwrap_err();
    assert_eq!(error.class(), Class::Unforeseen);
    assert!(error.message().contains("its log ends with") && error.message().contains("RDB"), "{error}");
    assert!(error.advice().unwrap().contains("server.log"), "{error}");
    wait_until("nothing runs", || {
        std::fs::read_dir(&dir).unwrap().all(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_prefix("node-").is_none_or(|port| ask_port(port.parse().unwrap(), &["PING"]).is_none())
        })
    });
    let again = run(plan(&dir, shards)).await.unwrap_err();
    assert_eq!(again.class(), Class::Refused, "the folder is not empty any more");
}

#[tokio::test]
async fn a_server_with_other_keys_than_its_file_should_have_is_exit_17() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let shard = ShardPlan { keys: 50, expires: 9, ..standalone(temporary.path(), 40) };
    let error = run(plan(&dir, vec![shard])).await.unwrap_err();
    assert_eq!(error.class(), Class::Verification);
    assert!(error.message().contains("50"), "{error}");
}
