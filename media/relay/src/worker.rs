//! A relay thread: owns the sockets of its slots, waits for packets, relays and counts them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use media_engine::Side;
use media_engine::format::{self, FormatTable};
use media_engine::latch::Latch;
use media_engine::quality::LegMeter;
use media_engine::rtp::{PACKET_MAX, PacketKind, classify};
use metrics::Counter;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::Shared;
use crate::ports::{Pair, SessionSockets};
use crate::slot::Slot;

/// Events taken at one wake.
const EVENTS_MAX: usize = 1024;
/// Packets read from one socket before the others get their turn: half a second of a leg.
const BURST_MAX: usize = 25;
/// The token of the waker; sockets count from 0.
const WAKE: Token = Token(usize::MAX);
/// Sockets of a slot: caller RTP, caller RTCP, callee RTP, callee RTCP.
const SOCKETS: usize = 4;

/// RTCP comes every few seconds: its source is silent only after five times the minimum interval (RFC 3550, sections
/// 6.2 and 6.3.5), or a stranger could slip between two reports.
const RTCP_SILENCE_MS: u64 = 25_000;

/// What one side's stream has come to.
#[derive(Debug, Default)]
struct LegState {
    rtp: Latch,
    rtcp: Latch,
    meter: LegMeter,
    /// What the leg's description says of payload types, and that its RTCP is encrypted.
    formats: FormatTable,
    is_secure: bool,
    /// The version of the signalled address that the latches know.
    signalled: Option<u64>,
}

/// What a slot's current use has come to.
#[derive(Debug, Default)]
struct SlotState {
    generation: u64,
    legs: [LegState; 2],
}

impl SlotState {
    fn leg(&mut self, side: Side) -> &mut LegState {
        self.legs(side).0
    }

    /// The leg of a side, and the other.
    fn legs(&mut self, side: Side) -> (&mut LegState, &mut LegState) {
        let [caller, callee] = &mut self.legs;
        match side {
            Side::Caller => (caller, callee),
            Side::Callee => (callee, caller),
        }
    }

    /// Begins anew when the slot has a new use, and takes over addresses that were signalled meanwhile.
    fn sync(&mut self, slot: &Slot, generation: u64, now_ms: u64) {
        if self.generation != generation {
            *self = Self { generation, legs: Default::default() };
            slot.begin(generation);
        }
        for side in Side::BOTH {
            let leg = self.leg(side);
            if leg.signalled == Some(slot.remote(side).version()) {
                continue;
            }
            let Some((version, media)) = slot.remote(side).load() else { continue };
            leg.signalled = Some(version);
            if let Some(media) = media {
                leg.rtp.signal(media.rtp, now_ms);
                leg.rtcp.signal(media.rtcp_address(), now_ms);
                leg.formats = media.formats;
                leg.is_secure = media.is_secure;
            }
        }
    }
}

/// What became of the packets, for the metrics.
#[derive(Debug)]
struct Outcomes {
    relayed: Counter,
    /// From a source that the latch refuses.
    foreign: Counter,
    /// Neither RTP nor RTCP, or too large.
    garbage: Counter,
    /// No call on the port.
    idle: Counter,
    /// Nowhere to send it yet, or the system did not take it.
    unsent: Counter,
}

impl Outcomes {
    fn new() -> Self {
        let of = |outcome: &'static str| metrics::counter!("tandem_media_packets_total", "outcome" => outcome);
        Self {
            relayed: of("relayed"),
            foreign: of("foreign"),
            garbage: of("garbage"),
            idle: of("idle"),
            unsent: of("unsent"),
        }
    }
}

pub struct Worker {
    shared: Arc<Shared>,
    /// Number of the first slot.
    first: usize,
    poll: Poll,
    sockets: Vec<UdpSocket>,
    states: Vec<SlotState>,
    outcomes: Outcomes,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, first: usize, sessions: Vec<SessionSockets>) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let states = sessions.iter().map(|_| SlotState::default()).collect();
        let mut sockets: Vec<UdpSocket> = Vec::with_capacity(sessions.len().saturating_mul(SOCKETS));
        for Pair { rtp, rtcp, .. } in sessions.into_iter().flat_map(|session| session.sides) {
            for socket in [rtp, rtcp] {
                let mut socket = UdpSocket::from_std(socket);
                poll.registry().register(&mut socket, Token(sockets.len()), Interest::READABLE)?;
                sockets.push(socket);
            }
        }
        Ok((Self { shared, first, poll, sockets, states, outcomes: Outcomes::new() }, waker))
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = [0_u8; PACKET_MAX + 1];
        // Sockets that had more than a burst: edge-triggered readiness does not come again for what is left.
        let mut again: Vec<usize> = Vec::with_capacity(self.sockets.len());
        let mut unfinished: Vec<usize> = Vec::with_capacity(self.sockets.len());
        while !self.shared.stop.load(Ordering::Acquire) {
            let timeout = (!unfinished.is_empty()).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "a relay thread can't wait for packets and ends");
                    return;
                }
            }
            std::mem::swap(&mut again, &mut unfinished);
            let ready = events.iter().map(|event| event.token()).filter(|token| *token != WAKE).map(|Token(at)| at);
            for at in again.drain(..).chain(ready) {
                // A socket may be in both lists once; its second turn finds it empty.
                if !self.drain(at, &mut buffer) && unfinished.len() < unfinished.capacity() {
                    unfinished.push(at);
                }
            }
        }
    }

    /// Reads a burst from a socket; false when there may be more.
    fn drain(&mut self, at: usize, buffer: &mut [u8]) -> bool {
        for _ in 0..BURST_MAX {
            let Some(socket) = self.sockets.get(at) else { return true };
            match socket.recv_from(buffer) {
                Ok((length, source)) => {
                    let packet = buffer.get(..length).filter(|packet| packet.len() <= PACKET_MAX);
                    let now_us = self.shared.now_us();
                    self.packet(at, packet.unwrap_or_default(), source, now_us);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => tracing::debug!(%error, "a media socket reports an error"),
            }
        }
        false
    }

    fn packet(&mut self, at: usize, packet: &[u8], source: SocketAddr, now_us: u64) {
        let now_ms = now_us / 1_000;
        let slot_at = at / SOCKETS;
        let (side, on_rtcp) = match at % SOCKETS {
            0 => (Side::Caller, false),
            1 => (Side::Caller, true),
            2 => (Side::Callee, false),
            _ => (Side::Callee, true),
        };
        let Some(slot) = self.shared.slots.get(self.first.saturating_add(slot_at)) else { return };
        let Some(state) = self.states.get_mut(slot_at) else { return };
        let generation = slot.generation();
        if generation == 0 {
            self.outcomes.idle.increment(1);
            return;
        }
        state.sync(slot, generation, now_ms);
        let silence_ms = self.shared.silence_ms;
        let (leg, other) = state.legs(side);
        let kind = classify(packet);
        let accepted = match (kind, on_rtcp) {
            (PacketKind::Rtp(_), false) => leg.rtp.accept(source, now_ms, silence_ms),
            // A leg's reports come from the host that its voice comes from, or from the very place that its SDP names.
            (PacketKind::Rtcp, true) if !leg.rtp.may_be_on(source.ip()) && !leg.rtcp.is_signalled(source) => false,
            (PacketKind::Rtcp, true) => leg.rtcp.accept(source, now_ms, silence_ms.max(RTCP_SILENCE_MS)),
            // Multiplexed RTCP (RFC 5761) passes, but never moves the latch.
            (PacketKind::Rtcp, false) => leg.rtp.is_current(source),
            (PacketKind::Rtp(_), true) | (PacketKind::Other, _) => {
                self.outcomes.garbage.increment(1);
                return;
            }
        };
        if !accepted {
            self.outcomes.foreign.increment(1);
            return;
        }
        let counters = slot.counters(side);
        let rtp = match kind {
            PacketKind::Rtp(header) => {
                let format = format::find(header.payload_type, &other.formats, &leg.formats);
                leg.meter.rtp(&header, format, now_us);
                counters.note_packet(now_ms);
                true
            }
            PacketKind::Rtcp | PacketKind::Other => {
                if !leg.is_secure {
                    leg.meter.rtcp(&other.meter, packet, now_us);
                }
                false
            }
        };
        counters.publish(leg.meter.counts());
        let destination = if on_rtcp { other.rtcp.destination() } else { other.rtp.destination() };
        // The socket of the same kind on the other side.
        let out = self.sockets.get(at ^ 2);
        match destination.zip(out).map(|(destination, socket)| socket.send_to(packet, destination)) {
            Some(Ok(_)) => {
                if rtp {
                    other.meter.sent();
                    slot.counters(side.other()).publish(other.meter.counts());
                }
                self.outcomes.relayed.increment(1);
            }
            // Late voice is worthless: what the system does not take at once is dropped, not queued.
            Some(Err(_)) | None => self.outcomes.unsent.increment(1),
        }
    }
}
