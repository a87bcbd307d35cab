//! Which node serves a shard, from what was seen of it and what failed before.

use std::collections::HashMap;

use policies::replica::{Choice, Wishes, choose};

use crate::error::{Class, Error, Result};
use crate::redis::{Node, Shard, Topology};

/// The node that serves one shard, and why.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) node: Node,
    pub(super) lag_bytes: u64,
    pub(super) choice: Choice,
}

/// Refuses a node that was asked for by name and that no shard has.
pub(super) fn check_named(topology: &Topology, wishes: &Wishes) -> Result<()> {
    let Some(name) = &wishes.node else { return Ok(()) };
    if topology.shards.iter().flat_map(|shard| &shard.nodes).any(|node| node.is_called(name)) {
        return Ok(());
    }
    let known = topology.shards.iter().flat_map(|shard| &shard.nodes).map(|node| node.id.as_str()).collect::<Vec<_>>();
    Err(Error::new(Class::NotFound, format!("the source has no node `{name}`"))
        .hint(format!("it has: {}", known.join(", "))))
}

/// Chooses the node of shard `index`; `failures` counts what failed before, by node id.
///
/// # Errors
/// `Refused` when a node could serve but may not, `SourceUnavailable` when none can. It is retryable when
/// something that stands in the way may pass.
pub(super) fn choose_node(
    index: usize,
    shard: &Shard,
    wishes: &Wishes,
    failures: &HashMap<String, u32>,
) -> Result<Chosen> {
    let mut candidates = shard.candidates();
    for candidate in &mut candidates {
        candidate.failures = failures.get(&candidate.id).copied().unwrap_or(0);
    }
    // a node that is not of this shard does not forbid the others their own choice
    let named = wishes.node.as_ref().and_then(|name| shard.nodes.iter().find(|node| node.is_called(name)));
    let wishes = Wishes { node: named.map(|node| node.id.clone()), ..wishes.clone() };
    let choice = choose(&candidates, &wishes);
    let found = choice.chosen.and_then(|chosen| Some((shard.nodes.get(chosen)?, candidates.get(chosen)?)));
    let Some((node, candidate)) = found else {
        let class = if choice.forbidden { Class::Refused } else { Class::SourceUnavailable };
        return Err(Error::new(class, format!("no node of shard {index} can serve a capture: {choice}"))
            .hint("mend a replica, or allow the primary: `--primary fallback`, or primary = \"fallback\" in the section of the cluster")
            .retryable(choice.may_pass));
    };
    Ok(Chosen { node: node.clone(), lag_bytes: candidate.lag_bytes, choice })
}
