//! `nodes.conf`: what a node of a cluster knows when it starts.

use policies::slot::SlotSet;

use crate::crypt;
use crate::error::Result;

/// One node of a cluster that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedNode {
    /// 40 hexadecimal digits.
    pub id: String,
    /// IP address.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Port for the other nodes.
    pub bus_port: u16,
    /// The id of the primary that it follows; `None`: it is a primary.
    pub follows: Option<String>,
    /// The slots that it serves; none for a replica.
    pub slots: SlotSet,
    /// Its configuration epoch: distinct among primaries, and a replica has that of its primary.
    pub epoch: u64,
}

/// The `nodes.conf` of the node at index `myself`, which knows all `nodes` from the start, so that nobody has
/// to be introduced and no slot has to be assigned.
///
/// The format is that of the server's `clusterSaveConfig`, without the fields that newer servers add by
/// themselves: id, `ip:port@bus`, flags, primary's id or `-`, ping, pong, epoch, link, slots.
#[must_use]
pub fn nodes_conf(nodes: &[PlannedNode], myself: usize) -> String {
    let mut lines: Vec<String> = nodes.iter().enumerate().map(|(index, node)| line(node, index == myself)).collect();
    let epoch = nodes.iter().map(|node| node.epoch).max().unwrap_or(0);
    lines.push(format!("vars currentEpoch {epoch} lastVoteEpoch 0\n"));
    lines.concat()
}

fn line(node: &PlannedNode, myself: bool) -> String {
    let PlannedNode { id, host, port, bus_port, follows, slots, epoch } = node;
    let me = if myself { "myself," } else { "" };
    let role = if follows.is_some() { "slave" } else { "master" };
    let follows = follows.as_deref().unwrap_or("-");
    let slots: String = slots
        .ranges()
        .map(|(first, last)| if first == last { format!(" {first}") } else { format!(" {first}-{last}") })
        .collect();
    format!("{id} {host}:{port}@{bus_port} {me}{role} {follows} 0 0 {epoch} connected{slots}\n")
}

/// A new node id: 40 random hexadecimal digits.
///
/// # Errors
/// `Unforeseen` when the system gives no random bytes.
pub fn new_node_id() -> Result<String> {
    Ok(hex::encode(crypt::random::<20>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_listed_with_its_slots_and_only_one_is_myself() {
        let primary = PlannedNode {
            id: "a".repeat(40),
            host: "127.0.0.1".into(),
            port: 7000,
            bus_port: 17000,
            follows: None,
            slots: "0-100,200,300-16383".parse().unwrap(),
            epoch: 1,
        };
        let replica = PlannedNode {
            id: "b".repeat(40),
            port: 7001,
            bus_port: 17001,
            follows: Some(primary.id.clone()),
            slots: SlotSet::empty(),
            ..primary.clone()
        };
        let expected = "\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 127.0.0.1:7000@17000 master - 0 0 1 connected 0-100 200 300-16383\n\
bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 127.0.0.1:7001@17001 myself,slave aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0 0 1 connected\n\
vars currentEpoch 1 lastVoteEpoch 0\n";
        assert_eq!(nodes_conf(&[primary, replica], 1), expected);
        let id = new_node_id().unwrap();
        assert!(id.len() == 40 && id != new_node_id().unwrap());
    }
}
