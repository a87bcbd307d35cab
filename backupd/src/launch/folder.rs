//! The folder of a launched cluster: one folder per node, and scripts to start and stop them all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};

/// The mark of a restore that has not ended; it may be in the folder of a launch.
pub const UNFINISHED: &str = "restore-unfinished";

/// Where the RDB files may be written before the launch, so that they need only be renamed.
const STAGING: &str = "staging";

/// Takes `dir` for a launch: it is created, or must be empty. Returns the folder inside it where the RDB
/// files are best written (same file system); [`launch`](super::launch()) moves them and removes it.
///
/// # Errors
/// `Refused` when the folder holds anything, or cannot be made or written.
pub fn claim_dir(dir: &Path) -> Result<PathBuf> {
    check_empty(dir, false)?;
    let staging = dir.join(STAGING);
    fs::create_dir_all(&staging).map_err(|error| refused(&staging, &error))?;
    absolute(&staging)
}

/// Checks that `dir` is absent or empty; with `staged`, the folder of the RDB files may be there.
pub(super) fn check_empty(dir: &Path, staged: bool) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(dir, &error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| refused(dir, &error))?.file_name();
        if name != UNFINISHED && !(staged && name == STAGING) {
            let message = format!("{}: the folder is not empty: it holds {}", dir.display(), name.display());
            return Err(Error::new(Class::Refused, message).hint("give a folder that is empty or does not exist"));
        }
    }
    Ok(())
}

/// The absolute path of a folder, made if absent.
pub(super) fn make(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).map_err(|error| refused(dir, &error))?;
    absolute(dir)
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    let path = dir.canonicalize().map_err(|error| refused(dir, &error))?;
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(path),
        _ => Err(Error::new(Class::Refused, format!("{}: a path with such characters cannot be used", path.display()))),
    }
}

pub(super) fn refused(path: &Path, error: &io::Error) -> Error {
    Error::new(Class::Refused, format!("{}: {error}", path.display()))
}

/// Removes the staging folder if it is empty by now.
pub(super) fn end_staging(dir: &Path) {
    // A file that the caller left there keeps the folder, which harms nobody.
    fs::remove_dir(dir.join(STAGING)).ok();
}

/// Moves a file, also between file systems.
pub(super) fn move_file(from: &Path, to: &Path) -> Result<()> {
    let moved = fs::rename(from, to).or_else(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => fs::copy(from, to).and_then(|_| fs::remove_file(from)),
        _ => Err(error),
    });
    moved.map_err(|error| Error::new(Class::Refused, format!("{} to {}: {error}", from.display(), to.display())))
}

/// What a node's configuration file says.
#[derive(Debug)]
pub(super) struct NodeConf<'a> {
    /// The node's own folder.
    pub(super) dir: &'a Path,
    /// Lines that say on which port it listens, and who may enter.
    pub(super) access: &'a [String],
    /// Whether it is a node of a cluster.
    pub(super) cluster: bool,
    /// More settings, one line each, after ours.
    pub(super) settings: &'a [String],
}

/// The text of a node's `redis.conf`. What it does not say is the server's default, save points included.
pub(super) fn redis_conf(conf: &NodeConf<'_>) -> String {
    let NodeConf { dir, access, cluster, settings } = conf;
    let path = |name: &str| quoted(&dir.join(name).to_string_lossy());
    let mut lines = access.to_vec();
    lines.extend([
        "bind 127.0.0.1".to_owned(),
        "daemonize no".to_owned(),
        format!("dir {}", quoted(&dir.to_string_lossy())),
        format!("logfile {}", path(LOG)),
        format!("pidfile {}", path(PID)),
        format!("dbfilename {DUMP}"),
        "appendonly no".to_owned(),
    ]);
    if *cluster {
        lines.extend(["cluster-enabled yes".to_owned(), "cluster-config-file nodes.conf".to_owned()]);
    }
    lines.extend(settings.iter().cloned());
    lines.join("\n") + "\n"
}

/// The file that a node loads when it starts.
pub(super) const DUMP: &str = "dump.rdb";
/// A node's log file.
pub(super) const LOG: &str = "server.log";
/// A node's pid file, written by the server.
pub(super) const PID: &str = "server.pid";
/// A node's configuration file.
pub(super) const CONF: &str = "redis.conf";

/// Writes a file that only its owner reads: it may hold a password.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| refused(path, &error))
}

/// Text in the quotes of a configuration file.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Text as one word of a shell.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Writes `start.sh` and `stop.sh` for the nodes in the folders `nodes`.
pub(super) fn write_scripts(dir: &Path, engine: &Path, nodes: &[PathBuf]) -> Result<()> {
    let words: Vec<String> = nodes.iter().map(|node| shell_word(&node.to_string_lossy())).collect();
    let nodes = words.join(" ");
    let engine = shell_word(&engine.to_string_lossy());
    // A pid alone could by now be another process, so its command line must be an engine with our port or file.
    let alive = format!(
        "alive() {{ pid=$(cat \"$1/{PID}\" 2>/dev/null) && kill -0 \"$pid\" 2>/dev/null &&\n  \
         grep -q -e \"$(sed -n 's/^# node-port //p' \"$1/{CONF}\")\" -e '{CONF}' \"/proc/$pid/cmdline\" 2>/dev/null; }}\n"
    );
    // A node that was just started has no pid file yet, so starting ends only when it has one.
    let start = format!(
        "#!/bin/sh\n# Starts the nodes of this folder that are not running.\n{alive}for node in {nodes}; do\n  \
         alive \"$node\" && continue\n  nohup {engine} \"$node/{CONF}\" </dev/null >/dev/null 2>&1 &\n  tries=0\n  \
         until alive \"$node\"; do\n    tries=$((tries + 1))\n    \
         [ $tries -lt 300 ] || {{ echo \"$node does not start: see $node/{LOG}\" >&2; exit 1; }}\n    \
         sleep 0.1\n  done\ndone\n"
    );
    let stop = format!(
        "#!/bin/sh\n# Stops the nodes of this folder and waits until they are gone.\n{alive}for node in {nodes}; do\n  \
         alive \"$node\" && kill \"$pid\"\ndone\ntries=0\nfor node in {nodes}; do\n  \
         while alive \"$node\"; do\n    tries=$((tries + 1))\n    \
         [ $tries -lt 6000 ] || {{ echo \"$node does not stop: see $node/{LOG}\" >&2; exit 1; }}\n    \
         sleep 0.1\n  done\ndone\n"
    );
    for (name, text) in [("start.sh", start), ("stop.sh", stop)] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| refused(&path, &error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|error| refused(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_quotes_of_the_server_and_of_the_shell() {
        assert_eq!(quoted(r#"/a b/"c"\d"#), r#""/a b/\"c\"\\d""#);
        assert_eq!(shell_word("/it's"), r"'/it'\''s'");
        let access = ["port 7".to_owned()];
        let settings = ["maxmemory 1gb".to_owned()];
        let conf = NodeConf { dir: Path::new("/x y"), access: &access, cluster: true, settings: &settings };
        let text = redis_conf(&conf);
        for line in ["port 7", "dir \"/x y\"", "cluster-enabled yes", "maxmemory 1gb"] {
            assert!(text.lines().any(|each| each == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_folder_that_holds_anything_is_refused_and_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = claim_dir(dir.path()).unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        assert!(error.message().contains("precious"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let new = dir.path().join("a/b");
        let staging = claim_dir(&new).unwrap();
        assert!(staging.is_dir() && staging.starts_with(dir.path()));
        assert!(check_empty(&new, true).is_ok() && check_empty(&new, false).is_err());
    }
}
