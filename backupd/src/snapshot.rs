//! Snapshots: made, opened, verified.

pub mod capture;
mod choice;
pub mod create;
pub mod rebuild;
pub mod record;
mod settle;
mod shards;
pub mod verify;
