//! The sockets of the shards: one port, one socket for each shard.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Opens `count` UDP sockets on one port. With port 0 the first gets any, the others the same.
pub(crate) fn open(listen: SocketAddr, count: u16, buffer_bytes: usize) -> io::Result<Vec<mio::net::UdpSocket>> {
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
