//! Templates of hashes on their way into every output.

use std::sync::Arc;

use crate::error::Defect;
use crate::templates::{Fields, Templates};

/// What becomes of a template.
#[derive(Debug)]
pub(super) enum Fate {
    /// No input had its id yet: it is written to every output.
    Written,
    /// An earlier input had the same.
    Known,
    /// An earlier input had another of its id, since every server counts its own: hashes of this input are written
    /// with their fields.
    Differs,
}

/// The templates that the outputs have.
#[derive(Debug, Default)]
pub(super) struct Carried {
    written: Templates,
    /// Templates of this input and of an earlier one have the same id and other fields.
    pub(super) differs: bool,
    /// How many hashes were therefore written with their fields.
    pub(super) expanded: u64,
}

impl Carried {
    /// Takes a template of an input; its fields are held once, however many inputs have it.
    pub(super) fn take(&mut self, id: u64, fields: &[Vec<u8>]) -> Result<(Fate, Fields), Defect> {
        match self.written.get(id) {
            Some(known) if **known == *fields => Ok((Fate::Known, Arc::clone(known))),
            Some(_) => {
                self.differs = true;
                Ok((Fate::Differs, fields.into()))
            }
            None => {
                let fields: Fields = fields.into();
                self.written.add(id, Arc::clone(&fields))?;
                Ok((Fate::Written, fields))
            }
        }
    }
}
