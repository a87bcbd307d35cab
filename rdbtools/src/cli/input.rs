//! Reads files and the standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rdbtools::{ErrorKind, RdbVersion, ScanError};

use super::failure::Failure;

/// How much is read at once.
const READ_LEN: usize = 256 << 10;
/// Length of the header of an RDB.
const HEADER_LEN: usize = 9;

/// A file that is open, with what was read of it so far.
pub(crate) struct Input {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Input {
    /// Opens a file, or the standard input where the path is `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let reader: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| Failure::io(path, &error))?)
        };
        Ok(Self { path: path.to_owned(), reader, buffer: vec![0; READ_LEN], filled: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads as far as the header says which version it is; `None` where it is no header. The bytes are not
    /// lost: they come again.
    pub(crate) fn peek_version(&mut self) -> Result<Option<RdbVersion>, Failure> {
        while self.filled < HEADER_LEN && self.fill()? > 0 {}
        Ok(self.buffer.first_chunk::<HEADER_LEN>().and_then(RdbVersion::from_header))
    }

    /// The next bytes; none at the end.
    pub(crate) fn next(&mut self) -> Result<&[u8], Failure> {
        if self.filled == 0 {
            self.fill()?;
        }
        let filled = std::mem::take(&mut self.filled);
        Ok(self.buffer.get(..filled).unwrap_or_default())
    }

    fn fill(&mut self) -> Result<usize, Failure> {
        loop {
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.reader.read(free) {
                Ok(read) => {
                    self.filled += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::io(&self.path, &error)),
            }
        }
    }
}

/// A whole RDB with something behind it.
pub(crate) fn trailing(offset: u64) -> ScanError {
    ScanError {
        offset,
        kind: ErrorKind::Malformed,
        message: "there are bytes behind the end of the RDB (an append-only file, or a transfer mark)".to_owned(),
    }
}
