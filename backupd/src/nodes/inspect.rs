//! What the nodes of `--nodes` are, and whether they are empty.

use policies::engine::Engine;

use super::{Form, Target};
use crate::error::{Class, Error, Result};
use crate::redis::{Mode, Node, Role, Seen, SourceOptions, discover, observe, parse_nodes};

pub(super) async fn inspect(options: &SourceOptions) -> Result<Target> {
    let mut unjoined: Vec<Node> = Vec::new();
    let mut cluster = 0;
    for seed in &options.seeds {
        let seen = observe(&seed.address, options).await?;
        if seen.info.is_cluster() {
            cluster += 1;
            if knows_nobody(&seen) {
                unjoined.push(Node::seen(seed.address.to_string(), seed.address.clone(), &seen.info, None));
            }
        }
    }
    let target = match (cluster, unjoined.len(), options.seeds.len()) {
        (_, _, 0) => return Err(Error::new(Class::Usage, "no node was given").hint("give --nodes host:port,…")),
        (0, _, 1) => standalone(options).await?,
        (0, ..) => {
            let message = "several servers without cluster mode cannot share the data";
            return Err(Error::new(Class::Refused, message).hint("give one of them, or nodes in cluster mode"));
        }
        (cluster, unjoined_count, all) if cluster == all && unjoined_count == all => {
            Target { form: Form::Unjoined, engines: engines(&unjoined)?, nodes: unjoined, slots: None }
        }
        (cluster, 0, all) if cluster == all => formed(options).await?,
        _ => {
            return Err(Error::new(Class::Refused, "some of the nodes belong to a cluster and others do not")
                .hint("give nodes of one cluster, or only nodes that know nobody yet"));
        }
    };
    check_empty(&target)?;
    Ok(target)
}

/// A node in cluster mode that was never joined: it knows itself alone, and has no slots.
fn knows_nobody(seen: &Seen) -> bool {
    let members = seen.own_view.as_deref().and_then(|view| parse_nodes(view).ok());
    members.is_some_and(|members| members.len() == 1 && members.iter().all(|member| member.slots.is_empty()))
}

async fn standalone(options: &SourceOptions) -> Result<Target> {
    let topology = discover(options).await?;
    let given = options.seeds.first().map(|seed| &seed.address);
    let nodes: Vec<Node> =
        topology.shards.into_iter().flat_map(|shard| shard.nodes).filter(|node| Some(&node.address) == given).collect();
    if let Some(node) = nodes.iter().find(|node| node.role == Role::Replica) {
        return Err(Error::new(Class::Refused, format!("{} is a replica, which takes no writes", node.address))
            .hint("give its primary"));
    }
    Ok(Target { form: Form::Standalone, engines: engines(&nodes)?, nodes, slots: None })
}

async fn formed(options: &SourceOptions) -> Result<Target> {
    let topology = discover(options).await?;
    if topology.mode != Mode::Cluster {
        return Err(Error::new(Class::Refused, "the nodes changed while they were looked at"));
    }
    if let Some(what) = topology.unsettled() {
        return Err(Error::new(Class::Refused, format!("the target is not settled: {what}")));
    }
    let mut nodes = Vec::new();
    let mut slots = Vec::new();
    for shard in topology.shards {
        let primary = shard.nodes.into_iter().find(|node| node.role == Role::Primary);
        let primary = primary.ok_or_else(|| Error::new(Class::Refused, "a shard of the target has no primary"))?;
        if let Some(why) = &primary.unreachable {
            return Err(Error::new(Class::SourceUnavailable, why.clone()));
        }
        nodes.push(primary);
        slots.push(shard.slots.unwrap_or_default());
    }
    Ok(Target { form: Form::Formed, engines: engines(&nodes)?, nodes, slots: Some(slots) })
}

fn engines(nodes: &[Node]) -> Result<Vec<Engine>> {
    let engine = |node: &Node| {
        Engine::new(&node.engine, &node.version).ok_or_else(|| {
            let message = format!("{}: its version `{}` is not one that we can read", node.address, node.version);
            Error::new(Class::Version, message)
        })
    };
    nodes.iter().map(engine).collect()
}

fn check_empty(target: &Target) -> Result<()> {
    match target.nodes.iter().find(|node| node.keys > 0) {
        None => Ok(()),
        Some(node) => {
            Err(Error::new(Class::Refused, format!("{} is not empty: it holds {} keys", node.address, node.keys))
                .hint("a restore never mixes with what is there: give empty nodes"))
        }
    }
}
