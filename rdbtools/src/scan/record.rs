//! Walks values and other records along their layouts.

use crate::atom::{self, Parsed, StringHead};
use crate::error::{Defect, ScanError};
use crate::lzf;
use crate::sink::Sink;
use crate::value::{ModuleId, Op};

use super::{Cursor, Phase, Scanner};

/// Length of the id of a stream's node: two numbers of 64 bits.
const NODE_ID_LEN: u64 = 16;

/// What is being walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    Value,
    Aux,
    Function,
    FunctionPreGa,
    SlotImport,
    ModuleAux,
    KeyMeta,
}

/// The bytes of a string that have not arrived yet.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Skip { left: u64 },
    Lzf { walk: lzf::Walk, start: u64 },
    Keep { head: StringHead, start: u64 },
}

/// A part of a module's value (`rdbLoadCheckModuleValue` in the server's `rdb.c`).
#[derive(Debug, Clone, Copy)]
enum Part {
    End,
    Number,
    String(StringHead),
}

fn module_part(bytes: &[u8]) -> Parsed<Part> {
    let Some((mark, used)) = atom::length(bytes)? else { return Ok(None) };
    let rest = bytes.get(used..).unwrap_or_default();
    let fixed = |length: usize| (rest.len() >= length).then_some((Part::Number, used + length));
    match mark {
        0 => Ok(Some((Part::End, used))),
        1 | 2 => Ok(atom::length(rest)?.map(|(_, more)| (Part::Number, used + more))),
        3 => Ok(fixed(4)),
        4 => Ok(fixed(8)),
        5 => Ok(atom::string_head(rest)?.map(|(head, more)| (Part::String(head), used + more))),
        _ => Err(Defect::malformed(format!("{mark} is no mark of a part of a module's value"))),
    }
}

fn container(bytes: &[u8]) -> Parsed<()> {
    match atom::length(bytes)? {
        None => Ok(None),
        Some((1 | 2, used)) => Ok(Some(((), used))),
        Some((kind, _)) => Err(Defect::malformed(format!("{kind} is no kind of quicklist node (1 plain, 2 packed)"))),
    }
}

fn node_id(bytes: &[u8]) -> Parsed<StringHead> {
    match atom::string_head(bytes)? {
        Some((head, _)) if head.length() != NODE_ID_LEN => {
            Err(Defect::malformed(format!("the id of a stream's node has {} bytes, not 16", head.length())))
        }
        other => Ok(other),
    }
}

fn raw(count: u8) -> impl Fn(&[u8]) -> Parsed<()> {
    let count = usize::from(count);
    move |bytes| Ok((bytes.len() >= count).then_some(((), count)))
}

/// The text of a number kept as a number.
pub(super) fn decimal(value: i32) -> String {
    value.to_string()
}

impl<S: Sink> Scanner<S> {
    #[inline]
    pub(super) fn begin_record(&mut self, record: Record, layout: &'static [Op]) {
        self.record = record;
        self.machine.start(layout);
        self.phase = Phase::Record;
    }

    pub(super) fn pass_record(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        loop {
            if !matches!(self.body, Body::None) && !self.pass_body(cursor)? {
                return Ok(false);
            }
            let Some(op) = self.machine.step() else {
                self.end_record(cursor);
                return Ok(true);
            };
            if !self.pass_step(cursor, op)? {
                return Ok(false);
            }
        }
    }

    #[inline]
    fn pass_step(&mut self, cursor: &mut Cursor<'_>, op: Op) -> Result<bool, ScanError> {
        match op {
            Op::String => {
                let Some(head) = self.atom(cursor, atom::string_head)? else { return Ok(false) };
                self.begin_string(cursor, head);
            }
            Op::Repeat(steps) => {
                let Some(count) = self.atom(cursor, atom::length)? else { return Ok(false) };
                self.machine.repeat(steps, count);
                return Ok(true);
            }
            Op::Number => return self.pass_atom(cursor, |bytes| Ok(atom::length(bytes)?.map(|(_, used)| ((), used)))),
            Op::Raw(count) => return self.pass_atom(cursor, raw(count)),
            Op::TextScore => return self.pass_atom(cursor, atom::text_score),
            Op::BinaryScore => return self.pass_atom(cursor, atom::binary_score),
            Op::Container => return self.pass_atom(cursor, container),
            Op::NodeId => {
                let Some(head) = self.atom(cursor, node_id)? else { return Ok(false) };
                self.begin_string(cursor, head);
            }
            Op::Keep => {
                let start = self.atom_start(cursor);
                let Some(head) = self.atom(cursor, atom::string_head)? else { return Ok(false) };
                self.check_kept(head).map_err(|defect| defect.at(start))?;
                self.collected.clear();
                self.body = Body::Keep { head, start };
            }
            Op::ModuleId => {
                let Some(id) = self.atom(cursor, atom::length)? else { return Ok(false) };
                self.sink.module_value(ModuleId(id));
            }
            Op::ModuleParts => return self.pass_module_part(cursor),
        }
        self.machine.advance();
        Ok(true)
    }

    #[inline]
    fn pass_atom(&mut self, cursor: &mut Cursor<'_>, parse: impl Fn(&[u8]) -> Parsed<()>) -> Result<bool, ScanError> {
        let passed = self.atom(cursor, parse)?.is_some();
        if passed {
            self.machine.advance();
        }
        Ok(passed)
    }

    /// The step stays the same until the end mark.
    fn pass_module_part(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        match self.atom(cursor, module_part)? {
            None => return Ok(false),
            Some(Part::End) => self.machine.advance(),
            Some(Part::Number) => {}
            Some(Part::String(head)) => self.begin_string(cursor, head),
        }
        Ok(true)
    }

    #[inline]
    fn begin_string(&mut self, cursor: &mut Cursor<'_>, head: StringHead) {
        match head {
            StringHead::Plain(length) => {
                let left = length - cursor.take(length).len() as u64;
                if left > 0 {
                    self.body = Body::Skip { left };
                }
            }
            StringHead::Int { .. } => {}
            StringHead::Lzf { compressed, length } => {
                let start = self.base + cursor.position() as u64;
                self.body = Body::Lzf { walk: lzf::Walk::new(compressed, length), start };
            }
        }
    }

    /// Whether the whole string has passed.
    fn pass_body(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        let whole = match &mut self.body {
            Body::None => true,
            Body::Skip { left } => {
                *left -= cursor.take(*left).len() as u64;
                *left == 0
            }
            Body::Lzf { walk, start } => {
                let start = *start;
                walk.pass(cursor.take(walk.left())).map_err(|defect| defect.at(start))?;
                walk.left() == 0
            }
            Body::Keep { head, start } => {
                let (head, start) = (*head, *start);
                let missing = head.body_length().saturating_sub(self.collected.len() as u64);
                self.collected.extend_from_slice(cursor.take(missing));
                if (self.collected.len() as u64) < head.body_length() {
                    return Ok(false);
                }
                self.keep(head).map_err(|defect| defect.at(start))?;
                true
            }
        };
        if whole {
            self.body = Body::None;
        }
        Ok(whole)
    }

    fn keep(&mut self, head: StringHead) -> Result<(), Defect> {
        let mut collected = std::mem::take(&mut self.collected);
        match head {
            StringHead::Plain(_) => self.kept.push(collected),
            StringHead::Int { value, .. } => self.kept.push(decimal(value).into_bytes()),
            StringHead::Lzf { length, .. } => {
                let mut unpacked = Vec::new();
                lzf::unpack(&collected, length, &mut unpacked)?;
                self.kept.push(unpacked);
                collected.clear();
            }
        }
        Ok(())
    }

    #[inline]
    fn end_record(&mut self, cursor: &mut Cursor<'_>) {
        self.phase = Phase::Opcode;
        if self.record == Record::Value {
            self.end_key(cursor);
        } else {
            self.end_other_record(cursor);
        }
    }

    fn end_other_record(&mut self, cursor: &mut Cursor<'_>) {
        self.end_raw(cursor);
        let kept = std::mem::take(&mut self.kept);
        match (self.record, kept.as_slice()) {
            (Record::Aux, [name, value]) => self.sink.aux(name, value),
            (Record::Function, [source]) => self.sink.function(source),
            (Record::FunctionPreGa, [name]) => self.sink.function_pre_ga(name),
            (Record::ModuleAux, _) => self.sink.module_aux_end(),
            (Record::SlotImport, _) => self.sink.slot_import(),
            _ => {}
        }
    }
}
