//! Which keys are taken, by the patterns that `KEYS` and `SCAN` know and by type.

use policies::slot::{SlotSet, key_slot};

use crate::sink::Key;
use crate::value::ValueType;

/// A pattern over the bytes of a key's name, as the servers match it (`stringmatchlen` in their `util.c`): `*` any
/// bytes, `?` one byte, `[abc]`, `[a-z]` and `[^a]` one of a set, `\` takes the next byte as it is.
///
/// ```
/// use rdbtools::select::Glob;
///
/// let glob = Glob::new("user:[0-9]*");
/// assert!(glob.matches(b"user:7:name") && !glob.matches(b"user:x"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any bytes, also none.
    Any,
    /// One byte: `true` at its index when it may be.
    One(Box<[bool; 256]>),
}

impl Glob {
    /// Reads a pattern. Every text is one: a set that does not end goes to the end of the pattern, as in the servers.
    #[must_use]
    pub fn new(pattern: impl AsRef<[u8]>) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern.as_ref();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let part = match first {
                b'*' => Part::Any,
                b'?' => Part::One(Box::new([true; 256])),
                b'[' => Part::One(set(&mut rest)),
                b'\\' => literal(take(&mut rest).unwrap_or(b'\\')),
                byte => literal(byte),
            };
            if part != Part::Any || parts.last() != Some(&Part::Any) {
                parts.push(part);
            }
        }
        Self { parts }
    }

    /// The only name that fits, if there is one: what a pattern without `*`, `?` and sets is.
    #[must_use]
    pub fn literal(&self) -> Option<Vec<u8>> {
        let byte = |part: &Part| {
            let Part::One(set) = part else { return None };
            let mut allowed = (0..=u8::MAX).zip(set.iter()).filter(|(_, is_allowed)| **is_allowed);
            allowed.next().filter(|_| allowed.next().is_none()).map(|(byte, _)| byte)
        };
        self.parts.iter().map(byte).collect()
    }

    /// Whether the whole name fits. It takes at most as many steps as name and pattern multiplied.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut part, mut byte) = (0, 0);
        // where to go on when the bytes behind the last `*` turn out not to fit
        let mut again: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), name.get(byte)) {
                (None, None) => return true,
                (Some(Part::Any), _) => {
                    part += 1;
                    again = Some((part, byte));
                }
                (Some(Part::One(set)), Some(found)) if set.get(usize::from(*found)) == Some(&true) => {
                    part += 1;
                    byte += 1;
                }
                _ => match &mut again {
                    Some((after, from)) if *from < name.len() => {
                        *from += 1;
                        (part, byte) = (*after, *from);
                    }
                    _ => return false,
                },
            }
        }
    }
}

fn literal(byte: u8) -> Part {
    let mut set = [false; 256];
    allow(&mut set, byte);
    Part::One(Box::new(set))
}

fn allow(set: &mut [bool; 256], byte: u8) {
    if let Some(allowed) = set.get_mut(usize::from(byte)) {
        *allowed = true;
    }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some(first)
}

/// The set behind a `[`, up to its `]`.
fn set(rest: &mut &[u8]) -> Box<[bool; 256]> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        take(rest);
    }
    let mut set = [false; 256];
    while let Some(first) = take(rest).filter(|byte| *byte != b']') {
        match (first, *rest) {
            (b'\\', [escaped, after @ ..]) => {
                allow(&mut set, *escaped);
                *rest = after;
            }
            (_, [b'-', last, after @ ..]) => {
                (first.min(*last)..=first.max(*last)).for_each(|byte| allow(&mut set, byte));
                *rest = after;
            }
            _ => allow(&mut set, first),
        }
    }
    Box::new(if negated { set.map(|allowed| !allowed) } else { set })
}

/// What kind of value a key has, as the command `TYPE` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `string`.
    String,
    /// `list`.
    List,
    /// `set`.
    Set,
    /// `zset`.
    Zset,
    /// `hash`.
    Hash,
    /// `stream`.
    Stream,
    /// A type of a module.
    Module,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::String, Self::List, Self::Set, Self::Zset, Self::Hash, Self::Stream, Self::Module];

    /// The family of a type.
    #[must_use]
    pub fn of(value_type: ValueType) -> Self {
        // the name of an encoding begins with its family
        let name = value_type.name();
        Self::ALL.into_iter().find(|family| name.starts_with(family.name())).unwrap_or(Self::Module)
    }

    /// `string`, `list`, `set`, `zset`, `hash`, `stream` or `module`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// Which keys are taken, of the given slots if there are any: those that fit one of `include`, if there are any, none of `exclude`, and one of `families`,
/// if there are any. The default takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Take keys that fit one of these.
    pub include: Vec<Glob>,
    /// Leave out keys that fit one of these.
    pub exclude: Vec<Glob>,
    /// Take keys of these kinds.
    pub families: Vec<Family>,
    /// Take keys of these slots.
    pub slots: Option<SlotSet>,
}

impl Selection {
    /// Whether it takes every key.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.families.is_empty() && self.slots.is_none()
    }

    /// Whether it takes this key.
    #[must_use]
    pub fn takes(&self, key: &Key<'_>) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(key.name));
        (self.families.is_empty() || self.families.contains(&Family::of(key.value_type)))
            && (self.include.is_empty() || fits(&self.include))
            && !fits(&self.exclude)
            && self.slots.as_ref().is_none_or(|slots| slots.contains(key_slot(key.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Magic;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_the_servers() {
        for (pattern, name, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("h[ae]llo", "hello", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[", "h", false),
            ("h[ab", "ha", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"[\]]", "]", true),
            (r"a\", r"a\", true),
            ("user:[0-9]*", "user:12", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(name.as_bytes()), fits, "{pattern} {name}");
        }
        assert!(Glob::new(b"\xff*".as_slice()).matches(b"\xff\x00"));
        assert_eq!(Glob::new("a[b]c").literal().unwrap(), b"abc");
        assert!(["a*", "a?", "a[bc]", "[^b]", "h["].iter().all(|pattern| Glob::new(pattern).literal().is_none()));
        // a pattern that makes naive matchers take for ever
        assert!(!Glob::new("*a".repeat(50) + "b").matches(&[b'a'; 2000]));
    }

    #[test]
    fn every_type_belongs_to_the_family_that_its_server_names() {
        let family = |code, magic| Family::of(ValueType::new(code, magic).unwrap());
        for code in (0..=26).filter(|code| *code != 8) {
            let expected = match code {
                0 => Family::String,
                1 | 10 | 14 | 18 => Family::List,
                2 | 11 | 20 => Family::Set,
                3 | 5 | 12 | 17 => Family::Zset,
                4 | 9 | 13 | 16 | 22..=25 => Family::Hash,
                6 | 7 => Family::Module,
                _ => Family::Stream,
            };
            assert_eq!(family(code, Magic::Redis), expected, "{code}");
        }
        assert_eq!(family(22, Magic::Valkey), Family::Hash);
    }

    proptest! {
        #[test]
        fn an_escaped_name_fits_itself_alone(name in proptest::collection::vec(any::<u8>(), 0..40), other in proptest::collection::vec(any::<u8>(), 0..40)) {
            let pattern: Vec<u8> = name.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(Glob::new(&pattern).matches(&name));
            prop_assert_eq!(Glob::new(&pattern).matches(&other), name == other);
            let literal = Glob::new(&pattern).literal();
            prop_assert_eq!(literal.as_ref(), Some(&name));
            let around = [b"*".as_slice(), &pattern, b"*"].concat();
            let inside = [other.as_slice(), &name, &other].concat();
            prop_assert!(Glob::new(around).matches(&inside));
        }

        #[test]
        fn any_pattern_ends(pattern in proptest::collection::vec(any::<u8>(), 0..60), name in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any_answer = Glob::new(pattern).matches(&name);
        }
    }
}
