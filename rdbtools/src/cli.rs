//! The command line: what may be typed, and which command it becomes.

mod check;
mod checker;
mod convert;
mod deep;
mod dump;
mod failure;
mod input;
mod output;
mod parallel;
mod print;
mod split;
mod survey;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rdbtools::convert::{LossKind, Target};

/// Check, inspect, split and convert RDB files of Redis and Valkey.
#[derive(Debug, Parser)]
#[command(name = "rdbtools", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is printed: a table for people or one JSON document.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check structure and checksum, and count. Exit code 17 where a file is defective, 20 where it is of a
    /// version or holds a type that is not known.
    Verify(Verify),
    /// Show version, facts about the server, counts and sizes, the largest keys, where keys lie among the slots and
    /// when they expire.
    Info(Info),
    /// Write everything that a file holds to the standard output, to be read by people or loaded by a server.
    Dump(Dump),
    /// Write the keys of all files to one file per shard: shard-0000.rdb and so on.
    Split(Split),
    /// Write the same data in the format of an older or another engine. Exit code 18 where the engine cannot hold
    /// all of it, and leaving it out was not allowed.
    Convert(Convert),
    /// Write the keys of all files to one file, all databases kept.
    Merge(Merge),
}

#[derive(Debug, Args)]
struct Files {
    /// RDB files; - is the standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    files: Files,
    /// Look inside values too: packed encodings, order, members and fields that occur twice, streams; and find
    /// keys that occur twice. Takes up to 64 MiB of memory, and 24 bytes per key in $TMPDIR where that is not enough.
    #[arg(long)]
    deep: bool,
}

#[derive(Debug, Args)]
struct Dump {
    /// An RDB file; - is the standard input.
    file: PathBuf,
    /// json: an array with one object per key. resp: commands that make the keys, for redis-cli --pipe. plain: one
    /// line per value, through the rdb crate, which holds every value whole and shows no streams.
    #[arg(long, value_enum)]
    format: DumpFormat,
    /// With resp, leave out and count what modules keep; no command makes it.
    #[arg(long)]
    skip_modules: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DumpFormat {
    Json,
    Resp,
    Plain,
}

#[derive(Debug, Args)]
struct Info {
    #[command(flatten)]
    files: Files,
    /// How many of the largest keys are shown.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(..=10_000))]
    top: u16,
}

#[derive(Debug, Args)]
struct Split {
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    plan: Plan,
    /// Folder to write to; it is made where it does not exist and must be empty. For one shard: - writes to the
    /// standard output, and the report to the standard error.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Merge {
    #[command(flatten)]
    rules: Rules,
    /// File to write; it must not exist. - is the standard output: then the report goes to the standard error.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Rules {
    #[command(flatten)]
    files: Files,
    /// Take the keys of this database only. In more than one shard it becomes database 0.
    #[arg(long, value_name = "N")]
    db: Option<u64>,
    /// What becomes of the expiries of keys; drop makes keys that never expire.
    #[arg(long, value_enum, default_value_t = Ttl::Keep)]
    ttl: Ttl,
    /// Which of several keys of one name and database stays: none (fail, the default, names both places), that of
    /// the first or the last file, or that of the file that owns the slot.
    ///
    /// Several files are read once more, first, to see whether they share slots, and again where they do, to compare
    /// every key. When this option is given every key is compared in any case.
    #[arg(long, value_name = "RULE", value_enum)]
    on_duplicate: Option<OnDuplicate>,
    /// For --on-duplicate owner: the slots of each file, in their order, files separated by semicolons. Without it
    /// the owner of a slot is the file that holds most keys of it, the first of equals.
    #[arg(long, value_name = "RANGES;RANGES")]
    source_slots: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ttl {
    Keep,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnDuplicate {
    Fail,
    First,
    Last,
    Owner,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Plan {
    /// As many shards, with slots as redis-cli --cluster create gives them. One shard keeps all databases.
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// The slots of each shard, shards separated by semicolons: 0-5000;5001-16383
    #[arg(long, value_name = "RANGES;RANGES")]
    slots: Option<String>,
    /// A shard for each primary of this nodes.conf or reply of CLUSTER NODES, in the order of their first slots.
    #[arg(long, value_name = "FILE")]
    nodes_conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Convert {
    /// An RDB file; - is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The engine that is to load the result.
    #[arg(long, value_name = "ENGINE", value_parser = target_parser())]
    to: Target,
    /// File to write, which must not exist; - is the standard output, and then what is printed goes to stderr.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What may be left out where the engine cannot hold it; otherwise the file is refused.
    #[arg(long, value_name = "KIND,KIND", value_delimiter = ',', value_parser = drop_parser())]
    drop: Vec<LossKind>,
    /// Write the data of modules as it is: the engine has them.
    #[arg(long)]
    keep_modules: bool,
    /// File to write every loss to, one JSON document a line; it must not exist.
    #[arg(long, value_name = "FILE")]
    losses: Option<PathBuf>,
}

fn target_parser() -> impl TypedValueParser<Value = Target> {
    PossibleValuesParser::new(Target::all().map(Target::name)).try_map(|name| name.parse())
}

fn drop_parser() -> impl TypedValueParser<Value = LossKind> {
    let find = |name: String| LossKind::REFUSED.into_iter().find(|kind| kind.name() == name);
    PossibleValuesParser::new(LossKind::REFUSED.map(LossKind::name))
        .try_map(move |name| find(name).ok_or("no kind that can be left out"))
}

#[expect(clippy::disallowed_methods, reason = "a command line has no other clock; the library is told the time")]
fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return print::usage(&error, wants_json()),
    };
    let result = match &cli.command {
        Command::Verify(verify) if verify.deep => survey::verify_deep(&verify.files.files, cli.output),
        Command::Verify(verify) => survey::verify(&verify.files.files, cli.output),
        Command::Dump(dump) => dump::dump(dump, cli.output),
        Command::Info(info) => survey::info(&info.files.files, info.top.into(), cli.output),
        Command::Split(split) => split::split(split, cli.output),
        Command::Convert(convert) => convert::convert(convert, cli.output),
        Command::Merge(merge) => split::merge(merge, cli.output),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => print::failure(&failure, cli.output),
    }
}

/// Whether JSON was asked for on a command line that could not be understood.
fn wants_json() -> bool {
    let args: Vec<_> = std::env::args_os().collect();
    let pairs = args.windows(2);
    let apart = |pair: &[std::ffi::OsString]| matches!(pair, [flag, value] if (flag == "-o" || flag == "--output") && value == "json");
    pairs.into_iter().any(apart) || args.iter().any(|arg| arg == "-ojson" || arg == "-o=json" || arg == "--output=json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
