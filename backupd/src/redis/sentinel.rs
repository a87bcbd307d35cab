//! Finding servers through a Sentinel.

use std::collections::HashMap;

use ::redis::{FromRedisValue, Value, cmd};

use super::client::Client;
use super::info::Info;
use super::source::{Address, Credentials, SourceOptions, SourceUrl};
use crate::error::{Class, Error, Result};

/// The most primaries or replicas that we take from a Sentinel.
const ENTRIES_MAX: usize = 1024;

/// The same options, with the servers that the Sentinel at `seed` watches instead of the seeds: the primary that was
/// asked for, or the only one, and its replicas.
///
/// # Errors
/// `Usage` when it watches several primaries and none was named, `NotFound` when it does not watch the named one;
/// what connecting and asking says.
pub(super) async fn resolve(seed: &Address, options: &SourceOptions) -> Result<SourceOptions> {
    let mut client = connect(seed, options).await?;
    let masters: Value = client.query("SENTINEL MASTERS", cmd("SENTINEL").arg("MASTERS")).await?;
    let masters = entries(seed, &masters)?;
    let names = || masters.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let (name, primary) = match (&options.sentinel_master, masters.as_slice()) {
        (Some(wanted), _) => masters.iter().find(|(name, _)| name == wanted).ok_or_else(|| {
            Error::new(Class::NotFound, format!("{seed}: this Sentinel watches no primary called `{wanted}`"))
                .hint(format!("it watches: {}", names()))
        })?,
        (None, [only]) => only,
        (None, []) => return Err(Error::new(Class::NotFound, format!("{seed}: this Sentinel watches no primary"))),
        (None, _) => {
            let message = format!("{seed}: this Sentinel watches several primaries: {}", names());
            return Err(Error::new(Class::Usage, message).hint("name one with --sentinel-master"));
        }
    };
    // `REPLICAS` since 5.0; `SLAVES` is what every version knows
    let replicas: Value = client.query("SENTINEL SLAVES", cmd("SENTINEL").arg("SLAVES").arg(name)).await?;
    let replicas = entries(seed, &replicas)?;
    let Credentials { username, password } = options.credentials_for(seed);
    let url = |address: &Address| SourceUrl {
        address: address.clone(),
        username: username.clone(),
        password: password.clone(),
        tls: options.tls_for(seed).is_some(),
    };
    let seeds = std::iter::once(primary).chain(replicas.iter().map(|(_, address)| address)).map(url).collect();
    Ok(SourceOptions { seeds, ..options.clone() })
}

/// Whether the server at `seed`, which refused our credentials, is a Sentinel: those often have no password, or
/// another one than the servers.
pub(super) async fn is_at(seed: &Address, options: &SourceOptions) -> bool {
    let asked = async {
        let text: String = connect(seed, options).await?.query("INFO", cmd("INFO").arg("server")).await?;
        Ok::<bool, Error>(Info::parse(&text).is_sentinel())
    };
    asked.await.unwrap_or(false)
}

/// Connects with the credentials for all, else with those of the Sentinel's own URL.
async fn connect(seed: &Address, options: &SourceOptions) -> Result<Client> {
    match Client::connect(seed, options).await {
        Err(error) if error.class() == Class::SourceAuth => {
            let own = options.seeds.iter().find(|known| known.address == *seed).cloned();
            let own = own.filter(|_| options.password.is_some()).into_iter().collect();
            let own =
                SourceOptions { seeds: own, username: None, password: None, password_file: None, ..options.clone() };
            Client::connect(seed, &own).await.map_err(|_| error)
        }
        outcome => outcome,
    }
}

/// `name`, `ip` and `port` of each entry.
fn entries(seed: &Address, reply: &Value) -> Result<Vec<(String, Address)>> {
    let bad = || Error::new(Class::SourceUnavailable, format!("{seed}: SENTINEL has a reply of an unknown shape"));
    let Value::Array(entries) = reply else { return Err(bad()) };
    if entries.len() > ENTRIES_MAX {
        return Err(Error::new(Class::Refused, format!("{seed}: the Sentinel lists more than {ENTRIES_MAX} servers")));
    }
    let mut found = Vec::new();
    for entry in entries {
        let fields: HashMap<String, String> = HashMap::from_redis_value(entry.clone()).map_err(|_| bad())?;
        let (Some(name), Some(ip), Some(port)) = (fields.get("name"), fields.get("ip"), fields.get("port")) else {
            return Err(bad());
        };
        // what it believes to be a replica without a port is a ghost that some client left behind
        if let Some(port) = port.parse().ok().filter(|&port: &u16| port > 0) {
            found.push((name.clone(), Address::tcp(ip, port)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_name_and_address_and_ghosts_are_left_out() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |name: &str, port: &str| {
            Value::Array(["name", name, "ip", "10.0.0.1", "port", port, "flags", "slave"].map(text).to_vec())
        };
        let reply = Value::Array(vec![entry("a", "6379"), entry("ghost", "0")]);
        let seed = Address::tcp("s", 26379);
        assert_eq!(entries(&seed, &reply).unwrap(), [("a".to_owned(), Address::tcp("10.0.0.1", 6379))]);
        assert!(entries(&seed, &Value::Array(vec![text("x")])).is_err() && entries(&seed, &text("x")).is_err());
    }
}
