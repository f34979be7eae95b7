//! One call.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media_engine::{MediaSession, Side};
use model::cause::ReleaseCause;
use model::event::fact::{Answered, CallSetup};
use model::id::TrunkId;
use model::time::{Now, Timestamp};
use sip_engine::digest::DigestClient;
use sip_engine::{ClientKey, Dialog, Peer, Retransmit, ServerKey};
use sip_message::Message;

use super::renegotiate::Exchange;
use crate::limits::{CallSlot, Slots};
use crate::ports::JournalPlaces;

/// Names a call within its shard; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CallKey(pub u64);

/// The caller's leg.
pub(super) struct Caller {
    /// The INVITE's transaction.
    pub key: ServerKey,
    pub invite: Message,
    pub peer: Peer,
    /// Our tag.
    pub tag: String,
    pub dialog: Dialog,
    pub trunk: bool,
}

/// The callee's leg.
pub(super) struct Callee {
    /// The INVITE that counts: the first, or its repetition with credentials.
    pub client: ClientKey,
    pub peer: Peer,
    /// Our tag.
    pub tag: String,
    pub trunk: bool,
    /// For a trunk's challenges.
    pub credentials: Option<DigestClient>,
    pub challenged: bool,
}

/// What the callee has answered with.
pub(super) struct Answer {
    pub at: Now,
    pub dialog: Dialog,
    /// The callee's session as the caller gets it.
    pub sdp: Bytes,
    pub pdd_ms: i64,
    /// Counts the call as up, for heartbeats.
    pub _up: CallSlot,
}

/// Whether the caller has confirmed its 200.
pub(super) enum Confirmation {
    /// The 200 is repeated.
    Awaited(Retransmit),
    Received,
}

pub(super) enum State {
    /// The INVITE is out; the callee may ring until then. While other trunks could carry the call, this one has to
    /// show within `patience` that it is there.
    Calling { until: Instant, patience: Option<Instant> },
    /// The caller has its final answer, the callee's is waited for, but not longer than until then.
    Releasing { status: u16, cause: ReleaseCause, at: Timestamp, until: Instant },
    /// The callee has answered, the record is on its way to the disk.
    Answering { answer: Answer, until: Instant },
    /// Both have answered.
    Talking(Talk),
}

impl State {
    /// The answer is on the disk: what was answering talks. Any other state stays what it is.
    pub fn talk(self, talk: impl FnOnce(Answer) -> Talk) -> Self {
        match self {
            Self::Answering { answer, .. } => Self::Talking(talk(answer)),
            other => other,
        }
    }
}

/// An answered call.
pub(super) struct Talk {
    pub answer: Answer,
    pub confirmation: Confirmation,
    pub interim_at: Instant,
    pub media_at: Instant,
    pub end_at: Instant,
    /// The change of the session that is under way; one at a time.
    pub exchange: Option<Box<Exchange>>,
}

pub(super) struct Call {
    pub setup: CallSetup,
    pub invited: Now,
    /// INVITE to the first 180 or 183.
    pub pdd_ms: Option<i64>,
    /// A 180 came.
    pub rang: bool,
    pub caller: Caller,
    pub callee: Callee,
    /// The caller offered nothing: the callee's 200 offers, the caller's ACK answers (RFC 3261, section 13.2.1).
    pub delayed_offer: bool,
    /// What the caller offers, as the callee gets it.
    pub offer: Option<Bytes>,
    /// Hops that the callee's INVITE gets.
    pub hops: u8,
    /// The last session that an 18x carried, for a 200 without one.
    pub early_sdp: Option<Bytes>,
    /// Trunks that may still be tried, the next first.
    pub untried: VecDeque<TrunkId>,
    pub media: Option<MediaSession>,
    pub places: Box<dyn JournalPlaces>,
    /// Places on the caller's side, held for their drop.
    pub _caller_slots: Slots,
    /// Places on the callee's side; another trunk brings others.
    pub callee_slots: Slots,
    pub state: State,
    /// Its entry among the deadlines.
    pub scheduled: Option<Instant>,
}

impl Call {
    /// The dialog of a side, where there is one.
    pub fn dialog_mut(&mut self, side: Side) -> Option<&mut Dialog> {
        match (side, &mut self.state) {
            (Side::Caller, _) => Some(&mut self.caller.dialog),
            (Side::Callee, State::Answering { answer, .. }) => Some(&mut answer.dialog),
            (Side::Callee, State::Talking(talk)) => Some(&mut talk.answer.dialog),
            (Side::Callee, State::Calling { .. } | State::Releasing { .. }) => None,
        }
    }

    /// The answered call.
    pub fn talk_mut(&mut self) -> Option<&mut Talk> {
        match &mut self.state {
            State::Talking(talk) => Some(talk),
            State::Calling { .. } | State::Releasing { .. } | State::Answering { .. } => None,
        }
    }

    /// Where requests to a side go.
    pub fn peer_of(&mut self, side: Side) -> Option<Peer> {
        let (peer, trunk) = match side {
            Side::Caller => (self.caller.peer, self.caller.trunk),
            Side::Callee => (self.callee.peer, self.callee.trunk),
        };
        self.dialog_mut(side).map(|dialog| next_hop(dialog, peer, trunk))
    }

    /// A phone was heard from another place with a session that was accepted: that is where it is now. A trunk is
    /// reached at its Contact.
    pub fn moved(&mut self, side: Side, peer: Peer) {
        let (known, trunk) = match side {
            Side::Caller => (&mut self.caller.peer, self.caller.trunk),
            Side::Callee => (&mut self.callee.peer, self.callee.trunk),
        };
        if !trunk {
            *known = peer;
        }
    }

    /// When it wants to be woken.
    pub fn deadline(&self) -> Instant {
        match &self.state {
            State::Calling { until, patience } => patience.map_or(*until, |patience| patience.min(*until)),
            State::Releasing { until, .. } | State::Answering { until, .. } => *until,
            State::Talking(talk) => {
                let mut next = talk.interim_at.min(talk.media_at).min(talk.end_at);
                if let Confirmation::Awaited(retransmit) = &talk.confirmation {
                    next = next.min(retransmit.next_timeout());
                }
                talk.exchange.as_ref().map_or(next, |exchange| next.min(exchange.deadline()))
            }
        }
    }

    /// The `answered` record.
    pub fn answered(&self, answer: &Answer) -> Answered {
        Answered { setup: self.setup.clone(), answered_at: answer.at.utc, pdd_ms: answer.pdd_ms }
    }
}

/// Where requests within a dialog go: by the route set where there is one. Otherwise a phone is reached where its
/// requests come from, because its Contact may lie behind a NAT, and a trunk at its Contact.
pub(super) fn next_hop(dialog: &Dialog, peer: Peer, trunk: bool) -> Peer {
    let routed = dialog.next_hop() != dialog.target();
    dialog.next_hop_peer(peer).filter(|_| routed || trunk).unwrap_or(peer)
}

/// Milliseconds between two readings of the monotonic clock.
pub(super) fn ms_between(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

/// A setting in milliseconds as a duration.
pub(super) fn ms(setting: u32) -> Duration {
    Duration::from_millis(u64::from(setting))
}
