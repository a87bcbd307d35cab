//! `NodeGroupConfiguration`.

use crate::api::query::xml::Writer;

/// A shard: which it is, and which slots it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeGroupConfiguration {
    /// `0001` and so on.
    pub id: String,
    /// Ranges, as in `0-5460,10923`; none without cluster mode.
    pub slots: Option<String>,
    /// How many replicas it has, where that is known.
    pub replicas: Option<u32>,
}

impl NodeGroupConfiguration {
    /// The id of the shard of an index from 0 on.
    #[must_use]
    pub fn id_of(index: usize) -> String {
        format!("{:04}", index + 1)
    }

    /// Writes its members.
    pub fn write(&self, writer: &mut Writer) {
        writer.text("NodeGroupId", &self.id);
        writer.some("Slots", self.slots.as_deref());
        if let Some(replicas) = self.replicas {
            writer.number("ReplicaCount", replicas);
        }
        writer.list("ReplicaAvailabilityZones", "AvailabilityZone", &[] as &[&str], |_, _| {});
    }
}
