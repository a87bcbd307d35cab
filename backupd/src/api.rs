//! What the daemon answers to programs.

pub mod sigv4;
