//! Zipmaps (`zipmap.c` of Redis up to 2.4; later ones still read them).
//!
//! Number of pairs (1, 254 and above: too many to say), pairs, 0xff. A pair is the length of the field, the
//! field, the length of the value, how many bytes are free behind it, the value, the free bytes.

use super::{Format, Step, Stepped, word};

/// From here on the header says nothing (`ZIPMAP_BIGLEN`).
const COUNT_UNKNOWN: u8 = 254;
const LONG_LENGTH: u8 = 254;
const END: u8 = 0xff;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Header,
    Field,
    Value,
    Free(u8),
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Zipmap {
    next: Next,
    count: u64,
    declared: u8,
}

impl Format for Zipmap {
    fn step(&mut self, bytes: &[u8], _at: u64, _length: u64) -> Stepped {
        match self.next {
            Next::Header => {
                let Some(&declared) = bytes.first() else { return Ok(None) };
                if declared > COUNT_UNKNOWN {
                    return Err(format!("{declared} is no number of pairs").into());
                }
                self.declared = declared;
                self.next = Next::Field;
                Ok(Some((Step::Read, 1)))
            }
            Next::Field if bytes.first() == Some(&END) => self.end(),
            Next::Field => {
                let Some((length, used)) = length(bytes)? else { return Ok(None) };
                self.next = Next::Value;
                Ok(Some((Step::String(length), used)))
            }
            Next::Value => {
                let Some((length, used)) = length(bytes)? else { return Ok(None) };
                let Some(&free) = bytes.get(used) else { return Ok(None) };
                self.next = Next::Free(free);
                self.count += 1;
                Ok(Some((Step::String(length), used + 1)))
            }
            Next::Free(free) => {
                self.next = Next::Field;
                Ok(Some((Step::Skip(free.into()), 0)))
            }
        }
    }
}

impl Zipmap {
    fn end(&self) -> Stepped {
        if self.declared != COUNT_UNKNOWN && u64::from(self.declared) != self.count {
            let (declared, count) = (self.declared, self.count);
            return Err(format!("its header says {declared} pairs, it has {count}").into());
        }
        Ok(Some((Step::End, 1)))
    }
}

/// A length: one byte, or four behind a mark.
fn length(bytes: &[u8]) -> Result<Option<(u64, usize)>, super::Flaw> {
    Ok(match bytes.first() {
        None => None,
        Some(&END) => return Err("the end mark stands where the length of a value should".into()),
        Some(&LONG_LENGTH) => word(bytes, 1).map(|length| (length.into(), 5)),
        Some(&length) => Some((length.into(), 1)),
    })
}
