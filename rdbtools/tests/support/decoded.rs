//! What an RDB holds, whatever encodings it is in: the same for a file and for what it was converted to.

use std::collections::BTreeMap;

use rdbtools::convert::Target;
use rdbtools::decode::{Decoder, Part, StreamFacts, Values};
use rdbtools::structure::Role;
use rdbtools::{Key, ScanError, Scanner, Sink};

/// Stands before the expiry of a field.
pub(crate) const UNTIL: &str = " until ";

/// A key: what it is, and its value as one line for each part, sorted where order means nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) code: u8,
    pub(crate) expires_at_ms: Option<i64>,
    attributes: (Option<u64>, Option<u8>),
    pub(crate) lines: Vec<String>,
}

/// Keys by database and name; files that a tool put together may have one twice, the second of them with 1 behind it.
pub(crate) type Keyspace = BTreeMap<(u64, Vec<u8>, usize), Decoded>;

struct Collect {
    target: Target,
    keys: Keyspace,
    now: ((u64, Vec<u8>), Decoded),
    text: Option<(Role, Vec<u8>)>,
    functions: Vec<Vec<u8>>,
    /// Entries of the stream that are not deleted.
    entries: u64,
}

/// Decodes a file as far as `target` can hold it: without field expiries, counters of streams and the like where the
/// target has none.
pub(crate) fn decode(rdb: &[u8], target: Target) -> Result<(Keyspace, Vec<Vec<u8>>), ScanError> {
    let collect = Collect {
        target,
        keys: Keyspace::new(),
        now: ((0, Vec::new()), Decoded::default()),
        text: None,
        functions: Vec::new(),
        entries: 0,
    };
    let mut scanner = Scanner::new(Decoder::new(collect));
    scanner.feed(rdb)?;
    let collect = scanner.finish()?.1.into_values();
    Ok((collect.keys, collect.functions))
}

impl Sink for Collect {
    fn function(&mut self, source: &[u8]) {
        self.functions.push(source.to_vec());
    }

    fn key(&mut self, key: &Key<'_>) {
        let decoded = Decoded {
            code: key.value_type.code(),
            expires_at_ms: key.expires_at_ms,
            attributes: (key.idle_s, key.frequency),
            lines: Vec::new(),
        };
        self.now = ((key.db, key.name.to_vec()), decoded);
        self.entries = 0;
    }
}

impl Values for Collect {
    fn part(&mut self, _offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        let (old_counters, old_consumers) = match self.target {
            Target::Redis62 => (true, true),
            Target::Redis70 => (false, true),
            _ => (false, false),
        };
        let lines = &mut self.now.1.lines;
        match part {
            Part::Begin { role, .. } => self.text = Some((role, Vec::new())),
            Part::Piece(bytes) => self.text.as_mut().unwrap().1.extend(bytes),
            Part::End => {
                let (role, text) = self.text.take().unwrap();
                let text = text.escape_ascii().to_string();
                match role {
                    Role::FieldValue if !lines.is_empty() => lines.last_mut().unwrap().extend([" = ", text.as_str()]),
                    Role::Producer | Role::ProducerId => {}
                    _ => lines.push(format!("{role:?} {text}")),
                }
            }
            Part::Score(score) => lines.last_mut().unwrap().extend([" ".to_owned(), score.to_bits().to_string()]),
            Part::FieldExpiry(Some(at)) if has_field_ttls(self.target) => {
                lines.last_mut().unwrap().extend([UNTIL.to_owned(), at.to_string()]);
            }
            Part::Entry { deleted, .. } => {
                self.entries += u64::from(!deleted);
                lines.push(format!("{part:?}"));
            }
            // a wrong length is set right for a target that counts
            Part::Stream(facts) if self.target == Target::Valkey9 => {
                lines.push(format!("{:?}", StreamFacts { length: self.entries, ..facts }));
            }
            Part::Stream(facts) if old_counters => lines.push(format!("{} {}", facts.length, facts.last_id)),
            Part::Group { last_id, .. } if old_counters => lines.push(format!("{last_id}")),
            Part::Consumer { seen_ms, .. } if old_consumers => lines.push(format!("{seen_ms}")),
            Part::FieldExpiry(_) | Part::Idempotence { .. } | Part::ProducerEntry(_) => {}
            Part::Count { role: Role::Elements | Role::Producer | Role::ProducerId | Role::Nacked, .. } => {}
            Part::ValueEnd => {
                let (name, mut decoded) = std::mem::take(&mut self.now);
                // in lists and streams order means something
                if !matches!(decoded.code, 1 | 10 | 14 | 15 | 18 | 19 | 21 | 26 | 27) {
                    decoded.lines.sort();
                }
                let earlier =
                    self.keys.range((name.0, name.1.clone(), 0)..=(name.0, name.1.clone(), usize::MAX)).count();
                self.keys.insert((name.0, name.1, earlier), decoded);
            }
            other => lines.push(format!("{other:?}")),
        }
        Ok(())
    }
}

pub(crate) fn has_field_ttls(target: Target) -> bool {
    matches!(target, Target::Redis74 | Target::Redis80 | Target::Valkey9)
}
