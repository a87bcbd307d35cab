//! A bounded place for sealed frames that the store does not take yet, so that a store that is slow or stands still does
//! not hold the server's child.
//!
//! The frames lie in files without a name, which vanish with the process however it ends. Each is sealed once more
//! (AES-256-GCM) with a random key that is in memory only, whatever the encryption of the snapshot.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use zeroize::Zeroizing;

use crate::bkd::Kind;
use crate::crypt::{self, KEY_LEN};
use crate::error::{Class, Error, Result};
use crate::task_failed;

/// Bytes after which a further file is begun. A file is freed when all of it was read, so this much may be held
/// beyond what waits.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Bytes of the tag behind a record.
const TAG_LEN: usize = 16;

/// This part of the file system is left free for others: one twentieth, but not more than [`LEFT_FREE_MAX`] bytes.
const LEFT_FREE: u64 = 20;
const LEFT_FREE_MAX: u64 = 1 << 30;

/// Where frames may wait and how many, for all captures of one process.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    bytes_max: u64,
    /// How long a capture waits for a store that takes nothing, once there is no room.
    pub(super) wait: Duration,
    used: AtomicU64,
}

impl Spill {
    /// A spill of at most `bytes_max` bytes in `folder`; 0: none. `wait`: how long the store may take nothing once it
    /// is full, before a capture is ended.
    ///
    /// # Errors
    /// `Config` when no file can be made in the folder.
    pub fn new(folder: &Path, bytes_max: u64, wait: Duration) -> Result<Arc<Self>> {
        let this = Self { folder: folder.to_owned(), bytes_max, wait, used: AtomicU64::new(0) };
        if bytes_max > 0 {
            tempfile::tempfile_in(folder).map_err(|error| this.unusable(&error))?;
        }
        Ok(Arc::new(this))
    }

    /// Bytes that lie there now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn unusable(&self, error: &io::Error) -> Error {
        let message = format!("the folder of the spill {} cannot be used: {error}", self.folder.display());
        Error::new(Class::Config, message)
            .hint("name another as spill_dir in the section [capture] of the configuration")
    }

    /// Why a capture ends: there is no room and the store stands still.
    pub(super) fn is_full(&self) -> Error {
        let (wait, used) = (self.wait.as_secs(), self.used_bytes() >> 20);
        let (max, folder) = (self.bytes_max >> 20, self.folder.display());
        let message =
            format!("the store took nothing for {wait} s, and the spill is full: {used} of {max} MiB in {folder}");
        Error::new(Class::StoreUnavailable, message).hint(
            "the capture was ended so that the server's child is not held: look at the store, or raise spill_max in \
             the section [capture] of the configuration",
        )
    }

    fn reserve(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A file without a name; `None` when the file system has too little room.
    fn file(&self) -> io::Result<Option<File>> {
        let stat = rustix::fs::statvfs(&self.folder)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let kept = (stat.f_blocks.saturating_mul(stat.f_frsize) / LEFT_FREE).min(LEFT_FREE_MAX);
        if free < kept.saturating_add(SEGMENT_BYTES) {
            return Ok(None);
        }
        tempfile::tempfile_in(&self.folder).map(Some)
    }
}

/// A sealed frame on its way to the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) plain_bytes: u32,
    pub(super) stored: Vec<u8>,
}

/// Where one record lies.
struct Record {
    offset: u64,
    length: usize,
    kind: Kind,
    plain_bytes: u32,
    number: u64,
}

/// One file and what of it was not read yet. Its bytes are given back when it goes.
struct Segment {
    spill: Arc<Spill>,
    file: Arc<File>,
    bytes: u64,
    records: VecDeque<Record>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.spill.release(self.bytes);
    }
}

/// The frames of one capture that wait, first in, first out.
pub(super) struct Queue {
    spill: Arc<Spill>,
    cipher: Aes256Gcm,
    segments: VecDeque<Segment>,
    /// Records so far: the nonce, so none is used twice with the key of this queue.
    number: u64,
}

impl Queue {
    /// An empty queue with a key of its own.
    pub(super) fn new(spill: &Arc<Spill>) -> Result<Self> {
        let key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(crypt::random()?);
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
        Ok(Self { spill: Arc::clone(spill), cipher, segments: VecDeque::new(), number: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Frames that went through it so far.
    pub(super) fn count(&self) -> u64 {
        self.number
    }

    /// Takes a frame, or gives it back when there is no room.
    pub(super) async fn push(&mut self, frame: Frame) -> Result<Option<Frame>> {
        let length = frame.stored.len().saturating_add(TAG_LEN);
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        if !self.spill.reserve(bytes) {
            return Ok(Some(frame));
        }
        let (spill, cipher, number) = (Arc::clone(&self.spill), self.cipher.clone(), self.number);
        let open = self.segments.back().filter(|segment| segment.bytes < SEGMENT_BYTES);
        let (file, offset) = open.map_or((None, 0), |segment| (Some(Arc::clone(&segment.file)), segment.bytes));
        let (further, kind, plain_bytes) = (file.is_none(), frame.kind, frame.plain_bytes);
        let write = move || {
            let file = match file {
                Some(file) => Some(file),
                None => spill.file()?.map(Arc::new),
            };
            let Some(file) = file else { return Ok((None, frame)) };
            let sealed = seal(&cipher, number, &frame.stored)?;
            file.write_all_at(&sealed, offset)?;
            Ok((Some(file), frame))
        };
        let written: io::Result<_> = tokio::task::spawn_blocking(write).await.map_err(task_failed)?;
        let (file, frame) = match written {
            Ok(written) => written,
            Err(error) => {
                self.spill.release(bytes);
                return Err(self.spill.unusable(&error));
            }
        };
        let Some(file) = file else {
            self.spill.release(bytes);
            return Ok(Some(frame));
        };
        let record = Record { offset, length, kind, plain_bytes, number };
        if further {
            self.segments.push_back(Segment {
                spill: Arc::clone(&self.spill),
                file,
                bytes: 0,
                records: VecDeque::new(),
            });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes = segment.bytes.saturating_add(bytes);
            segment.records.push_back(record);
        }
        self.number = self.number.saturating_add(1);
        Ok(None)
    }

    /// The oldest frame, if there is one.
    pub(super) async fn pop(&mut self) -> Result<Option<Frame>> {
        let Some(segment) = self.segments.front_mut() else { return Ok(None) };
        let Some(record) = segment.records.pop_front() else { return Ok(None) };
        let (file, cipher) = (Arc::clone(&segment.file), self.cipher.clone());
        let read = move || {
            let mut sealed = vec![0; record.length];
            file.read_exact_at(&mut sealed, record.offset)?;
            let stored = open(&cipher, record.number, sealed)?;
            Ok(Frame { kind: record.kind, plain_bytes: record.plain_bytes, stored })
        };
        let frame: io::Result<Frame> = tokio::task::spawn_blocking(read).await.map_err(task_failed)?;
        let frame = frame.map_err(|error| self.spill.unusable(&error))?;
        if self.segments.front().is_some_and(|segment| segment.records.is_empty()) {
            self.segments.pop_front();
        }
        Ok(Some(frame))
    }
}

fn nonce(number: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    Nonce::from([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

fn seal(cipher: &Aes256Gcm, number: u64, plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::with_capacity(plain.len().saturating_add(TAG_LEN));
    sealed.extend_from_slice(plain);
    let tag = cipher.encrypt_inout_detached(&nonce(number), &[], sealed.as_mut_slice().into());
    let tag: [u8; TAG_LEN] = tag.map_err(|_| io::Error::other("a frame cannot be sealed"))?.into();
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

fn open(cipher: &Aes256Gcm, number: u64, mut sealed: Vec<u8>) -> io::Result<Vec<u8>> {
    let changed = || io::Error::new(io::ErrorKind::InvalidData, "it gave back other bytes than were written");
    let (rest, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or_else(changed)?;
    let tag = Tag::from(*tag);
    cipher.decrypt_inout_detached(&nonce(number), &[], (&mut *rest).into(), &tag).map_err(|_| changed())?;
    let length = rest.len();
    sealed.truncate(length);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, length: usize) -> Frame {
        Frame { kind: Kind::Data, plain_bytes: number, stored: vec![u8::try_from(number % 251).unwrap(); length] }
    }

    fn spill(folder: &Path, bytes_max: u64) -> Arc<Spill> {
        Spill::new(folder, bytes_max, Duration::from_secs(1)).unwrap()
    }

    #[tokio::test]
    async fn frames_come_back_as_they_went_in_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spill = spill(folder.path(), 200 << 20);
        let mut queue = Queue::new(&spill).unwrap();
        // more than one file, and reading while it is written
        let (mut written, mut read) = (0, 0);
        for round in 0..3 {
            for _ in 0..20 {
                assert!(queue.push(frame(written, 1 << 20)).await.unwrap().is_none(), "no room on this disk?");
                written += 1;
            }
            for _ in 0..10 * (round + 1) {
                assert_eq!(queue.pop().await.unwrap(), Some(frame(read, 1 << 20)));
                read += 1;
            }
        }
        assert_eq!((written, read, queue.pop().await.unwrap()), (60, 60, None));
        assert_eq!((spill.used_bytes(), std::fs::read_dir(folder.path()).unwrap().count()), (0, 0));
    }

    #[tokio::test]
    async fn all_queues_together_never_take_more_than_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let spill = spill(folder.path(), 10_000);
        let mut queues = [Queue::new(&spill).unwrap(), Queue::new(&spill).unwrap()];
        for number in 0..9 {
            let queue = &mut queues[usize::try_from(number % 2).unwrap()];
            assert!(queue.push(frame(number, 1000)).await.unwrap().is_none(), "no room on this disk?");
        }
        let [first, second] = &mut queues;
        assert_eq!(first.push(frame(9, 1000)).await.unwrap(), Some(frame(9, 1000)));
        assert!(spill.used_bytes() <= 10_000);
        // a queue that goes gives its room back
        *second = Queue::new(&spill).unwrap();
        assert_eq!(first.push(frame(9, 1000)).await.unwrap(), None);
        assert!(spill.is_full().message().contains("0 of 0 MiB"));
    }

    #[test]
    fn what_was_changed_on_the_disk_is_not_given_back_and_nothing_is_readable_there() {
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from([7; KEY_LEN]));
        let sealed = seal(&cipher, 1, b"plain words").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"plain"));
        assert_eq!(open(&cipher, 1, sealed.clone()).unwrap(), b"plain words");
        assert!(open(&cipher, 2, sealed.clone()).is_err(), "another place");
        let mut changed = sealed;
        changed[3] ^= 1;
        assert!(open(&cipher, 1, changed).is_err());
        assert!(open(&cipher, 1, vec![1; 3]).is_err());
    }

    #[tokio::test]
    async fn no_two_frames_are_sealed_alike() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = Queue::new(&spill(folder.path(), 1 << 20)).unwrap();
        for _ in 0..2 {
            assert!(queue.push(frame(7, 100)).await.unwrap().is_none(), "no room on this disk?");
        }
        let segment = queue.segments.front().unwrap();
        let sealed = |index: usize| {
            let record = &segment.records[index];
            let mut bytes = vec![0; record.length];
            segment.file.read_exact_at(&mut bytes, record.offset).unwrap();
            bytes
        };
        assert_ne!(sealed(0), sealed(1), "a nonce was used twice");
    }

    #[test]
    fn a_folder_that_is_missing_is_told_before_it_is_needed() {
        let error = Spill::new(Path::new("/nowhere"), 1, Duration::ZERO).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.message().contains("/nowhere"));
        Spill::new(Path::new("/nowhere"), 0, Duration::ZERO).unwrap();
    }
}
