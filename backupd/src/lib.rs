//! backupd: snapshots of Redis and Valkey that can be restored.

pub mod bkd;
pub mod canonical;
pub mod clock;
pub mod crypt;
pub mod error;
pub mod store;
