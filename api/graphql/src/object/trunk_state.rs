//! How a trunk stands in the call core of the node that answers.

use async_graphql::{Enum, SimpleObject};

use crate::scalar::Timestamp;
use crate::trunk_state;

/// How a trunk stands now, in the call core of the node that answers.
#[derive(Debug, SimpleObject)]
pub struct TrunkState {
    /// Whether calls may be sent there. A trunk that nothing watches counts as up.
    pub up: bool,
    /// Since when it is down.
    pub down_since: Option<Timestamp>,
    /// Why it is down: `unanswered`, `registration_refused`, `registration_expired`.
    pub down_reason: Option<String>,
    /// Our registration there; null when the carrier wants none.
    pub registration: Option<TrunkRegistrationState>,
}

/// How our registration at a carrier stands.
#[derive(Debug, SimpleObject)]
pub struct TrunkRegistrationState {
    /// Where it stands.
    pub status: TrunkRegistrationStatus,
    /// When it ends, unless it is refreshed before; while it is `REGISTERED`.
    pub expires_at: Option<Timestamp>,
    /// The SIP status of the refusal; while it is `REFUSED`.
    pub sip_status: Option<u32>,
}

/// Where our registration at a carrier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum TrunkRegistrationStatus {
    /// The first answer is still waited for.
    Pending,
    /// We are registered.
    Registered,
    /// The carrier refused; it is tried again.
    Refused,
    /// What was registered has ended, and the carrier does not answer.
    Expired,
}

impl From<trunk_state::TrunkState> for TrunkState {
    fn from(state: trunk_state::TrunkState) -> Self {
        Self {
            up: state.down.is_none(),
            down_since: state.down.map(|(since, _)| Timestamp(since)),
            down_reason: state.down.map(|(_, reason)| reason.to_owned()),
            registration: state.registration.map(Into::into),
        }
    }
}

impl From<trunk_state::TrunkRegistrationState> for TrunkRegistrationState {
    fn from(state: trunk_state::TrunkRegistrationState) -> Self {
        use trunk_state::TrunkRegistrationState as State;
        let (status, expires_at, sip_status) = match state {
            State::Pending => (TrunkRegistrationStatus::Pending, None, None),
            State::Registered(until) => (TrunkRegistrationStatus::Registered, Some(Timestamp(until)), None),
            State::Refused(status) => (TrunkRegistrationStatus::Refused, None, Some(u32::from(status))),
            State::Expired => (TrunkRegistrationStatus::Expired, None, None),
        };
        Self { status, expires_at, sip_status }
    }
}
