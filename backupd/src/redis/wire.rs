//! A raw connection: commands out, lines and bytes in.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::refusal::refusal;
use super::source::{Address, Credentials};
use crate::error::{Class, Error, Result};

/// The longest line a server may send us, in bytes.
const LINE_LEN_MAX: usize = 64 * 1024;

/// How many empty lines (keep-alive newlines) may stand before a line: a day of them, at one a second.
const NEWLINES_MAX: usize = 86_400;

/// A connected socket of either kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Connects to `address` within `limit`, name resolution included.
pub(super) async fn dial(address: &Address, limit: Duration) -> Result<Box<dyn Socket>> {
    let connect = async {
        Ok::<Box<dyn Socket>, std::io::Error>(match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    let hint = "check that the server runs, and that its address and port can be reached from here";
    match timeout(limit, connect).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => {
            Err(Error::new(Class::SourceUnavailable, format!("{address}: cannot connect: {error}")).hint(hint))
        }
        Err(_) => {
            let message = format!("{address}: cannot connect within {} ms", limit.as_millis());
            Err(Error::new(Class::SourceUnavailable, message).hint(hint))
        }
    }
}

/// A connection that speaks the request side of the protocol and reads line by line.
pub(crate) struct Wire {
    socket: Box<dyn Socket>,
    /// Bytes that were read and not yet taken.
    input: BytesMut,
    node: String,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Wire {
    /// Connects and authenticates.
    pub(crate) async fn connect(
        address: &Address,
        credentials: &Credentials,
        connect_timeout: Duration,
        reply_timeout: Duration,
    ) -> Result<Self> {
        let socket = dial(address, connect_timeout).await?;
        let mut wire = Self { socket, input: BytesMut::with_capacity(4096), node: address.to_string() };
        if let Some(password) = &credentials.password {
            let words: Vec<&[u8]> = ["AUTH"]
                .into_iter()
                .chain(credentials.username.as_deref())
                .chain([password.reveal()])
                .map(str::as_bytes)
                .collect();
            wire.send(&words, connect_timeout).await?;
            wire.status("AUTH", reply_timeout).await?;
        }
        Ok(wire)
    }

    /// The node, for messages.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Sends one command.
    pub(crate) async fn send(&mut self, words: &[&[u8]], limit: Duration) -> Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.write(&request, limit).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        match timeout(limit, self.socket.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_) => Err(self.lost(&format!("nothing could be sent for {} s", limit.as_secs()))),
        }
    }

    /// Reads the next line that is not empty, without its end. Empty lines are keep-alive newlines.
    /// `stall` is how long we wait for any byte at all.
    pub(crate) async fn line(&mut self, stall: Duration) -> Result<String> {
        for _ in 0..NEWLINES_MAX {
            let line = self.any_line(stall).await?;
            if !line.is_empty() {
                return Ok(line);
            }
        }
        Err(self.lost("nothing but newlines for too long"))
    }

    async fn any_line(&mut self, stall: Duration) -> Result<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.input.iter().skip(searched).position(|&byte| byte == b'\n') {
                let line = self.input.split_to(searched + at);
                self.input.advance(1);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            searched = self.input.len();
            if searched > LINE_LEN_MAX {
                return Err(self.lost("a reply line longer than 64 KiB: this is not a Redis server"));
            }
            let mut input = std::mem::take(&mut self.input);
            input.reserve(4096);
            let got = self.read(&mut input, u64::MAX, stall).await;
            self.input = input;
            if got? == 0 {
                return Err(self.lost("the server closed the connection"));
            }
        }
    }

    /// Reads a status reply: `Ok` for `+…`, an error by its meaning for `-…`.
    pub(crate) async fn status(&mut self, command: &str, limit: Duration) -> Result<String> {
        let line = self.line(limit).await?;
        match line.split_at_checked(1) {
            Some(("+", text)) => Ok(text.to_owned()),
            Some(("-", text)) => Err(refusal(&self.node, command, text)),
            _ => Err(self.lost(&format!("an unexpected reply to {command}"))),
        }
    }

    /// Takes what was read ahead, after the last line.
    pub(super) fn take_ahead(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    /// Reads once, at most `max` bytes, into the spare room of `buffer` (which must have some), past anything
    /// read ahead. 0 means that the server closed the connection, or that `max` is 0.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut, max: u64, stall: Duration) -> Result<usize> {
        let mut limited = (&mut self.socket).take(max);
        match timeout(stall, limited.read_buf(buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_) => Err(self.lost(&format!("not a byte for {} s", stall.as_secs()))),
        }
    }

    /// The connection failed: retryable.
    pub(super) fn lost(&self, why: &str) -> Error {
        Error::new(Class::SourceUnavailable, format!("{}: {why}", self.node))
    }
}
