//! SIP over TCP (RFC 3261, section 18; keep-alives of RFC 5626, section 4.4.1): one thread for all connections.
//!
//! It owns listener and connections, so nothing is locked: messages go to their shards by the bounded queues by which
//! shards hand each other datagrams, and what shards want sent comes by one bounded queue. Each connection gets its
//! turn to be read, one buffer at a time; a peer that does not read fills its own queue and loses its connection. When
//! a shard has no room for a message, the connection is not read until it has: TCP then holds the peer back, and
//! nothing is lost.

mod connection;
mod fallback;
mod tally;

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Waker};
use model::time::Clock;
use sip_engine::{Flow, Peer, Tokens};
use sip_message::build::ResponseBuilder;
use sip_message::stream::Frame;
use sip_message::{ParseError, reason_of};
use sip_services::shard;

use crate::config::TcpConfig;
use crate::shard::Neighbour;
use crate::tally::Garbage;
use connection::{Connection, Ended, Received};
use tally::TcpTally;

/// The listener's token in the poll; connections have the number of their flow.
pub(crate) const LISTENER: mio::Token = mio::Token(0);
/// The waker's token in the poll.
pub(crate) const WAKER: mio::Token = mio::Token(1);
const FLOW_FIRST: u64 = 16;
/// Connections that are accepted in one turn: then those that stand get theirs.
const ACCEPTS_MAX: usize = 64;
/// Messages that are taken from the shards in one turn.
const SENDS_MAX: usize = 1_024;
/// Connections that are read in one turn.
const READS_MAX: usize = 256;
/// How soon a message is offered again to a shard that had no room.
const PARKED_RETRY: Duration = Duration::from_millis(2);
/// Longest sleep, and how often connections are looked through for those whose time is over.
const SWEEP_MAX: Duration = Duration::from_secs(1);
/// How long the end waits for peers to read what was sent to them.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// One read. A message that is longer takes two.
const READ_BYTES: usize = 65_536;

/// What a shard wants sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub bytes: Bytes,
    pub peer: Peer,
    /// Who is told when it can't be.
    pub shard: u16,
}

impl Outgoing {
    pub fn is_request(&self) -> bool {
        !self.bytes.starts_with(b"SIP/2.0 ")
    }
}

/// The way from a shard to the connections.
#[derive(Debug, Clone)]
pub(crate) struct TcpSender {
    pub outgoing: SyncSender<Outgoing>,
    pub waker: Arc<Waker>,
}

impl TcpSender {
    /// Queues octets; false when there is no room.
    pub fn send(&self, outgoing: Outgoing) -> bool {
        self.outgoing.try_send(outgoing).is_ok()
    }

    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the thread of TCP could not be woken");
        }
    }
}

/// What the thread of TCP is made of.
pub(crate) struct TcpParts {
    pub config: TcpConfig,
    pub poll: Poll,
    pub listener: TcpListener,
    pub outgoing: Receiver<Outgoing>,
    /// All shards by their number.
    pub shards: Vec<Neighbour>,
    pub clock: Arc<dyn Clock>,
    pub tokens: Tokens,
    pub garbage: Arc<Garbage>,
}

/// All connections of the node.
pub(crate) struct Streams {
    parts: TcpParts,
    connections: HashMap<Flow, Connection>,
    /// The latest connection from or to an address.
    by_remote: HashMap<SocketAddr, Flow>,
    per_source: HashMap<IpAddr, usize>,
    /// Octets that all of them hold.
    buffered: usize,
    flow_next: u64,
    ready: VecDeque<Flow>,
    parked: Vec<Flow>,
    /// Shards that have to be told that what they sent to a peer is lost.
    untold: VecDeque<(u16, Peer)>,
    /// Connections wait to be accepted. The poll tells only of what is new, so this must be remembered.
    accept_pending: bool,
    woken: Vec<bool>,
    sweep_at: Instant,
    sweep_period: Duration,
    tally: TcpTally,
    buffer: Box<[u8]>,
}

impl Streams {
    pub fn new(parts: TcpParts) -> Self {
        let now = parts.clock.now().mono;
        let limits = [u64::from(parts.config.message_max_ms), u64::from(parts.config.idle_max_s).saturating_mul(1_000)];
        let finest = limits.into_iter().min().unwrap_or(1_000) / 4;
        let sweep_period = Duration::from_millis(finest).clamp(Duration::from_millis(10), SWEEP_MAX);
        Self {
            woken: vec![false; parts.shards.len()],
            parts,
            connections: HashMap::new(),
            by_remote: HashMap::new(),
            per_source: HashMap::new(),
            buffered: 0,
            flow_next: FLOW_FIRST,
            ready: VecDeque::new(),
            parked: Vec::new(),
            untold: VecDeque::new(),
            accept_pending: true,
            sweep_at: now + sweep_period,
            sweep_period,
            tally: TcpTally::new(now),
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Runs until no shard is left that could want something sent.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        let mut more = false;
        loop {
            let now = self.parts.clock.now().mono;
            let sleep = if more || !self.ready.is_empty() {
                Duration::ZERO
            } else if self.parked.is_empty() && self.untold.is_empty() {
                self.sweep_at.saturating_duration_since(now)
            } else {
                PARKED_RETRY
            };
            self.wait(&mut events, sleep);
            let now = self.parts.clock.now().mono;
            more = self.accept(now);
            let sent = self.take_outgoing(now);
            more |= sent == Taken::More;
            self.offer_parked();
            self.read_ready(now);
            if now >= self.sweep_at {
                self.sweep(now);
            }
            self.tell_shards();
            self.wake_shards();
            let garbage = &self.parts.garbage;
            self.tally.report(now, self.connections.len(), self.buffered, garbage);
            if sent == Taken::Ended {
                return self.finish(&mut events);
            }
        }
    }

    fn wait(&mut self, events: &mut Events, sleep: Duration) {
        if let Err(error) = self.parts.poll.poll(events, Some(sleep))
            && error.kind() != ErrorKind::Interrupted
        {
            tracing::error!(%error, "the thread of TCP can't wait for its sockets");
        }
        let now = self.parts.clock.now().mono;
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept_pending = true,
                WAKER => {}
                mio::Token(number) => {
                    let flow = Flow(u64::try_from(number).unwrap_or(0));
                    if event.is_writable() || event.is_error() {
                        self.writable(flow, now);
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.schedule(flow);
                    }
                }
            }
        }
    }

    /// Takes new connections; true when there may be more.
    fn accept(&mut self, now: Instant) -> bool {
        if !self.accept_pending {
            return false;
        }
        for _ in 0..ACCEPTS_MAX {
            match self.parts.listener.accept() {
                Ok((stream, remote)) => {
                    if self.has_place(remote) {
                        self.tally.accepted += 1;
                        self.insert(stream, remote, now, true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accept_pending = false;
                    return false;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => {
                    // No descriptors, most likely: looked at again with the next sweep.
                    self.tally.accept_failed += 1;
                    return false;
                }
            }
        }
        true
    }

    /// Whether one more connection with this address is within the bounds; counted when not.
    fn has_place(&mut self, remote: SocketAddr) -> bool {
        if self.connections.len() >= self.parts.config.connections_max {
            self.tally.refused_full += 1;
            return false;
        }
        let held = self.per_source.get(&remote.ip().to_canonical()).copied().unwrap_or(0);
        if held >= self.parts.config.connections_per_source_max {
            self.tally.refused_source += 1;
            return false;
        }
        true
    }

    fn insert(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Instant, accepted: bool) -> Option<Flow> {
        let flow = Flow(self.flow_next);
        let token = mio::Token(usize::try_from(flow.0).ok()?);
        self.flow_next = self.flow_next.checked_add(1)?;
        // Without it an answer waits until the peer has confirmed the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps small messages back");
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.parts.poll.registry().register(&mut stream, token, interest).is_err() {
            self.tally.open_failed += 1;
            return None;
        }
        let peer = Peer::tcp(remote, 0, Some(flow));
        self.connections.insert(flow, Connection::new(stream, peer, now, accepted));
        self.by_remote.insert(remote, flow);
        *self.per_source.entry(remote.ip().to_canonical()).or_default() += 1;
        if accepted {
            self.schedule(flow);
        }
        Some(flow)
    }

    fn open(&mut self, remote: SocketAddr, now: Instant) -> Option<Flow> {
        if !self.has_place(remote) {
            return None;
        }
        let Ok(stream) = TcpStream::connect(remote) else {
            self.tally.open_failed += 1;
            return None;
        };
        self.tally.opened += 1;
        self.insert(stream, remote, now, false)
    }

    /// Takes what shards want sent.
    fn take_outgoing(&mut self, now: Instant) -> Taken {
        for _ in 0..SENDS_MAX {
            match self.parts.outgoing.try_recv() {
                Ok(outgoing) => self.send(outgoing, now),
                Err(TryRecvError::Empty) => return Taken::All,
                Err(TryRecvError::Disconnected) => return Taken::Ended,
            }
        }
        Taken::More
    }

    fn send(&mut self, outgoing: Outgoing, now: Instant) {
        let peer = outgoing.peer;
        let remote = match peer.flow {
            Some(flow) if self.connections.get(&flow).is_some_and(|c| !c.is_closing()) => None,
            Some(_) => match fallback::address(&outgoing.bytes, peer) {
                Some(remote) => Some(remote),
                None => return self.undeliverable(&outgoing),
            },
            None => Some(peer.remote),
        };
        let flow = match remote {
            None => peer.flow,
            Some(remote) => {
                let known = self.by_remote.get(&remote).copied();
                known
                    .filter(|flow| self.connections.get(flow).is_some_and(|c| !c.is_closing()))
                    .or_else(|| self.open(remote, now))
            }
        };
        let Some((flow, connection)) = flow.and_then(|flow| Some((flow, self.connections.get_mut(&flow)?))) else {
            return self.undeliverable(&outgoing);
        };
        if outgoing.is_request() {
            connection.used_by(outgoing.shard, peer);
        }
        self.tally.messages.sent(&outgoing.bytes);
        self.enqueue(flow, outgoing.bytes, now);
    }

    fn enqueue(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let Some(connection) = self.connections.get_mut(&flow) else { return };
        if !connection.enqueue(now, bytes, &self.parts.config) {
            return self.close(flow, Ended::Stalled);
        }
        if !connection.flush(now) {
            return self.close(flow, Ended::Peer);
        }
        self.account(flow);
    }

    fn undeliverable(&mut self, outgoing: &Outgoing) {
        self.tally.messages.send_failed += 1;
        if outgoing.is_request() {
            self.untold.push_back((outgoing.shard, outgoing.peer));
        }
    }

    /// Tells shards what is lost, as far as they have room; the rest is kept. Many phones may go at once, and the queue
    /// by which the journal tells of answers must not be full of them.
    fn tell_shards(&mut self) {
        for _ in 0..self.untold.len() {
            let Some((shard, peer)) = self.untold.pop_front() else { return };
            let Some(neighbour) = self.parts.shards.get(usize::from(shard)) else { continue };
            match neighbour.lost.try_send(peer) {
                Ok(()) => {
                    if let Some(woken) = self.woken.get_mut(usize::from(shard)) {
                        *woken = true;
                    }
                }
                Err(TrySendError::Full(peer)) => self.untold.push_back((shard, peer)),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    fn writable(&mut self, flow: Flow, now: Instant) {
        let Some(connection) = self.connections.get_mut(&flow) else { return };
        match connection.connect() {
            Ok(true) if connection.flush(now) => {
                self.account(flow);
                // What came before it was known to stand was not told of again.
                self.schedule(flow);
            }
            Ok(true) => self.close(flow, Ended::Peer),
            Ok(false) => {}
            Err(_) => {
                self.tally.open_failed += 1;
                self.close(flow, Ended::Refused);
            }
        }
    }

    /// Puts a connection in the row of those that are read.
    fn schedule(&mut self, flow: Flow) {
        if let Some(connection) = self.connections.get_mut(&flow)
            && connection.reads()
            && !std::mem::replace(&mut connection.scheduled, true)
        {
            self.ready.push_back(flow);
        }
    }

    fn read_ready(&mut self, now: Instant) {
        for _ in 0..READS_MAX.min(self.ready.len()) {
            let Some(flow) = self.ready.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(&flow) {
                connection.scheduled = false;
            }
            if catch_unwind(AssertUnwindSafe(|| self.read(flow, now))).is_err() {
                tracing::error!("the code panicked at what a TCP connection sent; the connection was ended");
                self.close(flow, Ended::Panic);
            }
        }
    }

    /// One turn of a connection: what it kept, then one read.
    fn read(&mut self, flow: Flow, now: Instant) {
        let Some(connection) = self.connections.get_mut(&flow) else { return };
        if connection.is_closing() {
            return match connection.receive(&mut self.buffer) {
                Received::Octets(_) => self.schedule(flow),
                Received::Nothing => {}
                Received::End => self.close(flow, Ended::Garbage),
            };
        }
        if !connection.reads() {
            return;
        }
        match connection.receive(&mut self.buffer) {
            Received::Octets(length) => {
                connection.framer.push(self.buffer.get(..length).unwrap_or_default());
                self.cut(flow, now);
                // There may be more; the others come first.
                self.schedule(flow);
            }
            Received::Nothing => {}
            Received::End => self.close(flow, Ended::Peer),
        }
    }

    /// Hands out the messages that are whole.
    fn cut(&mut self, flow: Flow, now: Instant) {
        let (mut whole, mut pong) = (false, false);
        let mut lost = None;
        while let Some(connection) = self.connections.get_mut(&flow).filter(|c| c.parked.is_none()) {
            match connection.framer.poll() {
                Ok(Some(Frame::Message(message))) => {
                    whole = true;
                    self.tally.messages.received(&message);
                    let peer = connection.peer;
                    let owner = shard::of_message(&message, u16::try_from(self.parts.shards.len()).unwrap_or(u16::MAX));
                    self.hand(flow, owner, (message, peer));
                }
                Ok(Some(Frame::Refused(error))) => {
                    whole = true;
                    self.refuse(flow, &error, now);
                }
                Ok(Some(Frame::Ping)) => {
                    whole = true;
                    pong = true;
                }
                Ok(None) => break,
                Err(error) => {
                    lost = Some(error);
                    break;
                }
            }
        }
        if pong {
            self.tally.pings += 1;
            self.enqueue(flow, Bytes::from_static(b"\r\n"), now);
        }
        let Some(connection) = self.connections.get_mut(&flow) else { return };
        connection.progressed(now, whole);
        if let Some(error) = lost {
            connection.close_when_written(now);
            self.refuse(flow, &error, now);
            // Nothing to say: then nothing to wait for.
            let answered = error.status().is_some();
            if !answered || !self.connections.get_mut(&flow).is_some_and(|connection| connection.flush(now)) {
                self.close(flow, Ended::Garbage);
            }
        }
        self.account(flow);
    }

    /// Gives a message to its shard, or keeps it while that has no room.
    fn hand(&mut self, flow: Flow, owner: u16, message: crate::shard::Handed) {
        let Some(neighbour) = self.parts.shards.get(usize::from(owner)) else { return };
        match neighbour.messages.try_send(message) {
            Ok(()) => {
                self.tally.messages.handed_over += 1;
                if let Some(woken) = self.woken.get_mut(usize::from(owner)) {
                    *woken = true;
                }
            }
            Err(TrySendError::Full(message)) => {
                self.tally.parked += 1;
                if let Some(connection) = self.connections.get_mut(&flow) {
                    connection.parked = Some((owner, message));
                    self.parked.push(flow);
                }
            }
            // The shard has stopped, and so does the node.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Offers again what found no room; a connection that is rid of it goes on.
    fn offer_parked(&mut self) {
        let now = self.parts.clock.now().mono;
        for flow in std::mem::take(&mut self.parked) {
            let Some((owner, message)) = self.connections.get_mut(&flow).and_then(|c| c.parked.take()) else {
                continue;
            };
            self.hand(flow, owner, message);
            if self.connections.get(&flow).is_some_and(|c| c.parked.is_none()) {
                self.cut(flow, now);
                self.schedule(flow);
            }
        }
    }

    /// Answers a message that could not be read, where that is possible.
    fn refuse(&mut self, flow: Flow, error: &ParseError, now: Instant) {
        self.tally.messages.refused(error.fault());
        let Some(peer) = self.connections.get(&flow).map(|connection| connection.peer) else { return };
        let (Some(status), Some(request)) = (error.status(), error.request()) else { return };
        let answer = ResponseBuilder::response_to(request, status, reason_of(status))
            .source(peer.remote)
            .to_tag(self.parts.tokens.tag().as_bytes())
            .finish();
        if let Ok(bytes) = answer {
            self.tally.messages.sent(&bytes);
            self.enqueue(flow, bytes, now);
        }
    }

    /// Counts what a connection holds; when all hold too much, this one ends.
    fn account(&mut self, flow: Flow) {
        let Some(connection) = self.connections.get_mut(&flow) else { return };
        let held = connection.buffered();
        self.buffered = self.buffered.saturating_sub(connection.accounted).saturating_add(held);
        connection.accounted = held;
        if held > 0 && self.buffered > self.parts.config.buffers_max_bytes {
            self.close(flow, Ended::Stalled);
        }
    }

    fn close(&mut self, flow: Flow, why: Ended) {
        let Some(mut connection) = self.connections.remove(&flow) else { return };
        let remote = connection.peer.remote;
        self.tally.ended(why);
        self.buffered = self.buffered.saturating_sub(connection.accounted);
        if self.by_remote.get(&remote) == Some(&flow) {
            self.by_remote.remove(&remote);
        }
        let source = remote.ip().to_canonical();
        if let Some(held) = self.per_source.get_mut(&source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.per_source.remove(&source);
            }
        }
        if let Err(error) = self.parts.poll.registry().deregister(&mut connection.stream) {
            tracing::debug!(%error, "a connection was not known to the poll");
        }
        self.untold.extend(connection.users);
    }

    fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + self.sweep_period;
        let config = &self.parts.config;
        let overdue: Vec<_> =
            self.connections.iter().filter_map(|(flow, c)| Some((*flow, c.overdue(now, config)?))).collect();
        for (flow, why) in overdue {
            self.close(flow, why);
        }
    }

    fn wake_shards(&mut self) {
        for (woken, neighbour) in self.woken.iter_mut().zip(&self.parts.shards) {
            if std::mem::take(woken) {
                neighbour.mailbox.wake();
            }
        }
    }

    /// Gives peers a moment to read the last that was sent to them.
    fn finish(&mut self, events: &mut Events) {
        let until = self.parts.clock.now().mono + FLUSH_MAX;
        loop {
            let left = until.saturating_duration_since(self.parts.clock.now().mono);
            if left.is_zero() || !self.connections.values().any(Connection::has_queue) {
                return;
            }
            self.wait(events, left);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    More,
    /// All shards have ended.
    Ended,
}
