//! The machine in simulated time against a server with digest, and agents against each other on real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media_engine::sdp::AudioFormat;
use model::event::fact::ReleasedBy;
use model::secret::Secret;
use model::time::{Clock as _, Now};
use sip_engine::digest::{Attempt, DigestConfig, DigestServer, Verdict, find_credentials, ha1};
use sip_engine::{Peer, Timers, TransactionConfig, TransactionEvent, Transactions};
use sip_message::build::ResponseBuilder;
use sip_message::{HeaderName, Message, Method, reason_of};

use super::types::{
    Account, AccountId, Behaviour, CallOutcome, CallRequest, Caller, PlaceError, Progress, RegisterError, Role, Talk,
};
use super::ua::{CallKey, Event, Media, UserAgent};
use super::{Agent, AgentConfig, CallHandle};

const REALM: &[u8] = b"example.com";

/// Ports without sockets.
#[derive(Default)]
struct NoMedia {
    started: HashMap<CallKey, SocketAddr>,
}

impl Media for NoMedia {
    fn open(&mut self, call: CallKey) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, 1], u16::try_from(call).ok()? * 2 + 10_000)))
    }

    fn start(&mut self, call: CallKey, remote: SocketAddr, _: AudioFormat) {
        self.started.insert(call, remote);
    }

    fn close(&mut self, call: CallKey) -> (u64, u64) {
        let talked = u64::from(self.started.remove(&call).is_some());
        (talked, talked)
    }
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 5060))
}

fn start() -> Now {
    db::system::SystemClock.now()
}

fn later(now: Now, ms: u64) -> Now {
    Now { mono: now.mono + Duration::from_millis(ms), utc: now.utc.plus_ms(i64::try_from(ms).unwrap()) }
}

/// A server that challenges everything, and answers what is proven: REGISTER with 200, INVITE with 486.
struct Gate {
    transactions: Transactions,
    digest: DigestServer,
    refused: u32,
    expires_min_s: u32,
    /// Challenges that still say `stale` in spite of good credentials.
    stale: u32,
}

impl Gate {
    fn new(now: Instant) -> Self {
        Self {
            transactions: Transactions::new(TransactionConfig::default(), 1),
            digest: DigestServer::new(DigestConfig::default(), [7; 32], now),
            refused: 0,
            expires_min_s: 0,
            stale: 0,
        }
    }

    fn receive(&mut self, now: Now, bytes: Bytes) {
        let message = Message::parse_datagram(bytes).unwrap();
        self.transactions.receive(now.mono, message, Peer::udp(addr(1), 0));
        while let Some(event) = self.transactions.poll_event() {
            if let TransactionEvent::Request { key, msg, .. } = event {
                let response = self.judge(now, &msg);
                self.transactions.respond(now.mono, key, response);
            }
        }
    }

    fn judge(&mut self, now: Now, request: &Message) -> Bytes {
        let register = *request.method() == Method::Register;
        let (status, asks, carries) = if register {
            (401, HeaderName::WwwAuthenticate, HeaderName::Authorization)
        } else {
            (407, HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization)
        };
        let verdict = find_credentials(request, carries, REALM).unwrap().map(|credentials| {
            let known = Secret::new("secret".to_owned());
            let ha1 = ha1(credentials.algorithm, b"alice", REALM, &known);
            let attempt = Attempt {
                credentials: &credentials,
                realm: REALM,
                method: request.method().as_bytes(),
                body: request.body(),
                ha1: Some(&ha1),
            };
            self.digest.verify(now.mono, &attempt)
        });
        let accepted = verdict == Some(Verdict::Accepted) && self.stale == 0;
        self.refused += u32::from(verdict == Some(Verdict::Rejected));
        let contact = request.header(HeaderName::Contact).unwrap_or_default().to_vec();
        let final_status = match (accepted, register) {
            (false, _) => status,
            (true, true) if request.expires().unwrap() < self.expires_min_s => 423,
            (true, true) => 200,
            (true, false) => 486,
        };
        let mut response = ResponseBuilder::response_to(request, final_status, reason_of(final_status)).to_tag(b"gate");
        if !accepted {
            for challenge in self.digest.challenge(now.mono, REALM, self.stale > 0) {
                response = response.header(asks, challenge);
            }
            self.stale = self.stale.saturating_sub(u32::from(verdict.is_some()));
        } else if register {
            response = response.header(HeaderName::MinExpires, self.expires_min_s.to_string());
            let granted = [&contact[..], b";expires=120"].concat();
            response = response.header(HeaderName::Contact, granted);
        }
        response.finish().unwrap()
    }
}

struct Sim {
    now: Now,
    phone: UserAgent,
    media: NoMedia,
    gate: Gate,
    events: Vec<Event>,
}

impl Sim {
    fn new() -> Self {
        let now = start();
        let phone = UserAgent::new(addr(1), addr(2), Vec::new(), Timers::default(), [1; 32]);
        Self { now, phone, media: NoMedia::default(), gate: Gate::new(now.mono), events: Vec::new() }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let mut moved = false;
            while let Some((bytes, peer)) = self.phone.poll_transmit() {
                assert_eq!(peer.remote, addr(2));
                self.gate.receive(self.now, bytes);
                moved = true;
            }
            while let Some((bytes, _)) = self.gate.transactions.poll_transmit() {
                self.phone.receive(self.now, bytes, addr(2), &mut self.media);
                moved = true;
            }
            while let Some(event) = self.phone.poll_event() {
                self.events.push(event);
            }
            if !moved {
                return;
            }
        }
        panic!("the two talk without end");
    }

    fn account(&mut self, password: &str) -> AccountId {
        self.phone.add_account(Account::new("alice", "example.com", password)).unwrap()
    }

    fn register(&mut self, account: AccountId, expires_s: Option<u32>) -> Result<u32, RegisterError> {
        self.phone.register(self.now, account, expires_s);
        self.settle();
        match self.events.pop() {
            Some(Event::Registered(id, result)) if id == account => result,
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, account: AccountId) -> CallOutcome {
        let request = CallRequest::new(account, "bob", 1_000);
        self.phone.place(self.now, request, &mut self.media).unwrap();
        self.settle();
        match self.events.pop() {
            Some(Event::Ended(_, outcome)) => *outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn proves_itself_to_a_server() {
    let mut sim = Sim::new();
    let account = sim.account("secret");
    assert_eq!(sim.register(account, None), Ok(120));
    for _ in 0..3 {
        let outcome = sim.call(account);
        assert_eq!((outcome.status, outcome.reason.as_str()), (486, "Busy Here"));
        assert_eq!(outcome.released_by, Some(ReleasedBy::Callee));
        assert!(!outcome.is_answered());
    }
    assert_eq!(sim.register(account, Some(0)), Ok(0));
    assert_eq!(sim.gate.refused, 0);
}

#[test]
fn a_wrong_password_is_tried_once() {
    let mut sim = Sim::new();
    let account = sim.account("guess");
    let refused = RegisterError::Refused { status: 401, reason: "Unauthorized".into() };
    assert_eq!(sim.register(account, None), Err(refused));
    assert_eq!(sim.call(account).status, 407);
    assert_eq!(sim.gate.refused, 2);
}

#[test]
fn an_old_nonce_is_renewed_but_not_for_ever() {
    let mut sim = Sim::new();
    let account = sim.account("secret");
    sim.gate.stale = 1;
    assert_eq!(sim.call(account).status, 486);
    sim.gate.stale = 100;
    assert_eq!(sim.call(account).status, 407);
}

#[test]
fn obeys_the_least_expiry_and_refreshes() {
    let mut sim = Sim::new();
    let account = sim.account("secret");
    sim.gate.expires_min_s = 900;
    assert_eq!(sim.register(account, Some(60)), Ok(120));
    // After four fifths of the 120 s that were granted it registers again, unasked.
    sim.now = later(sim.now, 95_000);
    sim.phone.handle_timeout(sim.now, &mut sim.media);
    while sim.phone.poll_transmit().is_some() {}
    sim.now = later(sim.now, 1_001);
    sim.phone.handle_timeout(sim.now, &mut sim.media);
    let (bytes, _) = sim.phone.poll_transmit().unwrap();
    assert_eq!(*Message::parse_datagram(bytes).unwrap().method(), Method::Register);
}

#[test]
fn silence_is_408_and_hostile_octets_are_nothing() {
    let mut sim = Sim::new();
    let account = sim.account("secret");
    sim.phone.place(sim.now, CallRequest::new(account, "bob", 1_000), &mut sim.media).unwrap();
    for garbage in
        [&b""[..], b"\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"BYE sip:a0@x SIP/2.0\r\nVia: x\r\n\r\n", &[0xff; 300]]
    {
        sim.phone.receive(sim.now, Bytes::copy_from_slice(garbage), addr(9), &mut sim.media);
    }
    for _ in 0..400 {
        let Some(next) = sim.phone.next_timeout() else { break };
        let ahead = next.saturating_duration_since(sim.now.mono);
        sim.now = later(sim.now, u64::try_from(ahead.as_millis()).unwrap() + 1);
        sim.phone.handle_timeout(sim.now, &mut sim.media);
        while sim.phone.poll_transmit().is_some() {}
    }
    match sim.phone.poll_event() {
        Some(Event::Ended(_, outcome)) => {
            assert_eq!((outcome.status, outcome.released_by), (408, Some(ReleasedBy::Network)));
        }
        other => panic!("{other:?}"),
    }
    let unusable = CallRequest::new(account, "bob\r\nEvil: yes", 1_000);
    assert_eq!(sim.phone.place(sim.now, unusable, &mut sim.media), Err(PlaceError::Address));
    let unknown = CallRequest::new(AccountId(9), "bob", 1_000);
    assert_eq!(sim.phone.place(sim.now, unknown, &mut sim.media), Err(PlaceError::Account));
}

// Real sockets.

/// A caller whose server is the carrier itself.
async fn pair(behaviour: Behaviour) -> (Agent, Agent, AccountId) {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let carrier = Agent::start(AgentConfig::new(loopback, addr(9)).trunk("+49", behaviour)).await.unwrap();
    let fast = Timers { t1: Duration::from_millis(10), t2: Duration::from_millis(80), ..Timers::default() };
    let config = AgentConfig { timers: fast, ..AgentConfig::new(loopback, carrier.local_addr()) };
    let phone = Agent::start(config).await.unwrap();
    let account = phone.add(Account::new("alice", "example.com", "secret")).await.unwrap();
    (phone, carrier, account)
}

async fn received(carrier: &Agent) -> CallOutcome {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..2_000 {
        if let Some(outcome) = carrier.take_received().pop() {
            return outcome;
        }
        ticks.tick().await;
    }
    panic!("the carrier saw no call end");
}

#[tokio::test]
async fn talks_both_ways_and_counts() {
    let (phone, carrier, account) = pair(Behaviour::Answer { after_ms: 30, talk: Talk::UntilFarEnd }).await;
    let outcome = phone.call(CallRequest::new(account, "+493012345", 300)).await.unwrap();
    assert_eq!((outcome.status, outcome.role), (200, Role::Caller));
    assert_eq!((outcome.released_by, outcome.bye_status), (Some(ReleasedBy::Caller), Some(200)));
    assert!((300..2_000).contains(&outcome.talk_ms), "{outcome:?}");
    assert!(outcome.invited_at <= outcome.ringing_at.unwrap() && outcome.ringing_at <= outcome.answered_at);
    assert!(outcome.answered_at.unwrap() < outcome.ended_at);
    assert!(outcome.rtp_sent >= 10 && outcome.rtp_received >= 10, "{outcome:?}");
    let other = received(&carrier).await;
    assert_eq!((other.role, other.status, other.released_by), (Role::Callee, 200, Some(ReleasedBy::Caller)));
    assert_eq!((other.call_id.as_str(), other.to.as_str()), (outcome.call_id.as_str(), "+493012345"));
    assert!(other.rtp_received >= 10 && other.rtp_received <= outcome.rtp_sent, "{other:?}");
    assert!(serde_json::to_string(&outcome).unwrap().contains("\"released_by\":\"caller\""));
}

#[tokio::test]
async fn the_callee_hangs_up() {
    let (phone, carrier, _) = pair(Behaviour::Answer { after_ms: 0, talk: Talk::Ms(60) }).await;
    let request = CallRequest { hang_up_after_ms: None, ..CallRequest::from_number("+43123", "+4930", 0) };
    let outcome = phone.call(request).await.unwrap();
    assert_eq!((outcome.released_by, outcome.bye_status), (Some(ReleasedBy::Callee), None));
    let other = received(&carrier).await;
    assert_eq!((other.released_by, other.bye_status), (Some(ReleasedBy::Callee), Some(200)));
    assert_eq!(other.from, "+43123");
}

#[tokio::test]
async fn refusals_keep_their_status() {
    for (behaviour, status) in [(Behaviour::Busy, 486), (Behaviour::Decline, 603), (Behaviour::Reject(404), 404)] {
        let (phone, carrier, account) = pair(behaviour).await;
        assert_eq!(phone.call(CallRequest::new(account, "+4930", 100)).await.unwrap().status, status);
        assert_eq!(received(&carrier).await.status, status);
        // Another prefix has no route.
        assert_eq!(phone.call(CallRequest::new(account, "+1", 100)).await.unwrap().status, 404);
    }
}

#[tokio::test]
async fn a_caller_gives_up_while_it_rings() {
    let (phone, carrier, account) = pair(Behaviour::NoAnswer).await;
    let request = CallRequest::new(account, "+4930", 100).cancelled_after(80);
    let outcome = phone.call(request).await.unwrap();
    assert_eq!((outcome.status, outcome.released_by), (487, Some(ReleasedBy::Caller)));
    assert!(outcome.ringing_at.is_some() && outcome.answered_at.is_none());
    let other = received(&carrier).await;
    assert_eq!((other.status, other.released_by), (487, Some(ReleasedBy::Caller)));
}

#[tokio::test]
async fn a_handle_watches_and_hangs_up() {
    let (phone, _carrier, account) = pair(Behaviour::default()).await;
    let request = CallRequest { hang_up_after_ms: None, ..CallRequest::new(account, "+4930", 0) };
    let mut handle: CallHandle = phone.place(request.clone()).await.unwrap();
    assert!(handle.reached(Progress::Answered).await);
    handle.hang_up().await;
    assert!(handle.reached(Progress::Ended).await);
    assert_eq!(handle.outcome().await.unwrap().released_by, Some(ReleasedBy::Caller));
    let mut handle = phone.place(request.clone()).await.unwrap();
    assert!(handle.reached(Progress::Answered).await);
    handle.abandon().await;
    assert_eq!(handle.outcome().await.unwrap().released_by, None);
    let handle = phone.place(request).await.unwrap();
    drop(phone);
    assert_eq!(handle.outcome().await, Err(PlaceError::Gone));
}

#[tokio::test]
async fn a_carrier_that_is_down_answers_nothing() {
    let (phone, carrier, account) = pair(Behaviour::default()).await;
    carrier.set_answering(false);
    let outcome = phone.call(CallRequest::new(account, "+4930", 50)).await.unwrap();
    assert_eq!((outcome.status, outcome.released_by), (408, Some(ReleasedBy::Network)));
    carrier.set_answering(true);
    assert_eq!(phone.call(CallRequest::new(account, "+4930", 50)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_carrier_answers_options_and_calls_by_address_of_record_meet_accounts() {
    let (phone, carrier, account) = pair(Behaviour::Busy).await;
    let bob = Account::new("bob", "example.com", "").behaving(Behaviour::Decline);
    let bob = carrier.add(bob).await.unwrap();
    let request = CallRequest { caller: Caller::Account(account), ..CallRequest::new(account, "bob", 50) };
    assert_eq!(phone.call(request.clone()).await.unwrap().status, 603);
    carrier.behave(bob, Behaviour::Reject(480)).await;
    assert_eq!(phone.call(request).await.unwrap().status, 480);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = format!(
        "OPTIONS sip:{carrier} SIP/2.0\r\nVia: SIP/2.0/UDP {us};branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:{us}>;tag=1\r\nTo: <sip:{carrier}>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        carrier = carrier.local_addr(),
        us = socket.local_addr().unwrap(),
    );
    socket.send_to(options.as_bytes(), carrier.local_addr()).await.unwrap();
    let mut buffer = vec![0; 2_000];
    let (length, _) =
        tokio::time::timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer[..length].starts_with(b"SIP/2.0 200 OK\r\n"));
}

#[tokio::test]
async fn a_hundred_calls_at_once() {
    let (phone, carrier, account) = pair(Behaviour::Answer { after_ms: 20, talk: Talk::UntilFarEnd }).await;
    let mut handles = Vec::new();
    for n in 0..100 {
        handles.push(phone.place(CallRequest::new(account, format!("+49{n}"), 200)).await.unwrap());
    }
    for handle in handles {
        let outcome = handle.outcome().await.unwrap();
        assert_eq!((outcome.status, outcome.bye_status), (200, Some(200)));
    }
    let mut ended = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..2_000 {
        ended += carrier.take_received().len();
        if ended == 100 {
            return;
        }
        ticks.tick().await;
    }
    panic!("only {ended} of 100 calls ended at the carrier");
}
