//! Our own messages. Each value is checked: a line end in it would be a second header (or a second message).

use std::net::SocketAddr;

use bytes::Bytes;

use crate::grammar::{comma_list, is_all_token, octets_are_clean};
use crate::limits::{HEADER_MAX, HEADERS_MAX, MESSAGE_MAX, RESPONSE_HEADERS_EXTRA};
use crate::{HeaderName, Message, Method, NameAddr, Uri, Via};

/// Why a message could not be built. All of these are defects of the caller or hostile values passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A value holds CR, LF or NUL.
    #[error("a value holds a line end")]
    Injection,
    /// A header name is no token.
    #[error("a header name is no token")]
    Name,
    /// A method is no token.
    #[error("the method is no token")]
    Method,
    /// A Request-URI that is no URI.
    #[error("the Request-URI is malformed")]
    Uri,
    /// A status outside 100 to 699.
    #[error("the status is out of range")]
    Status,
    /// A value or the message is larger than the limits allow.
    #[error("the message is too large")]
    TooLarge,
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), BuildError> {
    if value.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        Err(BuildError::Injection)
    } else if value.len() > HEADER_MAX {
        Err(BuildError::TooLarge)
    } else {
        Ok(())
    }
}

/// A value of a received message. It was let in with a NUL in a quoted pair only (RFC 3261, section 25.1; RFC 4475, section
/// 3.1.1.2), and goes back as it came.
fn check_copied(value: &[u8]) -> Result<(), BuildError> {
    if !octets_are_clean(value) || value.contains(&b'\n') {
        Err(BuildError::Injection)
    } else if value.len() > HEADER_MAX {
        Err(BuildError::TooLarge)
    } else {
        Ok(())
    }
}

pub(crate) fn check_name(name: &[u8]) -> Result<(), BuildError> {
    if is_all_token(name) { Ok(()) } else { Err(BuildError::Name) }
}

/// Fields and body, with the first error kept until the end.
#[derive(Debug, Default, Clone)]
struct Writer {
    head: Vec<u8>,
    fields: usize,
    body: Vec<u8>,
    error: Option<BuildError>,
}

impl Writer {
    fn note(&mut self, result: Result<(), BuildError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn field(&mut self, name: &[u8], parts: &[&[u8]]) {
        for part in parts {
            self.note(check_value(part));
        }
        self.copied(name, parts);
    }

    /// A field of which a part comes from a received message.
    fn copied(&mut self, name: &[u8], parts: &[&[u8]]) {
        self.note(check_name(name));
        self.fields = self.fields.saturating_add(1);
        self.head.extend_from_slice(name);
        self.head.extend_from_slice(b": ");
        for part in parts {
            self.note(check_copied(part));
            self.head.extend_from_slice(part);
        }
        self.head.extend_from_slice(b"\r\n");
    }

    fn finish(mut self, mut start: Vec<u8>, fields_max: usize) -> Result<Bytes, BuildError> {
        let length = self.body.len().to_string();
        self.field(b"Content-Length", &[length.as_bytes()]);
        if let Some(error) = self.error {
            return Err(error);
        }
        start.extend_from_slice(&self.head);
        start.extend_from_slice(b"\r\n");
        start.extend_from_slice(&self.body);
        if start.len() > MESSAGE_MAX || self.fields > fields_max {
            return Err(BuildError::TooLarge);
        }
        Ok(Bytes::from(start))
    }
}

/// Writes a request. Fields appear in the order of the calls; Content-Length is added.
#[derive(Debug, Clone)]
pub struct RequestBuilder {
    start: Vec<u8>,
    writer: Writer,
}

impl RequestBuilder {
    /// Begins with the request line.
    #[must_use]
    pub fn new(method: &Method, uri: &[u8]) -> Self {
        let mut writer = Writer::default();
        if !is_all_token(method.as_bytes()) {
            writer.note(Err(BuildError::Method));
        }
        if Uri::parse(uri).is_err() {
            writer.note(Err(BuildError::Uri));
        }
        let mut start = Vec::with_capacity(512);
        start.extend_from_slice(method.as_bytes());
        start.push(b' ');
        start.extend_from_slice(uri);
        start.extend_from_slice(b" SIP/2.0\r\n");
        Self { start, writer }
    }

    /// A Via of ours: `SIP/2.0/{transport} {sent_by};branch={branch};rport`.
    #[must_use]
    pub fn via(mut self, transport: &str, sent_by: &[u8], branch: &[u8]) -> Self {
        self.writer.field(b"Via", &[b"SIP/2.0/", transport.as_bytes(), b" ", sent_by, b";branch=", branch, b";rport"]);
        self
    }

    /// A field.
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl AsRef<[u8]>) -> Self {
        self.named(name.as_str().as_bytes(), value)
    }

    /// A field that has no [`HeaderName`].
    #[must_use]
    pub fn named(mut self, name: &[u8], value: impl AsRef<[u8]>) -> Self {
        self.writer.field(name, &[value.as_ref()]);
        self
    }

    /// From, To, Call-ID, CSeq and Max-Forwards, which every request has.
    #[must_use]
    pub fn base(mut self, from: &[u8], to: &[u8], call_id: &[u8], cseq: u32, method: &Method, hops: u8) -> Self {
        self.writer.field(b"Max-Forwards", &[hops.to_string().as_bytes()]);
        self.writer.field(b"From", &[from]);
        self.writer.field(b"To", &[to]);
        self.writer.field(b"Call-ID", &[call_id]);
        self.writer.field(b"CSeq", &[cseq.to_string().as_bytes(), b" ", method.as_bytes()]);
        self
    }

    /// The body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.writer.field(b"Content-Type", &[content_type.as_bytes()]);
        self.writer.body = body.as_ref().to_vec();
        self
    }

    /// The message.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        self.writer.finish(self.start, HEADERS_MAX)
    }
}

/// Writes a response to a request (RFC 3261, section 8.2.6).
#[derive(Debug, Clone)]
pub struct ResponseBuilder<'a> {
    request: &'a Message,
    status: u16,
    reason: String,
    to_tag: Option<Vec<u8>>,
    source: Option<SocketAddr>,
    record_route: bool,
    writer: Writer,
}

impl<'a> ResponseBuilder<'a> {
    /// Copies Via, From, To, Call-ID, CSeq (and Timestamp into a 100) of the request, whatever there is of them.
    #[must_use]
    pub fn response_to(request: &'a Message, status: u16, reason: &str) -> Self {
        Self {
            request,
            status,
            reason: reason.to_owned(),
            to_tag: None,
            source: None,
            record_route: false,
            writer: Writer::default(),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The tag for To when the request had none. A response other than 100 should have one.
    #[must_use]
    pub fn to_tag(mut self, tag: &[u8]) -> Self {
        self.to_tag = Some(tag.to_vec());
        self
    }

    /// Where the request came from: fills `received` and `rport` of the topmost Via (RFC 3261, section 18.2.1;
    /// RFC 3581, section 4).
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Copies Record-Route: for responses that make a dialog.
    #[must_use]
    pub fn record_route(mut self) -> Self {
        self.record_route = true;
        self
    }

    /// A further field.
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl AsRef<[u8]>) -> Self {
        self.named(name.as_str().as_bytes(), value)
    }

    /// A further field that has no [`HeaderName`].
    #[must_use]
    pub fn named(mut self, name: &[u8], value: impl AsRef<[u8]>) -> Self {
        self.writer.field(name, &[value.as_ref()]);
        self
    }

    /// The body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.writer.field(b"Content-Type", &[content_type.as_bytes()]);
        self.writer.body = body.as_ref().to_vec();
        self
    }

    /// The message.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        let mut start = Vec::with_capacity(512);
        start.extend_from_slice(b"SIP/2.0 ");
        start.extend_from_slice(self.status.to_string().as_bytes());
        start.push(b' ');
        start.extend_from_slice(self.reason.as_bytes());
        start.extend_from_slice(b"\r\n");
        let mut copied = Writer::default();
        if !(100..700).contains(&self.status) {
            copied.note(Err(BuildError::Status));
        }
        copied.note(check_value(self.reason.as_bytes()));
        let request = self.request;
        for (at, value) in request.headers(HeaderName::Via).enumerate() {
            match self.source.filter(|_| at == 0).and_then(|source| with_source(value, source)) {
                Some(marked) => copied.copied(b"Via", &[&marked]),
                None => copied.copied(b"Via", &[value]),
            }
        }
        if self.record_route {
            for value in request.headers(HeaderName::RecordRoute) {
                copied.copied(b"Record-Route", &[value]);
            }
        }
        for value in request.headers(HeaderName::From).take(1) {
            copied.copied(b"From", &[value]);
        }
        for value in request.headers(HeaderName::To).take(1) {
            self.to_tag.as_deref().into_iter().for_each(|tag| copied.note(check_value(tag)));
            let untagged = NameAddr::parse(value).is_ok_and(|to| to.tag().is_none());
            match self.to_tag.as_deref().filter(|_| untagged) {
                Some(tag) => copied.copied(b"To", &[value, b";tag=", tag]),
                None => copied.copied(b"To", &[value]),
            }
        }
        for (name, wire) in [(HeaderName::CallId, &b"Call-ID"[..]), (HeaderName::CSeq, b"CSeq")] {
            for value in request.headers(name).take(1) {
                copied.copied(wire, &[value]);
            }
        }
        if self.status == 100
            && let Some(value) = request.header(HeaderName::Timestamp)
        {
            copied.copied(b"Timestamp", &[value]);
        }
        copied.head.extend_from_slice(&self.writer.head);
        copied.fields = copied.fields.saturating_add(self.writer.fields);
        copied.body = self.writer.body;
        copied.error = copied.error.or(self.writer.error);
        copied.finish(start, HEADERS_MAX.saturating_add(RESPONSE_HEADERS_EXTRA))
    }
}

/// The Via value with `received` and `rport` of its first element set; `None` when it needs or allows no change.
fn with_source(value: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let first = comma_list(value).next()?;
    let via = Via::parse(first).ok()?;
    let asked = via.rport().is_some();
    // `received` is not the sender's to write.
    if !asked && via.ip() == Some(source.ip()) && !via.params.has(b"received") {
        return None;
    }
    let params = via.params.as_bytes();
    let base = first.len().checked_sub(params.len()).and_then(|end| first.get(..end))?;
    let mut marked = base.to_vec();
    for param in via.params.iter() {
        if param.name.eq_ignore_ascii_case(b"received") || param.name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        marked.push(b';');
        marked.extend_from_slice(param.name);
        if let Some(value) = param.value {
            marked.push(b'=');
            marked.extend_from_slice(value);
        }
    }
    marked.extend_from_slice(b";received=");
    marked.extend_from_slice(source.ip().to_canonical().to_string().as_bytes());
    if asked {
        marked.extend_from_slice(b";rport=");
        marked.extend_from_slice(source.port().to_string().as_bytes());
    }
    for other in comma_list(value).skip(1) {
        marked.extend_from_slice(b", ");
        marked.extend_from_slice(other);
    }
    Some(marked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    fn request() -> Message {
        let bytes = RequestBuilder::new(&Method::Invite, b"sip:b@example.com")
            .via("UDP", b"10.0.0.1:5060", b"z9hG4bKx")
            .base(b"<sip:a@example.com>;tag=f", b"<sip:b@example.com>", b"id", 1, &Method::Invite, 70)
            .header(HeaderName::RecordRoute, "<sip:p;lr>")
            .body("application/sdp", "v=0\r\n")
            .finish()
            .unwrap();
        Message::parse_datagram(bytes).unwrap()
    }

    #[test]
    fn a_built_request_reads_back() {
        let request = request();
        assert_eq!(request.body(), b"v=0\r\n");
        assert_eq!(request.max_forwards(), Some(70));
        assert_eq!(request.cseq(), Ok((1, &b"INVITE"[..])));
        assert_eq!(request.content_type(), b"application/sdp");
    }

    #[test]
    fn a_response_copies_and_marks() {
        let request = request();
        let response = ResponseBuilder::response_to(&request, 180, "Ringing")
            .source("192.0.2.9:4000".parse().unwrap())
            .to_tag(b"t")
            .record_route()
            .header(HeaderName::Contact, "<sip:us>")
            .finish()
            .unwrap();
        let response = Message::parse_datagram(response).unwrap();
        let via = response.top_via().unwrap();
        assert_eq!(via.received(), "192.0.2.9".parse().ok());
        assert_eq!(via.rport(), Some(Some(4000)));
        assert_eq!(via.branch(), b"z9hG4bKx");
        assert_eq!(response.to().unwrap().tag(), Some(&b"t"[..]));
        assert_eq!(response.header(HeaderName::RecordRoute), Some(&b"<sip:p;lr>"[..]));
        assert_eq!((response.status(), response.reason()), (180, &b"Ringing"[..]));
        assert_eq!(*response.method(), Method::Invite);
    }

    #[test]
    fn whatever_is_let_in_can_be_answered() {
        let via = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n";
        let rest = "From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let fullest = format!("OPTIONS sip:c@d SIP/2.0\r\n{}{rest}", via.repeat(HEADERS_MAX - 4));
        let request = Message::parse_datagram(fullest.into()).unwrap();
        let response = ResponseBuilder::response_to(&request, 401, "Unauthorized").header(HeaderName::Server, "x");
        let response = response.header(HeaderName::WwwAuthenticate, "Digest").to_tag(b"t").finish().unwrap();
        assert_eq!(response.windows(5).filter(|octets| octets == b"\nVia:").count(), HEADERS_MAX - 4);
        for hostile in
            ["Call-ID: a\0b\r\n", "From: \"a\0\" <sip:a@b>;tag=1\r\n", "To: <sip:c@d>\r\n ;x=\0\r\n", "X: \0\r\n"]
        {
            let text = format!("OPTIONS sip:c@d SIP/2.0\r\n{via}{hostile}{rest}");
            let error = Message::parse_datagram(text.into()).unwrap_err();
            assert_eq!((error.fault(), error.status()), (Fault::Header, Some(400)), "{hostile:?}");
            assert!(ResponseBuilder::response_to(error.request().unwrap(), 400, "Bad Request").finish().is_ok());
        }
    }

    #[test]
    fn injections_are_refused() {
        let bad = RequestBuilder::new(&Method::Options, b"sip:a@b").header(HeaderName::Subject, "x\r\nY: z").finish();
        assert_eq!(bad, Err(BuildError::Injection));
        let bad = RequestBuilder::new(&Method::Options, b"sip:a@b SIP/2.0\r\nX: y").finish();
        assert_eq!(bad, Err(BuildError::Uri));
        let request = request();
        assert!(ResponseBuilder::response_to(&request, 200, "a\nb").finish().is_err());
        assert!(ResponseBuilder::response_to(&request, 99, "").finish().is_err());
        assert!(ResponseBuilder::response_to(&request, 200, "OK").named(b"a b", "c").finish().is_err());
    }
}
