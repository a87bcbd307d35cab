//! Gives a server the file that it loads when it starts, while the file is still being written.
//!
//! The server opens its RDB file and finds a pipe (a FIFO), into which goes what is in the file so far, and the rest as it
//! comes. So it loads while the inputs are read. The end of an RDB is written when every input was proven, so
//! no server gets through with anything less. Then the file takes the place of the pipe.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::sync::watch;
use tokio::time::sleep;

use super::folder::refused;
use super::process::STALL_WAIT;
use crate::error::{Class, Error, Result};

/// Bytes of the file that are given at once, and room in the pipe.
const CHUNK_BYTES: usize = 1 << 20;
/// Between two looks whether the server has come, whether there is more in the file, and whether there is room in the pipe. The
/// pipe lasts a server that loads 200 MB a second for 5 ms.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A file that is being written.
#[derive(Debug, Clone)]
pub struct Growing {
    /// Its name until it is whole.
    pub partial: PathBuf,
    /// Its name then.
    pub whole: PathBuf,
}

impl Growing {
    /// Opens it as soon as it is there.
    async fn open(&self) -> io::Result<tokio::fs::File> {
        let mut names = [&self.partial, &self.whole].into_iter().cycle();
        loop {
            let Some(name) = names.next() else { return Err(io::ErrorKind::NotFound.into()) };
            match tokio::fs::File::open(name).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => sleep(LOOK_EVERY).await,
                opened => return opened,
            }
        }
    }
}

/// Whether the file system of this folder has pipes.
#[must_use]
pub fn has_pipes(dir: &Path) -> bool {
    let tried = dir.join("pipe");
    make_pipe(&tried).is_ok() && std::fs::remove_file(&tried).is_ok()
}

/// Waits for the server, unless it has stood still for too long.
async fn wait(since: Instant) -> io::Result<()> {
    if since.elapsed() > STALL_WAIT {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it stands still"));
    }
    sleep(LOOK_EVERY).await;
    Ok(())
}

/// Makes a pipe in a server's folder, where it looks for its file.
///
/// # Errors
/// When the file system has none.
pub(super) fn make_pipe(path: &Path) -> Result<()> {
    let made = mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
    made.map_err(|error| refused(path, &error.into()))
}

/// Writes a file into `pipe` until `whole` tells its length and so much was written. The pipe is to be kept open until the
/// server has loaded: some open their file once more then (to give up its page cache), and would wait for a writer for ever.
///
/// # Errors
/// `Unforeseen` when the server that reads it has ended.
pub(super) async fn feed(file: Growing, pipe: PathBuf, mut whole: watch::Receiver<Option<u64>>) -> Result<Sender> {
    let gone = |error: io::Error| Error::new(Class::Unforeseen, format!("its server reads no more of it: {error}"));
    let unreadable = |error| refused(&file.whole, &error);
    let mut source = file.open().await.map_err(unreadable)?;
    let sender = open(&pipe).await.map_err(gone)?;
    // it works with less
    let _less = rustix::pipe::fcntl_setpipe_size(&sender, CHUNK_BYTES);
    let (mut fed, mut chunk) = (0, Vec::with_capacity(CHUNK_BYTES));
    loop {
        chunk.clear();
        let count = source.read_buf(&mut chunk).await.map_err(unreadable)?;
        if count > 0 {
            put(&sender, &chunk).await.map_err(gone)?;
            fed += count as u64;
            continue;
        }
        if *whole.borrow() == Some(fed) {
            return Ok(sender);
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            changed = whole.changed() => if changed.is_err() {
                return Err(Error::new(Class::Unforeseen, "the file was given up"));
            },
        }
    }
}

/// Waits until the server reads the pipe.
async fn open(pipe: &Path) -> io::Result<Sender> {
    let begun = Instant::now();
    loop {
        match OpenOptions::new().open_sender(pipe) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                wait(begun).await?;
            }
            opened => return opened,
        }
    }
}

/// Writes all of it. A full pipe is left for a while, so that reader and writer do not wake each other for every page.
async fn put(sender: &Sender, mut bytes: &[u8]) -> io::Result<()> {
    let mut since = Instant::now();
    while !bytes.is_empty() {
        match sender.try_write(bytes) {
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                since = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(since).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
