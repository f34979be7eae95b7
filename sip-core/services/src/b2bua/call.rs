//! One call.

use std::time::{Duration, Instant};

use bytes::Bytes;
use media_engine::{MediaSession, Side};
use model::cause::ReleaseCause;
use model::event::fact::{Answered, CallSetup};
use model::time::{Now, Timestamp};
use sip_engine::digest::DigestClient;
use sip_engine::{ClientKey, Dialog, Peer, Retransmit, ServerKey};
use sip_message::Message;

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
    /// The INVITE is out; the callee may ring until then.
    Calling { until: Instant },
    /// The caller has its final answer, the callee's is waited for, but not longer than until then.
    Releasing { status: u16, cause: ReleaseCause, at: Timestamp, until: Instant },
    /// The callee has answered, the record is on its way to the disk.
    Answering { answer: Answer, until: Instant },
    /// Both have answered.
    Talking { answer: Answer, confirmation: Confirmation, interim_at: Instant, media_at: Instant, end_at: Instant },
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
    /// The last session that an 18x carried, for a 200 without one.
    pub early_sdp: Option<Bytes>,
    pub media: Option<MediaSession>,
    pub places: Box<dyn JournalPlaces>,
    /// Held for its drop.
    pub _slots: Slots,
    pub state: State,
    /// Its entry among the deadlines.
    pub scheduled: Option<Instant>,
}

impl Call {
    /// The dialog of a side, where there is one.
    pub fn dialog_mut(&mut self, side: Side) -> Option<&mut Dialog> {
        match (side, &mut self.state) {
            (Side::Caller, _) => Some(&mut self.caller.dialog),
            (Side::Callee, State::Answering { answer, .. } | State::Talking { answer, .. }) => Some(&mut answer.dialog),
            (Side::Callee, State::Calling { .. } | State::Releasing { .. }) => None,
        }
    }

    /// When it wants to be woken.
    pub fn deadline(&self) -> Instant {
        match &self.state {
            State::Calling { until } | State::Releasing { until, .. } | State::Answering { until, .. } => *until,
            State::Talking { confirmation, interim_at, media_at, end_at, .. } => {
                let next = (*interim_at).min(*media_at).min(*end_at);
                match confirmation {
                    Confirmation::Awaited(retransmit) => next.min(retransmit.next_timeout()),
                    Confirmation::Received => next,
                }
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
    match dialog.next_hop_address(peer.transport).filter(|_| routed || trunk) {
        Some(remote) => Peer { remote, ..peer },
        None => peer,
    }
}

/// Milliseconds between two readings of the monotonic clock.
pub(super) fn ms_between(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

/// A setting in milliseconds as a duration.
pub(super) fn ms(setting: u32) -> Duration {
    Duration::from_millis(u64::from(setting))
}
