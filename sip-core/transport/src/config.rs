//! What an operator may set of the shards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of sockets and shards. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// Where SIP is heard over UDP; port 0: any free one.
    pub listen: SocketAddr,
    /// The address in our Via and Contact, where peers reach us by another than `listen`: behind a NAT, or when `listen`
    /// is `0.0.0.0`.
    pub advertised: Option<IpAddr>,
    /// Shards, each a thread with a socket; 0: one for each core. Too low: cores idle; too high: they fight.
    pub shards: u16,
    /// Receive and send buffer of each socket, octets. Too low: bursts are lost and come again as retransmissions; too
    /// high: memory, and old datagrams are answered after an overload.
    pub socket_buffer_bytes: usize,
    /// Datagrams that one shard may have waiting from the others. Too low: bursts are lost; too high: memory, and late
    /// answers.
    pub queue_max: usize,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5060),
            advertised: None,
            shards: 0,
            socket_buffer_bytes: 4 * 1024 * 1024,
            queue_max: 4_096,
        }
    }
}

/// Most shards: their number stands in Call-IDs and in a table per shard, and no machine in sight has more cores.
pub const SHARDS_MAX: u16 = 256;

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Peers could not reach us by what we would tell them.
    #[error("listen is unspecified (0.0.0.0 or ::): set advertised to the address by which phones reach this node")]
    NoAdvertised,
    /// Too many shards.
    #[error("shards must be at most {SHARDS_MAX}")]
    Shards,
    /// A queue or buffer of size 0.
    #[error("{0} must not be 0")]
    Zero(&'static str),
}

impl TransportConfig {
    /// Checks what one field can't say alone.
    ///
    /// # Errors
    /// When the settings contradict each other.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.listen.ip().is_unspecified() && self.advertised.is_none() {
            return Err(InvalidConfig::NoAdvertised);
        }
        if self.shards > SHARDS_MAX {
            return Err(InvalidConfig::Shards);
        }
        if self.queue_max == 0 {
            return Err(InvalidConfig::Zero("queue_max"));
        }
        if self.socket_buffer_bytes == 0 {
            return Err(InvalidConfig::Zero("socket_buffer_bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_peers_reach_is_needed() {
        let config = TransportConfig::default();
        assert_eq!(config.validate(), Err(InvalidConfig::NoAdvertised));
        let config = TransportConfig { advertised: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..config };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(TransportConfig { queue_max: 0, ..config }.validate(), Err(InvalidConfig::Zero("queue_max")));
    }
}
