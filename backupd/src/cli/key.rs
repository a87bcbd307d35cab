//! `backupd key …`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::output::{Output, table};
use crate::crypt::keyring::Keyring;
use crate::error::Result;

/// Master keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key file with one new key. Without it snapshots cannot be read: keep copies in safe places.
    Generate {
        /// The file to make; it must not exist.
        file: PathBuf,
    },
    /// List the keys of a key file.
    List {
        /// The key file.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

/// Runs a key command.
///
/// # Errors
/// `Refused` when the file to make exists, `Key` when the file to list cannot be used.
pub fn run(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Generate { file } => {
            let ring = Keyring::generate(&file)?;
            let document = json!({"file": file.display().to_string(), "key_id": ring.active_id()});
            output.result(&document, |_| {
                format!(
                    "made {} with key {}\nkeep a copy where the snapshots are not: without it they cannot be read",
                    file.display(),
                    ring.active_id()
                )
            })
        }
        Command::List { key_file } => {
            let ring = Keyring::read(&key_file)?;
            let keys = ring
                .keys()
                .iter()
                .map(|key| json!({"id": key.id, "created_at": key.created_at, "active": key.id == ring.active_id()}));
            let document = json!({"keys": keys.collect::<Vec<_>>()});
            output.result(&document, |_| {
                let row = |key: &crate::crypt::keyring::MasterKey| {
                    let active = if key.id == ring.active_id() { "active" } else { "" };
                    vec![key.id.clone(), key.created_at.clone(), active.to_owned()]
                };
                table(&["key", "created", ""], ring.keys().iter().map(row))
            })
        }
    }
}
