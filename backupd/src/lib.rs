//! backupd: snapshots of Redis and Valkey that can be restored.

pub mod api;
pub mod aws;
pub mod bkd;
pub mod canonical;
pub mod catalog;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypt;
pub mod digest;
pub mod error;
pub mod hooks;
pub mod host;
pub mod http;
pub mod jobs;
pub mod launch;
pub mod live;
pub mod manifest;
pub mod nodes;
pub mod pipeline;
pub mod progress;
pub mod quantity;
pub mod redis;
pub mod repository;
pub mod restore;
pub mod scheduler;
pub mod secret;
pub mod serve;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod traffic;

/// The error for a task of ours that panicked or was cancelled.
pub(crate) fn task_failed(error: tokio::task::JoinError) -> error::Error {
    error::Error::new(error::Class::Unforeseen, format!("a task of this program failed: {error}"))
}
