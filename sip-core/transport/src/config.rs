//! What an operator may set of the shards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sip_message::limits::MESSAGE_MAX;

/// Settings of sockets and shards. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// Where SIP is heard, over UDP and TCP; port 0: any free one.
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
    /// SIP over TCP, on the port of `listen`.
    pub tcp: TcpConfig,
}

/// Settings of SIP over TCP. Unknown keys are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// Whether SIP is heard over TCP too (RFC 3261, section 18, asks for both).
    pub enabled: bool,
    /// Connections in all; each takes a file descriptor. Too low: phones are refused when many are connected; too high:
    /// the process runs out of descriptors.
    pub connections_max: usize,
    /// Connections from or to one address. Too low: an office behind one address can't connect all its phones; too high:
    /// one host takes the places of all others.
    pub connections_per_source_max: usize,
    /// How long a connection may be silent, seconds. Too low: phones that send no keep-alives can't be called until they
    /// register anew; too high: those who left hold their places.
    pub idle_max_s: u32,
    /// How long one message may take from its first octet to its last, in either direction, and how long a fresh connection
    /// may take for its first, milliseconds. Too low: slow links are cut off; too high: who sends an octet now and then
    /// holds a place for long.
    pub message_max_ms: u32,
    /// Octets that may wait for a peer to read them. Too low: a burst ends a connection; too high: peers that don't read
    /// cost memory. At least one message.
    pub write_queue_max_bytes: usize,
    /// Octets that all connections may hold, read and to be written. Too low: connections end under load; too high: memory.
    pub buffers_max_bytes: usize,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            connections_max: 8_192,
            connections_per_source_max: 512,
            // Longer than the longest registration, so that each phone has spoken before.
            idle_max_s: 3_900,
            message_max_ms: 20_000,
            write_queue_max_bytes: 256 * 1024,
            buffers_max_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5060),
            advertised: None,
            shards: 0,
            socket_buffer_bytes: 4 * 1024 * 1024,
            queue_max: 4_096,
            tcp: TcpConfig::default(),
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
    /// A message would not fit.
    #[error("tcp.write_queue_max_bytes must hold a whole message: at least {MESSAGE_MAX}")]
    WriteQueue,
    /// All connections together may hold less than one of them.
    #[error("tcp.buffers_max_bytes must be at least tcp.write_queue_max_bytes")]
    Buffers,
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
        self.tcp.validate()
    }
}

impl TcpConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        let positive = [
            ("tcp.connections_max", self.connections_max > 0),
            ("tcp.connections_per_source_max", self.connections_per_source_max > 0),
            ("tcp.idle_max_s", self.idle_max_s > 0),
            ("tcp.message_max_ms", self.message_max_ms > 0),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, holds)| !holds) {
            return Err(InvalidConfig::Zero(name));
        }
        if self.write_queue_max_bytes < MESSAGE_MAX {
            return Err(InvalidConfig::WriteQueue);
        }
        if self.buffers_max_bytes < self.write_queue_max_bytes {
            return Err(InvalidConfig::Buffers);
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

    #[test]
    fn settings_of_tcp_are_checked() {
        let check = |tcp: TcpConfig, expected| assert_eq!(tcp.validate(), expected);
        let fine = TcpConfig::default();
        check(fine, Ok(()));
        check(TcpConfig { connections_max: 0, ..fine }, Err(InvalidConfig::Zero("tcp.connections_max")));
        check(TcpConfig { idle_max_s: 0, ..fine }, Err(InvalidConfig::Zero("tcp.idle_max_s")));
        check(TcpConfig { message_max_ms: 0, ..fine }, Err(InvalidConfig::Zero("tcp.message_max_ms")));
        check(TcpConfig { write_queue_max_bytes: 1_000, ..fine }, Err(InvalidConfig::WriteQueue));
        check(TcpConfig { buffers_max_bytes: 100_000, ..fine }, Err(InvalidConfig::Buffers));
    }
}
