//! What a node would refuse a capture, found out without making it work.

use ::redis::cmd;
use policies::engine::Engine;

use super::client::Client;
use super::info::Info;
use super::refusal::refusal;
use super::source::{Address, SourceOptions};
use super::wire::Wire;
use crate::error::{Class, Error, Result};

/// What a node can do for a capture.
#[derive(Debug, Clone)]
pub struct Capability {
    /// The method: `stream` or `bgsave`.
    pub method: &'static str,
    /// Why it cannot; `None`: it can, as far as permissions go.
    pub refused: Option<String>,
}

/// What was found out about a node.
#[derive(Debug, Default)]
pub struct Probed {
    /// Every command of a capture by stream that it refuses us, one error each; empty when none.
    pub refusals: Vec<Error>,
    /// What it can do; a method of which nothing is known is missing.
    pub capabilities: Vec<Capability>,
}

/// Asks the node at `address` for every command of a capture, in a way that makes it do none.
///
/// `PSYNC` is sent with an offset that is no number: servers from 7.0 on check the permission first and then refuse the
/// offset, without a synchronisation. An older one would begin one, so there it is put into a transaction that is then
/// discarded. `BGSAVE` gets an argument that it does not know.
pub async fn probe(address: &Address, options: &SourceOptions) -> Probed {
    let mut probed = Probed::default();
    let info = match ordinary(address, options, &mut probed.refusals).await {
        Ok(info) => info,
        Err(error) => return Probed { refusals: vec![error], ..probed },
    };
    match replication(address, options, info.as_ref(), &mut probed.refusals).await {
        Ok(true) => {
            let refused = probed
                .refusals
                .iter()
                .find(|error| ["REPLCONF", "PSYNC"].iter().any(|it| error.message().contains(it)));
            let refused = refused.map(|error| error.message().to_owned());
            probed.capabilities.push(Capability { method: "stream", refused });
        }
        Ok(false) => {}
        Err(error) => probed.refusals.push(error),
    }
    match bgsave(address, options).await {
        Ok(refused) => probed.capabilities.push(Capability { method: "bgsave", refused }),
        Err(error) => tracing::debug!(%error, "whether BGSAVE is allowed is not known"),
    }
    if let [Capability { refused: Some(_), .. }, Capability { refused: Some(_), .. }] = probed.capabilities.as_slice() {
        let message = format!("{address}: neither PSYNC nor BGSAVE is allowed, as on managed services");
        probed.refusals.push(
            Error::new(Class::SourceAuth, message).hint(
                "let the service export an RDB file and restore that: `backupd restore --rdb FILE|s3://bucket/key`",
            ),
        );
    }
    probed
}

/// The ordinary commands. The outer error is a connection that cannot be made.
async fn ordinary(address: &Address, options: &SourceOptions, found: &mut Vec<Error>) -> Result<Option<Info>> {
    let mut client = Client::connect(address, options).await?;
    let info = match client.query::<String>("INFO", &cmd("INFO")).await {
        Ok(text) => Some(Info::parse(&text)),
        Err(error) => {
            found.push(error);
            None
        }
    };
    if info.as_ref().is_some_and(Info::is_cluster) {
        let nodes = client.query::<String>("CLUSTER NODES", cmd("CLUSTER").arg("NODES")).await;
        found.extend(nodes.err());
    }
    Ok(info)
}

/// The commands of the replication protocol; whether their permissions are known now.
async fn replication(
    address: &Address,
    options: &SourceOptions,
    info: Option<&Info>,
    found: &mut Vec<Error>,
) -> Result<bool> {
    let mut wire = Wire::connect(address, options).await?;
    wire.send(&[b"REPLCONF", b"capa", b"eof"], options.reply_timeout).await?;
    let line = wire.line(options.reply_timeout).await?;
    found.extend(line.strip_prefix('-').map(|text| refusal(wire.node(), "REPLCONF", text)));
    // without INFO the version is not known, and then an old server is not made to work either
    let (engine, version) = info.map_or(("", ""), Info::engine);
    if Engine::new(engine, version).is_none_or(|engine| engine.version < (7, 0)) {
        return queued(&mut wire, options, found).await;
    }
    wire.send(&[b"PSYNC", b"?", b"none"], options.reply_timeout).await?;
    let line = wire.line(options.reply_timeout).await?;
    match line.strip_prefix('-') {
        Some(text) if text.contains("not an integer") => {}
        Some(text) => found.push(refusal(wire.node(), "PSYNC", text)),
        // the connection is closed on return, and with it what the server may have begun
        None => {
            let message = format!("{address}: PSYNC: the server did not check its offset");
            found.push(Error::new(Class::SourceUnavailable, message));
        }
    }
    Ok(true)
}

/// Whether `PSYNC` would be queued in a transaction, which is never run: the connection is closed instead.
async fn queued(wire: &mut Wire, options: &SourceOptions, found: &mut Vec<Error>) -> Result<bool> {
    wire.send(&[b"MULTI"], options.reply_timeout).await?;
    if wire.line(options.reply_timeout).await?.starts_with('-') {
        // without a transaction it would be run
        return Ok(false);
    }
    wire.send(&[b"PSYNC", b"?", b"-1"], options.reply_timeout).await?;
    let line = wire.line(options.reply_timeout).await?;
    found.extend(line.strip_prefix('-').map(|text| refusal(wire.node(), "PSYNC", text)));
    Ok(true)
}

/// Why `BGSAVE` is refused, if it is.
async fn bgsave(address: &Address, options: &SourceOptions) -> Result<Option<String>> {
    let mut wire = Wire::connect(address, options).await?;
    wire.send(&[b"BGSAVE", b"none"], options.reply_timeout).await?;
    let line = wire.line(options.reply_timeout).await?;
    what_it_says(wire.node(), &line)
}

/// What an answer to `BGSAVE none` says of the permission: why it is refused; an error where it says nothing of that.
fn what_it_says(node: &str, line: &str) -> Result<Option<String>> {
    // one that does not look at its arguments has begun a save
    let Some(text) = line.strip_prefix('-') else { return Ok(None) };
    let refused = refusal(node, "BGSAVE", text);
    if text.starts_with("NOPERM") || text.contains("unknown command") {
        return Ok(Some(refused.message().to_owned()));
    }
    // only who may run it hears what is wrong with its arguments
    let is_of_arguments = text.contains("syntax error") || text.contains("wrong number of arguments");
    if is_of_arguments { Ok(None) } else { Err(refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_the_arguments_says_that_a_save_is_allowed() {
        let says = |line| what_it_says("n", line);
        assert_eq!(says("-ERR syntax error").unwrap(), None);
        assert_eq!(says("-ERR wrong number of arguments for 'bgsave' command").unwrap(), None);
        assert!(says("-NOPERM this user has no permissions").unwrap().is_some());
        assert!(says("-ERR unknown command 'BGSAVE'").unwrap().is_some());
        for line in ["-NOAUTH Authentication required.", "-LOADING Redis is loading", "-ERR max number of clients"] {
            assert!(says(line).is_err(), "{line}");
        }
    }
}
