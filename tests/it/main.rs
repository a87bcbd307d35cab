//! Tests of backupd against real servers. `tests/run.sh` installs and starts what they need.
#![cfg(test)]

mod capture_faults;
mod care;
mod catalog;
mod check;
mod configured;
mod damage_matrix;
mod dying;
mod engines;
mod fixture;
mod format;
mod harness;
mod harness_checks;
mod keys;
mod memory;
mod readme;
mod redis_capture;
mod redis_choice;
mod redis_launch;
mod redis_nodes;
mod redis_sentinel;
mod redis_server;
mod redis_tls;
mod redis_topology;
mod refusals;
mod removal;
mod restore_engines;
mod restore_files;
mod restore_plan;
mod restore_verify;
mod snapshot_crash;
mod snapshot_damage;
mod snapshot_retake;
mod snapshot_roundtrip;
mod store_contract;
mod store_faults;
mod store_local;
mod store_s3;
mod tidy;

mod cost;
mod snapshot_copy;
mod snapshot_copy_faults;
mod store_probe;
