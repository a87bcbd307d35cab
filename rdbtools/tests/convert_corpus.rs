//! Files that other people's servers and tools wrote, converted for every engine: what was converted holds the same,
//! and engines load it: those of CI, and others that are installed.
//!
//! The folder is named by `RDB_CORPUS_DIR`; its `rdb/INDEX.tsv` names the files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panic")]

#[path = "support/decoded.rs"]
mod decoded;
#[path = "support/engines.rs"]
mod engines;
#[path = "support/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use decoded::{Keyspace, UNTIL, decode};
use engines::ENGINES;
use rdbtools::convert::{ConvertError, ConvertOptions, Converted, Converter, LossKind, Target};
use server::{Reply, Server};
use tempfile::TempDir;

/// Names and bytes of all files, or `None` with a word on stderr (not captured) that the test did not run.
fn files(test: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let Some(dir) = std::env::var_os("RDB_CORPUS_DIR").map(PathBuf::from) else {
        let word = format!("NOT RUN: {test}: set RDB_CORPUS_DIR to the folder of RDB files\n");
        std::io::stderr().write_all(word.as_bytes()).unwrap();
        return None;
    };
    let index = fs::read_to_string(dir.join("rdb/INDEX.tsv")).unwrap();
    let names = index.lines().skip(1).map(|line| line.split('\t').next().unwrap().to_owned());
    Some(names.map(|name| (name.clone(), fs::read(dir.join("rdb").join(name)).unwrap())).collect())
}

fn convert(rdb: &[u8], target: Target, drop: &[LossKind]) -> Result<Converted<Vec<u8>>, ConvertError> {
    let options = ConvertOptions { drop: drop.to_vec(), ..ConvertOptions::new(target) };
    let mut converter = Converter::new(Vec::new(), options);
    converter.feed(rdb)?;
    converter.finish()
}

/// Database and name of a key.
type Name = (u64, Vec<u8>);

/// A server that loads one file after another.
struct Loader {
    dir: TempDir,
    server: Server,
}

impl Loader {
    fn new(target: Target) -> Option<Self> {
        let engine = ENGINES.into_iter().find(|engine| engine.target == target && engine.is_expected())?;
        let dir = tempfile::tempdir().unwrap();
        let server = engine.start(dir.path())?;
        Some(Self { dir, server })
    }

    /// The keys that it holds after it has loaded the file.
    fn load(&mut self, place: &str, rdb: &[u8], databases: &BTreeSet<u64>) -> BTreeSet<Name> {
        fs::write(self.dir.path().join("dump.rdb"), rdb).unwrap();
        self.server.must(&[["FLUSHALL"]]);
        let reply = self.server.one(&["DEBUG", "RELOAD", "NOSAVE"]);
        assert_eq!(reply, Reply::Text("OK".to_owned()), "{place}");
        let mut keys = BTreeSet::new();
        for db in databases {
            self.server.must(&[["SELECT", &db.to_string()]]);
            keys.extend(self.server.keys().into_iter().map(|key| (*db, key)));
        }
        keys
    }
}

/// Keys that a server drops as it loads them: those that have expired, and those that are empty. One whose fields
/// have expired may go or stay.
fn may_be_absent(keyspace: &Keyspace, now_ms: i64) -> BTreeSet<Name> {
    let absent = |key: &decoded::Decoded| {
        let expired = key.expires_at_ms.is_some_and(|at| at <= now_ms);
        expired || key.lines.is_empty() || key.lines.iter().any(|line| line.contains(UNTIL))
    };
    keyspace.iter().filter(|(_, key)| absent(key)).map(|((db, name, _), _)| (*db, name.clone())).collect()
}

#[test]
fn every_sound_file_becomes_one_that_each_engine_loads() {
    let Some(files) = files("every_sound_file_becomes_one_that_each_engine_loads") else { return };
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let mut proved = 0;
    for target in Target::all() {
        let mut loader = Loader::new(target);
        for (name, rdb) in &files {
            let place = format!("{name} for {target}");
            let converted = convert(rdb, target, &LossKind::REFUSED).unwrap_or_else(|error| panic!("{place}: {error}"));
            let refused = converted.losses.iter().any(|loss| loss.kind.is_refused());
            assert_eq!(convert(rdb, target, &[]).is_err(), refused, "{place}");
            let (mut before, functions) = decode(rdb, target).unwrap();
            let (after, carried) = decode(&converted.writer, target).unwrap();
            before.retain(|_, key| key.code != 7);
            assert_eq!(before.len() as u64, converted.keys, "{place}");
            for (key, decoded) in &before {
                let other = &after[key];
                let same = (decoded.expires_at_ms, &decoded.lines) == (other.expires_at_ms, &other.lines);
                assert!(same, "{place}: {}: {decoded:?} {other:?}", key.1.escape_ascii());
            }
            assert_eq!(before.len(), after.len(), "{place}");
            assert!(target == Target::Redis62 || functions == carried, "{place}");
            // no server loads a file with a key twice
            if let Some(loader) = loader.as_mut().filter(|_| after.keys().all(|(_, _, earlier)| *earlier == 0)) {
                let databases = after.keys().map(|(db, ..)| *db).collect();
                let loaded = loader.load(&place, &converted.writer, &databases);
                let absent = may_be_absent(&after, now_ms);
                let all: BTreeSet<Name> = after.keys().map(|(db, key, _)| (*db, key.clone())).collect();
                assert!(loaded.is_subset(&all), "{place}");
                assert!(all.difference(&loaded).all(|key| absent.contains(key)), "{place}");
            }
            proved += 1;
        }
    }
    assert!(proved >= 205 * 7, "{proved}");
}
