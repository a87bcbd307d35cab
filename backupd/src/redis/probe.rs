//! What a node would refuse a capture, found out without making it work.

use ::redis::cmd;
use policies::engine::Engine;

use super::client::Client;
use super::info::Info;
use super::refusal::refusal;
use super::source::{Address, SourceOptions};
use super::wire::Wire;
use crate::error::{Class, Error, Result};

/// Every command of a capture that the node at `address` refuses us, one error each; empty when none.
///
/// `PSYNC` is sent with an offset that is no number: servers from 7.0 on check the permission first and then refuse
/// the offset, without a synchronisation. An older one would begin one, so it is not asked.
pub async fn refusals(address: &Address, options: &SourceOptions) -> Vec<Error> {
    let mut found = Vec::new();
    let info = match ordinary(address, options, &mut found).await {
        Ok(info) => info,
        Err(error) => return vec![error],
    };
    if let Err(error) = replication(address, options, info.as_ref(), &mut found).await {
        found.push(error);
    }
    found
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

async fn replication(
    address: &Address,
    options: &SourceOptions,
    info: Option<&Info>,
    found: &mut Vec<Error>,
) -> Result<()> {
    let mut wire = Wire::connect(address, options).await?;
    wire.send(&[b"REPLCONF", b"capa", b"eof"], options.reply_timeout).await?;
    let line = wire.line(options.reply_timeout).await?;
    found.extend(line.strip_prefix('-').map(|text| refusal(wire.node(), "REPLCONF", text)));
    // without INFO the version is not known, and then an old server is not made to work either
    let (engine, version) = info.map_or(("", ""), Info::engine);
    if Engine::new(engine, version).is_none_or(|engine| engine.version < (7, 0)) {
        return Ok(());
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
    Ok(())
}
