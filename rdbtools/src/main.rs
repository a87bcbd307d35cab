//! The command `rdbtools`: checks, inspects, splits and converts RDB files.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
