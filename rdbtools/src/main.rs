//! rdbtools.
fn main() {}
