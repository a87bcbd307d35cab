//! Every reason why a restore cannot work, told at once.

use crate::error::{Class, Error, Result};

/// Reasons that were met so far.
#[derive(Debug, Default)]
pub(in crate::restore) struct Refusals(Vec<Error>);

impl Refusals {
    /// The value, or nothing, and then the reason is kept.
    pub(in crate::restore) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Keeps a reason, unless it is known already.
    pub(in crate::restore) fn add(&mut self, error: Error) {
        let is_known = self.0.iter().any(|known| known.message().contains(error.message()));
        if !is_known {
            self.0.push(error);
        }
    }

    /// Nothing, or one error of all reasons: of their class when they have one, else `Refused`.
    pub(in crate::restore) fn end(mut self) -> Result<()> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let class = first.class();
        if self.0.len() == 1 {
            return Err(self.0.remove(0));
        }
        let class = if self.0.iter().all(|error| error.class() == class) { class } else { Class::Refused };
        let lines = self.0.iter().map(|error| match error.advice() {
            Some(advice) => format!("\n- {}\n  ({advice})", error.message()),
            None => format!("\n- {}", error.message()),
        });
        let message = format!("this restore cannot work, for {} reasons:{}", self.0.len(), lines.collect::<String>());
        let is_retryable = self.0.iter().all(Error::is_retryable);
        Err(Error::new(class, message).retryable(is_retryable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_stays_as_it_is_and_several_are_all_told() {
        assert!(Refusals::default().end().is_ok());
        let error = |class, text: &str| Error::new(class, text).hint("do so");
        let mut one = Refusals::default();
        assert_eq!(one.take(Ok(5)), Some(5));
        one.add(error(Class::Version, "a"));
        one.add(error(Class::Version, "a"));
        assert_eq!(one.end().unwrap_err().message(), "a");
        let mut two = Refusals::default();
        assert_eq!(two.take::<()>(Err(error(Class::Version, "a"))), None);
        two.add(error(Class::NotFound, "b"));
        let all = two.end().unwrap_err();
        assert_eq!(all.class(), Class::Refused);
        assert!(all.message().contains("2 reasons:\n- a\n  (do so)\n- b"), "{all}");
    }
}
