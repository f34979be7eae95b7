//! The sockets of the shards: one port, one socket for each shard.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// How often another port is tried, when any will do and another process has it for TCP.
const PORT_TRIES: usize = 16;

/// What is heard on one port.
pub(crate) struct Sockets {
    /// One for each shard.
    pub udp: Vec<mio::net::UdpSocket>,
    /// When TCP is wanted.
    pub tcp: Option<TcpListener>,
}

/// Opens `count` UDP sockets and, if wanted, a listener for TCP, all on one port.
pub(crate) fn open(listen: SocketAddr, count: u16, buffer_bytes: usize, tcp: bool) -> io::Result<Sockets> {
    let mut tries = 0;
    loop {
        let udp = open_udp(listen, count, buffer_bytes)?;
        let Some(first) = udp.first().filter(|_| tcp) else { return Ok(Sockets { udp, tcp: None }) };
        match TcpListener::bind(first.local_addr()?) {
            Ok(listener) => return Ok(Sockets { udp, tcp: Some(listener) }),
            Err(error) if listen.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Opens `count` UDP sockets on one port. With port 0 the first gets any, the others the same.
fn open_udp(listen: SocketAddr, count: u16, buffer_bytes: usize) -> io::Result<Vec<mio::net::UdpSocket>> {
    if listen.port() != 0 {
        // SO_REUSEPORT would silently share the port, and the traffic, with another process.
        let probe = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        probe.bind(&listen.into())?;
    }
    let mut address = listen;
    let mut sockets = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        socket.set_send_buffer_size(buffer_bytes)?;
        // Linux tells twice what it grants, and grants no more than net.core.rmem_max.
        let granted = socket.recv_buffer_size()? / 2;
        if sockets.is_empty() {
            metrics::gauge!("sip_socket_receive_buffer_wanted_bytes").set(float(buffer_bytes));
            metrics::gauge!("sip_socket_receive_buffer_granted_bytes").set(float(granted));
        }
        if sockets.is_empty() && granted < buffer_bytes {
            tracing::warn!(
                wanted = buffer_bytes,
                granted,
                "the receive buffer is smaller than configured: raise net.core.rmem_max or lower socket_buffer_bytes"
            );
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        address = socket.local_addr()?;
        sockets.push(mio::net::UdpSocket::from_std(socket));
    }
    Ok(sockets)
}

/// Exact for all sizes that a kernel grants.
fn float(bytes: usize) -> f64 {
    u32::try_from(bytes).map_or(f64::MAX, f64::from)
}
