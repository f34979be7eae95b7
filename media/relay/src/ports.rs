//! Binding the pool: RTP on even ports, RTCP on the next (RFC 3550, section 11).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::StartError;
use crate::config::RelayConfig;

/// Tries for one free pair of the system's choosing before giving up.
const EPHEMERAL_TRIES_MAX: usize = 256;

/// RTP and RTCP of one side.
#[derive(Debug)]
pub struct Pair {
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
    port: u16,
}

/// The sockets of one session, caller first.
#[derive(Debug)]
pub struct SessionSockets {
    pub sides: [Pair; 2],
}

impl SessionSockets {
    pub fn local_ports(&self) -> [u16; 2] {
        let [caller, callee] = &self.sides;
        [caller.port, callee.port]
    }
}

pub fn bind_all(config: &RelayConfig) -> Result<Vec<SessionSockets>, StartError> {
    let mut sessions = Vec::with_capacity(config.sessions);
    let mut range = config.pairs();
    let mut last_error = None;
    let mut taken = 0_usize;
    let mut next = || -> Option<Pair> {
        if config.port_min == 0 {
            return bind_ephemeral(config).map_err(|error| last_error = Some(error)).ok();
        }
        for port in range.by_ref() {
            match bind_pair(config, port) {
                Ok(pair) => return Some(pair),
                // Somebody else's port: the next pair will do.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    taken = taken.saturating_add(1);
                    last_error = Some(error);
                }
                Err(error) => {
                    last_error = Some(error);
                    return None;
                }
            }
        }
        None
    };
    while sessions.len() < config.sessions {
        let (Some(caller), Some(callee)) = (next(), next()) else {
            return Err(StartError::Bind { bound: sessions.len(), wanted: config.sessions, source: last_error });
        };
        sessions.push(SessionSockets { sides: [caller, callee] });
    }
    if taken > 0 {
        tracing::warn!(pairs = taken, "port pairs of the media range are in use by others and were passed over");
    }
    Ok(sessions)
}

fn bind_pair(config: &RelayConfig, port: u16) -> io::Result<Pair> {
    let odd = port.checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Pair { rtp: bind(config, port)?, rtcp: bind(config, odd)?, port })
}

/// A free port of the system's choosing and its neighbour.
fn bind_ephemeral(config: &RelayConfig) -> io::Result<Pair> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..EPHEMERAL_TRIES_MAX {
        let first = bind(config, 0)?;
        let port = first.local_addr()?.port();
        // Port 0 can't come, so an odd port has an even one below it, and an even one an odd one above.
        let neighbour = if port % 2 == 0 { port.saturating_add(1) } else { port.saturating_sub(1) };
        match bind(config, neighbour) {
            Ok(second) if port % 2 == 0 => return Ok(Pair { rtp: first, rtcp: second, port }),
            Ok(second) => return Ok(Pair { rtp: second, rtcp: first, port: neighbour }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(config: &RelayConfig, port: u16) -> io::Result<UdpSocket> {
    let addr = SocketAddr::new(config.bind, port);
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    let tos = u32::from(config.dscp) << 2;
    match config.bind {
        IpAddr::V4(_) => socket.set_tos_v4(tos)?,
        IpAddr::V6(_) => socket.set_tclass_v6(tos)?,
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
