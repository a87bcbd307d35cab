//! Where a split or a merge writes to. Files get their names when all are whole; until then they end in
//! `.partial`, and are removed when something fails.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rdbtools::split::Outlet;

use super::failure::{Class, Failure};

/// How many buffers wait for the thread that writes.
const WAITING_MAX: usize = 8;

/// What is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A file per shard, in a folder that is empty or does not exist.
    Folder { path: PathBuf, shards: usize },
    /// One file, which does not exist.
    File(PathBuf),
    /// The standard output.
    Standard,
}

/// A destination that is ours.
pub(crate) struct Outputs {
    destination: Destination,
    published: bool,
}

impl Destination {
    /// The one file at `path`; `-` is the standard output.
    pub(crate) fn one(path: &Path) -> Self {
        if path == Path::new("-") { Self::Standard } else { Self::File(path.to_owned()) }
    }

    /// Makes sure that nothing is overwritten, and nothing prints an RDB on a screen.
    pub(crate) fn claim(self) -> Result<Outputs, Failure> {
        let refused = |message: String, hint: &str| Err(Failure::new(Class::Refused, message).hint(hint));
        match &self {
            Self::Folder { path, .. } => {
                fs::create_dir_all(path).map_err(|error| Failure::io(path, &error))?;
                let mut entries = fs::read_dir(path).map_err(|error| Failure::io(path, &error))?;
                if entries.next().is_some() {
                    let message = format!("{}: the folder is not empty", path.display());
                    return refused(message, "name an empty folder, or one that does not exist");
                }
            }
            Self::File(path) if fs::symlink_metadata(path).is_ok() => {
                let message = format!("{}: it exists", path.display());
                return refused(message, "name a file that does not exist, or remove this one");
            }
            Self::Standard if io::stdout().is_terminal() => {
                return refused("the standard output is a terminal".to_owned(), "send it to a file or a program");
            }
            Self::File(_) | Self::Standard => {}
        }
        Ok(Outputs { destination: self, published: false })
    }
}

impl Outputs {
    /// Whether the RDB itself goes to the standard output.
    pub(crate) fn is_standard(&self) -> bool {
        self.destination == Destination::Standard
    }

    /// The folder for temporary files: beside the outputs, where there is room for them.
    pub(crate) fn scratch_folder(&self) -> PathBuf {
        match &self.destination {
            Destination::Folder { path, .. } => path.clone(),
            Destination::File(path) => folder_of(path),
            Destination::Standard => std::env::temp_dir(),
        }
    }

    fn count(&self) -> usize {
        if let Destination::Folder { shards, .. } = &self.destination { *shards } else { 1 }
    }

    /// How an output is called when it is whole.
    fn file(&self, index: usize) -> PathBuf {
        match &self.destination {
            Destination::Folder { path, .. } => path.join(format!("shard-{index:04}.rdb")),
            Destination::File(path) => path.clone(),
            Destination::Standard => PathBuf::from("-"),
        }
    }

    fn partial(&self, index: usize) -> PathBuf {
        let mut name = self.file(index).into_os_string();
        name.push(".partial");
        name.into()
    }

    /// Opens the outputs.
    pub(crate) fn create(&self) -> Result<Vec<File>, Failure> {
        if self.is_standard() {
            let standard = io::stdout().as_fd().try_clone_to_owned();
            return Ok(vec![File::from(standard.map_err(|error| self.failed(0, &error))?)]);
        }
        let create = |index| File::create_new(self.partial(index)).map_err(|error| self.failed(index, &error));
        (0..self.count()).map(create).collect()
    }

    /// Opens the only output.
    pub(crate) fn create_one(&self) -> Result<File, Failure> {
        let none = || Failure::new(Class::Unforeseen, "there is no output");
        self.create()?.pop().ok_or_else(none)
    }

    /// Writing an output failed.
    pub(crate) fn failed(&self, index: usize, error: &io::Error) -> Failure {
        let path = if self.is_standard() { PathBuf::from("the standard output") } else { self.partial(index) };
        Failure::io(&path, error)
    }

    /// Makes whole files durable and gives them their names.
    pub(crate) fn publish(&mut self, files: &[File]) -> Result<Vec<PathBuf>, Failure> {
        let names: Vec<PathBuf> = (0..self.count()).map(|index| self.file(index)).collect();
        if !self.is_standard() {
            for (index, (file, name)) in files.iter().zip(&names).enumerate() {
                file.sync_all().map_err(|error| self.failed(index, &error))?;
                fs::rename(self.partial(index), name).map_err(|error| Failure::io(name, &error))?;
            }
            let folder = self.scratch_folder();
            let synced = File::open(&folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Failure::io(&folder, &error))?;
        }
        self.published = true;
        Ok(names)
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if self.published || self.is_standard() {
            return;
        }
        for index in 0..self.count() {
            // what cannot be removed keeps a name that nobody takes for a whole file
            let _ = fs::remove_file(self.partial(index));
            if matches!(self.destination, Destination::Folder { .. }) {
                let _ = fs::remove_file(self.file(index));
            }
        }
    }
}

/// A thread that writes files, so that reading and writing happen at the same time.
pub(crate) struct Background {
    thread: JoinHandle<Result<Vec<File>, (usize, io::Error)>>,
}

/// One file of the thread. What is written waits for its turn.
#[derive(Debug)]
pub(crate) struct Lane {
    index: usize,
    sender: SyncSender<(usize, Vec<u8>)>,
    spare: Spare,
}

/// Buffers to be used again.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

impl Background {
    /// Starts the thread. It ends when all lanes are dropped.
    pub(crate) fn start(files: Vec<File>) -> (Self, Vec<Lane>) {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let spare = Spare::default();
        let lane = |index| Lane { index, sender: sender.clone(), spare: Arc::clone(&spare) };
        let lanes = (0..files.len()).map(lane).collect();
        let thread = thread::spawn(move || write_all(files, &receiver, &spare));
        (Self { thread }, lanes)
    }

    /// The files, when everything is written; or the index of the file that failed, and why. To be called when
    /// all lanes are dropped.
    pub(crate) fn join(self) -> Result<Vec<File>, (usize, io::Error)> {
        self.thread.join().unwrap_or_else(|_| Err((0, io::Error::other("the thread that writes has panicked"))))
    }
}

fn write_all(
    mut files: Vec<File>,
    receiver: &Receiver<(usize, Vec<u8>)>,
    spare: &Spare,
) -> Result<Vec<File>, (usize, io::Error)> {
    for (index, mut bytes) in receiver {
        if let Some(file) = files.get_mut(index) {
            file.write_all(&bytes).map_err(|error| (index, error))?;
        }
        bytes.clear();
        if let Ok(mut spare) = spare.lock() {
            spare.push(bytes);
        }
    }
    Ok(files)
}

impl Outlet for Lane {
    /// The thread gets the buffer itself, and one that it is done with takes its place.
    fn put(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut next = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        next.reserve(buffer.len());
        let full = std::mem::replace(buffer, next);
        // why the thread ended is what joining it answers
        self.sender.send((self.index, full)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
