//! Structures of answers, each written in the order of its service model. A member that is `None` is left out.

mod cluster;
mod event;
mod group;
mod slots;
mod snapshot;
mod tag;

pub use self::cluster::CacheCluster;
pub use self::event::Event;
pub use self::group::{Member, NodeGroup, ReplicationGroup};
pub use self::slots::NodeGroupConfiguration;
pub use self::snapshot::{NodeSnapshot, Snapshot};
pub use self::tag::Tag;

use chrono::{DateTime, SecondsFormat, Utc};

/// What clients that must have a node type are told: the machines are the operator's own.
pub const NODE_TYPE: &str = "cache.backupd.external";

/// A time as the Query API writes it.
#[must_use]
pub fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Endpoint {
    fn write(&self, name: &str, writer: &mut super::xml::Writer) {
        writer.element(name, |writer| {
            writer.text("Address", &self.host);
            writer.number("Port", self.port);
        });
    }
}
