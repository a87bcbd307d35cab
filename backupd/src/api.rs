//! What the daemon answers to programs.

pub mod query;
pub mod sigv4;
