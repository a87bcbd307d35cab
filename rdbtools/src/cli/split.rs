//! `split` and `merge`: many files in, one file per shard or one in all out.

use std::fs;

use policies::nodes;
use policies::shards;
use policies::slot::SlotSet;
use rdbtools::select::Selection;
use rdbtools::split::{OutputReport, SplitOptions, Splitter};
use rdbtools::{RdbVersion, Report};
use serde::Serialize;

use super::check::{Checked, check};
use super::failure::{Class, Failure};
use super::input::{Input, trailing};
use super::output::{Background, Destination, Lane, Outputs};
use super::{Format, OnDuplicate, Plan, Rules, Ttl, print};

/// What was done.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) check: Option<Checked>,
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
    let destination = match Destination::one(&args.out) {
        Destination::Standard if targets.len() > 1 => {
            return Err(Failure::new(Class::Usage, format!("{} shards do not fit into one stream", targets.len()))
                .hint("name a folder with --out"));
        }
        Destination::File(path) => Destination::Folder { path, shards: targets.len() },
        other => other,
    };
    run(&args.rules, &targets, destination, format)
}

/// Puts files together.
pub(crate) fn merge(args: &super::Merge, format: Format) -> Result<u8, Failure> {
    run(&args.rules, &[SlotSet::full()], Destination::one(&args.out), format)
}

fn run(rules: &Rules, targets: &[SlotSet], destination: Destination, format: Format) -> Result<u8, Failure> {
    let files = &rules.files.files;
    if rules.source_slots.is_some() && rules.on_duplicate != Some(OnDuplicate::Owner) {
        return Err(Failure::new(Class::Usage, "--source-slots goes with --on-duplicate owner only"));
    }
    let mut inputs = files.iter().map(|file| Input::open(file)).collect::<Result<Vec<_>, _>>()?;
    let options = SplitOptions {
        version: output_version(&mut inputs)?,
        ttl: match rules.ttl {
            Ttl::Keep => rdbtools::split::Ttl::Keep,
            Ttl::Drop => rdbtools::split::Ttl::Drop,
        },
        db: rules.db,
        select: Selection::default(),
        cluster: targets.len() > 1,
        now_unix_ms: super::now_unix_ms(),
        scanned_before: false,
    };
    let mut outputs = destination.claim()?;
    let (check, left_out) = check(files, rules, outputs.scratch_folder())?.unzip();
    let (background, lanes) = Background::start(outputs.create()?);
    let filled = Splitter::new(targets.to_vec(), lanes, options).map_err(Failure::from).and_then(|mut splitter| {
        left_out.map_or(Ok(()), |left_out| splitter.leave_out(left_out))?;
        fill(splitter, &mut inputs, check.as_ref())
    });
    // the error of the thread that writes is the cause of what the splitter saw
    let written = background.join().map_err(|(index, error)| outputs.failed(index, &error))?;
    let (inputs, reports, notes) = filled?;
    let outputs_done = publish(&mut outputs, &written, targets, &reports)?;
    let done = Done { check, inputs, outputs: outputs_done, notes };
    print::split(&done, format, outputs.is_standard())?;
    Ok(0)
}

fn targets(plan: &Plan) -> Result<Vec<SlotSet>, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Class::Usage, error.to_string());
    let checked = |sets: Vec<SlotSet>| shards::check_cover(&sets).map(|()| sets);
    if let Some(slots) = &plan.slots {
        let sets = slots.split(';').map(str::parse).collect::<Result<Vec<SlotSet>, _>>();
        return checked(sets.map_err(|error| usage(&error))?).map_err(|error| usage(&error));
    }
    if let Some(path) = &plan.nodes_conf {
        let text = fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
        let in_file = |error: &dyn std::fmt::Display| usage(&format_args!("{}: {error}", path.display()));
        return checked(nodes::slots_of_primaries(&text).map_err(|error| in_file(&error))?)
            .map_err(|error| in_file(&error));
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

type Filled = (Vec<InputDone>, Vec<OutputReport<()>>, Vec<String>);

/// Reads all inputs. The lanes are dropped at the end, so that the thread that writes ends.
fn fill(mut splitter: Splitter<Lane>, inputs: &mut [Input], check: Option<&Checked>) -> Result<Filled, Failure> {
    let mut done = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter_mut().enumerate() {
        let read = read(&mut splitter, input)?;
        let length = check.and_then(|check| check.lengths.get(index));
        if length.is_some_and(|length| *length != read.report.bytes) {
            let message = format!("{}: it changed since it was looked at first", read.file);
            return Err(Failure::new(Class::Refused, message).hint("copy it while nothing writes it, and run again"));
        }
        done.push(read);
    }
    let notes = splitter.notes();
    let reports = splitter.finish()?.into_iter().map(|output| OutputReport {
        writer: (),
        bytes: output.bytes,
        keys: output.keys,
        expires: output.expires,
        expired: output.expired,
        databases: output.databases,
    });
    Ok((done, reports.collect(), notes))
}

fn read(splitter: &mut Splitter<Lane>, input: &mut Input) -> Result<InputDone, Failure> {
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

fn publish(
    outputs: &mut Outputs,
    written: &[fs::File],
    targets: &[SlotSet],
    reports: &[OutputReport<()>],
) -> Result<Vec<OutputDone>, Failure> {
    let names = outputs.publish(written)?;
    let all = names.iter().zip(targets).zip(reports);
    let done = all.map(|((name, slots), output)| OutputDone {
        file: name.display().to_string(),
        slots: slots.clone(),
        keys: output.keys,
        expires: output.expires,
        expired: output.expired,
        bytes: output.bytes,
    });
    Ok(done.collect())
}
