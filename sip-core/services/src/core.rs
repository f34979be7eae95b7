//! One shard of the call core: takes inputs, gives outputs, knows neither clock nor socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::event::fact::{EARLY_HEARTBEAT_PERIOD_MS, Fact, HEARTBEAT_PERIOD_MS, Heartbeat, IDLE_HEARTBEAT_PERIOD_MS};
use model::id::IdSource;
use model::time::Now;
use sip_engine::digest::{DigestConfig, DigestServer};
use sip_engine::{Peer, ServerKey, Tokens, TransactionConfig, TransactionEvent, Transactions};
use sip_message::build::ResponseBuilder;
use sip_message::{Fault, HeaderName, Message, Method, ParseError, Scheme, reason_of};

use crate::b2bua::Calls;
use crate::config::ServicesConfig;
use crate::io::{ALLOW, Io, Refusal, SDP};
use crate::outbound::Registrations;
use crate::ports::{Input, JournalPort, MediaPort, Output, Shared};
use crate::registrar::Registrar;
use crate::shard::ShardIndex;
use crate::stats::Stats;
use crate::trunk::Keepalive;

/// See [`IDLE_HEARTBEAT_PERIOD_MS`].
const IDLE_HEARTBEAT_PERIOD: Duration = Duration::from_millis(IDLE_HEARTBEAT_PERIOD_MS.unsigned_abs());
/// See [`EARLY_HEARTBEAT_PERIOD_MS`].
const EARLY_HEARTBEAT_PERIOD: Duration = Duration::from_millis(EARLY_HEARTBEAT_PERIOD_MS.unsigned_abs());
/// How often expired bindings are looked for, at most.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);

/// What a core is made of.
pub struct Parts {
    /// Settings.
    pub config: ServicesConfig,
    /// Timers and bounds of the transactions.
    pub transactions: TransactionConfig,
    /// How requests are challenged.
    pub digest: DigestConfig,
    /// Which shard this is.
    pub shard: ShardIndex,
    /// What all shards see.
    pub shared: Arc<Shared>,
    /// Where call ids come from.
    pub ids: Arc<dyn IdSource>,
    /// The media relay.
    pub media: Box<dyn MediaPort>,
    /// The node journal.
    pub journal: Box<dyn JournalPort>,
    /// Secret and different for each shard and start: tags, branches, nonces come from it.
    pub seed: [u8; 32],
}

/// Registrar, calls and trunks of one shard.
pub struct Core {
    io: Io,
    calls: Calls,
    registrar: Registrar,
    keepalive: Keepalive,
    outbound: Registrations,
    heartbeat_at: Instant,
    /// When one is due although no call is up.
    idle_heartbeat_at: Instant,
    early_until: Instant,
    sweep_at: Option<Instant>,
    draining: bool,
}

impl Core {
    /// A core that begins at `now`. Bindings of this shard that [`Shared::location`] already holds are taken over.
    #[must_use]
    pub fn new(parts: Parts, now: Now) -> Self {
        let mut tokens = Tokens::new(parts.seed);
        let nonce_key = tokens.octets();
        let hash_seed = tokens.octets().iter().take(8).fold(0, |seed: u64, octet| seed << 8 | u64::from(*octet));
        let mut io = Io {
            now,
            config: parts.config,
            shard: parts.shard,
            shared: parts.shared,
            transactions: Transactions::new(parts.transactions, hash_seed),
            digest: DigestServer::new(parts.digest, nonce_key, now.mono),
            tokens,
            ids: parts.ids,
            media: parts.media,
            journal: parts.journal,
            out: std::collections::VecDeque::new(),
            stats: Stats::default(),
        };
        let registrar = Registrar::new(&io);
        let mut keepalive = Keepalive::default();
        keepalive.sync(&mut io);
        let mut outbound = Registrations::default();
        outbound.sync(&mut io);
        let mut core = Self {
            io,
            calls: Calls::default(),
            registrar,
            keepalive,
            outbound,
            heartbeat_at: now.mono,
            idle_heartbeat_at: now.mono + EARLY_HEARTBEAT_PERIOD,
            early_until: now.mono + IDLE_HEARTBEAT_PERIOD,
            sweep_at: None,
            draining: false,
        };
        core.plan_sweep();
        core
    }

    /// Takes an input. Drain [`Core::poll`] afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.io.now = now;
        match input {
            Input::Message { message, peer } => self.io.transactions.receive(now.mono, message, peer),
            Input::Refused { error, peer } => self.refused(&error, peer),
            Input::Unreachable { peer } => self.io.transactions.transport_failed(peer),
            Input::Timeout => self.timeout(),
            Input::JournalCommitted { token } => self.calls.journaled(&mut self.io, token, true),
            Input::JournalFailed { token } => self.calls.journaled(&mut self.io, token, false),
            Input::DirectoryChanged => {
                self.keepalive.sync(&mut self.io);
                self.outbound.sync(&mut self.io);
            }
            Input::Drain => self.draining = true,
            Input::HangupAll => {
                self.draining = true;
                self.calls.hangup_all(&mut self.io);
            }
            Input::Hangup { call } => self.calls.hangup(&mut self.io, call),
        }
        self.events();
    }

    /// Call this after [`Core::handle`] panicked: the call in hand ends, the others go on.
    pub fn after_panic(&mut self, now: Now) {
        self.io.now = now;
        self.io.stats.panics += 1;
        self.calls.after_panic(&mut self.io);
        self.events();
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some((bytes, peer)) = self.io.transactions.poll_transmit() {
            return Some(Output::Transmit { bytes, peer });
        }
        self.io.out.pop_front()
    }

    /// When [`Input::Timeout`] is due at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let heartbeat = (self.io.shard.index == 0).then_some(self.heartbeat_at);
        [
            self.io.transactions.next_timeout(),
            self.calls.next_timeout(),
            self.keepalive.next_timeout(),
            self.outbound.next_timeout(),
            self.sweep_at,
            heartbeat,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Calls of this shard, in any phase.
    #[must_use]
    pub fn calls_up(&self) -> usize {
        self.calls.len()
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.io.stats
    }

    /// Entries of each table that calls leave behind while they live.
    #[cfg(test)]
    pub(crate) fn table_sizes(&self) -> [usize; 6] {
        self.calls.table_sizes()
    }

    /// Requests from outside whose transactions live.
    #[cfg(test)]
    pub(crate) fn server_transactions(&self) -> usize {
        self.io.transactions.servers_len()
    }

    fn timeout(&mut self) {
        let now = self.io.now;
        self.io.transactions.handle_timeout(now.mono);
        self.events();
        self.calls.handle_timeout(&mut self.io);
        self.keepalive.handle_timeout(&mut self.io);
        self.outbound.handle_timeout(&mut self.io);
        if self.sweep_at.is_some_and(|at| at <= now.mono) {
            self.registrar.sweep(&mut self.io);
            self.sweep_at = None;
            self.plan_sweep();
        }
        // One shard writes the sign of life of the node.
        if self.io.shard.index == 0 && now.mono >= self.heartbeat_at {
            self.heartbeat_at = now.mono + Duration::from_millis(HEARTBEAT_PERIOD_MS.unsigned_abs());
            let calls_up = self.io.shared.answered.current();
            if calls_up > 0 || now.mono >= self.idle_heartbeat_at {
                let early = now.mono < self.early_until;
                let period = if early { EARLY_HEARTBEAT_PERIOD } else { IDLE_HEARTBEAT_PERIOD };
                self.idle_heartbeat_at = now.mono + period;
                self.io.journal.append(Fact::Heartbeat(Heartbeat { at: now.utc, calls_up, stopping: None }));
            }
        }
    }

    /// Wakes the registrar when the next binding ends: not at once for each, but not long after.
    fn plan_sweep(&mut self) {
        let Some(end) = self.registrar.next_end() else {
            self.sweep_at = None;
            return;
        };
        let wait = Duration::from_millis(u64::try_from(end.ms_since(self.io.now.utc)).unwrap_or(0)).max(SWEEP_PERIOD);
        let at = self.io.now.mono + wait;
        self.sweep_at = Some(self.sweep_at.map_or(at, |planned| planned.min(at)));
    }

    fn events(&mut self) {
        while let Some(event) = self.io.transactions.poll_event() {
            self.event(event);
        }
    }

    fn event(&mut self, event: TransactionEvent) {
        let io = &mut self.io;
        match event {
            TransactionEvent::Request { key, msg, peer } => self.request(key, &msg, peer),
            TransactionEvent::Cancel { key, invite, msg, peer } => self.calls.cancel(io, key, invite, &msg, peer),
            TransactionEvent::Ack { msg, .. } => self.calls.ack(io, &msg),
            TransactionEvent::Response { key, msg } => {
                let known = self.calls.response(io, key, &msg)
                    || self.keepalive.response(io, key, &msg)
                    || self.outbound.response(io, key, &msg);
                if !known {
                    io.stats.strays += 1;
                }
            }
            TransactionEvent::StrayResponse { .. } => io.stats.strays += 1,
            TransactionEvent::Timeout { key } => {
                if !self.calls.unanswered(io, key, 408) {
                    self.keepalive.timeout(io, key);
                    self.outbound.timeout(io, key);
                }
            }
            TransactionEvent::TransportError { key } => {
                if !self.calls.unanswered(io, key, 503) {
                    self.keepalive.timeout(io, key);
                    self.outbound.timeout(io, key);
                }
            }
            TransactionEvent::ClientTerminated { key } => self.calls.forget(key),
            TransactionEvent::AckTimeout { .. } | TransactionEvent::ServerTerminated { .. } => {}
        }
    }

    fn request(&mut self, key: ServerKey, msg: &Message, peer: Peer) {
        let io = &mut self.io;
        let in_dialog = msg.to().is_ok_and(|to| to.tag().is_some());
        match msg.method() {
            Method::Register => {
                self.registrar.register(io, key, msg, peer);
                self.plan_sweep();
            }
            Method::Options => options(io, key, msg, peer),
            _ if in_dialog => self.calls.in_dialog(io, key, msg, peer),
            Method::Invite => self.calls.invite(io, key, msg, peer, self.draining),
            Method::Bye => io.reply(key, msg, peer, 481),
            Method::Other(_) => io.reply(key, msg, peer, 501),
            _ => io.reply(key, msg, peer, 405),
        }
    }

    fn refused(&mut self, error: &ParseError, peer: Peer) {
        if error.fault() == Fault::KeepAlive {
            return;
        }
        self.io.stats.garbage += 1;
        if let (Some(status), Some(request)) = (error.status(), error.request())
            && let Some(bytes) = refusal(request, status, peer, &self.io.tokens.tag())
        {
            self.io.transactions.send(bytes, peer);
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("shard", &self.io.shard).field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

/// Answers what could not be read, without a transaction.
fn refusal(request: &Message, status: u16, peer: Peer, tag: &str) -> Option<Bytes> {
    ResponseBuilder::response_to(request, status, reason_of(status))
        .source(peer.remote)
        .to_tag(tag.as_bytes())
        .finish()
        .ok()
}

/// OPTIONS to us: what we can do (RFC 3261, section 11.2), judged as an INVITE would be (section 8.2.2).
fn options(io: &mut Io, key: ServerKey, msg: &Message, peer: Peer) {
    if msg.uri().is_ok_and(|uri| uri.scheme == Scheme::Other) {
        return io.reply(key, msg, peer, 416);
    }
    if let Some(required) = msg.header(HeaderName::Require) {
        return io.refuse(key, msg, peer, Refusal::new(420).with(HeaderName::Unsupported, required), None);
    }
    let tag = io.tokens.tag();
    let response = io.response(msg, peer, 200, &tag).header(HeaderName::Allow, ALLOW).header(HeaderName::Accept, SDP);
    io.respond(key, response);
}
