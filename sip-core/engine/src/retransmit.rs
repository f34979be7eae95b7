//! The 2xx of a UAS to an INVITE, repeated until its ACK (RFC 3261, section 13.3.1.4).
//!
//! The transaction does not repeat a 2xx (RFC 6026, section 7.1): end-to-end reliability is the user's job, and the
//! dialog knows when the ACK came. The owner drops the value then.

use std::time::Instant;

use bytes::Bytes;

use crate::Peer;
use crate::transaction::Timers;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this instant.
    Wait(Instant),
    /// Send these octets, then ask again.
    Send(Bytes, Peer),
    /// 64*T1 without an ACK: end the session.
    Expired,
}

/// A 2xx that waits for its ACK.
#[derive(Debug, Clone)]
pub struct Retransmit {
    bytes: Bytes,
    peer: Peer,
    interval: std::time::Duration,
    interval_max: std::time::Duration,
    next: Instant,
    end: Instant,
}

impl Retransmit {
    /// Begins when the 2xx is sent first; `peer` is [`crate::Transactions::response_peer`] of the INVITE.
    #[must_use]
    pub fn new(now: Instant, timers: &Timers, bytes: Bytes, peer: Peer) -> Self {
        Self {
            bytes,
            peer,
            interval: timers.t1,
            interval_max: timers.t2,
            next: now + timers.t1,
            end: now + timers.t1_64(),
        }
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: Instant) -> Due {
        if now >= self.end {
            return Due::Expired;
        }
        if now < self.next {
            return Due::Wait(self.next.min(self.end));
        }
        self.interval = self.interval.saturating_mul(2).min(self.interval_max);
        self.next = now + self.interval;
        Due::Send(self.bytes.clone(), self.peer)
    }

    /// When to ask next.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.next.min(self.end)
    }
}
