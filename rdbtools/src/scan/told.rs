//! Walks values for sinks that want their pieces told. Where a sink does not, none of this is compiled.

use crate::atom::{self, ArrayValue, Parsed, StringHead};
use crate::error::ScanError;
use crate::sink::Sink;
use crate::structure::{Role, Structure};
use crate::value::{Op, RAW_MAX};

use super::record::{Body, Part, Record, container, decimal, module_part, node_id};
use super::{Cursor, Scanner};

fn fixed(count: u8) -> impl Fn(&[u8]) -> Parsed<[u8; RAW_MAX]> {
    let count = usize::from(count).min(RAW_MAX);
    move |bytes| {
        let mut taken = [0; RAW_MAX];
        let (Some(from), Some(to)) = (bytes.get(..count), taken.get_mut(..count)) else { return Ok(None) };
        to.copy_from_slice(from);
        Ok(Some((taken, count)))
    }
}

/// The text of a number in an array, which always has a point. Where two shortest texts read as the same number, the
/// server may have had the other.
fn array_float(number: f64) -> String {
    let text = number.to_string();
    if text.contains('.') || !number.is_finite() { text } else { text + ".0" }
}

impl<S: Sink> Scanner<S> {
    pub(super) fn tell_step(&mut self, cursor: &mut Cursor<'_>, op: Op) -> Result<bool, ScanError> {
        let start = self.atom_start(cursor);
        match op {
            Op::String(role) => {
                let Some(head) = self.atom(cursor, atom::string_head)? else { return Ok(false) };
                self.tell_string(cursor, role, start, head)?;
            }
            Op::NodeId => {
                let Some(head) = self.atom(cursor, node_id)? else { return Ok(false) };
                self.tell_string(cursor, Role::NodeId, start, head)?;
            }
            Op::Repeat(role, steps) => {
                let Some(count) = self.atom(cursor, atom::length)? else { return Ok(false) };
                self.machine.repeat(steps, count);
                self.sink.structure(role, start, Structure::Count(count))?;
                return Ok(true);
            }
            Op::Number(role) => {
                let Some(number) = self.atom(cursor, atom::length)? else { return Ok(false) };
                self.sink.structure(role, start, Structure::Number(number))?;
            }
            Op::Raw(role, count) => {
                let Some(bytes) = self.atom(cursor, fixed(count))? else { return Ok(false) };
                let bytes = bytes.get(..usize::from(count)).unwrap_or_default();
                self.sink.structure(role, start, Structure::Bytes(bytes))?;
            }
            Op::TextScore => {
                let Some(score) = self.atom(cursor, atom::text_score_value)? else { return Ok(false) };
                self.sink.structure(Role::Score, start, Structure::Score(score))?;
            }
            Op::BinaryScore => {
                let Some(score) = self.atom(cursor, atom::binary_score)? else { return Ok(false) };
                self.sink.structure(Role::Score, start, Structure::Score(score))?;
            }
            Op::Container => {
                let Some(kind) = self.atom(cursor, container)? else { return Ok(false) };
                self.sink.structure(Role::Container, start, Structure::Number(kind))?;
            }
            Op::Array(steps) => {
                let Some((count, insert)) = self.atom(cursor, atom::array_head)? else { return Ok(false) };
                self.machine.repeat(steps, count);
                self.sink.structure(Role::ArrayInsert, start, Structure::Number(insert.unwrap_or(u64::MAX)))?;
                self.sink.structure(Role::Elements, start, Structure::Count(count))?;
                return Ok(true);
            }
            Op::ArrayElement => {
                let Some((index, value)) = self.atom(cursor, atom::array_element)? else { return Ok(false) };
                self.sink.structure(Role::ArrayIndex, start, Structure::Number(index))?;
                match value {
                    ArrayValue::String(head) => self.tell_string(cursor, Role::Item, start, head)?,
                    ArrayValue::Integer(number) => self.tell_text(Role::Item, start, number.to_string().as_bytes())?,
                    ArrayValue::Float(number) => self.tell_text(Role::Item, start, array_float(number).as_bytes())?,
                }
            }
            Op::Template(steps) => {
                let Some(id) = self.atom(cursor, atom::length)? else { return Ok(false) };
                let fields = self.fields_of(id).map_err(|defect| defect.at(start))?;
                self.machine.repeat(steps, fields);
                self.sink.structure(Role::Template, start, Structure::Number(id))?;
                return Ok(true);
            }
            Op::ModuleParts => return self.tell_module_part(cursor, start),
            Op::Keep | Op::ModuleId => return self.pass_step(cursor, op),
        }
        self.machine.advance();
        Ok(true)
    }

    fn tell_module_part(&mut self, cursor: &mut Cursor<'_>, start: u64) -> Result<bool, ScanError> {
        match self.atom(cursor, module_part)? {
            None => return Ok(false),
            Some(Part::End) => self.machine.advance(),
            Some(Part::Number(number)) => {
                self.sink.structure(Role::Module, start, Structure::ModuleNumber(number))?;
            }
            Some(Part::String(head)) => self.tell_string(cursor, Role::Module, start, head)?,
        }
        Ok(true)
    }

    /// Tells the beginning of a string; its bytes are told as they pass.
    fn tell_string(
        &mut self,
        cursor: &mut Cursor<'_>,
        role: Role,
        start: u64,
        head: StringHead,
    ) -> Result<(), ScanError> {
        self.told = (role, start);
        let body = self.base + cursor.position() as u64;
        self.sink.structure(role, start, Structure::Begin { head, body })?;
        match head {
            StringHead::Plain(left) => {
                let at_hand = usize::try_from(left).ok().and_then(|left| cursor.rest.split_at_checked(left));
                let Some((bytes, after)) = at_hand else {
                    self.body = Body::Skip { left };
                    return Ok(());
                };
                cursor.rest = after;
                self.tell_piece(bytes, true)?;
            }
            StringHead::Int { value, .. } => {
                self.sink.structure(role, start, Structure::Piece(decimal(value).as_bytes()))?;
                self.sink.structure(role, start, Structure::End)?;
            }
            StringHead::Lzf { compressed, length } => {
                self.unpack.restart(compressed, length);
                self.body = Body::Unpack { start: body };
            }
        }
        Ok(())
    }

    /// Tells a text that does not stand in the file as it is.
    fn tell_text(&mut self, role: Role, start: u64, text: &[u8]) -> Result<(), ScanError> {
        let head = StringHead::Plain(text.len() as u64);
        self.sink.structure(role, start, Structure::Begin { head, body: start })?;
        self.sink.structure(role, start, Structure::Piece(text))?;
        self.sink.structure(role, start, Structure::End)
    }

    fn is_told(&self) -> bool {
        S::STRUCTURE && self.record == Record::Value
    }

    /// Tells bytes of the string that is passing.
    #[inline]
    pub(super) fn tell_piece(&mut self, bytes: &[u8], whole: bool) -> Result<(), ScanError> {
        if !self.is_told() {
            return Ok(());
        }
        let (role, start) = self.told;
        if !bytes.is_empty() {
            self.sink.structure(role, start, Structure::Piece(bytes))?;
        }
        if whole { self.sink.structure(role, start, Structure::End) } else { Ok(()) }
    }

    /// Tells what bytes of the compressed string that is passing, which begins at `body`, unpack to. Whether it has ended.
    pub(super) fn tell_unpacked(&mut self, mut bytes: &[u8], body: u64) -> Result<bool, ScanError> {
        if !self.is_told() {
            return Ok(true);
        }
        let (role, start) = self.told;
        loop {
            bytes = self.unpack.push(bytes).map_err(|defect| defect.at(body))?;
            let piece = self.unpack.take();
            if !piece.is_empty() {
                self.sink.structure(role, start, Structure::Piece(piece))?;
            }
            if bytes.is_empty() {
                break;
            }
        }
        let whole = self.unpack.left() == 0;
        if whole {
            self.sink.structure(role, start, Structure::End)?;
        }
        Ok(whole)
    }

    /// Tells that the value ended, before its key does.
    #[inline]
    pub(super) fn tell_value_end(&mut self, cursor: &Cursor<'_>) -> Result<(), ScanError> {
        if !self.is_told() {
            return Ok(());
        }
        let end = self.base + cursor.position() as u64;
        self.sink.structure(Role::Value, end, Structure::ValueEnd)
    }
}
