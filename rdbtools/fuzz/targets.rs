//! What is fuzzed. A target takes any bytes and panics where a promise of the library is broken.

use policies::shards;
use policies::slot::{SlotSet, key_slot};
use rdbtools::convert::{self, ConvertError, ConvertOptions, Converter, LossKind};
use rdbtools::decode::Decoder;
use rdbtools::deep::DeepSink;
use rdbtools::info::InfoSink;
use rdbtools::packed::{Element, Kind, Walk};
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::{Key, RdbVersion, ScanError, Scanner, Sink, write};

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
    Target { name: "packed", seeds: seeds::packed, run: packed },
    Target { name: "deep", seeds: seeds::deep, run: deep },
    Target { name: "split", seeds: seeds::rdbs, run: split },
    Target { name: "convert", seeds: seeds::rdbs, run: convert },
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

/// A packed value is walked to the same end in any pieces. The first byte says which encoding.
fn packed(bytes: &[u8]) {
    let Some((kind, value)) = bytes.split_first() else { return };
    let kinds = [Kind::Listpack, Kind::Ziplist, Kind::Intset, Kind::Zipmap];
    let kind = kinds[usize::from(kind % 4)];
    let walk = |cut: usize| {
        let (mut walk, mut elements) = (Walk::new(kind, value.len() as u64), 0u64);
        let walked = value.chunks(cut).try_for_each(|piece| {
            walk.push(piece, |element| elements += u64::from(!matches!(element, Element::Piece(_))))
        });
        walked.map(|()| elements)
    };
    let whole = walk(usize::MAX);
    for cut in [1, 3, 17] {
        assert_eq!(walk(cut), whole);
    }
    if let Err(error) = whole {
        assert!(error.offset <= value.len() as u64, "{error}");
    }
}

/// A closer check ends with the same answer however the bytes are cut, and accepts nothing that a scan refuses.
fn deep(bytes: &[u8]) {
    let check = |cut: usize| {
        let mut scanner = Scanner::new(Decoder::new(DeepSink::new(())));
        for piece in bytes.chunks(cut) {
            scanner.feed(piece)?;
        }
        scanner.finish().map(|(summary, sink)| (summary, sink.into_values().found()))
    };
    let whole = check(usize::MAX);
    for cut in [1, 7, 300] {
        let pieces = check(cut);
        // where a compressed string is not sound, a defect in what it unpacks to may be told before it or after it
        let compressed = |error: &ScanError| error.message.contains("compressed");
        let errors = whole.as_ref().err().zip(pieces.as_ref().err());
        let either = errors.is_some_and(|(a, b)| compressed(a) || compressed(b));
        assert!(pieces == whole || either, "{pieces:?}, not {whole:?}");
    }
    let (_, framing) = scan(bytes, &[usize::MAX]);
    assert!(whole.is_err() || framing.is_ok());
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
    const TEMPLATES: bool = true;

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

/// What is converted is sound, holds as many keys as it says, and needs no more for the same engine; cuts change nothing.
/// What is not sound is an error.
fn convert(bytes: &[u8]) {
    let is_sound = entries(bytes).is_some();
    for target in convert::Target::all() {
        let converted = match convert_once(bytes, target, usize::MAX) {
            Ok(converted) => converted,
            Err(ConvertError::Scan(_) | ConvertError::TooLarge { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        assert!(is_sound, "a defective file was converted");
        let Some(after) = entries(&converted.writer) else { panic!("what was converted is not sound") };
        assert_eq!(after.0.len() as u64, converted.keys);
        let cut = usize::from(bytes.get(bytes.len() / 2).copied().unwrap_or(0)) + 1;
        for (bytes, cut) in [(bytes, cut), (&converted.writer, usize::MAX)] {
            match convert_once(bytes, target, cut) {
                Ok(again) => assert_eq!(again.writer, converted.writer),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn convert_once(
    bytes: &[u8],
    target: convert::Target,
    cut: usize,
) -> Result<convert::Converted<Vec<u8>>, ConvertError> {
    let options = ConvertOptions { drop: LossKind::REFUSED.to_vec(), ..ConvertOptions::new(target) };
    let mut converter = Converter::new(Vec::new(), options);
    for piece in bytes.chunks(cut) {
        converter.feed(piece)?;
    }
    converter.finish()
}
