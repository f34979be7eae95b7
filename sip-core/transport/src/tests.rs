//! A node of four shards on real loopback sockets, with the real journal and the real relay.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::{Deps, JournalSink, Node, NodeEvents, Notify, PlacesSink, StartError, TcpConfig, TransportConfig};
use arc_swap::ArcSwap;
use db::Position;
use db::journal::{Journal, JournalReader, Places};
use db::system::{SystemClock, SystemIds};
use media_relay::{MediaSession, MediaSnapshot, Relay, RelayConfig, RelayHandle, RemoteMedia, Side};
use model::cause::ReleaseCause;
use model::event::fact::{Fact, ReleasedBy};
use model::id::{AccountId, CallId, DomainId, SubscriberId, TrunkId};
use model::secret::Secret;
use model::tenancy::AccountPath;
use model::time::{Clock, Now, Timestamp};
use sip_engine::digest::{DigestClient, DigestConfig};
use sip_engine::{TransactionConfig, Transport};
use sip_message::{HeaderName, Message};
use sip_services::directory::{Account, Directory, DirectoryChange, DirectoryEntry, Domain, Subscriber, Trunk};
use sip_services::location::{Binding, Registration, RegistrationChange};
use sip_services::trunk::TrunkReason;
use sip_services::{MediaPort, ServicesConfig, ha1_pair};
use uuid::Uuid;

mod garbage;
mod tcp;
mod wire;

use wire::Wire;

/// How long anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(10);

struct Sink(Journal);
struct SinkPlaces(Places);

impl JournalSink for Sink {
    fn reserve(&self) -> Option<Box<dyn PlacesSink>> {
        self.0.reserve().ok().map(|places| Box::new(SinkPlaces(places)) as Box<dyn PlacesSink>)
    }
    fn append(&self, fact: Fact) {
        self.0.append(&fact, None).expect("an idle journal has room");
    }
}

impl PlacesSink for SinkPlaces {
    fn append(&mut self, fact: Fact, notify: Option<Notify>) {
        self.0.append(&fact, notify).expect("a reserved place");
    }
}

struct Media(RelayHandle);

impl MediaPort for Media {
    fn open(&mut self, _: CallId) -> Option<MediaSession> {
        self.0.open()
    }
    fn local(&self, session: MediaSession, side: Side) -> SocketAddr {
        self.0.local(session, side)
    }
    fn set_remote(&mut self, session: MediaSession, side: Side, media: &RemoteMedia) {
        self.0.set_remote(session, side, media);
    }
    fn snapshot(&self, session: MediaSession) -> MediaSnapshot {
        self.0.snapshot(session)
    }
    fn close(&mut self, session: MediaSession) -> MediaSnapshot {
        self.0.close(session)
    }
}

#[derive(Default)]
struct Heard {
    registrations: Mutex<Vec<RegistrationChange>>,
    trunks: Mutex<Vec<(bool, TrunkReason)>>,
    bound: Condvar,
    changed: Condvar,
    /// The next change of a registration meets a defect.
    panics: AtomicBool,
}

impl NodeEvents for Heard {
    fn registration_changed(&self, change: RegistrationChange) {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a defect, as asked for");
        self.registrations.lock().unwrap().push(change);
        self.bound.notify_all();
    }
    fn trunk_changed(&self, _: TrunkId, up: bool, reason: TrunkReason) {
        self.trunks.lock().unwrap().push((up, reason));
        self.changed.notify_all();
    }
}

fn subscriber_id(n: u128) -> SubscriberId {
    SubscriberId::from_uuid(Uuid::from_u128(n))
}

/// One customer with Alice (100) and Bob (101), and a trunk where nobody answers.
fn directory(trunk: SocketAddr) -> Directory {
    let id = AccountId::from_uuid(Uuid::from_u128(1));
    let path = AccountPath::root(id);
    let domain = DomainId::from_uuid(Uuid::from_u128(2));
    let subscriber = |n: u128, name: &str, extension: &str| {
        let (md5, sha256) = ha1_pair(name, "alpha.example", &Secret::new("secret".to_owned()));
        DirectoryEntry::Subscriber(Subscriber {
            id: subscriber_id(n),
            account: id,
            domain,
            site: None,
            username: name.to_owned(),
            extension: Some(extension.to_owned()),
            ha1_md5: Secret::new(md5),
            ha1_sha256: Secret::new(sha256),
            call_limit: None,
            enabled: true,
        })
    };
    let entries = [
        DirectoryEntry::Account(Account { id, path: path.clone(), call_limit: None, enabled: true }),
        DirectoryEntry::Domain(Domain {
            id: domain,
            name: "alpha.example".parse().unwrap(),
            account: id,
            country_code: "43".to_owned(),
            national_prefix: "0".to_owned(),
            international_prefix: "00".to_owned(),
        }),
        subscriber(10, "alice", "100"),
        subscriber(11, "bob", "101"),
        DirectoryEntry::Trunk(Trunk {
            id: TrunkId::from_uuid(Uuid::from_u128(20)),
            account: id,
            path,
            name: "carrier".to_owned(),
            address: trunk,
            credentials: None,
            registration: None,
            call_limit: None,
            priority: 1,
            keepalive_ms: 50,
            enabled: true,
        }),
    ];
    Directory::default().apply(entries.map(DirectoryChange::Upsert))
}

struct Rig {
    node: Node,
    journal: Journal,
    heard: Arc<Heard>,
    _relay: Relay,
    data: tempfile::TempDir,
    /// Takes the trunk's OPTIONS and says nothing.
    _trunk: UdpSocket,
}

/// A clock with a defect, when asked for one.
#[derive(Debug, Default)]
struct FaultyClock(AtomicBool);

impl Clock for FaultyClock {
    fn now(&self) -> Now {
        assert!(!self.0.swap(false, Ordering::SeqCst), "a defect, as asked for");
        SystemClock.now()
    }
}

fn start(registrations: Vec<Registration>) -> Rig {
    start_with(registrations, Arc::new(SystemClock), TcpConfig::default())
}

fn start_tcp(tcp: TcpConfig) -> Rig {
    start_with(Vec::new(), Arc::new(SystemClock), tcp)
}

fn start_with(registrations: Vec<Registration>, node_clock: Arc<dyn Clock>, tcp: TcpConfig) -> Rig {
    let data = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (journal, _) = Journal::open(data.path(), Arc::clone(&clock), "test").unwrap();
    let relay = RelayConfig { sessions: 32, port_min: 0, port_max: 0, ..RelayConfig::default() };
    let relay = Relay::start(&relay, Arc::clone(&clock)).unwrap();
    let trunk = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let heard = Arc::new(Heard::default());
    let handles: Vec<RelayHandle> = (0..4).map(|_| relay.handle()).collect();
    let mut handles = handles.into_iter();
    let deps = Deps {
        directory: Arc::new(ArcSwap::from_pointee(directory(trunk.local_addr().unwrap()))),
        registrations,
        media: Box::new(move |_| Box::new(Media(handles.next().unwrap()))),
        journal: Arc::new(Sink(journal.clone())),
        events: heard.clone(),
        clock: node_clock,
        ids: Arc::new(SystemIds),
        seed: Secret::new([7; 32]),
        services: ServicesConfig { trunk_answer_max_ms: 30, ..ServicesConfig::default() },
        transactions: TransactionConfig::default(),
        digest: DigestConfig::default(),
    };
    let node = Node::start(&TransportConfig { tcp, ..config(0) }, deps).unwrap();
    Rig { node, journal, heard, _relay: relay, data, _trunk: trunk }
}

fn config(port: u16) -> TransportConfig {
    TransportConfig {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        shards: 4,
        socket_buffer_bytes: 200_000,
        ..TransportConfig::default()
    }
}

fn facts(data: &Path) -> Vec<Fact> {
    let records = JournalReader::open(data).read_after(Position::START, 1_000).unwrap();
    records.into_iter().map(|r| r.fact).filter(|f| !matches!(f, Fact::Started(_) | Fact::Heartbeat(_))).collect()
}

/// A phone that does one thing after the other.
struct Phone {
    user: &'static str,
    wire: Wire,
    server: SocketAddr,
    serial: u32,
    /// What its Via and Contact say, when that is not the address of its wire.
    reached_at: Option<SocketAddr>,
    /// Calls that it was rung for.
    rung: RefCell<BTreeSet<Vec<u8>>>,
}

impl Phone {
    fn new(user: &'static str, rig: &Rig) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::over(user, Wire::udp(socket, rig.node.local_addrs()[0]), rig)
    }

    fn over(user: &'static str, wire: Wire, rig: &Rig) -> Self {
        Self { user, wire, server: rig.node.local_addrs()[0], serial: 0, reached_at: None, rung: RefCell::default() }
    }

    fn address(&self) -> SocketAddr {
        self.reached_at.unwrap_or_else(|| self.wire.address())
    }

    fn send(&self, text: &str) {
        self.wire.send(text.as_bytes());
    }

    /// The next message for which `wanted` holds; retransmissions of others are passed over.
    #[track_caller]
    fn wait(&self, wanted: impl Fn(&Message) -> bool) -> Message {
        let mut passed = Vec::new();
        for _ in 0..100 {
            let Some(message) = self.wire.receive(WAIT_MAX) else {
                panic!("what was waited for did not come, but: {passed:#?}")
            };
            if wanted(&message) {
                return message;
            }
            passed.push(String::from_utf8_lossy(message.as_bytes()).into_owned());
        }
        panic!("a hundred messages, and not the one that was waited for");
    }

    #[track_caller]
    fn wait_status(&self, method: &str, status: u16) -> Message {
        self.wait(|m| !m.is_request() && m.method().as_bytes() == method.as_bytes() && m.status() == status)
    }

    /// As [`Phone::wait_status`], for one call: an answer of an earlier one may come again.
    #[track_caller]
    fn wait_answer(&self, call_id: &str, method: &str, status: u16) -> Message {
        let own = |m: &Message| m.call_id() == call_id.as_bytes() && m.method().as_bytes() == method.as_bytes();
        self.wait(|m| !m.is_request() && own(m) && m.status() == status)
    }

    /// The INVITE of a call that it was not rung for before.
    #[track_caller]
    fn wait_ring(&self) -> Message {
        let new = |m: &Message| m.to().unwrap().tag().is_none() && !self.rung.borrow().contains(m.call_id());
        let invite = self.wait(|m| m.is_request() && m.method().as_bytes() == b"INVITE" && new(m));
        self.rung.borrow_mut().insert(invite.call_id().to_vec());
        invite
    }

    /// A request within the call that `invite` rang for.
    #[track_caller]
    fn wait_within(&self, invite: &Message, method: &str) -> Message {
        let own = |m: &Message| m.call_id() == invite.call_id() && m.method().as_bytes() == method.as_bytes();
        self.wait(|m| m.is_request() && own(m))
    }

    #[track_caller]
    fn wait_request(&self, method: &str) -> Message {
        self.wait(|m| m.is_request() && m.method().as_bytes() == method.as_bytes())
    }

    fn request(&mut self, method: &str, uri: &str, to: &str, call_id: &str, extra: &str, body: &str) -> String {
        self.serial += 1;
        let (user, address, serial) = (self.user, self.address(), self.serial);
        let (transport, param) = (self.wire.transport(), self.wire.contact_param());
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {address};branch=z9hG4bK{user}{serial};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@alpha.example>;tag={user}-tag\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {serial} {method}\r\nContact: <sip:{user}@{address}{param}>\r\n{extra}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[track_caller]
    fn authorized(&mut self, method: &str, uri: &str, to: &str, call_id: &str, body: &str) {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let first = self.request(method, uri, to, call_id, kind, body);
        self.send(&first);
        // One of an earlier request may come again.
        let own = |m: &Message| m.call_id() == call_id.as_bytes() && m.cseq().is_ok_and(|(n, _)| n == self.serial);
        let challenge = self.wait(|m| !m.is_request() && matches!(m.status(), 401 | 407) && own(m));
        let mut client = DigestClient::new(self.user, Secret::new("secret".to_owned()));
        let (name, value) =
            client.answer(&challenge, method.as_bytes(), uri.as_bytes(), body.as_bytes(), "cnonce").unwrap();
        let extra = format!("{}: {}\r\n{kind}", name.as_str(), String::from_utf8(value).unwrap());
        if method == "INVITE" {
            let cseq = challenge.cseq().unwrap().0;
            let to = String::from_utf8(challenge.header(HeaderName::To).unwrap().to_vec()).unwrap();
            let via = String::from_utf8(challenge.header(HeaderName::Via).unwrap().to_vec()).unwrap();
            let ack = self.request("ACK", uri, &to, call_id, "", "").replace("CSeq: ", "X: ");
            let (transport, address) = (self.wire.transport(), self.address());
            let own = format!("Via: SIP/2.0/{transport} {address};branch=z9hG4bK{}{};rport", self.user, self.serial);
            self.send(&ack.replace(&own, &format!("Via: {via}\r\nCSeq: {cseq} ACK")));
        }
        let second = self.request(method, uri, to, call_id, &extra, body);
        self.send(&second);
    }

    fn register(&mut self) {
        let to = format!("<sip:{}@alpha.example>", self.user);
        self.authorized("REGISTER", "sip:alpha.example", &to, &format!("register-{}", self.user), "");
        self.wait_status("REGISTER", 200);
    }

    fn sdp(&self) -> String {
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
            .to_owned()
    }

    fn reply(&self, request: &Message, status: u16, body: &str) {
        let builder = sip_message::build::ResponseBuilder::response_to(request, status, "Fine")
            .to_tag(self.user.as_bytes())
            .header(
                HeaderName::Contact,
                format!("<sip:{}@{}{}>", self.user, self.address(), self.wire.contact_param()),
            );
        let builder = if body.is_empty() { builder } else { builder.body("application/sdp", body) };
        self.wire.send(&builder.finish().unwrap());
    }

    /// In-dialog, after the 200 `ok`.
    fn within(&mut self, method: &str, ok: &Message, call_id: &str) {
        let to = String::from_utf8(ok.header(HeaderName::To).unwrap().to_vec()).unwrap();
        let uri = format!("sip:{}", self.server);
        let text = self.request(method, &uri, &to, call_id, "", "");
        self.send(&text);
    }
}

/// Alice calls Bob, who answers; the 200 that Alice gets and the INVITE that Bob got.
#[track_caller]
fn talk(alice: &mut Phone, bob: &Phone, call_id: &str) -> (Message, Message) {
    let sdp = alice.sdp();
    alice.authorized("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", call_id, &sdp);
    let invite = bob.wait_ring();
    bob.reply(&invite, 180, "");
    alice.wait_answer(call_id, "INVITE", 180);
    bob.reply(&invite, 200, &bob.sdp());
    let ok = alice.wait_answer(call_id, "INVITE", 200);
    bob.wait_within(&invite, "ACK");
    alice.serial -= 1;
    alice.within("ACK", &ok, call_id);
    (ok, invite)
}

/// One whole call, hung up by its caller.
#[track_caller]
fn whole_call(alice: &mut Phone, bob: &Phone, call_id: &str) {
    let (ok, invite) = talk(alice, bob, call_id);
    alice.within("BYE", &ok, call_id);
    alice.wait_answer(call_id, "BYE", 200);
    let bye = bob.wait_within(&invite, "BYE");
    bob.reply(&bye, 200, "");
}

#[test]
fn calls_cross_shards_and_reach_the_journal() {
    let rig = start(Vec::new());
    let (mut alice, mut bob) = (Phone::new("alice", &rig), Phone::new("bob", &rig));
    // What is no SIP must do no harm to what follows.
    for junk in
        ["", "\r\n\r\n", "\0", "INVITE", "SIP/2.0 200 OK\r\n\r\n", "INVITE sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n"]
    {
        alice.send(junk);
    }
    alice.register();
    bob.register();
    assert_eq!(rig.node.registered(), 2);
    // The phone's 200 does not wait for whoever stores the binding.
    let told = rig.heard.registrations.lock().unwrap();
    let (told, _) = rig.heard.bound.wait_timeout_while(told, WAIT_MAX, |told| told.len() < 2).unwrap();
    assert_eq!(told.len(), 2);
    drop(told);
    // One socket each, so all datagrams of a phone arrive at one shard; twelve Call-IDs spread over the four.
    for n in 0..12 {
        let call_id = format!("call-{n}");
        let (ok, invite) = talk(&mut alice, &bob, &call_id);
        assert_eq!(rig.node.calls_up(), 1);
        alice.within("BYE", &ok, &call_id);
        alice.wait_answer(&call_id, "BYE", 200);
        let bye = bob.wait_within(&invite, "BYE");
        bob.reply(&bye, 200, "");
    }
    assert_eq!((rig.node.calls(), rig.node.drain(WAIT_MAX)), (0, 0));
    rig.node.shutdown();
    rig.journal.close();
    let facts = facts(rig.data.path());
    assert_eq!(facts.iter().filter(|fact| matches!(fact, Fact::Answered(_))).count(), 12);
    let ends = facts.iter().filter(|fact| matches!(fact, Fact::Ended(e) if e.released_by == ReleasedBy::Caller));
    assert_eq!(ends.count(), 12);
}

#[test]
fn a_panic_beside_the_core_ends_no_shard() {
    let rig = start(Vec::new());
    let mut alice = Phone::new("alice", &rig);
    rig.heard.panics.store(true, Ordering::SeqCst);
    alice.register();
    let told = rig.heard.registrations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(told.is_empty(), "the report met the defect");
    drop(told);
    alice.register();
    assert_eq!((rig.node.registered(), rig.node.shards_dead()), (1, 0));
}

#[test]
fn a_dead_shard_is_seen() {
    let clock = Arc::new(FaultyClock::default());
    let rig = start_with(Vec::new(), clock.clone(), TcpConfig::default());
    assert_eq!(rig.node.shards_dead(), 0);
    clock.0.store(true, Ordering::SeqCst);
    // Each shard looks at the clock at least once a second; the first to do so dies.
    let deadline = SystemClock.now().mono + WAIT_MAX;
    while rig.node.shards_dead() == 0 && SystemClock.now().mono < deadline {
        std::thread::yield_now();
    }
    assert_eq!(rig.node.shards_dead(), 1);
    rig.node.shutdown();
}

#[test]
fn a_shutdown_ends_the_calls_that_are_up() {
    let rig = start(Vec::new());
    let (mut alice, mut bob) = (Phone::new("alice", &rig), Phone::new("bob", &rig));
    alice.register();
    bob.register();
    talk(&mut alice, &bob, "call");
    assert_eq!(rig.node.drain(Duration::from_millis(1)), 1);
    alice.serial += 10;
    let invite = alice.request("INVITE", "sip:101@alpha.example", "<sip:101@alpha.example>", "late", "", "");
    alice.send(&invite);
    let refusal = alice.wait_status("INVITE", 503);
    assert!(refusal.header(HeaderName::RetryAfter).is_some());
    rig.node.shutdown();
    alice.wait_request("BYE");
    bob.wait_request("BYE");
    rig.journal.close();
    let last = facts(rig.data.path()).pop();
    assert!(matches!(last, Some(Fact::Ended(e)) if e.cause == ReleaseCause::AdministrativeClearing));
}

#[test]
fn stored_registrations_are_rung_after_a_restart() {
    let bob = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let source = bob.local_addr().unwrap();
    let binding = Binding {
        contact: format!("sip:bob@{source}").into(),
        source,
        listener: 0,
        transport: Transport::Udp,
        flow: None,
        call_id: "r".into(),
        cseq: 1,
        user_agent: "".into(),
        expires_at: Timestamp(i64::MAX),
        refreshed_at: Timestamp(0),
    };
    let rig = start(vec![Registration { subscriber: subscriber_id(11), binding }]);
    let mut alice = Phone::new("alice", &rig);
    let bob = Phone::over("bob", Wire::udp(bob, rig.node.local_addrs()[0]), &rig);
    talk(&mut alice, &bob, "call");
}

#[test]
fn a_trunk_that_says_nothing_goes_down() {
    let rig = start(Vec::new());
    let trunks = rig.heard.trunks.lock().unwrap();
    let (trunks, waited) = rig.heard.changed.wait_timeout_while(trunks, WAIT_MAX, |t| t.is_empty()).unwrap();
    assert!(!waited.timed_out());
    assert_eq!(*trunks, [(false, TrunkReason::Unanswered)]);
    assert_eq!(rig.node.trunk_states().list().len(), 1);
}

#[test]
fn a_port_is_not_shared_with_a_second_node() {
    let rig = start(Vec::new());
    let port = rig.node.local_addrs()[0].port();
    let deps = Deps {
        directory: Arc::new(ArcSwap::from_pointee(Directory::default())),
        registrations: Vec::new(),
        media: Box::new(|_| unreachable!("no shard is started")),
        journal: Arc::new(Sink(rig.journal.clone())),
        events: rig.heard.clone(),
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
        seed: Secret::new([1; 32]),
        services: ServicesConfig::default(),
        transactions: TransactionConfig::default(),
        digest: DigestConfig::default(),
    };
    assert!(matches!(Node::start(&config(port), deps), Err(StartError::Listen { .. })));
}
