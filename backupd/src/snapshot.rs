//! Snapshots: made, opened, verified; and whether one could be made.

pub mod attempt;
pub mod boot;
pub mod capture;
pub mod care;
pub mod check;
mod choice;
pub mod copy;
pub mod create;
pub mod follow;
pub mod grants;
pub mod lend;
pub mod method;
mod present;
pub mod rebuild;
pub mod record;
mod settle;
mod shards;
mod turns;
pub mod verify;
