//! The elements of a packed value, each by what it is.

use std::io::Write;

use crate::atom;
use crate::error::ScanError;
use crate::packed::Element;
use crate::structure::Role;
use crate::templates::{Fields, Templates};

use super::stream::Node;
use super::{FIELD_EXPIRY_MAX, Part, StreamId, Values};

/// The longest text of a number: a score (`zzlStrtod` in the server's `t_zset.c` reads no more).
const NUMBER_TEXT_MAX: usize = 127;
/// The longest text of an integer of 64 bits.
const INTEGER_TEXT_MAX: usize = 20;

/// What the string that is passing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Passing {
    /// Told as it passes.
    #[default]
    Text,
    /// A number that is kept as text.
    Number,
}

/// Elements of a packed value.
#[derive(Debug)]
pub(super) struct Cells {
    /// What elements are, by turns; none in a node of a stream.
    roles: &'static [Role],
    turn: usize,
    node: Node,
    offset: u64,
    passing: Passing,
    number: [u8; NUMBER_TEXT_MAX],
    filled: usize,
    templates: Templates,
    /// The fields of the hash that is passing, and which of them is next.
    fields: Option<(Fields, usize)>,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            roles: &[],
            turn: 0,
            node: Node::default(),
            offset: 0,
            passing: Passing::Text,
            number: [0; NUMBER_TEXT_MAX],
            filled: 0,
            templates: Templates::default(),
            fields: None,
        }
    }
}

impl Cells {
    pub(super) fn begin(&mut self, roles: &'static [Role], offset: u64, node_id: StreamId) {
        self.roles = roles;
        self.turn = 0;
        self.offset = offset;
        self.node = Node::new(node_id);
        self.fields = None;
    }

    /// Takes a template. Its fields ascend, shorter ones first (`sdscmplen`).
    pub(super) fn add_template(&mut self, id: u64, fields: &[Vec<u8>]) -> Result<(), ScanError> {
        let order = |field: &Vec<u8>| (field.len(), field.clone());
        if !fields.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(self.defect(format!("the fields of the template {id} of hashes do not ascend")));
        }
        self.templates.add(id, fields.into()).map_err(|defect| defect.at(0))
    }

    /// The values that follow belong to the fields of a template.
    pub(super) fn begin_templated(&mut self, offset: u64, id: u64) -> Result<(), ScanError> {
        self.offset = offset;
        let fields = self.templates.of_hash(id).map_err(|defect| defect.at(offset))?;
        self.fields = Some((fields, 0));
        Ok(())
    }

    pub(super) fn end_templated(&mut self) {
        self.fields = None;
    }

    pub(super) fn is_templated(&self) -> bool {
        self.fields.is_some()
    }

    /// Tells the field whose value comes next.
    pub(super) fn field(&mut self, values: &mut impl Values) -> Result<(), ScanError> {
        let Some((fields, next)) = &mut self.fields else { return Ok(()) };
        let Some(field) = fields.get(*next) else {
            return Err(self.defect("a hash has more values than its template has fields"));
        };
        *next += 1;
        values.part(self.offset, Part::Begin { role: Role::Field, length: field.len() as u64 })?;
        values.part(self.offset, Part::Piece(field))?;
        values.part(self.offset, Part::End)
    }

    pub(super) fn begin_node(&mut self, values: &mut impl Values) -> Result<(), ScanError> {
        values.part(self.offset, Part::Node(self.node.id()))
    }

    pub(super) fn element(&mut self, element: Element<'_>, values: &mut impl Values) -> Result<(), ScanError> {
        match element {
            Element::Integer(number) => self.integer(number, values),
            Element::Begin(length) => match self.text_role() {
                Some(role) => {
                    self.passing = Passing::Text;
                    self.field(values)?;
                    values.part(self.offset, Part::Begin { role, length })
                }
                None if length > NUMBER_TEXT_MAX as u64 => {
                    Err(self.defect(format!("a text of {length} bytes stands where a number is required")))
                }
                None => {
                    self.passing = Passing::Number;
                    self.filled = 0;
                    Ok(())
                }
            },
            Element::Piece(bytes) if self.passing == Passing::Text => values.part(self.offset, Part::Piece(bytes)),
            Element::Piece(bytes) => {
                let places = self.number.iter_mut().skip(self.filled);
                places.zip(bytes).for_each(|(place, byte)| *place = *byte);
                self.filled += bytes.len();
                Ok(())
            }
            Element::End if self.passing == Passing::Text => {
                values.part(self.offset, Part::End)?;
                self.after_text();
                Ok(())
            }
            Element::End => self.number_as_text(values),
        }
    }

    /// The role of the element that comes next, if it may be a text.
    fn text_role(&self) -> Option<Role> {
        let role = match self.roles.get(self.turn) {
            // the id of the template comes first
            Some(Role::Template) => self.fields.as_ref().map(|_| Role::FieldValue),
            Some(role) => Some(*role),
            None => self.node.text_role(),
        };
        role.filter(|role| !matches!(role, Role::Score | Role::FieldExpiry))
    }

    fn integer(&mut self, number: i64, values: &mut impl Values) -> Result<(), ScanError> {
        let Some(role) = self.text_role() else { return self.number(number, values) };
        let mut text = [0; INTEGER_TEXT_MAX];
        let mut rest = text.as_mut_slice();
        // every integer of 64 bits fits
        let written = write!(rest, "{number}").map(|()| INTEGER_TEXT_MAX - rest.len()).unwrap_or(0);
        let text = text.get(..written).unwrap_or_default();
        self.field(values)?;
        values.part(self.offset, Part::Begin { role, length: text.len() as u64 })?;
        values.part(self.offset, Part::Piece(text))?;
        values.part(self.offset, Part::End)?;
        self.after_text();
        Ok(())
    }

    fn number_as_text(&mut self, values: &mut impl Values) -> Result<(), ScanError> {
        let text = self.number.get(..self.filled).unwrap_or_default();
        if self.roles.get(self.turn) == Some(&Role::Score) {
            let score = atom::score(text).map_err(|defect| defect.at(self.offset))?;
            return self.score(score, values);
        }
        match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
            Some(number) => self.number(number, values),
            None => Err(self.defect(format!("\"{}\" stands where a number is required", text.escape_ascii()))),
        }
    }

    fn number(&mut self, number: i64, values: &mut impl Values) -> Result<(), ScanError> {
        match self.roles.get(self.turn) {
            None => {
                let told = self.node.number(number).map_err(|flaw| self.defect(flaw))?;
                told.map_or(Ok(()), |part| values.part(self.offset, part))
            }
            #[expect(clippy::cast_precision_loss, reason = "the server reads it as a double too")]
            Some(Role::Score) => self.score(number as f64, values),
            Some(Role::Template) => match u64::try_from(number) {
                Ok(id) => self.begin_templated(self.offset, id),
                Err(_) => Err(self.defect(format!("{number} is no id of a template of hashes"))),
            },
            Some(_) => {
                let at = u64::try_from(number).ok().filter(|at| *at <= FIELD_EXPIRY_MAX);
                let Some(at) = at else {
                    return Err(self.defect(format!("the expiry {number} of a field is no time")));
                };
                self.turn();
                values.part(self.offset, Part::FieldExpiry(Some(at).filter(|at| *at > 0)))
            }
        }
    }

    fn score(&mut self, score: f64, values: &mut impl Values) -> Result<(), ScanError> {
        self.turn();
        values.part(self.offset, Part::Score(score))
    }

    fn after_text(&mut self) {
        if self.roles.is_empty() {
            self.node.after_text();
        } else {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.turn += 1;
        if self.turn == self.roles.len() {
            self.turn = 0;
        }
    }

    /// The packed value ended.
    pub(super) fn end(&mut self, values: &mut impl Values) -> Result<(), ScanError> {
        if self.roles.is_empty() {
            self.node.end().map_err(|flaw| self.defect(flaw))?;
            return values.part(self.offset, Part::NodeEnd);
        }
        if self.roles == [Role::Template] {
            let is_whole = self.fields.take().is_some_and(|(fields, next)| next == fields.len());
            return if is_whole {
                Ok(())
            } else {
                Err(self.defect("a hash has fewer values than its template has fields"))
            };
        }
        if self.turn != 0 {
            let message = format!("the number of its elements is no multiple of {}", self.roles.len());
            return Err(self.defect(message));
        }
        Ok(())
    }

    #[cold]
    fn defect(&self, message: impl Into<String>) -> ScanError {
        ScanError::malformed(self.offset, message)
    }
}
