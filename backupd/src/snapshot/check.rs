//! Whether a backup would work now: everything is looked at, and nothing is taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use policies::replica::{Verdict, Wishes};
use policies::{certificates, clocks};
use serde::Serialize;
use tokio::task::JoinSet;

use super::choice::{check_named, choose_node};
use super::settle::settled;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::redis::{self, Address, Node, Probed, SourceOptions, Topology, certificate_ends, probe};
use crate::repository::grant::Within;
use crate::repository::probe::{self as repository_probe, Probe};
use crate::repository::{Keys, Repository};
use crate::store::Store;

/// A check is impatient: a node that needs longer for a reply is in trouble.
const REPLY_WAIT: Duration = Duration::from_secs(5);

/// How many nodes are asked at the same time.
const ASKED_AT_ONCE: usize = 32;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A backup would fail.
    Error,
    /// A backup would work, but not as well as it could.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The text code of the class of the error, as in the command-line contract.
    pub class: &'static str,
    /// What and where.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The class itself, which decides the exit code.
    #[serde(skip)]
    pub of: Class,
}

/// The node that would serve a shard.
#[derive(Debug, Clone, Serialize)]
pub struct Serving {
    /// Index of the shard.
    pub index: usize,
    /// Its slots.
    pub slots: Option<policies::slot::SlotSet>,
    /// The node's id.
    pub node: String,
    /// Where it listens.
    pub address: String,
    /// `primary` or `replica`.
    pub role: &'static str,
    /// How far it is behind its primary.
    pub lag_bytes: u64,
    /// Why it, and why not the others.
    pub choice: Vec<Verdict>,
    /// What its memory looks like to a child that saves.
    pub memory: Headroom,
}

/// The memory of a node, in bytes; 0 where it does not say.
#[derive(Debug, Clone, Serialize)]
pub struct Headroom {
    /// `used_memory`
    pub used_bytes: u64,
    /// What the server holds of its machine's memory.
    pub resident_bytes: u64,
    /// What its machine has.
    pub system_bytes: u64,
    /// What the last child copied.
    pub last_copied_bytes: u64,
    /// What is left of the machine's memory for a child, if nothing else is there.
    pub room_bytes: u64,
}

impl Headroom {
    fn of(node: &Node) -> Self {
        Self {
            used_bytes: node.used_memory,
            resident_bytes: node.memory.resident,
            system_bytes: node.memory.system,
            last_copied_bytes: node.memory.last_copied,
            room_bytes: node.memory.system.saturating_sub(node.memory.resident),
        }
    }
}

/// What a node can do for a capture.
#[derive(Debug, Clone, Serialize)]
pub struct Capability {
    /// The node's id.
    pub node: String,
    /// `stream` or `bgsave`.
    pub method: &'static str,
    /// Whether its permissions allow it.
    pub available: bool,
    /// Why not.
    pub reason: String,
}

/// What was found about one cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The cluster.
    pub cluster: String,
    /// Whether a backup would work now.
    pub ok: bool,
    /// The shards that a node can serve.
    pub shards: Vec<Serving>,
    /// What the nodes can do for a capture.
    pub capabilities: Vec<Capability>,
    /// Engine and version of the source, and whether it is a cluster, once that is known.
    #[serde(skip)]
    pub seen: Option<(redis::Mode, String, String)>,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, severity: Severity, error: &Error) {
        let finding = Finding {
            severity,
            class: error.class().code(),
            message: error.message().to_owned(),
            hint: error.advice().map(ToOwned::to_owned),
            of: error.class(),
        };
        if !self.findings.iter().any(|known| known.message == finding.message) {
            self.findings.push(finding);
        }
    }

    fn add_probe(&mut self, probe: &Probe) {
        for (grave, error) in probe.findings() {
            self.add(if grave { Severity::Error } else { Severity::Warning }, &error.at("repository"));
        }
    }
}

/// Checks source and repository of a cluster.
pub async fn check(
    cluster: &str,
    source: &SourceOptions,
    wishes: &Wishes,
    store: Result<Arc<dyn Store>>,
    keys: &Keys,
) -> Report {
    let mut report = Report {
        cluster: cluster.to_owned(),
        ok: false,
        shards: Vec::new(),
        capabilities: Vec::new(),
        seen: None,
        findings: Vec::new(),
    };
    let options = SourceOptions { reply_timeout: REPLY_WAIT.min(source.reply_timeout), ..source.clone() };
    check_source(&options, wishes, &mut report).await;
    let mut repository_id = None;
    let probed = async {
        let store = store?;
        repository_probe::probe(Arc::clone(&store)).await.map(|probe| (probe, store))
    };
    match probed.await {
        Ok((probe, store)) => {
            report.add_probe(&probe);
            repository_id = probe.repository_id;
            if repository_id.is_some() {
                check_grants(store, cluster, keys, &mut report).await;
            }
        }
        Err(error) => report.add(Severity::Error, &error.at("repository")),
    }
    if let Err(error) = keys.check(repository_id.as_deref().unwrap_or("none"), cluster).await {
        report.add(Severity::Error, &error);
    }
    report.findings.sort_by_key(|finding| finding.severity);
    report.ok = report.findings.iter().all(|finding| finding.severity != Severity::Error);
    report
}

/// Warns of grants of the cluster's snapshots that are not in force as they were given.
async fn check_grants(store: Arc<dyn Store>, cluster: &str, keys: &Keys, report: &mut Report) {
    let standing = async {
        match store.as_bucket() {
            Some(_) => Box::pin(Repository::open(store).await?.grants(keys, Within::Cluster(cluster))).await,
            None => Ok(Vec::new()),
        }
    };
    match standing.await {
        Ok(standing) => {
            for drift in standing.iter().filter_map(|one| one.drift()) {
                let error = Error::new(Class::Refused, drift).hint("`backupd grant list` shows what there is");
                report.add(Severity::Warning, &error);
            }
        }
        Err(error) => report.add(Severity::Warning, &error.at("whether grants are in force is not known")),
    }
}

async fn check_source(options: &SourceOptions, wishes: &Wishes, report: &mut Report) {
    let topology = match redis::discover(options).await {
        Ok(topology) => topology,
        Err(error) => {
            report.add(Severity::Error, &error);
            // which commands are refused besides the one that ended the search
            if error.class() == Class::SourceAuth {
                for address in options.seeds.iter().map(|seed| &seed.address) {
                    probe(address, options).await.refusals.iter().for_each(|error| report.add(Severity::Error, error));
                }
            }
            return;
        }
    };
    report.seen = Some((topology.mode, topology.engine.clone(), topology.version.clone()));
    if let Err(error) = check_named(&topology, wishes) {
        report.add(Severity::Error, &error);
    }
    choose(&topology, wishes, report);
    probe_all(&topology, options, report).await;
    look_at_certificates(&topology, options, report).await;
    if let Err(error) = settled(topology) {
        report.add(Severity::Warning, &error.at("a backup would have to wait"));
    }
}

fn choose(topology: &Topology, wishes: &Wishes, report: &mut Report) {
    for (index, shard) in topology.shards.iter().enumerate() {
        match choose_node(index, shard, wishes, &HashMap::new()) {
            Ok(chosen) => report.shards.push(Serving {
                memory: Headroom::of(&chosen.node),
                index,
                slots: shard.slots.clone(),
                node: chosen.node.id,
                address: chosen.node.address.to_string(),
                role: chosen.node.role.as_str(),
                lag_bytes: chosen.lag_bytes,
                choice: chosen.choice.verdicts,
            }),
            Err(error) => report.add(Severity::Error, &error),
        }
        for node in &shard.nodes {
            if let Some(why) = &node.unreachable {
                let message =
                    format!("shard {index}: the {} {} is unreachable: {why}", node.role.as_str(), node.address);
                report.add(Severity::Warning, &Error::new(Class::SourceUnavailable, message));
            }
            if let Some(why) = node.clock_ahead_ms.and_then(clocks::differs) {
                let message = format!("shard {index}: {} {}: {why}", node.role.as_str(), node.address);
                let hint = "set both clocks by NTP: keys expire by the server's, windows and retention go by ours";
                report.add(Severity::Warning, &Error::new(Class::SourceUnavailable, message).hint(hint));
            }
        }
    }
}

/// Asks all nodes what they would refuse: an error of those that would serve, a warning of the others, which would
/// have to serve when those fail.
async fn probe_all(topology: &Topology, options: &SourceOptions, report: &mut Report) {
    for some in reachable(topology).chunks(ASKED_AT_ONCE) {
        let mut tasks = JoinSet::new();
        for (id, address) in some {
            let (id, address, options) = (id.clone(), address.clone(), options.clone());
            tasks.spawn(async move { (address.to_string(), id, probe(&address, &options).await) });
        }
        let mut answers: Vec<(String, String, Probed)> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(answer) => answers.push(answer),
                Err(error) => report.add(Severity::Error, &crate::task_failed(error)),
            }
        }
        answers.sort_by(|a, b| a.0.cmp(&b.0));
        for (address, node, Probed { refusals, capabilities }) in answers {
            let serves = report.shards.iter().any(|shard| shard.address == address);
            report.capabilities.extend(capabilities.into_iter().map(|it| Capability {
                node: node.clone(),
                method: it.method,
                available: it.refused.is_none(),
                reason: it.refused.unwrap_or_default(),
            }));
            for error in refusals {
                // a cluster is found by CLUSTER SLOTS where CLUSTER NODES is refused
                let grave = serves && !error.message().contains("CLUSTER NODES");
                report.add(if grave { Severity::Error } else { Severity::Warning }, &error);
            }
        }
    }
}

/// Warns of certificates that end soon: ours, and those of all nodes.
async fn look_at_certificates(topology: &Topology, options: &SourceOptions, report: &mut Report) {
    let now = clock::now().timestamp();
    let nodes = reachable(topology);
    for some in nodes.chunks(ASKED_AT_ONCE) {
        let looks = some.iter().map(|(_, address)| {
            let (address, options) = (address.clone(), options.clone());
            async move { certificate_ends(&address, &options).await }
        });
        for ends in looks.collect::<JoinSet<_>>().join_all().await {
            match ends {
                Ok(ends) => {
                    let soon = ends.into_iter().filter_map(|(what, end)| certificates::ends_soon(&what, end, now));
                    for why in soon {
                        report.add(Severity::Warning, &Error::new(Class::SourceAuth, why).hint("renew it"));
                    }
                }
                // what does not hold was told before
                Err(error) => tracing::debug!(%error, "the certificates were not seen"),
            }
        }
    }
}

/// Id and address of all nodes that could be asked.
fn reachable(topology: &Topology) -> Vec<(String, Address)> {
    let nodes = topology.shards.iter().flat_map(|shard| &shard.nodes).filter(|node| node.unreachable.is_none());
    nodes.map(|node| (node.id.clone(), node.address.clone())).collect()
}
