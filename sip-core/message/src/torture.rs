//! Messages of the kinds that RFC 4475 and RFC 5118 describe, judged one by one, and then mutated with a seed.

use crate::build::ResponseBuilder;
use crate::edit::Editor;
use crate::{Contact, Fault, HeaderName, Message, NameAddr, Scheme, Uri, digest, reason_of};
use bytes::Bytes;
use testkit::{Mutator, soak, torture};

const HEAD: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKk\r\nFrom: <sip:a@example.com>;tag=f\r\n\
    To: <sip:b@example.com>\r\nCall-ID: c@192.0.2.1\r\nMax-Forwards: 70\r\n";

/// A request with the mandatory headers, `extra` headers and a body.
fn request(line: &str, method: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line}\r\n{HEAD}CSeq: 9 {method}\r\n{extra}\r\n").into_bytes();
    text.extend_from_slice(body);
    text
}

fn parse(octets: &[u8]) -> Result<Message, crate::ParseError> {
    Message::parse_datagram(Bytes::copy_from_slice(octets))
}

/// Valid messages, each with its name.
fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let options = |extra: &str, body: &[u8]| request("OPTIONS sip:b@example.com SIP/2.0", "OPTIONS", extra, body);
    let line = |line: &str| request(line, "OPTIONS", "", b"");
    let swap = |from: &str, to: &str| String::from_utf8(options("", b"")).unwrap().replace(from, to).into_bytes();
    vec![
        ("plain", options("Content-Length: 0\r\n", b"")),
        (
            "odd blanks, folds and compact names",
            b"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\r\nTO :\r\n sip:vivekg@chair-dnrc.example.com \
              ;   tag    = 1918181833n\r\nfrom   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\r\n  ;\r\n  \
              tag = 98asjd8\r\nMaX-fOrWaRdS: 0068\r\nCall-ID: wsinv.ndaksdj@192.0.2.1\r\nCSeq: 0009\r\n  INVITE\r\n\
              Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\ns :\r\nNewFangledHeader:   newfangled \
              value\r\n continued newfangled value\r\nUnknownHeaderWithUnusualValue: ;;,,;;,;\r\nContent-Type: \
              application/sdp\r\nRoute:\r\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\r\nv:  SIP  / \
              2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  \
              192.168.255.111   ; branch=\r\n z9hG4bK30239\r\nm:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; \
              newparam =\r\n      newvalue ;\r\n  secondparam ; q = 0.33\r\nl: 0\r\n\r\n"
                .to_vec(),
        ),
        ("unknown method", request("!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0", "!interesting-Method0123456789_*+`.%indeed'~", "", b"")),
        ("escaped octets in the user", line("OPTIONS sip:sips%3Auser%40example.com@example.net SIP/2.0")),
        ("escaped null", line("OPTIONS sip:null-%00-null@example.com SIP/2.0")),
        ("semicolon in the user", line("OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0")),
        ("unknown scheme", line("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0")),
        ("soap.beep scheme", line("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0")),
        ("tel", line("OPTIONS tel:+1-201-555-0123;phone-context=example.com SIP/2.0")),
        ("IPv6 in the Request-URI", line("OPTIONS sip:john.doe@[2001:db8::10]:5070;transport=tcp SIP/2.0")),
        ("IPv6 in Via with received", swap("192.0.2.1;", "[2001:db8::9:1]:6050;received=[2001:db8::9:255];")),
        ("unknown transport", swap("SIP/2.0/UDP", "SIP/2.0/UNKNOWN")),
        ("dotted user", swap("sip:a@", "sip:john.q.public@")),
        ("brackets and escapes in the display name", swap("From: <", "From: \"A \\\" <sip:x@y>, \\\\\" <")),
        ("no blank before the bracket", swap("From: <", "From: caller<")),
        ("UTF-8 display name", swap("From: <", "From: Jörg Müller <")),
        ("octets that are no UTF-8", {
            let mut bad = options("", b"");
            let at = bad.windows(4).position(|w| w == b"f\r\nT").unwrap();
            bad.splice(at..=at, *b"f;x=\xff\xfe\x80");
            bad
        }),
        ("no Max-Forwards", swap("Max-Forwards: 70\r\n", "")),
        ("no From tag", swap(";tag=f", "")),
        ("branch that is only the cookie", swap("z9hG4bKk", "z9hG4bK")),
        ("bare line feeds", String::from_utf8(options("", b"")).unwrap().replace("\r\n", "\n").into_bytes()),
        ("line ends in front", [b"\r\n\r\n".as_slice(), &options("", b"")].concat()),
        ("body without Content-Length", options("Content-Type: text/plain\r\n", b"to the end\0\xff")),
        ("octets after the body", options("l: 4\r\n", b"bodyINVITE sip:x@y SIP/2.0\r\n\r\n")),
        ("same Content-Length twice", options("l: 4\r\nContent-Length: 4\r\n", b"body")),
        ("star contact", request("REGISTER sip:example.com SIP/2.0", "REGISTER", "Contact: *\r\nExpires: 0\r\n", b"")),
        (
            "contacts in a list",
            request(
                "REGISTER sip:example.com SIP/2.0",
                "REGISTER",
                "m: <sip:a@h;x=1,2>;q=0.5;+sip.instance=\"<urn:uuid:f81d4fae;,>\", \"x, y\" <sip:b@[::1]>;expires=5\r\n\
                 Contact: sip:c@h;expires=7\r\n",
                b"",
            ),
        ),
        ("status without a phrase", format!("SIP/2.0 100 \r\n{HEAD}CSeq: 9 INVITE\r\n\r\n").into_bytes()),
        ("status without a blank", format!("SIP/2.0 100\r\n{HEAD}CSeq: 9 INVITE\r\n\r\n").into_bytes()),
        ("UTF-8 phrase", format!("SIP/2.0 200 = 2**3 * 5**2 но\r\n{HEAD}CSeq: 9 BYE\r\n\r\n").into_bytes()),
        (
            "credentials",
            options("Authorization: Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:b\", response=\"0\", nc=0000000a, cnonce=\"c\", qop=auth\r\n", b""),
        ),
    ]
}

/// Invalid ones with their fault and the status that answers them.
fn invalid() -> Vec<(&'static str, Vec<u8>, Fault, Option<u16>)> {
    let options = |extra: &str, body: &[u8]| request("OPTIONS sip:b@example.com SIP/2.0", "OPTIONS", extra, body);
    let line = |line: &str| request(line, "OPTIONS", "", b"");
    let swap = |from: &str, to: &str| String::from_utf8(options("", b"")).unwrap().replace(from, to).into_bytes();
    let bad = Some(400);
    vec![
        ("empty", vec![], Fault::KeepAlive, None),
        ("keep-alive", b"\r\n\r\n".to_vec(), Fault::KeepAlive, None),
        ("one octet", b"x".to_vec(), Fault::NotSip, None),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Fault::NotSip, None),
        ("no Via", b"OPTIONS sip:a SIP/2.0\r\nFrom: <sip:a@b>\r\n\r\n".to_vec(), Fault::Missing, None),
        ("no Call-ID", swap("Call-ID: c@192.0.2.1\r\n", ""), Fault::Missing, bad),
        ("empty Call-ID", swap("c@192.0.2.1", ""), Fault::Missing, bad),
        ("no To", swap("To: <sip:b@example.com>\r\n", ""), Fault::Missing, bad),
        ("two From", options("From: <sip:x@y>;tag=z\r\n", b""), Fault::Repeated, bad),
        ("two Max-Forwards", options("Max-Forwards: 5\r\n", b""), Fault::Repeated, bad),
        ("two CSeq", options("CSeq: 8 OPTIONS\r\n", b""), Fault::Repeated, bad),
        ("Content-Length too large", options("Content-Length: 9999\r\n", b"short"), Fault::ContentLength, bad),
        ("Content-Length negative", options("Content-Length: -999\r\n", b"x"), Fault::ContentLength, bad),
        ("Content-Length near 2^64", options("l: 18446744073709551615\r\n", b"x"), Fault::ContentLength, bad),
        ("Content-Length near 2^32", options("l: 4294967295\r\n", b"x"), Fault::ContentLength, bad),
        ("Content-Length differing", options("l: 1\r\nContent-Length: 2\r\n", b"xy"), Fault::ContentLength, bad),
        ("Content-Length empty", options("l:\r\n", b"xy"), Fault::ContentLength, bad),
        ("CSeq of another method", swap("9 OPTIONS", "9 INVITE"), Fault::CSeq, bad),
        ("CSeq too large", swap("9 OPTIONS", "36893488147419103232 OPTIONS"), Fault::CSeq, bad),
        ("CSeq of 2^31", swap("9 OPTIONS", "2147483648 OPTIONS"), Fault::CSeq, bad),
        ("Max-Forwards too large", swap("Forwards: 70", "Forwards: 300"), Fault::MaxForwards, bad),
        ("open quote in To", swap("To: <", "To: \"Mr. J. User <"), Fault::Address, bad),
        ("comma in an unquoted name", swap("To: <", "To: Bell, Alexander <"), Fault::Address, bad),
        ("no transport in Via", swap("SIP/2.0/UDP ", "SIP/2.0/"), Fault::Via, bad),
        ("IPv6 without brackets", swap("192.0.2.1;", "2001:db8::1;"), Fault::Via, bad),
        ("URI in brackets", line("OPTIONS <sip:b@example.com> SIP/2.0"), Fault::StartLine, bad),
        ("blank in the URI", line("OPTIONS sip:b@example.com; lr SIP/2.0"), Fault::StartLine, bad),
        ("two blanks", line("OPTIONS  sip:b@example.com  SIP/2.0"), Fault::StartLine, bad),
        ("blanks at the end", line("OPTIONS sip:b@example.com SIP/2.0  "), Fault::StartLine, bad),
        ("no URI", line("OPTIONS SIP/2.0"), Fault::StartLine, bad),
        ("version 7", line("OPTIONS sip:b@example.com SIP/7.0"), Fault::Version, Some(505)),
        ("ACK is never answered", request("ACK sip:b@x SIP/2.0", "ACK", "l: 7\r\n", b""), Fault::ContentLength, None),
        ("a line that is no header", options("no colon here\r\n", b""), Fault::Header, bad),
        ("a name with a blank", options("two words: x\r\n", b""), Fault::Header, bad),
        ("a lone carriage return", options("X: a\rVia: y\r\n", b""), Fault::Header, bad),
        (
            "a fold before any header",
            b"OPTIONS sip:b SIP/2.0\r\n folded\r\nVia: SIP/2.0/UDP h\r\n\r\n".to_vec(),
            Fault::Header,
            bad,
        ),
        (
            "no empty line",
            format!("OPTIONS sip:b SIP/2.0\r\n{HEAD}CSeq: 9 OPTIONS\r\n").into_bytes(),
            Fault::NoEnd,
            bad,
        ),
        ("200 fields", options(&"X: y\r\n".repeat(200), b""), Fault::TooManyHeaders, Some(513)),
        ("a long field", options(&format!("X: {}\r\n", "y".repeat(9000)), b""), Fault::HeaderTooLarge, Some(513)),
        ("many folds", options(&format!("X: y{}\r\n", "\r\n z".repeat(20)), b""), Fault::HeaderTooLarge, Some(513)),
        ("a long URI", line(&format!("OPTIONS sip:{} SIP/2.0", "b".repeat(9000))), Fault::HeaderTooLarge, Some(513)),
        ("too large", vec![b'x'; 65_536], Fault::MessageTooLarge, None),
        (
            "status too large",
            format!("SIP/2.0 4294967301 x\r\n{HEAD}CSeq: 9 BYE\r\n\r\n").into_bytes(),
            Fault::StartLine,
            None,
        ),
        ("status 700", format!("SIP/2.0 700 x\r\n{HEAD}CSeq: 9 BYE\r\n\r\n").into_bytes(), Fault::StartLine, None),
        (
            "response of version 7",
            format!("SIP/7.0 200 x\r\n{HEAD}CSeq: 9 BYE\r\n\r\n").into_bytes(),
            Fault::Version,
            None,
        ),
        ("response without CSeq", format!("SIP/2.0 200 x\r\n{HEAD}\r\n").into_bytes(), Fault::Missing, None),
    ]
}

#[test]
fn valid_messages_are_read_and_kept_octet_for_octet() {
    for (name, octets) in valid() {
        let message = parse(&octets).unwrap_or_else(|error| panic!("{name}: {error}"));
        let forwarded = Editor::new(&message).finish().unwrap();
        assert_eq!(&forwarded, message.as_bytes(), "{name}");
        if !["line ends in front", "octets after the body"].contains(&name) {
            assert_eq!(&forwarded[..], &octets[..], "{name}");
        }
        exercise(&message);
    }
}

#[test]
fn invalid_messages_are_refused_by_rule() {
    for (name, octets, fault, status) in invalid() {
        let error = parse(&octets).err().unwrap_or_else(|| panic!("{name}: accepted"));
        assert_eq!((error.fault(), error.status()), (fault, status), "{name}");
        if let (Some(status), Some(request)) = (error.status(), error.request()) {
            let answer = ResponseBuilder::response_to(request, status, reason_of(status)).to_tag(b"t").finish();
            let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(answer.starts_with(format!("SIP/2.0 {status} ").as_bytes()), "{name}");
        }
    }
}

#[test]
fn the_odd_ones_mean_what_they_should() {
    let named = |wanted: &str| {
        let (_, octets) = valid().into_iter().find(|(name, _)| *name == wanted).unwrap();
        parse(&octets).unwrap()
    };
    let odd = named("odd blanks, folds and compact names");
    assert_eq!(odd.to().unwrap().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(odd.from().unwrap().tag(), Some(&b"98asjd8"[..]));
    assert_eq!(&*odd.from().unwrap().display_text(), b"J Rosenberg \\\"");
    assert_eq!(odd.max_forwards(), Some(68));
    assert_eq!(odd.cseq(), Ok((9, &b"INVITE"[..])));
    assert_eq!(odd.values(HeaderName::Via).count(), 3);
    assert_eq!(odd.top_via().unwrap().branch(), b"390skdjuw");
    assert_eq!(odd.header(HeaderName::Subject), Some(&b""[..]));
    assert_eq!(odd.header_named(b"newfangledheader"), Some(&b"newfangled value   continued newfangled value"[..]));
    let Some(Ok(Contact::Addr(contact))) = odd.contacts().next() else { panic!("no contact") };
    assert_eq!(contact.params.get(b"q"), Some(&b"0.33"[..]));
    assert_eq!(contact.params.get(b"newparam"), Some(&b"newvalue"[..]));

    let hidden = named("octets that are no UTF-8");
    assert_eq!(hidden.call_id(), b"c@192.0.2.1");
    assert_eq!(hidden.from().unwrap().params.get(b"x"), Some(&b"\xff\xfe\x80"[..]));
    assert_eq!(named("octets after the body").body(), b"body");
    assert_eq!(named("body without Content-Length").body(), b"to the end\0\xff");
    assert_eq!(named("unknown scheme").uri().unwrap().scheme, Scheme::Other);
    assert_eq!(named("IPv6 in the Request-URI").uri().unwrap().ip(), "2001:db8::10".parse().ok());
    assert_eq!(named("star contact").contacts().next(), Some(Ok(Contact::Star)));
    let list = named("contacts in a list");
    let contacts: Vec<_> = list
        .contacts()
        .map(|contact| match contact.unwrap() {
            Contact::Addr(addr) => addr.uri.raw.to_vec(),
            Contact::Star => panic!("a star"),
        })
        .collect();
    assert_eq!(contacts, [&b"sip:a@h;x=1,2"[..], b"sip:b@[::1]", b"sip:c@h"]);
    assert_eq!(*named("UTF-8 phrase").method(), crate::Method::Bye);
}

/// Asks for everything that can be asked.
fn exercise(message: &Message) {
    let _ = (message.uri(), message.top_via(), message.from(), message.to(), message.cseq(), message.expires());
    let _ = (message.max_forwards(), message.content_type(), message.reason(), message.body().len());
    for via in message.values(HeaderName::Via) {
        if let Ok(via) = crate::Via::parse(via) {
            let _ = (via.branch(), via.received(), via.rport(), via.params.iter().count());
        }
    }
    for contact in message.contacts().flatten() {
        if let Contact::Addr(addr) = contact {
            let _ = (addr.tag(), addr.display_text(), addr.uri.equivalent(&addr.uri), addr.params.iter().count());
        }
    }
    for (_, name, value) in message.all_headers() {
        assert!(!name.is_empty());
        assert!(!value.contains(&b'\r') && !value.contains(&b'\n'), "a value is one line");
        let _ = (NameAddr::parse(value), Uri::parse(value), digest::Credentials::parse(value));
        let _ = digest::Challenge::parse(value);
    }
    if message.is_request() {
        let answer = ResponseBuilder::response_to(message, 200, "OK")
            .source("192.0.2.99:5999".parse().unwrap())
            .to_tag(b"tag")
            .record_route()
            .finish()
            .map(Message::parse_datagram);
        // A Via that gets `received` may outgrow its bound.
        match answer {
            Ok(answer) => {
                let answer = answer.expect("what is written can be read");
                assert_eq!(answer.call_id(), message.call_id());
                assert_eq!(answer.values(HeaderName::Via).count(), message.values(HeaderName::Via).count());
            }
            Err(error) => assert_eq!(error, crate::build::BuildError::TooLarge),
        }
    }
    let mut editor = Editor::new(message);
    editor.push(HeaderName::Via, b"SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKus").pop(HeaderName::Route);
    editor.replace(HeaderName::MaxForwards, b"69").append_named(b"X-Tandem", b"1");
    let edited = editor.finish().map(Message::parse_datagram);
    if let Ok(Ok(edited)) = edited {
        assert_eq!(edited.top_via().map(|via| via.branch().to_vec()), Ok(b"z9hG4bKus".to_vec()));
        assert_eq!(edited.body(), message.body());
    }
}

#[test]
fn mutated_messages_never_panic_and_keep_the_invariants() {
    const ROUNDS: u64 = 100_000;
    const SEED: u64 = 0x7a4d_e411;
    /// What is longer is cut: mutations of it would be cuts, mostly.
    const LENGTH_MAX: usize = 4_096;
    let valid = valid().into_iter().map(|(_, octets)| octets);
    let mut corpus: Vec<Vec<u8>> = valid.chain(invalid().into_iter().map(|(_, octets, ..)| octets)).collect();
    corpus.extend(torture::names().iter().map(|name| torture::octets(name)));
    corpus.iter_mut().for_each(|octets| octets.truncate(LENGTH_MAX));
    let mutator = Mutator::new(corpus, torture::SIP_SPICE).with_changes(1..=2);
    let mut accepted = 0;
    let rounds = soak::campaign("SIP messages", SEED, ROUNDS, |_, random| {
        let source = Bytes::from(mutator.mutated(random));
        match Message::parse_datagram(source.clone()) {
            Ok(message) => {
                accepted += 1;
                let kept = Editor::new(&message).finish().unwrap();
                let lead = source.len() - source.iter().skip_while(|o| matches!(o, b'\r' | b'\n')).count();
                assert!(source[lead..].starts_with(&kept), "{:?}", message.as_bytes());
                exercise(&message);
                let again = Message::parse_datagram(kept).expect("what was accepted is accepted again");
                assert_eq!(again.body(), message.body());
            }
            Err(error) => {
                if let Some(request) = error.request() {
                    exercise_remains(request);
                }
            }
        }
    });
    assert!(accepted > rounds / 20, "the mutations must not only break: {accepted}");
}

/// What a refused request left: everything may be asked of it, nothing is promised.
fn exercise_remains(request: &Message) {
    let _ = (request.uri().is_ok(), request.top_via().is_ok(), request.from().is_ok(), request.cseq().is_ok());
    let _ = (request.body().len(), request.all_headers().count(), request.contacts().count());
    let _ = ResponseBuilder::response_to(request, 400, "Bad Request").to_tag(b"t").finish();
    let _ = Editor::new(request).push(HeaderName::Via, b"x").pop(HeaderName::Via).request_uri(b"sip:a");
}
