//! Which shards and nodes a source has.

use std::collections::HashSet;
use std::sync::Arc;

use ::redis::{Value, cmd};
use policies::replica::Candidate;
use policies::slot::SlotSet;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cluster::{Member, parse_nodes, parse_slots};
use super::info::Info;
use super::node::{Node, Role, Seen, connect, observe};
use super::sentinel;
use super::source::{Address, SourceOptions};
use crate::error::{Class, Error, Result};

/// How many nodes are asked at the same time.
const ASKED_AT_ONCE: usize = 32;

/// The most nodes that one standalone primary and its replicas may have.
const STANDALONE_NODES_MAX: usize = 256;

/// The most nodes of a cluster; the servers recommend at most about 1000.
const CLUSTER_NODES_MAX: usize = 4096;

/// How a source is organised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One primary, with or without replicas.
    Standalone,
    /// Cluster mode: 16384 slots over shards.
    Cluster,
}

impl Mode {
    /// `standalone` or `cluster`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
        }
    }
}

/// A source as it was found.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Standalone or cluster.
    pub mode: Mode,
    /// The engine of the first primary that answered, else of the first node: `redis`, `valkey`, …
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The cluster's current epoch; 0 for a standalone.
    pub epoch: u64,
    /// Slots on their way between shards, as the primaries tell: `<node id>: [93->-<node id>]`.
    pub migrating: Vec<String>,
    /// What nodes say differently of themselves or of each other, as they do during a failover.
    pub disputed: Vec<String>,
    /// The shards, by first slot.
    pub shards: Vec<Shard>,
}

/// A primary and its replicas.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The slots of a cluster's shard; `None` for a standalone.
    pub slots: Option<SlotSet>,
    /// The configuration epoch of its primary: it rises when the shard gets slots or another primary. 0 where unknown.
    pub epoch: u64,
    /// Its nodes, the primary first.
    pub nodes: Vec<Node>,
}

impl Shard {
    /// The candidates for a capture, in the order of the nodes.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let answered = |node: &&Node| node.unreachable.is_none();
        let primary = self.nodes.iter().filter(answered).find(|node| node.role == Role::Primary);
        // Without a primary's word, the replica that came furthest is the measure.
        let head = primary.map(|node| node.offset);
        let head = head.or_else(|| self.nodes.iter().filter(answered).map(|node| node.offset).max());
        let history = primary.map(|node| node.replid.as_str()).filter(|id| !id.is_empty());
        self.nodes.iter().map(|node| node.candidate(head, history)).collect()
    }

    /// The same, with those nodes of `earlier` that nobody names any more: a primary whose replicas are gone is not
    /// one that never had any.
    #[must_use]
    pub fn with_lost(mut self, earlier: &Self) -> Self {
        for node in &earlier.nodes {
            if !self.nodes.iter().any(|known| known.id == node.id || known.address == node.address) {
                let why = "it was there when the job began, and no node knows it now".to_owned();
                self.nodes.push(Node::unseen(node.id.clone(), node.address.clone(), Role::Replica, why));
            }
        }
        self
    }

    /// The id of the primary, if there is one.
    #[must_use]
    pub fn primary_id(&self) -> Option<&str> {
        self.nodes.iter().find(|node| node.role == Role::Primary).map(|node| node.id.as_str())
    }
}

impl Topology {
    /// Why nothing can be said for sure of who serves which slots, if so: they are on their way, or nodes disagree.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        let moving = self.migrating.first().map(|slot| format!("slots are being moved between shards ({slot})"));
        moving.or_else(|| self.disputed.first().map(|what| format!("nodes disagree about {what}")))
    }

    /// Which shards, by index, are not what they were in `earlier`, so that captures of them made in between do not
    /// belong to the others: those with other slots, and those that were given slots or another primary meanwhile.
    #[must_use]
    pub fn changed_since(&self, earlier: &Self) -> Vec<usize> {
        let same = |index: &usize| match (self.shards.get(*index), earlier.shards.get(*index)) {
            (Some(now), Some(then)) => {
                now.slots == then.slots && (now.epoch == then.epoch || now.epoch == 0 || then.epoch == 0)
            }
            _ => false,
        };
        (0..self.shards.len()).filter(|index| !same(index)).collect()
    }
}

/// Finds the nodes and shards of a source, beginning at any seed that answers; a Sentinel leads to what it watches.
///
/// A node that cannot be asked becomes [`Node::unreachable`], not a failure.
///
/// # Errors
/// `SourceUnavailable` when no seed answers; `SourceAuth` when credentials or a command are refused; `Refused` when
/// a cluster does not cover every slot or the seeds name several primaries; `Usage` for a Sentinel that watches several.
pub async fn discover(options: &SourceOptions) -> Result<Topology> {
    let options = Arc::new(options.clone());
    let mut worst: Option<Error> = None;
    for seed in &options.seeds {
        match discover_from(&seed.address, &options).await {
            Ok(topology) => return Ok(topology),
            // What no other seed can mend tells more than a seed that is away.
            Err(error) => match &worst {
                Some(kept) if !kept.is_retryable() || error.is_retryable() => {}
                _ => worst = Some(error),
            },
        }
    }
    Err(worst.unwrap_or_else(|| Error::new(Class::Usage, "no source was given").hint("give --source URL")))
}

async fn discover_from(seed: &Address, options: &Arc<SourceOptions>) -> Result<Topology> {
    let seen = match observe(seed, options).await {
        Ok(seen) if !seen.info.is_sentinel() => seen,
        Err(error) if error.class() != Class::SourceAuth || !sentinel::is_at(seed, options).await => return Err(error),
        Ok(_) | Err(_) => return standalone(&Arc::new(sentinel::resolve(seed, options).await?)).await,
    };
    if seen.info.is_cluster() { cluster(seed, &seen.info, options).await } else { standalone(options).await }
}

/// Asks all `addresses`, some at a time; the answers are in their order.
async fn observe_all(addresses: &[Address], options: &Arc<SourceOptions>) -> Vec<(Address, Result<Seen>)> {
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let (address, options, places) = (address.clone(), Arc::clone(options), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire().await;
            (index, observe(&address, &options).await)
        });
    }
    let mut answers: Vec<Option<Result<Seen>>> = addresses.iter().map(|_| None).collect();
    while let Some(done) = tasks.join_next().await {
        if let Ok((index, answer)) = done
            && let Some(place) = answers.get_mut(index)
        {
            *place = Some(answer);
        }
    }
    let lost = || Err(Error::new(Class::Unforeseen, "the task that asked this node ended without an answer"));
    addresses.iter().cloned().zip(answers.into_iter().map(|answer| answer.unwrap_or_else(lost))).collect()
}

/// Walks from the seeds to primaries and replicas until nothing new turns up.
async fn standalone(options: &Arc<SourceOptions>) -> Result<Topology> {
    let seeds: HashSet<&Address> = options.seeds.iter().map(|seed| &seed.address).collect();
    let mut met: HashSet<Address> = HashSet::new();
    let mut runs: HashSet<String> = HashSet::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut next: Vec<(Address, Role)> =
        options.seeds.iter().map(|seed| (seed.address.clone(), Role::Replica)).collect();
    while !next.is_empty() {
        next.retain(|(address, _)| met.insert(address.clone()));
        if met.len() > STANDALONE_NODES_MAX {
            return Err(Error::new(Class::Refused, format!("more than {STANDALONE_NODES_MAX} nodes replicate here")));
        }
        let (asked, roles): (Vec<Address>, Vec<Role>) = std::mem::take(&mut next).into_iter().unzip();
        for ((address, answer), role) in observe_all(&asked, options).await.into_iter().zip(roles) {
            match answer {
                Ok(seen) if runs.insert(seen.info.text("run_id").to_owned()) => {
                    next.extend(seen.info.primary().filter(|_| seen.info.is_replica()).map(|it| (it, Role::Primary)));
                    next.extend(seen.info.replicas().into_iter().map(|replica| (replica, Role::Replica)));
                    nodes.push(Node::answered(address.to_string(), address, &seen));
                }
                // the same process under another address
                Ok(_) => {}
                // a seed that is away and that no node knows is no part of this source
                Err(_) if seeds.contains(&address) => {}
                Err(error) => nodes.push(Node::unseen(address.to_string(), address, role, error.message().to_owned())),
            }
        }
    }
    standalone_topology(nodes)
}

fn standalone_topology(mut nodes: Vec<Node>) -> Result<Topology> {
    nodes.sort_by(|a, b| (a.role == Role::Replica, &a.id).cmp(&(b.role == Role::Replica, &b.id)));
    let primaries: Vec<&str> = nodes
        .iter()
        .filter(|node| node.role == Role::Primary && node.unreachable.is_none())
        .map(|node| node.id.as_str())
        .collect();
    if primaries.len() > 1 {
        let message = format!("the sources belong to {} primaries: {}", primaries.len(), primaries.join(", "));
        return Err(Error::new(Class::Refused, message)
            .hint("give the nodes of one primary; during a failover, wait until it has ended")
            .retryable(true));
    }
    let first = nodes.iter().find(|node| node.unreachable.is_none());
    let first = first.ok_or_else(|| Error::new(Class::SourceUnavailable, "every node went away while it was asked"))?;
    Ok(Topology {
        mode: Mode::Standalone,
        engine: first.engine.clone(),
        version: first.version.clone(),
        epoch: 0,
        migrating: Vec::new(),
        disputed: Vec::new(),
        shards: vec![Shard { slots: None, epoch: 0, nodes }],
    })
}

async fn cluster(seed: &Address, info: &Info, options: &Arc<SourceOptions>) -> Result<Topology> {
    let (members, epoch) = cluster_view(seed, options).await?;
    let covered: SlotSet = members.iter().flat_map(|member| member.slots.iter()).collect();
    let missing = covered.complement();
    if !missing.is_empty() {
        return Err(Error::new(Class::Refused, format!("{seed}: the cluster does not serve the slots {missing}"))
            .hint("a snapshot needs every slot: bring back the shard that served them (CLUSTER NODES)"));
    }
    let serving: HashSet<&str> =
        members.iter().filter(|member| !member.slots.is_empty()).map(|member| member.id.as_str()).collect();
    let counts = |member: &&Member| {
        serving.contains(member.id.as_str()) || member.follows.as_deref().is_some_and(|id| serving.contains(id))
    };
    let counted: Vec<&Member> = members.iter().filter(counts).collect();
    let asked: Vec<Address> =
        counted.iter().filter(|member| !member.failed).filter_map(|member| member.address.clone()).collect();
    let mut answers = observe_all(&asked, options).await;
    let mut topology = Topology {
        mode: Mode::Cluster,
        engine: info.engine().0.to_owned(),
        version: info.engine().1.to_owned(),
        epoch,
        migrating: Vec::new(),
        disputed: Vec::new(),
        shards: Vec::new(),
    };
    let mut nodes: Vec<(String, Node)> = Vec::new();
    for member in &counted {
        let answer = answers.iter().position(|(address, _)| !member.failed && Some(address) == member.address.as_ref());
        let answer = answer.map(|index| answers.swap_remove(index).1);
        if let Some(Ok(seen)) = &answer {
            topology.migrating.extend(seen.migrations.iter().map(|what| format!("{}: {what}", member.id)));
            if let Some(view) = &seen.own_view {
                match check_view(&members, member, view) {
                    Ok(moving) => topology.migrating.extend(moving),
                    Err(how) => topology.disputed.push(how),
                }
            }
        }
        let shard = member.follows.clone().filter(|_| !member.primary).unwrap_or_else(|| member.id.clone());
        let node = cluster_node(member, answer);
        if node.role != if member.primary { Role::Primary } else { Role::Replica } {
            topology.disputed.push(named(member, &format!("it is a {} by its own word", node.role.as_str())));
        }
        nodes.push((shard, node));
    }
    for member in members.iter().filter(|member| !member.slots.is_empty()) {
        let mut own: Vec<Node> =
            nodes.iter().filter(|(shard, _)| *shard == member.id).map(|(_, node)| node.clone()).collect();
        own.sort_by(|a, b| (a.role == Role::Replica, &a.id).cmp(&(b.role == Role::Replica, &b.id)));
        topology.shards.push(Shard { slots: Some(member.slots.clone()), epoch: member.epoch, nodes: own });
    }
    topology.shards.sort_by_key(|shard| shard.slots.as_ref().and_then(|slots| slots.iter().next()));
    Ok(topology)
}

/// The members as the seed sees them, and the current epoch.
async fn cluster_view(seed: &Address, options: &SourceOptions) -> Result<(Vec<Member>, u64)> {
    let mut client = connect(seed, options).await?;
    let unreadable = |why: String| Error::new(Class::SourceUnavailable, format!("{seed}: {why}")).retryable(false);
    let nodes: Result<String> = client.query("CLUSTER NODES", cmd("CLUSTER").arg("NODES")).await;
    let mut members = match nodes {
        Ok(text) => parse_nodes(&text).map_err(unreadable)?,
        Err(error) if error.class() == Class::SourceAuth => {
            let Ok(reply) = client.query::<Value>("CLUSTER SLOTS", cmd("CLUSTER").arg("SLOTS")).await else {
                return Err(error);
            };
            parse_slots(&reply, seed).map_err(unreadable)?
        }
        Err(error) => return Err(error),
    };
    if members.len() > CLUSTER_NODES_MAX {
        return Err(Error::new(Class::Refused, format!("{seed}: the cluster has more than {CLUSTER_NODES_MAX} nodes")));
    }
    // The address that worked is better than what the node believes of itself.
    for member in members.iter_mut().filter(|member| member.myself) {
        member.address = Some(seed.clone());
    }
    let info: Option<String> = client.query("CLUSTER INFO", cmd("CLUSTER").arg("INFO")).await.ok();
    let epoch = info.map_or(0, |text| Info::parse(&text).number("cluster_current_epoch"));
    let epoch = members.iter().map(|member| member.epoch).fold(epoch, u64::max);
    Ok((members, epoch))
}

fn cluster_node(member: &Member, answer: Option<Result<Seen>>) -> Node {
    let role = if member.primary { Role::Primary } else { Role::Replica };
    let address = member.address.clone().unwrap_or_else(|| Address::tcp("unknown", 0));
    let id = member.id.clone();
    match answer {
        Some(Ok(seen)) => Node::answered(id, address, &seen),
        Some(Err(error)) => Node::unseen(id, address, role, error.message().to_owned()),
        None if member.failed => Node::unseen(id, address, role, "the cluster marked it as failed".to_owned()),
        None => Node::unseen(id, address, role, "the cluster does not know its address".to_owned()),
    }
}

/// Compares how a primary sees the cluster with how the seed saw it: every node's slots, and its own id. Returns the
/// primary's slots on their way; the error is the difference.
fn check_view(members: &[Member], member: &Member, view: &str) -> Result<Vec<String>, String> {
    let seen = parse_nodes(view).map_err(|why| named(member, &why))?;
    let own = seen.iter().find(|it| it.myself).ok_or_else(|| named(member, "it does not know itself"))?;
    if own.id != member.id {
        return Err(named(member, &format!("the node at its address is {}", own.id)));
    }
    let none = SlotSet::empty();
    let slots = |view: &[Member], id: &str| {
        view.iter().find(|it| it.id == id).map_or_else(|| none.clone(), |it| it.slots.clone())
    };
    for Member { id, .. } in members.iter().chain(&seen) {
        let (ours, theirs) = (slots(members, id), slots(&seen, id));
        if ours != theirs {
            return Err(named(
                member,
                &format!("by its word {id} serves `{theirs}`, by that of another node `{ours}`"),
            ));
        }
    }
    Ok(own.moving.iter().map(|slot| format!("{}: {slot}", member.id)).collect())
}

fn named(member: &Member, how: &str) -> String {
    let address = member.address.as_ref().map_or_else(String::new, |address| format!(" ({address})"));
    format!("{}{address}: {how}", member.id)
}
