//! Real servers, a keyspace of every type, and a comparison of two keyspaces by content.
//!
//! | module | gives |
//! |---|---|
//! | [`process`] | children that never outlive this process |
//! | [`server`] | one Redis or Valkey server on a free port |
//! | [`cluster`] | a cluster of them, primaries with replicas |
//! | [`nodes`] | where the keys of a server or a cluster are, and connections to there |
//! | [`keyspace`] | a seeded data set, and a writer that keeps changing known keys |
//! | [`compare`] | what differs between two keyspaces |
//! | [`faults`] | a proxy in front of the S3 server that does wrong what a script says |
//! | [`garage`] | a second S3 server, which is another program |
//! | [`kms`] | a KMS in two regions, and a proxy in front of it that refuses what a script says |
//! | [`mount`] | file systems of their own, as root |
//! | [`postgres`] | a PostgreSQL server |
//! | [`proxy`] | a proxy in front of a server that cuts connections or slows them down |
//! | [`journal`] | writers that log what was acknowledged, and the bounds of what a snapshot may hold of it |
//! | [`s3`] | a fresh bucket on the S3 server of the tests |
//! | [`cli`] | the `backupd` program, run as a user runs it |
//!
//! Everything panics with what to do when something is missing: a test without its server has failed.
#![allow(dead_code, reason = "the tests and the demo each use their part of this")]

// Spelled out because the demo includes this file from another folder, where `mod server;` would look beside it.
#[path = "harness/cli.rs"]
pub(crate) mod cli;
#[path = "harness/cluster.rs"]
pub(crate) mod cluster;
#[path = "harness/compare.rs"]
pub(crate) mod compare;
#[path = "harness/content.rs"]
pub(crate) mod content;
#[path = "harness/faults.rs"]
pub(crate) mod faults;
#[path = "harness/garage.rs"]
pub(crate) mod garage;
#[path = "harness/journal.rs"]
pub(crate) mod journal;
#[path = "harness/keyspace.rs"]
pub(crate) mod keyspace;
#[path = "harness/kms.rs"]
pub(crate) mod kms;
#[path = "harness/mount.rs"]
pub(crate) mod mount;
#[path = "harness/nodes.rs"]
pub(crate) mod nodes;
#[path = "harness/postgres.rs"]
pub(crate) mod postgres;
#[path = "harness/process.rs"]
pub(crate) mod process;
#[path = "harness/proxy.rs"]
pub(crate) mod proxy;
#[path = "harness/s3.rs"]
pub(crate) mod s3;
#[path = "harness/server.rs"]
pub(crate) mod server;
#[path = "harness/writer.rs"]
pub(crate) mod writer;
