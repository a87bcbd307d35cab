//! Everything that is printed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use rdbtools::convert::Loss;
use rdbtools::info::{ExpiryHistogram, Info, RelativeTo};
use rdbtools::{Report, ScanError};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Format;
use super::check::Checked;
use super::convert;
use super::deep::DeepReport;
use super::failure::{Class, Failure};
use super::split::Done;
use super::survey::Outcome;

/// How many characters of a key's name fit into a table.
const NAME_CHARS_MAX: usize = 60;

/// Reports on files: one JSON document, or a text for each.
pub(crate) fn reports<T: Serialize>(
    files: &[PathBuf],
    outcomes: &[Outcome<T>],
    format: Format,
    table: impl Fn(&Path, &Outcome<T>) -> String,
) -> Result<(), Failure> {
    let both = || files.iter().zip(outcomes);
    match format {
        Format::Table => both().try_for_each(|(file, outcome)| out(&table(file, outcome))),
        Format::Json => {
            let mut documents = both().map(|(file, outcome)| document(file, outcome)).collect::<Result<Vec<_>, _>>()?;
            let document = if documents.len() > 1 { documents.into() } else { documents.pop().unwrap_or_default() };
            out(&format!("{document:#}\n"))
        }
    }
}

fn document<T: Serialize>(file: &Path, outcome: &Outcome<T>) -> Result<Value, Failure> {
    let fields = match outcome {
        Outcome::Sound(made) => fields(made)?,
        Outcome::Defective { version, counted, .. } => {
            let mut fields = fields(counted)?;
            fields.insert("crc".to_owned(), Value::Null);
            if version.is_none() {
                fields.extend(["rdb_version", "magic"].map(|name| (name.to_owned(), Value::Null)));
            }
            fields
        }
        Outcome::Unread(_) => Map::new(),
    };
    let error = match outcome {
        Outcome::Sound(_) => Value::Null,
        Outcome::Defective { error, .. } => {
            json!({"offset": error.offset, "kind": error.kind, "message": error.message})
        }
        Outcome::Unread(failure) => {
            json!({"offset": null, "kind": failure.class.name(), "message": failure.message})
        }
    };
    let valid = matches!(outcome, Outcome::Sound(_));
    let mut document = Map::new();
    document.insert("file".to_owned(), file.display().to_string().into());
    document.insert("valid".to_owned(), valid.into());
    document.extend(fields);
    document.insert("error".to_owned(), error);
    Ok(document.into())
}

fn fields<T: Serialize>(value: &T) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Failure::new(Class::Unforeseen, format!("cannot print {other}"))),
        Err(error) => Err(Failure::new(Class::Unforeseen, format!("cannot print: {error}"))),
    }
}

/// A line or two on a file that was checked.
pub(crate) fn verified(file: &Path, outcome: &Outcome<Report>) -> String {
    match outcome {
        Outcome::Sound(report) => format!("{}: ok, {}\n", file.display(), counts(report)),
        other => broken(file, other),
    }
}

/// A line or two on a file that was checked closely.
pub(crate) fn verified_deep(file: &Path, outcome: &Outcome<DeepReport>) -> String {
    let Outcome::Sound(DeepReport { report, deep }) = outcome else { return broken(file, outcome) };
    let mut text = format!("{}: ok, {}, {} elements\n", file.display(), counts(report), deep.elements);
    let notes = [
        (deep.empty, "keys hold an empty collection; servers skip them"),
        (deep.lengths_wrong, "streams state a length that is not the number of their entries"),
        (deep.not_compared, "values are too large to tell whether a member, field, group or consumer occurs twice"),
    ];
    let notes = notes.into_iter().filter(|(count, _)| *count > 0);
    text.extend(notes.map(|(count, what)| format!("note: {count} {what}\n")));
    text
}

fn counts(report: &Report) -> String {
    format!(
        "{} version {}, {} bytes, {} keys, {} with expiry, checksum {}",
        report.magic.name(),
        report.rdb_version,
        report.bytes,
        report.keys,
        report.expires,
        report.crc.name()
    )
}

fn broken<T>(file: &Path, outcome: &Outcome<T>) -> String {
    match outcome {
        Outcome::Sound(_) => String::new(),
        Outcome::Defective { counted, error, .. } => {
            format!("{}: {} ({} keys before it)\n", file.display(), defect(error), counted.keys)
        }
        // the message names the file
        Outcome::Unread(failure) => format!("{}\n", failure.message),
    }
}

fn defect(error: &ScanError) -> String {
    let newer = if error.kind == rdbtools::ErrorKind::Unsupported { ", perhaps newer than this program" } else { "" };
    format!("NOT SOUND{newer}: {error}")
}

/// Tables on what a file holds.
pub(crate) fn inspected(file: &Path, outcome: &Outcome<Info>) -> String {
    let Outcome::Sound(info) = outcome else { return broken(file, outcome) };
    let report = &info.report;
    let engine = &info.engine;
    let mut text =
        format!("{}\n{}\nwritten by {}, judging by {}\n", file.display(), counts(report), engine.guess, engine.reason);
    let aux = report.aux.iter().map(|(name, value)| [name.clone(), value.clone()]);
    text += &table(["fact", "value"], aux, 2);
    let databases = report.databases.iter();
    let rows = databases.map(|(db, counts)| [db.to_string(), counts.keys.to_string(), counts.expires.to_string()]);
    text += &table(["database", "keys", "with expiry"], rows, 1);
    let types = report.types.iter().map(|(name, keys)| {
        let bytes = info.bytes_per_type.get(name).copied().unwrap_or(0);
        [name.clone(), keys.to_string(), bytes.to_string()]
    });
    text += &table(["type", "keys", "bytes"], types, 1);
    let largest = info.largest.iter();
    let rows =
        largest.map(|key| [shortened(&key.key), key.value_type.clone(), key.db.to_string(), key.bytes.to_string()]);
    text += &table(["largest keys", "type", "database", "bytes"], rows, 2);
    let slots = info.slots.iter().filter(|range| range.keys > 0).map(|range| {
        let slots = format!("{}-{}", range.first, range.last);
        [slots, range.used.to_string(), range.keys.to_string(), range.bytes.to_string()]
    });
    text += &table(["slots", "used", "keys", "bytes"], slots, 1);
    text += &expiries(&info.expiry);
    let modules = info.module_types.iter().map(|module| [module.name.clone(), module.encoding_version.to_string()]);
    text += &table(["module type", "encoding version"], modules, 1);
    let functions = |name: &String| info.function_names.get(name).map(|names| names.join(", ")).unwrap_or_default();
    let libraries = info.libraries.iter().map(|name| [name.clone(), functions(name)]);
    text += &table(["function library", "functions"], libraries, 2);
    text
}

fn expiries(histogram: &ExpiryHistogram) -> String {
    let since = match histogram.relative_to {
        RelativeTo::Ctime => "expiry, seen from the time of the save",
        RelativeTo::Now => "expiry, seen from now",
    };
    let rows = histogram.steps.iter().filter(|step| step.keys > 0).map(|step| {
        let end = match step.up_to_s {
            Some(0) => "expired".to_owned(),
            Some(hours @ ..86_400) => format!("within {} h", hours / 3600),
            Some(days) => format!("within {} d", days / 86_400),
            None => "later".to_owned(),
        };
        [end, step.keys.to_string()]
    });
    table([since, "keys"], rows, 1)
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", name.get(..cut).unwrap_or(name)),
        None => name.to_owned(),
    }
}

/// A table, its columns from `numbers` on to the right; nothing where it has no rows.
fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>, numbers: usize) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.map(str::to_uppercase));
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if table.row_count() == 0 { String::new() } else { format!("\n{}\n", table.trim_fmt()) }
}

/// One JSON document.
fn pretty(done: &impl Serialize) -> Result<String, Failure> {
    let document = serde_json::to_string_pretty(done);
    Ok(document.map_err(|error| Failure::new(Class::Unforeseen, format!("cannot print: {error}")))? + "\n")
}

/// What a split or merge did. Where the RDB itself went to the standard output, this goes to the standard error.
pub(crate) fn split(done: &Done, format: Format, aside: bool) -> Result<(), Failure> {
    let out = |text: &str| if aside { write(&mut io::stderr(), text) } else { out(text) };
    if format == Format::Json {
        return out(&pretty(done)?);
    }
    let inputs = done.inputs.iter();
    let rows = inputs.map(|input| [input.file.clone(), input.report.keys.to_string(), input.report.bytes.to_string()]);
    let mut text = table(["read", "keys", "bytes"], rows, 1);
    let rows = done.outputs.iter().map(|output| {
        let numbers = [output.keys, output.expires, output.expired, output.bytes].map(|number| number.to_string());
        let [keys, expires, expired, bytes] = numbers;
        [output.file.clone(), output.slots.to_string(), keys, expires, expired, bytes]
    });
    text += &table(["written", "slots", "keys", "with expiry", "expired", "bytes"], rows, 2);
    text.extend(done.check.as_ref().map(first_pass));
    text.extend(done.notes.iter().map(|note| format!("note: {note}\n")));
    out(&text)
}

/// What a conversion did; on stderr where the output went to stdout.
pub(crate) fn converted(done: &convert::Done, format: Format, to_stderr: bool) -> Result<(), Failure> {
    let text = if format == Format::Json {
        pretty(done)?
    } else {
        let (read, made) = (&done.input, &done.output);
        let read = [read.file.clone(), read.report.keys.to_string(), read.report.bytes.to_string()];
        let mut text = table(["read", "keys", "bytes"], [read].into_iter(), 1);
        let numbers = [made.keys, made.expires, made.rewritten, made.bytes].map(|number| number.to_string());
        let [keys, expires, rewritten, bytes] = numbers;
        let row = [made.file.clone(), made.version.clone(), keys, expires, rewritten, bytes];
        let header = ["written", "version", "keys", "with expiry", "rewritten", "bytes"];
        text += &table(header, [row].into_iter(), 2);
        let lines = |loss: &Loss| {
            let sum = format!("\nleft out: {} {} in {} places\n", loss.items, loss.kind.unit(), loss.places);
            let places = loss.shown.iter().map(|lost| format!("  {}\n", convert::place(lost)));
            std::iter::once(sum).chain(places).collect::<Vec<_>>()
        };
        text.extend(done.losses.iter().flat_map(lines));
        text
    };
    if to_stderr {
        // where nothing can be printed the exit code still tells
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    out(&text)
}

/// Says what could not be written, beside the standard output.
pub(crate) fn losses(losses: &[String], format: Format) {
    let text = match format {
        _ if losses.is_empty() => return,
        Format::Json => format!("{}\n", json!({ "notes": losses })),
        Format::Table => losses.iter().map(|loss| format!("note: {loss}\n")).collect(),
    };
    // where nothing can be printed there is nobody to tell
    let _ = io::stderr().write_all(text.as_bytes());
}

fn first_pass(check: &Checked) -> String {
    let found = match (check.keys_compared, check.shared_slots.len()) {
        (false, _) => "the files share no slot".to_owned(),
        (true, slots) => format!("the files share {slots} slots, {} keys occur more than once", check.duplicate_keys),
    };
    format!("first pass: {:.1} s, {found}\n", check.seconds)
}

/// Prints why the command failed; its exit code.
pub(crate) fn failure(failure: &Failure, format: Format) -> ExitCode {
    let text = match (format, &failure.hint) {
        (Format::Json, _) => document_of(failure).to_string(),
        (Format::Table, Some(hint)) => format!("rdbtools: {}\nhint: {hint}", failure.message),
        (Format::Table, None) => format!("rdbtools: {}", failure.message),
    };
    // where nothing can be printed the exit code still tells
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(failure.class.exit_code())
}

fn document_of(failure: &Failure) -> Value {
    let mut error = json!({
        "class": failure.class.name(),
        "code": failure.class.exit_code(),
        "message": failure.message,
        "hint": failure.hint,
        "retryable": false,
    });
    if let (Some(fields), false) = (error.as_object_mut(), failure.losses.is_empty()) {
        fields.insert("losses".to_owned(), json!(failure.losses));
    }
    json!({ "error": error })
}

/// Prints help, the version, or what is wrong with the command line; its exit code.
pub(crate) fn usage(error: &clap::Error, as_json: bool) -> ExitCode {
    if error.use_stderr() && as_json {
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let usage = Failure::new(Class::Usage, message).hint("run with --help to see what may be given");
        return failure(&usage, Format::Json);
    }
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Class::Usage.exit_code() } else { 0 })
}

fn out(text: &str) -> Result<(), Failure> {
    write(&mut io::stdout(), text)
}

fn write(to: &mut impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()) {
        // whoever reads has seen enough
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Class::Unforeseen, format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}
