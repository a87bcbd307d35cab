//! An HTTP proxy between the program and the S3 server of the tests that does wrong what a script says.
//!
//! It reads one whole request, decides what happens to it, and closes the connection after the answer, so that requests
//! are counted one by one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use md5::{Digest as _, Md5};

use super::keyspace::Random;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `CreateMultipartUpload`
    Begin,
    /// `UploadPart` with this number.
    Part(u64),
    /// `UploadPartCopy` with this number.
    PartCopy(u64),
    /// `CopyObject`
    Copy,
    /// `CompleteMultipartUpload`
    Complete,
    /// `AbortMultipartUpload`
    Abort,
    /// `ListObjectsV2`
    List,
    /// `PutObject` of a manifest.
    Manifest,
    /// `PutObjectAcl`
    Acl,
    /// Another `PutObject`.
    Put,
    /// `GetObject`, `HeadObject`
    Read,
    /// `DeleteObject`
    Delete,
    /// Anything else.
    Other,
}

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An answer of the server's own: HTTP status and S3 error code. The request is not carried out.
    Answer(u16, &'static str),
    /// An error document in an answer with status 200. The request is not carried out.
    ErrorIn200,
    /// The connection is reset when half of the body has arrived. The request is not carried out.
    Reset,
    /// Half of the body is read and then nothing more, until the client gives up. The request is not carried out.
    Stall,
    /// The request is carried out, and the connection closed instead of the answer.
    LoseAnswer,
    /// The request is carried out, and half of the answer is sent.
    CutAnswer,
    /// The request is carried out, and a refusal because the object exists is told as a success, as by a server that does not
    /// know of conditions.
    Unconditional,
    /// One byte of the body is another one when it arrives, and an answer that has its MD5 tells the one that was sent.
    Change,
    /// The request is carried out, and in the answer the first text is the second one.
    Rewrite(&'static str, &'static str),
}

/// Decides what happens to each request, in the order in which they come.
pub(crate) trait Script: FnMut(Operation) -> Option<Fault> + Send {}
impl<F: FnMut(Operation) -> Option<Fault> + Send> Script for F {}

/// A fault for the first `times` requests of one kind.
pub(crate) fn first(times: usize, wanted: impl Fn(Operation) -> bool + Send, fault: Fault) -> impl Script {
    let mut left = times;
    move |operation| {
        if left == 0 || !wanted(operation) {
            return None;
        }
        left -= 1;
        Some(fault)
    }
}

/// Random faults for so many of a hundred requests.
pub(crate) fn random(seed: u64, percent: u64) -> impl Script {
    let mut random = Random::new(seed);
    move |_| {
        let faults = [
            Fault::Answer(500, "InternalError"),
            Fault::Answer(503, "SlowDown"),
            Fault::Reset,
            Fault::LoseAnswer,
            Fault::CutAnswer,
        ];
        let hit = random.below(100) < percent;
        hit.then(|| faults[usize::try_from(random.below(faults.len() as u64)).unwrap()])
    }
}

/// What was done to which request.
type Struck = Arc<Mutex<Vec<(Operation, Fault)>>>;

fn decide(script: &Mutex<dyn Script>, log: &Struck, operation: Operation) -> Option<Fault> {
    let fault = (script.lock().unwrap())(operation);
    log.lock().unwrap().extend(fault.map(|fault| (operation, fault)));
    fault
}

/// The running proxy; it ends with the process.
#[derive(Debug)]
pub(crate) struct Faulty {
    /// What to use as endpoint.
    pub(crate) endpoint: String,
    /// What was done to requests.
    struck: Struck,
    /// Bytes of requests and answers that passed.
    passed: Arc<AtomicUsize>,
    /// The first lines of requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Operation {
    /// Whether something is there, or gone, after it.
    pub(crate) fn is_write(self) -> bool {
        !matches!(self, Self::List | Self::Read | Self::Other)
    }
}

impl Faulty {
    /// Starts one in front of the server at `endpoint`.
    pub(crate) fn start(endpoint: &str, script: impl Script + 'static) -> Self {
        let upstream = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let struck = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<dyn Script>> = Arc::new(Mutex::new(script));
        let (log, passed) = (Arc::clone(&struck), Arc::new(AtomicUsize::new(0)));
        let (count, asked) = (Arc::clone(&passed), Arc::<Mutex<Vec<String>>>::default());
        let lines = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, upstream) = (client.unwrap(), upstream.clone());
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                let (count, lines) = (Arc::clone(&count), Arc::clone(&lines));
                let decide = move |head: &str| {
                    lines.lock().unwrap().extend(head.lines().next().map(ToOwned::to_owned));
                    decide(&script, &log, operation(head))
                };
                // a client that went away is its own business
                thread::spawn(move || drop(serve(client, &upstream, decide, &count)));
            }
        });
        Self { endpoint: format!("http://127.0.0.1:{port}"), struck, passed, asked }
    }

    /// Method and target of each request so far, in the order in which they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many bytes of requests and answers passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    /// What was done to requests so far.
    pub(crate) fn struck(&self) -> Vec<(Operation, Fault)> {
        self.struck.lock().unwrap().clone()
    }
}

fn operation(head: &str) -> Operation {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let field = |name: &str| query.split('&').find_map(|field| field.strip_prefix(name));
    let copies = head.to_ascii_lowercase().contains("\r\nx-amz-copy-source:");
    match (method, field("uploadId="), field("partNumber=")) {
        ("PUT", Some(_), Some(number)) if copies => Operation::PartCopy(number.parse().unwrap()),
        ("PUT", None, _) if copies => Operation::Copy,
        ("PUT", Some(_), Some(number)) => Operation::Part(number.parse().unwrap()),
        ("POST", Some(_), _) => Operation::Complete,
        ("DELETE", Some(_), _) => Operation::Abort,
        ("POST", ..) if field("uploads").is_some() => Operation::Begin,
        ("GET", ..) if field("list-type=").is_some() => Operation::List,
        ("PUT", ..) if field("acl").is_some() => Operation::Acl,
        ("PUT", ..) if path.ends_with("/manifest.json") => Operation::Manifest,
        ("PUT", ..) => Operation::Put,
        ("GET" | "HEAD", ..) if field("uploads").is_none() => Operation::Read,
        ("DELETE", ..) => Operation::Delete,
        _ => Operation::Other,
    }
}

fn serve(
    mut client: TcpStream,
    upstream: &str,
    decide: impl FnOnce(&str) -> Option<Fault>,
    passed: &AtomicUsize,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if read_some(&mut client, &mut bytes)? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    };
    let body_len: usize = field("content-length").map_or(0, |length| length.trim().parse().unwrap());
    let fault = decide(&head);
    let wanted = match fault {
        Some(Fault::Reset | Fault::Stall) => body_len / 2,
        _ => body_len,
    };
    if field("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while bytes.len() < head_len + wanted {
        if read_some(&mut client, &mut bytes)? == 0 {
            return Ok(());
        }
    }
    passed.fetch_add(bytes.len(), Ordering::Relaxed);
    let is_head = head.starts_with("HEAD ");
    match fault {
        Some(Fault::Answer(status, code)) => answer(client, status, code, is_head),
        Some(Fault::ErrorIn200) => answer(client, 200, "InternalError", is_head),
        // with bytes unread the kernel resets the connection instead of closing it
        Some(Fault::Reset) => Ok(()),
        Some(Fault::Stall) => {
            thread::sleep(Duration::from_secs(600));
            Ok(())
        }
        fault => carry_out(fault, client, (upstream, &head, &bytes[head_len..]), passed),
    }
}

/// Passes a whole request on, and its answer as the fault wants it.
fn carry_out(
    fault: Option<Fault>,
    mut client: TcpStream,
    (upstream, head, body): (&str, &str, &[u8]),
    passed: &AtomicUsize,
) -> std::io::Result<()> {
    let mut changed = body.to_vec();
    if fault == Some(Fault::Change) {
        changed[body.len() / 2] ^= 1;
    }
    let answer = forward(upstream, head, &changed)?;
    let text = |from: &str, to: &str| String::from_utf8_lossy(&answer).replace(from, to).into_bytes();
    let told = match fault {
        Some(Fault::LoseAnswer) => return Ok(()),
        Some(Fault::CutAnswer) => return client.write_all(&answer[..answer.len() / 2]),
        Some(Fault::Unconditional) if answer.starts_with(b"HTTP/1.1 412") => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        }
        Some(Fault::Change) => {
            let [md5, of_sent] = [&changed[..], body].map(|body| hex::encode(Md5::digest(body)));
            text(&md5, &of_sent)
        }
        Some(Fault::Rewrite(from, to)) => text(from, to),
        _ => answer,
    };
    if fault.is_none() {
        passed.fetch_add(told.len(), Ordering::Relaxed);
    }
    client.write_all(&told)?;
    client.shutdown(Shutdown::Write)
}

pub(super) fn read_some(from: &mut TcpStream, into: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut buffer = [0; 64 << 10];
    let count = from.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..count]);
    Ok(count)
}

/// Carries the request out and returns the whole answer, which says that the connection ends with it.
pub(super) fn forward(upstream: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    let kept = head.trim_end().lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        name != "connection" && name != "expect"
    });
    let head = kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    server.write_all(head.as_bytes())?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(answer) };
    let (answer_head, rest) = answer.split_at(at);
    let lines = String::from_utf8_lossy(answer_head).into_owned();
    let kept = lines.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let lines = kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close";
    Ok([lines.as_bytes(), rest].concat())
}

fn answer(mut client: TcpStream, status: u16, code: &str, is_head: bool) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as the script says</Message></Error>"
    );
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    if !is_head {
        client.write_all(body.as_bytes())?;
    }
    client.shutdown(Shutdown::Write)?;
    // what the client still sends is taken, so that it reads the answer and no reset
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(drop)
}
