//! Strings in JSON: one of at most 1 MiB that is UTF-8 is a JSON string, any other is `{"base64": "…"}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdbtools::ScanError;
use rdbtools::commands::Output;
use serde_json::{Value, json};

use super::Out;

/// The longest string that is written as text; longer ones are not held.
const TEXT_LEN_MAX: u64 = 1 << 20;

/// A string that is at hand.
pub(super) fn string(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() as u64 <= TEXT_LEN_MAX => json!(text),
        _ => base64(bytes),
    }
}

pub(super) fn base64(bytes: &[u8]) -> Value {
    json!({"base64": STANDARD.encode(bytes)})
}

#[derive(Debug, Default, PartialEq, Eq)]
enum How {
    #[default]
    Discarded,
    Collected,
    Base64,
}

/// A string that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Text {
    how: How,
    /// The string, or bytes of it that are no whole group of three yet.
    held: Vec<u8>,
}

impl Text {
    /// The string that comes is not written.
    pub(super) fn discard(&mut self) {
        self.how = How::Discarded;
    }

    pub(super) fn begin(&mut self, length: u64, out: &mut Out) -> Result<(), ScanError> {
        if length > TEXT_LEN_MAX {
            return self.begin_base64(out);
        }
        self.held.clear();
        self.how = How::Collected;
        Ok(())
    }

    pub(super) fn begin_base64(&mut self, out: &mut Out) -> Result<(), ScanError> {
        self.held.clear();
        self.how = How::Base64;
        out.put(b"{\"base64\":\"")
    }

    pub(super) fn add(&mut self, bytes: &[u8], out: &mut Out) -> Result<(), ScanError> {
        match self.how {
            How::Discarded => Ok(()),
            How::Collected => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
            How::Base64 => {
                self.held.extend_from_slice(bytes);
                let whole = self.held.len() / 3 * 3;
                let (groups, rest) = self.held.split_at_checked(whole).unwrap_or_default();
                out.put(STANDARD.encode(groups).as_bytes())?;
                self.held = rest.to_vec();
                Ok(())
            }
        }
    }

    /// Whether the string was written.
    pub(super) fn end(&mut self, out: &mut Out) -> Result<bool, ScanError> {
        match self.how {
            How::Discarded => return Ok(false),
            How::Collected => out.put(string(&self.held).to_string().as_bytes())?,
            How::Base64 => {
                out.put(STANDARD.encode(&self.held).as_bytes())?;
                out.put(b"\"}")?;
            }
        }
        Ok(true)
    }
}
