//! Dialogs (RFC 3261, section 12; route set and target refresh of sections 12.1 and 12.2).
//!
//! A value per dialog, owned by its user: it writes the requests within the dialog and judges those that come in.
//! Forked responses make one dialog for each To tag; the user keeps them by [`DialogId`].

use std::net::SocketAddr;

use bytes::Bytes;
use sip_message::build::RequestBuilder;
use sip_message::{Contact, HeaderName, Message, Method, NameAddr, Uri};

use crate::{Peer, Transport};

/// Names a dialog as this side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: Bytes,
    /// Our tag.
    pub local_tag: Bytes,
    /// Their tag; empty with clients of RFC 2543.
    pub remote_tag: Bytes,
}

impl DialogId {
    /// The dialog that a received request belongs to; `None` when its To has no tag (it begins one).
    #[must_use]
    pub fn of_request(request: &Message) -> Option<Self> {
        let local = request.to().ok()?.tag()?;
        let remote = request.from().ok()?.tag().unwrap_or_default();
        Some(Self::new(request.call_id(), local, remote))
    }

    /// The dialog that a received response belongs to; `None` when its To has no tag.
    #[must_use]
    pub fn of_response(response: &Message) -> Option<Self> {
        let local = response.from().ok()?.tag().unwrap_or_default();
        let remote = response.to().ok()?.tag()?;
        Some(Self::new(response.call_id(), local, remote))
    }

    fn new(call_id: &[u8], local: &[u8], remote: &[u8]) -> Self {
        Self {
            call_id: Bytes::copy_from_slice(call_id),
            local_tag: Bytes::copy_from_slice(local),
            remote_tag: Bytes::copy_from_slice(remote),
        }
    }
}

/// Why no dialog can be made, or a request within one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// No tag where one is needed.
    #[error("a tag is missing")]
    Tag,
    /// No usable Contact: 400 for a request.
    #[error("the Contact is missing or unusable")]
    Contact,
    /// A Record-Route that can't be read or is too long.
    #[error("the route set is unusable")]
    RouteSet,
    /// Another header can't be read.
    #[error("a header is malformed")]
    Malformed,
    /// The CSeq number is lower than one seen before: 500 (RFC 3261, section 12.2.2).
    #[error("the CSeq number went back")]
    OutOfOrder,
    /// Another dialog's message.
    #[error("the message belongs to another dialog")]
    NotOurs,
}

impl DialogError {
    /// The status that refuses a request with this defect.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::OutOfOrder => 500,
            Self::NotOurs => 481,
            Self::Tag | Self::Contact | Self::RouteSet | Self::Malformed => 400,
        }
    }
}

/// Longest route set. A path through a carrier's core has five or six hops.
pub const ROUTES_MAX: usize = 32;
const MAX_FORWARDS: u8 = 70;

/// What the top Via of a request says about us.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The transport of the request.
    pub transport: Transport,
    /// Our host and port.
    pub sent_by: &'a [u8],
    /// A fresh branch.
    pub branch: &'a str,
}

/// One side of a dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    id: DialogId,
    /// Our address with our tag: From of our requests.
    local: Bytes,
    /// Their address with their tag: To of our requests.
    remote: Bytes,
    local_seq: u32,
    remote_seq: Option<u32>,
    /// Values of Route, the nearest hop first.
    routes: Vec<Bytes>,
    target: Bytes,
}

impl Dialog {
    /// The caller's side, from its INVITE and a response with a To tag. An early response without Contact leaves
    /// the Request-URI as the target.
    pub fn uac(request: &Message, response: &Message) -> Result<Self, DialogError> {
        let id = DialogId::of_response(response).ok_or(DialogError::Tag)?;
        let target = match contact(response)? {
            Some(target) => target,
            None if response.status() < 200 => Bytes::copy_from_slice(request.request_uri()),
            None => return Err(DialogError::Contact),
        };
        let mut routes = routes(response)?;
        routes.reverse();
        Ok(Self {
            id,
            local: copy(request, HeaderName::From)?,
            remote: copy(response, HeaderName::To)?,
            local_seq: request.cseq().map_err(|_| DialogError::Malformed)?.0,
            remote_seq: None,
            routes,
            target,
        })
    }

    /// The called side, from a received INVITE and the tag that our responses carry.
    pub fn uas(request: &Message, local_tag: &[u8]) -> Result<Self, DialogError> {
        let from = request.from().map_err(|_| DialogError::Malformed)?;
        let to = request.header(HeaderName::To).ok_or(DialogError::Malformed)?;
        let mut local = to.to_vec();
        if request.to().map_err(|_| DialogError::Malformed)?.tag().is_none() {
            local.extend_from_slice(b";tag=");
            local.extend_from_slice(local_tag);
        }
        Ok(Self {
            id: DialogId::new(request.call_id(), local_tag, from.tag().unwrap_or_default()),
            local: Bytes::from(local),
            remote: copy(request, HeaderName::From)?,
            local_seq: 0,
            remote_seq: Some(request.cseq().map_err(|_| DialogError::Malformed)?.0),
            routes: routes(request)?,
            target: contact(request)?.ok_or(DialogError::Contact)?,
        })
    }

    /// The name of the dialog.
    #[must_use]
    pub fn id(&self) -> &DialogId {
        &self.id
    }

    /// Their Contact: the Request-URI of our requests.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// The number of our last request.
    #[must_use]
    pub fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// Whether a received message belongs here.
    #[must_use]
    pub fn matches(&self, msg: &Message) -> bool {
        let id = if msg.is_request() { DialogId::of_request(msg) } else { DialogId::of_response(msg) };
        id.as_ref() == Some(&self.id)
    }

    /// The URI that our requests are sent to: the first route, or the target.
    #[must_use]
    pub fn next_hop(&self) -> &[u8] {
        self.routes.first().and_then(|route| NameAddr::parse(route).ok()).map_or(&self.target, |route| route.uri.raw)
    }

    /// The address of [`Dialog::next_hop`] when its host is an address and no name.
    #[must_use]
    pub fn next_hop_address(&self, transport: Transport) -> Option<SocketAddr> {
        let uri = Uri::parse(self.next_hop()).ok()?;
        Some(SocketAddr::new(uri.ip()?, uri.port.unwrap_or(transport.default_port())))
    }

    /// The hop of [`Dialog::next_hop`] when its host is an address and no name. A URI without a `transport` parameter
    /// means the transport that `peer` uses: who talks TCP to us listens there more surely than on UDP.
    #[must_use]
    pub fn next_hop_peer(&self, peer: Peer) -> Option<Peer> {
        let uri = Uri::parse(self.next_hop()).ok()?;
        let transport = uri.params.get(b"transport").and_then(Transport::of_param).unwrap_or(peer.transport);
        let remote = SocketAddr::new(uri.ip()?, uri.port.unwrap_or(transport.default_port()));
        Some(if transport == peer.transport { peer.at(remote) } else { Peer { remote, transport, flow: None, ..peer } })
    }

    /// The next request of ours within the dialog; add Contact and a body, then finish it. Not for ACK.
    #[must_use]
    pub fn request(&mut self, method: &Method, hop: &Hop<'_>) -> RequestBuilder {
        self.local_seq = self.local_seq.saturating_add(1);
        self.build(method, self.local_seq, hop)
    }

    /// The ACK for a 2xx to our INVITE (RFC 3261, section 13.2.2.4); `cseq` is the INVITE's number. It is sent
    /// outside any transaction, once for each 2xx that comes.
    #[must_use]
    pub fn ack(&self, cseq: u32, hop: &Hop<'_>) -> RequestBuilder {
        self.build(&Method::Ack, cseq, hop)
    }

    fn build(&self, method: &Method, cseq: u32, hop: &Hop<'_>) -> RequestBuilder {
        let first = self.routes.first().and_then(|route| NameAddr::parse(route).ok());
        let strict = first.filter(|route| !route.uri.params.has(b"lr"));
        let uri = strict.map_or(&self.target[..], |route| route.uri.raw);
        let mut builder = RequestBuilder::new(method, uri)
            .via(hop.transport.as_str(), hop.sent_by, hop.branch.as_bytes())
            .base(&self.local, &self.remote, &self.id.call_id, cseq, method, MAX_FORWARDS);
        for route in self.routes.iter().skip(usize::from(strict.is_some())) {
            builder = builder.header(HeaderName::Route, route);
        }
        if strict.is_some() {
            // A strict router (RFC 2543) takes the target from the end of the route set.
            builder = builder.header(HeaderName::Route, [b"<", &self.target[..], b">"].concat());
        }
        builder
    }

    /// Judges a request received within the dialog and takes over its number. The user answers a refusal with
    /// [`DialogError::status`]; with the 2xx to an INVITE or UPDATE it calls [`Dialog::accept_target`].
    pub fn receive(&mut self, request: &Message) -> Result<(), DialogError> {
        if !request.is_request() || !self.matches(request) {
            return Err(DialogError::NotOurs);
        }
        if matches!(request.method(), Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let (sequence, _) = request.cseq().map_err(|_| DialogError::Malformed)?;
        if self.remote_seq.is_some_and(|seen| sequence < seen) {
            return Err(DialogError::OutOfOrder);
        }
        if matches!(request.method(), Method::Invite | Method::Update) {
            contact(request)?;
        }
        self.remote_seq = Some(sequence);
        Ok(())
    }

    /// Takes over the Contact of the 2xx to an INVITE or UPDATE of ours, or of such a request that [`Dialog::receive`]
    /// has let through and that gets a 2xx. One that is
    /// refused leaves the target as it was (RFC 3261, section 14.2; RFC 6141, section 3.4).
    pub fn accept_target(&mut self, msg: &Message) {
        if let Ok(Some(target)) = contact(msg) {
            self.target = target;
        }
    }
}

fn copy(msg: &Message, name: HeaderName) -> Result<Bytes, DialogError> {
    msg.header(name).map(Bytes::copy_from_slice).ok_or(DialogError::Malformed)
}

/// The one Contact of a message that makes or refreshes a dialog.
fn contact(msg: &Message) -> Result<Option<Bytes>, DialogError> {
    match msg.contacts().next() {
        None => Ok(None),
        Some(Ok(Contact::Addr(addr))) => Ok(Some(Bytes::copy_from_slice(addr.uri.raw))),
        Some(Ok(Contact::Star) | Err(_)) => Err(DialogError::Contact),
    }
}

fn routes(msg: &Message) -> Result<Vec<Bytes>, DialogError> {
    let mut routes = Vec::new();
    for value in msg.values(HeaderName::RecordRoute) {
        if routes.len() >= ROUTES_MAX || NameAddr::parse(value).is_err() {
            return Err(DialogError::RouteSet);
        }
        routes.push(Bytes::copy_from_slice(value));
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use sip_message::build::ResponseBuilder;

    use super::*;

    fn parse(text: String) -> Message {
        Message::parse_datagram(Bytes::from(text)).unwrap()
    }

    fn invite() -> Message {
        parse(
            "INVITE sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP p2;branch=z9hG4bK2\r\n\
             Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nRecord-Route: <sip:198.51.100.2:5080;lr>, <sip:p1;lr>\r\n\
             From: A <sip:a@example.com>;tag=at\r\nTo: <sip:b@example.com>\r\nCall-ID: cid\r\nCSeq: 10 INVITE\r\n\
             Contact: <sip:a@192.0.2.1:5070>\r\n\r\n"
                .into(),
        )
    }

    fn hop() -> Hop<'static> {
        Hop { transport: Transport::Udp, sent_by: b"203.0.113.5:5060", branch: "z9hG4bKnew" }
    }

    #[test]
    fn both_sides_agree() {
        let invite = invite();
        let mut uas = Dialog::uas(&invite, b"bt").unwrap();
        let ok = ResponseBuilder::response_to(&invite, 200, "OK")
            .to_tag(b"bt")
            .record_route()
            .header(HeaderName::Contact, "<sip:b@203.0.113.5>")
            .finish()
            .unwrap();
        let ok = Message::parse_datagram(ok).unwrap();
        let mut uac = Dialog::uac(&invite, &ok).unwrap();
        assert_eq!(uac.id().local_tag, uas.id().remote_tag);
        assert_eq!(uac.id().remote_tag, uas.id().local_tag);

        let bye = uas.request(&Method::Bye, &hop()).finish().unwrap();
        let bye = Message::parse_datagram(bye).unwrap();
        assert_eq!(bye.request_uri(), b"sip:a@192.0.2.1:5070");
        let routes: Vec<_> = bye.values(HeaderName::Route).collect();
        assert_eq!(routes, [&b"<sip:198.51.100.2:5080;lr>"[..], b"<sip:p1;lr>"]);
        assert_eq!(uas.next_hop_address(Transport::Udp), "198.51.100.2:5080".parse().ok());
        let near = Peer::tcp("198.51.100.2:5080".parse().unwrap(), 0, Some(crate::Flow(7)));
        assert_eq!(uas.next_hop_peer(near), Some(near), "the connection that leads there is kept");
        let other = Peer::tcp("192.0.2.1:33000".parse().unwrap(), 0, Some(crate::Flow(7)));
        assert_eq!(uas.next_hop_peer(other), Some(Peer { flow: None, ..near }), "and no other is");
        assert_eq!(uac.receive(&bye), Ok(()));
        assert_eq!(uas.receive(&bye), Err(DialogError::NotOurs));

        let ack = Message::parse_datagram(uac.ack(10, &hop()).finish().unwrap()).unwrap();
        assert_eq!(ack.cseq(), Ok((10, &b"ACK"[..])));
        assert_eq!(ack.values(HeaderName::Route).next(), Some(&b"<sip:p1;lr>"[..]));
        assert!(uas.matches(&ack));
        let info = Message::parse_datagram(uac.request(&Method::Info, &hop()).finish().unwrap()).unwrap();
        assert_eq!(info.cseq(), Ok((11, &b"INFO"[..])));
        assert_eq!(uas.receive(&info), Ok(()));
        let reinvite = String::from_utf8(info.as_bytes().to_vec()).unwrap().replace("INFO", "INVITE");
        let reinvite = parse(reinvite.replace("\r\n\r\n", "\r\nContact: <sip:moved@192.0.2.9>\r\n\r\n"));
        let before = uas.target().to_vec();
        assert_eq!((uas.receive(&reinvite), uas.target()), (Ok(()), &before[..]), "it may still be refused");
        uas.accept_target(&reinvite);
        assert_eq!(uas.target(), b"sip:moved@192.0.2.9");
        let old = String::from_utf8(info.as_bytes().to_vec()).unwrap().replace("CSeq: 11", "CSeq: 9");
        assert_eq!(uas.receive(&parse(old)), Err(DialogError::OutOfOrder));
    }

    #[test]
    fn a_strict_router_gets_the_target_last() {
        let text = String::from_utf8(invite().as_bytes().to_vec()).unwrap().replace("5080;lr", "5080");
        let mut dialog = Dialog::uas(&parse(text), b"bt").unwrap();
        let bye = Message::parse_datagram(dialog.request(&Method::Bye, &hop()).finish().unwrap()).unwrap();
        assert_eq!(bye.request_uri(), b"sip:198.51.100.2:5080");
        let routes: Vec<_> = bye.values(HeaderName::Route).collect();
        assert_eq!(routes, [&b"<sip:p1;lr>"[..], b"<sip:a@192.0.2.1:5070>"]);
    }

    #[test]
    fn no_contact_no_dialog() {
        let text = String::from_utf8(invite().as_bytes().to_vec()).unwrap().replace("Contact:", "X-Contact:");
        assert_eq!(Dialog::uas(&parse(text), b"bt").err(), Some(DialogError::Contact));
    }
}
