//! One file that is written, or the standard output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::failure::{Class, Failure};

/// A file gets its name when it is whole; until then it ends in `.partial`, and is removed when something fails. Of
/// what went to the standard output before a failure only the exit code tells.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` is the standard output.
    file: Option<(File, PathBuf, PathBuf)>,
    published: bool,
}

impl Output {
    /// Begins a file that does not exist yet, or the standard output where the path is `-`.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { file: None, published: false });
        }
        if path.symlink_metadata().is_ok() {
            let message = format!("{}: the file exists already", path.display());
            return Err(Failure::new(Class::Refused, message).hint("name a file that does not exist"));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| Failure::io(&partial, &error))?;
        Ok(Self { file: Some((file, partial, path.to_owned())), published: false })
    }

    /// Whether it is the standard output, which then holds nothing else.
    pub(crate) fn is_stdout(path: &Path) -> bool {
        path == Path::new("-")
    }

    /// Gives the file its name, once everything is on the disk.
    pub(crate) fn publish(mut self) -> Result<(), Failure> {
        if let Some((file, partial, path)) = &self.file {
            file.sync_all().map_err(|error| Failure::io(partial, &error))?;
            fs::rename(partial, path).map_err(|error| Failure::io(path, &error))?;
            self.published = true;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Failure::io(folder, &error))?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some((file, ..)) => file.write(bytes),
            None => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some((file, ..)) => file.flush(),
            None => io::stdout().flush(),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((_, partial, _)) = &self.file
            && !self.published
        {
            // what cannot be removed keeps a name that nobody takes for a whole file
            let _ = fs::remove_file(partial);
        }
    }
}
