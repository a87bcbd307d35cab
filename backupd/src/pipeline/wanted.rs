//! Which keys of a snapshot are wanted, as far as that is known before it is read.

use policies::slot::{SlotSet, key_slot};
use rdbtools::select::{Glob, Selection};

/// What is known beforehand of the keys that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Their names, when each is known.
    pub(super) names: Option<Vec<Vec<u8>>>,
    /// Their slots.
    slots: SlotSet,
}

impl Wanted {
    /// By a selection; `None` when it can take keys of any name and slot.
    #[must_use]
    pub fn by(select: &Selection) -> Option<Self> {
        let names: Option<Vec<Vec<u8>>> = select.include.iter().map(Glob::literal).collect();
        let names = names.filter(|names| !names.is_empty());
        if names.is_none() && select.slots.is_none() {
            return None;
        }
        let slots = select.slots.clone().unwrap_or_else(SlotSet::full);
        let Some(names) = names else { return Some(Self { names: None, slots }) };
        let slots = names.iter().map(|name| key_slot(name)).filter(|slot| slots.contains(*slot)).collect();
        Some(Self { names: Some(names), slots })
    }

    /// The slots of the keys.
    #[must_use]
    pub fn slots(&self) -> &SlotSet {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_known_only_by_exact_names_and_slots() {
        let by = |patterns: &[&str]| {
            Wanted::by(&Selection { include: patterns.iter().map(Glob::new).collect(), ..Selection::default() })
        };
        assert_eq!(by(&[]), None);
        assert_eq!(by(&["a", "b*"]), None);
        let wanted = by(&["a", r"b\*"]).unwrap();
        assert_eq!(wanted.names.as_ref().unwrap().last().unwrap(), b"b*");
        assert_eq!(wanted.slots().len(), 2);
    }
}
