//! Snapshots: made, opened, verified.

pub mod capture;
pub mod create;
pub mod record;
pub mod verify;
