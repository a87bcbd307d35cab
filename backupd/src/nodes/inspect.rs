//! What the nodes of `--nodes` are, and whether they are empty.

use policies::engine::Engine;
use policies::slot::SlotSet;

use super::mark::{self, Mark};
use super::{Form, Method, Target, Unfinished};
use crate::error::{Class, Error, Result};
use crate::redis::{Mode, Node, Role, Seen, SourceOptions, connect, discover, observe, parse_nodes};

pub(super) async fn inspect(options: &SourceOptions, restore: String, unfinished: Unfinished) -> Result<Target> {
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
    let mut target = match (cluster, unjoined.len(), options.seeds.len()) {
        (_, _, 0) => return Err(Error::new(Class::Usage, "no node was given").hint("give --nodes host:port,…")),
        (0, _, 1) => standalone(options).await?,
        (0, ..) => {
            let message = "several servers without cluster mode cannot share the data";
            return Err(Error::new(Class::Refused, message).hint("give one of them, or nodes in cluster mode"));
        }
        (cluster, unjoined_count, all) if cluster == all && unjoined_count == all => {
            of(Form::Unjoined, unjoined, None)?
        }
        (cluster, 0, all) if cluster == all => formed(options).await?,
        _ => {
            return Err(Error::new(Class::Refused, "some of the nodes belong to a cluster and others do not")
                .hint("give nodes of one cluster, or only nodes that know nobody yet"));
        }
    };
    (target.restore, target.unfinished) = (restore, unfinished);
    look_for_marks(&mut target, options).await?;
    check_empty(&target)?;
    Ok(target)
}

/// Whether a node can be taken by a restore, and then whether it is in cluster mode; the inner error is why it cannot.
pub(super) async fn look(options: &SourceOptions) -> Result<Result<bool, String>> {
    let Some(seed) = options.seeds.first() else { return Ok(Err("is not named".to_owned())) };
    let seen = observe(&seed.address, options).await?;
    let node = Node::seen(seed.address.to_string(), seed.address.clone(), &seen.info, None);
    let is_cluster = seen.info.is_cluster();
    Ok(match (node.keys, node.role, is_cluster && !knows_nobody(&seen)) {
        (0, Role::Primary, false) => Ok(is_cluster),
        (0, Role::Primary, true) => Err("belongs to a cluster".to_owned()),
        (0, Role::Replica, _) => Err("is a replica".to_owned()),
        (keys, ..) => Err(format!("holds {keys} keys")),
    })
}

fn of(form: Form, nodes: Vec<Node>, slots: Option<Vec<SlotSet>>) -> Result<Target> {
    let (engines, marks) = (engines(&nodes)?, vec![None; nodes.len()]);
    Ok(Target {
        form,
        nodes,
        slots,
        engines,
        marks,
        restore: String::new(),
        unfinished: Unfinished::Refuse,
        method: Method::Auto,
        shift_ms: None,
    })
}

/// Reads what an earlier restore left on nodes that are not empty.
async fn look_for_marks(target: &mut Target, options: &SourceOptions) -> Result<()> {
    for (index, (node, found)) in target.nodes.iter().zip(&mut target.marks).enumerate() {
        if holds_something(node) {
            let slots = target.slots.as_ref().and_then(|slots| slots.get(index));
            let mut client = connect(&node.address, options).await?;
            *found = mark::read(&mut client, &mark::key(slots)).await?;
        }
    }
    Ok(())
}

/// A node in cluster mode that was never joined: it knows itself alone, and has no slots.
fn knows_nobody(seen: &Seen) -> bool {
    let members = seen.own_view.as_deref().and_then(|view| parse_nodes(view).ok());
    members.is_some_and(|members| members.len() == 1 && members.iter().all(|member| member.slots.is_empty()))
}

async fn standalone(options: &SourceOptions) -> Result<Target> {
    if let Some(target) = left_following(options).await? {
        return Ok(target);
    }
    let topology = discover(options).await?;
    let given = options.seeds.first().map(|seed| &seed.address);
    let nodes: Vec<Node> =
        topology.shards.into_iter().flat_map(|shard| shard.nodes).filter(|node| Some(&node.address) == given).collect();
    if let Some(node) = nodes.iter().find(|node| node.role == Role::Replica) {
        return Err(Error::new(Class::Refused, format!("{} is a replica, which takes no writes", node.address))
            .hint("give its primary"));
    }
    of(Form::Standalone, nodes, None)
}

/// A server that a restore left as a replica of ours, which is no more: it bears the mark.
async fn left_following(options: &SourceOptions) -> Result<Option<Target>> {
    let Some(seed) = options.seeds.first() else { return Ok(None) };
    let seen = observe(&seed.address, options).await?;
    if !seen.info.is_replica() || seen.info.text("master_link_status") == "up" {
        return Ok(None);
    }
    let mut client = connect(&seed.address, options).await?;
    let is_marked = mark::read(&mut client, &mark::key(None)).await?.is_some();
    let node = Node::seen(seed.address.to_string(), seed.address.clone(), &seen.info, None);
    if is_marked { of(Form::Standalone, vec![node], None).map(Some) } else { Ok(None) }
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
    of(Form::Formed, nodes, Some(slots))
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

/// Functions count: a synchronisation and a `FLUSH` remove them as they remove keys.
fn holds_something(node: &Node) -> bool {
    node.keys > 0 || node.libraries > 0
}

fn check_empty(target: &Target) -> Result<()> {
    let full = |(node, mark): &(&Node, &Option<Mark>)| holds_something(node) && mark.is_none();
    let each = || target.nodes.iter().zip(&target.marks);
    match (each().find(full), each().find(|(_, mark)| mark.is_some())) {
        (None, Some((node, _))) if target.unfinished == Unfinished::Refuse => {
            let message = format!("{} holds a part of a restore that did not end", node.address);
            Err(Error::new(Class::Refused, message).hint(
                "run the same restore with --resume to go on, or with --replace to empty the nodes and start over",
            ))
        }
        (None, _) => Ok(()),
        (Some((node, _)), _) => {
            let functions = match node.libraries {
                0 => String::new(),
                count => format!(" and {count} libraries of functions"),
            };
            let message = format!("{} is not empty: it holds {} keys{functions}", node.address, node.keys);
            Err(Error::new(Class::Refused, message).hint("a restore never mixes with what is there: give empty nodes"))
        }
    }
}
