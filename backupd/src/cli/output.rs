//! The only file that prints.

use std::io::{ErrorKind, Write as _};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::Format;
use crate::error::{Class, Error, Result};

/// Where results go, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Output of this form.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a result: the document as JSON, or what `people` makes of it. A reader that has seen enough and closed
    /// its pipe is no error.
    ///
    /// # Errors
    /// `Unforeseen` when standard output cannot be written; what was done stays done.
    pub fn result<T: Serialize>(self, document: &T, people: impl FnOnce(&T) -> String) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::new(Class::Unforeseen, format!("it is done, but the result cannot be printed: {error}"))
        };
        let text = match self.format {
            Format::Table => people(document),
            Format::Json => serde_json::to_string_pretty(document).map_err(|error| failed(error.into()))?,
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Prints an error on standard error.
    pub fn error(self, error: &Error) {
        match self.format {
            Format::Table => say(&format!("error: {error}")),
            Format::Json => say(&error.to_json().to_string()),
        }
    }

    /// Prints what clap has to say: help, version or a usage error.
    pub fn clap(self, error: &clap::Error) {
        if let Err(failed) = error.print() {
            say(&format!("error: {failed}"));
        }
    }

    /// Prints a line of progress on standard error.
    pub fn progress(self, line: &str) {
        say(line);
    }

    /// Prints progress on standard error: for people what `people` makes of it, else one line of JSON with the document
    /// under `name`.
    pub fn progress_of<T: Serialize>(self, name: &str, document: &T, people: impl FnOnce(&T) -> String) {
        match self.format {
            Format::Table => say(&people(document)),
            Format::Json => say(&serde_json::json!({ name: document }).to_string()),
        }
    }

    /// Whether results are JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Ends the process as an interrupted one ends.
    // the user interrupted twice and wants the process gone, cleaned up or not
    pub fn exit_now() {
        std::process::exit(130);
    }
}

/// A line on standard error. Where nobody can be told, the exit code still tells.
fn say(line: &str) {
    let _nobody_to_tell = writeln!(std::io::stderr(), "{line}");
}

/// A table without lines: a header row and rows.
#[must_use]
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.iter().map(|text| text.to_uppercase()));
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Bytes for people: `1.2 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
