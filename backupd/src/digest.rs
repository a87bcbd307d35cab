//! What RDBs hold, digested beside whatever else becomes of their bytes: see [`rdbtools::content`].

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rdbtools::ScanError;
use rdbtools::content::{Content, ContentRules, ContentSink, Difference};
use rdbtools::decode::Decoder;
use rdbtools::scan::Scanner;
use tokio::sync::mpsc;

/// Chunks that wait for a digest.
pub const CHUNKS_AHEAD: usize = 2;

/// The first version of RDB that holds all facts of streams.
pub const STREAM_FACTS_VERSION: u16 = 10;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How many differences a message names.
const SHOWN_MAX: usize = 5;

/// A scanner that digests.
pub type Digesting = Scanner<Decoder<ContentSink>>;

/// Why a file was not digested.
#[derive(Debug)]
pub enum Undigested {
    /// It could not be read.
    File(std::io::Error),
    /// It is no RDB, or holds a value that cannot be decoded.
    Scan(ScanError),
}

/// A scanner that digests by these rules.
#[must_use]
pub fn digesting(rules: ContentRules) -> Digesting {
    Scanner::new(Decoder::new(ContentSink::new(rules)))
}

/// Digests one RDB that comes in chunks; one content for each shard of the rules, at least one. Blocks until the sender is gone.
///
/// # Errors
/// Where the RDB is not well-formed.
pub fn of_chunks(rules: ContentRules, mut chunks: mpsc::Receiver<Arc<Vec<u8>>>) -> Result<Vec<Content>, ScanError> {
    let mut scanner = digesting(rules);
    while let Some(chunk) = chunks.blocking_recv() {
        scanner.feed(&chunk)?;
    }
    contents(scanner)
}

/// Digests one file; one content for each shard of the rules, at least one. Blocks.
///
/// # Errors
/// Why it could not be.
pub fn of_file(rules: ContentRules, path: &Path) -> Result<Vec<Content>, Undigested> {
    let mut scanner = digesting(rules);
    let mut file = File::open(path).map_err(Undigested::File)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk).map_err(Undigested::File)?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        scanner.feed(bytes).map_err(Undigested::Scan)?;
    }
    contents(scanner).map_err(Undigested::Scan)
}

/// What was digested, when the RDB has ended.
///
/// # Errors
/// That it has not.
fn contents(scanner: Digesting) -> Result<Vec<Content>, ScanError> {
    scanner.finish().map(|(_, sink)| sink.into_values().into_contents())
}

/// The first differences, for a message, and how many more there are.
#[must_use]
pub fn shown(differences: &[Difference]) -> Vec<String> {
    let mut shown: Vec<String> = differences.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if differences.len() > SHOWN_MAX {
        shown.push(format!("and {} more", differences.len() - SHOWN_MAX));
    }
    shown
}
