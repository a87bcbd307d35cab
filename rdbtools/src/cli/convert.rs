//! `convert`: one file in, the same data out for another engine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rdbtools::Report;
use rdbtools::convert::{ConvertError, ConvertOptions, Converter, Loss, Lost, Target};
use serde::Serialize;

use super::failure::{Class, Failure};
use super::input::{Input, trailing};
use super::output::Destination;
use super::{Format, print};

/// What `convert` did.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) to: Target,
    pub(crate) input: Source,
    pub(crate) output: Made,
    pub(crate) losses: Vec<Loss>,
}

/// The file that was read.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    pub(crate) file: String,
    #[serde(flatten)]
    pub(crate) report: Report,
}

/// The file that was written.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    pub(crate) file: String,
    pub(crate) version: String,
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
    pub(crate) expires: u64,
    pub(crate) rewritten: u64,
}

/// Converts a file.
pub(crate) fn convert(args: &super::Convert, format: Format) -> Result<u8, Failure> {
    let options = ConvertOptions {
        target: args.to,
        drop: args.drop.clone(),
        keep_modules: args.keep_modules,
        now_unix_ms: super::now_unix_ms(),
    };
    let mut input = Input::open(&args.file)?;
    let mut list = args.losses.as_deref().map(LossList::create).transpose()?;
    let mut outputs = Destination::one(&args.out).claim()?;
    let mut converter = Converter::new(outputs.create_one()?, options);
    let path = input.path().to_owned();
    let failed = |error: ConvertError| failure(&path, error);
    loop {
        let bytes = input.next()?;
        if bytes.is_empty() {
            break;
        }
        let used = converter.feed(bytes);
        if let Some(list) = &mut list {
            list.add(&converter.take_losses())?;
        }
        converter.take_losses();
        if used.map_err(failed)? < bytes.len() {
            return Err(Failure::defect(&path, &trailing(converter.offset())));
        }
    }
    if let Some(list) = list {
        list.finish()?;
    }
    let converted = converter.finish().map_err(failed)?;
    outputs.publish(&[converted.writer])?;
    let done = Done {
        to: args.to,
        input: Source { file: path.display().to_string(), report: converted.input },
        output: Made {
            file: args.out.display().to_string(),
            version: converted.version.to_string(),
            bytes: converted.bytes,
            keys: converted.keys,
            expires: converted.expires,
            rewritten: converted.rewritten,
        },
        losses: converted.losses,
    };
    print::converted(&done, format, outputs.is_standard())?;
    Ok(0)
}

fn failure(path: &Path, error: ConvertError) -> Failure {
    let message = format!("{}: {error}", path.display());
    match error {
        ConvertError::Scan(error) => Failure::defect(path, &error),
        ConvertError::Refused { losses, .. } => {
            let kinds: Vec<&str> = losses.iter().map(|loss| loss.kind.name()).collect();
            let places: Vec<String> = losses.iter().flat_map(|loss| &loss.shown).map(place).collect();
            let message = format!("{message}\n{}", places.join("\n"));
            let hint = format!("--drop {} leaves it out; --losses FILE lists every place", kinds.join(","));
            Failure::new(Class::Refused, message).hint(hint).losses(losses)
        }
        ConvertError::TooLarge { .. } => Failure::new(Class::Refused, message),
        ConvertError::Write(_) | ConvertError::Order => Failure::new(Class::Unforeseen, message),
    }
}

/// One line on something that the output does not hold.
pub(crate) fn place(lost: &Lost) -> String {
    let name = if lost.name.is_empty() { String::new() } else { format!(" {}", lost.name) };
    let db = lost.db.map(|db| format!(" (database {db})")).unwrap_or_default();
    format!("{}{name}{db}: {} {}", lost.kind, lost.items, lost.kind.unit())
}

/// The file that every loss is written to, one JSON document a line.
struct LossList<'a> {
    path: &'a Path,
    writer: BufWriter<File>,
}

impl<'a> LossList<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = File::create_new(path).map_err(|error| Failure::io(path, &error))?;
        Ok(Self { path, writer: BufWriter::new(file) })
    }

    fn add(&mut self, losses: &[Lost]) -> Result<(), Failure> {
        for lost in losses {
            let line = serde_json::to_string(lost)
                .map_err(|error| Failure::new(Class::Unforeseen, format!("cannot print: {error}")))?;
            writeln!(self.writer, "{line}").map_err(|error| Failure::io(self.path, &error))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::io(self.path, &error))
    }
}
