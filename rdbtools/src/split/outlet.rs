//! Where the bytes of an output go.

use std::io::{self, Write};

/// Takes the bytes of an output, in order. Everything that can be written to is one.
pub trait Outlet {
    /// Takes all bytes of a full buffer, and leaves an empty one, which may be another.
    ///
    /// # Errors
    /// When the bytes cannot be written.
    fn put(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;

    /// All bytes were given: makes sure that none is held back.
    ///
    /// # Errors
    /// When the bytes cannot be written.
    fn end(&mut self) -> io::Result<()>;
}

impl<W: Write> Outlet for W {
    fn put(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.write_all(buffer)?;
        buffer.clear();
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()
    }
}
