//! Keys that occur more than once, in arbitrary keyspaces: what stays is what the rule says.

#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

#[path = "support/arbitrary.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod arbitrary;

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use arbitrary::{Part, Text, part, rdb};
use policies::shards;
use policies::slot::{SLOT_COUNT, key_slot};
use proptest::prelude::*;
use rdbtools::duplicates::{DuplicateError, Finder, Found, Place, Rule, SlotCensus, SlotCounts};
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::{Key, RdbVersion, Scanner, Sink};

/// Database and name.
type Name = (u64, Vec<u8>);

/// A place, and the value there.
type Located = (Place, Vec<u8>);

/// Places of keys and their values.
#[derive(Debug, Default)]
struct Everything {
    input: u32,
    keys: Vec<(Name, Place, Vec<u8>)>,
}

impl Sink for Everything {
    fn key(&mut self, key: &Key<'_>) {
        let place = Place { input: self.input, offset: key.offset };
        self.keys.push(((key.db, key.name.to_vec()), place, Vec::new()));
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.keys.last_mut().unwrap().2.extend(bytes);
    }
}

fn scan<S: Sink>(bytes: &[u8], sink: S) -> S {
    let mut scanner = Scanner::new(sink);
    scanner.feed(bytes).unwrap();
    scanner.finish().unwrap().1
}

fn find(inputs: &[Vec<u8>], rule: &Rule) -> Result<Found<Cursor<Vec<u8>>>, DuplicateError> {
    let mut finder = Finder::new(None, Box::new(|| Ok(Cursor::new(Vec::new()))));
    for input in inputs {
        finder = scan(input, finder);
        finder.end_input();
    }
    finder.finish(rule)
}

fn split(
    inputs: &[Vec<u8>],
    shards: usize,
    places: impl Iterator<Item = io::Result<Place>> + Send + 'static,
) -> Result<Vec<Vec<u8>>, SplitError> {
    let options = SplitOptions { cluster: false, ..SplitOptions::new(RdbVersion::redis(11)) };
    let mut splitter = Splitter::new(shards::equal(shards).unwrap(), vec![Vec::new(); shards], options)?;
    splitter.leave_out(places)?;
    for input in inputs {
        splitter.begin_input("input")?;
        splitter.feed(input)?;
        splitter.end_input()?;
    }
    Ok(splitter.finish()?.into_iter().map(|output| output.writer).collect())
}

fn owners(inputs: &[Vec<u8>]) -> Vec<u32> {
    let mut census = SlotCensus::new();
    for input in inputs {
        census.add(&scan(input, SlotCounts::new(None)));
    }
    census.majority()
}

/// Inputs whose keys have few names, so that many occur more than once.
fn inputs() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let named = |part: Part, name: u8| match part {
        Part::Key { expiry, idle, frequency, value, .. } => {
            Part::Key { expiry, idle, frequency, name: Text::Plain(vec![name]), value }
        }
        Part::Function(_) => Part::Function(b"the same".to_vec()),
        Part::SelectDb(db) => Part::SelectDb(db % 3),
        other => other,
    };
    let parts = proptest::collection::vec((part(), 0u8..12), 0..12);
    let input =
        parts.prop_map(move |parts| rdb(&parts.into_iter().map(|(part, name)| named(part, name)).collect::<Vec<_>>()));
    proptest::collection::vec(input, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_union_of_outputs_is_what_the_rule_leaves_of_the_inputs(inputs in inputs(), shards in 1usize..4) {
        let mut keys: BTreeMap<Name, Vec<Located>> = BTreeMap::new();
        for (input, bytes) in (0..).zip(&inputs) {
            for (key, place, value) in scan(bytes, Everything { input, keys: Vec::new() }).keys {
                keys.entry(key).or_default().push((place, value));
            }
        }
        let twice = keys.values().filter(|places| places.len() > 1).count() as u64;
        let majority = owners(&inputs);
        for rule in [Rule::Fail, Rule::First, Rule::Last, Rule::Owner(majority)] {
            let stays = |key: &[u8], places: &[Located]| match &rule {
                _ if places.len() == 1 => Some(0),
                Rule::Fail => None,
                Rule::First => Some(0),
                Rule::Last => Some(places.len() - 1),
                Rule::Owner(owners) => {
                    let is_owner = |(place, _): &Located| place.input == owners[usize::from(key_slot(key))];
                    let one = places.iter().filter(|place| is_owner(place)).count() == 1;
                    places.iter().position(is_owner).filter(|_| one)
                }
            };
            let expected: Option<Vec<_>> = keys
                .iter()
                .map(|((db, key), places)| Some(((*db, key.clone()), places[stays(key, places)?].1.clone())))
                .collect();
            let undecided = keys.iter().filter(|((_, key), places)| stays(key, places).is_none()).count() as u64;
            match (find(&inputs, &rule), expected) {
                (Ok(found), Some(expected)) => {
                    prop_assert_eq!(found.twice, twice);
                    let outputs = split(&inputs, shards, found.left_out).unwrap();
                    let union = outputs.iter().flat_map(|output| scan(output, Everything::default()).keys);
                    let mut union: Vec<_> = union.map(|(key, _, value)| (key, value)).collect();
                    union.sort();
                    prop_assert_eq!(union, expected);
                }
                (Err(DuplicateError::Unresolved { places, keys: count }), None) => {
                    prop_assert_eq!(count, undecided);
                    let named: Vec<_> = keys.values().filter(|all| places.iter().all(|one| all.iter().any(|(place, _)| place == one))).collect();
                    prop_assert_eq!(named.len(), 1, "the two places are of one key");
                    prop_assert!(places[0] < places[1]);
                }
                (found, expected) => prop_assert!(false, "{:?} {:?} {:?}", rule, found, expected),
            }
        }
    }

    #[test]
    fn inputs_that_share_no_slot_share_no_key(inputs in inputs()) {
        let mut census = SlotCensus::new();
        let mut slots: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, input) in inputs.iter().enumerate() {
            census.add(&scan(input, SlotCounts::new(None)));
            for ((_, name), _, _) in scan(input, Everything::default()).keys {
                slots.entry(key_slot(&name)).or_default().push(index);
            }
        }
        let shared = slots.iter().filter(|(_, inputs)| inputs.iter().any(|index| index != &inputs[0]));
        prop_assert_eq!(census.shared(), shared.map(|(slot, _)| *slot).collect());
    }
}

#[test]
fn an_input_that_changed_is_noticed() {
    let key = |name: &str| Part::Key {
        expiry: None,
        idle: None,
        frequency: None,
        name: Text::Plain(name.into()),
        value: arbitrary::Value::One(Text::Int(1)),
    };
    let inputs = [rdb(&[key("foo")]), rdb(&[key("foo")])];
    let found = find(&inputs, &Rule::Last).unwrap();
    let changed = [rdb(&[Part::SelectDb(0), key("foo")]), inputs[1].clone()];
    assert!(matches!(split(&changed, 1, found.left_out), Err(SplitError::Refused { .. })));
    let broken = std::iter::once(Err(io::ErrorKind::UnexpectedEof.into()));
    assert!(matches!(split(&inputs, 1, broken), Err(SplitError::LeftOut(_))));
    assert_eq!(owners(&inputs).len(), usize::from(SLOT_COUNT));
}
