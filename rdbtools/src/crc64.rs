//! The checksum at the end of an RDB: CRC-64 of everything before it, the end opcode included.

use crc_fast::{CrcAlgorithm, Digest};

/// A running checksum. Give it large pieces: every call costs about as much as 200 bytes do.
#[derive(Debug, Clone)]
pub struct Crc64(Digest);

impl Crc64 {
    /// The checksum of no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Redis))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_self_test_of_the_server() {
        let mut crc = Crc64::new();
        assert_eq!(crc.value(), 0);
        for byte in b"123456789" {
            crc.update(&[*byte]);
        }
        assert_eq!(crc.value(), 0xe9c6_d914_c4b8_d9ca);
    }
}
