//! The framer against whole and cut streams, and against what must end a connection.

use super::{Frame, Framer};
use crate::limits::MESSAGE_MAX;
use crate::{Fault, ParseError};

const HEAD: &str = "Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKk\r\nFrom: <sip:a@example.com>;tag=f\r\n\
    To: <sip:b@example.com>\r\nCall-ID: c@192.0.2.1\r\nCSeq: 9 OPTIONS\r\n";

fn request(extra: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("OPTIONS sip:b@example.com SIP/2.0\r\n{HEAD}{extra}\r\n").into_bytes();
    text.extend_from_slice(body);
    text
}

/// What a stream holds, in words: bodies of messages, faults, pings.
fn frames(framer: &mut Framer) -> Result<Vec<String>, ParseError> {
    let mut found = Vec::new();
    while let Some(frame) = framer.poll()? {
        found.push(match frame {
            Frame::Message(message) => format!("message {}", String::from_utf8_lossy(message.body())),
            Frame::Refused(error) => format!("refused {:?} {:?}", error.fault(), error.status()),
            Frame::Ping => "ping".to_owned(),
        });
    }
    Ok(found)
}

fn check(stream: &[u8], expected: &[&str]) {
    let mut whole = Framer::default();
    whole.push(stream);
    assert_eq!(frames(&mut whole).unwrap(), expected, "in one piece");
    for size in [1, 2, 3, 7, 64] {
        let mut framer = Framer::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            framer.push(piece);
            found.extend(frames(&mut framer).unwrap());
        }
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

fn refused(stream: &[u8]) -> (Fault, Option<u16>) {
    let mut framer = Framer::default();
    framer.push(stream);
    let error = loop {
        match framer.poll() {
            Err(error) => break error,
            Ok(Some(_)) => {}
            Ok(None) => panic!("the framer waits for more"),
        }
    };
    (error.fault(), error.status())
}

#[test]
fn messages_are_cut_by_their_length_however_they_arrive() {
    let stream = [
        request("Content-Length: 5\r\n", b"first"),
        request("l :\r\n 6\r\n", b"second"),
        b"\r\n".to_vec(),
        request("Content-Length: 0\r\n", b""),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        request("l: 10\r\nContent-Length: 10\r\n", b"\r\n\r\nOPTION"),
        b"\r\n\r\n".to_vec(),
        String::from_utf8(request("l: 2\r\n", b"lf")).unwrap().replace("\r\n", "\n").into_bytes(),
    ]
    .concat();
    check(
        &stream,
        &[
            "message first",
            "message second",
            "message ",
            "ping",
            "ping",
            "message \r\n\r\nOPTION",
            "ping",
            "message lf",
        ],
    );
}

#[test]
fn a_bad_message_with_a_length_does_not_hide_the_next() {
    let stream = [
        String::from_utf8(request("l: 3\r\n", b"bad")).unwrap().replace("CSeq: 9", "CSeq: x").into_bytes(),
        request("no colon here\r\nl: 3\r\n", b"bad"),
        format!("SIP/2.0 4294967301 big\r\n{HEAD}l: 3\r\n\r\nbad").into_bytes(),
        format!("OPTIONS sip:b SIP/7.0\r\n{HEAD}l: 3\r\n\r\nbad").into_bytes(),
        request("l: 4\r\n", b"good"),
    ]
    .concat();
    check(
        &stream,
        &[
            "refused CSeq Some(400)",
            "refused Header Some(400)",
            "refused StartLine None",
            "refused Version Some(505)",
            "message good",
        ],
    );
}

#[test]
fn a_stream_without_borders_is_given_up() {
    let bad = Some(400);
    let cases: [(Vec<u8>, Fault, Option<u16>); 12] = [
        (request("", b"no length"), Fault::ContentLength, bad),
        (request("l: -1\r\n", b""), Fault::ContentLength, bad),
        (request("l: 1\r\nl: 2\r\n", b"xy"), Fault::ContentLength, bad),
        (request("l: 18446744073709551615\r\n", b""), Fault::ContentLength, bad),
        (request("l: 4294967295\r\n", b""), Fault::MessageTooLarge, Some(513)),
        (request(&format!("l: {MESSAGE_MAX}\r\n"), b""), Fault::MessageTooLarge, Some(513)),
        (request(&format!("{}l: 0\r\n", "X: y\r\n".repeat(200)), b""), Fault::TooManyHeaders, Some(513)),
        (request(&format!("X: {}\r\nl: 0\r\n", "y".repeat(9_000)), b""), Fault::HeaderTooLarge, Some(513)),
        // 127 fields of 600 octets: no field is too long, the whole is.
        (request(&format!("X: {}\r\n", "y".repeat(600)).repeat(121), b""), Fault::MessageTooLarge, Some(513)),
        (b"GET / HTTP/1.1\r\n".to_vec(), Fault::NotSip, None),
        (b"\x16\x03\x01\x02\x00\x01\n".to_vec(), Fault::NotSip, None),
        (vec![b'x'; 9_000], Fault::NotSip, None),
    ];
    for (stream, fault, status) in cases {
        let start = String::from_utf8_lossy(&stream[..stream.len().min(400)]).into_owned();
        assert_eq!(refused(&stream), (fault, status), "{start}");
    }
}

#[test]
fn a_length_at_the_limit_is_kept_and_one_above_is_not() {
    let head = request("Content-Length: 65000\r\n", b"").len();
    let room = MESSAGE_MAX - head;
    let stream = request(&format!("Content-Length: {room:05}\r\n"), &vec![b'x'; room]);
    assert_eq!(stream.len(), MESSAGE_MAX);
    let mut framer = Framer::default();
    framer.push(&stream);
    assert!(matches!(framer.poll(), Ok(Some(Frame::Message(message))) if message.body().len() == room));
    assert!(matches!(framer.poll(), Ok(None)));
    assert_eq!(framer.buffered(), 0, "an idle connection keeps nothing");
    let over = request(&format!("Content-Length: {:05}\r\n", room + 1), b"");
    assert_eq!(refused(&over), (Fault::MessageTooLarge, Some(513)));
}

#[test]
fn one_octet_at_a_time_costs_linear_time() {
    // Each octet of an endless first line or header would be looked at again with each new one if lines were forgotten.
    let mut framer = Framer::default();
    let head = request(&"X: y\r\n".repeat(100), b"");
    let unfinished = &head[..head.len() - 2];
    for octet in unfinished {
        framer.push(&[*octet]);
        assert!(matches!(framer.poll(), Ok(None)));
        assert!(framer.is_within_message());
    }
    framer.push(b"\r\n");
    assert_eq!(framer.poll().unwrap_err().fault(), Fault::ContentLength);
}

#[test]
fn whatever_comes_the_framer_neither_panics_nor_grows() {
    let mut state = 0x5eed_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let pieces: Vec<Vec<u8>> = vec![
        request("l: 4\r\n", b"body"),
        request("l: 99999999999999999999\r\n", b""),
        b"\r\n\r\n".to_vec(),
        b"l: 3\r\n".to_vec(),
        b"\n\r\0\xff".to_vec(),
        b"INVITE sip:a SIP/2.0\r\n".to_vec(),
        b"SIP/2.0 200 OK\r\n".to_vec(),
        b"\r\n folded".to_vec(),
    ];
    let mut framer = Framer::default();
    let (mut whole, mut ended) = (0_u32, 0_u32);
    for _ in 0..50_000 {
        let piece = &pieces[usize::try_from(next()).unwrap() % pieces.len()];
        let from = usize::try_from(next()).unwrap() % 8;
        let cut = if from > 5 { from.min(piece.len()) } else { 0 };
        framer.push(&piece[cut..]);
        loop {
            match framer.poll() {
                Ok(Some(Frame::Message(_))) => whole += 1,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    ended += 1;
                    framer = Framer::default();
                    break;
                }
            }
        }
        assert!(framer.buffered() <= 4 * MESSAGE_MAX);
    }
    assert!(whole > 100 && ended > 100, "{whole} {ended}");
}
