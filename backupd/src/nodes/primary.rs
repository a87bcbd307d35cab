//! We act as the primary of one server for one full synchronisation, so that it loads a file as fast as it loads its own.
//!
//! The server is told to follow an address of ours on which nobody is served but who gives a password that was made for
//! this and told to the server alone (`masterauth`). It gets the file as the answer to its `PSYNC`, with the mark of an
//! unfinished restore as its first key, since a synchronisation takes away the mark that was there. When it has
//! loaded it, it follows nobody again. It loads while it receives, instead of writing a file of its own first, where it lets us say so: what
//! it holds until then is the mark alone, and costs it nothing to keep (`repl-diskless-load swapdb`, `redis.conf` of the servers). Where it cannot reach us, or does not let us set this up, nothing has changed.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ::redis::{Cmd, cmd};
use rdbtools::crc64::Crc64;
use rdbtools::scan::Scanner;
use rdbtools::version::HEADER_LEN;
use rdbtools::write;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::mark::{self, Mark};
use super::send::Sent;
use super::{STRING_TYPE, interrupted};
use crate::crypt;
use crate::error::{Class, Error, Result};
use crate::redis::{Client, Info, Node, SourceOptions, connect};

/// How long the server may take to come to us, and to each word of its greeting.
const GREETING_WAIT: Duration = Duration::from_secs(20);
/// How long it may take no byte, and stand still while it loads.
const STALL_WAIT: Duration = Duration::from_secs(180);
/// How long a server that loads may refuse to follow nobody any more.
const FREE_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the file that are sent at once.
const CHUNK_BYTES: usize = 1 << 20;
/// The password that a server gives to its primary.
const MASTER_AUTH: &str = "masterauth";
/// How a server loads what its primary sends; what it is set to by itself, and what we set it to.
const LOADING: &str = "repl-diskless-load";
const LOADING_BY_FILE: &str = "disabled";
const LOADING_AT_ONCE: &str = "swapdb";
/// Bytes of the checksum at the end of a file.
const CHECKSUM_LEN: u64 = 8;
/// Random bytes of the password that is told to the server.
const PASSWORD_LEN: usize = 32;
/// The longest line, and the most words, of a greeting.
const LINE_LEN_MAX: u64 = 1024;
const WORDS_MAX: usize = 16;
/// A primary says this when it has nothing else to say.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// How often.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Whether the server took the file, or why it has to be filled in another way.
#[derive(Debug)]
pub(super) enum Fed {
    /// It holds the file.
    Loaded,
    /// Nothing was changed.
    NotPossible(String),
}

/// A file, and the mark that goes with it.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) file: &'a Path,
    pub(super) mark: Mark,
}

/// Gives a file to `node`. Whatever comes of it, and when `stop` ends it, the node follows nobody afterwards, as far as
/// that can be brought about.
///
/// # Errors
/// When the synchronisation had begun and did not end well: the node then bears the mark, or holds nothing.
pub(super) async fn feed(
    node: &Node,
    load: &mut Load<'_>,
    options: &SourceOptions,
    told: &tokio::sync::mpsc::Sender<Sent>,
    stop: &CancellationToken,
) -> Result<Fed> {
    let mut client = connect(&node.address, options).await?;
    if options.tls_for(&node.address).is_some() {
        return Ok(Fed::NotPossible("it speaks TLS".to_owned()));
    }
    match client.setting(MASTER_AUTH).await {
        Ok(before) if before.as_deref().unwrap_or_default().is_empty() => {}
        Ok(_) => return Ok(Fed::NotPossible("it has a password for a primary of its own (masterauth)".to_owned())),
        Err(error) => return Ok(Fed::NotPossible(error.message().to_owned())),
    }
    let listener = match listen(node).await {
        Ok(listener) => listener,
        Err(error) => return Ok(Fed::NotPossible(format!("it cannot come to us: {error}"))),
    };
    // a synchronisation removes what is there: that must be our mark alone
    let text: String = client.query("INFO", &cmd("INFO")).await?;
    let info = Info::parse(&text);
    let (keys, libraries) = (info.keys().saturating_sub(1), info.number("number_of_libraries"));
    if info.keys() != 1 || libraries > 0 {
        let functions = if libraries > 0 { format!(" and {libraries} libraries of functions") } else { String::new() };
        let message = format!("{}: {keys} keys{functions} came in between: the node was not left alone", node.address);
        return Err(Error::new(Class::Refused, message));
    }
    let password = hex::encode(crypt::random::<PASSWORD_LEN>()?);
    if let Err(error) = client.change_setting(MASTER_AUTH, &password).await {
        return Ok(Fed::NotPossible(error.message().to_owned()));
    }
    load_at_once(&mut client, &mut load.mark).await?;
    let fed = tokio::select! {
        fed = synchronise(&mut client, &listener, &password, (node, load), told) => fed,
        () = stop.cancelled() => Err(interrupted()),
    };
    match (fed, free(&mut client, load.mark.loading.as_deref()).await) {
        (Ok(fed), Ok(())) => Ok(fed),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => {
            tracing::warn!(node = %node.address, error = %left, "it may still follow us: REPLICAOF NO ONE frees it");
            Err(error)
        }
    }
}

/// Lets a server load while it receives, when it has to be told and can be. The mark says first what it was set to.
async fn load_at_once(client: &mut Client, mark: &mut Mark) -> Result<()> {
    if client.setting(LOADING).await.ok().flatten().as_deref() != Some(LOADING_BY_FILE) {
        return Ok(());
    }
    mark.loading = Some(LOADING_BY_FILE.to_owned());
    mark::write(client, &mark::key(None), mark).await?;
    if let Err(error) = client.change_setting(LOADING, LOADING_AT_ONCE).await {
        tracing::info!(%error, "the server writes a file of its own before it loads");
        mark.loading = None;
        mark::write(client, &mark::key(None), mark).await?;
    }
    Ok(())
}

/// Makes a server follow nobody, know no password of ours, and load as it did before (`loading`, where that was changed). One that loads is
/// waited for.
pub(super) async fn free(client: &mut Client, loading: Option<&str>) -> Result<()> {
    let begun = Instant::now();
    let freed = loop {
        match client.query::<()>("REPLICAOF", cmd("REPLICAOF").arg("NO").arg("ONE")).await {
            Err(error) if error.message().contains("LOADING") && begun.elapsed() < FREE_WAIT => sleep(LOOK_EVERY).await,
            freed => break freed,
        }
    };
    let forgot = client.change_setting(MASTER_AUTH, "").await;
    let put_back = match loading {
        Some(loading) => client.change_setting(LOADING, loading).await,
        None => Ok(()),
    };
    freed.and(forgot).and(put_back)
}

async fn synchronise(
    client: &mut Client,
    listener: &(TcpListener, SocketAddr),
    password: &str,
    (node, load): (&Node, &Load<'_>),
    told: &tokio::sync::mpsc::Sender<Sent>,
) -> Result<Fed> {
    let mark = marked(&load.mark)?;
    let (listener, address) = listener;
    let follow: Cmd = cmd("REPLICAOF").arg(address.ip().to_string()).arg(address.port()).to_owned();
    if let Err(error) = client.query::<()>("REPLICAOF", &follow).await {
        return Ok(Fed::NotPossible(error.message().to_owned()));
    }
    let Ok(greeted) = timeout(GREETING_WAIT, greet(listener, password)).await else {
        return Ok(Fed::NotPossible(format!("it does not come to us at {address}")));
    };
    let stream = match greeted {
        Ok(stream) => stream,
        Err(error) => return Ok(Fed::NotPossible(format!("it left in its greeting: {error}"))),
    };
    let lost = |error: std::io::Error| {
        Error::new(Class::SourceUnavailable, format!("{}: it left while it was synchronised: {error}", node.address))
    };
    let (mut incoming, mut outgoing) = stream.into_inner().into_split();
    // what it says of its position is of no interest, but has to be taken
    let heard = tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while incoming.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let sent = send(&mut outgoing, load.file, &mark, told).await.map_err(lost);
    let loaded = match sent {
        Ok(()) => wait_loaded(client, node, &mut outgoing).await,
        Err(error) => Err(error),
    };
    heard.abort();
    loaded.map(|()| Fed::Loaded)
}

/// An address of ours that the node reaches, as far as we can tell: the one by which we reach it.
async fn listen(node: &Node) -> std::io::Result<(TcpListener, SocketAddr)> {
    let mut found = lookup_host((node.host.as_str(), node.port)).await?;
    let remote = found.next().ok_or_else(|| std::io::Error::other("it has no address"))?;
    let ip: IpAddr = TcpStream::connect(remote).await?.local_addr()?.ip();
    let listener = TcpListener::bind((ip, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Takes the one who knows the password up to its `PSYNC`; others are sent away.
async fn greet(listener: &TcpListener, password: &str) -> std::io::Result<BufReader<TcpStream>> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        if answer(&mut stream, password).await? {
            return Ok(stream);
        }
    }
}

/// Answers a greeting; whether it ended with a `PSYNC` of one who knows the password.
async fn answer(stream: &mut BufReader<TcpStream>, password: &str) -> std::io::Result<bool> {
    let mut knows = false;
    loop {
        let Some(words) = command(stream).await? else { return Ok(false) };
        let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let reply = match name.as_slice() {
            b"AUTH" => {
                knows = words.last().is_some_and(|word| word == password.as_bytes());
                if !knows {
                    return Ok(false);
                }
                "+OK\r\n"
            }
            _ if !knows => "-NOAUTH Authentication required.\r\n",
            b"PING" => "+PONG\r\n",
            b"REPLCONF" => "+OK\r\n",
            b"PSYNC" | b"SYNC" => return Ok(true),
            _ => "-ERR unknown command\r\n",
        };
        stream.get_mut().write_all(reply.as_bytes()).await?;
    }
}

/// The words of one command; `None` when it is none, or too long for a greeting.
async fn command(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<Vec<u8>>>> {
    let count = |line: &[u8], mark: u8| -> Option<usize> {
        std::str::from_utf8(line.strip_prefix(&[mark])?).ok()?.trim_end().parse().ok()
    };
    let Some(words) = count(&line(stream).await?, b'*').filter(|words| *words <= WORDS_MAX) else { return Ok(None) };
    let mut found = Vec::with_capacity(words);
    for _ in 0..words {
        let length = count(&line(stream).await?, b'$').filter(|length| (*length as u64) < LINE_LEN_MAX);
        let Some(length) = length else { return Ok(None) };
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(length);
        found.push(word);
    }
    Ok(Some(found))
}

async fn line(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.take(LINE_LEN_MAX).read_until(b'\n', &mut line).await?;
    Ok(line)
}

/// The mark as an entry of an RDB.
fn marked(mark: &Mark) -> Result<Vec<u8>> {
    let mut entry = Vec::new();
    write::put_select_db(&mut entry, 0);
    entry.push(STRING_TYPE);
    write::put_string(&mut entry, mark::key(None).as_bytes());
    write::put_string(&mut entry, mark.text()?.as_bytes());
    Ok(entry)
}

/// Sends the file as the answer to a `PSYNC`, with the entry `mark` behind its header and a checksum that fits.
async fn send(
    outgoing: &mut tokio::net::tcp::OwnedWriteHalf,
    file: &Path,
    mark: &[u8],
    told: &tokio::sync::mpsc::Sender<Sent>,
) -> std::io::Result<()> {
    let mut file = tokio::fs::File::open(file).await?;
    let length = file.metadata().await?.len();
    let mut head = vec![0; HEADER_LEN];
    file.read_exact(&mut head).await?;
    let mut scanner = Scanner::new(());
    scanner.feed(&head).map_err(std::io::Error::other)?;
    let checksum_len = if scanner.version().is_some_and(|version| version.has_checksum()) { CHECKSUM_LEN } else { 0 };
    let mut body = file.take(length.saturating_sub(HEADER_LEN as u64 + checksum_len));
    head.extend_from_slice(mark);

    let (id, all) = ("b".repeat(40), length + mark.len() as u64);
    outgoing.write_all(format!("+FULLRESYNC {id} 0\r\n${all}\r\n").as_bytes()).await?;
    let (mut crc, mut sent) = (Crc64::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut count = head.len();
    chunk.splice(..count, head);
    while let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) {
        crc.update(bytes);
        let written = timeout(STALL_WAIT, outgoing.write_all(bytes)).await;
        written.map_err(|_| std::io::Error::other("it takes nothing any more"))??;
        sent += count as u64;
        // nobody may be listening for progress any more
        told.send(Sent { shard: 0, keys: 0, bytes: sent }).await.ok();
        count = body.read(&mut chunk).await?;
    }
    if checksum_len > 0 {
        outgoing.write_all(&crc.value().to_le_bytes()).await?;
    }
    Ok(())
}

/// Waits until the node has loaded what it got.
async fn wait_loaded(client: &mut Client, node: &Node, outgoing: &mut tokio::net::tcp::OwnedWriteHalf) -> Result<()> {
    let (mut seen, mut since, mut pinged) = (None, Instant::now(), Instant::now());
    loop {
        let text: String = client.query("INFO", &cmd("INFO")).await?;
        let info = Info::parse(&text);
        let is_up = info.text("master_link_status") == "up" && info.text("loading") != "1";
        if is_up {
            return Ok(());
        }
        let at =
            (info.text("loading") == "1", info.number("loading_loaded_bytes"), info.number("master_sync_read_bytes"));
        if seen != Some(at) {
            (seen, since) = (Some(at), Instant::now());
        }
        let pinging = if pinged.elapsed() > PING_EVERY {
            pinged = Instant::now();
            outgoing.write_all(PING).await
        } else {
            Ok(())
        };
        let is_gone = pinging.is_err() && info.text("loading") != "1";
        if is_gone || since.elapsed() > STALL_WAIT {
            let message = format!("{}: it does not load what it got: its log says why", node.address);
            return Err(Error::new(Class::SourceUnavailable, message));
        }
        sleep(LOOK_EVERY).await;
    }
}
