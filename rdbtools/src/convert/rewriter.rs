//! Follows a plan: takes in the bytes of a value as they pass, and writes them as another type.

use std::mem;

use crate::atom::{self, Parsed, StringHead};
use crate::decode::FIELD_EXPIRY_MAX;
use crate::error::Defect;
use crate::lzf;
use crate::scan::{KEPT_LEN_MAX, Machine};
use crate::write;

use super::packed::{self, Flaw};
use super::plan::{Atom, Held, Mark, Step};
use super::{NO_EXPIRY, loss::LossKind};

/// The longest packed value that is held. Servers make none longer than 1 GiB (`LISTPACK_MAX_SAFETY_LIMIT`).
const HELD_LEN_MAX: u64 = (1 << 30) + (1 << 20);
/// How a node of a quicklist is kept that is one string (`QUICKLIST_NODE_CONTAINER_PLAIN`).
const PLAIN: u64 = 1;
/// What `stream-idmp-duration` and `stream-idmp-maxsize` are unless they are set.
const PRODUCER_DEFAULT: u64 = 100;

/// Why a value cannot be rewritten.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is not what its type says.
    Defect(Defect),
    /// It is too large to be held, or for any value that the target has.
    TooLarge(String),
}

impl From<Defect> for Halt {
    fn from(defect: Defect) -> Self {
        Self::Defect(defect)
    }
}

/// The string whose bytes are passing.
#[derive(Debug)]
enum Body {
    None,
    Copy { left: u64 },
    Skip { left: u64 },
    Hold { held: Held, head: StringHead, left: u64 },
    Element { left: u64, compressed: bool },
    Node { head: StringHead, left: u64 },
}

/// As much of the string of a stream's node, compressed or not, as holds its header and the number of its entries.
const NODE_START_LEN: usize = 64;

/// What a value had that its new type lacks.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    pub(super) field_ttls: u64,
    stream_counters: u64,
    activity: u64,
    producers: u64,
}

impl Lacks {
    /// Kinds and how many of each, none of which is 0.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (LossKind, u64)> {
        let kinds = [
            (LossKind::FieldTtls, self.field_ttls),
            (LossKind::StreamCounters, self.stream_counters),
            (LossKind::ConsumerActivity, self.activity),
            (LossKind::StreamProducers, self.producers),
        ];
        kinds.into_iter().filter(|(_, items)| *items > 0)
    }
}

/// Numbers that were read and are needed further on.
#[derive(Debug, Default)]
struct Numbers {
    least_expiry: u64,
    expiry: Option<i64>,
    container: u64,
    length: u64,
    counted: u64,
    last: (u64, u64),
    deleted: (u64, u64),
    added: u64,
    group: (u64, u64),
    seen: u64,
}

/// Rewrites one value after another.
#[derive(Debug)]
pub(super) struct Rewriter {
    machine: Machine<Step>,
    carry: Vec<u8>,
    /// The atom that was read last, as it stands.
    last: Vec<u8>,
    body: Body,
    collected: Vec<u8>,
    /// Unpacks a list element that is not held.
    unpack: lzf::Unpack,
    /// A field and its value, until its expiry is known.
    field: Vec<u8>,
    holds_field: bool,
    numbers: Numbers,
    lacks: Lacks,
}

impl Rewriter {
    pub(super) fn new() -> Self {
        Self {
            machine: Machine::default(),
            carry: Vec::new(),
            last: Vec::new(),
            body: Body::None,
            collected: Vec::new(),
            unpack: lzf::Unpack::default(),
            field: Vec::new(),
            holds_field: false,
            numbers: Numbers::default(),
            lacks: Lacks::default(),
        }
    }

    /// Begins a value.
    pub(super) fn start(&mut self, steps: &'static [Step]) {
        self.machine.start(steps);
        self.carry.clear();
        self.body = Body::None;
        self.holds_field = false;
        self.numbers = Numbers::default();
        self.lacks = Lacks::default();
    }

    /// What the value that passed had and lost.
    pub(super) fn lacks(&self) -> &Lacks {
        &self.lacks
    }

    /// Takes in bytes of the value and appends what becomes of them.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Halt> {
        let mut rest = bytes;
        while self.pass_body(&mut rest, out)? {
            let Some(step) = self.machine.step() else { return Ok(()) };
            if !self.pass_step(step, &mut rest, out)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the step was done, or the bytes ended first.
    fn pass_step(&mut self, step: Step, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Halt> {
        match step {
            Step::Do(mark) => {
                self.visit(mark, 0, out)?;
            }
            Step::Rest => {
                out.extend_from_slice(rest);
                return Ok(false);
            }
            Step::Repeat(steps) | Step::SkipRepeat(steps) => {
                let Some(count) = self.atom(rest, atom::length)? else { return Ok(false) };
                if matches!(step, Step::Repeat(_)) {
                    self.put_last(out);
                }
                self.machine.repeat(steps, count);
                return Ok(true);
            }
            Step::Pass(Atom::Text) | Step::Skip(Atom::Text) | Step::Collect(_) | Step::Element | Step::Node => {
                let Some(head) = self.atom(rest, atom::string_head)? else { return Ok(false) };
                self.begin_string(step, head, out)?;
            }
            Step::Pass(atom) | Step::Skip(atom) | Step::Note(atom, _) | Step::Take(atom, _) => {
                let Some(number) = self.atom(rest, |bytes| number(atom, bytes))? else { return Ok(false) };
                if matches!(step, Step::Pass(_) | Step::Note(..)) {
                    self.put_last(out);
                }
                if let Step::Note(_, mark) | Step::Take(_, mark) = step {
                    self.visit(mark, number, out)?;
                }
            }
        }
        self.machine.advance();
        Ok(true)
    }

    /// Reads one atom and keeps its bytes; `None` when the bytes end inside it, and then they are carried.
    fn atom<T>(&mut self, rest: &mut &[u8], parse: impl Fn(&[u8]) -> Parsed<T>) -> Result<Option<T>, Halt> {
        self.last.clear();
        if self.carry.is_empty()
            && let Some((value, used)) = parse(rest)?
        {
            let (taken, after) = rest.split_at_checked(used).unwrap_or_default();
            self.last.extend_from_slice(taken);
            *rest = after;
            return Ok(Some(value));
        }
        while let Some((byte, after)) = rest.split_first() {
            self.carry.push(*byte);
            *rest = after;
            if let Some((value, _)) = parse(&self.carry)? {
                mem::swap(&mut self.carry, &mut self.last);
                self.carry.clear();
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.holds_field { self.field.extend_from_slice(bytes) } else { out.extend_from_slice(bytes) }
    }

    fn put_last(&mut self, out: &mut Vec<u8>) {
        let last = mem::take(&mut self.last);
        self.put(&last, out);
        self.last = last;
    }

    fn begin_string(&mut self, step: Step, head: StringHead, out: &mut Vec<u8>) -> Result<(), Halt> {
        let left = head.body_length();
        let limit = if self.holds_field { KEPT_LEN_MAX } else { HELD_LEN_MAX };
        if (self.holds_field || matches!(step, Step::Collect(_))) && head.length().max(left) > limit {
            let length = head.length().max(left);
            return Err(Halt::TooLarge(format!("{length} bytes would have to be held, more than {limit}")));
        }
        self.body = match step {
            Step::Skip(_) => Body::Skip { left },
            Step::Collect(held) => Body::Hold { held, head, left },
            Step::Node => {
                self.put_last(out);
                Body::Node { head, left }
            }
            Step::Element if self.numbers.container == PLAIN => return self.begin_element(head, out),
            Step::Element => return self.begin_string(Step::Collect(Held::Node), head, out),
            _ => {
                self.put_last(out);
                Body::Copy { left }
            }
        };
        self.collected.clear();
        Ok(())
    }

    /// A node of a quicklist that is one string becomes a ziplist of one.
    fn begin_element(&mut self, head: StringHead, out: &mut Vec<u8>) -> Result<(), Halt> {
        if !packed::put_element_start(out, head.length()) {
            let length = head.length();
            return Err(Halt::TooLarge(format!("a list element has {length} bytes, more than older servers can hold")));
        }
        match head {
            StringHead::Lzf { .. } => self.unpack.restart(),
            StringHead::Plain(_) => {}
            StringHead::Int { value, .. } => out.extend(value.to_string().bytes()),
        }
        self.body = Body::Element { left: head.body_length(), compressed: matches!(head, StringHead::Lzf { .. }) };
        Ok(())
    }

    /// Whether the string that is passing has ended.
    fn pass_body(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Halt> {
        let mut body = mem::replace(&mut self.body, Body::None);
        let left = match &mut body {
            Body::None => return Ok(true),
            Body::Copy { left } | Body::Skip { left } => left,
            Body::Hold { left, .. } | Body::Element { left, .. } | Body::Node { left, .. } => left,
        };
        let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
        let (bytes, after) = rest.split_at_checked(count).unwrap_or_default();
        *rest = after;
        *left -= bytes.len() as u64;
        let ended = *left == 0;
        match &mut body {
            Body::None | Body::Skip { .. } => {}
            Body::Copy { .. } => self.put(bytes, out),
            Body::Hold { held, head, .. } => {
                self.collected.extend_from_slice(bytes);
                if ended {
                    self.put_held(*held, *head, out)?;
                }
            }
            Body::Node { head, .. } => {
                out.extend_from_slice(bytes);
                let free = NODE_START_LEN - self.collected.len();
                self.collected.extend_from_slice(bytes.get(..free).unwrap_or(bytes));
                if ended {
                    self.count_entries(*head)?;
                }
            }
            Body::Element { compressed: true, .. } => self.unpack.push(bytes, |bytes| {
                out.extend_from_slice(bytes);
                Ok::<(), Halt>(())
            })?,
            Body::Element { compressed: false, .. } => out.extend_from_slice(bytes),
        }
        match (body, ended) {
            (Body::Element { .. }, true) => packed::put_element_end(out),
            (_, true) => {}
            (body, false) => self.body = body,
        }
        Ok(ended)
    }

    /// Adds the entries of a stream's node, whose number is the first element of its listpack.
    fn count_entries(&mut self, head: StringHead) -> Result<(), Halt> {
        let mut start = Vec::new();
        if matches!(head, StringHead::Lzf { .. }) {
            self.unpack.restart();
            self.unpack.push(&self.collected, |bytes| {
                start.extend_from_slice(bytes);
                Ok::<(), Halt>(())
            })?;
        } else {
            start.extend_from_slice(&self.collected);
        }
        let entries = packed::first_number(&start, head.length());
        let entries =
            entries.ok_or_else(|| Defect::malformed("a node of a stream does not say how many entries it has"))?;
        self.numbers.counted = self.numbers.counted.saturating_add(entries);
        Ok(())
    }

    fn put_held(&mut self, held: Held, head: StringHead, out: &mut Vec<u8>) -> Result<(), Halt> {
        let collected = mem::take(&mut self.collected);
        let result = match head {
            StringHead::Plain(_) => packed::put(held, &collected, out),
            StringHead::Int { value, .. } => packed::put(held, value.to_string().as_bytes(), out),
            StringHead::Lzf { length, .. } => {
                let mut unpacked = Vec::new();
                lzf::unpack(&collected, length, &mut unpacked)?;
                packed::put(held, &unpacked, out)
            }
        };
        self.lacks.field_ttls += result.map_err(|flaw| match flaw {
            Flaw::Packed(error) => Defect::malformed(error.to_string()),
            Flaw::Other(message) => Defect::malformed(message),
        })?;
        // the memory is used again, unless it was an uncommonly long one
        if collected.capacity() <= super::PIECE_LEN {
            self.collected = collected;
        }
        Ok(())
    }

    fn visit(&mut self, mark: Mark, number: u64, out: &mut Vec<u8>) -> Result<(), Halt> {
        let numbers = &mut self.numbers;
        match mark {
            Mark::LeastExpiry => numbers.least_expiry = number,
            Mark::ExpiryFromLeast => {
                let expiry = number.checked_sub(1).map(|after| numbers.least_expiry.saturating_add(after));
                numbers.expiry = expiry.map(field_expiry).transpose()?;
            }
            Mark::ExpiryOrZero => numbers.expiry = Some(number).filter(|at| *at > 0).map(field_expiry).transpose()?,
            Mark::LostExpiryOrZero => self.lacks.field_ttls += u64::from(number > 0),
            Mark::LostExpiry => self.lacks.field_ttls += u64::from(number != NO_EXPIRY.cast_unsigned()),
            Mark::PutExpiry => out.extend(numbers.expiry.unwrap_or(NO_EXPIRY).to_le_bytes()),
            // expiries are written from 0 on, because the least of them is known at the end only
            Mark::PutLeastExpiry => out.extend([0; 8]),
            Mark::Hold => {
                self.holds_field = true;
                self.field.clear();
            }
            Mark::Release => self.release(number, out),
            Mark::Container => numbers.container = number,
            Mark::CountedLength => {
                self.lacks.stream_counters += u64::from(number != numbers.counted);
                write::put_length(out, numbers.counted);
            }
            _ => self.visit_stream(mark, number),
        }
        Ok(())
    }

    fn release(&mut self, expiry: u64, out: &mut Vec<u8>) {
        let kept = (expiry <= FIELD_EXPIRY_MAX).then_some(expiry);
        if kept.is_none() && expiry != NO_EXPIRY.cast_unsigned() {
            self.lacks.field_ttls += 1;
        }
        write::put_length(out, kept.map_or(0, |at| at + 1));
        out.extend_from_slice(&self.field);
        self.holds_field = false;
        if self.field.capacity() > super::PIECE_LEN {
            self.field = Vec::new();
        }
    }

    /// What is counted as lost is what the target, or a newer server after it, would not find out by itself.
    fn visit_stream(&mut self, mark: Mark, number: u64) {
        let numbers = &mut self.numbers;
        match mark {
            Mark::Length => numbers.length = number,
            Mark::LastMs => numbers.last.0 = number,
            Mark::LastSeq => numbers.last.1 = number,
            Mark::DeletedMs => numbers.deleted.0 = number,
            Mark::DeletedSeq => {
                numbers.deleted.1 = number;
                self.lacks.stream_counters += u64::from(numbers.deleted != (0, 0));
            }
            Mark::Added => {
                numbers.added = number;
                self.lacks.stream_counters += u64::from(number != numbers.length);
            }
            Mark::GroupMs => numbers.group.0 = number,
            Mark::GroupSeq => numbers.group.1 = number,
            Mark::Read => {
                let unknown = number == u64::MAX;
                let nothing = number == 0 && numbers.group == (0, 0);
                let everything = number == numbers.added && numbers.group == numbers.last;
                self.lacks.stream_counters += u64::from(!(unknown || nothing || everything));
            }
            Mark::Seen => numbers.seen = number,
            Mark::Active => self.lacks.activity += u64::from(number != numbers.seen),
            Mark::ProducerDuration | Mark::ProducerLimit => {
                self.lacks.producers += u64::from(number != PRODUCER_DEFAULT);
            }
            Mark::ProducerId => self.lacks.producers += 1,
            Mark::ProducerCount => self.lacks.producers += u64::from(number > 0),
            _ => {}
        }
    }
}

fn field_expiry(at: u64) -> Result<i64, Defect> {
    let accepted = Some(at).filter(|at| *at <= FIELD_EXPIRY_MAX).and_then(|at| i64::try_from(at).ok());
    accepted.ok_or_else(|| Defect::malformed(format!("a field expires at {at}, later than any server accepts")))
}

/// Reads a number, or bytes, of which eight are a number.
fn number(atom: Atom, bytes: &[u8]) -> Parsed<u64> {
    match atom {
        Atom::Number => atom::length(bytes),
        Atom::Fixed(8) => Ok(bytes.first_chunk().map(|bytes| (u64::from_le_bytes(*bytes), 8))),
        Atom::Fixed(count) => Ok((bytes.len() >= usize::from(count)).then_some((0, usize::from(count)))),
        // strings have a head and a body, and are begun elsewhere
        Atom::Text => Ok(Some((0, 0))),
    }
}
