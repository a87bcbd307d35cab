//! Arbitrary RDBs, arbitrary cuts, arbitrary damage.

#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

#[path = "support/arbitrary.rs"]
mod arbitrary;
#[path = "support/events.rs"]
mod events;

use std::collections::BTreeMap;

use arbitrary::{Part, part, raw, rdb};
use events::{Event, scan};
use policies::shards;
use policies::slot::{SlotSet, key_slot};
use proptest::prelude::*;
use rdbtools::scan::CrcState;
use rdbtools::split::{SplitError, SplitOptions, Splitter, Ttl};
use rdbtools::{ErrorKind, Key, RdbVersion, Scanner, Sink};

/// What a key is, its place in the file left out.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    expiry: Option<i64>,
    idle: Option<u64>,
    frequency: Option<u8>,
    code: u8,
    value: Vec<u8>,
}

/// Keys by database and name.
type Keyspace = BTreeMap<(u64, Vec<u8>), Entry>;

#[derive(Debug, Default)]
struct Collect {
    keys: Vec<((u64, Vec<u8>), Entry)>,
    functions: Vec<Vec<u8>>,
}

impl Sink for Collect {
    fn function(&mut self, source: &[u8]) {
        self.functions.push(source.to_vec());
    }
    fn key(&mut self, key: &Key<'_>) {
        let entry = Entry {
            expiry: key.expires_at_ms,
            idle: key.idle_s,
            frequency: key.frequency,
            code: key.value_type.code(),
            value: Vec::new(),
        };
        self.keys.push(((key.db, key.name.to_vec()), entry));
    }
    fn raw(&mut self, bytes: &[u8]) {
        self.keys.last_mut().unwrap().1.value.extend(bytes);
    }
}

fn collect(bytes: &[u8]) -> Collect {
    let mut scanner = Scanner::new(Collect::default());
    assert_eq!(scanner.feed(bytes).unwrap(), bytes.len());
    let (summary, collected) = scanner.finish().unwrap();
    assert_eq!(summary.crc, CrcState::Ok);
    collected
}

/// The parts with every name once per database, as a server would write them.
fn unique(parts: &[Part]) -> (Vec<Part>, Keyspace) {
    let (mut db, mut keyspace, mut kept) = (0, Keyspace::new(), Vec::new());
    for part in parts {
        if let Part::SelectDb(number) = part {
            db = *number;
        }
        if let Part::Key { expiry, idle, frequency, name, value } = part {
            let entry =
                Entry { expiry: *expiry, idle: *idle, frequency: *frequency, code: value.code(), value: raw(value) };
            if keyspace.contains_key(&(db, name.plain())) {
                continue;
            }
            keyspace.insert((db, name.plain()), entry);
        }
        kept.push(part.clone());
    }
    (kept, keyspace)
}

fn split(
    inputs: &[&[u8]],
    targets: &[SlotSet],
    options: &SplitOptions,
    piece: usize,
) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut splitter = Splitter::new(targets.to_vec(), vec![Vec::new(); targets.len()], options.clone())?;
    for input in inputs {
        splitter.begin_input("input")?;
        for piece in input.chunks(piece) {
            splitter.feed(piece)?;
        }
        splitter.end_input()?;
    }
    Ok(splitter.finish()?.into_iter().map(|output| output.writer).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_written_is_read(parts in proptest::collection::vec(part(), 0..20)) {
        let (parts, keyspace) = unique(&parts);
        let bytes = rdb(&parts);
        let collected = collect(&bytes);
        prop_assert_eq!(collected.keys.into_iter().collect::<Keyspace>(), keyspace);
        let functions = parts.iter().filter(|part| matches!(part, Part::Function(_))).count();
        prop_assert_eq!(collected.functions.len(), functions);
    }

    #[test]
    fn cuts_change_nothing(
        parts in proptest::collection::vec(part(), 0..12),
        cuts in proptest::collection::vec(1usize..3000, 1..9),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        end in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = rdb(&parts);
        if let Some((place, byte)) = damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        let (whole, outcome) = scan(&bytes, &[usize::MAX]);
        for cuts in [&[1][..], &[7, 1, 300], &cuts] {
            let (pieces, other) = scan(&bytes, cuts);
            prop_assert_eq!(&other, &outcome);
            // what passed before a defect was told to its last byte where pieces were small, but no further
            let shared = whole.len().min(pieces.len());
            let (last_raw, same) = (matches!(whole.last(), Some(Event::Raw(_))), whole.len() == pieces.len());
            if outcome.is_ok() || (!last_raw && same) {
                prop_assert_eq!(&pieces, &whole);
            } else {
                let told = shared.saturating_sub(1);
                prop_assert_eq!(&pieces[..told], &whole[..told]);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..3000), known in any::<bool>()) {
        let bytes = if known { [b"REDIS0013".to_vec(), bytes].concat() } else { bytes };
        let (_, outcome) = scan(&bytes, &[usize::MAX]);
        if let Err(error) = outcome {
            prop_assert!(error.offset <= bytes.len() as u64);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(
        parts in proptest::collection::vec(part(), 1..8),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut bytes = rdb(&parts);
        // a version below 5 has no checksum, and one of zero says that there is none
        let place = 9 + place.index(bytes.len() - 9);
        bytes[place] ^= 1 << bit;
        let (_, outcome) = scan(&bytes, &[4096]);
        let summary = outcome.map(|summary| (summary.crc, summary.bytes == bytes.len() as u64));
        prop_assert!(summary != Ok((CrcState::Ok, true)), "{:?}", summary);
    }

    #[test]
    fn a_cut_is_noticed(parts in proptest::collection::vec(part(), 0..8), end in any::<prop::sample::Index>()) {
        let bytes = rdb(&parts);
        let end = end.index(bytes.len());
        let (_, outcome) = scan(&bytes[..end], &[4096]);
        let error = outcome.unwrap_err();
        prop_assert_eq!((error.kind, error.offset), (ErrorKind::Truncated, end as u64));
    }

    #[test]
    fn a_split_keeps_every_key_in_its_place(
        parts in proptest::collection::vec(part(), 0..25),
        count in 1usize..7,
        piece in 1usize..5000,
    ) {
        let parts: Vec<Part> = parts.into_iter().filter(|part| !matches!(part, Part::SelectDb(_))).collect();
        let (parts, keyspace) = unique(&parts);
        let bytes = rdb(&parts);
        let targets = shards::equal(count).unwrap();
        let outputs = split(&[&bytes], &targets, &SplitOptions::new(RdbVersion::redis(12)), piece).unwrap();
        let mut union = Keyspace::new();
        for (slots, output) in targets.iter().zip(&outputs) {
            for ((db, name), entry) in collect(output).keys {
                prop_assert!(slots.contains(key_slot(&name)));
                prop_assert!(union.insert((db, name), entry).is_none());
            }
        }
        prop_assert_eq!(&union, &keyspace);
        // and put together again, in the other order
        let inputs: Vec<&[u8]> = outputs.iter().rev().map(Vec::as_slice).collect();
        let options = SplitOptions { cluster: false, ..SplitOptions::new(RdbVersion::redis(12)) };
        let merged = split(&inputs, &[SlotSet::full()], &options, piece).unwrap();
        let merged = collect(&merged[0]);
        prop_assert_eq!(merged.keys.into_iter().collect::<Keyspace>(), keyspace);
        let mut functions: Vec<Vec<u8>> = parts.iter().filter_map(|part| match part {
            Part::Function(source) => Some(source.clone()),
            _ => None,
        }).collect();
        functions.sort();
        functions.dedup();
        let mut carried = merged.functions;
        carried.sort();
        prop_assert_eq!(carried, functions);
    }

    #[test]
    fn databases_are_kept_picked_or_refused(parts in proptest::collection::vec(part(), 0..25), pick in 0u64..4) {
        let (parts, keyspace) = unique(&parts);
        let bytes = rdb(&parts);
        let standalone = SplitOptions { cluster: false, ..SplitOptions::new(RdbVersion::redis(11)) };
        let all = split(&[&bytes], &[SlotSet::full()], &standalone, 999).unwrap();
        prop_assert_eq!(&collect(&all[0]).keys.into_iter().collect::<Keyspace>(), &keyspace);

        let cluster = SplitOptions::new(RdbVersion::redis(11));
        let targets = shards::equal(2).unwrap();
        let refused = split(&[&bytes], &targets, &cluster, 999);
        prop_assert_eq!(refused.is_err(), keyspace.keys().any(|(db, _)| *db > 0));
        if let Err(error) = refused {
            let is_refusal = matches!(error, SplitError::Refused { .. });
            prop_assert!(is_refusal, "{}", error);
        }

        let picked = SplitOptions { db: Some(pick), ..cluster };
        let outputs = split(&[&bytes], &targets, &picked, 999).unwrap();
        let union: Keyspace = outputs.iter().flat_map(|output| collect(output).keys).collect();
        let expected: Keyspace =
            keyspace.into_iter().filter(|((db, _), _)| *db == pick).map(|((_, name), entry)| ((0, name), entry)).collect();
        prop_assert_eq!(union, expected);
    }

    #[test]
    fn expiries_are_kept_dropped_or_moved(parts in proptest::collection::vec(part(), 0..20), by in any::<i64>()) {
        let (parts, keyspace) = unique(&parts);
        let bytes = rdb(&parts);
        for ttl in [Ttl::Drop, Ttl::Shift(by)] {
            let options = SplitOptions { cluster: false, ttl, ..SplitOptions::new(RdbVersion::redis(11)) };
            let outputs = split(&[&bytes], &[SlotSet::full()], &options, 4096).unwrap();
            let found: Keyspace = collect(&outputs[0]).keys.into_iter().collect();
            let expected: Keyspace = keyspace.iter().map(|(name, entry)| {
                let expiry = match ttl {
                    Ttl::Shift(by) => entry.expiry.map(|at| at.saturating_add(by)),
                    Ttl::Drop | Ttl::Keep => None,
                };
                (name.clone(), Entry { expiry, ..entry.clone() })
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
