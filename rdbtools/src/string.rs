//! Strings of which all bytes are at hand.

use crate::atom::{StringHead, string_head};
use crate::lzf;

/// Appends the text of a string as it stands in an RDB; whether that could be done. Nothing is appended when it is longer than `most` bytes,
/// is not sound, or is not all of `bytes`.
#[must_use]
pub fn short_string(bytes: &[u8], most: u64, out: &mut Vec<u8>) -> bool {
    let Ok(Some((head, used))) = string_head(bytes) else { return false };
    let body = bytes.get(used..).unwrap_or_default();
    if head.length() > most || body.len() as u64 != head.body_length() {
        return false;
    }
    match head {
        StringHead::Plain(_) => out.extend_from_slice(body),
        StringHead::Int { value, .. } => out.extend_from_slice(value.to_string().as_bytes()),
        StringHead::Lzf { length, .. } => return lzf::unpack(body, length, out).is_ok(),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], most: u64) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_done = short_string(bytes, most, &mut out);
        let text = out.split_off(6);
        assert_eq!((out.as_slice(), is_done || text.is_empty()), (&b"before"[..], true));
        is_done.then_some(text)
    }

    #[test]
    fn every_way_to_keep_a_string_gives_its_text() {
        for (bytes, string) in [
            (&b"\x03foo"[..], "foo"),
            (b"\x00", ""),
            (b"\xc0\x85", "-123"),
            (b"\xc1\x39\x30", "12345"),
            (b"\xc2\xff\xff\xff\x7f", "2147483647"),
            (b"\xc3\x04\x09\x00a\xc0\x00", "aaaaaaaaa"),
        ] {
            let length = string.len() as u64;
            assert_eq!(text(bytes, length).as_deref(), Some(string.as_bytes()), "{string}");
            assert_eq!(text(&bytes[..bytes.len() - 1], length), None, "{string}");
            assert_eq!(text(&[bytes, b"x"].concat(), length), None, "{string}");
            if length > 0 {
                assert_eq!(text(bytes, length - 1), None, "{string}");
            }
        }
        // a reference to before its begin
        assert_eq!(text(b"\xc3\x04\x09\x00a\xc0\x05", 9), None);
    }
}
