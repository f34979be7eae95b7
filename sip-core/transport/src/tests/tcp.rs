//! SIP over TCP on real loopback connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::*;

fn tcp_phone(user: &'static str, rig: &Rig) -> Phone {
    Phone::over(user, Wire::tcp(rig.node.local_addrs()[0]), rig)
}

/// A connection from another address of the loopback.
fn connect_from(source: &str, rig: &Rig) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&format!("{source}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&rig.node.local_addrs()[0].into()).unwrap();
    socket.into()
}

fn options(n: u32, via: &str) -> String {
    format!(
        "OPTIONS sip:alpha.example SIP/2.0\r\nVia: SIP/2.0/TCP {via};branch=z9hG4bKo{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:x@alpha.example>;tag=x\r\nTo: <sip:alpha.example>\r\nCall-ID: options-{n}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[test]
fn calls_go_over_tcp_and_between_the_transports() {
    let rig = start(Vec::new());
    let (mut alice, mut bob) = (tcp_phone("alice", &rig), tcp_phone("bob", &rig));
    alice.register();
    bob.register();
    for n in 0..8 {
        whole_call(&mut alice, &bob, &format!("tcp-{n}"));
    }
    let mut alice = Phone::new("alice", &rig);
    whole_call(&mut alice, &bob, "udp-tcp");
    let mut alice = tcp_phone("alice", &rig);
    let mut bob = Phone::new("bob", &rig);
    bob.register();
    whole_call(&mut alice, &bob, "tcp-udp");
    assert_eq!((rig.node.calls(), rig.node.drain(WAIT_MAX)), (0, 0));
    rig.node.shutdown();
    rig.journal.close();
    let ends = facts(rig.data.path());
    assert_eq!(
        ends.iter().filter(|fact| matches!(fact, Fact::Ended(e) if e.released_by == ReleasedBy::Caller)).count(),
        10
    );
}

#[test]
fn requests_to_a_phone_say_that_they_come_over_tcp() {
    let rig = start(Vec::new());
    let (mut alice, mut bob) = (tcp_phone("alice", &rig), tcp_phone("bob", &rig));
    bob.register();
    let sdp = alice.sdp();
    alice.authorized("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", "params", &sdp);
    let invite = bob.wait_request("INVITE");
    let own = rig.node.local_addrs()[0].to_string();
    let via = invite.top_via().unwrap();
    assert_eq!(
        (via.transport, via.ip(), via.port),
        (&b"TCP"[..], own.parse::<SocketAddr>().ok().map(|a| a.ip()), own.parse::<SocketAddr>().ok().map(|a| a.port()))
    );
    let contact = invite.header(HeaderName::Contact).unwrap();
    assert_eq!(contact, format!("<sip:{own};transport=tcp>").as_bytes());
    assert_eq!(invite.request_uri(), format!("sip:bob@{};transport=tcp", bob.address()).as_bytes());
    bob.reply(&invite, 486, "");
    alice.wait_status("INVITE", 486);
}

#[test]
fn octets_may_come_singly_and_messages_together() {
    let rig = start(Vec::new());
    let phone = tcp_phone("alice", &rig);
    let address = phone.address().to_string();
    for octet in options(1, &address).bytes() {
        phone.wire.send(&[octet]);
    }
    phone.wait_status("OPTIONS", 200);
    let many: String = (2..50).map(|n| options(n, &address)).collect();
    phone.send(&many);
    let mut answered: Vec<Vec<u8>> = (2..50).map(|_| phone.wait_status("OPTIONS", 200).call_id().to_vec()).collect();
    answered.sort();
    answered.dedup();
    assert_eq!(answered.len(), 48);
}

#[test]
fn a_keep_alive_is_answered() {
    let rig = start(Vec::new());
    let wire = Wire::tcp(rig.node.local_addrs()[0]);
    wire.send(b"\r\n");
    wire.send(b"\r\n");
    assert_eq!(wire.read(WAIT_MAX).as_deref(), Some(&b"\r\n"[..]));
}

#[test]
fn what_is_no_sip_ends_its_connection_and_no_other() {
    let rig = start(Vec::new());
    let server = rig.node.local_addrs()[0];
    let good = tcp_phone("alice", &rig);
    let address = good.address().to_string();
    for junk in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\n", &[b'x'; 10_000]] {
        let wire = Wire::tcp(server);
        wire.send(junk);
        assert_eq!(wire.read_to_end(WAIT_MAX), b"", "nothing is said to what is no SIP");
    }
    for (length, status) in
        [("", "400"), ("l: -1\r\n", "400"), ("l: 18446744073709551615\r\n", "400"), ("l: 65535\r\n", "513")]
    {
        let wire = Wire::tcp(server);
        wire.send(options(1, &address).replace("Content-Length: 0\r\n", length).as_bytes());
        wire.send(b"what follows has no beginning");
        let answer = wire.receive(WAIT_MAX).unwrap();
        assert_eq!(answer.status().to_string(), status, "{length}");
        assert_eq!(wire.receive(WAIT_MAX).map(|message| message.status()), None, "then it ends");
    }
    // A message that is bad in itself ends nothing.
    good.send(&options(2, &address).replace("Forwards: 70", "Forwards: 700"));
    good.wait(|message| message.status() == 400);
    good.send(&options(3, &address));
    good.wait_status("OPTIONS", 200);
}

#[test]
fn idle_connections_of_one_host_leave_room_for_the_others() {
    let bounds = TcpConfig { connections_max: 200, connections_per_source_max: 50, ..TcpConfig::default() };
    let rig = start_tcp(bounds);
    let idle: Vec<TcpStream> = (0..1_000).map(|_| connect_from("127.0.0.9", &rig)).collect();
    // A connection that is refused ends at once; all that are held are silent.
    let ended = idle.iter().filter(|stream| {
        let mut stream = *stream;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        matches!(stream.read(&mut [0; 1]), Ok(0))
    });
    // The last ones may still wait to be accepted; by the next answer they are not.
    let mut other = Phone::over("alice", Wire::stream(connect_from("127.0.0.10", &rig)), &rig);
    other.register();
    assert!(ended.count() >= 950);
    let (mut alice, mut bob) = (Phone::new("alice", &rig), tcp_phone("bob", &rig));
    bob.register();
    whole_call(&mut alice, &bob, "beside");
    // Who leaves gives a place back.
    drop(idle);
    let mut late = Phone::over("alice", Wire::stream(connect_from("127.0.0.9", &rig)), &rig);
    late.register();
}

#[test]
fn all_connections_together_are_bounded() {
    let rig = start_tcp(TcpConfig { connections_max: 10, ..TcpConfig::default() });
    let held: Vec<Phone> = (0..10).map(|_| tcp_phone("alice", &rig)).collect();
    for (n, phone) in (0..).zip(&held) {
        phone.send(&options(n, &phone.address().to_string()));
        phone.wait_status("OPTIONS", 200);
    }
    assert_eq!(Wire::tcp(rig.node.local_addrs()[0]).read_to_end(WAIT_MAX), b"");
    let mut alice = Phone::new("alice", &rig);
    alice.register();
}

#[test]
fn the_slow_and_the_silent_are_let_go() {
    let slow = TcpConfig { message_max_ms: 200, idle_max_s: 1, ..TcpConfig::default() };
    let rig = start_tcp(slow);
    let server = rig.node.local_addrs()[0];
    // One says nothing, one says the beginning of a message, one has spoken and is silent since.
    let silent = Wire::tcp(server);
    let halting = Wire::tcp(server);
    halting.send(b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP x");
    let idle = tcp_phone("alice", &rig);
    idle.send(&options(1, &idle.address().to_string()));
    idle.wait_status("OPTIONS", 200);
    for wire in [&silent, &halting, &idle.wire] {
        assert_eq!(wire.read_to_end(WAIT_MAX), b"");
    }
}

#[test]
fn who_does_not_read_holds_up_nobody_and_is_let_go() {
    let rig = start_tcp(TcpConfig { write_queue_max_bytes: 65_536, ..TcpConfig::default() });
    let (mut alice, mut bob) = (tcp_phone("alice", &rig), tcp_phone("bob", &rig));
    bob.register();
    let mut deaf = TcpStream::connect(rig.node.local_addrs()[0]).unwrap();
    deaf.set_write_timeout(Some(WAIT_MAX)).unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let mut calls = 0;
    // The answers fill the buffers of the system, then the queue of the connection; then it ends.
    let ended = (0..200_000_u32).any(|n| {
        if n % 2_000 == 0 && calls < 5 {
            whole_call(&mut alice, &bob, &format!("beside-{n}"));
            calls += 1;
        }
        deaf.write_all(options(n, &address).as_bytes()).is_err()
    });
    assert!(ended, "it would have been answered for ever");
    assert_eq!(calls, 5);
    whole_call(&mut alice, &bob, "after");
}

#[test]
fn an_answer_finds_its_way_when_the_connection_is_gone() {
    let rig = start(Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut alice = tcp_phone("alice", &rig);
    alice.reached_at = listener.local_addr().ok();
    let mut bob = Phone::new("bob", &rig);
    bob.register();
    let sdp = alice.sdp();
    alice.authorized("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", "gone", &sdp);
    let invite = bob.wait_request("INVITE");
    bob.reply(&invite, 180, "");
    alice.wait_status("INVITE", 180);
    alice.wire = Wire::udp(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), alice.server);
    bob.reply(&invite, 200, &bob.sdp());
    alice.wire = Wire::accepted(&listener);
    alice.wait_status("INVITE", 200);
}

#[test]
fn a_phone_is_called_at_its_contact_when_its_connection_is_gone() {
    let rig = start(Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut bob = tcp_phone("bob", &rig);
    bob.reached_at = listener.local_addr().ok();
    bob.register();
    bob.wire = Wire::udp(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), bob.server);
    let mut alice = tcp_phone("alice", &rig);
    let sdp = alice.sdp();
    alice.authorized("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", "contact", &sdp);
    bob.wire = Wire::accepted(&listener);
    let invite = bob.wait_request("INVITE");
    bob.reply(&invite, 486, "");
    alice.wait_status("INVITE", 486);
}

#[test]
fn a_phone_that_is_gone_is_absent_at_once() {
    let rig = start(Vec::new());
    let mut bob = tcp_phone("bob", &rig);
    bob.register();
    drop(bob);
    let mut alice = Phone::new("alice", &rig);
    let sdp = alice.sdp();
    alice.authorized("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", "absent", &sdp);
    // Timer B would take 32 s; the phone here waits for 10.
    alice.wait_status("INVITE", 480);
    assert_eq!(rig.node.calls(), 0);
}

#[test]
fn without_tcp_nobody_listens() {
    let rig = start_tcp(TcpConfig { enabled: false, ..TcpConfig::default() });
    assert!(TcpStream::connect(rig.node.local_addrs()[0]).is_err());
    let mut alice = Phone::new("alice", &rig);
    alice.register();
}
