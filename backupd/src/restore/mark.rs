//! The mark in a folder that a restore has begun to fill: while it is there, the folder does not hold all of it.
//!
//! The process that fills the folder holds a lock on the mark, so one that died is told from one that runs.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::split::unwritable;
use crate::error::{Class, Error, Result};
use crate::launch::UNFINISHED;
use crate::nodes::Unfinished;

/// The mark of this process.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    _lock: File,
}

impl Mark {
    /// Takes a folder, which must be absent or empty, or hold what an earlier restore left and `unfinished` allow to
    /// remove that.
    ///
    /// # Errors
    /// `Refused` for a folder with anything else; `Busy` when another restore fills it now.
    pub(super) fn begin(dir: &Path, unfinished: Unfinished) -> Result<Self> {
        check(dir, unfinished)?;
        fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
        let path = dir.join(UNFINISHED);
        if path.exists() {
            clear(dir)?;
        }
        let lock = File::create_new(&path).map_err(|error| unwritable(&path, &error))?;
        lock.lock().map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder holds all of it.
    pub(super) fn end(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|error| unwritable(&self.path, &error))
    }

    /// Gives up before anything has served: removes what was made, and the mark when nothing else is left, for without
    /// it the folder would look like a stranger's. What cannot be removed is a warning: the error of the restore stands.
    pub(super) fn abandon(self) {
        let dir = self.path.parent().unwrap_or(&self.path).to_owned();
        if let Err(error) = empty(&dir).and_then(|()| self.end()) {
            let folder = dir.display();
            tracing::warn!(%folder, %error, "a part of the failed restore is left behind: --replace removes it");
        }
    }
}

/// Takes the mark of a restore away that is gone and had done everything else.
pub(super) fn finish(dir: &Path) -> Result<()> {
    let path = dir.join(UNFINISHED);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(&path, &error)),
        _ => Ok(()),
    }
}

/// Whether a restore may begin in a folder; nothing is touched.
pub(super) fn check(dir: &Path, unfinished: Unfinished) -> Result<()> {
    let path = dir.join(UNFINISHED);
    match File::open(&path) {
        Ok(mark) => match mark.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = format!("{}: another restore fills this folder now", dir.display());
                return Err(Error::new(Class::Busy, message));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(&path, &error)),
            Ok(()) if unfinished == Unfinished::Refuse => {
                let message = format!("{}: the folder holds a part of a restore that did not end", dir.display());
                return Err(Error::new(Class::Refused, message)
                    .hint("--replace stops what it started, removes it and starts over; --resume does the same here"));
            }
            Ok(()) => return Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(&path, &error)),
    }
    let mut entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| unwritable(dir, &error))?,
    };
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let name = entry.map_err(|error| unwritable(dir, &error))?.file_name();
            let message = format!("{}: the folder is not empty: it holds {}", dir.display(), name.display());
            Err(Error::new(Class::Refused, message)
                .hint("a restore never mixes with what is there: give an empty or a new folder"))
        }
    }
}

/// Stops what was started from a folder, and removes what it holds.
fn clear(dir: &Path) -> Result<()> {
    let stop = dir.join("stop.sh");
    if stop.exists() {
        let mut command = std::process::Command::new(&stop);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(|error| unwritable(&stop, &error))?;
        if !status.success() {
            let message = format!("{}: what the earlier restore started does not stop", stop.display());
            return Err(Error::new(Class::Refused, message).hint("stop its servers and remove the folder"));
        }
    }
    // the mark goes last: until then the folder is known as unfinished
    empty(dir)?;
    let mark = dir.join(UNFINISHED);
    fs::remove_file(&mark).map_err(|error| unwritable(&mark, &error))
}

/// Removes everything but the mark; the first error after all was tried.
fn empty(dir: &Path) -> Result<()> {
    let mut outcome = Ok(());
    for entry in fs::read_dir(dir).map_err(|error| unwritable(dir, &error))? {
        let entry = entry.map_err(|error| unwritable(dir, &error))?;
        if entry.file_name() == UNFINISHED {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        outcome = outcome.and(removed.map_err(|error| unwritable(&path, &error)));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_given_up_is_as_it_was_or_still_marked() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("out");
        let mark = Mark::begin(&dir, Unfinished::Refuse).unwrap();
        fs::create_dir(dir.join("staging")).unwrap();
        fs::write(dir.join("staging/a"), "x").unwrap();
        mark.abandon();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

        let mark = Mark::begin(&dir, Unfinished::Refuse).unwrap();
        // nobody can remove a mount point
        let stuck = Path::new("/proc/self/task");
        assert!(empty(stuck).is_err());
        fs::write(dir.join("made"), "x").unwrap();
        drop(mark);
        assert_eq!(check(&dir, Unfinished::Refuse).unwrap_err().class(), Class::Refused);
        check(&dir, Unfinished::Replace).unwrap();
    }
}
