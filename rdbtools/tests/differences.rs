//! What `redis-check-rdb`, the `rdb` crate and this library say of the same files. Where they differ,
//! `docs/differences.md` says why; its table is what this test reads, so that it stays true.
//!
//! The folder of files is named by `RDB_CORPUS_DIR`; the verdicts are those of `redis-check-rdb` 7.0.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rdb::filter::Simple;
use rdb::formatter::Nil;
use rdbtools::Scanner;

/// After this many seconds a program that works on a few kilobytes does not end.
const ENDLESS_S: &str = "10";

/// `redis-check-rdb`, the crate `rdb`, and `rdbtools verify`.
type Verdicts = [String; 3];

fn word(sound: bool) -> String {
    if sound { "accepts" } else { "refuses" }.to_owned()
}

fn verdicts(path: &Path, bytes: &[u8]) -> Verdicts {
    let check = Command::new("timeout").args([ENDLESS_S, "redis-check-rdb"]).arg(path).stdout(Stdio::null()).status();
    let code = check.unwrap().code();
    assert_ne!(code, Some(127), "redis-check-rdb is missing: apt-get install redis-tools");
    let check = match code {
        Some(124) => "does not end".to_owned(),
        code => word(code == Some(0)),
    };
    let decoded = rdb::parse(Cursor::new(bytes), Nil::new(None), Simple::new());
    let mut scanner = Scanner::new(());
    let whole = scanner.feed(bytes).is_ok_and(|used| used == bytes.len()) && scanner.outcome().is_ok();
    [check, word(decoded.is_ok()), word(whole)]
}

/// The rows of the table, by the file or the headers that they are about.
fn table() -> BTreeMap<String, Verdicts> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(cells.len() == 7 && cells[5].len() > 20, "{line}");
        (cells[1].trim_matches('`').to_owned(), [cells[2], cells[3], cells[4]].map(str::to_owned))
    })
    .collect()
}

/// The row for sound files that `redis-check-rdb` 7.0 is too old for.
const NEWER: &str = "REDIS0011 and newer, VALKEY";

fn is_newer(bytes: &[u8]) -> bool {
    bytes.get(..9).is_some_and(|header| header.starts_with(b"VALKEY") || header > &b"REDIS0010"[..])
}

#[test]
fn every_difference_is_explained() {
    let Some(dir) = std::env::var_os("RDB_CORPUS_DIR").map(PathBuf::from) else {
        let word = b"NOT RUN: every_difference_is_explained: set RDB_CORPUS_DIR to the folder of RDB files\n";
        std::io::stderr().write_all(word).unwrap();
        return;
    };
    let (table, mut used, mut unexplained) = (table(), BTreeSet::new(), Vec::new());
    for folder in ["rdb", "rdb-malformed"] {
        for path in fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !name.ends_with(".rdb") {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let found = verdicts(&path, &bytes);
            let rule = (folder == "rdb" && is_newer(&bytes)).then(|| NEWER.to_owned());
            let row = [Some(name.clone()), rule].into_iter().flatten().find(|row| table.contains_key(row));
            if found.iter().any(|verdict| *verdict != found[0]) {
                if row.as_ref().and_then(|row| table.get(row)) == Some(&found) {
                    used.extend(row);
                } else {
                    unexplained.push(format!("| `{name}` | {} | |", found.join(" | ")));
                }
            } else if table.contains_key(&name) {
                unexplained.push(format!("{name}: all agree now"));
            }
        }
    }
    unexplained.sort();
    assert!(unexplained.is_empty(), "docs/differences.md lacks or has wrong:\n{}", unexplained.join("\n"));
    assert_eq!(used, table.keys().cloned().collect(), "rows without a file");
}
