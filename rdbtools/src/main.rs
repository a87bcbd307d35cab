//! The command `rdbtools`: checks, inspects and splits RDB files.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
