//! Follows a plan: takes in the bytes of a value as they pass, and writes them as another type.

use std::mem;

use crate::atom::{self, Parsed, StringHead};
use crate::decode::FIELD_EXPIRY_MAX;
use crate::error::Defect;
use crate::lzf;
use crate::scan::{KEPT_LEN_MAX, Machine};
use crate::templates::{Fields, Templates};
use crate::write;

use super::NO_EXPIRY;
use super::noted::{Lacks, Noted};
use super::packed::{self, Around, Flaw};
use super::plan::{Atom, Held, Mark, Step};

/// The longest packed value that is held. Servers make none longer than 1 GiB (`LISTPACK_MAX_SAFETY_LIMIT`).
const HELD_LEN_MAX: u64 = (1 << 30) + (1 << 20);
/// How a node of a quicklist is kept that is one string (`QUICKLIST_NODE_CONTAINER_PLAIN`).
const PLAIN: u64 = 1;
/// The consumer that is made for pending entries that no consumer has.
const GIVEN_BACK_NAME: &[u8] = b"given-back";
const STREAM_ID_LEN: usize = 16;
/// As much of the string of a stream's node, compressed or not, as holds its header and the number of its entries.
const NODE_START_LEN: usize = 64;

/// Why a value cannot be rewritten.
#[derive(Debug)]
pub(crate) enum Halt {
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

/// Rewrites one value after another.
#[derive(Debug)]
pub(crate) struct Rewriter {
    machine: Machine<Step>,
    carry: Vec<u8>,
    /// The atom that was read last, as it stands.
    last: Vec<u8>,
    body: Body,
    collected: Vec<u8>,
    /// Unpacks a list element that is not held.
    unpack: lzf::Unpack,
    /// A field and its value, until its expiry is known; or the consumers of a group.
    held: Vec<u8>,
    /// Ids of pending entries of a group that no consumer has.
    given_back: Vec<u8>,
    holds: bool,
    noted: Noted,
    /// By how many ms expiries of fields move, where they do.
    shift: i64,
    templates: Templates,
    /// The fields of the hash that is passing, and which of them is next.
    fields: Option<(Fields, usize)>,
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
            held: Vec::new(),
            given_back: Vec::new(),
            holds: false,
            noted: Noted::default(),
            shift: 0,
            templates: Templates::default(),
            fields: None,
        }
    }

    /// Moves the expiries of fields by so many ms.
    pub(crate) fn moving(shift: i64) -> Self {
        Self { shift, ..Self::new() }
    }

    /// Begins a value.
    pub(crate) fn start(&mut self, steps: &'static [Step]) {
        self.machine.start(steps);
        self.carry.clear();
        self.body = Body::None;
        self.holds = false;
        self.fields = None;
        self.noted = Noted::default();
    }

    /// The templates that hashes refer to.
    pub(crate) fn templates(&mut self) -> &mut Templates {
        &mut self.templates
    }

    /// What the value that passed had and lost.
    pub(super) fn lacks(&self) -> &Lacks {
        &self.noted.lacks
    }

    /// Takes in bytes of the value and appends what becomes of them.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Halt> {
        let mut rest = bytes;
        while self.pass_body(&mut rest, out)? {
            let Some(step) = self.machine.step() else { return Ok(()) };
            self.check_held()?;
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
            Step::Repeat(steps) | Step::SkipRepeat(steps) | Step::TakeRepeat(_, steps) => {
                let Some(count) = self.atom(rest, atom::length)? else { return Ok(false) };
                match step {
                    Step::Repeat(_) => self.put_last(out),
                    Step::TakeRepeat(mark, _) => self.visit(mark, count, out)?,
                    _ => {}
                }
                self.machine.repeat(steps, count);
                return Ok(true);
            }
            Step::Templated(steps) => {
                let Some(id) = self.atom(rest, atom::length)? else { return Ok(false) };
                let fields = self.templates.of_hash(id)?;
                write::put_length(out, fields.len() as u64);
                self.machine.repeat(steps, fields.len() as u64);
                self.fields = Some((fields, 0));
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

    /// Fails where more is held than any server has in one field, or for its consumers.
    fn check_held(&self) -> Result<(), Halt> {
        let held = (self.held.len() + self.given_back.len()) as u64;
        if self.holds && held > 2 * KEPT_LEN_MAX {
            return Err(Halt::TooLarge(format!("{held} bytes or more would have to be held")));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.holds { self.held.extend_from_slice(bytes) } else { out.extend_from_slice(bytes) }
    }

    fn put_last(&mut self, out: &mut Vec<u8>) {
        let last = mem::take(&mut self.last);
        self.put(&last, out);
        self.last = last;
    }

    fn begin_string(&mut self, step: Step, head: StringHead, out: &mut Vec<u8>) -> Result<(), Halt> {
        let left = head.body_length();
        let limit = if self.holds { KEPT_LEN_MAX } else { HELD_LEN_MAX };
        if (self.holds || matches!(step, Step::Collect(_))) && head.length().max(left) > limit {
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
            Step::Element if self.noted.numbers.container == PLAIN => return self.begin_element(head, out),
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
            StringHead::Lzf { compressed, length } => self.unpack.restart(compressed, length),
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
            Body::Element { compressed: true, .. } => self.unpack.all(bytes, out)?,
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
        if let StringHead::Lzf { compressed, length } = head {
            self.unpack.restart(compressed, length);
            self.unpack.all(&self.collected, &mut start)?;
        } else {
            start.extend_from_slice(&self.collected);
        }
        let entries = packed::first_number(&start, head.length());
        let entries =
            entries.ok_or_else(|| Defect::malformed("a node of a stream does not say how many entries it has"))?;
        self.noted.numbers.counted = self.noted.numbers.counted.saturating_add(entries);
        Ok(())
    }

    fn put_held(&mut self, held: Held, head: StringHead, out: &mut Vec<u8>) -> Result<(), Halt> {
        let collected = mem::take(&mut self.collected);
        let around = Around { shift: self.shift, templates: &self.templates };
        let result = match head {
            StringHead::Plain(_) => packed::put(held, &collected, &around, out),
            StringHead::Int { value, .. } => packed::put(held, value.to_string().as_bytes(), &around, out),
            StringHead::Lzf { length, .. } => {
                let mut unpacked = Vec::new();
                lzf::unpack(&collected, length, &mut unpacked)?;
                packed::put(held, &unpacked, &around, out)
            }
        };
        self.noted.lacks.field_ttls += result.map_err(|flaw| match flaw {
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
        let numbers = &mut self.noted.numbers;
        match mark {
            Mark::LeastExpiry => numbers.least_expiry = number,
            Mark::ExpiryFromLeast => {
                let expiry = number.checked_sub(1).map(|after| numbers.least_expiry.saturating_add(after));
                numbers.expiry = expiry.map(field_expiry).transpose()?;
            }
            Mark::ExpiryOrZero => numbers.expiry = Some(number).filter(|at| *at > 0).map(field_expiry).transpose()?,
            Mark::LostExpiryOrZero => self.noted.lacks.field_ttls += u64::from(number > 0),
            Mark::LostExpiry => self.noted.lacks.field_ttls += u64::from(number != NO_EXPIRY.cast_unsigned()),
            Mark::PutExpiry => out.extend(numbers.expiry.unwrap_or(NO_EXPIRY).to_le_bytes()),
            // expiries are written from 0 on, because the least of them is known at the end only
            Mark::PutLeastExpiry => out.extend([0; 8]),
            Mark::MoveLeastExpiry => out.extend(packed::moved(number, self.shift).to_le_bytes()),
            Mark::MoveExpiry if number == NO_EXPIRY.cast_unsigned() => out.extend(number.to_le_bytes()),
            Mark::MoveExpiry => out.extend(packed::moved(number, self.shift).to_le_bytes()),
            Mark::Hold | Mark::HoldConsumers => {
                self.holds = true;
                self.held.clear();
                self.given_back.clear();
            }
            Mark::Consumers => numbers.consumers = number,
            Mark::GivenBack => self.given_back.extend_from_slice(&self.last),
            Mark::PutConsumers { active } => self.put_consumers(active, out),
            Mark::Release => self.release(number, out),
            Mark::PutField => {
                if let Some((fields, next)) = &mut self.fields {
                    write::put_string(out, fields.get(*next).map_or(&[][..], Vec::as_slice));
                    *next += 1;
                }
            }
            Mark::Container => numbers.container = number,
            Mark::CountedLength => {
                self.noted.lacks.stream_counters += u64::from(number != numbers.counted);
                write::put_length(out, numbers.counted);
            }
            _ => self.noted.note_stream(mark, number),
        }
        Ok(())
    }

    fn release(&mut self, expiry: u64, out: &mut Vec<u8>) {
        let kept = (expiry <= FIELD_EXPIRY_MAX).then_some(expiry);
        if kept.is_none() && expiry != NO_EXPIRY.cast_unsigned() {
            self.noted.lacks.field_ttls += 1;
        }
        write::put_length(out, kept.map_or(0, |at| at + 1));
        out.extend_from_slice(&self.held);
        self.holds = false;
        if self.held.capacity() > super::PIECE_LEN {
            self.held = Vec::new();
        }
    }

    /// Older servers know no pending entry without a consumer, and fall over one: a consumer is made for them.
    fn put_consumers(&mut self, active: bool, out: &mut Vec<u8>) {
        self.holds = false;
        let given_back = (self.given_back.len() / STREAM_ID_LEN) as u64;
        write::put_length(out, self.noted.numbers.consumers.saturating_add(u64::from(given_back > 0)));
        out.extend_from_slice(&self.held);
        if given_back == 0 {
            return;
        }
        let mut name = GIVEN_BACK_NAME.to_vec();
        while self.held.windows(name.len()).any(|held| held == name) {
            name.push(b'+');
        }
        write::put_string(out, &name);
        // never seen, and never active
        out.extend([0; 8]);
        if active {
            out.extend((-1_i64).to_le_bytes());
        }
        write::put_length(out, given_back);
        out.extend_from_slice(&self.given_back);
        self.noted.lacks.given_back += given_back;
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
