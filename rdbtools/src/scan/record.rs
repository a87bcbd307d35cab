//! Walks values and other records along their layouts.

use crate::atom::{self, ArrayValue, Parsed, StringHead};
use crate::error::{Defect, ScanError};
use crate::lzf;
use crate::sink::Sink;
use crate::structure::ModuleNumber;
use crate::templates;
use crate::value::{ModuleId, Op};

use super::{Cursor, Phase, Scanner, TEMPLATE_LEN_MAX};

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
    HashTemplate,
}

/// The bytes of a string that have not arrived yet.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Skip {
        left: u64,
    },
    Lzf {
        walk: lzf::Walk,
        start: u64,
    },
    /// One that is unpacked because it is told.
    Unpack {
        start: u64,
    },
    Keep {
        head: StringHead,
        start: u64,
    },
}

/// A part of a module's value (`rdbLoadCheckModuleValue` in the server's `rdb.c`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    End,
    Number(ModuleNumber),
    String(StringHead),
}

#[inline]
pub(super) fn module_part(bytes: &[u8]) -> Parsed<Part> {
    let Some((mark, used)) = atom::length(bytes)? else { return Ok(None) };
    let rest = bytes.get(used..).unwrap_or_default();
    let number = |number, more: usize| (Part::Number(number), used + more);
    match mark {
        0 => Ok(Some((Part::End, used))),
        1 => Ok(atom::length(rest)?.map(|(value, more)| number(ModuleNumber::Signed(value.cast_signed()), more))),
        2 => Ok(atom::length(rest)?.map(|(value, more)| number(ModuleNumber::Unsigned(value), more))),
        3 => Ok(rest.first_chunk().map(|bytes| number(ModuleNumber::Float(f32::from_le_bytes(*bytes)), 4))),
        4 => Ok(rest.first_chunk().map(|bytes| number(ModuleNumber::Double(f64::from_le_bytes(*bytes)), 8))),
        5 => Ok(atom::string_head(rest)?.map(|(head, more)| (Part::String(head), used + more))),
        _ => Err(Defect::malformed(format!("{mark} is no mark of a part of a module's value"))),
    }
}

pub(super) fn container(bytes: &[u8]) -> Parsed<u64> {
    match atom::length(bytes)? {
        None => Ok(None),
        Some((kind @ (1 | 2), used)) => Ok(Some((kind, used))),
        Some((kind, _)) => Err(Defect::malformed(format!("{kind} is no kind of quicklist node (1 plain, 2 packed)"))),
    }
}

pub(super) fn node_id(bytes: &[u8]) -> Parsed<StringHead> {
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
            if !(S::STRUCTURE && self.record == Record::Value) && self.carry.is_empty() {
                self.pass_at_hand(cursor);
            }
            let Some(op) = self.machine.step() else {
                self.tell_value_end(cursor)?;
                self.end_record(cursor);
                return Ok(true);
            };
            let passed = if S::STRUCTURE && self.record == Record::Value {
                self.tell_step(cursor, op)?
            } else {
                self.pass_step(cursor, op)?
            };
            if !passed {
                return Ok(false);
            }
        }
    }

    /// Passes short strings that are kept as they are, and scores, as many as follow each other and are at hand: what
    /// sets, hashes and sorted sets mostly are. Everything else is left to the steps.
    #[inline]
    fn pass_at_hand(&mut self, cursor: &mut Cursor<'_>) {
        while let Some(op) = self.machine.step() {
            let rest = match op {
                Op::String(_) => atom::after_short_string(cursor.rest),
                Op::BinaryScore => atom::after_binary_score(cursor.rest),
                _ => None,
            };
            let Some(rest) = rest else { return };
            cursor.rest = rest;
            self.machine.advance();
        }
    }

    #[inline]
    pub(super) fn pass_step(&mut self, cursor: &mut Cursor<'_>, op: Op) -> Result<bool, ScanError> {
        match op {
            Op::String(_) => {
                let Some(head) = self.atom(cursor, atom::string_head)? else { return Ok(false) };
                self.begin_string(cursor, head);
            }
            Op::Repeat(_, steps) => {
                let Some(count) = self.atom(cursor, atom::length)? else { return Ok(false) };
                self.machine.repeat(steps, count);
                return Ok(true);
            }
            Op::Number(_) => {
                return self.pass_atom(cursor, |bytes| Ok(atom::length(bytes)?.map(|(_, used)| ((), used))));
            }
            Op::Raw(_, count) => return self.pass_atom(cursor, raw(count)),
            Op::TextScore => return self.pass_atom(cursor, atom::text_score),
            Op::BinaryScore => {
                return self.pass_atom(cursor, |bytes| Ok(atom::binary_score(bytes)?.map(|(_, used)| ((), used))));
            }
            Op::Container => return self.pass_atom(cursor, |bytes| Ok(container(bytes)?.map(|(_, used)| ((), used)))),
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
            Op::Array(steps) => {
                let Some((count, _)) = self.atom(cursor, atom::array_head)? else { return Ok(false) };
                self.machine.repeat(steps, count);
                return Ok(true);
            }
            Op::ArrayElement => {
                let Some((_, value)) = self.atom(cursor, atom::array_element)? else { return Ok(false) };
                if let ArrayValue::String(head) = value {
                    self.begin_string(cursor, head);
                }
            }
            Op::Template(steps) => {
                let start = self.atom_start(cursor);
                let Some(id) = self.atom(cursor, atom::length)? else { return Ok(false) };
                let fields = self.fields_of(id).map_err(|defect| defect.at(start))?;
                self.machine.repeat(steps, fields);
                return Ok(true);
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

    /// How many fields a template has.
    pub(super) fn fields_of(&self, id: u64) -> Result<u64, Defect> {
        let fields = self.templates.get(&id).copied();
        fields.ok_or_else(|| templates::missing(id))
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
            Some(Part::Number(_)) => {}
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
                if self.defer(cursor, compressed, length) {
                    return;
                }
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
                let bytes = cursor.take(*left);
                *left -= bytes.len() as u64;
                let whole = *left == 0;
                self.tell_piece(bytes, whole)?;
                whole
            }
            Body::Lzf { walk, start } => {
                let start = *start;
                let bytes = cursor.take(walk.left());
                walk.pass(bytes).map_err(|defect| defect.at(start))?;
                walk.left() == 0
            }
            Body::Unpack { start } => {
                let start = *start;
                self.tell_unpacked(cursor.take(self.unpack.left()), start)?
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
        let kept: usize = if self.record == Record::HashTemplate { self.kept.iter().map(Vec::len).sum() } else { 0 };
        if kept > TEMPLATE_LEN_MAX {
            return Err(Defect::unsupported(format!("a template of hashes of more than {TEMPLATE_LEN_MAX} bytes")));
        }
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
            (Record::HashTemplate, fields) if S::TEMPLATE_FIELDS => self.sink.hash_template(self.template, fields),
            (Record::ModuleAux, _) => self.sink.module_aux_end(),
            (Record::SlotImport, _) => self.sink.slot_import(),
            _ => {}
        }
    }
}
