//! The commands of fault management.

/// A mutation of the fault folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Takes note of an alarm; it stays until its condition is gone. Cannot be taken back. Requires `alarm:write`.
    AlarmAcknowledge {
        /// The node of the alarm.
        node: String,
        /// Its number there.
        id: u32,
        /// A note for colleagues, up to 255 octets.
        note: String,
    },
    /// Tells one target of notifications every active alarm again, in a new epoch. Cannot be taken back. Requires
    /// `alarm:write`, and the whole installation.
    AlarmResync {
        /// The node whose alarms are told.
        node: String,
        /// The name of the target in the node's configuration.
        target: String,
    },
}

impl Command {
    /// The name in audit, idempotency and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AlarmAcknowledge { .. } => "alarm_acknowledge",
            Self::AlarmResync { .. } => "alarm_resync",
        }
    }
}
