//! What a cluster node writes about nodes: the reply of `CLUSTER NODES`, and the file `nodes.conf`.
//!
//! A line is a node: id, `ip:port@cport[,hostname]`, flags, the primary's id or `-`, ping, pong, epoch, link
//! state, slots (`clusterGenNodeDescription` in the server's `cluster_legacy.c`). The file ends with one more
//! line that begins with `vars`.

use crate::slot::{SLOT_COUNT, SlotSet};

/// How much of a line that is not understood is shown.
const SHOWN_MAX: usize = 120;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// 40 hexadecimal digits.
    pub id: &'a str,
    /// Where it is reached, as it is written.
    pub address: &'a str,
    /// Flags, separated by commas.
    pub flags: &'a str,
    /// The id of the primary that it follows.
    pub follows: Option<&'a str>,
    /// Its configuration epoch.
    pub epoch: u64,
    /// The slots that it serves.
    pub slots: SlotSet,
    /// Slots on their way, as they are written: `[93->-id]`, `[93-<-id]`.
    pub moving: Vec<&'a str>,
}

impl<'a> Node<'a> {
    /// Reads a line; `None` where it is not a node's.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
        let follows = words.next()?;
        let (_ping, _pong, epoch, _link) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (moving, slots): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('['));
        Some(Self {
            id,
            address,
            flags,
            follows: Some(follows).filter(|id| *id != "-"),
            epoch: epoch.parse().ok()?,
            slots: slots.into_iter().map(range).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect(),
            moving,
        })
    }

    /// Whether it has this flag, as `master`, `fail`, `noaddr`, `handshake`.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|each| each == flag)
    }
}

/// The slots of `5-99` or `5`.
fn range(word: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOT_COUNT).then_some(first..=last)
}

/// A text that is not what a cluster node writes about nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodesError {
    /// A line that is not a node's.
    #[error("line {number} is not a node's: `{line}`")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// Its first characters.
        line: String,
    },
    /// No node in it serves a slot.
    #[error("no primary with slots is in it")]
    NoSlots,
}

/// The slots of each primary that serves any, in the order of their first slots. A line that is not understood
/// is an error, so that no shard is overlooked.
///
/// # Errors
/// When a line is not a node's, or no primary has slots.
pub fn slots_of_primaries(text: &str) -> Result<Vec<SlotSet>, NodesError> {
    let mut primaries = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with("vars ") {
            continue;
        }
        let bad = || NodesError::Line { number, line: line.chars().take(SHOWN_MAX).collect() };
        let node = Node::parse(line).ok_or_else(bad)?;
        if node.has("master") && !node.slots.is_empty() {
            primaries.push(node.slots);
        }
    }
    primaries.sort_by_key(|slots| slots.iter().next());
    if primaries.is_empty() { Err(NodesError::NoSlots) } else { Ok(primaries) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_server_gives_the_slots_of_its_primaries() {
        let text = "\
67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922\n\
07c3 127.0.0.1:30004@31004 slave e7d1 0 1426238317239 4 connected\n\
292f 127.0.0.1:30003@31003,,tls-port=0,shard-id=2f master - 0 1426238318243 3 connected 10923-16382 16383 [77->-67ed]\n\
e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460 [93-<-67ed]\n\
aaaa :0@0 master,noaddr - 0 0 0 disconnected\n\
vars currentEpoch 6 lastVoteEpoch 0\n";
        let slots = slots_of_primaries(text).unwrap();
        let text: Vec<String> = slots.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["0-5460", "5461-10922", "10923-16383"]);
    }

    #[test]
    fn what_is_not_a_node_is_named() {
        let cut = "67ed 127.0.0.1:1@2 master";
        for text in [cut, "a b master - 0 0 1 connected 5-99999", "RDB"] {
            assert!(matches!(slots_of_primaries(text), Err(NodesError::Line { number: 1, .. })), "{text}");
        }
        assert_eq!(slots_of_primaries("a b slave c 0 0 1 connected\n"), Err(NodesError::NoSlots));
    }
}
