//! What the tests of `backupd::redis`, `backupd::launch` and `backupd::nodes` share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backupd::redis::{SourceOptions, SourceUrl};
use policies::slot::SlotSet;

use crate::harness::nodes;
use crate::harness::process;
use crate::harness::server::{Engine, Options, Server};

/// When a wait gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A standalone server with more lines in its configuration file.
pub(crate) fn server(lines: &[&str]) -> Server {
    Server::start(&lines.iter().fold(Options::new(), |options, line| options.line(*line)))
}

/// The reply of a command as text.
pub(crate) fn ask(server: &Server, words: &[&str]) -> String {
    nodes::command(words).query(&mut server.connect()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The reply of a command of the server on `port`; `None` when it does not answer or refuses.
pub(crate) fn ask_port(port: u16, words: &[&str]) -> Option<String> {
    let mut link = nodes::try_connect(&format!("redis://127.0.0.1:{port}")).ok()?;
    nodes::command(words).query(&mut link).ok()
}

/// Strings `key:1` … `key:count` of 100 bytes that do not compress well.
pub(crate) fn fill(server: &Server, count: u64) {
    let script = "for i = 1, ARGV[1] do local v = {} for j = 1, 5 do v[j] = redis.sha1hex(i * 5 + j):sub(1, 20) end \
                  redis.call('SET', 'key:' .. i, table.concat(v)) end";
    server.run(&["EVAL", script, "0", &count.to_string()]);
}

/// `count` strings in these slots of a primary of a cluster.
pub(crate) fn fill_shard(server: &Server, slots: &SlotSet, count: usize) {
    let mut pipe = redis::pipe();
    let keys = (0..).map(|number: u32| format!("fill:{number}"));
    for key in keys.filter(|key| slots.contains(policies::slot::key_slot(key.as_bytes()))).take(count) {
        pipe.cmd("SET").arg(&key).arg(key.repeat(8)).ignore();
    }
    pipe.exec(&mut server.connect()).unwrap();
}

/// A port on which nobody listens, at least for now.
pub(crate) fn unused_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `done` says so.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    process::wait_for(what, PATIENCE, || if done() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// Options for these sources.
pub(crate) fn options(urls: &[&str]) -> SourceOptions {
    let seeds: Vec<SourceUrl> = urls.iter().map(|url| url.parse().unwrap()).collect();
    SourceOptions { reply_timeout: Duration::from_secs(60), ..SourceOptions::new(seeds) }
}

/// The server's data as an RDB file in `dir`.
pub(crate) fn save_rdb(server: &Server, dir: &Path, name: &str) -> PathBuf {
    // SAVE is refused for as long as the server's child of an earlier capture has not been seen to end
    wait_until("no background save", || server.info("rdb_bgsave_in_progress").as_deref() == Some("0"));
    server.run(&["SAVE"]);
    let path = dir.join(name);
    std::fs::copy(server.dir().join("dump.rdb"), &path).unwrap();
    path
}

/// The server program of the tests.
pub(crate) fn program() -> PathBuf {
    Engine::Redis.program()
}

/// Panics unless the checker that came with the server of the tests finds the RDB file sound.
pub(crate) fn check_rdb(file: &Path) {
    let program = program();
    let name = program.file_name().unwrap().to_str().unwrap().replace("-server", "-check-rdb");
    let output = Command::new(program.with_file_name(&name)).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}: run tests/setup.sh"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
