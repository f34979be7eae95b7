//! Transactions in simulated time: single machines against the tables of RFC 3261, and two engines over a seeded
//! network that loses, delays, doubles and reorders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::build::{RequestBuilder, ResponseBuilder};
use sip_message::{HeaderName, Message, Method};
use testkit::{Random, soak};

use super::{ClientKey, ServerKey, Timers, TransactionConfig, TransactionEvent, Transactions, test_start};
use crate::{Due, Flow, Peer, Retransmit, Transport};

const SECOND: Duration = Duration::from_secs(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer(text: &str) -> Peer {
    Peer::udp(address(text), 0)
}

fn alice() -> Peer {
    peer("192.0.2.1:5060")
}

fn bob() -> Peer {
    peer("192.0.2.2:5060")
}

fn request(method: &Method, branch: &str) -> Bytes {
    RequestBuilder::new(method, b"sip:bob@192.0.2.2")
        .via("UDP", b"192.0.2.1:5060", branch.as_bytes())
        .base(b"<sip:alice@example.com>;tag=a", b"<sip:bob@example.com>", b"call", 1, method, 70)
        .header(HeaderName::Route, "<sip:192.0.2.2;lr>")
        .header(HeaderName::Contact, "<sip:alice@192.0.2.1>")
        .finish()
        .unwrap()
}

fn parse(bytes: Bytes) -> Message {
    Message::parse_datagram(bytes).unwrap()
}

fn response(request: &Message, status: u16, tag: &str) -> Bytes {
    ResponseBuilder::response_to(request, status, sip_message::reason_of(status))
        .source(alice().remote)
        .to_tag(tag.as_bytes())
        .header(HeaderName::Contact, "<sip:bob@192.0.2.2>")
        .finish()
        .unwrap()
}

fn engine() -> Transactions {
    Transactions::new(TransactionConfig::default(), 5)
}

fn sent(engine: &mut Transactions) -> Vec<Message> {
    std::iter::from_fn(|| engine.poll_transmit()).map(|(bytes, _)| parse(bytes)).collect()
}

fn events(engine: &mut Transactions) -> Vec<TransactionEvent> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

/// Fires all timers up to `until` and returns when octets went out, in milliseconds.
fn run(engine: &mut Transactions, start: Instant, until: Duration) -> Vec<u128> {
    let mut at = Vec::new();
    while let Some(next) = engine.next_timeout().filter(|next| *next <= start + until) {
        engine.handle_timeout(next);
        at.extend(sent(engine).iter().map(|_| (next - start).as_millis()));
    }
    at
}

fn one_request(engine: &mut Transactions, now: Instant, method: &Method) -> (ServerKey, Message) {
    let msg = parse(request(method, "z9hG4bKserver"));
    engine.receive(now, msg.clone(), alice());
    match events(engine).as_slice() {
        [TransactionEvent::Request { key, .. }] => (*key, msg),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unanswered_request_is_repeated_and_given_up() {
    for (method, expected) in [
        (Method::Invite, vec![500, 1500, 3500, 7500, 15500, 31500]),
        (Method::Options, vec![500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]),
    ] {
        let (mut engine, start) = (engine(), test_start());
        let key = engine.request(start, request(&method, "z9hG4bKc"), bob()).unwrap();
        assert_eq!(sent(&mut engine).len(), 1);
        assert_eq!(run(&mut engine, start, 31 * SECOND + SECOND / 2), expected);
        assert!(events(&mut engine).is_empty());
        run(&mut engine, start, 32 * SECOND);
        assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Timeout { key: k }] if *k == key));
        assert!(engine.is_empty());
        assert_eq!(engine.next_timeout(), None);
    }
}

#[test]
fn a_reliable_transport_needs_no_repetition_and_no_linger() {
    let (mut engine, start) = (engine(), test_start());
    let tcp = Peer { transport: Transport::Tcp, ..bob() };
    engine.request(start, request(&Method::Options, "z9hG4bKc"), tcp).unwrap();
    let msg = sent(&mut engine).remove(0);
    assert!(run(&mut engine, start, 31 * SECOND).is_empty());
    engine.receive(start + SECOND, parse(response(&msg, 200, "b")), tcp);
    assert!(engine.is_empty());
    engine.receive(start, msg.clone(), Peer { transport: Transport::Tcp, ..alice() });
    let Some(TransactionEvent::Request { key, .. }) = events(&mut engine).pop() else { panic!("no request") };
    engine.respond(start, key, response(&msg, 200, "b"));
    assert!(engine.is_empty());
}

#[test]
fn a_provisional_response_stops_invite_and_slows_others() {
    for (method, expected) in [(Method::Invite, vec![]), (Method::Options, vec![4100, 8100, 12100])] {
        let (mut engine, start) = (engine(), test_start());
        engine.request(start, request(&method, "z9hG4bKc"), bob()).unwrap();
        let msg = sent(&mut engine).remove(0);
        engine.receive(start + SECOND / 10, parse(response(&msg, 180, "b")), bob());
        assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Response { .. }]));
        assert_eq!(run(&mut engine, start, 13 * SECOND), expected);
    }
}

#[test]
fn a_refused_invite_is_acknowledged_each_time_by_the_transaction() {
    let (mut engine, start) = (engine(), test_start());
    engine.request(start, request(&Method::Invite, "z9hG4bKc"), bob()).unwrap();
    let invite = sent(&mut engine).remove(0);
    for round in 0..3 {
        engine.receive(start, parse(response(&invite, 486, "b")), bob());
        let acks = sent(&mut engine);
        assert_eq!(acks.len(), 1);
        let ack = &acks[0];
        assert_eq!(*ack.method(), Method::Ack);
        assert_eq!(ack.cseq(), Ok((1, &b"ACK"[..])));
        assert_eq!(ack.to().unwrap().tag(), Some(&b"b"[..]));
        assert_eq!(ack.top_via().unwrap().branch(), b"z9hG4bKc");
        assert_eq!(ack.header(HeaderName::Route), invite.header(HeaderName::Route));
        assert_eq!(events(&mut engine).len(), usize::from(round == 0), "told once");
    }
    assert!(run(&mut engine, start, 31 * SECOND).is_empty());
    assert_eq!(engine.len(), 1);
    run(&mut engine, start, 32 * SECOND);
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::ClientTerminated { .. }]));
    assert!(engine.is_empty());
}

#[test]
fn every_2xx_reaches_the_user_until_timer_m_and_is_stray_afterwards() {
    let (mut engine, start) = (engine(), test_start());
    engine.request(start, request(&Method::Invite, "z9hG4bKc"), bob()).unwrap();
    let invite = sent(&mut engine).remove(0);
    for tag in ["b", "b", "fork"] {
        engine.receive(start, parse(response(&invite, 200, tag)), bob());
        assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Response { msg, .. }]
            if msg.to().unwrap().tag() == Some(tag.as_bytes())));
    }
    engine.receive(start, parse(response(&invite, 486, "late")), bob());
    assert!(events(&mut engine).is_empty() && sent(&mut engine).is_empty());
    run(&mut engine, start, 32 * SECOND);
    events(&mut engine);
    engine.receive(start + 33 * SECOND, parse(response(&invite, 200, "b")), bob());
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::StrayResponse { .. }]));
}

#[test]
fn a_repeated_request_is_answered_from_the_transaction() {
    for (method, status, stays) in [(Method::Options, 200, 32), (Method::Invite, 486, 32)] {
        let (mut engine, start) = (engine(), test_start());
        let (key, msg) = one_request(&mut engine, start, &method);
        engine.receive(start, msg.clone(), alice());
        assert!(sent(&mut engine).is_empty() && events(&mut engine).is_empty());
        engine.respond(start, key, response(&msg, 183, "b"));
        engine.receive(start, msg.clone(), alice());
        assert_eq!(sent(&mut engine).iter().map(Message::status).collect::<Vec<_>>(), [183, 183]);
        engine.respond(start, key, response(&msg, status, "b"));
        engine.respond(start, key, response(&msg, 500, "b"));
        engine.receive(start, msg.clone(), alice());
        assert_eq!(sent(&mut engine).iter().map(Message::status).collect::<Vec<_>>(), [status, status]);
        assert!(events(&mut engine).is_empty());
        run(&mut engine, start, stays * SECOND);
        assert!(engine.is_empty());
    }
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let (mut engine, start) = (engine(), test_start());
    let (key, msg) = one_request(&mut engine, start, &Method::Invite);
    engine.respond(start, key, response(&msg, 486, "b"));
    sent(&mut engine);
    assert_eq!(run(&mut engine, start, 12 * SECOND), [500, 1500, 3500, 7500, 11500]);
    let ack = parse(request(&Method::Ack, "z9hG4bKserver"));
    engine.receive(start + 12 * SECOND, ack.clone(), alice());
    engine.receive(start + 12 * SECOND, ack, alice());
    assert!(events(&mut engine).is_empty(), "absorbed");
    assert!(run(&mut engine, start, 17 * SECOND).is_empty());
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::ServerTerminated { .. }]));
    assert!(engine.is_empty());
}

#[test]
fn a_refusal_without_ack_is_given_up() {
    let (mut engine, start) = (engine(), test_start());
    let (key, msg) = one_request(&mut engine, start, &Method::Invite);
    engine.respond(start, key, response(&msg, 486, "b"));
    run(&mut engine, start, 32 * SECOND);
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::AckTimeout { key: k }] if *k == key));
    assert!(engine.is_empty());
}

#[test]
fn a_2xx_is_the_users_and_its_ack_too() {
    let (mut engine, start) = (engine(), test_start());
    let (key, msg) = one_request(&mut engine, start, &Method::Invite);
    let ok = response(&msg, 200, "b");
    engine.respond(start, key, ok.clone());
    assert_eq!(sent(&mut engine).len(), 1);
    engine.receive(start, msg, alice());
    assert!(sent(&mut engine).is_empty(), "the user repeats it");
    for branch in ["z9hG4bKack", "z9hG4bKack", "z9hG4bKserver"] {
        engine.receive(start, parse(request(&Method::Ack, branch)), alice());
        assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Ack { .. }]), "{branch}");
    }
    let mut repeat = Retransmit::new(start, &Timers::default(), ok, engine.response_peer(key).unwrap());
    let mut at = Vec::new();
    let mut now = start;
    loop {
        match repeat.poll(now) {
            Due::Send(..) => at.push((now - start).as_millis()),
            Due::Wait(next) => now = next,
            Due::Expired => break,
        }
    }
    assert_eq!(at, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!(now, start + 32 * SECOND);
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let (mut engine, start) = (engine(), test_start());
    let key = engine.request(start, request(&Method::Invite, "z9hG4bKc"), bob()).unwrap();
    let invite = sent(&mut engine).remove(0);
    assert!(engine.cancel(start, key));
    assert!(sent(&mut engine).is_empty());
    engine.receive(start, parse(response(&invite, 100, "b")), bob());
    engine.receive(start, parse(response(&invite, 180, "b")), bob());
    let cancels = sent(&mut engine);
    assert_eq!(cancels.len(), 1);
    let cancel = &cancels[0];
    assert_eq!((cancel.method(), cancel.request_uri()), (&Method::Cancel, invite.request_uri()));
    assert_eq!(cancel.header(HeaderName::Via), invite.header(HeaderName::Via));
    assert_eq!(cancel.to().unwrap().tag(), None);
    events(&mut engine);
    engine.receive(start, parse(response(cancel, 200, "b")), bob());
    assert!(events(&mut engine).is_empty(), "the answer to the CANCEL concerns nobody");
    engine.receive(start, parse(response(&invite, 487, "b")), bob());
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Response { msg, .. }] if msg.status() == 487));
    assert!(!engine.cancel(start, key), "too late");
    run(&mut engine, start, 40 * SECOND);
    assert!(engine.is_empty());
}

#[test]
fn a_cancelled_invite_without_final_response_is_given_up() {
    let (mut engine, start) = (engine(), test_start());
    let key = engine.request(start, request(&Method::Invite, "z9hG4bKc"), bob()).unwrap();
    let invite = sent(&mut engine).remove(0);
    engine.receive(start, parse(response(&invite, 180, "b")), bob());
    run(&mut engine, start, 100 * SECOND);
    events(&mut engine);
    assert_eq!(engine.len(), 1, "ringing has no limit here");
    assert!(engine.cancel(start + 100 * SECOND, key));
    run(&mut engine, start, 132 * SECOND);
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::Timeout { key: k }] if *k == key));
    assert!(engine.is_empty());
}

#[test]
fn a_received_cancel_names_its_invite() {
    let (mut engine, start) = (engine(), test_start());
    let (invite, _) = one_request(&mut engine, start, &Method::Invite);
    for (branch, expected) in [("z9hG4bKserver", Some(invite)), ("z9hG4bKother", None)] {
        engine.receive(start, parse(request(&Method::Cancel, branch)), alice());
        match events(&mut engine).as_slice() {
            [TransactionEvent::Cancel { key, invite, .. }] => {
                assert_eq!(*invite, expected);
                assert_ne!(Some(*key), *invite);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn requests_without_the_magic_cookie_find_their_transaction() {
    let (mut engine, start) = (engine(), test_start());
    let old = |method: &Method, call: &str| {
        let bytes = RequestBuilder::new(method, b"sip:bob@192.0.2.2")
            .header(HeaderName::Via, "SIP/2.0/UDP 192.0.2.1")
            .base(b"<sip:a@h>;tag=a", b"<sip:b@h>", call.as_bytes(), 1, method, 70)
            .finish();
        parse(bytes.unwrap())
    };
    for call in ["1", "2"] {
        engine.receive(start, old(&Method::Invite, call), alice());
        engine.receive(start, old(&Method::Invite, call), alice());
        let keys = events(&mut engine);
        let [TransactionEvent::Request { key, msg, .. }] = keys.as_slice() else { panic!("{keys:?}") };
        engine.respond(start, *key, response(msg, 486, "b"));
        engine.receive(start, old(&Method::Ack, call), alice());
        assert!(events(&mut engine).is_empty());
    }
}

#[test]
fn responses_go_where_rfc_3581_says() {
    let source = peer("203.0.113.7:40000");
    for (via, force, expected) in [
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport", false, "203.0.113.7:40000"),
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1", false, "203.0.113.7:5070"),
        ("SIP/2.0/UDP phone.example.com;branch=z9hG4bK1", false, "203.0.113.7:5060"),
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;maddr=198.51.100.1", true, "203.0.113.7:40000"),
    ] {
        let mut engine = Transactions::new(TransactionConfig { force_rport: force, ..TransactionConfig::default() }, 1);
        let bytes = RequestBuilder::new(&Method::Options, b"sip:b@h")
            .header(HeaderName::Via, via)
            .base(b"<sip:a@h>;tag=a", b"<sip:b@h>", b"c", 1, &Method::Options, 70)
            .finish();
        engine.receive(test_start(), parse(bytes.unwrap()), source);
        let Some(TransactionEvent::Request { key, .. }) = engine.poll_event() else { panic!("no request") };
        assert_eq!(engine.response_peer(key).map(|peer| peer.remote), Some(address(expected)), "{via}");
    }
}

#[test]
fn no_room_is_answered_with_503_and_refused_to_the_user() {
    let mut engine = Transactions::new(TransactionConfig { transactions_max: 1, ..TransactionConfig::default() }, 1);
    let start = test_start();
    engine.receive(start, parse(request(&Method::Options, "z9hG4bK1")), alice());
    engine.receive(start, parse(request(&Method::Options, "z9hG4bK2")), alice());
    assert_eq!(events(&mut engine).len(), 1);
    let refusals = sent(&mut engine);
    assert_eq!(refusals.iter().map(Message::status).collect::<Vec<_>>(), [503]);
    assert!(refusals[0].header(HeaderName::RetryAfter).is_some());
    engine.request(start, request(&Method::Options, "z9hG4bK3"), bob()).unwrap();
    assert_eq!(engine.request(start, request(&Method::Options, "z9hG4bK4"), bob()), Err(super::RequestError::Full));
    // A BYE is sent nonetheless.
    let bye = String::from_utf8(request(&Method::Bye, "z9hG4bK5").to_vec()).unwrap();
    let bye = bye.replace("To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=b");
    assert!(engine.request(start, bye.into(), bob()).is_ok());
}

/// Room is made at the cost of those that have done their work, those of INVITEs last; who waits for an answer or an ACK
/// keeps its place.
#[test]
fn what_only_absorbs_makes_room() {
    let mut engine = Transactions::new(TransactionConfig { transactions_max: 4, ..TransactionConfig::default() }, 1);
    let start = test_start();
    let receive = |engine: &mut Transactions, method: &Method, branch: &str| {
        let msg = parse(request(method, branch));
        engine.receive(start, msg.clone(), alice());
        match events(engine).as_slice() {
            [.., TransactionEvent::Request { key, .. }] => Some((*key, msg)),
            _ => None,
        }
    };
    let answer = |engine: &mut Transactions, (key, msg): &(ServerKey, Message), status| {
        engine.respond(start, *key, response(msg, status, "b"));
    };
    let accepted = receive(&mut engine, &Method::Invite, "z9hG4bK1").unwrap();
    let refused = receive(&mut engine, &Method::Invite, "z9hG4bK2").unwrap();
    let done = receive(&mut engine, &Method::Bye, "z9hG4bK3").unwrap();
    receive(&mut engine, &Method::Invite, "z9hG4bK4").unwrap();
    for (transaction, status) in [(&accepted, 200), (&refused, 486), (&done, 200)] {
        answer(&mut engine, transaction, status);
    }
    sent(&mut engine);
    let ended = |engine: &mut Transactions, branch: &str| {
        engine.receive(start, parse(request(&Method::Invite, branch)), alice());
        let ended = events(engine).into_iter().find_map(|event| match event {
            TransactionEvent::ServerTerminated { key } => Some(key),
            _ => None,
        });
        (ended, sent(engine).iter().map(Message::status).collect::<Vec<_>>())
    };
    assert_eq!(ended(&mut engine, "z9hG4bK5"), (Some(done.0), vec![]));
    assert_eq!(ended(&mut engine, "z9hG4bK6"), (Some(accepted.0), vec![]));
    assert_eq!(ended(&mut engine, "z9hG4bK7"), (None, vec![503]));
    // The refused one is still repeated until its ACK, and makes room after it.
    assert!(!run(&mut engine, start, SECOND).is_empty());
    engine.receive(start, parse(request(&Method::Ack, "z9hG4bK2")), alice());
    assert_eq!(ended(&mut engine, "z9hG4bK8"), (Some(refused.0), vec![]));
    assert_eq!(engine.servers_len(), 4);
}

#[test]
fn requests_of_ours_make_room_too() {
    let mut engine = Transactions::new(TransactionConfig { transactions_max: 2, ..TransactionConfig::default() }, 1);
    let start = test_start();
    let send = |engine: &mut Transactions, method: &Method, branch: &str| {
        engine.request(start, request(method, branch), bob()).map(|key| (key, sent(engine).remove(0)))
    };
    let (invite, invited) = send(&mut engine, &Method::Invite, "z9hG4bK1").unwrap();
    engine.receive(start, parse(response(&invited, 200, "b")), bob());
    let (options, asked) = send(&mut engine, &Method::Options, "z9hG4bK2").unwrap();
    engine.receive(start, parse(response(&asked, 200, "b")), bob());
    events(&mut engine);
    for (branch, ended) in [("z9hG4bK3", options), ("z9hG4bK4", invite)] {
        send(&mut engine, &Method::Options, branch).unwrap();
        let events = events(&mut engine);
        assert!(
            matches!(events.as_slice(), [TransactionEvent::ClientTerminated { key }] if *key == ended),
            "{events:?}"
        );
    }
    assert_eq!(send(&mut engine, &Method::Options, "z9hG4bK5").err(), Some(super::RequestError::Full));
    assert_eq!(engine.len(), 2);
}

#[test]
fn what_begins_no_transaction_is_refused() {
    let (mut engine, start) = (engine(), test_start());
    let mut check = |bytes, expected| assert_eq!(engine.request(start, bytes, bob()).err(), Some(expected));
    check(Bytes::from_static(b"junk"), super::RequestError::NotARequest);
    check(request(&Method::Ack, "z9hG4bK1"), super::RequestError::NotARequest);
    let msg = parse(request(&Method::Bye, "z9hG4bK1"));
    check(response(&msg, 200, "b"), super::RequestError::NotARequest);
    engine.request(start, request(&Method::Bye, "z9hG4bK1"), bob()).unwrap();
    let again = engine.request(start, request(&Method::Bye, "z9hG4bK1"), bob());
    assert_eq!(again, Err(super::RequestError::BranchInUse));
}

#[test]
fn a_failed_transport_ends_what_waits_on_it() {
    let (mut engine, start) = (engine(), test_start());
    let key = engine.request(start, request(&Method::Options, "z9hG4bK1"), bob()).unwrap();
    engine.request(start, request(&Method::Options, "z9hG4bK2"), alice()).unwrap();
    engine.transport_failed(bob());
    assert!(matches!(events(&mut engine).as_slice(), [TransactionEvent::TransportError { key: k }] if *k == key));
    assert_eq!(engine.len(), 1);
}

#[test]
fn a_request_without_a_final_response_is_forgotten() {
    for (method, transport) in [
        (Method::Invite, Transport::Udp),
        (Method::Options, Transport::Udp),
        (Method::Invite, Transport::Tcp),
        (Method::Options, Transport::Tcp),
    ] {
        let invite_max = 100 * SECOND;
        let start = test_start();
        let mut engine = Transactions::new(TransactionConfig { invite_max, ..TransactionConfig::default() }, 5);
        let from = Peer { transport, ..alice() };
        let msg = parse(request(&method, "z9hG4bKserver"));
        let receive = |engine: &mut Transactions, now| {
            engine.receive(now, msg.clone(), from);
            events(engine)
        };
        let Some(TransactionEvent::Request { key, .. }) = receive(&mut engine, start).pop() else { panic!("none") };
        if method == Method::Invite {
            engine.respond(start + 50 * SECOND, key, response(&msg, 180, "b"));
        }
        let end = if method == Method::Invite { 150 * SECOND } else { 32 * SECOND };
        assert_eq!(run(&mut engine, start, end - SECOND / 10).len(), usize::from(method == Method::Invite));
        assert_eq!(engine.len(), 1);
        run(&mut engine, start, end);
        assert!(engine.is_empty() && engine.next_timeout().is_none(), "{method:?}");
        let now = start + end;
        events(&mut engine);
        // Given up by its user: what comes again is absorbed, as long as it can come.
        let Some(TransactionEvent::Request { key, .. }) = receive(&mut engine, now).pop() else { panic!("none") };
        engine.abandon(now, key);
        assert_eq!(engine.is_empty(), transport == Transport::Tcp);
        if transport == Transport::Udp {
            assert!(receive(&mut engine, now).is_empty());
        }
        engine.respond(now, key, response(&msg, 200, "b"));
        assert!(sent(&mut engine).is_empty());
        run(&mut engine, start, end + 32 * SECOND);
        assert!(engine.is_empty());
    }
}

#[test]
fn a_lost_connection_fails_what_went_over_it() {
    let (mut engine, start) = (engine(), test_start());
    let over = |flow: Option<u64>| Peer::tcp(bob().remote, 0, flow.map(Flow));
    let by_flow = engine.request(start, request(&Method::Options, "z9hG4bK1"), over(Some(1))).unwrap();
    let by_any = engine.request(start, request(&Method::Options, "z9hG4bK2"), over(None)).unwrap();
    engine.request(start, request(&Method::Options, "z9hG4bK3"), over(Some(2))).unwrap();
    engine.request(start, request(&Method::Options, "z9hG4bK4"), bob()).unwrap();
    engine.transport_failed(over(Some(1)));
    let failed: Vec<_> = events(&mut engine)
        .into_iter()
        .map(|event| match event {
            TransactionEvent::TransportError { key } => key,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(failed, [by_flow, by_any]);
    assert_eq!(engine.len(), 2, "another connection and another transport are not concerned");
}

#[test]
fn timers_stay_bounded_when_transactions_come_and_go() {
    let (mut engine, start) = (engine(), test_start());
    let mut now = start;
    for round in 0..20_000u32 {
        engine.request(now, request(&Method::Options, &format!("z9hG4bK{round}")), bob()).unwrap();
        let msg = sent(&mut engine).remove(0);
        engine.receive(now, parse(response(&msg, 200, "b")), bob());
        now += Duration::from_millis(10);
        engine.handle_timeout(now);
        events(&mut engine);
        // T4 of linger at one per 10 ms: 500 live ones.
        assert!(engine.len() <= 501);
        assert!(engine.timers.entries() <= 1_100, "{}", engine.timers.entries());
    }
}

// Two engines and a network.

/// How many of a hundred datagrams come twice.
const TWICE_PERCENT: u64 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Answer,
    Refuse,
    Cancel,
    Options,
}

#[derive(Default, Debug)]
struct Outcome {
    requests: u32,
    cancels: u32,
    acks: u32,
    finals: Vec<u16>,
    timeouts: u32,
    expired: bool,
}

struct World {
    random: Random,
    loss_percent: u64,
    now: Instant,
    caller: Transactions,
    called: Transactions,
    /// Datagrams under way: when and in which order they arrive, whether at the called side, what.
    network: BTreeMap<(Instant, u64), (bool, Bytes)>,
    sent: u64,
    act: Act,
    invite: Option<(ServerKey, Message)>,
    answer_at: Option<Instant>,
    cancel_at: Option<(Instant, ClientKey)>,
    retransmit: Option<Retransmit>,
    outcome: Outcome,
}

impl World {
    fn run(seed: u64, loss_percent: u64, act: Act) -> Outcome {
        let now = test_start();
        let mut world = Self {
            random: Random::new(seed),
            loss_percent,
            now,
            caller: Transactions::new(TransactionConfig::default(), seed),
            called: Transactions::new(TransactionConfig::default(), seed ^ 1),
            network: BTreeMap::new(),
            sent: 0,
            act,
            invite: None,
            answer_at: None,
            cancel_at: None,
            retransmit: None,
            outcome: Outcome::default(),
        };
        let method = if act == Act::Options { Method::Options } else { Method::Invite };
        let key = world.caller.request(now, request(&method, "z9hG4bKworld"), bob()).unwrap();
        if act == Act::Cancel {
            world.cancel_at = Some((now + SECOND, key));
        }
        world.settle();
        for _ in 0..10_000 {
            let Some(next) = world.next() else { break };
            world.now = next;
            world.step();
            world.settle();
        }
        assert!(world.caller.is_empty() && world.called.is_empty(), "seed {seed} loss {loss_percent} {act:?}");
        world.outcome
    }

    fn next(&self) -> Option<Instant> {
        [
            self.network.keys().next().map(|(at, _)| *at),
            self.caller.next_timeout(),
            self.called.next_timeout(),
            self.answer_at,
            self.cancel_at.map(|(at, _)| at),
            self.retransmit.as_ref().map(Retransmit::next_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to_called, bytes) = entry.remove();
            let msg = parse(bytes);
            if to_called { self.called.receive(now, msg, alice()) } else { self.caller.receive(now, msg, bob()) }
        }
        self.caller.handle_timeout(now);
        self.called.handle_timeout(now);
        if self.cancel_at.is_some_and(|(at, _)| at <= now)
            && let Some((_, key)) = self.cancel_at.take()
        {
            self.caller.cancel(now, key);
        }
        if self.answer_at.is_some_and(|at| at <= now) {
            self.answer_at = None;
            self.finish(if self.act == Act::Refuse { 486 } else { 200 });
        }
        match self.retransmit.as_mut().map(|retransmit| retransmit.poll(now)) {
            Some(Due::Send(bytes, peer)) => self.called.send(bytes, peer),
            Some(Due::Expired) => {
                self.retransmit = None;
                self.outcome.expired = true;
            }
            Some(Due::Wait(_)) | None => {}
        }
    }

    fn finish(&mut self, status: u16) {
        let Some((key, msg)) = self.invite.take() else { return };
        let bytes = response(&msg, status, "b");
        if status == 200 {
            let peer = self.called.response_peer(key).unwrap();
            self.retransmit = Some(Retransmit::new(self.now, &Timers::default(), bytes.clone(), peer));
        }
        self.called.respond(self.now, key, bytes);
    }

    fn settle(&mut self) {
        while let Some(event) = self.called.poll_event() {
            match event {
                TransactionEvent::Request { key, msg, .. } => {
                    self.outcome.requests += 1;
                    if self.act == Act::Options {
                        self.called.respond(self.now, key, response(&msg, 200, "b"));
                    } else {
                        self.called.respond(self.now, key, response(&msg, 180, "b"));
                        self.answer_at = (self.act != Act::Cancel).then(|| self.now + 3 * SECOND);
                        self.invite = Some((key, msg));
                    }
                }
                TransactionEvent::Cancel { key, msg, invite, .. } => {
                    self.outcome.cancels += 1;
                    self.called.respond(self.now, key, response(&msg, if invite.is_some() { 200 } else { 481 }, "b"));
                    self.finish(487);
                }
                TransactionEvent::Ack { .. } => {
                    self.outcome.acks += 1;
                    self.retransmit = None;
                }
                _ => {}
            }
        }
        while let Some(event) = self.caller.poll_event() {
            match event {
                TransactionEvent::Response { msg, .. } if msg.status() >= 200 => {
                    self.outcome.finals.push(msg.status());
                    if *msg.method() == Method::Invite && msg.status() < 300 {
                        self.caller.send(request(&Method::Ack, "z9hG4bKworldack"), bob());
                    }
                }
                TransactionEvent::Timeout { .. } => self.outcome.timeouts += 1,
                _ => {}
            }
        }
        if self.act == Act::Cancel && self.outcome.timeouts > 0 {
            // The caller gave up and no CANCEL came through: the called side stops ringing by itself.
            self.finish(480);
        }
        for to_called in [true, false] {
            let side = if to_called { &mut self.caller } else { &mut self.called };
            while let Some((bytes, _)) = side.poll_transmit() {
                self.sent += 1;
                if self.random.draw() % 100 < self.loss_percent {
                    continue;
                }
                let copies = if self.random.draw() % 100 < TWICE_PERCENT { 2 } else { 1 };
                for copy in 0..copies {
                    let delay = Duration::from_millis(1 + self.random.draw() % 300);
                    self.network.insert((self.now + delay, 2 * self.sent + copy), (to_called, bytes.clone()));
                }
            }
        }
    }
}

#[test]
fn calls_end_the_same_way_on_both_sides_over_a_lossy_network() {
    soak::sweep("transactions over a lossy network", |seed| {
        for loss in [0, 10, 30] {
            let answered = World::run(seed, loss, Act::Answer);
            let context = format!("seed {seed} loss {loss} {answered:?}");
            assert!(answered.requests <= 1, "{context}");
            assert!(answered.finals.iter().all(|status| *status == 200), "{context}");
            if answered.timeouts == 0 && answered.requests == 1 && !answered.finals.is_empty() {
                assert!(answered.acks >= 1 || answered.expired, "{context}");
            }
            if loss == 0 {
                assert_eq!((answered.requests, answered.timeouts, answered.expired), (1, 0, false), "{context}");
                assert!(!answered.finals.is_empty() && answered.acks >= 1, "{context}");
            }

            let refused = World::run(seed, loss, Act::Refuse);
            let context = format!("seed {seed} loss {loss} {refused:?}");
            assert!(refused.requests <= 1 && refused.acks == 0 && !refused.expired, "{context}");
            assert!(refused.finals == [486] || refused.finals.is_empty() && loss > 0, "{context}");

            let cancelled = World::run(seed, loss, Act::Cancel);
            let context = format!("seed {seed} loss {loss} {cancelled:?}");
            assert!(cancelled.cancels <= 1 && cancelled.requests <= 1, "{context}");
            assert!(cancelled.finals == [487] || cancelled.timeouts == 1 && loss > 0, "{context}");

            let options = World::run(seed, loss, Act::Options);
            let context = format!("seed {seed} loss {loss} {options:?}");
            assert!(options.requests <= 1, "{context}");
            assert_eq!(options.finals.len() + usize::try_from(options.timeouts).unwrap(), 1, "{context}");
            assert!(options.timeouts == 0 || loss > 0, "{context}");
        }
    });
}
