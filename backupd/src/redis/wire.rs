//! A raw connection: commands out, lines and bytes in.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::refusal::refusal;
use super::source::{Address, SourceOptions};
use crate::error::{Class, Error, Result};

/// The longest line a server may send us, in bytes.
const LINE_LEN_MAX: usize = 64 * 1024;

/// How much room one read of lines gets, in bytes.
const LINE_READ_LEN: usize = 4096;

/// How many empty lines (keep-alive newlines) may stand before a line: a day of them, at one a second.
const NEWLINES_MAX: usize = 86_400;

/// A read that had to wait and brought less than this is followed by a pause of [`GATHERED_FOR`], in bytes. Servers send a payload in
/// pieces of 16 KiB; to wake for each costs both sides more than the bytes do, and takes time from the server's child.
const FEW: usize = 64 * 1024;

/// That pause. What comes meanwhile waits in the socket.
const GATHERED_FOR: Duration = Duration::from_millis(1);

/// The reply to most commands.
const OK: &[u8] = b"+OK\r\n";
/// The reply to commands that did what they are for once.
const ONE: &[u8] = b":1\r\n";

/// What a server said to a command, as far as whoever sends many of them has to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It did it.
    Done,
    /// It did it, and answered with this number.
    Number(i64),
    /// It did not; its words.
    Refused(String),
}

/// A connected socket of either kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Connects to `address` within the time for connecting, name resolution included, and as much again for TLS.
pub(super) async fn dial(address: &Address, options: &SourceOptions) -> Result<Box<dyn Socket>> {
    let limit = options.connect_timeout;
    let tls = options.tls_for(address);
    let reached = options.addresses.reach(address);
    let address = &reached;
    match (address, tls) {
        (Address::Unix(path), _) => Ok(Box::new(within(limit, address, UnixStream::connect(path)).await?)),
        (Address::Tcp { host, port }, tls) => {
            let stream = within(limit, address, TcpStream::connect((host.as_str(), *port))).await?;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%address, %error, "small packets may be delayed");
            }
            match tls {
                Some(tls) => Ok(Box::new(tls.wrap(address, stream, limit).await?)),
                None => Ok(Box::new(stream)),
            }
        }
    }
}

/// When certificates end: of the server at `address` and ours, in seconds since 1970. Empty without TLS.
///
/// # Errors
/// As connecting with TLS.
pub async fn certificate_ends(address: &Address, options: &SourceOptions) -> Result<Vec<(String, i64)>> {
    let reached = options.addresses.reach(address);
    let (Some(tls), Address::Tcp { host, port }) = (options.tls_for(address), &reached) else { return Ok(Vec::new()) };
    let limit = options.connect_timeout;
    let stream = within(limit, &reached, TcpStream::connect((host.as_str(), *port))).await?;
    let stream = tls.wrap(&reached, stream, limit).await?;
    tls.ends(address, &stream)
}

async fn within<T>(limit: Duration, address: &Address, connect: impl Future<Output = io::Result<T>>) -> Result<T> {
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
#[derive(Debug)]
pub(crate) struct Wire {
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Wire {
    /// Connects and authenticates.
    pub(crate) async fn connect(address: &Address, options: &SourceOptions) -> Result<Self> {
        let credentials = options.credentials_for(address);
        let (read, write) = tokio::io::split(dial(address, options).await?);
        let node = address.to_string();
        let input = BytesMut::with_capacity(LINE_READ_LEN);
        let incoming = Incoming { half: read, input, few_came: false, node: node.clone() };
        let mut wire = Self { outgoing: Outgoing { half: write, node }, incoming };
        if let Some(password) = &credentials.password {
            let words: Vec<&[u8]> = ["AUTH"]
                .into_iter()
                .chain(credentials.username.as_deref())
                .chain([password.reveal()])
                .map(str::as_bytes)
                .collect();
            wire.send(&words, options.connect_timeout).await?;
            let line = wire.line(options.reply_timeout).await?;
            if let Some(text) = line.strip_prefix('-') {
                return Err(refusal(wire.node(), "AUTH", text));
            }
        }
        Ok(wire)
    }

    /// The two directions, to be used at the same time.
    pub(crate) fn split(self) -> (Outgoing, Incoming) {
        (self.outgoing, self.incoming)
    }

    /// The node, for messages.
    pub(super) fn node(&self) -> &str {
        &self.incoming.node
    }

    /// Sends one command.
    pub(super) async fn send(&mut self, words: &[&[u8]], limit: Duration) -> Result<()> {
        let mut request = Vec::new();
        put_command(&mut request, words);
        self.outgoing.write(&request, limit).await
    }

    /// As [`Incoming::line`].
    pub(super) async fn line(&mut self, stall: Duration) -> Result<String> {
        self.incoming.line(stall).await
    }

    /// The connection failed: retryable.
    pub(super) fn lost(&self, why: &str) -> Error {
        lost(&self.incoming.node, why)
    }

    /// As [`Incoming::read`].
    pub(super) async fn read(&mut self, buffer: &mut BytesMut, max: u64, stall: Duration) -> Result<usize> {
        self.incoming.read(buffer, max, stall).await
    }

    /// Takes what was read ahead, after the last line.
    pub(super) fn take_ahead(&mut self) -> BytesMut {
        std::mem::take(&mut self.incoming.input)
    }
}

/// Appends one command to a request.
pub(crate) fn put_command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

fn lost(node: &str, why: &str) -> Error {
    Error::new(Class::SourceUnavailable, format!("{node}: {why}"))
}

/// The direction to the server.
pub(crate) struct Outgoing {
    half: WriteHalf<Box<dyn Socket>>,
    node: String,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Sends bytes as they are; `limit` is for all of them.
    pub(crate) async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        match timeout(limit, self.half.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(&self.node, &error.to_string())),
            Err(_) => Err(lost(&self.node, &format!("nothing could be sent for {limit:?}"))),
        }
    }
}

/// The direction from the server.
pub(crate) struct Incoming {
    half: ReadHalf<Box<dyn Socket>>,
    /// Bytes that were read and not yet taken.
    input: BytesMut,
    /// Whether the last read had to wait, and brought little.
    few_came: bool,
    node: String,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Incoming {
    /// Reads the next line that is not empty, without its end. Empty lines are keep-alive newlines.
    /// `stall` is how long we wait for any byte at all.
    pub(crate) async fn line(&mut self, stall: Duration) -> Result<String> {
        for _ in 0..NEWLINES_MAX {
            let line = self.any_line(stall).await?;
            if !line.is_empty() {
                return Ok(line);
            }
        }
        Err(lost(&self.node, "nothing but newlines for too long"))
    }

    /// Takes replies `+OK` and `:1` that were read already, at most `most`; how many they were.
    pub(crate) fn take_good(&mut self, most: u64) -> u64 {
        let (mut rest, mut taken) = (&*self.input, 0);
        while taken < most
            && let Some(after) = rest.strip_prefix(OK).or_else(|| rest.strip_prefix(ONE))
        {
            (rest, taken) = (after, taken + 1);
        }
        let used = self.input.len() - rest.len();
        self.input.advance(used);
        taken
    }

    /// Reads one reply to its end, whatever it is made of.
    pub(crate) async fn reply(&mut self, stall: Duration) -> Result<Said> {
        let (mut left, mut said) = (1u64, None);
        while left > 0 {
            left -= 1;
            let line = self.line(stall).await?;
            let (kind, text) = line.split_at_checked(1).unwrap_or_default();
            let number = text.parse().unwrap_or(0i64);
            match kind {
                "*" => left = left.saturating_add(u64::try_from(number).unwrap_or(0)),
                // what is not there is -1
                "$" if number >= 0 => self.skip(number.unsigned_abs().saturating_add(2), stall).await?,
                _ => {}
            }
            said.get_or_insert_with(|| match kind {
                "-" => Said::Refused(text.to_owned()),
                ":" => Said::Number(number),
                _ => Said::Done,
            });
        }
        Ok(said.unwrap_or(Said::Done))
    }

    async fn skip(&mut self, mut length: u64, stall: Duration) -> Result<()> {
        while length > 0 {
            if self.input.is_empty() {
                self.input.reserve(LINE_READ_LEN);
                if receive(&mut self.half, &mut self.input, u64::MAX, stall, &self.node).await? == 0 {
                    return Err(lost(&self.node, "the server closed the connection"));
                }
            }
            let here = self.input.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.input.advance(here);
            length = length.saturating_sub(here as u64);
        }
        Ok(())
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
                return Err(lost(&self.node, "a reply line longer than 64 KiB: this is not a Redis server"));
            }
            self.input.reserve(LINE_READ_LEN);
            if receive(&mut self.half, &mut self.input, u64::MAX, stall, &self.node).await? == 0 {
                return Err(lost(&self.node, "the server closed the connection"));
            }
        }
    }

    /// Reads once, at most `max` bytes, into the spare room of `buffer` (which must have some), past anything
    /// read ahead. 0 means that the server closed the connection, or that `max` is 0.
    async fn read(&mut self, buffer: &mut BytesMut, max: u64, stall: Duration) -> Result<usize> {
        if std::mem::take(&mut self.few_came) {
            sleep(GATHERED_FOR).await;
        }
        let mut receiving = pin!(receive(&mut self.half, buffer, max, stall, &self.node));
        match poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context))).await {
            Poll::Ready(there) => there,
            Poll::Pending => {
                let count = receiving.await?;
                self.few_came = count > 0 && count < FEW;
                Ok(count)
            }
        }
    }
}

async fn receive(
    half: &mut ReadHalf<Box<dyn Socket>>,
    buffer: &mut BytesMut,
    max: u64,
    stall: Duration,
    node: &str,
) -> Result<usize> {
    match timeout(stall, half.take(max).read_buf(buffer)).await {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) => Err(lost(node, &error.to_string())),
        Err(_) => Err(lost(node, &format!("not a byte for {stall:?}"))),
    }
}
