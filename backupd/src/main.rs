//! backupd.
fn main() {}
