//! What an operator sets for the agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::COMMUNITY_OCTETS_MAX;
use crate::network::Network;
use crate::user::SnmpUserConfig;

/// Communities of one agent.
const COMMUNITIES_MAX: usize = 32;
/// Networks of one list: each request is compared with all of them.
const SOURCES_MAX: usize = 64;
/// Most requests a second of one source that may be set.
const RATE_MAX: u32 = 10_000;
/// `sysContact` and `sysLocation` (RFC 3418).
const TEXT_OCTETS_MAX: usize = 255;

/// The agent, which answers GET, GETNEXT and GETBULK about this node. It sets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Where it listens (UDP), such as `0.0.0.0:1161`; left out: no agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Networks that may ask at all, such as `192.0.2.0/24`; others get no answer. Loopback alone unless set.
    pub sources: Vec<Network>,
    /// v2c communities, by a name of your choice. They travel in clear.
    pub communities: BTreeMap<String, CommunityConfig>,
    /// v3 users that may ask, of `snmp.users`; with authentication and privacy, nothing less.
    pub users: Vec<String>,
    /// `sysContact`: who answers for this node.
    pub contact: String,
    /// `sysLocation`: where it stands.
    pub location: String,
    /// Requests a second that one source may send, in bursts of twice as many. Too low: a walk loses answers and
    /// takes long; too high: whoever asks too much takes the node's time.
    pub requests_per_second: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let network = |text: &str| text.parse().ok();
        Self {
            listen: None,
            sources: [network("127.0.0.0/8"), network("::1")].into_iter().flatten().collect(),
            communities: BTreeMap::new(),
            users: Vec::new(),
            contact: String::new(),
            location: String::new(),
            requests_per_second: 500,
        }
    }
}

/// A v2c community and who may use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommunityConfig {
    /// The community; better from the environment: `TANDEM_SNMP__AGENT__COMMUNITIES__<NAME>__COMMUNITY`.
    #[serde(default, skip_serializing)]
    pub community: String,
    /// Networks, within those of the agent; empty: all of them.
    #[serde(default)]
    pub sources: Vec<Network>,
}

impl std::fmt::Debug for CommunityConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommunityConfig").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl CommunityConfig {
    /// Whether this community from there is the right one. Every octet is looked at, so that the time of a refusal
    /// tells nothing of how far it was right.
    pub(crate) fn admits(&self, community: &[u8], source: IpAddr) -> bool {
        let ours = self.community.as_bytes();
        let differs = ours.iter().zip(community).fold(0, |differs, (a, b)| differs | (a ^ b));
        let same = ours.len() == community.len() && differs == 0;
        same && (self.sources.is_empty() || contains(&self.sources, source))
    }
}

/// Whether an address lies in one of the networks.
pub(crate) fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

impl AgentConfig {
    /// What is wrong with it.
    pub(crate) fn check(&self, users: &BTreeMap<String, SnmpUserConfig>) -> Result<(), String> {
        if self.communities.len() > COMMUNITIES_MAX {
            return Err(format!("at most {COMMUNITIES_MAX} communities are served"));
        }
        for (name, entry) in &self.communities {
            if entry.community.is_empty() {
                // Variables have no hyphens, and their names come in small letters.
                let can = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
                let variable = format!("TANDEM_SNMP__AGENT__COMMUNITIES__{}__COMMUNITY", name.to_uppercase());
                let or = if name.bytes().all(can) { format!(" or as {variable}") } else { String::new() };
                return Err(format!("communities.{name}.community is missing; set it in the file{or}"));
            }
            if entry.community.len() > COMMUNITY_OCTETS_MAX {
                return Err(format!("communities.{name}.community has more than {COMMUNITY_OCTETS_MAX} octets"));
            }
        }
        if let Some(unknown) = self.users.iter().find(|name| !users.contains_key(*name)) {
            return Err(format!("users: \"{unknown}\" is no user; add [snmp.users.{unknown}]"));
        }
        let lists = self.communities.values().map(|entry| &entry.sources);
        if lists.chain([&self.sources]).any(|list| list.len() > SOURCES_MAX) {
            return Err(format!("sources: a list has at most {SOURCES_MAX} networks"));
        }
        if !(1..=RATE_MAX).contains(&self.requests_per_second) {
            return Err(format!("requests_per_second must be 1 to {RATE_MAX}"));
        }
        for (key, text) in [("contact", &self.contact), ("location", &self.location)] {
            if text.len() > TEXT_OCTETS_MAX || text.chars().any(char::is_control) {
                return Err(format!("{key} is one line of at most {TEXT_OCTETS_MAX} octets"));
            }
        }
        if self.listen.is_some() && self.communities.is_empty() && self.users.is_empty() {
            return Err("listen is set, but there is no community and no user: nobody could ask".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_nobody_could_ask_is_refused() {
        let check = |change: fn(&mut AgentConfig), expected: Option<&str>| {
            let mut config = AgentConfig::default();
            change(&mut config);
            let found = config.check(&BTreeMap::new());
            match expected {
                None => assert_eq!(found, Ok(())),
                Some(word) => assert!(found.as_ref().is_err_and(|error| error.contains(word)), "{found:?}"),
            }
        };
        let community = |community: &str| CommunityConfig { community: community.to_owned(), sources: Vec::new() };
        check(|_| {}, None);
        check(|c| c.listen = "127.0.0.1:0".parse().ok(), Some("nobody could ask"));
        check(|c| c.users = vec!["noc".to_owned()], Some("[snmp.users.noc]"));
        check(|c| c.requests_per_second = 0, Some("requests_per_second"));
        check(|c| c.contact = "two\nlines".to_owned(), Some("contact"));
        let mut config = AgentConfig { listen: "127.0.0.1:0".parse().ok(), ..AgentConfig::default() };
        config.communities.insert("nms".to_owned(), community(""));
        let missing = config.check(&BTreeMap::new()).expect_err("it is missing");
        assert!(missing.contains("TANDEM_SNMP__AGENT__COMMUNITIES__NMS__COMMUNITY"), "{missing}");
        config.communities.insert("nms".to_owned(), community("secret"));
        assert_eq!(config.check(&BTreeMap::new()), Ok(()));
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn a_community_holds_for_its_sources() {
        let mut entry = CommunityConfig { community: "nms".to_owned(), sources: Vec::new() };
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert!(entry.admits(b"nms", address));
        for wrong in [&b"nm"[..], b"nmsx", b"nmt", b""] {
            assert!(!entry.admits(wrong, address));
        }
        entry.sources = vec!["198.51.100.0/24".parse().unwrap()];
        assert!(!entry.admits(b"nms", address));
    }
}
