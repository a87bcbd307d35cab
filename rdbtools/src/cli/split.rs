//! `split`: many files in, one file per shard out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use policies::shards;
use policies::slot::SlotSet;
use rdbtools::select::Selection;
use rdbtools::split::{OutputReport, SplitOptions, Splitter, Ttl};
use rdbtools::{RdbVersion, Report};
use serde::Serialize;

use super::failure::{Class, Failure};
use super::input::{Input, trailing};
use super::{Format, Plan, print};

/// What `split` did.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) inputs: Vec<InputDone>,
    pub(crate) outputs: Vec<OutputDone>,
    pub(crate) notes: Vec<String>,
}

/// A file that was read.
#[derive(Debug, Serialize)]
pub(crate) struct InputDone {
    pub(crate) file: String,
    #[serde(flatten)]
    pub(crate) report: Report,
}

/// A file that was written.
#[derive(Debug, Serialize)]
pub(crate) struct OutputDone {
    pub(crate) file: String,
    pub(crate) slots: SlotSet,
    pub(crate) keys: u64,
    pub(crate) expires: u64,
    pub(crate) expired: u64,
    pub(crate) bytes: u64,
}

/// Splits files.
pub(crate) fn split(args: &super::Split, format: Format) -> Result<u8, Failure> {
    let targets = targets(&args.plan)?;
    let mut inputs = args.files.files.iter().map(|file| Input::open(file)).collect::<Result<Vec<_>, _>>()?;
    let options = SplitOptions {
        version: output_version(&mut inputs)?,
        ttl: Ttl::Keep,
        db: args.db,
        select: Selection::default(),
        cluster: targets.len() > 1,
        now_unix_ms: super::now_unix_ms(),
    };
    let mut folder = Folder::claim(&args.out, targets.len())?;
    let mut splitter = Splitter::new(targets.clone(), folder.create()?, options)?;
    let mut reports = Vec::with_capacity(inputs.len());
    for input in &mut inputs {
        reports.push(read(&mut splitter, input)?);
    }
    let notes = splitter.notes();
    let written = splitter.finish()?;
    let outputs = folder.publish(&targets, written)?;
    print::split(&Done { inputs: reports, outputs, notes }, format)?;
    Ok(0)
}

fn targets(plan: &Plan) -> Result<Vec<SlotSet>, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Class::Usage, error.to_string());
    if let Some(slots) = &plan.slots {
        let sets = slots.split(';').map(str::parse).collect::<Result<Vec<SlotSet>, _>>();
        let sets = sets.map_err(|error| usage(&error))?;
        shards::check_cover(&sets).map_err(|error| usage(&error))?;
        return Ok(sets);
    }
    shards::equal(plan.shards.unwrap_or(0)).map_err(|error| usage(&error))
}

/// The newest version of all inputs. Those that cannot go together are refused when they are read.
fn output_version(inputs: &mut [Input]) -> Result<RdbVersion, Failure> {
    let mut newest: Option<RdbVersion> = None;
    for input in inputs {
        if let Some(version) = input.peek_version()?.filter(|version| version.is_supported()) {
            newest = Some(newest.filter(|newest| newest.number >= version.number).unwrap_or(version));
        }
    }
    // without any header the first input is refused when it is read, whatever is said here
    Ok(newest.unwrap_or(RdbVersion::redis(1)))
}

fn read(splitter: &mut Splitter<File>, input: &mut Input) -> Result<InputDone, Failure> {
    let path = input.path().to_owned();
    splitter.begin_input(&path.display().to_string())?;
    loop {
        let bytes = input.next()?;
        if bytes.is_empty() {
            return Ok(InputDone { file: path.display().to_string(), report: splitter.end_input()? });
        }
        let used = splitter.feed(bytes)?;
        if used < bytes.len() {
            let offset = splitter.input_offset();
            return Err(Failure::defect(&path, &trailing(offset)));
        }
    }
}

/// The folder that is written to. Files get their names when all are whole; until then they end in
/// `.partial`, and are removed when something fails.
struct Folder {
    path: PathBuf,
    count: usize,
    published: bool,
}

impl Folder {
    fn claim(path: &Path, count: usize) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|error| Failure::io(path, &error))?;
        let mut entries = fs::read_dir(path).map_err(|error| Failure::io(path, &error))?;
        if entries.next().is_some() {
            let message = format!("{}: the folder is not empty", path.display());
            return Err(Failure::new(Class::Refused, message).hint("name an empty folder, or one that does not exist"));
        }
        Ok(Self { path: path.to_owned(), count, published: false })
    }

    fn file(&self, index: usize) -> PathBuf {
        self.path.join(format!("shard-{index:04}.rdb"))
    }

    fn partial(&self, index: usize) -> PathBuf {
        self.path.join(format!("shard-{index:04}.rdb.partial"))
    }

    fn create(&self) -> Result<Vec<File>, Failure> {
        (0..self.count)
            .map(|index| self.partial(index))
            .map(|path| File::create_new(&path).map_err(|error| Failure::io(&path, &error)))
            .collect()
    }

    fn publish(&mut self, targets: &[SlotSet], written: Vec<OutputReport<File>>) -> Result<Vec<OutputDone>, Failure> {
        let mut outputs = Vec::with_capacity(written.len());
        for (index, (output, slots)) in written.into_iter().zip(targets).enumerate() {
            let (partial, file) = (self.partial(index), self.file(index));
            output.writer.sync_all().map_err(|error| Failure::io(&partial, &error))?;
            fs::rename(&partial, &file).map_err(|error| Failure::io(&file, &error))?;
            outputs.push(OutputDone {
                file: file.display().to_string(),
                slots: slots.clone(),
                keys: output.keys,
                expires: output.expires,
                expired: output.expired,
                bytes: output.bytes,
            });
        }
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|error| Failure::io(&self.path, &error))?;
        self.published = true;
        Ok(outputs)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.published {
            for index in 0..self.count {
                // what cannot be removed keeps a name that nobody takes for a whole file
                let _ = fs::remove_file(self.partial(index));
                let _ = fs::remove_file(self.file(index));
            }
        }
    }
}
