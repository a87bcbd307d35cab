//! The `backupd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    backupd::cli::main()
}
