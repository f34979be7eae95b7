//! One shard: a thread that reads its socket, drives its core, and writes.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use mio::net::UdpSocket;
use mio::{Events, Poll};
use model::id::CallId;
use model::time::{Clock, Now};
use sip_engine::{Peer, Transport};
use sip_message::Message;
use sip_message::limits::MESSAGE_MAX;
use sip_services::{Core, Input, Output, Token, shard};

use crate::node::Drained;
use crate::ports::{Mailbox, NodeEvents};
use crate::tally::{Garbage, Reporter, Tally};
use crate::tcp::{Outgoing, TcpSender};

/// Datagrams of one turn, from the socket and from other shards each: then the core's timers get their turn.
const TURN_MAX: usize = 256;
/// Lost connections of one turn: each is looked for in all transactions.
const LOST_MAX: usize = 16;
/// Longest sleep: metrics are told once a second.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The socket's token in the poll.
pub(crate) const SOCKET: mio::Token = mio::Token(0);
/// The waker's token in the poll.
pub(crate) const WAKER: mio::Token = mio::Token(1);

/// What the rest of the process tells a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    Journaled { token: Token, committed: bool },
    DirectoryChanged,
    Drain,
    Hangup(CallId),
    Stop,
}

/// A message on its way to the shard that owns it.
pub(crate) type Handed = (Message, Peer);

/// Another shard, as this one sees it.
#[derive(Clone)]
pub(crate) struct Neighbour {
    pub messages: SyncSender<Handed>,
    /// Peers to which something was sent over a stream that is lost.
    pub lost: SyncSender<Peer>,
    pub mailbox: Mailbox,
}

pub(crate) struct Shard {
    pub index: u16,
    pub core: Core,
    pub poll: Poll,
    pub socket: UdpSocket,
    pub messages: Receiver<Handed>,
    pub controls: Receiver<Control>,
    pub lost: Receiver<Peer>,
    /// All shards by their number, this one included.
    pub neighbours: Vec<Neighbour>,
    pub clock: Arc<dyn Clock>,
    pub events: Arc<dyn NodeEvents>,
    pub drained: Arc<Drained>,
    pub tally: Tally,
    pub garbage: Arc<Garbage>,
    /// The way to the TCP connections, when there are any.
    pub tcp: Option<TcpSender>,
    pub buffer: Box<[u8]>,
}

impl Shard {
    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut reporter = Reporter::new(self.clock.now().mono);
        let mut more = false;
        loop {
            let now = self.clock.now();
            let until = self.core.next_timeout().map(|at| at.saturating_duration_since(now.mono));
            let sleep = if more { Duration::ZERO } else { until.unwrap_or(SLEEP_MAX).min(SLEEP_MAX) };
            if let Err(error) = self.poll.poll(&mut events, Some(sleep))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(shard = self.index, %error, "the shard can't wait for its socket");
            }
            let stop = self.take_controls();
            more = self.take_messages();
            more |= self.take_lost();
            more |= self.read();
            let now = self.clock.now();
            if self.core.next_timeout().is_some_and(|at| at <= now.mono) {
                self.handle(now, Input::Timeout);
            }
            self.guarded(now, Self::write);
            reporter.report(now.mono, &mut self.tally, self.core.stats(), &self.garbage);
            self.drained.look();
            if stop {
                return;
            }
        }
    }

    /// Hands an input to the core.
    fn handle(&mut self, now: Now, input: Input) {
        self.guarded(now, |shard| shard.core.handle(now, input));
    }

    /// Takes one step. A panic ends the call in hand, if there is one, and neither the shard nor its other calls.
    fn guarded(&mut self, now: Now, step: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            tracing::error!(shard = self.index, "a shard panicked at a message; the call that it was for was ended");
            if catch_unwind(AssertUnwindSafe(|| self.core.after_panic(now))).is_err() {
                tracing::error!(shard = self.index, "the call core panicked again while it ended that call");
            }
        }
    }

    fn take_controls(&mut self) -> bool {
        let mut stop = false;
        while let Ok(control) = self.controls.try_recv() {
            let now = self.clock.now();
            let input = match control {
                Control::Journaled { token, committed: true } => Input::JournalCommitted { token },
                Control::Journaled { token, committed: false } => Input::JournalFailed { token },
                Control::DirectoryChanged => Input::DirectoryChanged,
                Control::Drain => Input::Drain,
                Control::Hangup(call) => Input::Hangup { call },
                Control::Stop => {
                    stop = true;
                    Input::HangupAll
                }
            };
            self.handle(now, input);
        }
        stop
    }

    /// Takes what other shards have handed over; true when there may be more.
    fn take_messages(&mut self) -> bool {
        for _ in 0..TURN_MAX {
            let Ok((message, peer)) = self.messages.try_recv() else { return false };
            let now = self.clock.now();
            self.handle(now, Input::Message { message, peer });
            self.guarded(now, Self::write);
        }
        true
    }

    /// Tells the core of connections that are gone; true when there may be more.
    fn take_lost(&mut self) -> bool {
        for _ in 0..LOST_MAX {
            let Ok(peer) = self.lost.try_recv() else { return false };
            let now = self.clock.now();
            self.handle(now, Input::Unreachable { peer });
        }
        true
    }

    /// Reads the socket; true when there may be more. The poll tells only of what is new, so what is left must be
    /// remembered.
    fn read(&mut self) -> bool {
        let count = u16::try_from(self.neighbours.len()).unwrap_or(u16::MAX);
        let mut woken: u64 = 0;
        let mut more = true;
        for _ in 0..TURN_MAX {
            let (length, remote) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                // An ICMP error of an earlier datagram of ours.
                Err(_) => continue,
            };
            let bytes = Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
            let peer = Peer::udp(remote, 0);
            let now = self.clock.now();
            self.guarded(now, |shard| shard.datagram(now, bytes, peer, count, &mut woken));
            self.guarded(now, Self::write);
        }
        for (index, neighbour) in self.neighbours.iter().enumerate() {
            if woken & 1_u64.rotate_left(u32::try_from(index).unwrap_or(0)) != 0 {
                neighbour.mailbox.wake();
            }
        }
        more
    }

    /// Reads a datagram, and takes it or hands it to its owner.
    fn datagram(&mut self, now: Now, bytes: Bytes, peer: Peer, count: u16, woken: &mut u64) {
        match Message::parse_datagram(bytes) {
            Ok(message) => {
                self.tally.received(&message);
                let owner = shard::of_message(&message, count);
                if owner == self.index {
                    self.core.handle(now, Input::Message { message, peer });
                } else {
                    self.hand_over(owner, (message, peer), woken);
                }
            }
            Err(error) => {
                self.tally.refused(error.fault());
                self.core.handle(now, Input::Refused { error, peer });
            }
        }
    }

    fn hand_over(&mut self, owner: u16, message: Handed, woken: &mut u64) {
        let Some(neighbour) = self.neighbours.get(usize::from(owner)) else { return };
        match neighbour.messages.try_send(message) {
            Ok(()) => self.tally.handed_over += 1,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.tally.queue_full += 1,
        }
        // One bit for each shard; beyond 64 shards two share one and are woken together.
        *woken |= 1_u64.rotate_left(u32::from(owner));
    }

    /// Does what the core wants done.
    fn write(&mut self) {
        let mut streamed = false;
        while let Some(output) = self.core.poll() {
            match output {
                Output::Transmit { bytes, peer } => match peer.transport {
                    Transport::Udp => self.send_datagram(&bytes, peer),
                    Transport::Tcp => streamed |= self.send_stream(bytes, peer),
                    Transport::Tls | Transport::Ws | Transport::Wss => self.unreachable(&bytes, peer),
                },
                Output::RegistrationChanged(change) => self.events.registration_changed(change),
                Output::TrunkState { trunk, up, reason } => self.events.trunk_changed(trunk, up, reason),
            }
        }
        if let Some(tcp) = self.tcp.as_ref().filter(|_| streamed) {
            tcp.wake();
        }
    }

    fn send_datagram(&mut self, bytes: &Bytes, peer: Peer) {
        if bytes.len() > MESSAGE_MAX || self.socket.send_to(bytes, peer.remote).is_err() {
            // A full buffer or an unreachable peer: the transaction sends again or gives up.
            self.tally.send_failed += 1;
        } else {
            self.tally.sent(bytes);
        }
    }

    /// Queues a message for its connection; whether it was queued.
    fn send_stream(&mut self, bytes: Bytes, peer: Peer) -> bool {
        let outgoing = Outgoing { bytes: bytes.clone(), peer, shard: self.index };
        let queued = self.tcp.as_ref().is_some_and(|tcp| tcp.send(outgoing));
        if !queued {
            self.unreachable(&bytes, peer);
        }
        queued
    }

    /// A message that can't be sent. Over a stream nobody sends it again, so a request must not wait for its timer.
    fn unreachable(&mut self, bytes: &Bytes, peer: Peer) {
        self.tally.send_failed += 1;
        if !bytes.starts_with(b"SIP/2.0 ") {
            let now = self.clock.now();
            self.handle(now, Input::Unreachable { peer });
        }
    }
}
