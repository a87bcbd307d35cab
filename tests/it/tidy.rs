//! Our own rules, held by a test: which module may use which, and how large a file may grow.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let base = root().join(folder);
    let files = crate::fixture::files_below(&base);
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    let sources: Vec<_> = rust.map(read).collect();
    assert!(!sources.is_empty(), "{folder}");
    sources
}

/// The top-level module that a file belongs to: `pipeline/read.rs` and `pipeline.rs` are `pipeline`.
fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Modules of the same crate that a text names by `crate::…`.
fn used(text: &str) -> Vec<String> {
    let after = text.split("crate::").skip(1);
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    // `crate::{a, b::c}` is not our style; a group right behind `crate::` would hide names from this test
    after.map(|rest| if rest.starts_with('{') { panic!("a group behind `crate::`") } else { name(rest) }).collect()
}

/// What each module of backupd must not use. The arrows are drawn in backupd/ARCHITECTURE.md.
const FORBIDDEN: [(&str, &[&str]); 22] = [
    ("error", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("clock", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("canonical", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("crypt", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("bkd", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("manifest", &["cli", "store", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config"]),
    (
        "store",
        &["cli", "redis", "repository", "snapshot", "restore", "pipeline", "catalog", "config", "crypt", "manifest"],
    ),
    (
        "redis",
        &["cli", "store", "repository", "snapshot", "restore", "pipeline", "catalog", "config", "crypt", "manifest"],
    ),
    ("pipeline", &["cli", "redis", "repository", "snapshot", "restore", "catalog", "config"]),
    ("repository", &["cli", "redis", "snapshot", "restore", "pipeline", "catalog", "config"]),
    ("catalog", &["cli", "redis", "store", "repository", "snapshot", "restore", "pipeline", "config", "manifest"]),
    ("config", &["cli", "repository", "snapshot", "restore", "pipeline"]),
    ("snapshot", &["cli", "restore", "config"]),
    ("restore", &["cli", "config", "catalog"]),
    ("jobs", &["cli", "http", "api", "service", "scheduler", "serve", "hooks"]),
    ("service", &["cli", "http", "api", "scheduler", "serve", "hooks", "redis", "store", "pipeline"]),
    (
        "api",
        &[
            "cli",
            "http",
            "scheduler",
            "serve",
            "hooks",
            "redis",
            "store",
            "repository",
            "snapshot",
            "restore",
            "pipeline",
        ],
    ),
    ("scheduler", &["cli", "http", "serve", "hooks", "redis", "snapshot", "restore", "pipeline"]),
    ("hooks", &["cli", "http", "serve", "redis", "store", "repository", "snapshot", "restore", "pipeline"]),
    ("telemetry", &["cli", "http", "serve", "jobs", "redis", "store", "repository", "snapshot", "restore", "pipeline"]),
    ("http", &["cli", "serve", "redis", "store", "repository", "snapshot", "restore", "pipeline"]),
    ("serve", &["cli", "redis", "store", "repository", "snapshot", "restore", "pipeline"]),
];

#[test]
fn modules_of_backupd_use_only_what_they_may() {
    let sources = sources("backupd/src");
    for (file, text) in &sources {
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(module, _)| *module == module_of(file)) else { continue };
        for name in used(text) {
            assert!(!forbidden.contains(&name.as_str()), "{file} uses crate::{name}");
        }
    }
    for (module, forbidden) in FORBIDDEN {
        let exists = |name: &str| sources.iter().any(|(file, _)| module_of(file) == name);
        assert!(exists(module), "{module} is gone: adjust the table");
        assert!(forbidden.iter().all(|name| exists(name)), "{module} forbids a module that does not exist");
    }
}

#[test]
fn crates_use_only_what_they_may() {
    for (name, text) in sources("policies/src") {
        assert!(
            !text.contains("rdbtools") && !text.contains("backupd::"),
            "policies/{name} uses another crate of ours"
        );
        let impure = ["std::fs", "std::net", "std::time::Instant", "SystemTime", "tokio", "std::env", "std::process"];
        // a test asks the environment how long it is to run
        let impure = impure.iter().filter(|word| name != "years.rs" || **word != "std::env");
        assert!(!impure.clone().any(|word| text.contains(word)), "policies/{name} is not pure");
    }
    for (name, text) in sources("rdbtools/src") {
        assert!(!text.contains("backupd::"), "rdbtools/{name} uses backupd");
        // what its own tests compare it with does not count
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let modules =
            text.split("policies::").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap());
        modules.for_each(|module| {
            assert!(matches!(module, "slot" | "shards" | "nodes"), "rdbtools/{name} uses policies::{module}");
        });
    }
}

#[test]
fn no_file_outgrows_what_can_be_read_in_one_sitting() {
    for folder in ["policies/src", "rdbtools/src", "backupd/src", "tests/it"] {
        for (name, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 450, "{folder}/{name} has {lines} lines: split it by its nouns");
        }
    }
}

#[test]
fn the_top_level_is_the_one_that_was_agreed() {
    let agreed =
        ["Cargo.lock", "Cargo.toml", "README.md", "backupd", "migrations", "policies", "rdbtools", "target", "tests"];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || agreed.contains(&name.as_str()), "{name} does not belong at the root");
    }
}

#[test]
fn only_one_file_prints_and_one_reads_the_clock() {
    for (name, text) in sources("backupd/src") {
        let prints = ["println!", "print!(", "io::stdout"].iter().any(|word| text.contains(word));
        assert!(!prints || name == "cli/output.rs", "backupd/{name} prints");
        assert!(!text.contains("Utc::now") || name == "clock.rs", "backupd/{name} reads the clock");
    }
}
