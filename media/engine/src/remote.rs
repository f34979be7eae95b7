//! What a side's session description tells the relay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::format::{FORMATS_KEPT, FormatTable, PayloadFormat};
use crate::sdp::{Direction, Sdp};

/// Where a side wants its media and which way they flow, by its last session description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Where it wants RTP. An unspecified address (the hold of RFC 2543) or port 0 (rejected): nothing is to be sent.
    pub rtp: SocketAddr,
    /// Where it wants RTCP, when its description names another place than the next port (RFC 3605).
    pub rtcp: Option<SocketAddr>,
    /// Which way media flow, seen from this side.
    pub direction: Direction,
    /// Its payload types, for clock rate and codec.
    pub formats: FormatTable,
    /// Whether its RTP is protected (RFC 3711): its RTCP is then encrypted and can't be read.
    pub is_secure: bool,
}

impl RemoteMedia {
    /// A side that sends and receives at `rtp`.
    #[must_use]
    pub const fn at(rtp: SocketAddr) -> Self {
        let direction = Direction::SendRecv;
        Self { rtp, rtcp: None, direction, formats: [None; FORMATS_KEPT], is_secure: false }
    }

    /// What a description says.
    #[must_use]
    pub fn of(sdp: &Sdp<'_>) -> Self {
        let audio = sdp.audio();
        let mut formats = FormatTable::default();
        for (place, format) in formats.iter_mut().zip(&audio.formats) {
            *place = Some(PayloadFormat::of(format));
        }
        // RTP/SAVP, RTP/SAVPF and their UDP/TLS forms (RFC 4568, RFC 5764).
        let is_secure = audio.protocol.windows(4).any(|name| name == b"SAVP");
        Self { rtp: audio.remote, rtcp: audio.rtcp, direction: audio.direction, formats, is_secure }
    }

    /// Whether something may be sent to this side at all.
    #[must_use]
    pub const fn is_reachable(&self) -> bool {
        !self.rtp.ip().is_unspecified() && self.rtp.port() != 0
    }

    /// Where RTCP is to go: the place that is named, else the next port (RFC 3550, section 11).
    #[must_use]
    pub fn rtcp_address(&self) -> SocketAddr {
        match self.rtp.port().checked_add(1) {
            _ if !self.is_reachable() => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Some(next) => self.rtcp.unwrap_or(SocketAddr::new(self.rtp.ip(), next)),
            None => self.rtcp.unwrap_or(SocketAddr::new(self.rtp.ip(), 0)),
        }
    }

    /// Whether this side takes what the other says.
    const fn listens(&self) -> bool {
        self.is_reachable() && matches!(self.direction, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// Whether `from` must be heard: both sides let its media flow. A side that only sends may play music on hold, but
/// needs not.
#[must_use]
pub fn must_send(from: &RemoteMedia, to: &RemoteMedia) -> bool {
    from.direction == Direction::SendRecv && from.is_reachable() && to.listens()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(addr: &str, direction: Direction) -> RemoteMedia {
        RemoteMedia { direction, ..RemoteMedia::at(addr.parse().unwrap()) }
    }

    #[test]
    fn rtcp_is_the_next_port_unless_named() {
        let check = |sdp: &str, rtcp: &str| {
            let body = format!("v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nt=0 0\r\n{sdp}");
            let media = RemoteMedia::of(&Sdp::parse(body.as_bytes()).unwrap());
            assert_eq!(media.rtcp_address(), rtcp.parse().unwrap(), "{sdp}");
        };
        check("c=IN IP4 10.0.0.7\r\nm=audio 4000 RTP/AVP 0\r\n", "10.0.0.7:4001");
        check("c=IN IP4 10.0.0.7\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:5000\r\n", "10.0.0.7:5000");
        check("c=IN IP4 10.0.0.7\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:5000 IN IP4 10.0.0.8\r\n", "10.0.0.8:5000");
        check("c=IN IP4 10.0.0.7\r\nm=audio 65535 RTP/AVP 0\r\n", "10.0.0.7:0");
        check("c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:5000 IN IP4 10.0.0.8\r\n", "0.0.0.0:0");
        check("c=IN IP4 10.0.0.7\r\nm=audio 0 RTP/AVP 0\r\n", "0.0.0.0:0");
    }

    #[test]
    fn held_sides_need_not_be_heard() {
        use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
        let check = |a: (&str, Direction), b: (&str, Direction), a_must: bool, b_must: bool| {
            let (a, b) = (media(a.0, a.1), media(b.0, b.1));
            assert_eq!((must_send(&a, &b), must_send(&b, &a)), (a_must, b_must), "{a:?} {b:?}");
        };
        let (here, there, nowhere) = ("192.0.2.1:4000", "192.0.2.2:4000", "0.0.0.0:4000");
        check((here, SendRecv), (there, SendRecv), true, true);
        check((here, SendOnly), (there, RecvOnly), false, false);
        check((here, Inactive), (there, Inactive), false, false);
        check((here, SendOnly), (there, SendRecv), false, false);
        check((nowhere, SendRecv), (there, SendRecv), false, false);
        check((here, SendRecv), (there, RecvOnly), true, false);
        check((here, SendRecv), ("192.0.2.2:0", SendRecv), false, false);
    }
}
