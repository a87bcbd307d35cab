//! Where a source is and how to enter it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::address::AddressMap;
use super::tls::Tls;
use super::topology::Topology;
use crate::error::{Class, Error, Result};
use crate::secret::Secret;

/// The port of a source URL that names none.
const PORT_DEFAULT: u16 = 6379;

/// Where one server listens. Its text form is `host:port`, `[v6]:port` or `unix:///path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port of a host name or an IP address (without brackets).
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// A TCP address.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// The host name or IP address; `localhost` for a Unix socket.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }

    /// Whether this is certainly this machine: a Unix socket or a loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }

    /// The port; 0 for a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } => *port,
            Self::Unix(_) => 0,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A source as given on the command line: `redis[s]://[user[:password]@]host[:port]` or `unix:///path`.
///
/// User and password may be percent-encoded. `Display` and `Debug` never show the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUrl {
    /// Where the server listens.
    pub address: Address,
    /// The ACL user, if one was given.
    pub username: Option<String>,
    /// The password, if one was given.
    pub password: Option<Secret>,
    /// `rediss`: the server speaks TLS.
    pub tls: bool,
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match (&self.address, &self.username) {
            (Address::Unix(_), _) => write!(f, "{}", self.address),
            (address, Some(username)) => write!(f, "{scheme}://{username}@{address}"),
            (address, None) => write!(f, "{scheme}://{address}"),
        }
    }
}

impl FromStr for SourceUrl {
    type Err = Error;

    /// # Errors
    /// `Usage` for a text that is not a source URL. The text itself is never part of the message, because it may
    /// hold a password.
    fn from_str(text: &str) -> Result<Self> {
        let usage = |why: &str| {
            Error::new(Class::Usage, format!("source URL: {why}"))
                .hint("give redis[s]://[user[:password]@]host:port or unix:///path")
        };
        let url = Url::parse(text).map_err(|error| usage(&error.to_string()))?;
        let decode = |part: &str| {
            percent_decode_str(part)
                .decode_utf8()
                .map(|decoded| decoded.into_owned())
                .map_err(|_| usage("user or password is not UTF-8"))
        };
        let username = Some(url.username()).filter(|name| !name.is_empty()).map(decode).transpose()?;
        let password = url.password().map(decode).transpose()?.map(Secret::new);
        let address = match url.scheme() {
            "redis" | "rediss" => tcp_address(&url, usage)?,
            "unix" if url.path().len() > 1 => Address::Unix(PathBuf::from(decode(url.path())?)),
            "unix" => return Err(usage("the path of the socket is missing")),
            scheme => return Err(usage(&format!("`{scheme}` is not a kind of source"))),
        };
        Ok(Self { address, username, password, tls: url.scheme() == "rediss" })
    }
}

fn tcp_address(url: &Url, usage: impl Fn(&str) -> Error) -> Result<Address> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| usage("the host is missing"))?;
    let port = url.port().unwrap_or(PORT_DEFAULT);
    if port == 0 {
        return Err(usage("port 0 is not a port"));
    }
    if !matches!(url.path(), "" | "/") {
        return Err(usage("a snapshot holds every database, so a source has no path"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("options after `?` or `#` are not known"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Address::tcp(host, port))
}

/// Who we say we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The ACL user; `None` is the default user.
    pub username: Option<String>,
    /// The password; `None` means that no `AUTH` is sent.
    pub password: Option<Secret>,
}

/// How a source is reached: where, as whom, and how long we wait.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Where to begin; any living one is enough.
    pub seeds: Vec<SourceUrl>,
    /// Overrides the user of the URLs.
    pub username: Option<String>,
    /// Overrides the password of the URLs (`--source-password-file`).
    pub password: Option<Secret>,
    /// The file that `password` was read from: it is read again for every connection, so that a password that changes
    /// while a job runs is known.
    pub password_file: Option<PathBuf>,
    /// Where nodes are reached that announce another address.
    pub addresses: AddressMap,
    /// How servers that speak TLS are recognised, and how we are.
    pub tls: Tls,
    /// The primary to take from a Sentinel that watches several.
    pub sentinel_master: Option<String>,
    /// For resolving a name, connecting and sending a command.
    pub connect_timeout: Duration,
    /// For one reply to an ordinary command.
    pub reply_timeout: Duration,
    /// From `PSYNC` to the first byte of the payload, while the server shows that it lives by keep-alive
    /// newlines. Long, because another child of the server may have to end first.
    pub payload_wait: Duration,
    /// Without any byte at all, newlines included: before and within the payload.
    pub stall_timeout: Duration,
}

impl SourceOptions {
    /// Options with the usual deadlines: connect 5 s, reply 15 s, payload 30 min, stall 60 s.
    #[must_use]
    pub fn new(seeds: Vec<SourceUrl>) -> Self {
        Self {
            seeds,
            username: None,
            password: None,
            password_file: None,
            addresses: AddressMap::default(),
            tls: Tls::default(),
            sentinel_master: None,
            connect_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(15),
            payload_wait: Duration::from_secs(30 * 60),
            stall_timeout: Duration::from_secs(60),
        }
    }

    /// The credentials for one node: the overrides, else those of the seed with this address, else those of
    /// the first seed that has a password, since the nodes of one cluster share their users.
    #[must_use]
    pub fn credentials_for(&self, address: &Address) -> Credentials {
        let with_password = || self.seeds.iter().find(|seed| seed.password.is_some());
        let seed = self.seeds.iter().find(|seed| seed.address == *address).or_else(with_password);
        Credentials {
            username: self.username.clone().or_else(|| seed?.username.clone()),
            password: self.fresh_password().or_else(|| seed?.password.clone()),
        }
    }

    fn fresh_password(&self) -> Option<Secret> {
        let read = |path: &PathBuf| match Secret::read(path) {
            Ok(password) => Some(password),
            Err(error) => {
                tracing::warn!(%error, "the password that was read before is used");
                None
            }
        };
        self.password_file.as_ref().and_then(read).or_else(|| self.password.clone())
    }
}

impl SourceOptions {
    /// How TLS is spoken to one node, if at all: as the seed with this address says, else if any seed says so, since
    /// the nodes of one cluster all speak it or none does.
    #[must_use]
    pub fn tls_for(&self, address: &Address) -> Option<&Tls> {
        let own = self.seeds.iter().find(|seed| seed.address == *address).map(|seed| seed.tls);
        own.unwrap_or_else(|| self.seeds.iter().any(|seed| seed.tls)).then_some(&self.tls)
    }

    /// The same, with every node of `topology` among the seeds, so that any of them that lives leads to the others.
    #[must_use]
    pub fn knowing(&self, topology: &Topology) -> Self {
        let mut this = self.clone();
        for address in topology.shards.iter().flat_map(|shard| &shard.nodes).map(|node| &node.address) {
            if this.seeds.iter().all(|seed| seed.address != *address) {
                let Credentials { username, password } = self.credentials_for(address);
                let tls = self.tls_for(address).is_some();
                this.seeds.push(SourceUrl { address: address.clone(), username, password, tls });
            }
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SourceUrl> {
        text.parse()
    }

    #[test]
    fn source_urls_give_address_and_credentials() {
        let url = parse("redis://us%20er:p%40ss@db.example:7001").unwrap();
        assert_eq!(url.address, Address::tcp("db.example", 7001));
        assert_eq!(url.username.as_deref(), Some("us er"));
        assert_eq!(url.password.as_ref().unwrap().reveal(), "p@ss");
        assert_eq!(parse("redis://:pw@h").unwrap().username, None);
        assert_eq!(parse("redis://h").unwrap().address, Address::tcp("h", 6379));
        assert_eq!(parse("redis://[::1]:7/").unwrap().address, Address::tcp("::1", 7));
        assert_eq!(parse("redis://[::1]:7").unwrap().to_string(), "redis://[::1]:7");
        assert_eq!(parse("unix:///run/r%20s").unwrap().address, Address::Unix("/run/r s".into()));
    }

    #[test]
    fn what_is_not_a_source_is_refused_with_its_class() {
        for text in ["", "h:6379", "http://h", "redis://", "redis://h:0", "redis://h:99999", "redis://h/1", "unix://"] {
            assert_eq!(parse(text).unwrap_err().class(), Class::Usage, "{text}");
        }
        assert!(parse("rediss://h").unwrap().tls && !parse("redis://h").unwrap().tls);
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = parse("redis://u:hunter2@h:1").unwrap();
        let options = SourceOptions { password: Some(Secret::new("hunter2".into())), ..SourceOptions::new(vec![url]) };
        let shown = format!("{options:?} {}", options.seeds[0]);
        assert!(shown.contains("u@h:1") && !shown.contains("hunter2"), "{shown}");
        for text in ["redis://u:hunter2@h:x", "redis://u:hunter2@h/9", "hunter2://u:hunter2@"] {
            let error = parse(text).unwrap_err();
            assert!(text.starts_with("hunter2") || !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn overrides_come_before_the_seed_and_the_seed_before_the_others() {
        let seeds = vec![parse("redis://a:1").unwrap(), parse("redis://:two@b:2").unwrap()];
        let mut options = SourceOptions::new(seeds);
        let password = |options: &SourceOptions, host: &str, port| {
            options.credentials_for(&Address::tcp(host, port)).password.map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(password(&options, "b", 2).as_deref(), Some("two"));
        assert_eq!(password(&options, "c", 3).as_deref(), Some("two"));
        assert_eq!(password(&options, "a", 1), None);
        options.password = Some(Secret::new("over".into()));
        assert_eq!(password(&options, "b", 2).as_deref(), Some("over"));
    }
}
