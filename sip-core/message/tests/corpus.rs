//! The torture messages of RFC 4475 and RFC 5118, all of them, as a parser must judge them. What the node answers is
//! tested in the services, over the same files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

use bytes::Bytes;
use tandem_sip_message::build::ResponseBuilder;
use tandem_sip_message::edit::Editor;
use tandem_sip_message::{Contact, Fault, HeaderName, Message, Method, ParseError, Scheme, reason_of};
use testkit::torture;

/// Refused, with the status of the answer if there is one.
type Refused = (Fault, Option<u16>);

/// Every message by file, section and verdict; `None`: it is read.
const VERDICTS: [(&str, &str, Option<Refused>); 61] = [
    ("rfc4475/wsinv", "3.1.1.1 a short tortuous INVITE", None),
    ("rfc4475/intmeth", "3.1.1.2 wide range of valid characters", None),
    ("rfc4475/esc01", "3.1.1.3 valid use of the % escaping mechanism", None),
    ("rfc4475/escnull", "3.1.1.4 escaped nulls in URIs", None),
    ("rfc4475/esc02", "3.1.1.5 use of % when it is not an escape", None),
    ("rfc4475/lwsdisp", "3.1.1.6 no LWS between display name and <", None),
    ("rfc4475/longreq", "3.1.1.7 long values in header fields", None),
    ("rfc4475/dblreq", "3.1.1.8 extra trailing octets in a UDP datagram", None),
    ("rfc4475/semiuri", "3.1.1.9 semicolon-separated parameters in URI user part", None),
    ("rfc4475/transports", "3.1.1.10 varied and unknown transport types", None),
    ("rfc4475/mpart01", "3.1.1.11 multipart MIME message (binary part constructed)", None),
    ("rfc4475/unreason", "3.1.1.12 unusual reason phrase", None),
    ("rfc4475/noreason", "3.1.1.13 empty reason phrase", None),
    // Commas and semicolons with nothing between: values of Via that are none.
    ("rfc4475/badinv01", "3.1.2.1 extraneous header field separators", Some((Fault::Via, Some(400)))),
    ("rfc4475/clerr", "3.1.2.2 Content-Length larger than message", Some((Fault::ContentLength, Some(400)))),
    ("rfc4475/ncl", "3.1.2.3 negative Content-Length", Some((Fault::ContentLength, Some(400)))),
    ("rfc4475/scalar02", "3.1.2.4 request scalar fields with overlarge values", Some((Fault::CSeq, Some(400)))),
    ("rfc4475/scalarlg", "3.1.2.5 response scalar fields with overlarge values", Some((Fault::CSeq, None))),
    ("rfc4475/quotbal", "3.1.2.6 unterminated quoted string in display name", Some((Fault::Address, Some(400)))),
    ("rfc4475/ltgtruri", "3.1.2.7 <> enclosing Request-URI", Some((Fault::StartLine, Some(400)))),
    ("rfc4475/lwsruri", "3.1.2.8 malformed SIP Request-URI (embedded LWS)", Some((Fault::StartLine, Some(400)))),
    ("rfc4475/lwsstart", "3.1.2.9 multiple SP separating request-line elements", Some((Fault::StartLine, Some(400)))),
    ("rfc4475/trws", "3.1.2.10 SP characters at end of request-line", Some((Fault::StartLine, Some(400)))),
    ("rfc4475/escruri", "3.1.2.11 escaped headers in SIP Request-URI", Some((Fault::StartLine, Some(400)))),
    // "An element wishing to be liberal could ignore this value": nothing here uses Date.
    ("rfc4475/baddate", "3.1.2.12 invalid time zone in Date header field", None),
    // The Contact is judged by who uses it: the registrar.
    ("rfc4475/regbadct", "3.1.2.13 failure to enclose name-addr URI in <>", None),
    // "Elements attempting to be liberal may ignore the spaces."
    ("rfc4475/badaspec", "3.1.2.14 spaces within addr-spec", None),
    ("rfc4475/baddn", "3.1.2.15 non-token characters in display name", Some((Fault::Address, Some(400)))),
    ("rfc4475/badvers", "3.1.2.16 unknown protocol version", Some((Fault::Version, Some(505)))),
    ("rfc4475/mismatch01", "3.1.2.17 start line and CSeq method mismatch", Some((Fault::CSeq, Some(400)))),
    ("rfc4475/mismatch02", "3.1.2.18 unknown method with CSeq method mismatch", Some((Fault::CSeq, Some(501)))),
    ("rfc4475/bigcode", "3.1.2.19 overlarge response code", Some((Fault::StartLine, None))),
    ("rfc4475/badbranch", "3.2.1 missing transaction identifier", None),
    ("rfc4475/insuf", "3.3.1 missing required header fields", Some((Fault::Missing, Some(400)))),
    ("rfc4475/unkscm", "3.3.2 Request-URI with unknown scheme", None),
    ("rfc4475/novelsc", "3.3.3 Request-URI with known but atypical scheme", None),
    ("rfc4475/unksm2", "3.3.4 unknown URI schemes in header fields", None),
    ("rfc4475/bext01", "3.3.5 Proxy-Require and Require", None),
    ("rfc4475/invut", "3.3.6 unknown Content-Type", None),
    ("rfc4475/regaut01", "3.3.7 unknown authorization scheme", None),
    ("rfc4475/multi01", "3.3.8 multiple values in single value required fields", Some((Fault::Repeated, Some(400)))),
    ("rfc4475/mcl01", "3.3.9 multiple Content-Length values", Some((Fault::ContentLength, Some(400)))),
    ("rfc4475/bcast", "3.3.10 200 OK response with broadcast Via header field value", None),
    ("rfc4475/zeromf", "3.3.11 Max-Forwards of zero", None),
    ("rfc4475/cparam01", "3.3.12 REGISTER with a Contact header parameter", None),
    ("rfc4475/cparam02", "3.3.13 REGISTER with a url-parameter", None),
    ("rfc4475/regescrt", "3.3.14 REGISTER with a URL escaped header", None),
    ("rfc4475/sdp01", "3.3.15 unacceptable Accept offering", None),
    ("rfc4475/inv2543", "3.4.1 INVITE with RFC 2543 syntax", None),
    ("rfc5118/ipv6-good", "4.1 valid SIP message with an IPv6 reference", None),
    ("rfc5118/ipv6-bad", "4.2 invalid SIP message with an IPv6 reference", Some((Fault::StartLine, Some(400)))),
    ("rfc5118/port-ambiguous", "4.3 port ambiguous in a SIP URI", None),
    ("rfc5118/port-unambiguous", "4.4 port unambiguous in a SIP URI", None),
    ("rfc5118/via-received-param-with-delim", "4.5 IPv6 reference delimiters in Via header", None),
    ("rfc5118/via-received-param-no-delim", "4.5 IPv6 reference delimiters in Via header", None),
    ("rfc5118/ipv6-in-sdp", "4.6 SIP request with IPv6 addresses in SDP body", None),
    ("rfc5118/mult-ip-in-header", "4.7 multiple IP addresses in SIP headers", None),
    ("rfc5118/mult-ip-in-sdp", "4.8 multiple IP addresses in SDP", None),
    ("rfc5118/ipv4-mapped-ipv6", "4.9 IPv4-mapped IPv6 addresses", None),
    // "May exhibit robustness" by reading it; what it means is not certain, so it is refused.
    ("rfc5118/ipv6-bug-abnf-3-colons", "4.10 IPv6 reference bug in RFC 3261 ABNF", Some((Fault::StartLine, Some(400)))),
    ("rfc5118/ipv6-correct-abnf-2-colons", "4.10 IPv6 reference with the correct syntax", None),
];

fn octets(name: &str) -> Bytes {
    Bytes::from(torture::octets(name))
}

fn judge(name: &str) -> Result<Message, ParseError> {
    Message::parse_datagram(octets(name))
}

fn read(name: &str) -> Message {
    judge(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_message_gets_its_verdict() {
    for (name, section, expected) in VERDICTS {
        let found = judge(name);
        let verdict = found.as_ref().err().map(|error| (error.fault(), error.status()));
        assert_eq!(verdict, expected, "{name}: {section}");
        match found {
            Ok(message) => {
                let kept = Editor::new(&message).finish().unwrap();
                assert!(octets(name).starts_with(&kept), "{name} is forwarded octet for octet");
                if message.is_request() {
                    let answer = ResponseBuilder::response_to(&message, 200, "OK").to_tag(b"t").finish();
                    let answer = Message::parse_datagram(answer.unwrap_or_else(|error| panic!("{name}: {error}")));
                    assert_eq!(answer.unwrap().call_id(), message.call_id(), "{name}");
                }
            }
            Err(error) => {
                if let (Some(status), Some(request)) = (error.status(), error.request()) {
                    let answer = ResponseBuilder::response_to(request, status, reason_of(status)).to_tag(b"t");
                    assert!(answer.finish().is_ok(), "{name} can be answered");
                }
            }
        }
    }
}

#[test]
fn no_message_is_left_out() {
    assert_eq!(torture::names(), VERDICTS.iter().map(|(name, ..)| (*name).to_owned()).collect());
}

/// The values of the URI of the one Contact.
fn contact(message: &Message) -> (Vec<u8>, Vec<u8>) {
    match message.contacts().next() {
        Some(Ok(Contact::Addr(addr))) => (addr.uri.raw.to_vec(), addr.params.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn valid_messages_mean_what_the_rfc_says() {
    let wsinv = read("rfc4475/wsinv");
    assert_eq!(wsinv.to().unwrap().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(&*wsinv.from().unwrap().display_text(), b"J Rosenberg \\\"");
    assert_eq!((wsinv.max_forwards(), wsinv.cseq()), (Some(68), Ok((9, &b"INVITE"[..]))));
    assert_eq!(wsinv.values(HeaderName::Via).count(), 3);
    assert_eq!(wsinv.header(HeaderName::Subject), Some(&b""[..]));
    assert_eq!(wsinv.body().len(), 150);

    let intmeth = read("rfc4475/intmeth");
    assert_eq!(*intmeth.method(), Method::Other(Bytes::from_static(b"!interesting-Method0123456789_*+`.%indeed'~")));
    assert_eq!(intmeth.call_id(), b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    assert_eq!(&*intmeth.to().unwrap().display_text(), b"BEL:\x07 NUL:\0 DEL:\x7f");
    assert_eq!(intmeth.from().unwrap().tag(), Some(&b"_token~1'+`*%!-."[..]));
    assert_eq!(intmeth.header_named(b"extensionHeader-!.%*+_`'~"), Some("\u{feff}大停電".as_bytes()));

    let esc01 = read("rfc4475/esc01");
    assert_eq!(esc01.uri().unwrap().user_text().as_deref(), Some("sips:user@example.com"));
    assert_eq!(esc01.uri().unwrap().host, b"example.net");
    assert_eq!(esc01.to().unwrap().uri.user_text().as_deref(), Some("user"));
    assert_eq!(esc01.from().unwrap().uri.user_text().as_deref(), Some("I have spaces"));

    let escnull = read("rfc4475/escnull");
    let users: Vec<_> = escnull
        .contacts()
        .map(|contact| match contact.unwrap() {
            Contact::Addr(addr) => addr.uri.user_text().unwrap(),
            Contact::Star => panic!("a star"),
        })
        .collect();
    assert_eq!(users, ["\0", "\0\0"], "two different addresses");

    let esc02 = read("rfc4475/esc02");
    assert_ne!(*esc02.method(), Method::Register, "RE%47IST%45R is another method");
    assert_eq!(esc02.contacts().count(), 2, "C%6Fntact is another header");
    assert_eq!(&*esc02.to().unwrap().display_text(), b"%Z%45");

    assert_eq!(&*read("rfc4475/lwsdisp").from().unwrap().display_text(), b"caller");
    let longreq = read("rfc4475/longreq");
    assert_eq!(longreq.values(HeaderName::Via).count(), 34);
    assert_eq!(longreq.top_via().unwrap().host, b"sip33.example.com");
    assert_eq!(longreq.to().unwrap().uri.port, Some(6000));
    let dblreq = read("rfc4475/dblreq");
    assert_eq!((dblreq.method(), dblreq.body()), (&Method::Register, &b""[..]), "what follows is no part of it");
    let semiuri = read("rfc4475/semiuri");
    assert_eq!(semiuri.uri().unwrap().user_text().as_deref(), Some("user;par=u@example.net"));
    let transports: Vec<_> = read("rfc4475/transports")
        .values(HeaderName::Via)
        .map(|via| String::from_utf8(tandem_sip_message::Via::parse(via).unwrap().transport.to_vec()).unwrap())
        .collect();
    assert_eq!(transports, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
    assert_eq!(read("rfc4475/mpart01").content_type(), b"multipart/mixed");
    let unreason = read("rfc4475/unreason");
    assert_eq!(unreason.reason(), "= 2**3 * 5**2 но сто девяносто девять - простое".as_bytes());
    let noreason = read("rfc4475/noreason");
    assert_eq!((noreason.status(), noreason.reason()), (100, &b""[..]));
    assert!(!read("rfc4475/badbranch").top_via().unwrap().has_magic_cookie());
    assert_eq!(read("rfc4475/badaspec").to().unwrap().uri.raw, b"sip:t.watson@example.org");
    assert_eq!(read("rfc4475/novelsc").uri().unwrap().scheme, Scheme::Other);
    assert_eq!(read("rfc4475/unksm2").to().unwrap().uri.scheme, Scheme::Other);
    assert!(read("rfc4475/regbadct").contacts().all(|contact| contact.is_err()));

    // A parameter outside the brackets is the header's, one within them the URI's, and so are the URI's headers.
    let plain = (b"sip:+19725552222@gw1.example.net".to_vec(), b";unknownparam".to_vec());
    assert_eq!(contact(&read("rfc4475/cparam01")), plain);
    assert_eq!(contact(&read("rfc4475/cparam02")).0, b"sip:+19725552222@gw1.example.net;unknownparam");
    assert_eq!(contact(&read("rfc4475/regescrt")).0, b"sip:user@example.com?Route=%3Csip:sip.example.com%3E");
    let inv2543 = read("rfc4475/inv2543");
    assert_eq!((inv2543.from().unwrap().tag(), inv2543.top_via().unwrap().branch()), (None, &b""[..]));
    assert_eq!(inv2543.body().len(), 105);
}

#[test]
fn addresses_of_version_6_are_read_as_rfc_5118_says() {
    let good = read("rfc5118/ipv6-good");
    assert_eq!(good.uri().unwrap().ip(), "2001:db8::10".parse().ok());
    assert_eq!(good.top_via().unwrap().ip(), "2001:db8::9:1".parse().ok());
    assert_eq!(contact(&good).0, b"sip:caller@[2001:db8::1]");
    let port = |name: &str| {
        let message = read(name);
        let uri = message.uri().unwrap();
        (uri.ip(), uri.port)
    };
    assert_eq!(port("rfc5118/port-ambiguous"), ("2001:db8::10:5070".parse().ok(), None));
    assert_eq!(port("rfc5118/port-unambiguous"), ("2001:db8::10".parse().ok(), Some(5070)));
    for name in ["rfc5118/via-received-param-with-delim", "rfc5118/via-received-param-no-delim"] {
        assert_eq!(read(name).top_via().unwrap().received(), "2001:db8::9:255".parse().ok(), "{name}");
    }
    let many = read("rfc5118/mult-ip-in-header");
    let vias: Vec<_> = many.values(HeaderName::Via).map(|via| tandem_sip_message::Via::parse(via).unwrap()).collect();
    assert_eq!(
        vias.iter().map(|via| via.ip()).collect::<Vec<_>>(),
        ["2001:db8::9:1".parse().ok(), "192.0.2.1".parse().ok(), "2001:db8::9:255".parse().ok(),]
    );
    assert_eq!((vias[0].port, vias[2].received()), (Some(6050), "192.0.2.200".parse().ok()));
    let mapped = read("rfc5118/ipv4-mapped-ipv6");
    assert_eq!(
        (mapped.top_via().unwrap().ip(), mapped.top_via().unwrap().port),
        ("::ffff:192.0.2.10".parse().ok(), Some(19823))
    );
    assert_eq!(contact(&mapped).0, b"sip:ted@[::ffff:192.0.2.2]");
    assert_eq!(read("rfc5118/ipv6-correct-abnf-2-colons").uri().unwrap().ip(), "2001:db8::192.0.2.1".parse().ok());
}
