//! Templates of hashes (Redis 8.10): the fields that many hashes have in common, kept once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Defect;

/// The most bytes of templates that are held.
const HELD_LEN_MAX: usize = 64 << 20;

/// The fields of a template, in its order.
pub(crate) type Fields = Arc<[Vec<u8>]>;

/// Templates by their ids (`hashTemplate` of Redis 8.10). An id means something within one file only.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    fields: HashMap<u64, Fields>,
    length: usize,
}

impl Templates {
    /// Takes a template.
    pub(crate) fn add(&mut self, id: u64, fields: Fields) -> Result<(), Defect> {
        self.length += fields.iter().map(|field| field.len() + size_of::<Vec<u8>>()).sum::<usize>();
        if self.length > HELD_LEN_MAX {
            return Err(Defect::unsupported(format!("templates of hashes of more than {HELD_LEN_MAX} bytes together")));
        }
        self.fields.insert(id, fields);
        Ok(())
    }

    /// The fields of a template, if it was taken.
    pub(crate) fn get(&self, id: u64) -> Option<&Fields> {
        self.fields.get(&id)
    }

    /// The fields of a template that a hash refers to.
    pub(crate) fn of_hash(&self, id: u64) -> Result<Fields, Defect> {
        self.get(id).map(Arc::clone).ok_or_else(|| missing(id))
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A hash refers to a template that there is not.
pub(crate) fn missing(id: u64) -> Defect {
    Defect::malformed(format!("a hash refers to the template {id}, which there is not"))
}
