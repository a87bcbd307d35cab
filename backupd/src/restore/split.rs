//! Reads the inputs and writes one RDB file per target shard.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdbtools::ReportSink;
use rdbtools::split::{SplitError, SplitOptions, Splitter, Ttl as SplitTtl};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::content::{Chunks, Expected};
use super::plan::Plan;
use super::{Names, Options, Target, Ttl};
use crate::canonical::damaged;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::nodes::{Survey, Surveying};
use crate::pipeline::Meter;
use crate::pipeline::pick::Pick;
use crate::pipeline::write::scan_error;
use crate::progress::Progress;
use crate::task_failed;

/// One finished file.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// Its keys.
    pub keys: u64,
    /// Its keys that have an expiry.
    pub expires: u64,
    /// Its keys that have expired already.
    pub expired: u64,
    /// Its size.
    pub bytes: u64,
    /// What it holds, where it is for a node.
    pub(super) survey: Option<Survey>,
}

/// A file that is made, and what is seen of it meanwhile.
#[derive(Debug)]
struct Output {
    file: File,
    surveying: Option<Surveying>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        if let Some(surveying) = &mut self.surveying {
            surveying.feed(bytes.get(..count).unwrap_or_default()).map_err(io::Error::other)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

type Files = Splitter<Output>;

/// Files that are whole, and may not be on disk yet.
#[derive(Debug)]
pub(super) struct Unsynced(Vec<(PathBuf, File)>);

impl Unsynced {
    /// These files, wherever they are moved to.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(super) fn of(made: &[Made]) -> Result<Self> {
        let open = |made: &Made| {
            let file = File::open(&made.path).map_err(|error| unwritable(&made.path, &error))?;
            Ok((made.path.clone(), file))
        };
        made.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// Waits until they are on disk.
    ///
    /// # Errors
    /// When the file system could not write one.
    pub(super) async fn sync(self) -> Result<()> {
        let sync = move || {
            self.0.iter().try_for_each(|(path, file)| file.sync_all().map_err(|error| unwritable(path, &error)))
        };
        tokio::task::spawn_blocking(sync).await.map_err(task_failed)?
    }
}

/// Splits all inputs into files in `dir`. They bear their names only when every input proved whole; until then they end in
/// `.partial`. They may not be on disk yet: [`Unsynced`].
///
/// # Errors
/// The first defect of an input, naming it; what writing says.
pub async fn run(
    options: &Options,
    plan: &Plan,
    ttl: SplitTtl,
    dir: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(Vec<Made>, Option<Expected>)> {
    let made = split(options, plan, ttl, dir, progress, cancel).await;
    if made.is_err() {
        remove(dir, &options.names, plan.shards.len());
    }
    made
}

/// Removes what a failed split left, so that the folder can be used again. Best effort.
fn remove(dir: &Path, names: &Names, files: usize) {
    for index in 0..files {
        for name in [names.partial(index), names.file(index)] {
            match std::fs::remove_file(dir.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(name, error = %error, "a file of the failed restore is left behind");
                }
                _ => {}
            }
        }
    }
}

async fn split(
    options: &Options,
    plan: &Plan,
    ttl: SplitTtl,
    dir: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(Vec<Made>, Option<Expected>)> {
    let parts = options.input.parts().await?.into_iter().enumerate();
    let mut splitter = begin(options, plan, ttl, dir)?;
    let mut expected = Expected::begin(options, plan, ttl);
    let is_read = |index: usize| plan.inputs.get(index).is_none_or(|input| !input.targets.is_empty());
    let mut inputs = parts.filter(|(index, _)| is_read(*index)).map(|(index, (part, info))| {
        let pick = plan.picks.get(index).and_then(Option::as_ref);
        let meter = progress.row(format!("input {index}"), pick.map(Pick::plain_bytes).or(info.bytes));
        let (chunks, reading) = part.only(pick).read(Arc::clone(&meter));
        let whole = options.input.manifest().filter(|_| pick.is_none());
        let expected = whole.and_then(|manifest| manifest.shards.get(index)).map(|shard| &shard.rdb);
        (Begun { name: info.name, chunks, reading: AbortOnDropHandle::new(reading), meter }, expected)
    });
    let mut next = inputs.next();
    while let Some((input, promised)) = next {
        // it is fetched and opened, as far as its queues hold, while this one is split
        next = inputs.next();
        let name = input.name.clone();
        splitter = one(splitter, expected.as_mut(), input, cancel).await?;
        if promised.is_some() && splitter.1.as_ref() != promised {
            return Err(damaged(&name, "its RDB holds something else than the manifest says"));
        }
        progress.phase(format!("{name} is split"));
    }
    let (dir, names) = (dir.to_owned(), options.names.clone());
    let made = tokio::task::spawn_blocking(move || end(splitter.0, &dir, &names)).await.map_err(task_failed)??;
    if made.iter().all(|made| made.keys == 0) && !options.select.is_all() {
        return Err(Error::new(Class::NotFound, "no key of the input is selected, so there is nothing to restore")
            .hint("patterns are those of the command KEYS: try --filter '*part-of-the-name*'"));
    }
    Ok((made, expected))
}

/// A splitter, and what it found in the input before.
type State = (Files, Option<rdbtools::Report>);

fn begin(options: &Options, plan: &Plan, ttl: SplitTtl, dir: &Path) -> Result<State> {
    let targets = plan.targets();
    let to_nodes = matches!(options.target, Target::Nodes { .. });
    let open = |index: usize| {
        let path = dir.join(options.names.partial(index));
        let file =
            File::options().write(true).create_new(true).open(&path).map_err(|error| unwritable(&path, &error))?;
        let slots = plan.shards.get(index).and_then(|shard| shard.slots.clone());
        Ok(Output { file, surveying: to_nodes.then(|| Surveying::new(slots)) })
    };
    let outputs = (0..targets.len()).map(open).collect::<Result<Vec<_>>>()?;
    let split_options = SplitOptions {
        version: plan.version,
        ttl,
        db: options.db,
        select: options.select.clone(),
        cluster: plan.is_cluster(),
        now_unix_ms: options.now_unix_ms,
        // a capture scans what it stores, and what is read is what was stored
        scanned_before: options.input.manifest().is_some(),
    };
    let splitter = Splitter::new(targets, outputs, split_options).map_err(|error| split_error(error, "the plan"))?;
    Ok((splitter, None))
}

/// What becomes of expiries; to be asked once, because a shift depends on the time.
pub(super) fn ttl(options: &Options) -> Result<SplitTtl> {
    match (options.ttl, options.input.manifest()) {
        (Ttl::Keep, _) => Ok(SplitTtl::Keep),
        (Ttl::Drop, _) => Ok(SplitTtl::Drop),
        (Ttl::Shift, Some(manifest)) => {
            let taken = chrono::DateTime::parse_from_rfc3339(&manifest.begun_at)
                .map_err(|_| damaged("the manifest", "its begin is not a time"))?;
            Ok(SplitTtl::Shift(clock::now().timestamp_millis() - taken.timestamp_millis()))
        }
        (Ttl::Shift, None) => Err(Error::new(
            Class::Usage,
            "the age of a foreign RDB file is not known, so its expiries cannot be shifted",
        )
        .hint("use --ttl keep or --ttl drop")),
    }
}

/// An input that is being read.
struct Begun {
    name: String,
    chunks: mpsc::Receiver<Vec<u8>>,
    reading: AbortOnDropHandle<Result<()>>,
    meter: Arc<Meter>,
}

/// Feeds one input to the splitter, on a thread of its own.
async fn one(state: State, expected: Option<&mut Expected>, input: Begun, cancel: &CancellationToken) -> Result<State> {
    let Begun { name, chunks, reading, meter } = input;
    let (owned, stop) = (name.clone(), cancel.clone());
    let (digested, digesting) = expected.as_ref().map(|expected| expected.begin_input()).unzip();
    let splitting = tokio::task::spawn_blocking(move || feed(state.0, (chunks, digested), &owned, &meter, &stop));
    let split = splitting.await.map_err(task_failed)?;
    // the reader's error is the cause; a splitter that got too few bytes only repeats it
    let read = reading.await.map_err(task_failed)?;
    match (read, split) {
        (Ok(()), Ok(state)) => {
            if let Some((expected, task)) = expected.zip(digesting) {
                expected.end_input(task).await.map_err(|error| error.at(&name))?;
            }
            Ok(state)
        }
        (Ok(()), Err(error)) => Err(error),
        // a splitter that stopped by itself is what stopped the reader
        (Err(error), Err(own)) if error.class() == Class::Unforeseen => Err(own),
        (Err(error), _) => Err(error),
    }
}

fn feed(
    mut splitter: Files,
    (mut chunks, digested): (mpsc::Receiver<Vec<u8>>, Option<Chunks>),
    name: &str,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<State> {
    let fail = |error| split_error(error, name);
    splitter.begin_input(name).map_err(fail)?;
    let mut fed = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        if cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted")
                .hint("nothing was started; run the command again in an empty folder"));
        }
        let chunk = Arc::new(chunk);
        if let Some(digested) = &digested {
            // one that stopped says why when the input has ended
            digested.blocking_send(Arc::clone(&chunk)).ok();
        }
        let used = splitter.feed(&chunk).map_err(fail)?;
        if used < chunk.len() {
            return Err(damaged(name, &format!("bytes follow the end of its RDB at byte {}", fed + used as u64)));
        }
        fed += used as u64;
        meter.passed(fed, splitter.progress().map_or(0, ReportSink::keys));
    }
    let report = splitter.end_input().map_err(fail)?;
    Ok((splitter, Some(report)))
}

fn end(splitter: Files, dir: &Path, names: &Names) -> Result<Vec<Made>> {
    for note in splitter.notes() {
        tracing::warn!("{note}");
    }
    let reports = splitter.finish().map_err(|error| split_error(error, "the outputs"))?;
    let mut made = Vec::new();
    for (index, report) in reports.into_iter().enumerate() {
        let (partial, path) = (dir.join(names.partial(index)), dir.join(names.file(index)));
        std::fs::rename(&partial, &path).map_err(|error| unwritable(&path, &error))?;
        let survey = report.writer.surveying.map(Surveying::end).transpose();
        let survey = survey.map_err(|error| scan_error(&error).at(path.display()))?;
        made.push(Made {
            path,
            keys: report.keys,
            expires: report.expires,
            expired: report.expired,
            bytes: report.bytes,
            survey,
        });
    }
    Ok(made)
}

fn split_error(error: SplitError, name: &str) -> Error {
    match error {
        SplitError::Scan { input, error } => scan_error(&error).at(input),
        SplitError::Write { output, source } => unwritable(Path::new(&format!("the file of shard {output}")), &source),
        SplitError::Refused { input, message, hint } => {
            Error::new(Class::Refused, format!("{input}: {message}")).hint(hint)
        }
        SplitError::Plan(error) => Error::new(Class::Refused, error.to_string()),
        SplitError::LeftOut(error) => Error::new(Class::Unforeseen, format!("{name}: {error}")),
        SplitError::Order(what) => Error::new(Class::Unforeseen, format!("{name}: {what}")),
    }
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(Class::Refused, format!("{}: cannot be written: {error}", path.display()))
        .hint("check the folder's permissions and free space")
}
