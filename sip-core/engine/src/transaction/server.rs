//! Server transactions (RFC 3261, section 17.2; Accepted of RFC 6026, section 7.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::build::ResponseBuilder;
use sip_message::{HeaderName, Message};

use super::key::KeyHash;
use super::{Output, ServerKey, Timers, TransactionConfig, TransactionEvent};
use crate::{Peer, Transport};

#[derive(Debug, Clone)]
enum State {
    /// Trying or Proceeding: the last provisional response answers retransmissions. The user owes a final response; one
    /// that never comes must not keep the transaction for ever. It looks up each 64*T1, so that the timers of those
    /// that were answered don't pile up until then.
    Proceeding {
        last: Option<Bytes>,
        look: Instant,
        until: Instant,
    },
    /// A final response that is no 2xx to an INVITE. INVITE: G repeats it until the ACK, H gives up. Others: J.
    Completed {
        last: Bytes,
        repeat: Option<(Instant, Duration)>,
        until: Instant,
    },
    /// The ACK came; I absorbs further ones. Or there is no final response to give.
    Confirmed {
        until: Instant,
    },
    /// A 2xx to an INVITE went out; L absorbs retransmissions of the INVITE.
    Accepted {
        until: Instant,
    },
    Over,
}

pub(super) struct Server {
    state: State,
    /// Where responses go.
    peer: Peer,
    hash: KeyHash,
    is_invite: bool,
    told: bool,
    absorbs: bool,
}

impl Server {
    pub(super) fn new(now: Instant, config: &TransactionConfig, is_invite: bool, peer: Peer, hash: KeyHash) -> Self {
        // RFC 4320, section 4.1: nobody waits longer than 64*T1 for the answer to a request that is no INVITE.
        let look = now + config.timers.t1_64();
        let until = if is_invite { now + config.invite_max } else { look };
        Self {
            state: State::Proceeding { last: None, look, until },
            peer,
            hash,
            is_invite,
            told: false,
            absorbs: false,
        }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn hash(&self) -> KeyHash {
        self.hash
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn was_told(&self) -> bool {
        self.told
    }

    /// Says once, and of what, that from now on it only absorbs what comes again: an INVITE or not.
    pub(super) fn begins_to_absorb(&mut self) -> Option<bool> {
        let absorbs = match self.state {
            State::Confirmed { .. } | State::Accepted { .. } => true,
            // that of an INVITE waits for its ACK
            State::Completed { .. } => !self.is_invite,
            State::Proceeding { .. } | State::Over => false,
        };
        if !absorbs || std::mem::replace(&mut self.absorbs, true) {
            return None;
        }
        Some(self.is_invite)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Proceeding { look, until, .. } => Some((*look).min(*until)),
            State::Over => None,
            State::Completed { repeat, until, .. } => Some(repeat.map_or(*until, |(at, _)| at.min(*until))),
            State::Confirmed { until } | State::Accepted { until } => Some(*until),
        }
    }

    pub(super) fn respond(&mut self, now: Instant, config: &TransactionConfig, response: Bytes, out: &mut Output) {
        let timers = &config.timers;
        let Some(status) = status_of(&response) else { return };
        let reliable = self.peer.transport.is_reliable();
        let success = (200..300).contains(&status);
        match &mut self.state {
            State::Proceeding { last, until, .. } if status < 200 => {
                *last = Some(response.clone());
                if self.is_invite {
                    *until = now + config.invite_max;
                }
                out.transmit(response, self.peer);
            }
            State::Proceeding { .. } if self.is_invite && success => {
                self.state = State::Accepted { until: now + timers.t1_64() };
                out.transmit(response, self.peer);
            }
            State::Proceeding { .. } => {
                out.transmit(response.clone(), self.peer);
                self.state = match (self.is_invite, reliable) {
                    (true, _) => State::Completed {
                        last: response,
                        repeat: (!reliable).then(|| (now + timers.t1, timers.t1)),
                        until: now + timers.t1_64(),
                    },
                    (false, true) => State::Over,
                    (false, false) => State::Completed { last: response, repeat: None, until: now + timers.t1_64() },
                };
            }
            State::Accepted { .. } if success => out.transmit(response, self.peer),
            State::Completed { .. } | State::Confirmed { .. } | State::Accepted { .. } | State::Over => {}
        }
    }

    /// There will be no final response: what comes again of the request is absorbed for as long as the client repeats it.
    pub(super) fn abandon(&mut self, now: Instant, timers: &Timers) {
        if matches!(self.state, State::Proceeding { .. }) {
            self.state = if self.peer.transport.is_reliable() {
                State::Over
            } else {
                State::Confirmed { until: now + timers.t1_64() }
            };
        }
    }

    /// The request came again.
    pub(super) fn retransmitted(&self, out: &mut Output) {
        match &self.state {
            State::Proceeding { last: Some(last), .. } | State::Completed { last, .. } => {
                out.transmit(last.clone(), self.peer);
            }
            State::Proceeding { last: None, .. } | State::Confirmed { .. } | State::Accepted { .. } | State::Over => {}
        }
    }

    /// An ACK with the branch of this INVITE; `false` when it is for a 2xx and so the user's.
    pub(super) fn ack(&mut self, now: Instant, timers: &Timers) -> bool {
        match self.state {
            State::Completed { .. } => {
                self.state = if self.peer.transport.is_reliable() {
                    State::Over
                } else {
                    State::Confirmed { until: now + timers.t4 }
                };
                true
            }
            State::Accepted { .. } => false,
            // An ACK before any final response means nothing.
            State::Proceeding { .. } | State::Confirmed { .. } | State::Over => true,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, timers: &Timers, key: ServerKey, out: &mut Output) {
        match &mut self.state {
            State::Proceeding { until, .. } if now >= *until => self.state = State::Over,
            State::Proceeding { look, .. } if now >= *look => *look = now + timers.t1_64(),
            State::Completed { until, .. } if now >= *until => {
                self.state = State::Over;
                if self.is_invite {
                    self.told = true;
                    out.event(TransactionEvent::AckTimeout { key });
                }
            }
            State::Completed { last, repeat: Some((at, interval)), .. } if now >= *at => {
                out.transmit(last.clone(), self.peer);
                *interval = interval.saturating_mul(2).min(timers.t2);
                *at = now + *interval;
            }
            State::Confirmed { until } | State::Accepted { until } if now >= *until => self.state = State::Over,
            _ => {}
        }
    }
}

/// The status of octets that we wrote ourselves.
fn status_of(response: &[u8]) -> Option<u16> {
    let digits = response.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    let status = sip_message::grammar::number(digits).ok()?;
    u16::try_from(status).ok().filter(|status| (100..700).contains(status))
}

/// Where responses go (RFC 3261, section 18.2.2; RFC 3581, section 4): back over the same stream; over UDP to the
/// source address, and there to the source port when `rport` asks for it, else to the port of sent-by. `maddr` is
/// not followed: it would let a stranger aim our responses.
pub(super) fn response_peer(request: &Message, peer: Peer, force_rport: bool) -> Peer {
    if peer.transport != Transport::Udp || force_rport {
        return peer;
    }
    match request.top_via() {
        Ok(via) if via.rport().is_none() => {
            let port = via.port.filter(|port| *port != 0).unwrap_or(peer.transport.default_port());
            peer.at(SocketAddr::new(peer.remote.ip(), port))
        }
        Ok(_) | Err(_) => peer,
    }
}

/// How long a client should stay away after a refusal for lack of room.
const OVERLOAD_RETRY_AFTER_S: &str = "5";

/// The stateless refusal when there is no room for a transaction (RFC 3261, section 21.5.4).
pub(super) fn overload(request: &Message, peer: Peer) -> Option<Bytes> {
    ResponseBuilder::response_to(request, 503, sip_message::reason_of(503))
        .source(peer.remote)
        .to_tag(b"overload")
        .header(HeaderName::RetryAfter, OVERLOAD_RETRY_AFTER_S)
        .finish()
        .ok()
}
