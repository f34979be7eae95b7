//! What the call core of this node knows of a trunk, beside its settings.

use model::id::TrunkId;
use model::time::Timestamp;

/// Answers from memory, without a wait. It knows no scopes: it is asked for a trunk that the caller was shown.
pub trait TrunkStates: Send + Sync {
    /// How the trunk stands now; none when the call core is not there (it starts or stops).
    fn trunk_state(&self, trunk: TrunkId) -> Option<TrunkState>;
}

/// How a trunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrunkState {
    /// Since when it is down, and the name of the reason; none: calls may be sent there.
    pub down: Option<(Timestamp, &'static str)>,
    /// Our registration there; none: it wants none.
    pub registration: Option<TrunkRegistrationState>,
}

/// How our registration at a carrier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkRegistrationState {
    /// The first answer is still waited for.
    Pending,
    /// We are registered until then, unless it is refreshed before.
    Registered(Timestamp),
    /// The carrier refused with this SIP status; it is tried again.
    Refused(u16),
    /// What was registered has ended, and the carrier does not answer.
    Expired,
}
