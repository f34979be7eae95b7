//! From where somebody may act: lists of networks (RFC 4632, RFC 4291, section 2.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Networks of one list: an office, its provider's fallback, a few machines.
pub const NETWORKS_MAX: usize = 20;

/// A list of networks; empty: from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// The text is no list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetworks {
    /// One of them is none.
    #[error("{0} is no network such as 192.0.2.0/24 or 2001:db8::/48, and no address")]
    Malformed(String),
    /// Too many.
    #[error("a list has at most {NETWORKS_MAX} networks")]
    TooMany,
}

impl Networks {
    /// Takes networks (`192.0.2.0/24`) and addresses (`192.0.2.7`); bits beyond the prefix are left out.
    ///
    /// # Errors
    /// [`InvalidNetworks`].
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidNetworks> {
        let network = |text: &str| {
            let whole = text.parse::<IpAddr>().map(IpNet::from);
            let network = whole.or_else(|_| text.parse::<IpNet>());
            network.map(|network| network.trunc()).map_err(|_| InvalidNetworks::Malformed(text.to_owned()))
        };
        let mut networks = texts.into_iter().map(network).collect::<Result<Vec<_>, _>>()?;
        networks.sort_unstable();
        networks.dedup();
        if networks.len() > NETWORKS_MAX { Err(InvalidNetworks::TooMany) } else { Ok(Self(networks)) }
    }

    /// Whether somebody at `address` may act. An IPv4 address that a socket of both families shows as IPv6 is what it was.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether whoever `other` admits is admitted here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_within = |inner: &IpNet| self.0.iter().any(|network| network.contains(inner));
        self.0.is_empty() || (!other.0.is_empty() && other.0.iter().all(is_within))
    }

    /// The networks in order.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }
}

impl fmt::Display for Networks {
    /// Space-separated, as they are stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(" "))
    }
}

impl FromStr for Networks {
    type Err = InvalidNetworks;
    fn from_str(text: &str) -> Result<Self, InvalidNetworks> {
        Self::new(text.split_whitespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Networks {
        text.parse().expect("a list")
    }

    #[test]
    fn who_is_in_a_network_is_admitted() {
        let office = list("192.0.2.0/24 2001:db8::/48 198.51.100.7");
        for (address, is_in) in [
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("192.0.3.1", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8:0:1::1", true),
            ("2001:db8:1::1", false),
        ] {
            assert_eq!(office.admits(address.parse().expect("an address")), is_in, "{address}");
        }
        assert!(Networks::default().admits("203.0.113.1".parse().expect("an address")));
    }

    #[test]
    fn a_narrower_list_is_covered_and_none_is_the_widest() {
        let office = list("192.0.2.0/24");
        assert!(office.covers(&list("192.0.2.128/25 192.0.2.1")));
        assert!(!office.covers(&list("192.0.2.1 198.51.100.1")) && !office.covers(&list("192.0.0.0/16")));
        assert!(!office.covers(&Networks::default()) && Networks::default().covers(&office));
    }

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(
            list("192.0.2.77/24 192.0.2.0/24").to_string(),
            "192.0.2.0/24",
            "bits beyond the prefix are left out"
        );
        let all = list("2001:db8::/48 192.0.2.1");
        assert_eq!(list(&all.to_string()), all);
        for bad in ["192.0.2", "192.0.2.0/33", "example.net", "::/129"] {
            assert_eq!(bad.parse::<Networks>(), Err(InvalidNetworks::Malformed(bad.to_owned())));
        }
        let many: Vec<String> = (0..=NETWORKS_MAX).map(|n| format!("192.0.2.{n}")).collect();
        assert_eq!(many.join(" ").parse::<Networks>(), Err(InvalidNetworks::TooMany));
    }
}
