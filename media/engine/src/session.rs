//! The vocabulary that services and relay share: a side, a session's handle, and what a session has counted.

use model::event::fact::MediaStats;

/// One side of a relayed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The leg of the caller (A).
    Caller,
    /// The leg of the callee (B).
    Callee,
}

impl Side {
    /// Both sides, caller first.
    pub const BOTH: [Self; 2] = [Self::Caller, Self::Callee];

    /// The side that hears what this one says.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }

    /// Position in arrays that hold one element per side.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Caller => 0,
            Self::Callee => 1,
        }
    }
}

/// A reserved relay session: a slot, and the generation of its use, so that a stale handle touches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaSession {
    /// The slot in the relay's pool.
    pub slot: u32,
    /// Which use of the slot this is.
    pub generation: u64,
}

/// What a session has counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediaSnapshot {
    /// The caller's leg.
    pub a: MediaStats,
    /// The callee's leg.
    pub b: MediaStats,
    /// For how long no RTP came from any leg that must be heard, milliseconds: since its last packet, or since media
    /// were to flow by the descriptions of both sides, whichever is later. Absent while none must be heard: before
    /// both descriptions are known, and while the call is on hold.
    pub silence_ms: Option<u64>,
}
