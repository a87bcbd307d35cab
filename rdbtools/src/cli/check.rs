//! The first pass of a split or merge of several files: do they share slots, and then keys?

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use policies::slot::{SLOT_COUNT, SlotSet};
use rdbtools::duplicates::{DuplicateError, Finder, LeftOut, Place, Rule, SlotCensus, SlotCounts};
use rdbtools::{Key, Scanner, Sink, Summary};
use serde::Serialize;

use super::failure::{Class, Failure};
use super::input::{Input, can_be_read_again};
use super::survey::read;
use super::{OnDuplicate, Rules, parallel};

/// How much of a key's name a message shows.
const NAME_SHOWN_MAX: usize = 256;

/// What the first pass found.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    /// How long it took.
    pub(crate) seconds: f64,
    /// The slots of which more than one input holds keys.
    pub(crate) shared_slots: SlotSet,
    /// Whether every key was looked at.
    pub(crate) keys_compared: bool,
    /// How many keys occur more than once.
    pub(crate) duplicate_keys: u64,
    /// How many keys are left out.
    pub(crate) left_out: u64,
    /// Length in bytes of each input.
    #[serde(skip)]
    pub(crate) lengths: Vec<u64>,
}

/// Looks at the files where that is needed: when there are several, or when it was asked for.
pub(crate) fn check(
    files: &[PathBuf],
    rules: &Rules,
    scratch: PathBuf,
) -> Result<Option<(Checked, LeftOut<File>)>, Failure> {
    if files.len() < 2 && rules.on_duplicate.is_none() {
        return Ok(None);
    }
    let started = Instant::now();
    files.iter().try_for_each(|file| must_be_readable_twice(file))?;
    let counted = parallel::map(files, |file| scan(file, SlotCounts::new(rules.db)));
    let (mut census, mut lengths) = (SlotCensus::new(), Vec::with_capacity(files.len()));
    for counted in counted {
        let (summary, counts) = counted?;
        census.add(&counts);
        lengths.push(summary.bytes);
    }
    let shared_slots = census.shared();
    let keys_compared = rules.on_duplicate.is_some() || !shared_slots.is_empty();
    let (mut duplicate_keys, mut left_out) = (0, LeftOut::none());
    if keys_compared {
        let rule = rule(rules, files.len(), &census)?;
        let scratch = move || tempfile::tempfile_in(&scratch);
        let mut finder = Finder::new(rules.db, Box::new(scratch));
        for file in files {
            finder = scan(file, finder)?.1;
            finder.end_input();
        }
        let found = finder.finish(&rule).map_err(|error| unresolved(error, files, rules))?;
        (duplicate_keys, left_out) = (found.twice, found.left_out);
    }
    let seconds = started.elapsed().as_secs_f64();
    let checked = Checked { seconds, shared_slots, keys_compared, duplicate_keys, left_out: left_out.count, lengths };
    Ok(Some((checked, left_out)))
}

fn must_be_readable_twice(file: &Path) -> Result<(), Failure> {
    if !can_be_read_again(file) {
        let message = format!(
            "{}: it can be read once only, and to find keys that occur twice it must be read again",
            file.display()
        );
        return Err(Failure::new(Class::Refused, message).hint("save it to a file first, and name that"));
    }
    Ok(())
}

/// Scans a whole file, which must be sound.
fn scan<S: Sink>(file: &Path, sink: S) -> Result<(Summary, S), Failure> {
    let mut scanner = Scanner::new(sink);
    let trailing = read(&mut scanner, file)?;
    let scanned = trailing.map_or(Ok(()), Err).and_then(|()| scanner.finish());
    scanned.map_err(|error| Failure::defect(file, &error))
}

fn rule(rules: &Rules, inputs: usize, census: &SlotCensus) -> Result<Rule, Failure> {
    Ok(match rules.on_duplicate.unwrap_or(OnDuplicate::Fail) {
        OnDuplicate::Fail => Rule::Fail,
        OnDuplicate::First => Rule::First,
        OnDuplicate::Last => Rule::Last,
        OnDuplicate::Owner => Rule::Owner(match &rules.source_slots {
            None => census.majority(),
            Some(text) => owners(text, inputs)?,
        }),
    })
}

/// The owner of each slot, as the slots of each input say.
fn owners(text: &str, inputs: usize) -> Result<Vec<u32>, Failure> {
    let usage = |message: String| Failure::new(Class::Usage, message);
    let sets = text.split(';').map(str::parse).collect::<Result<Vec<SlotSet>, _>>();
    let sets = sets.map_err(|error| usage(error.to_string()))?;
    if sets.len() != inputs {
        return Err(usage(format!("--source-slots names the slots of {} inputs, and there are {inputs}", sets.len())));
    }
    // a slot that no input owns belongs to one that does not exist, so that nothing decides
    let mut owners = vec![u32::MAX; usize::from(SLOT_COUNT)];
    for (input, slot) in (0u32..).zip(&sets).flat_map(|(input, slots)| slots.iter().map(move |slot| (input, slot))) {
        if let Some(owner) = owners.get_mut(usize::from(slot)) {
            if *owner != u32::MAX {
                return Err(usage(format!("--source-slots: slot {slot} belongs to two inputs")));
            }
            *owner = input;
        }
    }
    Ok(owners)
}

fn unresolved(error: DuplicateError, files: &[PathBuf], rules: &Rules) -> Failure {
    let DuplicateError::Unresolved { places: [first, second], keys } = error else {
        return Failure::new(Class::Unforeseen, error.to_string());
    };
    let file = |place: Place| usize::try_from(place.input).ok().and_then(|index| files.get(index));
    let shown = |place: Place| file(place).map(|file| file.display().to_string()).unwrap_or_default();
    let key = match file(second).map(|file| key_at(file, second.offset)) {
        Some(Ok(Some((db, name)))) => format!("key \"{name}\" of database {db}"),
        Some(Err(failure)) => return failure,
        Some(Ok(None)) | None => "a key".to_owned(),
    };
    let more = if keys > 1 { format!(" ({} more keys occur more than once)", keys - 1) } else { String::new() };
    let message = format!(
        "{key} is in {} at byte {} and in {} at byte {}{more}",
        shown(first),
        first.offset,
        shown(second),
        second.offset
    );
    Failure::new(Class::Refused, message).hint(match rules.on_duplicate {
        Some(OnDuplicate::Owner) => {
            "the owner of the slot does not hold the key once: choose --on-duplicate first or last"
        }
        _ => "choose which stays: --on-duplicate first, last or owner",
    })
}

/// Database and name of the key whose entry begins at a place.
pub(super) fn key_at(file: &Path, offset: u64) -> Result<Option<(u64, String)>, Failure> {
    let mut input = Input::open(file)?;
    let mut scanner = Scanner::new(KeyAt { offset, found: None });
    while scanner.sink().found.is_none() {
        let bytes = input.next()?;
        if bytes.is_empty() || scanner.feed(bytes).is_err() {
            break;
        }
    }
    Ok(scanner.into_sink().found)
}

struct KeyAt {
    offset: u64,
    found: Option<(u64, String)>,
}

impl Sink for KeyAt {
    const TEMPLATES: bool = true;

    fn key(&mut self, key: &Key<'_>) {
        if key.offset == self.offset {
            let name = key.name.get(..NAME_SHOWN_MAX).unwrap_or(key.name);
            self.found = Some((key.db, name.escape_ascii().to_string()));
        }
    }
}
