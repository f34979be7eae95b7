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
}

impl Command {
    /// The name in audit, idempotency and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AlarmAcknowledge { .. } => "alarm_acknowledge",
        }
    }
}
