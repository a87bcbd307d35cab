//! What a split carries, drops, notes and refuses, besides keys.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panic")]

#[path = "support/events.rs"]
mod events;

use events::{Event, scan};
use policies::shards;
use policies::slot::SlotSet;
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::write::{finish, put_aux, put_function, put_length, put_module_aux, put_select_db, put_string};
use rdbtools::{ModuleId, RdbVersion};

const MODULE: ModuleId = ModuleId(0x1234_5678_9abc_d003);

fn rdb(version: RdbVersion, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = version.header();
    body(&mut out);
    finish(&mut out, version);
    out
}

fn put_key(out: &mut Vec<u8>, name: &str) {
    out.push(0);
    put_string(out, name.as_bytes());
    put_string(out, b"value");
}

fn put_module(out: &mut Vec<u8>, when: u64, text: &str) {
    put_module_aux(out, MODULE, when);
    out.push(5);
    put_string(out, text.as_bytes());
    out.push(0);
}

/// The outputs of a split as events, and the notes.
fn split(
    inputs: &[Vec<u8>],
    shards: usize,
    options: &SplitOptions,
) -> Result<(Vec<Vec<Event>>, Vec<String>), SplitError> {
    let mut splitter = Splitter::new(shards::equal(shards).unwrap(), vec![Vec::new(); shards], options.clone())?;
    for (index, input) in inputs.iter().enumerate() {
        splitter.begin_input(&format!("input {index}"))?;
        splitter.feed(input)?;
        splitter.end_input()?;
    }
    let notes = splitter.notes();
    let outputs = splitter.finish()?;
    let events = outputs.iter().map(|output| {
        let (events, outcome) = scan(&output.writer, &[100]);
        outcome.unwrap();
        events
    });
    Ok((events.collect(), notes))
}

fn refusal(inputs: &[Vec<u8>], options: &SplitOptions) -> (String, String) {
    match split(inputs, 2, options) {
        Err(SplitError::Refused { input, message, hint }) => {
            assert!(!hint.is_empty());
            (input, message)
        }
        other => panic!("{other:?}"),
    }
}

const V12: RdbVersion = RdbVersion::redis(12);

#[test]
fn functions_and_module_data_are_in_every_output_once() {
    let input = rdb(V12, |out| {
        put_function(out, b"#!lua name=one\nreturn 1");
        put_function(out, b"#!lua name=two\nreturn 2");
        put_module(out, 1, "before");
        put_module(out, 1, "before too");
        put_key(out, "foo");
        put_module(out, 2, "after");
    });
    let (outputs, notes) =
        split(&[input.clone(), rdb(V12, |out| put_key(out, "bar")), input], 3, &SplitOptions::new(V12)).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    for events in &outputs {
        let functions = events.iter().filter(|event| matches!(event, Event::Function(_))).count();
        assert_eq!(functions, 2);
        let raw = |text: &str| {
            let mut out = vec![5];
            put_string(&mut out, text.as_bytes());
            out.push(0);
            Event::Raw(out)
        };
        let modules: Vec<&Event> = events.iter().skip_while(|event| !matches!(event, Event::ModuleAux(..))).collect();
        assert_eq!(
            modules[..6],
            [
                &Event::ModuleAux(MODULE, 1),
                &raw("before"),
                &Event::ModuleAuxEnd,
                &Event::ModuleAux(MODULE, 1),
                &raw("before too"),
                &Event::ModuleAuxEnd
            ]
        );
        assert_eq!(modules[modules.len() - 3..], [&Event::ModuleAux(MODULE, 2), &raw("after"), &Event::ModuleAuxEnd]);
    }
}

#[test]
fn module_data_that_differs_is_noted_and_the_first_kept() {
    let input = |text: &'static str| rdb(V12, move |out| put_module(out, 1, text));
    let (outputs, notes) = split(&[input("a"), input("b")], 1, &SplitOptions::new(V12)).unwrap();
    assert_eq!(outputs[0].iter().filter(|event| matches!(event, Event::ModuleAux(..))).count(), 1);
    assert!(matches!(&notes[..], [note] if note.contains("differs in 1 input")), "{notes:?}");
}

#[test]
fn a_library_that_differs_is_refused() {
    let input = |code: &'static [u8]| rdb(V12, move |out| put_function(out, code));
    let inputs = [input(b"#!lua name=mylib\nreturn 1"), input(b"#!lua name=mylib\nreturn 2")];
    let (input, message) = refusal(&inputs, &SplitOptions::new(V12));
    assert_eq!(input, "input 1");
    assert!(message.contains("mylib"), "{message}");
}

#[test]
fn functions_of_release_candidates_are_refused() {
    let input = rdb(V12, |out| {
        out.push(246);
        put_string(out, b"old");
        put_string(out, b"LUA");
        put_length(out, 1);
        put_string(out, b"description");
        put_string(out, b"return 1");
    });
    assert!(refusal(&[input], &SplitOptions::new(V12)).1.contains("old"));
}

#[test]
fn an_input_newer_than_the_output_is_refused() {
    for version in [RdbVersion::redis(13), RdbVersion::valkey(80)] {
        let (input, message) = refusal(&[rdb(version, |_| ())], &SplitOptions::new(V12));
        assert_eq!(input, "input 0");
        assert!(message.contains(&version.to_string()) && message.contains("REDIS0012"), "{message}");
    }
}

#[test]
fn what_redis_and_valkey_have_in_common_goes_under_the_header_of_valkey() {
    let options = SplitOptions::new(RdbVersion::valkey(80));
    let old = |code: u8| {
        rdb(RdbVersion::redis(11), |out| {
            out.push(code);
            put_string(out, b"key");
            put_string(out, &[0; 8]);
            put_string(out, b"value");
        })
    };
    // type 24 is one of Redis 7.4, so that a file of version 11 that has it was written by no release
    let (_, message) = refusal(&[old(24)], &options);
    assert!(message.contains("key") && message.contains("hash_metadata") && message.contains("VALKEY080"), "{message}");
    let (_, message) = refusal(&[rdb(RdbVersion::redis(12), |_| ())], &options);
    assert!(message.contains("REDIS0012"), "{message}");
    let plain = rdb(RdbVersion::redis(11), |out| put_key(out, "key"));
    let valkey = rdb(RdbVersion::valkey(80), |out| put_key(out, "other"));
    let (outputs, _) = split(&[plain, valkey], 2, &options).unwrap();
    let keys = outputs.iter().flatten().filter(|event| matches!(event, Event::Key(_))).count();
    assert_eq!(keys, 2);
}

#[test]
fn a_database_that_a_cluster_lacks_is_refused_by_name_and_size() {
    let input = rdb(V12, |out| {
        put_select_db(out, 7);
        out.push(251);
        put_length(out, 1234);
        put_length(out, 0);
        put_key(out, "foo");
    });
    let (_, message) = refusal(&[input], &SplitOptions::new(V12));
    assert!(message.contains("database 7") && message.contains("1234 keys"), "{message}");
}

#[test]
fn facts_of_the_engine_are_carried_and_those_of_the_save_are_not() {
    let input = |version: &'static str| {
        rdb(V12, move |out| {
            for (name, value) in [
                ("redis-ver", version),
                ("redis-bits", "64"),
                ("ctime", "1"),
                ("used-mem", "2"),
                ("repl-id", "c0ffee"),
                ("repl-offset", "3"),
                ("aof-base", "1"),
            ] {
                put_aux(out, name.as_bytes(), value.as_bytes());
            }
        })
    };
    let options = SplitOptions { now_unix_ms: 1_700_000_000_123, ..SplitOptions::new(V12) };
    let (outputs, _) = split(&[input("8.0.0"), input("8.0.1")], 2, &options).unwrap();
    for events in &outputs {
        let facts: Vec<(&str, &str)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Aux(name, value) => {
                    Some((std::str::from_utf8(name).unwrap(), std::str::from_utf8(value).unwrap()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(facts, [("ctime", "1700000000"), ("redis-ver", "8.0.0"), ("redis-bits", "64")]);
    }
}

#[test]
fn an_import_of_slots_is_left_out_and_noted() {
    let version = RdbVersion::valkey(80);
    let input = rdb(version, |out| {
        out.push(243);
        put_string(out, &[b'a'; 40]);
        put_length(out, 1);
        put_length(out, 0);
        put_length(out, 16383);
    });
    let (_, notes) = split(&[input], 2, &SplitOptions::new(version)).unwrap();
    assert!(matches!(&notes[..], [note] if note.contains("imports of slots")), "{notes:?}");
}

#[test]
fn metadata_of_keys_is_carried() {
    let version = RdbVersion::redis(13);
    let mut meta = vec![243];
    put_length(&mut meta, 2);
    for class in 0..2 {
        meta.extend([1, 2, 3, class, 2, 42, 5]);
        put_string(&mut meta, b"text");
        meta.push(0);
    }
    let input = rdb(version, |out| {
        out.extend([252, 0, 0, 0, 0, 1, 0, 0, 0]);
        out.extend(&meta);
        put_key(out, "foo");
        put_key(out, "bar");
    });
    let (before, outcome) = scan(&input, &[1]);
    outcome.unwrap();
    let shown = format!("meta: {meta:?}");
    let keys = |events: &[Event]| -> Vec<String> {
        let keys = events.iter().filter_map(|event| if let Event::Key(key) = event { Some(key.clone()) } else { None });
        keys.filter(|key| key.contains(&shown)).collect()
    };
    assert_eq!(keys(&before).len(), 1);
    let (outputs, _) = split(&[input], 1, &SplitOptions { cluster: false, ..SplitOptions::new(version) }).unwrap();
    assert_eq!(keys(&outputs[0]).len(), 1);
}

#[test]
fn targets_must_hold_every_slot_once() {
    let half = SlotSet::range(0, 8191).unwrap();
    let new = |targets: Vec<SlotSet>, outputs: usize| {
        Splitter::new(targets, vec![Vec::new(); outputs], SplitOptions::new(V12)).err()
    };
    assert!(matches!(new(vec![half.clone()], 1), Some(SplitError::Plan(_))));
    assert!(matches!(new(vec![half.clone(), SlotSet::full()], 2), Some(SplitError::Plan(_))));
    assert!(matches!(new(vec![half.clone(), half.complement()], 3), Some(SplitError::Order(_))));
    assert!(new(vec![half.clone(), half.complement()], 2).is_none());
}

#[test]
fn calls_in_the_wrong_order_are_answered() {
    let mut splitter = Splitter::new(vec![SlotSet::full()], vec![Vec::new()], SplitOptions::new(V12)).unwrap();
    assert!(matches!(splitter.feed(b"REDIS0012"), Err(SplitError::Order(_))));
    assert!(matches!(splitter.begin_input("a"), Err(SplitError::Order(_))), "nothing works after an error");
    assert!(splitter.finish().is_err());
}

/// Takes a few bytes and then fails.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_write_names_its_output() {
    let input = rdb(V12, |out| (0..100_000).for_each(|n| put_key(out, &format!("key:{n}"))));
    let outputs = vec![Full(usize::MAX), Full(300_000)];
    let mut splitter = Splitter::new(shards::equal(2).unwrap(), outputs, SplitOptions::new(V12)).unwrap();
    splitter.begin_input("input").unwrap();
    let error = input.chunks(10_000).find_map(|piece| splitter.feed(piece).err()).unwrap();
    assert!(matches!(error, SplitError::Write { output: 1, .. }), "{error}");
}

#[test]
fn what_was_scanned_before_is_not_looked_into_again_but_its_checksum_is() {
    // a compressed string whose first part claims 32 bytes that are not there
    let mut input = rdb(V12, |out| {
        put_select_db(out, 0);
        out.extend(b"\x00\x01k\xc3\x05\x14\x1fabcd");
        put_key(out, "other");
    });
    let run = |input: &[u8], scanned_before| {
        let options = SplitOptions { scanned_before, ..SplitOptions::new(V12) };
        let mut splitter = Splitter::new(vec![SlotSet::full()], vec![Vec::new()], options).unwrap();
        splitter.begin_input("input").unwrap();
        splitter.feed(input).and_then(|_| splitter.end_input()).map(|report| report.keys)
    };
    assert_eq!(run(&input, true).unwrap(), 2);
    assert!(matches!(run(&input, false).unwrap_err(), SplitError::Scan { .. }));
    let end = input.len() - 1;
    input[end] ^= 1;
    assert!(matches!(run(&input, true).unwrap_err(), SplitError::Scan { .. }));
}
