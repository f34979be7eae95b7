//! One connection: its octets in both directions and how long each has taken.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use sip_engine::Peer;
use sip_message::stream::Framer;

use crate::config::TcpConfig;
use crate::shard::Handed;

/// How long a peer may take to accept a connection of ours: TCP asks three times within.
const CONNECT_MAX: Duration = Duration::from_secs(8);
/// Requesters that one connection remembers, to tell them when it is lost: each shard asks under one name or two. Who
/// finds no place learns of the loss by its timer.
const USERS_MAX: usize = 512;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed it, or the network did.
    Peer,
    /// No connection came about.
    Refused,
    /// Silent for too long.
    Idle,
    /// A message took too long to arrive.
    Slow,
    /// The peer does not read what it is sent, or all connections together hold too much.
    Stalled,
    /// What it sent is no SIP, or can't be cut into messages.
    Garbage,
    /// The code panicked at what it sent.
    Panic,
}

impl Ended {
    pub const ALL: [Self; 7] =
        [Self::Peer, Self::Refused, Self::Idle, Self::Slow, Self::Stalled, Self::Garbage, Self::Panic];

    /// The label in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Refused => "refused",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Garbage => "garbage",
            Self::Panic => "panic",
        }
    }
}

/// Octets came, or did not.
pub(super) enum Received {
    Octets(usize),
    Nothing,
    End,
}

pub(super) struct Connection {
    pub stream: TcpStream,
    /// The far end, with the name of this connection.
    pub peer: Peer,
    pub framer: Framer,
    /// A message whose shard has no room: nothing more is read until it has.
    pub parked: Option<(u16, Handed)>,
    /// It waits for its turn to be read.
    pub scheduled: bool,
    /// Octets that it holds, as they were last counted.
    pub accounted: usize,
    /// Shards that sent requests over it, and under which name of the peer.
    pub users: Vec<(u16, Peer)>,
    connected: bool,
    /// Accepted, and no whole message has come yet.
    unproven: bool,
    /// Nothing more is taken in; it ends when all is written and the peer has closed.
    closing: Option<Instant>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Octets of the first in the queue that are written.
    written: usize,
    opened_at: Instant,
    active_at: Instant,
    /// Since when a message is on its way in.
    reading_since: Option<Instant>,
    /// Since when the first octets in the queue wait.
    writing_since: Option<Instant>,
}

impl Connection {
    /// One that was accepted, or that is being opened.
    pub fn new(stream: TcpStream, peer: Peer, now: Instant, accepted: bool) -> Self {
        Self {
            stream,
            peer,
            framer: Framer::default(),
            parked: None,
            scheduled: false,
            accounted: 0,
            users: Vec::new(),
            connected: accepted,
            unproven: accepted,
            closing: None,
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            opened_at: now,
            active_at: now,
            reading_since: None,
            writing_since: None,
        }
    }

    /// Octets that it holds.
    pub fn buffered(&self) -> usize {
        self.framer.buffered().saturating_add(self.queued)
    }

    /// Whether more may be read from it.
    pub fn reads(&self) -> bool {
        self.connected && self.parked.is_none()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Remembers who is to be told when the connection is lost.
    pub fn used_by(&mut self, shard: u16, peer: Peer) {
        if self.users.len() < USERS_MAX && !self.users.contains(&(shard, peer)) {
            self.users.push((shard, peer));
        }
    }

    /// The system tells of the connection: whether it stands now.
    ///
    /// # Errors
    /// Why none came about.
    pub fn connect(&mut self) -> std::io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.connected)
    }

    /// Reads once.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Received::End,
                Ok(length) => Received::Octets(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Received::End,
            };
        }
    }

    /// Octets were cut into messages: `whole` when at least one was complete.
    pub fn progressed(&mut self, now: Instant, whole: bool) {
        if whole {
            self.unproven = false;
            self.active_at = now;
            self.reading_since = None;
        }
        if self.framer.is_within_message() {
            self.reading_since.get_or_insert(now);
        }
    }

    /// Puts octets behind those that wait; false when the peer reads too slowly for that.
    pub fn enqueue(&mut self, now: Instant, bytes: Bytes, config: &TcpConfig) -> bool {
        let queued = self.queued.saturating_add(bytes.len());
        if queued > config.write_queue_max_bytes {
            return false;
        }
        self.queued = queued;
        self.active_at = now;
        self.writing_since.get_or_insert(now);
        self.queue.push_back(bytes);
        true
    }

    /// Writes what the system takes; false when the connection is lost.
    pub fn flush(&mut self, now: Instant) -> bool {
        while self.connected {
            let Some(first) = self.queue.front() else { break };
            match self.stream.write(first.get(self.written..).unwrap_or_default()) {
                Ok(0) => return false,
                Ok(length) => {
                    self.written = self.written.saturating_add(length);
                    self.queued = self.queued.saturating_sub(length);
                    self.writing_since = Some(now);
                    if self.written >= first.len() {
                        self.queue.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.queue.is_empty() {
            self.writing_since = None;
            // Octets that were not read would make the system reset the connection, and the peer lose our answer: what
            // still comes is read and thrown away.
            if self.closing.is_some() && self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        true
    }

    /// Whether octets wait to be written.
    pub fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes nothing more in.
    pub fn close_when_written(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
        self.framer = Framer::default();
        self.reading_since = None;
    }

    /// Whether its time is over, and why.
    pub fn overdue(&self, now: Instant, config: &TcpConfig) -> Option<Ended> {
        let message_max = Duration::from_millis(u64::from(config.message_max_ms));
        let past = |since: Option<Instant>, max| since.is_some_and(|at| now.saturating_duration_since(at) > max);
        if !self.connected {
            return past(Some(self.opened_at), CONNECT_MAX).then_some(Ended::Refused);
        }
        if past(self.closing, message_max) {
            return Some(Ended::Garbage);
        }
        if past(self.writing_since, message_max) {
            return Some(Ended::Stalled);
        }
        // A message that waits for its shard is none that the peer sends slowly.
        let first_late = self.unproven && past(Some(self.opened_at), message_max);
        if self.parked.is_none() && (first_late || past(self.reading_since, message_max)) {
            return Some(Ended::Slow);
        }
        past(Some(self.active_at), Duration::from_secs(u64::from(config.idle_max_s))).then_some(Ended::Idle)
    }
}
