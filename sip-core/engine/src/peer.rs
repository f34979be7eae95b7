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

    /// The value of a URI's `transport` parameter (RFC 3261, section 19.1.1), read in any case.
    #[must_use]
    pub fn of_param(value: &[u8]) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss]
            .into_iter()
            .find(|transport| transport.as_str().as_bytes().eq_ignore_ascii_case(value))
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

/// Names one connection of a stream transport for as long as the node runs; never used again, so that what was meant
/// for a connection that is gone can't reach whoever has its address now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow(pub u64);

/// One hop: the far address, and which of our listeners it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The far address.
    pub remote: SocketAddr,
    /// The index of the listener.
    pub local: u16,
    /// The transport.
    pub transport: Transport,
    /// The connection, where the transport has them and it matters which; without it any to `remote` will do, and one
    /// is opened when there is none.
    pub flow: Option<Flow>,
}

impl Peer {
    /// A peer reached over UDP.
    #[must_use]
    pub const fn udp(remote: SocketAddr, local: u16) -> Self {
        Self { remote, local, transport: Transport::Udp, flow: None }
    }

    /// A peer reached over TCP, by that connection if one is named.
    #[must_use]
    pub const fn tcp(remote: SocketAddr, local: u16, flow: Option<Flow>) -> Self {
        Self { remote, local, transport: Transport::Tcp, flow }
    }

    /// The same hop at another address: no connection leads there yet.
    #[must_use]
    pub fn at(self, remote: SocketAddr) -> Self {
        if self.remote == remote { self } else { Self { remote, flow: None, ..self } }
    }
}
