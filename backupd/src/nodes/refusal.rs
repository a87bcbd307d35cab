//! What the replies of a node to the commands of a restore mean.

use crate::error::{Class, Error};
use crate::redis::refusal;

const TAKEN: &str = "the key is there already; the node was not left alone";

/// What an error reply to a command of a restore means.
pub(super) fn refused(node: &str, name: &str, reply: &str) -> Error {
    let message = |what: &str| format!("{node}: {name}: {what} (the server says: {reply})");
    let code = reply.split_ascii_whitespace().next().unwrap_or("");
    match code {
        "BUSYKEY" => Error::new(Class::Refused, message(TAKEN)),
        "OOM" => Error::new(Class::Refused, message("the node is out of memory")).hint("raise its maxmemory"),
        "READONLY" => Error::new(Class::Refused, message("the node is a replica by now")),
        "MOVED" | "ASK" | "CROSSSLOT" => Error::new(Class::Refused, message("the node does not serve the key's slot")),
        _ if reply.contains("payload version or checksum") => {
            Error::new(Class::Version, message("the node does not take values of this RDB version"))
                .hint("restore into an engine at least as new as the source's")
        }
        _ if reply.contains("Bad data format") => {
            Error::new(Class::Version, message("the node cannot read the value")).hint("a module may be missing there")
        }
        _ if reply.contains("already exists") => Error::new(Class::Refused, message("it is there already")),
        _ => refusal(node, "RESTORE", reply).at(name),
    }
}

/// A key that was made under another name cannot have its own.
pub(super) fn taken(node: &str, name: &str) -> Error {
    Error::new(Class::Refused, format!("{node}: {name}: {TAKEN}"))
}
