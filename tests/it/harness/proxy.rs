//! A proxy of bytes in front of a server, that cuts a connection or slows it down when it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// No cut is asked for.
const NEVER: u64 = u64::MAX;

/// What it does to bytes from the server.
#[derive(Debug)]
struct Behaviour {
    /// After how many bytes of one connection that is closed; once.
    cut_after: AtomicU64,
    /// Pause after every read, in ms.
    pause_ms: AtomicU64,
}

/// A running proxy; it ends with the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    behaviour: Arc<Behaviour>,
}

impl Proxy {
    /// Starts one in front of `server` (`host:port`). It lets everything pass.
    pub(crate) fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(Behaviour { cut_after: AtomicU64::new(NEVER), pause_ms: AtomicU64::new(0) });
        let (server, shared) = (server.to_owned(), Arc::clone(&behaviour));
        thread::spawn(move || {
            for client in listener.incoming() {
                // a server that is away closes the connection, as its own port would refuse it
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
                let behaviour = Arc::clone(&shared);
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || forward(from, to, |_| true));
                thread::spawn(move || forward(server, client, |passed| behaviour.lets(passed)));
            }
        });
        Self { address, behaviour }
    }

    /// Closes the next connection that has brought this many bytes.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.behaviour.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// Pauses after every read.
    pub(crate) fn slow(&self, ms: u64) {
        self.behaviour.pause_ms.store(ms, Ordering::Relaxed);
    }

    /// Lets everything pass again.
    pub(crate) fn heal(&self) {
        self.cut_after(NEVER);
        self.slow(0);
    }
}

impl Behaviour {
    fn lets(&self, passed: u64) -> bool {
        thread::sleep(Duration::from_millis(self.pause_ms.load(Ordering::Relaxed)));
        let cut_after = self.cut_after.load(Ordering::Relaxed);
        passed < cut_after
            || self.cut_after.compare_exchange(cut_after, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }
}

/// Until one side has ended or `lets` says no; then both are closed.
fn forward(mut from: TcpStream, mut to: TcpStream, lets: impl Fn(u64) -> bool) {
    let (mut buffer, mut passed) = ([0; 16 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed += count as u64;
        if !lets(passed) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // the other thread may have closed it
        drop(stream.shutdown(Shutdown::Both));
    }
}
