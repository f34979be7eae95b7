//! Where a message goes whose connection is gone (RFC 3261, section 18.2.2 for responses; RFC 5626, section 5.3 for
//! requests).
//!
//! Only ports are taken from the message; the address stays the one that the connection came from. Otherwise anybody
//! could have us connect to a third party.

use std::net::SocketAddr;

use bytes::Bytes;
use sip_engine::{Peer, Transport};
use sip_message::{HeaderName, Message, NameAddr, Uri};

/// The address at which the peer may listen; none when the message names none or another host.
pub(super) fn address(bytes: &Bytes, peer: Peer) -> Option<SocketAddr> {
    let message = Message::parse_datagram(bytes.clone()).ok()?;
    let port = if message.is_request() { request_port(&message, peer)? } else { message.top_via().ok()?.port };
    let port = port.unwrap_or(peer.transport.default_port());
    (port != 0).then(|| SocketAddr::new(peer.remote.ip(), port))
}

/// The port of the next hop, when that is a contact of this host over this transport; behind a NAT it is not.
fn request_port(message: &Message, peer: Peer) -> Option<Option<u16>> {
    let route = message.values(HeaderName::Route).next().and_then(|route| NameAddr::parse(route).ok());
    let uri = match route {
        Some(route) => route.uri,
        None => Uri::parse(message.request_uri()).ok()?,
    };
    let transport = uri.params.get(b"transport").and_then(Transport::of_param);
    let same = uri.ip() == Some(peer.remote.ip()) && transport == Some(peer.transport);
    same.then_some(uri.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let text = text.replace('\n', "\r\n");
        let peer = Peer::tcp("192.0.2.1:40000".parse().unwrap(), 0, None);
        let found = address(&Bytes::from(text.clone()), peer);
        assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{text}");
    }

    #[test]
    fn only_the_port_comes_from_the_message() {
        let response = |via: &str| {
            format!(
                "SIP/2.0 200 OK\nVia: SIP/2.0/TCP {via};branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:a@b>;tag=2\nCall-ID: 1\nCSeq: 1 BYE\n\n"
            )
        };
        check(&response("192.0.2.1:5080"), Some("192.0.2.1:5080"));
        check(&response("10.0.0.1"), Some("192.0.2.1:5060"));
        check(&response("203.0.113.9:25"), Some("192.0.2.1:25"));
        let request = |uri: &str, route: &str| {
            format!(
                "BYE {uri} SIP/2.0\n{route}Via: SIP/2.0/TCP us;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:a@b>;tag=2\nCall-ID: 1\nCSeq: 1 BYE\n\n"
            )
        };
        check(&request("sip:a@192.0.2.1:5070;transport=TCP", ""), Some("192.0.2.1:5070"));
        check(&request("sip:a@192.0.2.1:5070", ""), None);
        check(&request("sip:a@10.0.0.1:5070;transport=tcp", ""), None);
        check(&request("sip:a@10.0.0.1", "Route: <sip:192.0.2.1;transport=tcp;lr>\n"), Some("192.0.2.1:5060"));
        check(&request("sip:a@192.0.2.1;transport=tcp", "Route: <sip:203.0.113.9;transport=tcp;lr>\n"), None);
        check("no message", None);
    }
}
