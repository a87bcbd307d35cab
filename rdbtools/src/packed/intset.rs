//! Intsets (`intset.c`): width of a number in bytes (4: 2, 4 or 8), how many (4), the numbers ascending.

use super::{Format, Step, Stepped, signed, word};

const HEADER_LEN: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Intset {
    /// Width of a number; 0 before the header.
    width: usize,
    last: Option<i64>,
}

impl Format for Intset {
    #[inline]
    fn step(&mut self, bytes: &[u8], at: u64, length: u64) -> Stepped {
        if self.width == 0 {
            return self.header(bytes, length);
        }
        // it has no end mark: it is over where its length says
        if at == length {
            return Ok(Some((Step::End, 0)));
        }
        let Some(number) = signed(bytes, 0, self.width) else { return Ok(None) };
        if let Some(last) = self.last
            && last >= number
        {
            return Err(format!("{number} stands behind {last}: the numbers do not ascend").into());
        }
        self.last = Some(number);
        Ok(Some((Step::Integer(number), self.width)))
    }
}

impl Intset {
    fn header(&mut self, bytes: &[u8], length: u64) -> Stepped {
        let (Some(width), Some(count)) = (word(bytes, 0), word(bytes, 4)) else { return Ok(None) };
        if !matches!(width, 2 | 4 | 8) {
            return Err(format!("its numbers have {width} bytes, not 2, 4 or 8").into());
        }
        let expected = HEADER_LEN as u64 + u64::from(width) * u64::from(count);
        if expected != length {
            return Err(format!("its header says {count} numbers, {expected} bytes; it has {length}").into());
        }
        self.width = usize::try_from(width).unwrap_or(8);
        Ok(Some((Step::Read, HEADER_LEN)))
    }
}
