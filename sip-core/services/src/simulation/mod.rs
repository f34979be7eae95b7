//! Phones, a core of several shards, a carrier, and a seeded network that loses and reorders, in simulated time.

mod calls;
mod change;
mod outbound;
mod phone;
mod races;
mod registrar;
mod registrations;
mod seeded;
mod sessions;
mod torture;
mod trunks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use media_engine::sdp::Direction;
use media_engine::{MediaSession, MediaSnapshot, RemoteMedia, Side};
use model::event::fact::{Fact, MediaStats};
use model::id::{CallId, IdSource};
use model::time::{Now, Timestamp};
use sip_engine::digest::DigestConfig;
use sip_engine::{Peer, TransactionConfig};
use sip_message::Message;

use crate::directory::{DirectoryChange, DirectoryEntry};
use crate::location::RegistrationChange;
use crate::shard::ShardIndex;
use crate::testing::{PASSWORD, TRUNK_PASSWORD, World};
use crate::trunk::TrunkReason;
use crate::{Core, Input, JournalPlaces, JournalPort, MediaPort, Output, Parts, ServicesConfig, Shared, Token, shard};

pub use change::{Leg, OnChange, session};
pub use phone::{Behaviour, OFFER, Phone};
pub use registrar::{Registrar, Rule};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5060);
/// Steps of one run: far above what any test needs, so that a loop ends as a failure.
const STEPS_MAX: usize = 2_000_000;

/// What the journal does with a record that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Commits after so many milliseconds.
    After(u64),
    /// Fails at once.
    Fails,
    /// Never says anything.
    Hangs,
}

#[derive(Debug)]
struct JournalState {
    facts: Vec<Fact>,
    waiting: Vec<(u16, Token)>,
    reserved: u32,
    places_max: u32,
}

#[derive(Clone)]
struct Journal {
    shard: u16,
    state: Arc<Mutex<JournalState>>,
}

struct Places(Journal);

impl JournalPort for Journal {
    fn reserve(&mut self) -> Option<Box<dyn JournalPlaces>> {
        let mut state = self.state.lock().unwrap();
        if state.reserved >= state.places_max {
            return None;
        }
        state.reserved += 1;
        Some(Box::new(Places(self.clone())))
    }
    fn append(&mut self, fact: Fact) {
        self.state.lock().unwrap().facts.push(fact);
    }
}

impl JournalPlaces for Places {
    fn append(&mut self, fact: Fact, notify: Option<Token>) {
        let mut state = self.0.state.lock().unwrap();
        state.facts.push(Fact::from_bytes(&fact.to_bytes()).expect("what is written can be read"));
        state.waiting.extend(notify.map(|token| (self.0.shard, token)));
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().reserved -= 1;
    }
}

#[derive(Debug, Default)]
struct RelayState {
    open: u32,
    opened: u64,
    silent: bool,
    panics: bool,
    remotes: Vec<(Side, SocketAddr)>,
    /// Whether the last description of each side is a hold; for tests with one call.
    held: [bool; 2],
}

struct Relay(Arc<Mutex<RelayState>>);

impl Relay {
    fn snapshot() -> MediaSnapshot {
        let stats = MediaStats {
            packets_received: 10,
            packets_sent: 9,
            packets_lost: 1,
            octets_received: 1_600,
            quality: None,
        };
        MediaSnapshot { a: stats, b: stats, silence_ms: Some(20) }
    }
}

impl MediaPort for Relay {
    fn open(&mut self, _: CallId) -> Option<MediaSession> {
        let mut state = self.0.lock().unwrap();
        state.open += 1;
        state.opened += 1;
        Some(MediaSession { slot: 1, generation: state.opened })
    }
    fn local(&self, _: MediaSession, side: Side) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], if side == Side::Caller { 16_384 } else { 16_386 }))
    }
    fn set_remote(&mut self, _: MediaSession, side: Side, media: &RemoteMedia) {
        let mut state = self.0.lock().unwrap();
        state.remotes.push((side, media.rtp));
        state.held[usize::from(side == Side::Callee)] =
            media.rtp.ip().is_unspecified() || media.direction != Direction::SendRecv;
    }
    fn snapshot(&self, _: MediaSession) -> MediaSnapshot {
        let (silent, panics, held) = {
            let mut state = self.0.lock().unwrap();
            (state.silent, std::mem::take(&mut state.panics), state.held.contains(&true))
        };
        assert!(!panics, "a defect, as asked for");
        // As the relay has it: no silence is counted while a side is on hold.
        let silence_ms = (!held).then_some(if silent { u64::MAX } else { 20 });
        MediaSnapshot { silence_ms, ..Self::snapshot() }
    }
    fn close(&mut self, _: MediaSession) -> MediaSnapshot {
        self.0.lock().unwrap().open -= 1;
        Self::snapshot()
    }
}

#[derive(Debug, Default)]
struct Ids(Mutex<u128>);

impl IdSource for Ids {
    fn next(&self) -> uuid::Uuid {
        let mut last = self.0.lock().unwrap();
        *last += 1;
        uuid::Uuid::from_u128(0x7000 << 64 | *last)
    }
}

enum Event {
    Deliver { to: SocketAddr, from: SocketAddr, bytes: Bytes },
    Committed { shard: u16, token: Token, good: bool },
}

/// The network: how long a datagram takes, how many of a thousand get lost, how many come more than once, and how often
/// such a one comes.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    pub delay_ms: (u64, u64),
    pub lost: u64,
    pub repeated: u64,
    pub copies: u64,
}

impl Network {
    pub const GOOD: Self = Self { delay_ms: (1, 1), lost: 0, repeated: 0, copies: 2 };
    pub const BAD: Self = Self { delay_ms: (1, 80), lost: 100, repeated: 50, copies: 2 };
}

pub struct Sim {
    pub world: World,
    pub now: Now,
    start: Instant,
    pub cores: Vec<Core>,
    pub phones: Vec<Phone>,
    pub shared: Arc<Shared>,
    pub network: Network,
    pub disk: Disk,
    pub registrations: Vec<RegistrationChange>,
    pub trunk_changes: Vec<(bool, TrunkReason)>,
    journal: Arc<Mutex<JournalState>>,
    relay: Arc<Mutex<RelayState>>,
    /// Datagrams that the cores have got and sent.
    pub traffic: (u64, u64),
    queue: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    random: u64,
}

pub const ALICE: usize = 0;
pub const BOB: usize = 1;
pub const CARRIER: usize = 2;
pub const MALLORY: usize = 3;
/// After [`Sim::plug_backup`].
pub const BACKUP: usize = 4;

impl Sim {
    pub fn new(shards: u16, seed: u64) -> Self {
        Self::with(shards, seed, ServicesConfig::default(), World::new())
    }

    pub fn with(shards: u16, seed: u64, config: ServicesConfig, world: World) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can be had from the clock only; it is stepped from here"
        )]
        let start = Instant::now();
        let now = Now { mono: start, utc: Timestamp(1_700_000_000_000) };
        let directory = Arc::new(ArcSwap::from_pointee(world.directory()));
        let shared = Arc::new(Shared::new(directory, shards, vec![SERVER]));
        let journal = JournalState { facts: Vec::new(), waiting: Vec::new(), reserved: 0, places_max: u32::MAX };
        let (journal, relay) = (Arc::new(Mutex::new(journal)), Arc::new(Mutex::new(RelayState::default())));
        let ids = Arc::new(Ids::default());
        let cores = (0..shards)
            .map(|index| {
                let parts = Parts {
                    config: config.clone(),
                    transactions: TransactionConfig::default(),
                    digest: DigestConfig::default(),
                    shard: ShardIndex { index, count: shards },
                    shared: Arc::clone(&shared),
                    ids: ids.clone(),
                    media: Box::new(Relay(Arc::clone(&relay))),
                    journal: Box::new(Journal { shard: index, state: Arc::clone(&journal) }),
                    seed: [u8::try_from(index).unwrap() + 1; 32],
                };
                Core::new(parts, now)
            })
            .collect();
        let phone = |n: u8, user: &str, password: &str| {
            Phone::new(SocketAddr::from(([10, 0, 1, n], 5060)), SERVER, user, "alpha.example", password, n)
        };
        let mut carrier = phone(77, "carrier", TRUNK_PASSWORD);
        carrier.address = world.trunk.address;
        let phones =
            vec![phone(1, "alice", PASSWORD), phone(2, "bob", PASSWORD), carrier, phone(4, "alice", "wrong password")];
        Self {
            world,
            now,
            start,
            cores,
            phones,
            shared,
            network: Network::GOOD,
            disk: Disk::After(3),
            registrations: Vec::new(),
            trunk_changes: Vec::new(),
            journal,
            relay,
            traffic: (0, 0),
            queue: BTreeMap::new(),
            serial: 0,
            random: seed | 1,
        }
    }

    /// Connects the carrier behind the backup trunk.
    pub fn plug_backup(&mut self) {
        let address = self.world.backup_trunk.address;
        self.phones.push(Phone::new(address, SERVER, "backup", "alpha.example", TRUNK_PASSWORD, 78));
        assert_eq!(self.phones.len(), BACKUP + 1);
    }

    pub fn random(&mut self, below: u64) -> u64 {
        // xorshift64*: enough for a network.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    fn transmit(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let copies = match self.random(1_000) {
            r if r < self.network.lost => 0,
            r if r < self.network.lost + self.network.repeated => self.network.copies,
            _ => 1,
        };
        for _ in 0..copies {
            let (low, high) = self.network.delay_ms;
            let delay = low + self.random(high - low + 1);
            self.push(self.now.mono + Duration::from_millis(delay), Event::Deliver { to, from, bytes: bytes.clone() });
        }
    }

    /// Hands out everything that cores and phones want to send, at the present instant.
    fn drain(&mut self) {
        for index in 0..self.cores.len() {
            while let Some(output) = self.cores[index].poll() {
                match output {
                    Output::Transmit { bytes, peer } => {
                        self.traffic.1 += 1;
                        self.transmit(SERVER, peer.remote, &bytes);
                    }
                    Output::RegistrationChanged(change) => self.registrations.push(change),
                    Output::TrunkState { up, reason, .. } => self.trunk_changes.push((up, reason)),
                }
            }
        }
        let waiting = std::mem::take(&mut self.journal.lock().unwrap().waiting);
        for (shard, token) in waiting {
            let (after, good) = match self.disk {
                Disk::After(ms) => (ms, true),
                Disk::Fails => (0, false),
                Disk::Hangs => continue,
            };
            self.push(self.now.mono + Duration::from_millis(after), Event::Committed { shard, token, good });
        }
        for index in 0..self.phones.len() {
            while let Some((bytes, to)) = self.phones[index].transmit() {
                self.transmit(self.phones[index].address, to, &bytes);
            }
        }
    }

    fn set_clock(&mut self, at: Instant) {
        self.now.mono = self.now.mono.max(at);
        let elapsed = i64::try_from((self.now.mono - self.start).as_millis()).unwrap();
        self.now.utc = Timestamp(1_700_000_000_000 + elapsed);
    }

    /// Lets so much time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now.mono + Duration::from_millis(ms);
        for _ in 0..STEPS_MAX {
            self.drain();
            let cores = self.cores.iter().filter_map(Core::next_timeout);
            let phones = self.phones.iter().filter_map(Phone::next_timeout);
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let next = cores.chain(phones).chain(queued).min().filter(|at| *at <= end);
            let Some(at) = next else {
                self.set_clock(end);
                return;
            };
            self.set_clock(at);
            let now = self.now;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now.mono) {
                match entry.remove() {
                    Event::Deliver { to, from, bytes } if to == SERVER => self.deliver(bytes, from),
                    Event::Deliver { to, from, bytes } => {
                        if let Some(phone) = self.phones.iter_mut().find(|phone| phone.address == to) {
                            phone.receive(now.mono, bytes, from);
                        }
                    }
                    Event::Committed { shard, token, good } => {
                        let input =
                            if good { Input::JournalCommitted { token } } else { Input::JournalFailed { token } };
                        self.cores[usize::from(shard)].handle(now, input);
                    }
                }
            }
            for core in self.cores.iter_mut().filter(|core| core.next_timeout().is_some_and(|at| at <= now.mono)) {
                // As the shard does it.
                if catch_unwind(AssertUnwindSafe(|| core.handle(now, Input::Timeout))).is_err() {
                    core.after_panic(now);
                }
            }
            for phone in self.phones.iter_mut().filter(|phone| phone.next_timeout().is_some_and(|at| at <= now.mono)) {
                phone.timeout(now.mono);
            }
        }
        panic!("the simulation does not come to rest");
    }

    pub fn deliver(&mut self, bytes: Bytes, from: SocketAddr) {
        let (peer, now) = (Peer::udp(from, 0), self.now);
        self.traffic.0 += 1;
        match Message::parse_datagram(bytes) {
            Ok(message) => {
                let owner = shard::of_message(&message, u16::try_from(self.cores.len()).unwrap());
                self.cores[usize::from(owner)].handle(now, Input::Message { message, peer });
            }
            Err(error) => self.cores[0].handle(now, Input::Refused { error, peer }),
        }
    }

    /// Registers Alice and Bob.
    pub fn register(&mut self) {
        for phone in [ALICE, BOB] {
            self.phones[phone].register(self.now.mono);
        }
        self.run(5_000);
        assert_eq!((self.phones[ALICE].registered, self.phones[BOB].registered), (Some(200), Some(200)));
    }

    pub fn call(&mut self, from: usize, to: &str) -> usize {
        let now = self.now.mono;
        self.phones[from].call(now, to, OFFER)
    }

    pub fn status(&self, phone: usize, call: usize) -> Option<u16> {
        self.phones[phone].placed[call].status
    }

    pub fn set_silent_media(&mut self) {
        self.relay.lock().unwrap().silent = true;
    }

    /// The next look at the media makes the code panic.
    pub fn panic_once(&mut self) {
        self.relay.lock().unwrap().panics = true;
    }

    pub fn limit_places(&mut self, places: u32) {
        self.journal.lock().unwrap().places_max = places;
    }

    pub fn remotes(&self) -> Vec<(Side, SocketAddr)> {
        self.relay.lock().unwrap().remotes.clone()
    }

    /// The facts without heartbeats.
    pub fn facts(&self) -> Vec<Fact> {
        let state = self.journal.lock().unwrap();
        state.facts.iter().filter(|fact| !matches!(fact, Fact::Heartbeat(_))).cloned().collect()
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.facts().iter().map(Fact::kind).collect()
    }

    pub fn heartbeats(&self) -> usize {
        let without = self.facts().len();
        self.journal.lock().unwrap().facts.len() - without
    }

    pub fn change(&mut self, entries: Vec<DirectoryEntry>) {
        let next = self.shared.directory.load().apply(entries.into_iter().map(DirectoryChange::Upsert));
        self.shared.directory.store(Arc::new(next));
        let now = self.now;
        self.cores.iter_mut().for_each(|core| core.handle(now, Input::DirectoryChanged));
    }

    /// Lets all calls come to their end, and checks that nothing is left: no call, place, port or slot; and that each
    /// admitted call has exactly one of the ends that a call can have.
    pub fn finish(&mut self) {
        self.run(200_000);
        for core in &self.cores {
            assert_eq!(core.server_transactions(), 0, "transactions are left");
            assert_eq!(
                core.table_sizes(),
                [0; 6],
                "calls, servers, live, tags, deadlines or outgoing requests are left"
            );
        }
        assert_eq!(self.shared.calls.current(), 0);
        assert_eq!(self.shared.answered.current(), 0);
        assert_eq!(self.journal.lock().unwrap().reserved, 0, "journal places are left");
        assert_eq!(self.relay.lock().unwrap().open, 0, "ports are left");
        let directory = self.shared.directory.load();
        for entry in self.world.entries() {
            let left = match &entry {
                DirectoryEntry::Account(a) => directory.account(a.id).map(|a| a.calls.current()),
                DirectoryEntry::Subscriber(s) => directory.subscriber(s.id).map(|s| s.calls.current()),
                DirectoryEntry::Trunk(t) => directory.trunk(t.id).map(|t| t.calls.current()),
                DirectoryEntry::Domain(_) | DirectoryEntry::Number(_) => None,
            };
            assert_eq!(left.unwrap_or(0), 0, "slots are left on {entry:?}");
        }
        let mut ends: BTreeMap<CallId, Vec<&str>> = BTreeMap::new();
        for fact in self.facts() {
            let call = match &fact {
                Fact::Attempted(f) => f.setup.call,
                Fact::Answered(f) => f.setup.call,
                Fact::Ended(f) => f.answered.setup.call,
                Fact::AnswerAborted(f) => f.setup.call,
                Fact::Interim(_) | Fact::Started(_) | Fact::Heartbeat(_) => continue,
            };
            ends.entry(call).or_default().push(fact.kind());
        }
        for (call, kinds) in &ends {
            let whole = matches!(
                kinds[..],
                ["attempted"] | ["answer_aborted"] | ["answered", "answer_aborted"] | ["answered", "ended"]
            );
            assert!(whole, "{call}: {kinds:?}");
        }
        let admitted: u64 = self.cores.iter().map(|core| core.stats().calls_admitted).sum();
        assert!(u64::try_from(ends.len()).unwrap() >= admitted, "an admitted call has left no trace");
    }
}
