//! Listing a folder in the order of a bucket: ascending by the bytes of the whole key.
//!
//! Only folders that can hold something of the page are read, one whole folder at a time.

use std::io;
use std::path::Path;

use super::{ErrorKind, LocalStore, Page, is_absence, key};
use crate::error::Result;
use crate::store::{ObjectEntry, PAGE_ENTRIES_MAX};

/// How many folders deep a listing goes: as deep as the longest key.
const DEPTH_MAX: usize = key::KEY_LEN_MAX / 2;

/// One page of the entries that begin with `prefix` and come after `after` (empty: from the first).
pub(super) fn page(store: &LocalStore, prefix: &str, by_folder: bool, after: &str) -> Result<Page> {
    let mut walk = Walk { prefix, by_folder, after, page: Page::default(), last: String::new() };
    match walk.folder(&store.base, "", DEPTH_MAX) {
        Ok(Flow::Full) => walk.page.next = Some(walk.last),
        Ok(Flow::More) => {}
        Err(e) => return Err(store.error("list", prefix, &e)),
    }
    Ok(walk.page)
}

struct Walk<'a> {
    prefix: &'a str,
    by_folder: bool,
    after: &'a str,
    page: Page,
    /// The last entry of the page.
    last: String,
}

/// Whether the page takes more entries.
#[derive(PartialEq, Eq)]
enum Flow {
    More,
    /// The page is full and there is at least one entry more.
    Full,
}

impl Walk<'_> {
    /// Walks a folder; `name` is its key prefix, empty or ending in `/`.
    fn folder(&mut self, path: &Path, name: &str, depth: usize) -> io::Result<Flow> {
        for entry in sorted(path, name)? {
            let flow = match (entry.ends_with('/'), depth) {
                (true, 0) => Flow::More,
                (true, _) => self.subfolder(path, name, entry, depth)?,
                (false, _) => self.object(path, name, entry)?,
            };
            if flow == Flow::Full {
                return Ok(Flow::Full);
            }
        }
        Ok(Flow::More)
    }

    fn subfolder(&mut self, path: &Path, name: &str, entry: String, depth: usize) -> io::Result<Flow> {
        let path = path.join(entry.get(name.len()..).unwrap_or_default());
        let grouped = self.by_folder && entry.len() > self.prefix.len() && entry.starts_with(self.prefix);
        if grouped {
            if *entry > *self.after && holds_object(&path, &entry, depth.saturating_sub(1))? {
                return Ok(self.take(entry, None));
            }
            return Ok(Flow::More);
        }
        let wanted = entry.starts_with(self.prefix) || self.prefix.starts_with(&entry);
        let passed = *entry < *self.after && !self.after.starts_with(&entry);
        if !wanted || passed {
            return Ok(Flow::More);
        }
        match self.folder(&path, &entry, depth.saturating_sub(1)) {
            // Deleted while we walked.
            Err(e) if is_absence(&e) => Ok(Flow::More),
            other => other,
        }
    }

    fn object(&mut self, path: &Path, name: &str, entry: String) -> io::Result<Flow> {
        if !entry.starts_with(self.prefix) || *entry <= *self.after {
            return Ok(Flow::More);
        }
        match std::fs::symlink_metadata(path.join(entry.get(name.len()..).unwrap_or_default())) {
            Ok(metadata) => Ok(self.take(entry, Some(metadata.len()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Flow::More),
            Err(e) => Err(e),
        }
    }

    fn take(&mut self, entry: String, size_bytes: Option<u64>) -> Flow {
        if self.page.objects.len().saturating_add(self.page.folders.len()) >= PAGE_ENTRIES_MAX {
            return Flow::Full;
        }
        self.last.clone_from(&entry);
        match size_bytes {
            Some(size_bytes) => self.page.objects.push(ObjectEntry { key: entry, size_bytes }),
            None => self.page.folders.push(entry),
        }
        Flow::More
    }
}

/// Whether there is an object anywhere in a folder: a bucket has no empty folders.
fn holds_object(path: &Path, name: &str, depth: usize) -> io::Result<bool> {
    let entries = match sorted(path, name) {
        Err(e) if is_absence(&e) => return Ok(false),
        other => other?,
    };
    for entry in entries {
        let below = path.join(entry.get(name.len()..).unwrap_or_default());
        if !entry.ends_with('/') || (depth > 0 && holds_object(&below, &entry, depth.saturating_sub(1))?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files and folders of a folder as keys (folders end in `/`), in the order of their keys; what cannot be a
/// key (temporary files, links, foreign names) is left out.
fn sorted(path: &Path, name: &str) -> io::Result<Vec<String>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let (Ok(part), kind) = (entry.file_name().into_string(), entry.file_type()?) else { continue };
        let key = format!("{name}{part}");
        if !key::is_valid(&key) || !(kind.is_file() || kind.is_dir()) {
            continue;
        }
        entries.push(if kind.is_dir() { key + "/" } else { key });
    }
    entries.sort_unstable();
    Ok(entries)
}
