//! Reads files and the standard input, ahead of whoever takes the bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use rdbtools::{ErrorKind, RdbVersion, ScanError};

use super::failure::Failure;

/// How much is read at once.
const READ_LEN: usize = 256 << 10;
/// How many pieces are read ahead.
const AHEAD: usize = 4;
/// Length of the header of an RDB.
const HEADER_LEN: usize = 9;

type Source = Box<dyn Read + Send>;

/// Bytes of a file. When nobody holds them any more their memory is used again.
pub(crate) type Piece = Arc<Vec<u8>>;

/// A file that is open. It is read on a thread of its own from the first piece on.
pub(crate) struct Input {
    path: PathBuf,
    /// What was read to see the version.
    head: Vec<u8>,
    /// The piece that was given out last.
    piece: Piece,
    state: State,
}

enum State {
    Open(Source),
    Reading { full: Receiver<io::Result<Piece>>, empty: Sender<Piece> },
    Ended,
}

impl Input {
    /// Opens a file, or the standard input where the path is `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let source: Source = if is_standard_input(path) {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| Failure::io(path, &error))?)
        };
        Ok(Self { path: path.to_owned(), head: Vec::new(), piece: Piece::default(), state: State::Open(source) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the header and says which version it is; `None` where it is no header. The bytes are not lost:
    /// they come again.
    pub(crate) fn peek_version(&mut self) -> Result<Option<RdbVersion>, Failure> {
        if let State::Open(source) = &mut self.state {
            let missing = HEADER_LEN.saturating_sub(self.head.len()) as u64;
            let read = source.take(missing).read_to_end(&mut self.head);
            read.map_err(|error| Failure::io(&self.path, &error))?;
        }
        Ok(self.head.first_chunk::<HEADER_LEN>().and_then(RdbVersion::from_header))
    }

    /// The next bytes; none at the end.
    pub(crate) fn next(&mut self) -> Result<&[u8], Failure> {
        if !self.head.is_empty() {
            self.piece = Arc::new(std::mem::take(&mut self.head));
            return Ok(&self.piece);
        }
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(source) => read_ahead(source),
            other => other,
        };
        let piece = std::mem::take(&mut self.piece);
        if let State::Reading { full, empty } = &self.state {
            // a thread that has ended takes nothing back
            let _ = empty.send(piece);
            match full.recv() {
                Ok(Ok(piece)) => self.piece = piece,
                Ok(Err(error)) => return Err(Failure::io(&self.path, &error)),
                Err(_) => self.state = State::Ended,
            }
        }
        Ok(&self.piece)
    }

    /// The piece that was given out last, to be held on to, and where it goes when it is no longer needed.
    pub(crate) fn held(&self) -> (Piece, Option<Sender<Piece>>) {
        let back = if let State::Reading { empty, .. } = &self.state { Some(empty.clone()) } else { None };
        (Arc::clone(&self.piece), back)
    }
}

/// Whether a path means the standard input.
pub(crate) fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a file can be read more than once: no pipe.
pub(crate) fn can_be_read_again(path: &Path) -> bool {
    !is_standard_input(path) && std::fs::metadata(path).is_ok_and(|facts| facts.is_file())
}

fn read_ahead(mut source: Source) -> State {
    let (fill, full) = mpsc::sync_channel(AHEAD);
    let (empty, emptied) = mpsc::channel();
    thread::spawn(move || read_all(&mut source, &fill, &emptied));
    State::Reading { full, empty }
}

/// Reads to the end, or until nobody takes the pieces any more.
fn read_all(source: &mut Source, fill: &SyncSender<io::Result<Piece>>, emptied: &Receiver<Piece>) {
    loop {
        // a piece that somebody else still holds comes again from there
        let mut piece = emptied.try_iter().find_map(|piece| Arc::try_unwrap(piece).ok()).unwrap_or_default();
        piece.resize(READ_LEN, 0);
        let read = read_full(source, &mut piece);
        let is_last = !matches!(read, Ok(READ_LEN));
        let told = match read {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                fill.send(Ok(Arc::new(piece)))
            }
            Err(error) => fill.send(Err(error)),
        };
        if is_last || told.is_err() {
            return;
        }
    }
}

/// Reads until the piece is full or the source ends.
fn read_full(source: &mut Source, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = piece.get_mut(filled..).filter(|free| !free.is_empty()) {
        match source.read(free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A whole RDB with something behind it.
pub(crate) fn trailing(offset: u64) -> ScanError {
    ScanError {
        offset,
        kind: ErrorKind::Malformed,
        message: "there are bytes behind the end of the RDB (an append-only file, or a transfer mark)".to_owned(),
    }
}
