//! The text of `INFO`.

use std::collections::HashMap;

use super::source::Address;

/// How many replicas of one node we read.
const REPLICAS_MAX: usize = 256;

/// The fields of one `INFO` reply. A field that a server does not have is simply absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Info(HashMap<String, String>);

impl Info {
    /// Reads `name:value` lines; section titles and anything else are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let fields = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    /// A field, or the empty text.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A whole number, or 0 where it is absent or negative (offsets are -1 while unknown).
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// How far the server's clock is ahead of the time `now_ms`; `None` where it does not tell its own.
    pub(crate) fn clock_ahead_ms(&self, now_ms: i64) -> Option<i64> {
        let micros: i64 = self.text("server_time_usec").parse().ok()?;
        Some(micros / 1000 - now_ms)
    }

    /// The engine: `valkey`, `redict` and others name themselves beside `redis_version`.
    pub(crate) fn engine(&self) -> (&str, &str) {
        let named = |engine: &'static str, field: &str| Some((engine, self.0.get(field)?.as_str()));
        named("valkey", "valkey_version")
            .or_else(|| named("redict", "redict_version"))
            .or_else(|| named("dragonfly", "dragonfly_version"))
            .unwrap_or(("redis", self.text("redis_version")))
    }

    /// Whether it is a node of a cluster. (The field with the mode has another name in Valkey than in Redis.)
    pub(crate) fn is_cluster(&self) -> bool {
        self.text("cluster_enabled") == "1" || self.text("redis_mode") == "cluster"
    }

    /// Whether it is a Sentinel.
    pub(crate) fn is_sentinel(&self) -> bool {
        self.text("redis_mode") == "sentinel" || self.text("server_mode") == "sentinel"
    }

    /// Whether this node is a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// The primary that a replica follows.
    pub(crate) fn primary(&self) -> Option<Address> {
        address(self.text("master_host"), self.text("master_port"))
    }

    /// The replicas that follow this node and told it where they listen. What tells nothing or an
    /// impossible port is no server: captures and other tools look like that.
    pub(crate) fn replicas(&self) -> Vec<Address> {
        let lines = (0..REPLICAS_MAX).map_while(|index| self.0.get(&format!("slave{index}")));
        lines
            .filter_map(|line| {
                let fields: HashMap<&str, &str> = line.split(',').filter_map(|pair| pair.split_once('=')).collect();
                address(fields.get("ip")?, fields.get("port")?)
            })
            .collect()
    }

    /// How many keys all databases hold.
    pub(crate) fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
        });
        let counts = databases.filter_map(|(_, value)| value.strip_prefix("keys=")?.split(',').next()?.parse().ok());
        counts.fold(0, u64::saturating_add)
    }
}

fn address(host: &str, port: &str) -> Option<Address> {
    let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
    (!host.is_empty()).then(|| Address::tcp(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_replicas_and_keys_are_read() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.1.1\r\nrole:master\r\n\
             slave0:ip=10.0.0.1,port=6380,state=online,offset=1,lag=0\r\n\
             slave1:ip=10.0.0.2,port=0,state=online,offset=1,lag=0\r\n\
             slave2:ip=10.0.0.3,port=70000,state=online,offset=1,lag=0\r\n\
             slave3:ip=::1,port=6381,state=online,offset=1,lag=0\r\n\
             slave_repl_offset:-1\r\ndb0:keys=7,expires=1,avg_ttl=0\r\ndb11:keys=5,expires=0\r\ndbsize:x\r\n",
        );
        assert_eq!(info.engine(), ("valkey", "8.1.1"));
        assert_eq!(info.replicas(), [Address::tcp("10.0.0.1", 6380), Address::tcp("::1", 6381)]);
        assert_eq!(info.keys(), 12);
        assert_eq!(info.number("slave_repl_offset"), 0);
        assert!(!info.is_replica() && info.primary().is_none());
    }
}
