//! The relay over real sockets on loopback.

mod hostile;
mod quality;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{MediaSession, MediaSnapshot, Relay, RelayConfig, RelayHandle, RemoteMedia, Side, StartError};
use media_engine::rtp::{HEADER_LEN, RtpHeader};
use media_engine::sdp::Direction;
use model::time::{Clock, Now, Timestamp};

/// Longest wait for a packet that must come.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct TestClock {
    start: Instant,
    ms: AtomicU64,
}

impl TestClock {
    #[expect(clippy::disallowed_methods, reason = "the start of a clock that only the test moves")]
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), ms: AtomicU64::new(0) })
    }

    fn advance(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let ms = self.ms.load(Ordering::SeqCst);
        Now { mono: self.start + Duration::from_millis(ms), utc: Timestamp(i64::try_from(ms).unwrap()) }
    }
}

struct Phone(UdpSocket);

impl Phone {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// RTP and RTCP on neighbouring ports.
    fn pair() -> (Self, Self) {
        for _ in 0..256 {
            let first = Self::new();
            let addr = SocketAddr::new(first.addr().ip(), first.addr().port() + 1);
            if let Ok(second) = UdpSocket::bind(addr) {
                second.set_read_timeout(Some(PATIENCE)).unwrap();
                return (first, Self(second));
            }
        }
        panic!("no two neighbouring ports are free");
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn raw(&self, packet: &[u8], to: SocketAddr) {
        assert_eq!(self.0.send_to(packet, to).unwrap(), packet.len());
    }

    fn send(&self, sequence: u16, to: SocketAddr) {
        self.raw(&rtp(sequence), to);
    }

    /// The next packet: its sequence number, and where it came from.
    fn receive(&self) -> (u16, SocketAddr) {
        let (packet, from) = self.receive_raw();
        (RtpHeader::parse(&packet).unwrap().sequence, from)
    }

    fn receive_raw(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 4096];
        let (length, from) = self.0.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    }
}

fn rtp(sequence: u16) -> Vec<u8> {
    let header = RtpHeader {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp: u32::from(sequence) * 160,
        ssrc: 7,
        header_len: HEADER_LEN,
        payload_len: 160,
    };
    let mut packet = header.to_bytes().to_vec();
    packet.extend([0xff; 160]);
    packet
}

fn config(sessions: usize) -> RelayConfig {
    RelayConfig { sessions, port_min: 0, ..RelayConfig::default() }
}

struct Rig {
    clock: Arc<TestClock>,
    relay: Relay,
    handle: RelayHandle,
}

fn rig(config: &RelayConfig) -> Rig {
    let clock = TestClock::new();
    let relay = Relay::start(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let handle = relay.handle();
    Rig { clock, relay, handle }
}

impl Rig {
    fn call(&mut self, a: &Phone, b: &Phone) -> (MediaSession, SocketAddr, SocketAddr) {
        let session = self.handle.open().unwrap();
        self.handle.set_remote(session, Side::Caller, &RemoteMedia::at(a.addr()));
        self.handle.set_remote(session, Side::Callee, &RemoteMedia::at(b.addr()));
        (session, self.handle.local(session, Side::Caller), self.handle.local(session, Side::Callee))
    }
}

/// Counters are published after the packet was sent on: waits until they say what is expected.
#[expect(clippy::disallowed_methods, reason = "the bound of a wait for another thread is real time")]
fn wait_for(handle: &RelayHandle, session: MediaSession, done: impl Fn(&MediaSnapshot) -> bool) -> MediaSnapshot {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let snapshot = handle.snapshot(session);
        if done(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "never came: {snapshot:?}");
        std::thread::yield_now();
    }
}

#[test]
fn two_sides_talk_and_are_counted() {
    let mut rig = rig(&config(2));
    let (a, b) = (Phone::new(), Phone::new());
    let (session, to_a_side, to_b_side) = rig.call(&a, &b);
    assert_eq!(to_a_side.port() % 2, 0);
    assert_eq!(rig.handle.snapshot(session), MediaSnapshot { silence_ms: Some(0), ..MediaSnapshot::default() });
    for sequence in [10, 11, 13, 14, 17] {
        a.send(sequence, to_a_side);
        assert_eq!(b.receive(), (sequence, to_b_side));
    }
    b.send(1, to_b_side);
    assert_eq!(a.receive(), (1, to_a_side));
    rig.clock.advance(250);
    let snapshot = wait_for(&rig.handle, session, |s| s.a.packets_sent == 1);
    assert_eq!((snapshot.a.packets_received, snapshot.a.packets_lost, snapshot.a.octets_received), (5, 3, 800));
    assert_eq!((snapshot.b.packets_received, snapshot.b.packets_lost, snapshot.b.packets_sent), (1, 0, 5));
    assert_eq!(snapshot.silence_ms, Some(250));
    assert_eq!(rig.handle.close(session), snapshot);
    assert_eq!(rig.handle.close(session), MediaSnapshot::default(), "closed once");
    assert_eq!(rig.handle.snapshot(session), MediaSnapshot::default());
}

#[test]
fn a_device_behind_nat_is_heard_where_it_sends_from() {
    let mut rig = rig(&config(1));
    let (a, b, inside) = (Phone::new(), Phone::new(), Phone::new());
    let (session, to_a_side, to_b_side) = rig.call(&inside, &b);
    a.send(1, to_a_side);
    assert_eq!(b.receive().0, 1);
    b.send(2, to_b_side);
    assert_eq!(a.receive().0, 2, "not to the address of the SDP");
    // A new offer names another place.
    let moved = Phone::new();
    rig.handle.set_remote(session, Side::Caller, &RemoteMedia::at(moved.addr()));
    b.send(3, to_b_side);
    assert_eq!(moved.receive().0, 3);
    // Its old place, or a stranger, does not pull the latch back once it talks.
    a.send(20, to_a_side);
    moved.send(21, to_a_side);
    assert_eq!(b.receive().0, 21);
    a.send(22, to_a_side);
    b.send(4, to_b_side);
    assert_eq!(moved.receive().0, 4);
    // Hold: nothing goes to the caller, the callee is still counted.
    rig.handle.set_remote(session, Side::Caller, &RemoteMedia::at("0.0.0.0:4000".parse().unwrap()));
    b.send(5, to_b_side);
    let snapshot = wait_for(&rig.handle, session, |s| s.b.packets_received == 4);
    assert_eq!(snapshot.a.packets_sent, 3);
    // Back at the same place: where it was heard last.
    rig.handle.set_remote(session, Side::Caller, &RemoteMedia::at(moved.addr()));
    b.send(6, to_b_side);
    assert_eq!(moved.receive().0, 6);
}

#[test]
fn a_held_call_is_not_silent() {
    let mut rig = rig(&config(1));
    let (a, b) = (Phone::new(), Phone::new());
    let session = rig.handle.open().unwrap();
    let describe = |rig: &mut Rig, side, direction| {
        let addr = if side == Side::Caller { a.addr() } else { b.addr() };
        rig.handle.set_remote(session, side, &RemoteMedia { direction, ..RemoteMedia::at(addr) });
        rig.handle.snapshot(session).silence_ms
    };
    rig.clock.advance(100);
    assert_eq!(describe(&mut rig, Side::Caller, Direction::SendRecv), None, "the callee is not known yet");
    rig.clock.advance(100);
    assert_eq!(describe(&mut rig, Side::Callee, Direction::SendRecv), Some(0));
    rig.clock.advance(400);
    assert_eq!(rig.handle.snapshot(session).silence_ms, Some(400), "nobody was ever heard");
    a.send(1, rig.handle.local(session, Side::Caller));
    assert_eq!(b.receive().0, 1);
    wait_for(&rig.handle, session, |s| s.silence_ms == Some(0));
    for (caller, callee) in [(Direction::SendOnly, Direction::RecvOnly), (Direction::Inactive, Direction::Inactive)] {
        describe(&mut rig, Side::Caller, caller);
        assert_eq!(describe(&mut rig, Side::Callee, callee), None);
        rig.clock.advance(90_000);
        assert_eq!(rig.handle.snapshot(session).silence_ms, None, "held for a minute and a half");
    }
    describe(&mut rig, Side::Caller, Direction::SendRecv);
    assert_eq!(describe(&mut rig, Side::Callee, Direction::SendRecv), Some(0), "counted from the end of the hold");
    rig.clock.advance(700);
    assert_eq!(rig.handle.close(session).silence_ms, Some(700));
}

#[test]
fn garbage_and_strangers_change_nothing() {
    let mut rig = rig(&config(1));
    let (a, b, stranger) = (Phone::new(), Phone::new(), Phone::new());
    let (session, to_a_side, _) = rig.call(&a, &b);
    a.send(1, to_a_side);
    assert_eq!(b.receive().0, 1);
    for garbage in [&b""[..], b"hello", &[0x80; 11], &[0; 200], &[0x80; 2_500], &[0xbf; 40]] {
        a.raw(garbage, to_a_side);
    }
    stranger.send(900, to_a_side);
    stranger.raw(&[0x81, 200, 0, 1, 0, 0, 0, 1], to_a_side);
    stranger.send(901, to_a_side);
    // All of these wait in one socket: when the last packet is through, they were judged.
    a.send(2, to_a_side);
    assert_eq!(b.receive().0, 2);
    let snapshot = wait_for(&rig.handle, session, |s| s.b.packets_sent == 2);
    assert_eq!((snapshot.a.packets_received, snapshot.a.packets_lost), (2, 0));
    // After silence, another source may take over.
    rig.clock.advance(RelayConfig::default().silence_ms + 1);
    stranger.send(3, to_a_side);
    assert_eq!(b.receive().0, 3);
}

#[test]
fn rtcp_passes_on_its_own_port_and_multiplexed_uncounted() {
    let mut rig = rig(&config(1));
    let ((a, a_rtcp), b, b_rtcp) = (Phone::pair(), Phone::new(), Phone::new());
    let (session, to_a_side, to_b_side) = rig.call(&a, &b);
    let report = [0x81, 200, 0, 1, 9, 9, 9, 9];
    let next = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() + 1);
    // The callee's RTCP comes from another port than the next: latched.
    b_rtcp.raw(&report, next(to_b_side));
    assert_eq!(a_rtcp.receive_raw(), (report.to_vec(), next(to_a_side)));
    a_rtcp.raw(&report, next(to_a_side));
    assert_eq!(b_rtcp.receive_raw(), (report.to_vec(), next(to_b_side)));
    a.send(1, to_a_side);
    a.raw(&report, to_a_side);
    // Multiplexed RTCP does not latch, so RTP comes first.
    assert_eq!(b.receive().0, 1);
    assert_eq!(b.receive_raw(), (report.to_vec(), to_b_side));
    let snapshot = wait_for(&rig.handle, session, |s| s.b.packets_sent == 1);
    assert_eq!((snapshot.a.packets_received, snapshot.b.packets_received), (1, 0));
}

#[test]
fn ports_rest_and_start_clean() {
    let mut rig = rig(&config(1));
    let (a, b) = (Phone::new(), Phone::new());
    let (first, to_a_side, _) = rig.call(&a, &b);
    assert_eq!(rig.relay.sessions_open(), 1);
    assert_eq!(rig.handle.open(), None, "the pool is empty");
    a.send(1, to_a_side);
    assert_eq!(b.receive().0, 1);
    rig.handle.close(first);
    assert_eq!(rig.relay.sessions_open(), 0);
    assert_eq!(rig.handle.open(), None, "the ports rest");
    // A stray packet of the old call.
    a.send(2, to_a_side);
    rig.clock.advance(RelayConfig::default().quarantine_ms);
    let (c, d) = (Phone::new(), Phone::new());
    let (second, to_c_side, _) = rig.call(&c, &d);
    assert_eq!(to_c_side, to_a_side);
    assert_ne!(first, second);
    rig.handle.set_remote(first, Side::Callee, &RemoteMedia::at(b.addr()));
    assert_eq!(rig.handle.snapshot(first), MediaSnapshot::default(), "a stale handle reads nothing");
    c.send(50, to_c_side);
    // The test's clock gave the stray no real time to be dropped: it may still be in the socket's queue and come first.
    // The signalled party takes over at once in either case.
    let first_heard = d.receive().0;
    assert!(first_heard == 50 || (first_heard == 2 && d.receive().0 == 50), "{first_heard}");
}

#[test]
fn many_sessions_on_two_threads_do_not_mix() {
    let mut rig = rig(&RelayConfig { threads: 2, ..config(6) });
    assert_eq!(rig.relay.sessions_max(), 6);
    let mut other_shard = rig.relay.handle();
    let mut calls = Vec::new();
    for n in 0..6_u16 {
        let (a, b) = (Phone::new(), Phone::new());
        let handle = if n % 2 == 0 { &mut rig.handle } else { &mut other_shard };
        let session = handle.open().unwrap();
        handle.set_remote(session, Side::Caller, &RemoteMedia::at(a.addr()));
        handle.set_remote(session, Side::Callee, &RemoteMedia::at(b.addr()));
        calls.push((handle.local(session, Side::Caller), session, a, b, n * 1_000));
    }
    assert_eq!(other_shard.open(), None);
    for step in 0..40 {
        for (to, _, a, _, base) in &calls {
            a.send(base + step, *to);
        }
    }
    for (_, session, _, b, base) in &calls {
        for step in 0..40 {
            assert_eq!(b.receive().0, base + step);
        }
        let snapshot = wait_for(&rig.handle, *session, |s| s.b.packets_sent == 40);
        assert_eq!((snapshot.a.packets_received, snapshot.a.packets_lost), (40, 0));
    }
    rig.relay.shutdown();
}

#[test]
fn says_how_many_ports_were_free() {
    // A pair that is taken is passed over; a range that ends says so.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port() & !1;
    let config = RelayConfig { sessions: 1, port_min: port, port_max: port + 3, ..RelayConfig::default() };
    match Relay::start(&config, TestClock::new()) {
        Err(StartError::Bind { bound: 0, wanted: 1, source: Some(_) }) => {}
        other => panic!("{other:?}"),
    }
}
