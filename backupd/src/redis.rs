//! What the rest of the program may ask of a Redis or Valkey server.
//!
//! Ordinary commands go through the `redis` crate over one connection per node, each with deadlines. The
//! replication stream is our own code, because its payload is not a reply of the protocol: it carries bare
//! newlines as keep-alive and has no closing CRLF.
//!
//! | module | holds |
//! |---|---|
//! | `source` | source URLs, credentials, deadlines |
//! | `address` | from announced addresses to those that can be reached |
//! | `client` | one connection for ordinary commands |
//! | `refusal` | error replies and what they mean for the user |
//! | `info` | the text of `INFO` |
//! | `cluster` | `CLUSTER NODES` and `CLUSTER SLOTS` |
//! | `migrations` | migrations of slots that leave no marker there |
//! | `node` | one node as it was seen |
//! | `sentinel` | the servers that a Sentinel watches |
//! | `probe` | what a node would refuse a capture |
//! | `topology` | which nodes and shards there are |
//! | `tls` | certificates, and what is wrong with them |
//! | `wire` | a raw connection: commands out, lines and bytes in |
//! | `replication` | a capture's connection, from the greeting to the last byte |
//! | `bgsave` | a save of a server to its own disk, and the proof of it |
//! | `end` | whether a payload is whole |

mod address;
mod bgsave;
mod client;
mod cluster;
mod end;
mod info;
mod migrations;
mod node;
mod probe;
mod refusal;
mod replication;
mod sentinel;
mod source;
mod tls;
mod topology;
mod wire;

pub use address::AddressMap;
pub use bgsave::{Save, Saved};
pub(crate) use client::Client;
pub(crate) use cluster::parse_nodes;
pub use end::{EndVerdict, check_end};
pub(crate) use info::Info;
pub use node::{Node, Role};
pub(crate) use node::{Seen, connect, load, observe};
pub use probe::{Capability, Probed, probe};
pub(crate) use refusal::refusal;
pub use replication::{Framing, MARK_LEN, Payload, Replication, Started};
pub use source::{Address, Credentials, SourceOptions, SourceUrl};
pub use tls::Tls;
pub use topology::{Mode, Shard, Topology, discover};
pub use wire::certificate_ends;
pub(crate) use wire::{Incoming, Outgoing, Said, Wire, put_command};
