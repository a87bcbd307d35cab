//! From the addresses that nodes announce to those where they can be reached from here.

use std::collections::BTreeMap;

use super::source::Address;

/// Where nodes are reached that announce another address, such as those of containers: from `host:port` or `host` to
/// `host:port` or `host`. The longer of two that fit wins; what fits none is reached where it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(BTreeMap<String, String>);

impl AddressMap {
    /// The map of these pairs.
    ///
    /// # Errors
    /// In words, naming the pair that is none.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
        for (announced, reached) in &pairs {
            Self::check(announced, reached)?;
        }
        Ok(Self(pairs))
    }

    /// Whether a pair says where to go.
    ///
    /// # Errors
    /// In words.
    pub fn check(announced: &str, reached: &str) -> Result<(), String> {
        for text in [announced, reached] {
            if split(text).is_none_or(|(host, port)| host.is_empty() || port == Some(0)) {
                return Err(format!("`{text}` is no address: write host:port or host"));
            }
        }
        match (split(announced), split(reached)) {
            (Some((_, None)), Some((_, Some(_)))) => {
                Err(format!("`{announced}` has no port and `{reached}` has one, which cannot be that of all"))
            }
            _ => Ok(()),
        }
    }

    /// Where the node that announces `address` is reached.
    #[must_use]
    pub fn reach(&self, address: &Address) -> Address {
        let Address::Tcp { host, port } = address else { return address.clone() };
        let found = self.0.get(&address.to_string()).or_else(|| self.0.get(host));
        match found.and_then(|text| split(text)) {
            Some((host, own)) => Address::tcp(host, own.unwrap_or(*port)),
            None => address.clone(),
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address has no port.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port.parse().ok()?))),
        _ => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Result<AddressMap, String> {
        AddressMap::new(pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())))
    }

    #[test]
    fn the_address_itself_comes_before_its_host_and_the_rest_stays() {
        let map = map(&[("10.0.0.1:6379", "127.0.0.1:7001"), ("10.0.0.1", "gate"), ("fd00::1", "[::1]")]).unwrap();
        let reached = |host: &str, port| map.reach(&Address::tcp(host, port)).to_string();
        assert_eq!(reached("10.0.0.1", 6379), "127.0.0.1:7001");
        assert_eq!(reached("10.0.0.1", 6380), "gate:6380");
        assert_eq!(reached("fd00::1", 5), "[::1]:5");
        assert_eq!(reached("10.0.0.2", 6379), "10.0.0.2:6379");
        let socket = Address::Unix("/run/redis".into());
        assert_eq!(map.reach(&socket), socket);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (from, to) in [("a:b", "c"), ("", "c"), ("a", "c:1"), ("a:0", "c:1"), ("[::1", "c"), ("a:1", ":2")] {
            assert!(map(&[(from, to)]).is_err(), "{from} {to}");
        }
        map(&[("a:1", "c"), ("a:1", "c:2"), ("a", "c")]).unwrap();
    }
}
