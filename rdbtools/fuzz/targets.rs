//! What is fuzzed. A target takes any bytes and panics where a promise of the library is broken.

use policies::shards;
use policies::slot::{SlotSet, key_slot};
use rdbtools::info::InfoSink;
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::{Key, RdbVersion, Scanner, Sink, write};

use super::events::scan;
use super::seeds;

/// A target, the inputs that are known to be worth mutating, and what is done with each.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    pub(crate) run: fn(&[u8]),
}

/// All targets: one line adds one.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "scanner", seeds: seeds::rdbs, run: scanner },
    Target { name: "lzf", seeds: seeds::compressed, run: lzf },
    Target { name: "split", seeds: seeds::rdbs, run: split },
];

/// The target of this name.
pub(crate) fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// However the bytes are cut, a scan ends with the same answer, inside the bytes.
fn scanner(bytes: &[u8]) {
    let (whole, outcome) = scan(bytes, &[usize::MAX]);
    let byte = bytes.get(bytes.len() / 2).copied().unwrap_or(0);
    for cuts in [&[1][..], &[usize::from(byte) + 1, 3, 1000]] {
        let (pieces, other) = scan(bytes, cuts);
        assert_eq!(other, outcome);
        assert!(outcome.is_err() || pieces == whole, "cuts change what is told");
    }
    match outcome {
        Ok(summary) => assert!(summary.bytes <= bytes.len() as u64),
        Err(error) => assert!(error.offset <= bytes.len() as u64, "{error}"),
    }
    let mut scanner = Scanner::new(InfoSink::new(3, 0));
    let _ = scanner.feed(bytes);
    if let Ok((summary, sink)) = scanner.finish() {
        let info = InfoSink::into_info(&summary, sink);
        assert_eq!(info.slots.iter().map(|range| range.keys).sum::<u64>(), info.report.keys);
    }
}

/// A compressed string is walked, in any pieces, as it unpacks. The first two bytes are the length it declares.
fn lzf(bytes: &[u8]) {
    let Some((declared, packed)) = bytes.split_first_chunk::<2>() else { return };
    if packed.is_empty() {
        return;
    }
    let mut string = vec![0xc3];
    write::put_length(&mut string, packed.len() as u64);
    write::put_length(&mut string, u16::from_le_bytes(*declared).into());
    string.extend(packed);
    // as a value it is walked; as a name it is unpacked
    let value = rdb(|out| {
        write::put_string(out, b"key");
        out.extend(&string);
    });
    let name = rdb(|out| {
        out.extend(&string);
        write::put_string(out, b"value");
    });
    let message = |bytes: &[u8], cuts: &[usize]| scan(bytes, cuts).1.err().map(|error| error.message);
    let unpacked = message(&name, &[usize::MAX]);
    for cuts in [&[usize::MAX][..], &[1], &[5, 1, 33]] {
        assert_eq!(message(&value, cuts), unpacked);
    }
}

fn rdb(entry: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let version = RdbVersion::redis(4);
    let mut out = version.header();
    out.push(0);
    entry(&mut out);
    write::finish(&mut out, version);
    out
}

/// Keys with all that belongs to them.
#[derive(Default)]
struct Entries(Vec<(String, Vec<u8>)>, Vec<u16>, bool);

impl Sink for Entries {
    fn key(&mut self, key: &Key<'_>) {
        self.0.push((format!("{:?}", Key { offset: 0, ..*key }), Vec::new()));
        self.1.push(key_slot(key.name));
        self.2 = true;
    }

    fn raw(&mut self, bytes: &[u8]) {
        if let (true, Some((_, value))) = (self.2, self.0.last_mut()) {
            value.extend(bytes);
        }
    }

    fn key_end(&mut self, _bytes: u64) {
        self.2 = false;
    }
}

fn entries(bytes: &[u8]) -> Option<Entries> {
    let mut scanner = Scanner::new(Entries::default());
    scanner.feed(bytes).ok()?;
    scanner.finish().ok().map(|(_, entries)| entries)
}

/// What is sound is split and merged again without a loss, or refused for a reason; what is not is an error.
fn split(bytes: &[u8]) {
    let before = entries(bytes);
    let version = bytes.first_chunk().and_then(RdbVersion::from_header).unwrap_or(RdbVersion::redis(13));
    let options = SplitOptions { cluster: false, ..SplitOptions::new(version) };
    let targets = shards::equal(3).unwrap_or_default();
    let outputs = match split_once(&[bytes], &targets, &options) {
        Ok(outputs) => outputs,
        Err(SplitError::Refused { .. }) => return,
        Err(error) => return assert!(before.is_none(), "a sound file is not split: {error}"),
    };
    let Some(before) = before else { panic!("a defective file was split") };
    for (slots, output) in targets.iter().zip(&outputs) {
        let Some(entries) = entries(output) else { panic!("an output is not sound") };
        assert!(entries.1.iter().all(|slot| slots.contains(*slot)), "a key is in the wrong output");
    }
    let outputs: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
    match split_once(&outputs, &[SlotSet::full()], &options) {
        Ok(merged) => {
            let after = merged.first().and_then(|merged| entries(merged));
            let sorted = |entries: Option<Entries>| {
                entries.map(|mut entries| {
                    entries.0.sort();
                    entries.0
                })
            };
            assert_eq!(sorted(after), sorted(Some(before)));
        }
        Err(error) => panic!("the outputs do not merge: {error}"),
    }
}

fn split_once(inputs: &[&[u8]], targets: &[SlotSet], options: &SplitOptions) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut splitter = Splitter::new(targets.to_vec(), vec![Vec::new(); targets.len()], options.clone())?;
    for input in inputs {
        splitter.begin_input("input")?;
        splitter.feed(input)?;
        splitter.end_input()?;
    }
    Ok(splitter.finish()?.into_iter().map(|output| output.writer).collect())
}
