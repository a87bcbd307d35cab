//! Tests of backupd against real servers. `tests/run.sh` installs and starts what they need.
#![cfg(test)]

mod harness;
mod harness_checks;
