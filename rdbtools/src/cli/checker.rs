//! Looks into the compressed strings of a file on a thread of its own, while the next piece is scanned.

use std::sync::mpsc::{self, Sender, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use rdbtools::scan::Compressed;

use super::input::{Input, Piece};

/// How many pieces wait for the thread. When it has so many, whoever scans looks into the next piece itself.
const WAITING_MAX: usize = 2;

struct Job {
    piece: Piece,
    strings: Vec<Compressed>,
    back: Option<Sender<Piece>>,
}

impl Job {
    /// Looks into the strings and gives the piece back. Answers whether all are sound.
    fn done(self) -> bool {
        let sound = self.strings.iter().all(|string| string.is_sound(&self.piece));
        if let Some(back) = self.back {
            // where reading has ended nobody takes it back
            let _ = back.send(self.piece);
        }
        sound
    }
}

/// The thread.
pub(super) struct Checker {
    jobs: SyncSender<Job>,
    thread: JoinHandle<bool>,
    sound: bool,
}

impl Checker {
    pub(super) fn start() -> Self {
        let (jobs, waiting) = mpsc::sync_channel(WAITING_MAX);
        Self { jobs, thread: thread::spawn(move || waiting.iter().all(Job::done)), sound: true }
    }

    /// Has the strings of the piece looked into that the input gave out last.
    pub(super) fn check(&mut self, input: &Input, strings: &[Compressed]) {
        if strings.is_empty() {
            return;
        }
        let (piece, back) = input.held();
        match self.jobs.try_send(Job { piece, strings: strings.to_vec(), back }) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.sound &= job.done(),
            // it has met an unsound one
            Err(TrySendError::Disconnected(_)) => self.sound = false,
        }
    }

    /// Whether all were sound.
    pub(super) fn join(self) -> bool {
        drop(self.jobs);
        self.thread.join().unwrap_or(false) && self.sound
    }
}
