//! Client transactions (RFC 3261, section 17.1; Accepted of RFC 6026, section 7.2).

use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::build::RequestBuilder;
use sip_message::{HeaderName, Message, Method};

use super::key::KeyHash;
use super::{ClientKey, Output, Timers, TransactionEvent};
use crate::Peer;

/// States and the timers that belong to them. `repeat` is A or E, `give_up` B or F.
#[derive(Debug, Clone)]
enum State {
    /// Calling or Trying: no response yet.
    Waiting {
        repeat: Option<(Instant, Duration)>,
        give_up: Instant,
    },
    /// A provisional response came. A non-INVITE still repeats each T2 and gives up; an INVITE only when cancelled.
    Proceeding {
        repeat: Option<Instant>,
        give_up: Option<Instant>,
    },
    /// A final response that is no 2xx to an INVITE; `ack` answers its retransmissions; D or K.
    Completed {
        ack: Option<Bytes>,
        until: Instant,
    },
    /// A 2xx to an INVITE; M.
    Accepted {
        until: Instant,
    },
    Over,
}

/// What a wish to cancel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CancelStep {
    Refused,
    Later,
    Now,
}

pub(super) struct Client {
    state: State,
    request: Bytes,
    peer: Peer,
    hash: KeyHash,
    is_invite: bool,
    /// This is a CANCEL of ours: its response concerns nobody.
    internal: bool,
    cancel_wanted: bool,
    /// The user learned of the end by Timeout already.
    told: bool,
    absorbs: bool,
}

impl Client {
    pub(super) fn start(
        now: Instant,
        timers: &Timers,
        message: &Message,
        peer: Peer,
        hash: KeyHash,
        internal: bool,
    ) -> Self {
        let repeat = (!peer.transport.is_reliable()).then(|| (now + timers.t1, timers.t1));
        Self {
            state: State::Waiting { repeat, give_up: now + timers.t1_64() },
            request: message.as_bytes().clone(),
            peer,
            hash,
            is_invite: *message.method() == Method::Invite,
            internal,
            cancel_wanted: false,
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

    pub(super) fn is_internal(&self) -> bool {
        self.internal
    }

    pub(super) fn was_told(&self) -> bool {
        self.told
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn fails_with(&self, peer: Peer) -> bool {
        let same = Peer { flow: None, ..self.peer } == Peer { flow: None, ..peer };
        // A request that named no connection went over whichever led there.
        let flow = self.peer.flow.is_none() || self.peer.flow == peer.flow;
        same && flow && matches!(self.state, State::Waiting { .. } | State::Proceeding { .. })
    }

    /// Says once, and of what, that from now on it only absorbs what comes again: an INVITE or not.
    pub(super) fn begins_to_absorb(&mut self) -> Option<bool> {
        let absorbs = matches!(self.state, State::Completed { .. } | State::Accepted { .. });
        if !absorbs || std::mem::replace(&mut self.absorbs, true) {
            return None;
        }
        // It is neither repeated nor cancelled any more.
        self.request = Bytes::new();
        Some(self.is_invite)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { repeat, give_up } => Some(repeat.map_or(*give_up, |(at, _)| at.min(*give_up))),
            State::Proceeding { repeat, give_up } => [*repeat, *give_up].into_iter().flatten().min(),
            State::Completed { until, .. } | State::Accepted { until } => Some(*until),
            State::Over => None,
        }
    }

    /// Takes a response; `true` when a CANCEL that waited for it must go out now.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        timers: &Timers,
        msg: Message,
        key: ClientKey,
        out: &mut Output,
    ) -> bool {
        let status = msg.status();
        let reliable = self.peer.transport.is_reliable();
        let mut send_cancel = false;
        match &mut self.state {
            State::Waiting { .. } | State::Proceeding { .. } if status < 200 => {
                let first = matches!(self.state, State::Waiting { .. });
                self.state = if self.is_invite {
                    let give_up = match &self.state {
                        State::Proceeding { give_up, .. } => *give_up,
                        _ => self.cancel_wanted.then(|| now + timers.t1_64()),
                    };
                    State::Proceeding { repeat: None, give_up }
                } else {
                    match &self.state {
                        State::Waiting { give_up, .. } => {
                            State::Proceeding { repeat: (!reliable).then(|| now + timers.t2), give_up: Some(*give_up) }
                        }
                        other => other.clone(),
                    }
                };
                send_cancel = first && self.is_invite && self.cancel_wanted;
                self.tell(key, msg, out);
            }
            State::Waiting { .. } | State::Proceeding { .. } if self.is_invite && status < 300 => {
                self.state = State::Accepted { until: now + timers.t1_64() };
                self.tell(key, msg, out);
            }
            State::Waiting { .. } | State::Proceeding { .. } => {
                let ack = if self.is_invite { ack_for(&self.request, &msg) } else { None };
                if let Some(ack) = &ack {
                    out.transmit(ack.clone(), self.peer);
                }
                self.state = if reliable {
                    State::Over
                } else {
                    let stay = if self.is_invite { timers.d } else { timers.t4 };
                    State::Completed { ack, until: now + stay }
                };
                self.tell(key, msg, out);
            }
            State::Completed { ack: Some(ack), .. } if (300..700).contains(&status) => {
                out.transmit(ack.clone(), self.peer);
            }
            State::Accepted { .. } if (200..300).contains(&status) => self.tell(key, msg, out),
            State::Completed { .. } | State::Accepted { .. } | State::Over => {}
        }
        send_cancel
    }

    fn tell(&self, key: ClientKey, msg: Message, out: &mut Output) {
        if !self.internal {
            out.event(TransactionEvent::Response { key, msg });
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, timers: &Timers, key: ClientKey, out: &mut Output) {
        match &mut self.state {
            State::Waiting { give_up, .. } if now >= *give_up => self.time_out(key, out),
            State::Waiting { repeat: Some((at, interval)), .. } if now >= *at => {
                out.transmit(self.request.clone(), self.peer);
                // Timer A doubles without bound (B ends it); timer E stops growing at T2.
                let doubled = interval.saturating_mul(2);
                *interval = if self.is_invite { doubled } else { doubled.min(timers.t2) };
                *at = now + *interval;
            }
            State::Proceeding { give_up: Some(give_up), .. } if now >= *give_up => self.time_out(key, out),
            State::Proceeding { repeat: Some(at), .. } if now >= *at => {
                out.transmit(self.request.clone(), self.peer);
                *at = now + timers.t2;
            }
            State::Completed { until, .. } | State::Accepted { until } if now >= *until => self.state = State::Over,
            _ => {}
        }
    }

    fn time_out(&mut self, key: ClientKey, out: &mut Output) {
        self.state = State::Over;
        self.told = true;
        if !self.internal {
            out.event(TransactionEvent::Timeout { key });
        }
    }

    /// RFC 3261, section 9.1: only an INVITE without a final response, and not before a provisional one.
    pub(super) fn want_cancel(&mut self, now: Instant, timers: &Timers) -> CancelStep {
        if !self.is_invite {
            return CancelStep::Refused;
        }
        match &mut self.state {
            State::Waiting { .. } => {
                self.cancel_wanted = true;
                CancelStep::Later
            }
            State::Proceeding { give_up, .. } => {
                give_up.get_or_insert(now + timers.t1_64());
                self.cancel_wanted = true;
                CancelStep::Now
            }
            State::Completed { .. } | State::Accepted { .. } | State::Over => CancelStep::Refused,
        }
    }

    /// The CANCEL for this INVITE: same Request-URI, Call-ID, From, To, CSeq number, top Via and Route.
    pub(super) fn cancel_request(&self) -> Option<Message> {
        let invite = Message::parse_datagram(self.request.clone()).ok()?;
        let to = invite.header(HeaderName::To)?;
        let bytes = derived(&invite, &Method::Cancel, to)?;
        Message::parse_datagram(bytes).ok()
    }
}

/// The ACK for a non-2xx final response (RFC 3261, section 17.1.1.3): the INVITE's, with the To of the response.
fn ack_for(invite: &Bytes, response: &Message) -> Option<Bytes> {
    let invite = Message::parse_datagram(invite.clone()).ok()?;
    derived(&invite, &Method::Ack, response.header(HeaderName::To)?)
}

fn derived(invite: &Message, method: &Method, to: &[u8]) -> Option<Bytes> {
    let mut builder = RequestBuilder::new(method, invite.request_uri())
        .header(HeaderName::Via, invite.values(HeaderName::Via).next()?)
        .base(invite.header(HeaderName::From)?, to, invite.call_id(), invite.cseq().ok()?.0, method, 70);
    for route in invite.headers(HeaderName::Route) {
        builder = builder.header(HeaderName::Route, route);
    }
    builder.finish().ok()
}
