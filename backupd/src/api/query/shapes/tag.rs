//! `Tag`.

use crate::api::query::xml::Writer;

/// A tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub key: String,
    /// What it says; may be empty.
    pub value: String,
}

impl Tag {
    /// Writes its members.
    pub fn write(&self, writer: &mut Writer) {
        writer.text("Key", &self.key);
        writer.text("Value", &self.value);
    }
}
