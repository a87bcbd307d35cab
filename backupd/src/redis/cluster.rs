//! What a cluster node tells about the cluster: `CLUSTER NODES`, or `CLUSTER SLOTS` where the first is denied.

use ::redis::{FromRedisValue, Value};
use policies::nodes::Node;
use policies::slot::SlotSet;

use super::source::Address;

/// One node as one node of its cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// 40 hexadecimal digits.
    pub(crate) id: String,
    /// Where clients reach it; `None` when the cluster does not know.
    pub(crate) address: Option<Address>,
    /// It is the node that was asked.
    pub(crate) myself: bool,
    /// It is a primary.
    pub(crate) primary: bool,
    /// The cluster agreed that it failed.
    pub(crate) failed: bool,
    /// The primary that it follows.
    pub(crate) follows: Option<String>,
    /// Its configuration epoch.
    pub(crate) epoch: u64,
    /// The slots that it serves.
    pub(crate) slots: SlotSet,
    /// Slots on their way, as the server writes them: `[93->-id]`, `[93-<-id]`. Only known of `myself`.
    pub(crate) moving: Vec<String>,
}

/// Reads the reply of `CLUSTER NODES`. Lines that are not a node's are an error, so that a shard can never be
/// overlooked; nodes still shaking hands are left out. The format is that of the server's
/// `clusterGenNodeDescription`: id, `ip:port@cport[,hostname]`, flags, primary's id or `-`, ping, pong, epoch,
/// link state, slots.
pub(crate) fn parse_nodes(text: &str) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let member = parse_line(line).ok_or_else(|| {
            format!("CLUSTER NODES has a line that is not a node's: `{}`", line.chars().take(120).collect::<String>())
        })?;
        members.extend(member);
    }
    Ok(members)
}

/// `None`: malformed; `Some(None)`: a node that does not count.
fn parse_line(line: &str) -> Option<Option<Member>> {
    let node = Node::parse(line)?;
    if node.has("handshake") {
        return Some(None);
    }
    Some(Some(Member {
        id: node.id.to_owned(),
        address: if node.has("noaddr") { None } else { parse_address(node.address) },
        myself: node.has("myself"),
        primary: node.has("master"),
        failed: node.has("fail"),
        follows: node.follows.map(str::to_owned),
        epoch: node.epoch,
        slots: node.slots,
        moving: node.moving.into_iter().map(str::to_owned).collect(),
    }))
}

/// `ip:port@cport[,hostname[,…]]`, or `ip:port` before 4.0. The host name serves where the IP is unknown.
fn parse_address(text: &str) -> Option<Address> {
    let mut parts = text.split(',');
    let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let host = if ip.is_empty() { parts.next().unwrap_or("") } else { ip };
    let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
    (!host.is_empty()).then(|| Address::tcp(host, port))
}

/// Reads the reply of `CLUSTER SLOTS`: per range `[first, last, [host, port, id, …] primary, … replicas]`.
/// An unknown host means the node that was asked, `asked`. Epochs and slots on their way are not in it.
pub(super) fn parse_slots(reply: &Value, asked: &Address) -> Result<Vec<Member>, String> {
    let bad = || "CLUSTER SLOTS has a reply of an unknown shape".to_owned();
    let Value::Array(ranges) = reply else { return Err(bad()) };
    let mut members: Vec<Member> = Vec::new();
    for range in ranges {
        let Value::Array(parts) = range else { return Err(bad()) };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else { return Err(bad()) };
        let (first, last) = (u16::try_from(*first).map_err(|_| bad())?, u16::try_from(*last).map_err(|_| bad())?);
        let slots = SlotSet::range(first, last).map_err(|error| error.to_string())?;
        let mut primary: Option<String> = None;
        for node in nodes {
            let mut member = slots_member(node, asked).ok_or_else(bad)?;
            member.follows = primary.clone();
            member.primary = primary.is_none();
            primary.get_or_insert_with(|| member.id.clone());
            match members.iter_mut().find(|known| known.id == member.id) {
                Some(known) if member.primary => known.slots = known.slots.union(&slots),
                Some(_) => {}
                None if member.primary => members.push(Member { slots: slots.clone(), ..member }),
                None => members.push(member),
            }
        }
    }
    Ok(members)
}

fn slots_member(node: &Value, asked: &Address) -> Option<Member> {
    let Value::Array(fields) = node else { return None };
    let [host, Value::Int(port), id, ..] = fields.as_slice() else { return None };
    let host = Option::<String>::from_redis_value(host.clone()).ok()?.filter(|host| !host.is_empty() && host != "?");
    let host = host.unwrap_or_else(|| asked.host().to_owned());
    let port = u16::try_from(*port).ok().filter(|&port| port > 0)?;
    Some(Member {
        id: String::from_redis_value(id.clone()).ok()?,
        address: Some(Address::tcp(host, port)),
        myself: false,
        primary: false,
        failed: false,
        follows: None,
        epoch: 0,
        slots: SlotSet::empty(),
        moving: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_kind_is_read() {
        let text = "\
07c3 127.0.0.1:30004@31004 slave e7d1 0 1426238317239 4 connected\n\
67ed ::1:30002@31002,host-2 master - 0 1426238316232 2 connected 5461-10922 [93-<-e7d1]\n\
292f :30003@31003,host-3 myself,master - 0 1426238318243 3 connected 10923-16382 16383 [77->-67ed]\n\
aaaa :0@0 master,fail,noaddr - 0 1426238318243 3 disconnected\n\
bbbb 10.0.0.1:1@2 handshake - 0 0 0 disconnected\n";
        let members = parse_nodes(text).unwrap();
        let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        assert_eq!(ids, ["07c3", "67ed", "292f", "aaaa"]);
        assert_eq!(members[0].follows.as_deref(), Some("e7d1"));
        assert_eq!(members[1].address, Some(Address::tcp("::1", 30002)));
        assert_eq!(members[2].address, Some(Address::tcp("host-3", 30003)));
        assert_eq!(members[2].slots.to_string(), "10923-16383");
        assert_eq!(members[2].moving, ["[77->-67ed]"]);
        assert!(members[2].myself && members[2].primary && !members[2].failed);
        assert!(members[3].failed && members[3].address.is_none());
    }

    #[test]
    fn a_malformed_line_is_an_error_not_a_missing_shard() {
        for line in ["67ed 127.0.0.1:1@2 master", "a 127.0.0.1:1@2 master - 0 0 1 connected 5-99999", "x"] {
            assert!(parse_nodes(line).is_err(), "{line}");
        }
    }

    #[test]
    fn cluster_slots_joins_the_ranges_of_a_primary() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: &str, port, id: &str| Value::Array(vec![text(host), Value::Int(port), text(id)]);
        let range = |first, last| {
            Value::Array(vec![Value::Int(first), Value::Int(last), node("", 1, "p"), node("10.0.0.2", 2, "r")])
        };
        let reply = Value::Array(vec![range(0, 99), range(200, 299)]);
        let members = parse_slots(&reply, &Address::tcp("10.0.0.1", 9)).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].slots.to_string(), "0-99,200-299");
        assert_eq!(members[0].address, Some(Address::tcp("10.0.0.1", 1)));
        assert_eq!((members[1].primary, members[1].follows.as_deref()), (false, Some("p")));
    }
}
