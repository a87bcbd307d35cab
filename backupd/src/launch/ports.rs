//! Ports for the nodes.

use std::net::{Ipv4Addr, TcpListener};

use crate::crypt;
use crate::error::{Class, Error, Result};

/// A node's bus port lies this far above its port: what every version of the servers does by itself.
pub const BUS_OFFSET: u16 = 10_000;

/// Where we look for free ports when none was asked for: both a port and its bus port then lie below the
/// range that Linux gives to outgoing connections (32768 and above).
const PORT_FIRST: u16 = 10_000;
const PORT_LAST: u16 = 22_000;

/// How many places we look at.
const TRIES_MAX: usize = 200;

/// Ports that are ours until this is dropped: a listener on each keeps others away.
#[derive(Debug)]
pub(super) struct Ports {
    /// The ports for clients, ascending.
    pub(super) ports: Vec<u16>,
    _held: Vec<TcpListener>,
}

/// Takes `count` consecutive ports from `first`, or from a random place, each with its bus port when
/// `with_bus`.
///
/// # Errors
/// `Refused`, naming the port that is taken or that does not exist.
pub(super) fn reserve(first: Option<u16>, count: usize, with_bus: bool) -> Result<Ports> {
    if let Some(first) = first {
        return hold(first, count, with_bus).map_err(|port| refused(port, with_bus));
    }
    let mut last = PORT_FIRST;
    for _ in 0..TRIES_MAX {
        let random = u16::from_ne_bytes(crypt::random()?);
        match hold(PORT_FIRST + random % (PORT_LAST - PORT_FIRST), count, with_bus) {
            Ok(ports) => return Ok(ports),
            Err(port) => last = port.unwrap_or(last),
        }
    }
    Err(refused(Some(last), with_bus))
}

/// Whether `count` consecutive ports from `first` can be had now.
#[must_use]
pub fn are_free(first: u16, count: usize, with_bus: bool) -> bool {
    hold(first, count, with_bus).is_ok()
}

fn refused(port: Option<u16>, with_bus: bool) -> Error {
    let bus = if with_bus { format!("; a node also needs its port + {BUS_OFFSET}") } else { String::new() };
    let message = match port {
        Some(port) => format!("port {port} of 127.0.0.1 is taken"),
        None => format!("the ports would go beyond {}", u16::MAX),
    };
    Error::new(Class::Refused, message).hint(format!("give another first port with --port P{bus}"))
}

/// The error is the port that cannot be had; `None`: there is no such port.
fn hold(first: u16, count: usize, with_bus: bool) -> Result<Ports, Option<u16>> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for step in 0..count {
        let port = u16::try_from(step).ok().and_then(|step| first.checked_add(step)).ok_or(None)?;
        let bus = with_bus.then(|| port.checked_add(BUS_OFFSET).ok_or(None)).transpose()?;
        for port in [port].into_iter().chain(bus) {
            held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|_| Some(port))?);
        }
        ports.push(port);
    }
    Ok(Ports { ports, _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_taken_bus_port_are_named() {
        let free = reserve(None, 3, true).unwrap().ports;
        assert_eq!(free.len(), 3);
        let _taken = TcpListener::bind(("127.0.0.1", free[1] + BUS_OFFSET)).unwrap();
        let error = reserve(Some(free[0]), 3, true).unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        assert!(error.message().contains(&(free[1] + BUS_OFFSET).to_string()), "{error}");
        assert_eq!(reserve(Some(free[0]), 3, false).unwrap().ports, free);
        assert_eq!(reserve(Some(65_535), 2, false).unwrap_err().class(), Class::Refused);
        assert_eq!(reserve(Some(60_000), 1, true).unwrap_err().class(), Class::Refused);
    }
}
