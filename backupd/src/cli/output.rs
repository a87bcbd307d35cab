//! The only file that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the place that may")]

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

    /// Prints a result: the document as JSON, or what `people` makes of it.
    ///
    /// # Errors
    /// Only when the document cannot be written as JSON.
    pub fn result<T: Serialize>(self, document: &T, people: impl FnOnce(&T) -> String) -> Result<()> {
        match self.format {
            Format::Table => println!("{}", people(document)),
            Format::Json => {
                let text = serde_json::to_string_pretty(document)
                    .map_err(|error| Error::new(Class::Unforeseen, format!("the result cannot be printed: {error}")))?;
                println!("{text}");
            }
        }
        Ok(())
    }

    /// Prints an error on standard error.
    pub fn error(self, error: &Error) {
        match self.format {
            Format::Table => eprintln!("error: {error}"),
            Format::Json => eprintln!("{}", error.to_json()),
        }
    }

    /// Prints what clap has to say: help, version or a usage error.
    pub fn clap(self, error: &clap::Error) {
        if let Err(failed) = error.print() {
            eprintln!("error: {failed}");
        }
    }

    /// Prints a line of progress on standard error.
    pub fn progress(self, line: &str) {
        eprintln!("{line}");
    }

    /// Ends the process as an interrupted one ends.
    // the user interrupted twice and wants the process gone, cleaned up or not
    pub fn exit_now() {
        std::process::exit(130);
    }
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
