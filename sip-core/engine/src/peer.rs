//! Where a message came from and where it goes.

use std::net::SocketAddr;

/// The transport of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// Datagrams: the transactions retransmit.
    #[default]
    Udp,
    /// A stream.
    Tcp,
    /// A stream under TLS.
    Tls,
    /// A WebSocket.
    Ws,
    /// A WebSocket under TLS.
    Wss,
}

impl Transport {
    /// Whether the transport retransmits itself, so that timers A, E, G are off and D, I, J, K are zero.
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The token in Via.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The port that sent-by or a URI without a port means.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// One hop: the far address, and which of our listeners it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The far address.
    pub remote: SocketAddr,
    /// The index of the listener.
    pub local: u16,
    /// The transport.
    pub transport: Transport,
}

impl Peer {
    /// A peer reached over UDP.
    #[must_use]
    pub const fn udp(remote: SocketAddr, local: u16) -> Self {
        Self { remote, local, transport: Transport::Udp }
    }
}
