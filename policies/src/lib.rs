//! Pure decisions of backupd.
//!
//! Nothing here reads a clock, a file, a socket or a random number: every decision is a function of data
//! (and of `now` where time matters) that returns an outcome with its reasons. The shells around this crate
//! only carry out what was decided, so that "why" can always be answered afterwards.
//!
//! | module | decides |
//! |---|---|
//! | [`slot`] | which of the 16384 slots a key belongs to; sets of slots and their text form |
//! | [`nodes`] | which nodes and slots a cluster node writes of |
//! | [`shards`] | which slots each target shard gets, and whether a set of shards covers every slot once |
//! | [`names`] | which names of snapshots and clusters are acceptable |
//! | [`replica`] | which node of a shard serves a capture, with a reason for every candidate |
//! | [`access`] | who may do what through the API: roles, scopes, actions |
//! | [`budget`] | when a capture costs its server too much |
//! | [`certificates`] | when somebody should be told that a certificate ends |
//! | [`waves`] | which shards are captured together |
//! | [`claim`] | who owns the name of a snapshot when several claims were made |
//! | [`copies`] | which snapshots of a cluster its policy copies into another repository |
//! | [`copying`] | what becomes of the seal of a snapshot that is copied, and the parts of a large object |
//! | [`cost`] | what the storage of snapshots costs a month |
//! | [`garbage`] | what in a repository nobody needs any more, and what only looks so |
//! | [`job`] | which state of a job follows which, and what becomes of one whose worker is gone |
//! | [`grants`] | the bucket policy that lets others read one snapshot, and nothing else |
//! | [`engine`] | which RDB formats an engine can load |
//! | [`window`] | when an automated backup may start, and what to do about a window now |
//! | [`restore`] | what each source shard gives to each target shard, and whether there is room for it |
//! | [`retention`] | which snapshots are kept and which go, with reasons |
//! | [`depth`] | how many bytes of commands a server may have before it |
//! | [`duration`] | lengths of time as people write them |

pub mod access;
pub mod budget;
pub mod certificates;
pub mod claim;
pub mod clocks;
pub mod copies;
pub mod copying;
pub mod cost;
pub mod depth;
pub mod duration;
pub mod engine;
pub mod garbage;
pub mod grants;
pub mod job;
pub mod names;
pub mod nodes;
pub mod replica;
pub mod restore;
pub mod retention;
pub mod shards;
pub mod share;
pub mod slot;
pub mod waves;
pub mod window;
#[cfg(test)]
mod years;
