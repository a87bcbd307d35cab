//! Files for an engine that does not read what the source wrote.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use policies::engine::Engine;
use rdbtools::RdbVersion;
use rdbtools::convert::{ConvertError, ConvertOptions, Converted, Converter, Loss, LossKind, Lost, Target};
use tokio_util::sync::CancellationToken;

use super::plan::format_of;
use super::split::{Made, unwritable};
use crate::error::{Class, Error, Result};
use crate::launch::check_format;
use crate::pipeline::write::scan_error;
use crate::task_failed;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What files of `version` must be converted to before `engine` loads them; `None` when it loads them as they are.
///
/// # Errors
/// `Version` when it does not, and nobody knows what it does load.
pub(super) fn needed(engine: &Engine, version: RdbVersion) -> Result<Option<Target>> {
    match (check_format(engine, format_of(version)), Target::of_engine(&engine.name, engine.version)) {
        (Ok(()), _) => Ok(None),
        (Err(_), Some(target)) => Ok(Some(target)),
        (Err(error), None) => Err(error),
    }
}

/// Converts the files that need it, in their places, and says what was lost of which shard.
///
/// # Errors
/// `Refused` when something would be lost that `drop` does not name, listing it; `Verification` when the inside of a
/// value is not sound; what reading and writing say.
pub(super) async fn run(
    made: Vec<Made>,
    targets: &[Option<Target>],
    (drop, now_unix_ms): (&[LossKind], u64),
    cancel: &CancellationToken,
) -> Result<(Vec<Made>, Vec<Loss>)> {
    let (mut done, mut losses) = (Vec::with_capacity(made.len()), Vec::new());
    for (file, target) in made.into_iter().zip(targets) {
        let Some(target) = *target else {
            done.push(file);
            continue;
        };
        let options = ConvertOptions { target, drop: drop.to_vec(), keep_modules: false, now_unix_ms };
        let stop = cancel.clone();
        let converting = tokio::task::spawn_blocking(move || one(file, options, &stop));
        let (file, lost) = converting.await.map_err(task_failed)??;
        done.push(file);
        add(&mut losses, lost);
    }
    Ok((done, losses))
}

/// The shards' losses together: a kind once, the first places of all.
fn add(all: &mut Vec<Loss>, more: Vec<Loss>) {
    for loss in more {
        match all.iter_mut().find(|known| known.kind == loss.kind) {
            None => all.push(loss),
            Some(known) => {
                known.items += loss.items;
                known.places += loss.places;
                let room = rdbtools::convert::SHOWN_MAX.saturating_sub(known.shown.len());
                known.shown.extend(loss.shown.into_iter().take(room));
            }
        }
    }
}

fn one(file: Made, options: ConvertOptions, cancel: &CancellationToken) -> Result<(Made, Vec<Loss>)> {
    let path = &file.path;
    let unreadable = |error| Error::new(Class::Unforeseen, format!("{}: cannot be read: {error}", path.display()));
    let partial = path.with_extension("converted");
    let output = File::create_new(&partial).map_err(|error| unwritable(&partial, &error))?;
    let mut converter = Converter::new(output, options);
    let mut input = File::open(path).map_err(unreadable)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = input.read(&mut chunk).map_err(unreadable)?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        if cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted").hint("nothing was started; run it again"));
        }
        converter.feed(bytes).map_err(|error| failed(path, error))?;
        // the report at the end names enough of them
        converter.take_losses();
    }
    let Converted { keys, expires, bytes, losses, .. } = converter.finish().map_err(|error| failed(path, error))?;
    std::fs::rename(&partial, path).map_err(|error| unwritable(path, &error))?;
    Ok((Made { keys, expires, bytes, expired: file.expired.min(expires), survey: None, ..file }, losses))
}

fn failed(path: &Path, error: ConvertError) -> Error {
    let message = error.to_string();
    match error {
        ConvertError::Scan(error) => scan_error(&error).at(path.display()),
        ConvertError::Refused { losses, .. } => {
            let kinds: Vec<&str> = losses.iter().map(|loss| loss.kind.name()).collect();
            let places: Vec<String> = losses.iter().flat_map(|loss| &loss.shown).map(place).collect();
            Error::new(Class::Refused, format!("{message}\n{}", places.join("\n")))
                .hint(format!("--drop {} leaves it out", kinds.join(",")))
        }
        ConvertError::TooLarge { .. } => Error::new(Class::Refused, message),
        ConvertError::Write(error) => unwritable(path, &error),
        ConvertError::Order => Error::new(Class::Unforeseen, message),
    }
}

fn place(lost: &Lost) -> String {
    format!("  {} of {}: {} {}", lost.kind, lost.name, lost.items, lost.kind.unit())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::nodes::Survey;

    #[test]
    fn what_was_seen_of_a_file_is_forgotten_when_it_is_converted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.rdb");
        // a string, version 3, in the words of the format that every engine reads
        std::fs::write(&path, b"REDIS0003\xfe\x00\x00\x01a\x01b\xff").unwrap();
        let made =
            Made { path: path.clone(), keys: 9, expires: 9, bytes: 9, expired: 9, survey: Some(Survey::default()) };
        let target = Target::of_engine("redis", (6, 2)).unwrap();
        let (made, losses) = one(made, ConvertOptions::new(target), &CancellationToken::new()).unwrap();
        assert_eq!((made.keys, made.expires, made.expired, made.survey, losses.len()), (1, 0, 0, None, 0));
        assert_eq!(made.bytes, std::fs::metadata(&path).unwrap().len());
        let files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files, [path]);
    }
}
