//! The engines that `tests/setup.sh` installs.

#![allow(dead_code, reason = "each test of engines uses its part of this")]

use std::io::Write;
use std::path::{Path, PathBuf};

use rdbtools::convert::Target;

use crate::server::Server;

/// A real server of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Engine {
    /// Its folder among the servers.
    pub(crate) name: &'static str,
    /// What is converted for it.
    pub(crate) target: Target,
    /// The level of `tests/setup.sh` that installs it.
    level: &'static str,
}

const fn engine(name: &'static str, target: Target, level: &'static str) -> Engine {
    Engine { name, target, level }
}

/// All of them; those of the level `tests` are there in CI.
pub(crate) const ENGINES: [Engine; 9] = [
    engine("redis-6.2", Target::Redis62, "tests"),
    engine("redis-7.0", Target::Redis70, "demo"),
    engine("redis-7.2", Target::Redis72, "engines"),
    engine("redis-7.4", Target::Redis74, "engines"),
    engine("redis-8", Target::Redis80, "tests"),
    engine("redis-8.2", Target::Redis80, "engines"),
    engine("valkey-8.0", Target::Valkey8, "engines"),
    engine("valkey-8.1", Target::Valkey8, "tests"),
    engine("valkey-9", Target::Valkey9, "tests"),
];

/// Frequencies of access are saved, and stay as they are loaded. Files of other people use many databases.
const ARGUMENTS: [&str; 6] = ["--maxmemory-policy", "allkeys-lfu", "--lfu-decay-time", "0", "--databases", "256"];

fn servers() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
    std::env::var_os("BACKUPD_SERVERS_DIR").map_or_else(default, PathBuf::from)
}

impl Engine {
    /// Whether it is one of those that CI has.
    pub(crate) fn is_in_ci(self) -> bool {
        self.level != "engines"
    }

    /// Whether it is there, or has to be.
    pub(crate) fn is_expected(self) -> bool {
        self.is_in_ci() || servers().join(self.name).is_dir()
    }

    /// Its program. `None` where set-up has recorded that it cannot be had on this machine, with a word on stderr;
    /// one that is merely missing fails the test.
    fn program(self) -> Option<PathBuf> {
        if self.level == "demo" {
            return Some("redis-server".into());
        }
        let servers = servers();
        let program = if self.name.starts_with("valkey") { "valkey-server" } else { "redis-server" };
        let program = servers.join(self.name).join("usr/bin").join(program);
        if servers.join(format!("not-installed-{}", self.name)).is_file() {
            let word = format!("NOT RUN: {} could not be installed on this machine\n", self.name);
            std::io::stderr().write_all(word.as_bytes()).unwrap();
            return None;
        }
        assert!(program.is_file(), "{} is missing: run tests/setup.sh {}", program.display(), self.level);
        Some(program)
    }

    /// Starts it in a folder, where it loads `dump.rdb` if there is one.
    pub(crate) fn start(self, dir: &Path) -> Option<Server> {
        let mut arguments = ARGUMENTS.to_vec();
        if self.target != Target::Redis62 {
            arguments.extend(["--enable-debug-command", "yes"]);
        }
        Some(Server::start_program(&self.program()?, &arguments, dir))
    }

    pub(crate) fn has_field_ttls(self) -> bool {
        matches!(self.target, Target::Redis74 | Target::Redis80 | Target::Valkey9)
    }

    pub(crate) fn has_functions(self) -> bool {
        self.target != Target::Redis62
    }
}
